//! Training: the epoch loop, evaluation, the run folder.
//!
//! A run depends on the model, the data and the seed alone: stopping it and going on from the checkpoint, in the middle
//! of an epoch too, gives the same bytes as not stopping.

mod evaluate;
mod folder;
mod plot;
mod record;
mod stepper;
#[cfg(test)]
mod tests;

pub use evaluate::{Evaluation, Evaluator};
pub use folder::RunFolder;
pub use record::{EpochRecord, Event, Slopes, StepRecord, slopes};
pub use stepper::Stepper;

use crate::checkpoint::{Checkpoint, CheckpointError, Progress};
use crate::data::{DataError, Dataset, Feed, Images, Normalise, Order};
use crate::file::FileError;
use crate::hyper::HyperError;
use crate::model::{Model, ModelError};
use crate::nn::{NetError, Parameters};
use crate::optim::Sgd;
use crate::schedule;
use rectify_kernels::{Buffer, Isa};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Why training cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A hyper-parameter makes no sense.
    #[error(transparent)]
    Hyper(#[from] HyperError),
    /// The model is refused.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The net cannot be built or run.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The images are refused.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The model, the data and the checkpoint do not fit together.
    #[error("{0}")]
    Mismatch(String),
    /// A file of the run folder makes no sense.
    #[error("{path}: {why}")]
    Folder {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A loss or a parameter is infinite or no number.
    #[error("{what} became {value} in step {step}: the learning rate may be too high")]
    Diverged {
        /// The loss, the test loss or a parameter.
        what: &'static str,
        /// The mean loss of the step, that of the test images after the last step of an epoch, or a parameter.
        value: f64,
        /// Number of the step, from 1.
        step: u64,
    },
}

/// A training run.
pub struct Trainer<'d> {
    model: Model,
    dataset: &'d Dataset,
    normalise: Normalise,
    stepper: Stepper,
    evaluator: Evaluator,
    progress: Progress,
    feed: Feed<'d>,
}

/// Refuses images of another size than the model's, and none at all.
fn fits(model: &Model, images: &Images) -> Result<(), TrainError> {
    let [c, h, w] = model.input;
    if (images.c, images.h, images.w) != (c, h, w) {
        return Err(TrainError::Mismatch(format!(
            "the images are {}×{}×{}, but model {:?} takes {c}×{h}×{w}",
            images.c, images.h, images.w, model.name
        )));
    }
    Ok(images.check()?)
}

/// Refuses progress that no run with so many steps an epoch can have made.
fn check_progress(p: &Progress, per_epoch: usize, batch: usize) -> Result<(), TrainError> {
    let (step, epochs) = (u64::from(p.step), u64::from(p.epoch));
    let steps = epochs.saturating_mul(per_epoch as u64).saturating_add(step);
    if step > per_epoch as u64 || p.steps != steps {
        return Err(TrainError::Mismatch(format!(
            "no run has done {} epochs and {step} steps in {} steps, at {per_epoch} an epoch",
            p.epoch, p.steps
        )));
    }
    if p.correct > step.saturating_mul(batch as u64) || !p.loss.is_finite() {
        let (loss, correct) = (p.loss, p.correct);
        return Err(TrainError::Mismatch(format!(
            "no {step} steps have a loss of {loss} and {correct} correct answers"
        )));
    }
    if !(0.0..=1.0).contains(&p.schedule.factor) || u64::from(p.schedule.waited) > epochs {
        return Err(TrainError::Mismatch(format!("no schedule is at {:?} after {epochs} epochs", p.schedule)));
    }
    Ok(())
}

