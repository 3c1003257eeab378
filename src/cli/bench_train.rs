//! `rectify bench-train`: times training steps.

use super::Failure;

/// Times training steps of a net on random data
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the subcommand.
pub fn run(_args: Args) -> Result<(), Failure> {
    Err(Failure::failed("bench-train is not there yet"))
}
