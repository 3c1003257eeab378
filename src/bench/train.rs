//! Training steps: forward, loss, both backward passes and the update.

use super::{BenchError, machine, timing};
use crate::data::{Dataset, Feed, Normalise, Order};
use crate::hyper::require;
use crate::model::Model;
use crate::nn::{LayerTime, MemoryUse};
use crate::rng::{self, Rng};
use crate::train::Stepper;
use rectify_kernels::Isa;
use std::time::Instant;

/// Learning rate of the timed steps. It costs what any other does, and is so small that the loss of random labels
/// stays finite, whatever the net.
const LR: f32 = 1e-6;

/// How to measure training steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainOptions {
    /// Images a step, at most 65536.
    pub batch: usize,
    /// Threads, of a pool of their own.
    pub threads: usize,
    /// Steps that are timed, at most 65536; one more goes before them.
    pub steps: usize,
    /// Seed of the weights, the images and the labels.
    pub seed: u64,
    /// Whether to say where time and memory go.
    pub profile: bool,
    /// The instruction set.
    pub isa: Isa,
}

impl TrainOptions {
    /// Refuses what cannot be served.
    ///
    /// # Errors
    /// [`BenchError::Hyper`], [`BenchError::Threads`], an instruction set that the processor lacks.
    pub fn validate(&self) -> Result<(), BenchError> {
        for (what, value) in [("batch", self.batch), ("steps", self.steps)] {
            require(what, value, |v| (1..=1 << 16).contains(v), "between 1 and 65536")?;
        }
        machine::check_threads(self.threads)?;
        Ok(self.isa.require().map(drop)?)
    }
}

/// The figures of a net's training steps. Serialised it has all of its fields but `profile`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct TrainRecord {
    /// Name of the net.
    pub model: String,
    /// Images a step.
    pub batch: usize,
    /// Threads that it ran on.
    pub threads: usize,
    /// The name of the instruction set.
    pub isa: &'static str,
    /// Steps that were timed.
    pub steps: usize,
    /// `batch / s_per_step`.
    pub images_per_s: f64,
    /// Median seconds of a step.
    pub s_per_step: f64,
    /// The largest resident memory of the process until then, in MiB; `None` where the system does not tell.
    pub peak_mib: Option<f64>,
    /// Name of the data set; `None` for random images.
    pub data: Option<String>,
    /// The share of the time that steps waited for their images; `None` for random ones.
    pub wait_share: Option<f64>,
    /// Where time and memory go, if asked for.
    #[serde(skip)]
    pub profile: Option<TrainProfile>,
}

/// Where a step's time and memory go.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainProfile {
    /// Mean seconds of a step, of all that were timed; what the layers do not account for is between them.
    pub s_per_step: f64,
    /// Seconds of one step, layer by layer.
    pub layers: Vec<LayerTime>,
    /// Seconds that a step waits for its images.
    pub wait: f64,
    /// What is held, by kind.
    pub memory: Vec<MemoryUse>,
}

/// Measures training steps of a net: on images of the standard normal distribution and random labels, or on the
/// training images of a data set in a random order, varied as the model says, their batches made ahead as [`Feed`]
/// does.
///
/// ```
/// use rectify::{bench, kernels::Isa, model::Model};
/// let options = bench::TrainOptions { batch: 2, threads: 1, steps: 1, seed: 1, profile: false, isa: Isa::best()? };
/// let record = bench::train(&Model::built_in("shapes-small")?, None, &options)?;
/// assert_eq!(record.images_per_s, 2.0 / record.s_per_step);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`BenchError`]: options out of bounds, a net that does not fit together, into memory or to the data, fewer images
/// than a batch, a loss that is not finite.
pub fn train(model: &Model, data: Option<&Dataset>, options: &TrainOptions) -> Result<TrainRecord, BenchError> {
    options.validate()?;
    let found = machine::pool(options.threads)?.install(|| time(model, data, options))?;
    let s_per_step = timing::median(found.seconds);
    Ok(TrainRecord {
        model: model.name.clone(),
        batch: options.batch,
        threads: options.threads,
        isa: options.isa.name(),
        steps: options.steps,
        images_per_s: options.batch as f64 / s_per_step,
        s_per_step,
        peak_mib: machine::peak_mib(),
        data: data.map(|d| d.name.clone()),
        wait_share: data.map(|_| found.profile.wait / found.profile.s_per_step),
        profile: options.profile.then_some(found.profile),
    })
}

/// Seconds of each timed step, and where they went.
struct Found {
    seconds: Vec<f64>,
    profile: TrainProfile,
}

/// What steps are given.
enum Source<'d> {
    Random(Vec<f32>, Vec<u32>),
    Data(Box<Feed<'d>>),
}

