//! `rectify bench-infer`: times a net's forward pass.

use super::bench::failure;
use super::train::model_failure;
use super::{Failure, say};
use rectify::bench::{self, InferOptions, Options};
use rectify::file::JsonFile;
use rectify::model::Model;
use rectify_kernels::Isa;
use std::path::PathBuf;

/// Times the forward pass of a net with random weights on random images, from NCHW pixels to scores
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A built-in net (an unknown name lists them) or a TOML file
    #[arg(long, value_name = "NAME|FILE.toml")]
    pub model: String,
    /// Images in a batch
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub batch: usize,
    /// Threads [default: one for each logical processor]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Seconds of timed runs
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    pub seconds: f64,
    /// Compares the first image's scores with a naive computation in double precision, which takes long for a large
    /// net; exit code 1 if they differ
    #[arg(long)]
    pub check: bool,
    /// Says where the time goes, layer by layer
    #[arg(long)]
    pub profile: bool,
    /// Writes the figures as a line of JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<(), Failure> {
    let isa = Isa::best().map_err(Failure::usage)?;
    let threads = args.threads.unwrap_or(Options::with_isa(isa).threads);
    let (check, profile) = (args.check, args.profile);
    let options = InferOptions { batch: args.batch, threads, seconds: args.seconds, check, profile, isa };
    options.validate().map_err(failure)?;
    let model = Model::load(&args.model).map_err(model_failure)?;
    let mut json = args.json.as_deref().map(JsonFile::create).transpose().map_err(Failure::failed)?;
    say(format_args!("{}, {isa}, {threads} {}", model.name, if threads == 1 { "thread" } else { "threads" }))?;
    let r = bench::infer(&model, &options).map_err(failure)?;
    let error = |text: String| if args.check { format!(" {text:>9}") } else { String::new() };
    let head = error("max error".into());
    say(format_args!("{:>6} {:>10} {:>10} {:>9}{head}", "batch", "ms/batch", "images/s", "GFLOP/s"))?;
    let (ms, error) = (r.s_per_batch * 1e3, error(r.max_rel_err.map_or("-".into(), |e| format!("{e:.1e}"))));
    say(format_args!("{:>6} {ms:>10.3} {:>10.2} {:>9.1}{error}", r.batch, r.images_per_s, r.gflops))?;
    let width = r.profile.iter().map(|l| l.layer.chars().count()).max().unwrap_or(0);
    // Of the mean pass, whose layers these are: the figure above is of the median one.
    let whole: f64 = r.profile.iter().map(|l| l.seconds).sum();
    for l in &r.profile {
        let share = 100.0 * l.seconds / whole;
        say(format_args!("{:<width$} {:>10.3} ms {share:>5.1} %  {}", l.layer, l.seconds * 1e3, l.kernel))?;
    }
    if let Some(json) = &mut json {
        json.line(&r).map_err(Failure::failed)?;
    }
    json.map_or(Ok(()), JsonFile::finish).map_err(Failure::failed)?;
    r.failure.map_or(Ok(()), |why| Err(Failure::failed(why)))
}
