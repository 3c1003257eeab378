//! One run of a study: its folder, and going on where it was stopped.

use super::{ReproduceError, Study, Variant, initial};
use crate::bench::machine::processor_seconds;
use crate::checkpoint::Checkpoint;
use crate::data::{Dataset, Normalise};
use crate::file::{self, FileError};
use crate::model::{Model, Training};
use crate::train::{EpochRecord, Event, RunFolder, Slopes, StepRecord, TrainError, Trainer};
use rectify_kernels::Isa;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Points of a loss curve, at most.
const POINTS: u64 = 100;

/// A variant of a net with a seed.
#[derive(Debug, Clone)]
pub struct Run {
    /// The study that it is part of.
    pub study: Study,
    /// Name of the variant.
    pub variant: &'static str,
    /// Seed of everything random.
    pub seed: u64,
    /// The variant's net.
    pub model: Model,
}

/// A line of `steps.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepLine {
    step: u64,
    lr: f32,
    loss: f64,
    accuracy: f64,
    /// From the end of the step before to the end of this one.
    seconds: f64,
    /// The processor's, of all threads; where the system tells.
    processor_seconds: Option<f64>,
}

/// What is known of a run: a line of `runs.jsonl`. What took time is in the last two fields alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunRecord {
    /// Name of the study whose folder the run is in.
    pub study: &'static str,
    /// Name of the variant.
    pub variant: &'static str,
    /// Seed of everything random.
    pub seed: u64,
    /// Name of the net.
    pub model: String,
    /// Its hyper-parameters.
    pub training: Training,
    /// Name of the data set.
    pub dataset: String,
    /// Its classes.
    pub classes: usize,
    /// Steps done.
    pub steps: u64,
    /// Whether all epochs are done.
    pub finished: bool,
    /// The training loss.
    pub losses: Vec<LossPoint>,
    /// What was measured after each epoch.
    pub epochs: Vec<EpochLine>,
    /// Seconds that the steps took: neither evaluation nor pauses between two calls of the command.
    pub seconds: f64,
    /// Seconds of all processors in those steps; `None` where the system does not tell.
    pub processor_seconds: Option<f64>,
}

/// The training loss over a few steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LossPoint {
    /// The last of the steps, from 1.
    pub step: u64,
    /// Mean loss of their images, each before the step that it was part of.
    pub loss: f64,
}

/// What is known after an epoch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EpochLine {
    /// Number of the epoch, from 1.
    pub epoch: u32,
    /// Learning rate of the last step.
    pub lr: f32,
    /// Mean loss of the training images, each before the step that it was part of.
    pub train_loss: f64,
    /// Mean loss of the test images.
    pub test_loss: f64,
    /// Share of the test images that is classified wrongly.
    pub test_error: f64,
    /// The slopes of each layer that learns them.
    pub slopes: Vec<Slopes>,
}

impl EpochLine {
    fn of(r: &EpochRecord) -> EpochLine {
        let (epoch, lr, slopes) = (r.epoch, r.lr, r.slopes.clone());
        let (train_loss, test_loss, test_error) = (r.train_loss, r.test_loss, 1.0 - r.test_accuracy);
        EpochLine { epoch, lr, train_loss, test_loss, test_error, slopes }
    }
}

/// Seconds, and those of the processor, since the last look.
struct Clock(Instant, Option<f64>);

impl Clock {
    fn start() -> Clock {
        Clock(Instant::now(), processor_seconds())
    }

    fn lap(&mut self) -> (f64, Option<f64>) {
        let Clock(then, used) = std::mem::replace(self, Clock::start());
        (self.0.duration_since(then).as_secs_f64(), self.1.zip(used).map(|(now, then)| now - then))
    }
}

impl Run {
    pub(super) fn new(study: Study, variant: &Variant, base: &Model, seed: u64) -> Run {
        Run { study, variant: variant.name, seed, model: variant.of(base) }
    }

    /// `STUDY/VARIANT-seedN`.
    pub fn name(&self) -> String {
        format!("{}/{}-seed{}", self.study, self.variant, self.seed)
    }

