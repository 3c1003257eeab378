//! `rectify bench-train`: times training steps.

use super::bench::failure;
use super::train::model_failure;
use super::{Failure, say};
use rectify::bench::{self, JsonFile, Options, TrainOptions};
use rectify::model::Model;
use rectify_kernels::Isa;
use std::path::PathBuf;

/// Times training steps of a net on random images and labels: the median of a few steps, after one that is not timed
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A built-in net (an unknown name lists them) or a TOML file
    #[arg(long, value_name = "NAME|FILE.toml")]
    pub model: String,
    /// Images a step [default: what the model says]
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Threads [default: one for each processor core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Steps to time
    #[arg(long, value_name = "K", default_value_t = 5)]
    pub steps: usize,
    /// Seed of the weights, the images and the labels
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Writes the figures as a line of JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<(), Failure> {
    let isa = Isa::best().map_err(Failure::usage)?;
    let model = Model::load(&args.model).map_err(model_failure)?;
    let options = TrainOptions {
        batch: args.batch.unwrap_or(model.training.batch),
        threads: args.threads.unwrap_or(Options::with_isa(isa).threads),
        steps: args.steps,
        seed: args.seed,
        isa,
    };
    options.validate().map_err(failure)?;
    let mut json = args.json.as_deref().map(JsonFile::create).transpose().map_err(failure)?;
    let threads = if options.threads == 1 { "thread" } else { "threads" };
    say(format_args!("{}, {isa}, {} {threads}", model.name, options.threads))?;
    let record = bench::train(&model, &options).map_err(failure)?;
    say(format_args!("{:>6} {:>6} {:>10} {:>10} {:>9}", "batch", "steps", "ms/step", "images/s", "peak MiB"))?;
    let (ms, peak) = (record.s_per_step * 1e3, record.peak_mib.map_or("-".into(), |mib| format!("{mib:.1}")));
    say(format_args!("{:>6} {:>6} {ms:>10.3} {:>10.1} {peak:>9}", record.batch, record.steps, record.images_per_s))?;
    if let Some(json) = &mut json {
        json.line(&record).map_err(failure)?;
    }
    json.map_or(Ok(()), JsonFile::finish).map_err(failure)
}
