//! `rectify train`: trains a net.

use super::data::{is_folder, open};
use super::{Failure, say, with_threads};
use indicatif::{ProgressBar, ProgressStyle};
use rectify::checkpoint::{Checkpoint, load_parameters};
use rectify::data::Dataset;
use rectify::file::JsonFile;
use rectify::init::Init;
use rectify::model::{Model, ModelError, Training};
use rectify::schedule::Schedule;
use rectify::train::{EpochRecord, Event, RunFolder, Slopes, TrainError, Trainer};
use rectify_kernels::Isa;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Trains a net; without arguments, a small one on the embedded data set, in about a minute on two cores.
///
/// What is not given is what the model says. Ctrl-C ends the run after the step, with a checkpoint, a second one at
/// once.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// A built-in net (an unknown name lists them), made to fit the data, or a TOML file [default: shapes-small]
    #[arg(long, value_name = "NAME|FILE.toml", conflicts_with = "resume")]
    model: Option<String>,
    /// `shapes`, which the program draws itself, or a directory: CIFAR-10 or CIFAR-100 in binary,
    /// train|test|val/CLASS/*.jpg|jpeg|png, or IDX [default: shapes]
    #[arg(long, value_name = "shapes|PATH")]
    data: Option<String>,
    /// Passes through the training images
    #[arg(long)]
    epochs: Option<u32>,
    /// End after this many steps in all, with a checkpoint
    #[arg(long)]
    steps: Option<u64>,
    /// Images a step
    #[arg(long, conflicts_with = "resume")]
    batch: Option<usize>,
    /// Learning rate
    #[arg(long, conflicts_with = "resume", allow_hyphen_values = true)]
    lr: Option<f32>,
    /// Momentum
    #[arg(long, conflicts_with = "resume", allow_hyphen_values = true)]
    momentum: Option<f32>,
    /// Weight decay, never on slopes and biases
    #[arg(long, conflicts_with = "resume", allow_hyphen_values = true)]
    weight_decay: Option<f32>,
    /// Learning rate of slopes, as a multiple of that of all; 0 leaves them as they start
    #[arg(long, conflicts_with = "resume", value_name = "X", allow_hyphen_values = true)]
    slope_lr: Option<f32>,
    /// constant, cosine, step:EPOCHS:FACTOR or plateau:EPOCHS:FACTOR
    #[arg(long, conflicts_with = "resume")]
    schedule: Option<Schedule>,
    /// Initial weights: he, he-backward, he-slope, xavier or gaussian:STD
    #[arg(long, conflicts_with = "resume")]
    init: Option<Init>,
    /// Start with these weights: a safetensors file with PyTorch's names (features.0.weight), such as a checkpoint
    #[arg(long, conflicts_with_all = ["resume", "init"], value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Mirror half of the images (true or false)
    #[arg(long, conflicts_with = "resume")]
    flip: Option<bool>,
    /// Shift images by up to this many pixels; not photos, which --scale cuts at a random place already
    #[arg(long, conflicts_with = "resume", value_name = "PIXELS")]
    crop: Option<usize>,
    /// Scale the shorter side of photos to a random length between these, and cut the net's input out of them at a
    /// random place; the folder's images are then read one by one, each of its own size
    #[arg(long, conflicts_with = "resume", value_name = "FROM,TO", value_parser = scale)]
    scale: Option<[u32; 2]>,
    /// With --scale: alter the colours of photos along their principal components by this deviation, such as 0.1
    #[arg(long, conflicts_with = "resume", value_name = "X", allow_hyphen_values = true)]
    colour: Option<f32>,
    /// With --scale: leave out photos that cannot be decoded, rather than end with the first
    #[arg(long)]
    skip_broken: bool,
    /// Take the images in another random order each epoch, not in that of the data set (true or false)
    #[arg(long, conflicts_with = "resume")]
    shuffle: Option<bool>,
    /// Seed of everything random [default: 1]
    #[arg(long, conflicts_with = "resume")]
    seed: Option<u64>,
    /// Threads [default: one for each logical processor]
    #[arg(long)]
    threads: Option<usize>,
    /// Folder of the run, in which no other is [default: runs/MODEL, or the first free runs/MODEL-2, -3 and so on; with
    /// --resume the checkpoint's folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Writes a line of JSON for each step of this run, in place of what the file held: its number, learning rate, loss
    /// and accuracy
    #[arg(long, value_name = "FILE")]
    step_log: Option<PathBuf>,
    /// Go on from this checkpoint, with its model and its hyper-parameters
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
}