    /// Its folder under that of all studies.
    pub fn folder(&self, out: &Path) -> PathBuf {
        out.join(self.study.name()).join(format!("{}-seed{}", self.variant, self.seed))
    }

    /// What there is of it already; nothing if it has not begun.
    ///
    /// # Errors
    /// [`ReproduceError::Foreign`] if the run in its folder was made with other settings; files that make no sense.
    pub fn read(&self, out: &Path, dataset: &Dataset) -> Result<Option<RunRecord>, ReproduceError> {
        let Some((checkpoint, folder, steps)) = self.open(out, dataset)? else { return Ok(None) };
        Ok(Some(self.record(checkpoint.progress.epoch, folder.records(), &steps, dataset)))
    }

    /// Trains until its epochs are done, `stop` is set or `limit` steps are done in all: from the beginning, or from
    /// where it was stopped, in the current rayon pool. The folder has a checkpoint at the end of each epoch and at the
    /// end of this call. `observe` hears what happens.
    ///
    /// # Errors
    /// As [`Run::read`]; what training says.
    pub fn train(
        &self,
        out: &Path,
        dataset: &Dataset,
        (isa, limit, stop): (Isa, Option<u64>, &AtomicBool),
        observe: &mut dyn FnMut(&Trainer<'_>, &Event<'_>),
    ) -> Result<RunRecord, ReproduceError> {
        let path = self.folder(out);
        let fault = |source| ReproduceError::Run { path: path.display().to_string(), source };
        let (mut trainer, mut folder, mut steps) = match self.open(out, dataset)? {
            Some((checkpoint, folder, steps)) => {
                (Trainer::resume(checkpoint, dataset, isa).map_err(fault)?, folder, steps)
            }
            None => {
                let parameters = initial(&self.model, self.seed)?;
                let trainer = Trainer::start(self.model.clone(), parameters, dataset, self.seed, isa).map_err(fault)?;
                let folder = RunFolder::create(&path).map_err(fault)?;
                // So that the folder is this run's from now on, however it ends.
                self.save(&path, &[])?;
                folder.save(&trainer.checkpoint()).map_err(fault)?;
                (trainer, folder, Vec::new())
            }
        };
        let mut clock = Clock::start();
        let mut hear = |trainer: &Trainer<'_>, event: Event<'_>| -> Result<(), TrainError> {
            match &event {
                Event::Step { done: StepRecord { step, lr, loss, accuracy }, .. } => {
                    let (seconds, processor_seconds) = clock.lap();
                    let (step, lr, loss, accuracy) = (*step, *lr, *loss, *accuracy);
                    steps.push(StepLine { step, lr, loss, accuracy, seconds, processor_seconds });
                    observe(trainer, &event);
                }
                Event::Epoch(record) => {
                    // The checkpoint last: what it does not know of is forgotten when the run goes on.
                    write_steps(&path, &steps)?;
                    folder.record(record, &trainer.checkpoint())?;
                    observe(trainer, &event);
                    clock = Clock::start();
                }
            }
            Ok(())
        };
        trainer.run(limit, stop, &mut hear).map_err(fault)?;
        self.save(&path, &steps)?;
        folder.save(&trainer.checkpoint()).map_err(fault)?;
        Ok(self.record(trainer.progress().epoch, folder.records(), &steps, dataset))
    }

    fn save(&self, path: &Path, steps: &[StepLine]) -> Result<(), ReproduceError> {
        write_steps(path, steps).map_err(|source| ReproduceError::Run { path: path.display().to_string(), source })
    }

    /// The run in the folder, checked; nothing if there is none.
    fn open(
        &self,
        out: &Path,
        dataset: &Dataset,
    ) -> Result<Option<(Checkpoint, RunFolder, Vec<StepLine>)>, ReproduceError> {
        let path = self.folder(out);
        let fault = |source| ReproduceError::Run { path: path.display().to_string(), source };
        let file = path.join(RunFolder::CHECKPOINT);
        if !file.exists() {
            return Ok(None);
        }
        let checkpoint = Checkpoint::load(&file)?;
        self.check(&path, &checkpoint, dataset)?;
        let folder = RunFolder::resume(&path, checkpoint.progress.epoch).map_err(fault)?;
        let steps = read_steps(&path, checkpoint.progress.steps)?;
        let (epochs, want) = (folder.records().len(), checkpoint.progress.epoch as usize);
        if epochs != want {
            let why = format!("has {epochs} epochs, but the checkpoint was made after {want}");
            return Err(ReproduceError::Folder { path: path.join("metrics.jsonl").display().to_string(), why });
        }
        Ok(Some((checkpoint, folder, steps)))
    }

