//! A net's forward pass on random images, from NCHW pixels to plain scores.

use super::{BenchError, machine, timing};
use crate::hyper::require;
use crate::init::Init;
use crate::memory;
use crate::model::Model;
use crate::nn::{LayerTime, Mode, Net, NetError, Parameters, Role, reference};
use crate::rng::{self, Rng};
use rectify_kernels::{Isa, layout};
use std::time::Instant;

/// Runs that are timed at least.
const RUNS: usize = 3;
/// The error of a score relative to the largest that is accepted: well above what the roundings of twenty layers give,
/// well below what a wrong index does.
const TOLERANCE: f64 = 1e-4;

/// How to measure a net's forward pass.
#[derive(Debug, Clone, PartialEq)]
pub struct InferOptions {
    /// Images in a batch, at most 65536.
    pub batch: usize,
    /// Threads, of a pool of their own.
    pub threads: usize,
    /// Seconds to spend on the timed runs; at least three are run.
    pub seconds: f64,
    /// Whether to compare the first image's scores with [`reference::forward`].
    pub check: bool,
    /// Whether to say where the time goes.
    pub profile: bool,
    /// The instruction set.
    pub isa: Isa,
}

impl InferOptions {
    /// Refuses what cannot be served.
    ///
    /// # Errors
    /// [`BenchError::Hyper`], [`BenchError::Seconds`], [`BenchError::Threads`], an instruction set that the processor
    /// lacks.
    pub fn validate(&self) -> Result<(), BenchError> {
        require("batch", self.batch, |v| (1..=1 << 16).contains(v), "between 1 and 65536")?;
        if !(0.0..=86400.0).contains(&self.seconds) {
            return Err(BenchError::Seconds(self.seconds));
        }
        machine::check_threads(self.threads)?;
        Ok(self.isa.require().map(drop)?)
    }
}

/// The figures of a net's forward pass. Serialised it has all of its fields but `failure` and `profile`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct InferRecord {
    /// Name of the net.
    pub model: String,
    /// Images in a batch.
    pub batch: usize,
    /// Threads that it ran on.
    pub threads: usize,
    /// The name of the instruction set.
    pub isa: &'static str,
    /// `batch / s_per_batch`.
    pub images_per_s: f64,
    /// Median seconds of a forward pass, from NCHW pixels to `batch × classes` scores.
    pub s_per_batch: f64,
    /// Effective GFLOP/s of the convolutions and fully connected layers: two for each multiplication.
    pub gflops: f64,
    /// Checked: the largest error of the first image's scores relative to the largest score, against `f64`.
    pub max_rel_err: Option<f64>,
    /// Why the check failed; `None` if it did not, or there was none.
    #[serde(skip)]
    pub failure: Option<String>,
    /// Seconds of one pass by layer, if asked for.
    #[serde(skip)]
    pub profile: Vec<LayerTime>,
}

/// Measures the forward pass of a net with weights from He's initialisation on images of the standard normal
/// distribution. Loading the weights is not timed.
///
/// ```
/// use rectify::{bench, kernels::Isa, model::Model};
/// let isa = Isa::best()?;
/// let options = bench::InferOptions { batch: 2, threads: 1, seconds: 0.0, check: true, profile: false, isa };
/// let record = bench::infer(&Model::built_in("shapes-small")?, &options)?;
/// assert_eq!(record.images_per_s, 2.0 / record.s_per_batch);
/// assert!(record.max_rel_err.is_some() && record.failure.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`BenchError`]: options out of bounds, a net that does not fit together or into memory. A check that fails is no
/// error: see [`InferRecord::failure`].
pub fn infer(model: &Model, options: &InferOptions) -> Result<InferRecord, BenchError> {
    options.validate()?;
    let mut model = model.clone();
    model.training.init = Init::He;
    let multiplications = model.multiplications().map_err(NetError::from)?;
    let Found { s_per_batch, max_rel_err, profile } =
        machine::pool(options.threads)?.install(|| measure(&model, options))?;
    Ok(InferRecord {
        batch: options.batch,
        threads: options.threads,
        isa: options.isa.name(),
        images_per_s: options.batch as f64 / s_per_batch,
        s_per_batch,
        gflops: 2e-9 * multiplications * options.batch as f64 / s_per_batch,
        max_rel_err,
        failure: max_rel_err.and_then(verdict),
        profile,
        model: model.name,
    })
}

