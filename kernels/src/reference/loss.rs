//! Softmax with cross-entropy; see [`crate::loss`].

use crate::Error;
use crate::error::check_len;
use crate::loss::LossSums;
use crate::shape::product;
use num_traits::Float;

/// The loss of `labels.len()` samples of `classes` plain logits, and the gradient of its mean. Inside it is `f64`.
///
/// # Errors
/// A length that does not fit, a label that is no class.
pub fn softmax_cross_entropy<T: Float>(
    classes: usize,
    logits: &[T],
    labels: &[u32],
) -> Result<(LossSums, Vec<T>), Error> {
    check_len("logits", logits.len(), product("logits length", &[classes, labels.len()])?)?;
    let (mut sums, mut gradient) = (LossSums::default(), Vec::new());
    for (sample, &label) in labels.iter().enumerate() {
        if label as usize >= classes {
            return Err(Error::Label { sample, label, classes });
        }
        let z: Vec<f64> =
            logits[sample * classes..][..classes].iter().map(|z| z.to_f64().unwrap_or(f64::NAN)).collect();
        let max = z.iter().fold(f64::NEG_INFINITY, |m, &z| if z > m { z } else { m });
        let sum = z.iter().fold(0.0, |sum, z| sum + libm::exp(z - max));
        sums.loss += libm::log(sum) - (z[label as usize] - max);
        let nan = z.iter().any(|z| z.is_nan());
        let first = z.iter().position(|&z| z == max).unwrap_or(0);
        sums.correct += usize::from(!nan && first == label as usize);
        for (i, z) in z.iter().enumerate() {
            let target = f64::from(i == label as usize);
            let g = (libm::exp(z - max) / sum - target) / labels.len() as f64;
            gradient.push(T::from(g).unwrap_or(T::nan()));
        }
    }
    Ok((sums, gradient))
}