impl<'d> Trainer<'d> {
    /// A run from the beginning, in the current rayon pool.
    ///
    /// # Errors
    /// Hyper-parameters out of bounds; a model and data that do not fit; fewer training images than a batch.
    pub fn new(model: Model, dataset: &'d Dataset, seed: u64, isa: Isa) -> Result<Trainer<'d>, TrainError> {
        let parameters = Parameters::initial(&model, seed)?;
        Trainer::start(model, parameters, dataset, seed, isa)
    }

    /// As [`Trainer::new`], but from these parameters.
    ///
    /// # Errors
    /// As [`Trainer::new`]; parameters of another model.
    pub fn start(
        model: Model,
        parameters: Parameters,
        dataset: &'d Dataset,
        seed: u64,
        isa: Isa,
    ) -> Result<Trainer<'d>, TrainError> {
        model.training.check()?;
        let lens = |p: &Parameters| p.iter().map(|p| p.value.len()).collect::<Vec<usize>>();
        let want = Parameters::build::<ModelError>(&model, |_, _, shape| Ok(Buffer::zeroed(shape.iter().product())))?;
        if lens(&parameters) != lens(&want) {
            return Err(TrainError::Mismatch(format!("the parameters are not those of model {:?}", model.name)));
        }
        let normalise = Normalise::of(&dataset.train)?;
        let schedule = schedule::State::default();
        let progress = Progress { seed, epoch: 0, step: 0, steps: 0, loss: 0.0, correct: 0, schedule };
        let sgd = Sgd::new(&model.training, &parameters);
        Trainer::build(model, dataset, isa, normalise, (parameters, sgd, progress))
    }

    /// Goes on where a checkpoint was made, in the current rayon pool. `checkpoint.model.training` may ask for another
    /// number of epochs than before.
    ///
    /// # Errors
    /// As [`Trainer::new`]; data with other classes or another normalisation than the checkpoint's; progress that no
    /// run on it can have made.
    pub fn resume(checkpoint: Checkpoint, dataset: &'d Dataset, isa: Isa) -> Result<Trainer<'d>, TrainError> {
        let Checkpoint { model, parameters, velocity, progress, normalise, classes, .. } = checkpoint;
        model.training.check()?;
        if classes != dataset.classes || Normalise::of(&dataset.train)? != normalise {
            return Err(TrainError::Mismatch(format!(
                "data set {:?} is not the one that the checkpoint was trained on",
                dataset.name
            )));
        }
        let mut sgd = Sgd::new(&model.training, &parameters);
        for (to, from) in sgd.velocity_mut().iter_mut().zip(velocity) {
            *to = from;
        }
        Trainer::build(model, dataset, isa, normalise, (parameters, sgd, progress))
    }

    fn build(
        model: Model,
        dataset: &'d Dataset,
        isa: Isa,
        normalise: Normalise,
        (parameters, sgd, progress): (Parameters, Sgd, Progress),
    ) -> Result<Trainer<'d>, TrainError> {
        fits(&model, &dataset.train)?;
        fits(&model, &dataset.test)?;
        let (outputs, classes, batch) = (model.classes(), dataset.classes.len(), model.training.batch);
        if outputs != classes {
            return Err(TrainError::Mismatch(format!(
                "data set {:?} has {classes} classes, but model {:?} has {outputs}",
                dataset.name, model.name
            )));
        }
        if dataset.train.len() < batch {
            let images = dataset.train.len();
            return Err(TrainError::Mismatch(format!("batch = {batch}, but there are {images} training images")));
        }
        check_progress(&progress, dataset.train.len() / batch, batch)?;
        let evaluator = Evaluator::new(&model, isa)?;
        let stepper = Stepper::resume(&model, isa, batch, progress.seed, (parameters, sgd, progress.steps))?;
        let (training, seed) = (&model.training, progress.seed);
        let steps = u64::from(training.epochs).saturating_mul((dataset.train.len() / batch) as u64);
        let order = Order { seed, batch, shuffle: training.shuffle, steps };
        let feed = Feed::new(&dataset.train, normalise.clone(), training.augment(), order)?;
        Ok(Trainer { model, dataset, normalise, stepper, evaluator, progress, feed })
    }

    /// Trains until the epochs that the model asks for are done, `stop` is set or `limit` steps are done in all,
    /// whichever comes first. `observe` hears of each step and epoch; what it returns as an error ends the run.
    ///
    /// # Errors
    /// What `observe` says; a loss, or in the end a parameter, that is not finite.
    pub fn run(
        &mut self,
        limit: Option<u64>,
        stop: &AtomicBool,
        observe: &mut dyn FnMut(&Trainer<'d>, Event<'_>) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        while self.progress.epoch < self.model.training.epochs {
            let (first, start) = (self.progress.step, Instant::now());
            for _ in first..self.steps_per_epoch() {
                if stop.load(Ordering::Relaxed) || limit.is_some_and(|l| self.progress.steps >= l) {
                    return self.check_parameters();
                }
                let done = self.step()?;
                let loss = self.progress.loss / self.seen();
                let (step, of) = (self.progress.step, self.steps_per_epoch());
                observe(self, Event::Step { epoch: self.progress.epoch + 1, step, of, loss, done })?;
            }
            let images = f64::from(self.progress.step - first) * self.model.training.batch as f64;
            let record = self.end_epoch(images / start.elapsed().as_secs_f64().max(1e-9))?;
            observe(self, Event::Epoch(&record))?;
        }
        Ok(())
    }

