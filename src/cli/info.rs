//! `rectify info`: describes the machine.

use super::Failure;

/// Describes the machine and what was chosen for it
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the subcommand.
pub fn run(_args: Args) -> Result<(), Failure> {
    Err(Failure::failed("info is not there yet"))
}