fn scale(text: &str) -> Result<[u32; 2], String> {
    let parts: Option<Vec<u32>> = text.split(',').map(|part| part.parse().ok()).collect();
    parts.and_then(|p| p.try_into().ok()).ok_or_else(|| "expected two lengths, such as 256,512".into())
}

/// A model that cannot be read, or is larger than memory, is a failure; one that makes no sense is wrong usage.
pub fn model_failure(e: ModelError) -> Failure {
    match e {
        ModelError::Read { .. } | ModelError::Memory(_) => Failure::failed(e),
        _ => Failure::usage(e),
    }
}

/// A net made to fit a data set.
pub fn fitted(model: &Model, dataset: &Dataset) -> Result<Model, Failure> {
    let input = [dataset.train.c, dataset.train.h, dataset.train.w];
    model.fit(input, dataset.classes.len()).map_err(Failure::failed)
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<(), Failure> {
    let isa = Isa::best().map_err(Failure::usage)?;
    with_threads(args.threads, || train(&args, isa))
}

/// What the first Ctrl-C from now on sets; a second one ends the process at once. Until then there is nothing to save,
/// and Ctrl-C does what it always does.
pub fn stop_on_ctrl_c() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    // Others may set `stop`, too.
    let (handler, before) = (stop.clone(), AtomicBool::new(false));
    let stopped = move || {
        if before.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED);
        }
        handler.store(true, Ordering::Relaxed);
    };
    ctrlc::set_handler(stopped).map_err(Failure::failed)?;
    Ok(stop)
}

/// Exit code of a process that an interrupt has ended, as shells give it.
const INTERRUPTED: i32 = 128 + 2;

fn train(args: &Args, isa: Isa) -> Result<(), Failure> {
    let data = args.data.as_deref().unwrap_or("shapes");
    let Some(file) = &args.resume else {
        let (mut model, seed) = (model(args)?, args.seed.unwrap_or(1));
        if !is_folder(data) {
            if args.scale.is_some() || args.colour.is_some() {
                return Err(Failure::usage(format_args!(
                    "{data}: --scale and --colour are for photos, in an image folder"
                )));
            }
            // What a net says of photos is of no use then.
            (model.training.scale, model.training.colour) = (None, 0.0);
        } else if model.training.scale.is_none() && model.training.colour != 0.0 {
            return Err(Failure::usage(format_args!(
                "colour {}: it alters photos that are read one by one, with --scale",
                model.training.colour
            )));
        } else if let (Some([from, to]), Some(crop @ 1..)) = (model.training.scale, args.crop) {
            return Err(Failure::usage(format_args!(
                "--crop {crop}: photos of scale {from},{to} are cut at a random place already"
            )));
        }
        let dataset = open(data, seed, &model, args.skip_broken)?;
        let model = if Model::is_built_in(&model.name) && args.model.as_ref().is_none_or(|m| *m == model.name) {
            fitted(&model, &dataset)?
        } else {
            model
        };
        let path = args.out.clone().unwrap_or_else(|| free(Path::new("runs"), &model.name));
        let trainer = match &args.weights {
            None => Trainer::new(model, &dataset, seed, isa),
            Some(file) => {
                let parameters = load_parameters(&model, file).map_err(Failure::failed)?;
                Trainer::start(model, parameters, &dataset, seed, isa)
            }
        };
        let trainer = trainer.map_err(Failure::failed)?;
        let folder = RunFolder::create(&path).map_err(Failure::failed)?;
        return go(args, trainer, folder, &dataset);
    };
    let mut checkpoint = Checkpoint::load(file).map_err(Failure::failed)?;
    if let Some(epochs) = args.epochs {
        checkpoint.model.training.epochs = epochs;
        checkpoint.model.training.check().map_err(Failure::usage)?;
        let (done, steps) = (checkpoint.progress.epoch, checkpoint.progress.step);
        if epochs < done || epochs == done && steps > 0 {
            let done = format!("{done} epochs and {steps} steps are done already");
            return Err(Failure::usage(format_args!("--epochs {epochs}: {done}")));
        }
    }
    let dataset = open(data, checkpoint.progress.seed, &checkpoint.model, args.skip_broken)?;
    let beside = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let path = args.out.as_deref().unwrap_or(beside);
    let trainer = Trainer::resume(checkpoint, &dataset, isa).map_err(Failure::failed)?;
    let folder = match (path.join(RunFolder::CHECKPOINT).canonicalize(), file.canonicalize()) {
        (Ok(a), Ok(b)) if a == b => RunFolder::resume(path, trainer.progress().epoch),
        // Another folder, or another file of this one, must not replace a run that is there.
        _ => RunFolder::create(path),
    };
    let folder = folder.map_err(Failure::failed)?;
    go(args, trainer, folder, &dataset)
}

