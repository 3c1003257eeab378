//! The command line: one file a subcommand, exit codes (0 well, 1 failure, 2 wrong usage) and the one-line error.

use clap::{Parser, Subcommand};
use rectify::bench::machine;
use std::{fmt::Display, io::Write, process::ExitCode};

mod bench;
mod bench_infer;
mod bench_train;
mod data;
mod eval;
mod info;
mod init_study;
mod model;
mod reproduce;
mod train;

/// Trains and runs convolutional nets with learned rectifiers (PReLU) on CPUs, with the same bits everywhere.
///
/// Without a subcommand: `train` with its defaults.
#[derive(Debug, Parser)]
#[command(name = "rectify", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(train::Args),
    Eval(eval::Args),
    Bench(bench::Args),
    BenchInfer(bench_infer::Args),
    BenchTrain(bench_train::Args),
    Model(model::Args),
    InitStudy(init_study::Args),
    Reproduce(reproduce::Args),
    Info(info::Args),
}

/// What ends the command with an error line.
#[derive(Debug)]
pub enum Failure {
    /// The command line asks for something that does not exist or makes no sense: exit code 2.
    Usage(String),
    /// Something went wrong on the way: exit code 1.
    Failed(String),
}

impl Failure {
    /// Wrong usage, exit code 2.
    pub fn usage(e: impl Display) -> Failure {
        Failure::Usage(e.to_string())
    }
    /// A failure, exit code 1.
    pub fn failed(e: impl Display) -> Failure {
        Failure::Failed(e.to_string())
    }
}

/// Writes a line to stdout; a closed pipe is a failure like any other.
pub fn say(line: impl Display) -> Result<(), Failure> {
    writeln!(std::io::stdout().lock(), "{line}").map_err(|e| Failure::failed(format_args!("standard output: {e}")))
}

/// Runs `f` with that many threads; without a number, one for each logical processor.
pub fn with_threads<R: Send>(
    threads: Option<usize>,
    f: impl FnOnce() -> Result<R, Failure> + Send,
) -> Result<R, Failure> {
    machine::pool(threads.unwrap_or_else(machine::logical_processors)).map_err(Failure::usage)?.install(f)
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    let (line, code) = match Cli::try_parse() {
        Ok(cli) => match run(cli.command) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(Failure::Usage(line)) => (line, 2),
            Err(Failure::Failed(line)) => (line, 1),
        },
        Err(e) if e.use_stderr() => (first_paragraph(&e.to_string()), 2),
        Err(help) => {
            // Help goes to a pipe that may be closed already; nobody is left to tell then.
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    // As above, for stderr.
    let _ = writeln!(std::io::stderr().lock(), "error: {}", one_line(&line));
    ExitCode::from(code)
}

fn run(command: Option<Command>) -> Result<(), Failure> {
    match command.unwrap_or_else(|| Command::Train(train::Args::default())) {
        Command::Train(args) => train::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Bench(args) => bench::run(args),
        Command::BenchInfer(args) => bench_infer::run(args),
        Command::BenchTrain(args) => bench_train::run(args),
        Command::Model(args) => model::run(args),
        Command::InitStudy(args) => init_study::run(args),
        Command::Reproduce(args) => reproduce::run(args),
        Command::Info(args) => info::run(args),
    }
}

/// What clap says before it goes on about usage, without its prefix.
fn first_paragraph(text: &str) -> String {
    let text = text.split("\n\n").next().unwrap_or_default();
    text.strip_prefix("error: ").unwrap_or(text).to_owned()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn claps_errors_fit_on_a_line() {
        let e = Cli::try_parse_from(["rectify", "eval"]).unwrap_err().to_string();
        let line = one_line(&first_paragraph(&e));
        assert!(!line.contains('\n') && !line.contains("Usage") && !line.starts_with("error"), "{line}");
    }
}