impl<'d> Source<'d> {
    fn new(model: &Model, data: Option<&'d Dataset>, options: &TrainOptions) -> Result<Source<'d>, BenchError> {
        let TrainOptions { batch, seed, .. } = *options;
        let Some(data) = data else {
            let mut rng = Rng::new(seed, rng::BENCH);
            let image_len: usize = model.input.iter().product();
            let pixels = (0..batch * image_len).map(|_| rng.normal()).collect();
            let classes = u32::try_from(model.classes()).unwrap_or(u32::MAX);
            return Ok(Source::Random(pixels, (0..batch).map(|_| rng.below(classes)).collect()));
        };
        let images = &data.train;
        let augment = model.training.augment();
        // Without an end: the last steps that are timed make batches ahead, too, as those of a long run do.
        let order = Order { seed, batch, shuffle: true, steps: u64::MAX };
        Ok(Source::Data(Box::new(Feed::new(images, Normalise::of(images)?, augment, order)?)))
    }
}

/// Refuses data that does not fit the model.
fn check(model: &Model, data: &Dataset, batch: usize) -> Result<(), BenchError> {
    let images = &data.train;
    let fits = [images.c, images.h, images.w] == model.input && model.classes() == data.classes.len();
    if fits && images.len() >= batch {
        return Ok(());
    }
    Err(BenchError::Data { data: data.name.clone(), model: model.name.clone(), batch })
}

fn time(model: &Model, data: Option<&Dataset>, options: &TrainOptions) -> Result<Found, BenchError> {
    let TrainOptions { batch, steps, seed, isa, .. } = *options;
    data.map_or(Ok(()), |data| check(model, data, batch))?;
    // Before the images, since it refuses what does not fit into memory.
    let mut stepper = Stepper::new(model, isa, batch, seed)?;
    let mut source = Source::new(model, data, options)?;
    stepper.lr = LR;
    let mut step = |number: usize, stepper: &mut Stepper| -> Result<(f64, f64), BenchError> {
        let (seconds, wait, loss) = match &mut source {
            Source::Random(pixels, labels) => {
                let start = Instant::now();
                let loss = stepper.step(pixels, labels)?.loss;
                (start.elapsed().as_secs_f64(), 0.0, loss)
            }
            Source::Data(feed) => {
                let start = Instant::now();
                let sums = feed.step(number as u64, |pixels, labels| stepper.step(pixels, labels))??;
                (start.elapsed().as_secs_f64(), feed.waited().as_secs_f64(), sums.loss)
            }
        };
        if loss.is_finite() { Ok((seconds, wait)) } else { Err(BenchError::Loss(loss)) }
    };
    step(0, &mut stepper)?;
    stepper.profile();
    let (mut seconds, mut wait) = (Vec::new(), 0.0);
    for number in 1..=steps {
        let (spent, waited) = step(number, &mut stepper)?;
        seconds.push(spent);
        wait += waited;
    }
    let mean = |sum: f64| sum / steps as f64;
    let mut layers = stepper.profile();
    for layer in &mut layers {
        layer.seconds = mean(layer.seconds);
        layer.passes = layer.passes.map(mean);
    }
    let s_per_step = mean(seconds.iter().sum());
    let profile = TrainProfile { s_per_step, layers, wait: mean(wait), memory: stepper.memory() };
    Ok(Found { seconds, profile })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_steps_are_timed_as_asked_for() {
        let model = Model::built_in("shapes-small").unwrap();
        let options = TrainOptions { batch: 1, threads: 1, steps: 3, seed: 1, profile: true, isa: Isa::Portable };
        let data = crate::data::shapes::dataset(1);
        for data in [None, Some(&data)] {
            let Found { seconds, profile } = time(&model, data, &options).unwrap();
            assert!(seconds.len() == 3 && seconds.iter().all(|&s| s > 0.0), "{seconds:?}");
            let spent: f64 = profile.layers.iter().map(|l| l.seconds).sum();
            assert!(spent > 0.0 && spent + profile.wait <= profile.s_per_step, "{profile:?}");
            assert_eq!(profile.wait > 0.0, data.is_some());
        }
    }

    #[test]
    fn data_that_does_not_fit_is_refused() {
        let data = crate::data::shapes::dataset(1);
        let model = Model::built_in("shapes-small").unwrap();
        let options = TrainOptions { batch: 1, threads: 1, steps: 1, seed: 1, profile: false, isa: Isa::Portable };
        for (model, batch) in [
            (model.fit([3, 32, 32], 7).unwrap(), 1),
            (model.fit([3, 40, 40], data.classes.len()).unwrap(), 1),
            (model.clone(), data.train.len() + 1),
        ] {
            let options = TrainOptions { batch, ..options.clone() };
            assert!(matches!(train(&model, Some(&data), &options), Err(BenchError::Data { .. })));
        }
    }
}
