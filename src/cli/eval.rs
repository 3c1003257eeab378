//! `rectify eval`: evaluates a checkpoint.

use super::{Failure, say, with_threads};
use rectify::checkpoint::Checkpoint;
use rectify::data;
use rectify::train::{self, Evaluator};
use rectify_kernels::Isa;
use std::path::PathBuf;

/// Evaluates a checkpoint on a data set's test images
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The checkpoint
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// `shapes`, or a directory: CIFAR-10 or CIFAR-100 in binary, train|test/CLASS/*.jpg|png, or IDX
    #[arg(long, value_name = "shapes|PATH", default_value = "shapes")]
    data: String,
    /// Threads [default: one for each processor core]
    #[arg(long)]
    threads: Option<usize>,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<(), Failure> {
    let isa = Isa::best().map_err(Failure::usage)?;
    with_threads(args.threads, || {
        let checkpoint = Checkpoint::load(&args.checkpoint).map_err(Failure::failed)?;
        let dataset = data::load(&args.data, checkpoint.progress.seed).map_err(Failure::failed)?;
        if dataset.classes != checkpoint.classes {
            return Err(Failure::failed(format_args!(
                "data set {:?} has other classes than the checkpoint's, {}",
                dataset.name,
                checkpoint.classes.join(", ")
            )));
        }
        let mut evaluator = Evaluator::new(&checkpoint.model, isa).map_err(Failure::failed)?;
        let result = evaluator.run(&checkpoint.parameters, &dataset.test, &checkpoint.normalise);
        let result = result.map_err(Failure::failed)?;
        say(format_args!(
            "{} on {}: test loss {:.4}, test accuracy {:.2} % ({} of {})",
            checkpoint.model.name,
            dataset.name,
            result.loss,
            100.0 * result.accuracy(),
            result.correct,
            result.images
        ))?;
        super::train::slope_table(&train::slopes(&checkpoint.model, &checkpoint.parameters))
    })
}