    /// Steps in an epoch: full batches alone.
    pub fn steps_per_epoch(&self) -> u32 {
        (self.dataset.train.len() / self.model.training.batch) as u32
    }

    /// Images of this epoch so far.
    fn seen(&self) -> f64 {
        f64::from(self.progress.step) * self.model.training.batch as f64
    }

    /// Learning rate of a step of this epoch, after that many steps in all.
    fn rate(&self, steps: u64) -> f32 {
        let training = &self.model.training;
        let all = f64::from(training.epochs) * f64::from(self.steps_per_epoch());
        training.schedule.rate(training.lr, self.progress.epoch, steps as f64 / all, &self.progress.schedule)
    }

    fn step(&mut self) -> Result<StepRecord, TrainError> {
        let lr = self.rate(self.progress.steps);
        self.stepper.lr = lr;
        let stepper = &mut self.stepper;
        let sums = self.feed.step(self.progress.steps, |pixels, labels| stepper.step(pixels, labels))??;
        let images = self.model.training.batch as f64;
        let (loss, accuracy) = (sums.loss / images, sums.correct as f64 / images);
        self.progress.steps += 1;
        if !loss.is_finite() {
            return Err(TrainError::Diverged { what: "the loss", value: loss, step: self.progress.steps });
        }
        self.progress.step += 1;
        self.progress.loss += sums.loss;
        self.progress.correct += sums.correct as u64;
        Ok(StepRecord { step: self.progress.steps, lr, loss, accuracy })
    }

    /// No step has seen what the last one made of the parameters.
    fn check_parameters(&self) -> Result<(), TrainError> {
        let mut values = self.stepper.parameters().iter().flat_map(|p| p.value.iter());
        match values.find(|v| !v.is_finite()) {
            Some(&v) => Err(TrainError::Diverged { what: "a parameter", value: v.into(), step: self.progress.steps }),
            None => Ok(()),
        }
    }

    fn end_epoch(&mut self, images_per_s: f64) -> Result<EpochRecord, TrainError> {
        let seen = self.seen();
        self.check_parameters()?;
        let (test, steps) = (self.evaluate()?, self.progress.steps);
        if !test.loss.is_finite() {
            return Err(TrainError::Diverged { what: "the test loss", value: test.loss, step: steps });
        }
        let record = EpochRecord {
            epoch: self.progress.epoch + 1,
            steps,
            lr: self.rate(steps.saturating_sub(1)),
            train_loss: self.progress.loss / seen,
            train_accuracy: self.progress.correct as f64 / seen,
            test_loss: test.loss,
            test_accuracy: test.accuracy(),
            images_per_s,
            slopes: self.slopes(),
        };
        let progress = &mut self.progress;
        self.model.training.schedule.end_epoch(record.train_loss, &mut progress.schedule);
        progress.epoch += 1;
        (progress.step, progress.loss, progress.correct) = (0, 0.0, 0);
        Ok(record)
    }

    /// Loss and accuracy on the test images now.
    ///
    /// # Errors
    /// None that [`Trainer::new`] would not have given.
    pub fn evaluate(&mut self) -> Result<Evaluation, TrainError> {
        self.evaluator.run(self.stepper.parameters(), &self.dataset.test, &self.normalise)
    }

    /// The learned slopes, layer by layer.
    pub fn slopes(&self) -> Vec<Slopes> {
        slopes(&self.model, self.stepper.parameters())
    }

    /// How far the run has got.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The model that is trained.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// All that is needed to go on from here.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            model: self.model.clone(),
            parameters: self.stepper.parameters().clone(),
            velocity: self.stepper.sgd().velocity().to_vec(),
            progress: self.progress.clone(),
            normalise: self.normalise.clone(),
            dataset: self.dataset.name.clone(),
            classes: self.dataset.classes.clone(),
        }
    }
}