/// The model with the hyper-parameters that the command line gives.
fn model(args: &Args) -> Result<Model, Failure> {
    let mut model = Model::load(args.model.as_deref().unwrap_or("shapes-small")).map_err(model_failure)?;
    let said = model.training;
    model.training = Training {
        epochs: args.epochs.unwrap_or(said.epochs),
        batch: args.batch.unwrap_or(said.batch),
        lr: args.lr.unwrap_or(said.lr),
        momentum: args.momentum.unwrap_or(said.momentum),
        weight_decay: args.weight_decay.unwrap_or(said.weight_decay),
        slope_lr: args.slope_lr.unwrap_or(said.slope_lr),
        schedule: args.schedule.unwrap_or(said.schedule),
        init: args.init.unwrap_or(said.init),
        flip: args.flip.unwrap_or(said.flip),
        crop: args.crop.unwrap_or(said.crop),
        scale: args.scale.or(said.scale),
        colour: args.colour.unwrap_or(said.colour),
        shuffle: args.shuffle.unwrap_or(said.shuffle),
    };
    model.training.check().map_err(Failure::usage)?;
    Ok(model)
}

/// The first of `name`, `name-2`, `name-3` and so on that is not there.
fn free(home: &Path, name: &str) -> PathBuf {
    let name = name.replace(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c), "_");
    let first = home.join(&name);
    let others = (2..).map(|i: u32| home.join(format!("{name}-{i}")));
    std::iter::once(first).chain(others).find(|p| !p.exists()).unwrap_or_else(|| home.join(&name))
}

