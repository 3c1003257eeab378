//! The `rectify` command: trains and evaluates nets, and measures the kernels.
#![forbid(unsafe_code)]

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
