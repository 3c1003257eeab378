//! Training steps on random data: forward, loss, both backward passes and the update.

use super::{BenchError, machine, timing};
use crate::hyper::require;
use crate::model::Model;
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

/// The figures of a net's training steps. Serialised it has all of its fields.
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
}

/// Measures training steps of a net on images of the standard normal distribution and random labels.
///
/// ```
/// use rectify::{bench, kernels::Isa, model::Model};
/// let options = bench::TrainOptions { batch: 2, threads: 1, steps: 1, seed: 1, isa: Isa::best()? };
/// let record = bench::train(&Model::built_in("shapes-small")?, &options)?;
/// assert_eq!(record.images_per_s, 2.0 / record.s_per_step);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`BenchError`]: options out of bounds, a net that does not fit together or into memory, a loss that is not finite.
pub fn train(model: &Model, options: &TrainOptions) -> Result<TrainRecord, BenchError> {
    options.validate()?;
    let seconds = machine::pool(options.threads)?.install(|| time(model, options))?;
    let s_per_step = timing::median(seconds);
    Ok(TrainRecord {
        model: model.name.clone(),
        batch: options.batch,
        threads: options.threads,
        isa: options.isa.name(),
        steps: options.steps,
        images_per_s: options.batch as f64 / s_per_step,
        s_per_step,
        peak_mib: machine::peak_mib(),
    })
}

/// Seconds of each timed step.
fn time(model: &Model, options: &TrainOptions) -> Result<Vec<f64>, BenchError> {
    let TrainOptions { batch, steps, seed, isa, .. } = *options;
    let mut stepper = Stepper::new(model, isa, batch, seed)?;
    stepper.lr = LR;
    let mut rng = Rng::new(seed, rng::BENCH);
    let image_len: usize = model.input.iter().product();
    let pixels: Vec<f32> = (0..batch * image_len).map(|_| rng.normal()).collect();
    let classes = u32::try_from(model.classes()).unwrap_or(u32::MAX);
    let labels: Vec<u32> = (0..batch).map(|_| rng.below(classes)).collect();
    let mut step = || -> Result<f64, BenchError> {
        let start = Instant::now();
        let loss = stepper.step(&pixels, &labels)?.loss;
        let seconds = start.elapsed().as_secs_f64();
        if loss.is_finite() { Ok(seconds) } else { Err(BenchError::Loss(loss)) }
    };
    step()?;
    (0..steps).map(|_| step()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_steps_are_timed_as_asked_for() {
        let model = Model::built_in("shapes-small").unwrap();
        let options = TrainOptions { batch: 1, threads: 1, steps: 3, seed: 1, isa: Isa::Portable };
        let seconds = time(&model, &options).unwrap();
        assert!(seconds.len() == 3 && seconds.iter().all(|&s| s > 0.0), "{seconds:?}");
    }
}
