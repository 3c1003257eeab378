//! Softmax with cross-entropy, in `f64` with `libm`'s exponential and logarithm.
//!
//! Each sample stands alone. Its classes are taken in order: the largest logit `m`, the sum `Σ exp(zᵢ − m)` from zero,
//! the loss `ln Σ − (z_label − m)`. The samples' losses are added in order from zero.

use crate::error::check_len;
use crate::task::units;
use crate::{Dims, Error, LANES, blocks};
use rayon::prelude::*;

/// Samples whose losses wait on the stack to be added in order.
const TOGETHER: usize = 256;

/// Loss and hits of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LossSums {
    /// The cross-entropies of the samples in nats, summed.
    pub loss: f64,
    /// Samples whose largest logit is the label's; the first class wins ties, and a NaN logit is a miss.
    pub correct: usize,
}

/// One sample: its loss, whether its label has the largest logit, and its share of the gradient.
fn sample(logits: &[f32], label: usize, n: usize, gradient: Option<&mut [f32]>) -> (f64, bool) {
    let (mut best, mut max) = (0, f32::NEG_INFINITY);
    for (i, &z) in logits.iter().enumerate() {
        if z > max {
            (best, max) = (i, z);
        }
    }
    let exp = |z: f32| libm::exp(f64::from(z) - f64::from(max));
    let sum = logits.iter().fold(0.0, |sum, &z| sum + exp(z));
    if let Some(gradient) = gradient {
        gradient.fill(0.0);
        for (i, (g, &z)) in gradient.iter_mut().zip(logits).enumerate() {
            let target = if i == label { 1.0 } else { 0.0 };
            *g = ((exp(z) / sum - target) / n as f64) as f32;
        }
    }
    let loss = libm::log(sum) - (f64::from(logits[label]) - f64::from(max));
    (loss, best == label && !logits.iter().any(|z| z.is_nan()))
}

/// Cross-entropy of the softmax of the logits with the labels.
///
/// `classes` is `Dims { n, c, h: 1, w: 1 }`: `n` samples of `c` logits, blocked. `dlogits`, blocked like the logits,
/// becomes the gradient of the batch's mean loss, `(softmax − target) / n`, rounded once to `f32`; its padding lanes
/// become zero. A logit of +∞ gives NaN, and so do logits that are all −∞.
///
/// # Errors
/// A length that does not fit `classes`, a label that is no class.
pub fn softmax_cross_entropy(
    classes: Dims,
    logits: &[f32],
    labels: &[u32],
    dlogits: Option<&mut [f32]>,
) -> Result<LossSums, Error> {
    classes.check()?;
    if classes.plane() != 1 {
        return Err(Error::Shape { what: "h·w of the logits", value: classes.plane(), why: "must be 1" });
    }
    check_len("logits", logits.len(), classes.blocked_len())?;
    check_len("labels", labels.len(), classes.n)?;
    check_len("gradient", dlogits.as_ref().map_or(logits.len(), |d| d.len()), logits.len())?;
    if let Some((sample, &label)) = labels.iter().enumerate().find(|&(_, &l)| l as usize >= classes.c) {
        return Err(Error::Label { sample, label, classes: classes.c });
    }
    if classes.n == 0 {
        return Ok(LossSums::default());
    }
    let stride = blocks(classes.c) * LANES;
    let mut sums = LossSums::default();
    let mut each = [(0.0, false); TOGETHER];
    let mut dlogits = dlogits;
    for (part, (z, labels)) in logits.chunks(TOGETHER * stride).zip(labels.chunks(TOGETHER)).enumerate() {
        let each = &mut each[..labels.len()];
        // An exponential costs about as much as moving a hundred numbers.
        let samples = z.par_chunks(stride).zip(labels).zip(each.par_iter_mut()).with_min_len(units(100 * stride));
        let one = |z: &[f32], label: u32, gradient| sample(&z[..classes.c], label as usize, classes.n, gradient);
        match &mut dlogits {
            None => samples.for_each(|((z, &label), to)| *to = one(z, label, None)),
            Some(d) => {
                let d = &mut d[part * TOGETHER * stride..][..z.len()];
                let samples = samples.zip(d.par_chunks_mut(stride));
                samples.for_each(|(((z, &label), to), d)| *to = one(z, label, Some(d)));
            }
        }
        sums.loss = each.iter().fold(sums.loss, |sum, (loss, _)| sum + loss);
        sums.correct += each.iter().filter(|(_, hit)| *hit).count();
    }
    Ok(sums)
}

#[cfg(test)]
mod tests;
