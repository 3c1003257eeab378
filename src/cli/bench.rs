//! `rectify bench`: times convolutions.

use super::Failure;

/// Times convolutions against the machine's peak and checks them
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the subcommand.
pub fn run(_args: Args) -> Result<(), Failure> {
    Err(Failure::failed("bench is not there yet"))
}
