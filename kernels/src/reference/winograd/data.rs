//! The gradient with respect to the input.

use super::{CHUNK, Variant, both, check, forward, join, kernel, of_groups, tile};
use crate::error::check_len;
use crate::{ConvShape, Error, LANES};
use num_traits::Float;

/// The forward convolution that computes a gradient with respect to the input: of the output's gradient, with the
/// weights rotated and their channels exchanged. `None` where the padding exceeds what the kernel reaches, or a
/// stride leaves pixels out.
pub fn reversed(s: &ConvShape) -> Option<ConvShape> {
    let pads = [(s.kh, s.pad_top), (s.kh, s.pad_bottom), (s.kw, s.pad_left), (s.kw, s.pad_right)];
    let [pad_top, pad_bottom, pad_left, pad_right] = pads.map(|(k, pad)| (k - 1).checked_sub(pad));
    let back = ConvShape {
        ic: s.oc,
        ih: s.oh(),
        iw: s.ow(),
        oc: s.ic,
        pad_top: pad_top?,
        pad_bottom: pad_bottom?,
        pad_left: pad_left?,
        pad_right: pad_right?,
        ..*s
    };
    (back.check().is_ok() && (back.oh(), back.ow()) == (s.ih, s.iw)).then_some(back)
}

/// Whether a shape is one the gradient of whose input a Winograd algorithm serves: [`check`], and no more padding than
/// the kernel reaches, with stride 1 at any edge ([`reversed`]), with stride 2 above and left.
///
/// # Errors
/// [`Error::Shape`], naming the first dimension that is not.
pub fn check_data(variant: Variant, s: &ConvShape) -> Result<(), Error> {
    check(variant, s)?;
    let why = "cannot be served by Winograd: the gradient's padding would be negative";
    let edges = [("pad_top", s.pad_top, s.kh), ("pad_left", s.pad_left, s.kw)];
    let far = [("pad_bottom", s.pad_bottom, s.kh), ("pad_right", s.pad_right, s.kw)];
    let far = &far[..if variant.stride() == 1 { 2 } else { 0 }];
    match edges.iter().chain(far).find(|(_, pad, kernel)| pad >= kernel) {
        Some(&(what, value, _)) => Err(Error::Shape { what, value, why }),
        None => Ok(()),
    }
}

/// `dx`, the gradient with respect to the input: with stride 1 [`forward`] of [`reversed`] with the rotated weights.
///
/// # Errors
/// A shape whose gradient Winograd does not serve ([`check_data`]), a length that does not fit.
pub fn backward_data<T: Float>(variant: Variant, s: &ConvShape, dy: &[T], w: &[T]) -> Result<Vec<T>, Error> {
    check_data(variant, s)?;
    check_len("w", w.len(), s.weight_len())?;
    check_len("dy", dy.len(), s.output().plain_len())?;
    if s.groups > 1 {
        let group = s.group();
        let [x_len, y_len] = [group.input(), group.output()].map(|d| d.c * d.plane());
        let parts = of_groups(dy, s.groups, y_len).zip(w.chunks(group.weight_len()));
        let parts = parts.map(|(dy, w)| backward_data(variant, &group, &dy, w));
        return Ok(join(&parts.collect::<Result<Vec<_>, _>>()?, x_len));
    }
    let taps = s.kh * s.kw;
    let rotated = |i: usize| (0..s.oc).flat_map(move |o| w[(o * s.ic + i) * taps..][..taps].iter().rev().copied());
    let rotated: Vec<T> = (0..s.ic).flat_map(rotated).collect();
    match reversed(s) {
        Some(back) if variant.stride() == 1 => forward(variant, &back, dy, &rotated, &vec![T::zero(); s.oc]),
        _ => interleaved(variant, s, dy, &rotated),
    }
}

