//! `rectify bench-train`: times training steps.

use super::bench::failure;
use super::data::open;
use super::train::{fitted, model_failure};
use super::{Failure, say, with_threads};
use rectify::bench::{self, Options, TrainOptions, TrainProfile, TrainRecord};
use rectify::file::JsonFile;
use rectify::model::Model;
use rectify::nn::{LayerTime, Pass};
use rectify_kernels::Isa;
use std::path::PathBuf;

/// Times training steps of a net: the median of a few steps, after one that is not timed
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A built-in net (an unknown name lists them) or a TOML file
    #[arg(long, value_name = "NAME|FILE.toml")]
    pub model: String,
    /// Images to train on, varied as the model says: `shapes`, or a directory as `train` takes it; a built-in net is
    /// made to fit [default: random ones]
    #[arg(long, value_name = "shapes|PATH")]
    pub data: Option<String>,
    /// Images a step [default: what the model says]
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Threads [default: one for each logical processor]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Steps to time
    #[arg(long, value_name = "K", default_value_t = 5)]
    pub steps: usize,
    /// Seed of the weights, the images and the labels
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Says where the time of a step goes, by layer and pass, and what memory is held for
    #[arg(long)]
    pub profile: bool,
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
        profile: args.profile,
        isa,
    };
    options.validate().map_err(failure)?;
    let mut json = args.json.as_deref().map(JsonFile::create).transpose().map_err(Failure::failed)?;
    let open = |data| with_threads(Some(options.threads), || open(data, args.seed, &model, false));
    let data = args.data.as_deref().map(open).transpose()?;
    let model = match &data {
        Some(data) if Model::is_built_in(&args.model) => fitted(&model, data)?,
        _ => model,
    };
    let threads = if options.threads == 1 { "thread" } else { "threads" };
    let of = data.as_ref().map_or(String::new(), |data| format!(" on {}", data.name));
    say(format_args!("{}{of}, {isa}, {} {threads}", model.name, options.threads))?;
    let record = bench::train(&model, data.as_ref(), &options).map_err(failure)?;
    say(format_args!("{:>6} {:>6} {:>10} {:>10} {:>9}", "batch", "steps", "ms/step", "images/s", "peak MiB"))?;
    let (ms, peak) = (record.s_per_step * 1e3, record.peak_mib.map_or("-".into(), |mib| format!("{mib:.1}")));
    say(format_args!("{:>6} {:>6} {ms:>10.3} {:>10.1} {peak:>9}", record.batch, record.steps, record.images_per_s))?;
    if let Some(share) = record.wait_share {
        say(format_args!("waiting for images: {:.2} % of the time", 100.0 * share))?;
    }
    if let Some(profile) = &record.profile {
        times(profile)?;
        memory(profile, &record)?;
    }
    if let Some(json) = &mut json {
        json.line(&record).map_err(Failure::failed)?;
    }
    json.map_or(Ok(()), JsonFile::finish).map_err(Failure::failed)
}

/// Milliseconds of a step, a line a layer and a column a pass.
fn times(profile: &TrainProfile) -> Result<(), Failure> {
    let width = profile.layers.iter().map(|l| l.layer.chars().count()).max().unwrap_or(0).max("ms a step".len());
    let row = |name: &str, passes: &[f64; Pass::ALL.len()], seconds: f64, kernel: &str| {
        let columns: String = passes.iter().map(|s| cell(*s)).collect();
        let share = 100.0 * seconds / profile.s_per_step;
        say(format_args!("{name:<width$}{columns}{} {share:>5.1} %  {kernel}", cell(seconds)))
    };
    let names: String = Pass::ALL.iter().map(|(_, name)| format!("{name:>10}")).collect();
    say(format_args!("\n{:<width$}{names}{:>10}   share", "ms a step", "all"))?;
    profile.layers.iter().try_for_each(|l: &LayerTime| row(&l.layer, &l.passes, l.seconds, &l.kernel))?;
    let nothing = [0.0; Pass::ALL.len()];
    row("wait", &nothing, profile.wait, "for images")?;
    let all = profile.layers.iter().fold(nothing, |all, l| std::array::from_fn(|i| all[i] + l.passes[i]));
    let rest = profile.s_per_step - profile.wait - all.iter().sum::<f64>();
    row("other", &nothing, rest, "")?;
    row("step", &all, profile.s_per_step, "")
}

/// Milliseconds, or a dash for nothing.
fn cell(seconds: f64) -> String {
    if seconds == 0.0 { format!("{:>10}", "-") } else { format!("{:>10.2}", seconds * 1e3) }
}

/// MiB by kind; what is left to the peak is the process's own, and ends of huge pages.
fn memory(profile: &TrainProfile, record: &TrainRecord) -> Result<(), Failure> {
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    say(format_args!("\n{:<12}{:>10}", "memory", "MiB"))?;
    profile.memory.iter().try_for_each(|m| say(format_args!("{:<12}{:>10.1}", m.kind, mib(m.bytes))))?;
    let all: f64 = profile.memory.iter().map(|m| mib(m.bytes)).sum();
    match record.peak_mib {
        Some(peak) => {
            say(format_args!("{:<12}{:>10.1}", "other", peak - all))?;
            say(format_args!("{:<12}{peak:>10.1}", "peak"))
        }
        None => Ok(()),
    }
}
