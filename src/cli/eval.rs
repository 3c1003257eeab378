//! `rectify eval`: evaluates a checkpoint.

use super::Failure;

/// Evaluates a checkpoint on a data set's test images
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The checkpoint
    #[arg(long, value_name = "FILE")]
    pub checkpoint: std::path::PathBuf,
}

/// Runs the subcommand.
pub fn run(_args: Args) -> Result<(), Failure> {
    Err(Failure::failed("eval is not there yet"))
}