/// How the phases of the rotated kernel share the rows (columns) of the input's gradient. The output's gradient with a
/// zero between neighbours and `k − 1 − pad` rows of zeros before it meets the rotated kernel: number `i` of what a
/// phase computes is row `2·i + first − phase`, which may lie just outside, from rows of the output's gradient from
/// `i − pad` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interleaved {
    /// Rows of zeros before the output's gradient.
    pub pad: usize,
    /// The row that phase 0 computes first: 0 or 1.
    pub first: usize,
    /// Rows that a phase computes, some of which may lie outside.
    pub len: usize,
}

impl Interleaved {
    /// Of an axis of so many pixels, one at least, for a kernel of `k` and padding of less.
    pub(crate) fn new(size: usize, k: usize, pad: usize) -> Interleaved {
        let zeros = k - 1 - pad;
        let first = zeros % 2;
        Interleaved { pad: zeros / 2, first, len: (size - first) / 2 + 1 }
    }

    /// The row that a phase computes as number `i`, if it lies in an image of `size`.
    pub fn row(&self, i: usize, phase: usize, size: usize) -> Option<usize> {
        (2 * i + self.first).checked_sub(phase).filter(|&row| row < size)
    }
}

/// [`backward_data`] with stride 2; `rotated` are the kernels, turned round and with their channels exchanged.
fn interleaved<T: Float>(variant: Variant, s: &ConvShape, dy: &[T], rotated: &[T]) -> Result<Vec<T>, Error> {
    check_len("dy", dy.len(), s.output().plain_len())?;
    let (n, m, d) = (variant.n(), variant.m(), s.input());
    let axes = [Interleaved::new(d.h, s.kh, s.pad_top), Interleaved::new(d.w, s.kw, s.pad_left)];
    let phases: [[usize; 2]; 4] = [[0, 0], [0, 1], [1, 0], [1, 1]];
    let transform = |line: &[T]| variant.input(line);
    // Of each pair of channels all phases.
    let pairs = rotated.chunks(s.kh * s.kw);
    let weights: Vec<Vec<T>> = pairs.flat_map(|taps| phases.map(|phase| kernel(variant, taps, phase))).collect();
    let mut dx = vec![T::zero(); d.plain_len()];
    for image in 0..s.n {
        for (top, left) in (0..axes[0].len).step_by(m).flat_map(|t| (0..axes[1].len).step_by(m).map(move |l| (t, l))) {
            let from = [top as isize - axes[0].pad as isize, left as isize - axes[1].pad as isize];
            let inputs = |c: usize| {
                let tile = tile((&s.output(), dy), [image, c], from, [n, n], 1, T::zero());
                both(&tile, [n, n], transform, transform)
            };
            let inputs: Vec<Vec<T>> = (0..s.oc).map(inputs).collect();
            for (i, number) in (0..s.ic).flat_map(|i| (0..phases.len()).map(move |number| (i, number))) {
                let phase = phases[number];
                let weights = |o: usize| &weights[(i * s.oc + o) * phases.len() + number];
                let product = |p: usize| {
                    if p / n >= variant.reach(phase[0]) || p % n >= variant.reach(phase[1]) {
                        return T::zero();
                    }
                    let pairs: Vec<(T, T)> = (0..s.oc).map(|o| (inputs[o][p], weights(o)[p])).collect();
                    let chunk = |pairs: &[(T, T)]| pairs.iter().fold(T::zero(), |sum, &(v, u)| v.mul_add(u, sum));
                    pairs.chunks(CHUNK * LANES).map(chunk).reduce(|a, b| a + b).unwrap_or(T::zero())
                };
                let products: Vec<T> = (0..n * n).map(product).collect();
                let outputs = both(&products, [n, n], |m| variant.output(m), |m| variant.output(m));
                for (at, v) in outputs.into_iter().enumerate() {
                    let row = axes[0].row(top + at / m, phase[0], d.h);
                    let col = axes[1].row(left + at % m, phase[1], d.w);
                    if let (Some(row), Some(col)) = (row, col) {
                        dx[((image * s.ic + i) * d.h + row) * d.w + col] = v;
                    }
                }
            }
        }
    }
    Ok(dx)
}
