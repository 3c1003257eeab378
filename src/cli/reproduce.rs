//! `rectify reproduce`: the paper's findings once more, with small nets.

use super::train::{fitted, line, model_failure, progress, stop_on_ctrl_c};
use super::{Failure, say, with_threads};
use rectify::model::Model;
use rectify::reproduce::{CostOptions, ReproduceError, Run, RunRecord, Study, cost, cost_report, report};
use rectify::schedule::Schedule;
use rectify::train::{Event, TrainError, Trainer};
use rectify::{bench, data};
use rectify_kernels::Isa;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// Reproduces a finding of the paper with small nets: variants of one net, each with several seeds
///
/// Runs that are done are not done again, one that was stopped goes on: Ctrl-C ends after the step, with a
/// checkpoint, a second one at once. Each has a folder, OUT/NAME/VARIANT-seedN; OUT/NAME/ gets table.md, runs.jsonl and
/// plots.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The finding
    #[arg(value_enum)]
    name: Name,
    /// `shapes`, which the program draws itself, or a directory: CIFAR-10 or CIFAR-100 in binary,
    /// train|test|val/CLASS/*.jpg|jpeg|png, or IDX; cost needs none
    #[arg(long, value_name = "shapes|PATH")]
    data: Option<String>,
    /// Folder of all studies
    #[arg(long, value_name = "DIR", default_value = "runs/reproduce")]
    out: PathBuf,
    /// Runs of each variant, with the seeds 1 to N [default: 3]
    #[arg(long, value_name = "N")]
    seeds: Option<u32>,
    /// Passes through the training images [default: 8; depth: 3]
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,
    /// Stop each run after this many steps in all, with a checkpoint; cost: rounds to time [default: 40]
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Learning rate [default: 0.01; depth: 0.003]
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    lr: Option<f32>,
    /// constant, cosine, step:EPOCHS:FACTOR or plateau:EPOCHS:FACTOR [default: cosine; depth: constant]
    #[arg(long)]
    schedule: Option<Schedule>,
    /// The net that the variants are made of: a built-in one or a TOML file [default: e14-32; depth: e30-32; cost:
    /// e14-32, e14 with 16 images and cifar13]
    #[arg(long, value_name = "NAME|FILE.toml")]
    model: Option<String>,
    /// Threads [default: one for each logical processor]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// A finding of the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Name {
    /// Test error with ReLU, leaky ReLU, shared and channel-wise PReLU (Table 2)
    Prelu,
    /// The slopes that those nets have learned, layer by layer (Table 1): takes the runs of prelu, or trains them
    Slopes,
    /// A net of 30 layers with ReLU and the initial weights of He and of Xavier (Figure 3; of fewer with --model
    /// e14-32: Figure 2, in another --out)
    Depth,
    /// Time of a whole training step with each rectifier
    Cost,
}

/// The nets whose steps are timed, with the images of a step.
const TIMED: [(&str, usize); 3] = [("e14-32", 128), ("e14", 16), ("cifar13", 64)];

