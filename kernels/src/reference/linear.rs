//! Fully connected layers, one fused multiply-add at a time. Weights are `[outputs][c·h·w]`.
//!
//! Forward: input `k` of the flattened NCHW tensor goes to lane `k mod 16`. Each lane has chains of FMAs, one for
//! every [`CHUNK`] inputs, from zero; a lane's chains are added in order. The sixteen lanes are combined by
//! [`tree_sum`]. Zeros fill the last sixteen up and are multiplied like any other input.
//!
//! Both backward passes are those of a convolution of one pixel with `c·h·w` channels.

use super::conv::{self, tree_sum};
use crate::error::check_len;
use crate::linear::LinearShape;
use crate::{ConvShape, Error, LANES};
use num_traits::Float;

/// Inputs in a chunk, 32 products a lane; outputs in a chunk of the gradient with respect to the input: a constant of
/// the format.
pub const CHUNK: usize = conv::CHUNK * LANES;

/// `y = W·x` without bias. `x` NCHW, `w` `[outputs][c·h·w]`, result `[n][outputs]`.
///
/// # Errors
/// A shape or length that does not fit.
pub fn forward<T: Float>(s: &LinearShape, x: &[T], w: &[T]) -> Result<Vec<T>, Error> {
    s.check()?;
    check_len("x", x.len(), s.input().plain_len())?;
    check_len("w", w.len(), s.weight_len())?;
    let mut y = Vec::with_capacity(s.n * s.outputs);
    for x in x.chunks(s.inputs()) {
        for w in w.chunks(s.inputs()) {
            let lane = |lane: usize| {
                let chunk = |(x, w): (&[T], &[T])| {
                    (lane..x.len().next_multiple_of(LANES)).step_by(LANES).fold(T::zero(), |chain, k| {
                        let (x, w) = (x.get(k), w.get(k));
                        x.map_or(T::zero(), |&x| x).mul_add(w.map_or(T::zero(), |&w| w), chain)
                    })
                };
                x.chunks(CHUNK).zip(w.chunks(CHUNK)).map(chunk).reduce(|sum, chunk| sum + chunk)
            };
            let lanes = (0..LANES).map(|l| lane(l).unwrap_or(T::zero()));
            y.push(tree_sum(lanes, |a, b| a + b).unwrap_or(T::zero()));
        }
    }
    Ok(y)
}

/// The convolution of one pixel that computes the same.
fn one_pixel(s: &LinearShape) -> ConvShape {
    ConvShape::square(s.n, s.inputs(), 1, s.outputs, 1, 1, 0)
}

/// `dx = Wᵀ·dy`, NCHW.
///
/// # Errors
/// A shape or length that does not fit.
pub fn backward_data<T: Float>(s: &LinearShape, dy: &[T], w: &[T]) -> Result<Vec<T>, Error> {
    s.check()?;
    conv::backward_data(&one_pixel(s), dy, w)
}

/// `dW = Σₙ dy·xᵀ`, `[outputs][c·h·w]`.
///
/// # Errors
/// A shape or length that does not fit.
pub fn backward_weights<T: Float>(s: &LinearShape, x: &[T], dy: &[T]) -> Result<Vec<T>, Error> {
    s.check()?;
    conv::backward_weights(&one_pixel(s), x, dy)
}
