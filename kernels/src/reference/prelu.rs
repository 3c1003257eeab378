//! PReLU, with the sums of [`crate::prelu`].

use super::conv::{GROUP, tree_sum};
use crate::error::check_len;
use crate::{Dims, Error};
use num_traits::Float;

/// Accumulators of a channel within an image, a constant of the format.
pub const ACCUMULATORS: usize = 4;

fn slope<T: Copy>(slopes: &[T], c: usize) -> T {
    slopes[if slopes.len() == 1 { 0 } else { c }]
}

fn check<T>(d: &Dims, what: &'static str, x: &[T], slopes: &[T]) -> Result<(), Error> {
    d.check()?;
    check_len(what, x.len(), d.plain_len())?;
    if slopes.len() == 1 { Ok(()) } else { check_len("slopes", slopes.len(), d.c) }
}

/// `y` where `y > 0`, else `a·y` (He et al. 2015, Eq. 1); NCHW, one slope per channel or one for all.
///
/// # Errors
/// A length that does not fit `d`.
pub fn forward<T: Float>(d: &Dims, x: &[T], slopes: &[T]) -> Result<Vec<T>, Error> {
    check(d, "x", x, slopes)?;
    let activate = |(i, &y): (usize, &T)| if y > T::zero() { y } else { slope(slopes, i / d.plane() % d.c) * y };
    Ok(x.iter().enumerate().map(activate).collect())
}

/// What [`backward`] computes.
#[derive(Debug, Clone)]
pub struct Gradients<T> {
    /// `∂E/∂y`, NCHW.
    pub dx: Vec<T>,
    /// `Σ ∂E/∂f·min(0, y)`, as long as the slopes.
    pub dslopes: Vec<T>,
    /// `Σ ∂E/∂y`, one per channel.
    pub dbias: Vec<T>,
}

/// The sum of a channel: `step(sum, i)` takes element `i` up.
fn channel<T: Float>(d: &Dims, c: usize, step: impl Fn(T, usize) -> T) -> T {
    let image = |n: usize| {
        let mut sums = [T::zero(); ACCUMULATORS];
        for p in 0..d.plane() {
            let sum = &mut sums[p % ACCUMULATORS];
            *sum = step(*sum, (n * d.c + c) * d.plane() + p);
        }
        (sums[0] + sums[1]) + (sums[2] + sums[3])
    };
    let group = |first: usize| (first..d.n.min(first + GROUP)).fold(T::zero(), |sum, n| sum + image(n));
    tree_sum((0..d.n).step_by(GROUP).map(group), |a, b| a + b).unwrap_or(T::zero())
}

/// `dx`, the slope gradient (Eq. 2 and 3) and the bias gradient, from the pre-activation and `dy`, both NCHW.
///
/// # Errors
/// A length that does not fit `d`.
pub fn backward<T: Float>(d: &Dims, pre: &[T], slopes: &[T], dy: &[T]) -> Result<Gradients<T>, Error> {
    check(d, "pre", pre, slopes)?;
    check_len("dy", dy.len(), d.plain_len())?;
    let mut dx = Vec::with_capacity(dy.len());
    for (i, &g) in dy.iter().enumerate() {
        dx.push(if pre[i] > T::zero() { g } else { slope(slopes, i / d.plane() % d.c) * g });
    }
    let step = |sum, i: usize| if pre[i] > T::zero() { sum } else { dy[i].mul_add(pre[i], sum) };
    let mut dslopes: Vec<T> = (0..d.c).map(|c| channel(d, c, step)).collect();
    if slopes.len() == 1 {
        dslopes = vec![tree_sum(dslopes, |a, b| a + b).unwrap_or(T::zero())];
    }
    let dbias = bias_gradient(d, &dx)?;
    Ok(Gradients { dx, dslopes, dbias })
}

/// `Σ dy` over images and pixels, one per channel.
///
/// # Errors
/// A length that does not fit `d`.
pub fn bias_gradient<T: Float>(d: &Dims, dy: &[T]) -> Result<Vec<T>, Error> {
    d.check()?;
    check_len("dy", dy.len(), d.plain_len())?;
    Ok((0..d.c).map(|c| channel(d, c, |sum, i| sum + dy[i])).collect())
}