/// What the user asked for and cannot be is wrong usage; the rest is a failure.
fn failure(e: ReproduceError) -> Failure {
    match e {
        ReproduceError::Hyper(_) => Failure::usage(e),
        ReproduceError::Model(e) => model_failure(e),
        _ => Failure::failed(e),
    }
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<(), Failure> {
    let isa = Isa::best().map_err(Failure::usage)?;
    let study = match args.name {
        Name::Prelu => Study::Prelu,
        Name::Slopes => Study::Slopes,
        Name::Depth => Study::Depth,
        Name::Cost => return time(&args, isa),
    };
    let data = args.data.as_deref().ok_or_else(|| Failure::usage(format_args!("{study} needs --data")))?;
    with_threads(args.threads, || train(&args, study, data, isa))
}

/// Times steps: nothing is trained.
fn time(args: &Args, isa: Isa) -> Result<(), Failure> {
    let others = [
        ("--data", args.data.is_some()),
        ("--seeds", args.seeds.is_some()),
        ("--epochs", args.epochs.is_some()),
        ("--lr", args.lr.is_some()),
        ("--schedule", args.schedule.is_some()),
    ];
    if let Some((option, _)) = others.into_iter().find(|(_, given)| *given) {
        return Err(Failure::usage(format_args!("cost trains nothing: {option} is for the other findings")));
    }
    let options = CostOptions {
        rounds: args.steps.map_or(40, |steps| usize::try_from(steps).unwrap_or(usize::MAX)),
        threads: args.threads.unwrap_or(bench::Options::with_isa(isa).threads),
        isa,
    };
    let models = match &args.model {
        Some(name) => vec![Model::load(name).map_err(model_failure)?],
        None => {
            let load = |(name, batch)| {
                let mut model = Model::load(name)?;
                model.training.batch = batch;
                Ok(model)
            };
            TIMED.into_iter().map(load).collect::<Result<_, _>>().map_err(model_failure)?
        }
    };
    let mut records = Vec::new();
    for model in &models {
        records.push(cost(model, &options).map_err(failure)?);
        cost_report(&records, &args.out).map_err(failure)?;
    }
    say(cost_report(&records, &args.out).map_err(failure)?)?;
    say(format_args!("written to {}", args.out.join("cost").display()))
}

/// The net that the variants are made of, with the hyper-parameters that study and command line give.
fn base(args: &Args, study: Study) -> Result<Model, Failure> {
    let defaults = study.defaults();
    let mut model = Model::load(args.model.as_deref().unwrap_or(defaults.model)).map_err(model_failure)?;
    let training = &mut model.training;
    training.epochs = args.epochs.unwrap_or(defaults.epochs);
    training.lr = args.lr.unwrap_or(defaults.lr);
    training.schedule = args.schedule.unwrap_or(defaults.schedule);
    // Photos of many sizes are for other studies than these.
    (training.scale, training.colour) = (None, 0.0);
    training.check().map_err(Failure::usage)?;
    Ok(model)
}

fn train(args: &Args, study: Study, data: &str, isa: Isa) -> Result<(), Failure> {
    let (model, seeds) = (base(args, study)?, args.seeds.unwrap_or(3));
    // Before the data is read, which takes its time.
    study.runs(&model, seeds).map_err(|e| failure(e.into()))?;
    let dataset = data::load(data, 1).map_err(Failure::failed)?;
    let runs = study.runs(&fitted(&model, &dataset)?, seeds).map_err(|e| failure(e.into()))?;
    // All folders are looked at before anything is trained.
    let mut found: Vec<Option<RunRecord>> =
        runs.iter().map(|run| run.read(&args.out, &dataset)).collect::<Result<_, _>>().map_err(failure)?;
    let done = |found: &[Option<RunRecord>]| found.iter().flatten().filter(|r| r.finished).count();
    say(format_args!(
        "{study}: {} runs, {} done; {} training and {} test images, {} threads",
        runs.len(),
        done(&found),
        dataset.train.len(),
        dataset.test.len(),
        rayon::current_num_threads()
    ))?;
    let write = |found: &[Option<RunRecord>]| {
        let records: Vec<RunRecord> = found.iter().flatten().cloned().collect();
        report(study, &runs, &records, &args.out).map_err(failure)
    };
    let (stop, mut diverged) = (stop_on_ctrl_c()?, Vec::new());
    for (at, run) in runs.iter().enumerate() {
        let over = |r: &RunRecord| r.finished || args.steps.is_some_and(|limit| r.steps >= limit);
        if found[at].as_ref().is_some_and(over) {
            continue;
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        match one(args, run, &dataset, isa, &stop)? {
            Ok(record) => found[at] = Some(record),
            // It would again: a finding, and no reason to keep the other runs from theirs.
            Err(e) => diverged.push(e.to_string()),
        }
        write(&found)?;
    }
    say(format_args!("\n{}", write(&found)?))?;
    if done(&found) + diverged.len() < runs.len() {
        say(format_args!("{} of {} runs done: the same command goes on", done(&found), runs.len()))?;
    }
    say(format_args!("written to {}", args.out.join(study.name()).display()))?;
    if diverged.is_empty() { Ok(()) } else { Err(Failure::failed(diverged.join("; "))) }
}

/// Trains one run, or goes on with it; the inner error is that of a run that diverged.
fn one(
    args: &Args,
    run: &Run,
    dataset: &data::Dataset,
    isa: Isa,
    stop: &AtomicBool,
) -> Result<Result<RunRecord, ReproduceError>, Failure> {
    let epochs = run.model.training.epochs;
    let bar = progress((dataset.train.len() / run.model.training.batch) as u64)?;
    say(run.name())?;
    // A closed standard output ends the run, but only after its checkpoint is saved.
    let mut told = Ok(());
    let mut observe = |_: &Trainer<'_>, event: &Event<'_>| match event {
        Event::Step { epoch, step, loss, .. } => {
            bar.set_prefix(format!("{epoch}/{epochs}"));
            bar.set_message(format!("{loss:.4}"));
            bar.set_position(u64::from(*step));
        }
        Event::Epoch(record) => {
            told = bar.suspend(|| say(line(record, epochs)));
            if told.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
        }
    };
    let end = run.train(&args.out, dataset, (isa, args.steps, stop), &mut observe);
    bar.finish_and_clear();
    told?;
    match end {
        Err(e @ ReproduceError::Run { source: TrainError::Diverged { .. }, .. }) => Ok(Err(e)),
        end => end.map(Ok).map_err(failure),
    }
}