/// What is wrong with an error, if anything; NaN is.
fn verdict(error: f64) -> Option<String> {
    let well = error <= TOLERANCE;
    (!well).then(|| format!("the scores are off by {error:.1e} of the largest, more than {TOLERANCE:.0e}"))
}

/// He's initial weights; batch norms with statistics of their own, as after training.
fn parameters(model: &Model) -> Result<Parameters, NetError> {
    let mut parameters = Parameters::initial(model, 0)?;
    for (place, p) in parameters.iter_mut().enumerate() {
        let (low, high) = match p.role {
            Role::Scale | Role::Variance => (0.5, 1.5),
            Role::Shift | Role::Mean => (-0.2, 0.2),
            Role::Weight | Role::Bias | Role::Slopes => continue,
        };
        let mut rng = Rng::at(0, rng::BENCH, 1, place as u64);
        p.value.iter_mut().for_each(|v| *v = rng.between(low, high));
    }
    Ok(parameters)
}

/// Median seconds of a pass, the error and the profile where they are asked for.
struct Found {
    s_per_batch: f64,
    max_rel_err: Option<f64>,
    profile: Vec<LayerTime>,
}

fn measure(model: &Model, options: &InferOptions) -> Result<Found, BenchError> {
    let &InferOptions { batch, seconds, check, isa, .. } = options;
    let parameters = parameters(model)?;
    let mut net = Net::new(model, isa, batch, Mode::Inference)?;
    net.load(&parameters)?;
    let mut rng = Rng::new(0, rng::BENCH);
    let image_len: usize = model.input.iter().product();
    memory::reserve([batch.saturating_mul(image_len)])?;
    let pixels: Vec<f32> = (0..batch * image_len).map(|_| rng.normal()).collect();
    let mut scores = vec![0.0; net.output().plain_len()];
    let mut once = || -> Result<f64, BenchError> {
        let start = Instant::now();
        net.forward(&parameters, &pixels, 0)?;
        layout::blocked_to_nchw(isa, net.output(), net.scores(), &mut scores)?;
        Ok(start.elapsed().as_secs_f64())
    };
    once()?;
    let (begin, mut samples) = (Instant::now(), Vec::new());
    while samples.len() < RUNS || begin.elapsed().as_secs_f64() < seconds {
        samples.push(once()?);
    }
    let passes = samples.len() as f64 + 1.0;
    let s_per_batch = timing::median(samples);
    let mut profile = if options.profile { net.profile() } else { Vec::new() };
    profile.iter_mut().for_each(|layer| layer.seconds /= passes);
    if !check {
        return Ok(Found { s_per_batch, max_rel_err: None, profile });
    }
    let want = reference::forward(model, &parameters, 1, &pixels[..image_len])?;
    let largest = want.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
    let error = |(&got, &want): (&f32, &f64)| (f64::from(got) - want).abs() / largest;
    // `f64::max` would pass a NaN by.
    let most = scores.iter().zip(&want).map(error).fold(0.0, |most, e| if e > most || e.is_nan() { e } else { most });
    Ok(Found { s_per_batch, max_rel_err: Some(most), profile })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_is_large_or_no_number_fails() {
        assert_eq!(verdict(1e-6), None);
        assert!(verdict(2e-4).is_some_and(|why| why.contains("2.0e-4")));
        assert!(verdict(f64::NAN).is_some());
    }
}