    /// Refuses another run's checkpoint.
    fn check(&self, path: &Path, checkpoint: &Checkpoint, dataset: &Dataset) -> Result<(), ReproduceError> {
        let Checkpoint { model, normalise, classes, progress, .. } = checkpoint;
        let foreign = |what, found: String, asked: String| {
            Err(ReproduceError::Foreign { path: path.display().to_string(), what, found, asked })
        };
        if progress.seed != self.seed {
            return foreign("seed", progress.seed.to_string(), self.seed.to_string());
        }
        if model.training != self.model.training {
            let text = |t: &Training| serde_json::to_string(t).unwrap_or_else(|_| format!("{t:?}"));
            return foreign("settings", text(&model.training), text(&self.model.training));
        }
        if *model != self.model {
            let text = |m: &Model| format!("model {:?} of {} layers", m.name, m.layers.len());
            return foreign("another net,", text(model), text(&self.model));
        }
        let own = Normalise::of(&dataset.train).map_err(TrainError::from);
        let own = own.map_err(|source| ReproduceError::Run { path: path.display().to_string(), source })?;
        if *classes != dataset.classes || *normalise != own {
            return foreign("data set", format!("{:?} of old", checkpoint.dataset), format!("{:?}", dataset.name));
        }
        Ok(())
    }

    fn record(&self, epochs: u32, records: &[EpochRecord], steps: &[StepLine], dataset: &Dataset) -> RunRecord {
        let training = self.model.training.clone();
        let all = (dataset.train.len() / training.batch.max(1)) as u64 * u64::from(training.epochs);
        let every = all.div_ceil(POINTS).max(1) as usize;
        let point = |part: &[StepLine]| LossPoint {
            step: part.last().map_or(0, |s| s.step),
            loss: part.iter().map(|s| s.loss).sum::<f64>() / part.len() as f64,
        };
        RunRecord {
            study: self.study.name(),
            variant: self.variant,
            seed: self.seed,
            model: self.model.name.clone(),
            finished: epochs >= training.epochs,
            training,
            dataset: dataset.name.clone(),
            classes: dataset.classes.len(),
            steps: steps.len() as u64,
            losses: steps.chunks(every).map(point).collect(),
            epochs: records.iter().map(EpochLine::of).collect(),
            seconds: steps.iter().map(|s| s.seconds).sum(),
            processor_seconds: steps.iter().map(|s| s.processor_seconds).sum(),
        }
    }
}

fn write_steps(path: &Path, steps: &[StepLine]) -> Result<(), TrainError> {
    let file = path.join("steps.jsonl");
    let mut text = String::new();
    for step in steps {
        let fault = |e: serde_json::Error| TrainError::Folder { path: file.display().to_string(), why: e.to_string() };
        text += &serde_json::to_string(step).map_err(fault)?;
        text.push('\n');
    }
    Ok(file::write(&file, text.as_bytes())?)
}

/// The first so many steps: those that the checkpoint knows of.
fn read_steps(path: &Path, count: u64) -> Result<Vec<StepLine>, ReproduceError> {
    let file = path.join("steps.jsonl");
    let fault = |why| ReproduceError::Folder { path: file.display().to_string(), why };
    let text = std::fs::read_to_string(&file).map_err(FileError::at(&file))?;
    let mut steps = Vec::new();
    for (line, number) in text.lines().zip(1..=count) {
        let step: StepLine = serde_json::from_str(line).map_err(|e| fault(format!("line {number}: {e}")))?;
        if step.step != number {
            return Err(fault(format!("line {number}: is of step {}", step.step)));
        }
        steps.push(step);
    }
    if steps.len() as u64 != count {
        return Err(fault(format!("has {} steps, but the checkpoint was made after {count}", steps.len())));
    }
    Ok(steps)
}
