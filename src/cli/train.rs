//! `rectify train`: trains a net.

use super::Failure;

/// Trains a net
#[derive(Debug, Default, clap::Args)]
pub struct Args {}

/// Runs the subcommand.
pub fn run(_args: Args) -> Result<(), Failure> {
    Err(Failure::failed("train is not there yet"))
}