fn go(args: &Args, mut trainer: Trainer<'_>, mut folder: RunFolder, dataset: &Dataset) -> Result<(), Failure> {
    let (training, steps) = (trainer.model().training.clone(), trainer.steps_per_epoch());
    say(format_args!(
        "{} on {}: {} training and {} test images of {} classes, {} epochs of {steps} steps of {} images, {} threads",
        trainer.model().name,
        dataset.name,
        dataset.train.len(),
        dataset.test.len(),
        dataset.classes.len(),
        training.epochs,
        training.batch,
        rayon::current_num_threads(),
    ))?;
    let bar = progress(u64::from(steps))?;
    let mut log = args.step_log.as_deref().map(JsonFile::create).transpose().map_err(Failure::failed)?;
    let stop = stop_on_ctrl_c()?;
    // A closed standard output ends the run, as a log that cannot be written does, but only after its checkpoint is
    // saved.
    let (mut told, mut logged) = (Ok(()), Ok(()));
    let mut observe = |trainer: &Trainer<'_>, event: Event<'_>| -> Result<(), TrainError> {
        match event {
            Event::Step { epoch, step, loss, done, .. } => {
                if let (Some(log), true) = (&mut log, logged.is_ok()) {
                    logged = log.line(&done);
                }
                if logged.is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
                bar.set_prefix(format!("{epoch}/{}", training.epochs));
                bar.set_message(format!("{loss:.4}"));
                bar.set_position(u64::from(step));
            }
            Event::Epoch(record) => {
                folder.record(record, &trainer.checkpoint())?;
                told = bar.suspend(|| say(line(record, training.epochs)));
                if told.is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    };
    let end = trainer.run(args.steps, &stop, &mut observe);
    bar.finish_and_clear();
    // The steps are wanted most where they ended badly.
    let logged = logged.and_then(|()| log.map_or(Ok(()), JsonFile::finish));
    end.map_err(Failure::failed)?;
    folder.save(&trainer.checkpoint()).map_err(Failure::failed)?;
    logged.map_err(Failure::failed)?;
    told?;
    let (done, path) = (trainer.progress(), folder.path().display());
    if done.epoch < training.epochs {
        say(format_args!("stopped in epoch {} after {} of {steps} steps", done.epoch + 1, done.step))?;
        say(format_args!("go on with: {}", going_on(args, &folder.checkpoint())))?;
    }
    slope_table(&trainer.slopes())?;
    say(format_args!("written to {path}"))
}

/// The command that goes on from a checkpoint, for a shell.
fn going_on(args: &Args, checkpoint: &Path) -> String {
    let mut line = format!("rectify train --resume {}", quoted(&checkpoint.to_string_lossy()));
    if let Some(data) = &args.data {
        line += &format!(" --data {}", quoted(data));
    }
    if args.skip_broken {
        line += " --skip-broken";
    }
    if let Some(threads) = args.threads {
        line += &format!(" --threads {threads}");
    }
    line
}

/// A word as a POSIX shell reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./+,:@%=".contains(c);
    match word.is_empty() || !word.chars().all(plain) {
        true => format!("'{}'", word.replace('\'', r"'\''")),
        false => word.to_owned(),
    }
}

/// The bar of an epoch of so many steps: its prefix is the epoch, its message the loss.
pub fn progress(steps: u64) -> Result<ProgressBar, Failure> {
    let bar = ProgressBar::new(steps);
    let style = ProgressStyle::with_template("epoch {prefix} {wide_bar} {pos}/{len} loss {msg} {eta}");
    bar.set_style(style.map_err(Failure::failed)?);
    Ok(bar)
}

/// What is said of an epoch.
pub fn line(r: &EpochRecord, epochs: u32) -> String {
    format!(
        "epoch {:>3}/{epochs}  loss {:.4}  accuracy {:>6.2} %  test loss {:.4}  test accuracy {:>6.2} %  {:.0} images/s",
        r.epoch,
        r.train_loss,
        100.0 * r.train_accuracy,
        r.test_loss,
        100.0 * r.test_accuracy,
        r.images_per_s
    )
}

/// The learned slopes, a line a layer.
pub fn slope_table(slopes: &[Slopes]) -> Result<(), Failure> {
    if slopes.is_empty() {
        return Ok(());
    }
    let width = slopes.iter().map(|s| s.layer.len()).max().unwrap_or(0).max("slopes".len());
    say(format_args!("{:<width$}     mean      min      max", "slopes"))?;
    slopes
        .iter()
        .try_for_each(|s| say(format_args!("{:<width$} {:>8.3} {:>8.3} {:>8.3}", s.layer, s.mean, s.min, s.max)))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_shell_reads_the_word_again() {
        let words = ["runs/a-1/x.safetensors", "", "my data", "it's"].map(quoted);
        assert_eq!(words, ["runs/a-1/x.safetensors", "''", "'my data'", r"'it'\''s'"]);
    }
}
