//! Winograd convolution, one fused multiply-add at a time.
//!
//! `F(m×m, r×r)` computes a tile of `m × m` outputs from a tile of `n × n` inputs, `n = m + r − 1`, with `n²` products
//! a channel where the direct sum takes `m²·r²` (Winograd 1980; Lavin and Gray 2016, Eq. 8):
//! `Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`. The interpolation points are ±7/4, ±7/8, ±5/16, ∞ where `n = 7`, 0, ±√2, ±√2/2, ∞
//! where `n = 6`, ±11/8, ±7/16, ∞ where `n = 5` and 0, ±1, ∞ where `n = 4`.
//!
//! With stride 2 the padded input is four images, the *phases*, of its even or odd rows and columns, and so is the
//! kernel: the output is the sum of four convolutions of stride 1. They take the same points, so that their products
//! are summed before the one transform to outputs. A kernel of odd size has one row of taps less at odd rows than at
//! even ones: its transform would be zero at the point ∞, where such a phase takes no part. The same holds for columns.
//!
//! Tiles start at the output's origin. With stride 1 those at the lower and right edge, which may have fewer than `m`
//! rows or columns of outputs, have fewer positions along that axis ([`Axis`]).
//!
//! Order of the sums. A transform, of weights too, in two dimensions is one along the columns (each column of the tile
//! by itself), then one along the rows; the one-dimensional transforms are the functions of [`Variant`], operation by
//! operation. The products of a position are summed over the input channels: block by block of 16 channels, in a block
//! phase by phase (those of even rows first, of them that of even columns), one FMA a channel. Such a block at one
//! phase is a segment, [`CHUNK`] segments are a chain from zero, and the chains are added in order. What lies outside
//! the image is transformed like any other input.
//!
//! Each group of channels is a convolution of its own.
//!
//! The gradient of the input is the convolution of the output's with the rotated kernel. With stride 2 that meets a
//! zero between neighbours: every other row and column of the result meets a phase of the kernel ([`Interleaved`]). All
//! phases read the same tile, whose transform they share; in the order above a segment is a block of 16 channels. Where
//! a phase takes no part the product is zero.
//!
//! The gradient of the weights is the adjoint: `dg = Gᵀ [Σ (Bᵀ d B) ⊙ (A dY Aᵀ)] G`, with the same tiles and positions.
//! A position's products are summed over the tiles that have it, in chunks of [`Chunks::tiles`], image by image and row
//! by row, those without it counted. In a chunk it is one chain of FMAs from zero: first the tiles of the lowest row
//! where its rows are fewer (but for the last if it lacks columns too), then those that lack nothing, then those of the
//! last column where its columns are fewer, last those that lack both; image by image, row by row. The chunks' sums are
//! added in order, groups of [`Chunks::group`] first. Then `Gᵀ m G` is taken, in the arithmetic of the rest. With
//! stride 2 it is that of each phase's taps, from all positions.

// Rows and columns of a tile are clearer as numbers.
#![allow(clippy::needless_range_loop)]

mod data;
mod edge;
mod variant;

use super::conv::CHUNK;
use crate::Error;
use crate::error::check_len;
use crate::shape::{ConvShape, Dims, LANES};
pub use data::{Interleaved, backward_data, check_data, reversed};
pub use edge::Axis;
pub(crate) use edge::Matrix;
use num_traits::Float;
pub use variant::{Chunks, Variant};

/// Of a tile the value at each position that it has.
type Positions<T> = Vec<Option<T>>;

/// A transform of a tile of so many rows and columns in two dimensions: down the columns, then along the rows.
fn both<T: Float>(
    tile: &[T],
    [rows, cols]: [usize; 2],
    down: impl Fn(&[T]) -> Vec<T>,
    along: impl Fn(&[T]) -> Vec<T>,
) -> Vec<T> {
    let columns: Vec<Vec<T>> =
        (0..cols).map(|c| down(&(0..rows).map(|r| tile[r * cols + c]).collect::<Vec<T>>())).collect();
    let row = |r: usize| along(&columns.iter().map(|column| column[r]).collect::<Vec<T>>());
    (0..columns[0].len()).flat_map(row).collect()
}

/// The pixels of channel `c` of an image from `(row, col)` on, counted with padding: so many rows and columns, `step`
/// apart; `pad` outside.
fn tile<T: Float>(
    (d, x): (&Dims, &[T]),
    [image, c]: [usize; 2],
    from: [isize; 2],
    [rows, cols]: [usize; 2],
    step: usize,
    pad: T,
) -> Vec<T> {
    let pixel = |i: usize| {
        let (row, col) = (from[0] + (i / cols * step) as isize, from[1] + (i % cols * step) as isize);
        let inside = (0..d.h as isize).contains(&row) && (0..d.w as isize).contains(&col);
        if inside { x[((image * d.c + c) * d.h + row as usize) * d.w + col as usize] } else { pad }
    };
    (0..rows * cols).map(pixel).collect()
}

/// `G g Gᵀ` of one pair of channels at one phase: position `i·n + j`, from `r × r` taps.
pub fn kernel<T: Float>(variant: Variant, taps: &[T], phase: [usize; 2]) -> Vec<T> {
    let (r, step, rows) = (variant.r(), variant.stride(), variant.phase_taps(0));
    let tap = |i: usize| {
        let (row, col) = (i / rows * step + phase[0], i % rows * step + phase[1]);
        if row < r && col < r { taps[row * r + col] } else { T::zero() }
    };
    let line = |g: &[T]| variant.kernel(g);
    both(&(0..rows * rows).map(tap).collect::<Vec<T>>(), [rows, rows], line, line)
}

/// Whether a shape is one that a Winograd algorithm serves: the variant's kernel and stride, no dilation, one group or,
/// but for [`Variant::F4x7S2`], groups of whole blocks of 16 channels.
///
/// # Errors
/// [`Error::Shape`], naming the first dimension that is not.
pub fn check(variant: Variant, s: &ConvShape) -> Result<(), Error> {
    s.check()?;
    for (what, value, want, why) in [
        ("kh", s.kh, variant.r(), "is not the kernel of this Winograd algorithm"),
        ("kw", s.kw, variant.r(), "is not the kernel of this Winograd algorithm"),
        ("stride_h", s.stride_h, variant.stride(), "is not the stride of this Winograd algorithm"),
        ("stride_w", s.stride_w, variant.stride(), "is not the stride of this Winograd algorithm"),
        ("dilation_h", s.dilation_h, 1, "cannot be served by Winograd: it takes no dilation"),
        ("dilation_w", s.dilation_w, 1, "cannot be served by Winograd: it takes no dilation"),
    ] {
        if value != want {
            return Err(Error::Shape { what, value, why });
        }
    }
    let is_whole = s.group_ic().is_multiple_of(LANES) && s.group_oc().is_multiple_of(LANES);
    let why = match variant {
        _ if s.groups == 1 => return Ok(()),
        Variant::F4x7S2 => "cannot be served by this Winograd algorithm: it takes one group",
        _ if is_whole => return Ok(()),
        _ => "cannot be served by Winograd: its groups must have multiples of 16 channels",
    };
    Err(Error::Shape { what: "groups", value: s.groups, why })
}

/// Whether a shape is one the gradient of whose weights a Winograd algorithm serves: [`check`], and for kernels of 7×7
/// few channels.
///
/// # Errors
/// [`Error::Shape`], naming the first dimension that is not.
pub fn check_weights(variant: Variant, s: &ConvShape) -> Result<(), Error> {
    check(variant, s)?;
    if variant == Variant::F4x7S2 && s.ic > ConvShape::FEW_CHANNELS {
        let why = "cannot be served by this Winograd algorithm: it takes the few channels of a first layer";
        return Err(Error::Shape { what: "ic", value: s.ic, why });
    }
    Ok(())
}

/// The tensors of the groups of an NCHW tensor: of every so-many-th image of `len` elements.
fn of_groups<T: Float>(x: &[T], groups: usize, len: usize) -> impl Iterator<Item = Vec<T>> {
    (0..groups).map(move |group| x.chunks(len).skip(group).step_by(groups).flatten().copied().collect())
}

/// The tensor of which these are the groups' ([`of_groups`]).
fn join<T: Float>(groups: &[Vec<T>], len: usize) -> Vec<T> {
    let images = groups[0].len() / len;
    (0..images).flat_map(|image| groups.iter().flat_map(move |x| &x[image * len..][..len])).copied().collect()
}

/// `y = conv(x, w)` without bias; outside the image channel `c` reads `pads[c]`. `x` NCHW, `w` OIHW, result NCHW.
///
/// # Errors
/// A shape that Winograd does not serve ([`check`]), a length that does not fit.
pub fn forward<T: Float>(variant: Variant, s: &ConvShape, x: &[T], w: &[T], pads: &[T]) -> Result<Vec<T>, Error> {
    check(variant, s)?;
    check_len("x", x.len(), s.input().plain_len())?;
    check_len("w", w.len(), s.weight_len())?;
    check_len("pads", pads.len(), s.ic)?;
    if s.groups > 1 {
        let group = s.group();
        let [x_len, y_len] = [group.input(), group.output()].map(|d| d.c * d.plane());
        let (weights, pads) = (w.chunks(group.weight_len()), pads.chunks(group.ic));
        let parts = of_groups(x, s.groups, x_len).zip(weights).zip(pads);
        let parts = parts.map(|((x, w), pads)| forward(variant, &group, &x, w, pads));
        return Ok(join(&parts.collect::<Result<Vec<_>, _>>()?, y_len));
    }
    let (n, m, r, step) = (variant.n(), variant.m(), variant.r(), variant.stride());
    let (oh, ow) = (s.oh(), s.ow());
    let phases: Vec<[usize; 2]> = (0..step).flat_map(|row| (0..step).map(move |col| [row, col])).collect();
    // Of each pair of channels all phases.
    let weights: Vec<Vec<T>> =
        w.chunks(r * r).flat_map(|taps| phases.iter().map(move |&phase| kernel(variant, taps, phase))).collect();
    let mut y = vec![T::zero(); s.output().plain_len()];
    for image in 0..s.n {
        for (top, left) in (0..oh).step_by(m).flat_map(|t| (0..ow).step_by(m).map(move |l| (t, l))) {
            let axes = [variant.axis(top, oh), variant.axis(left, ow)];
            let positions = axes.map(Axis::positions);
            // Positions along each axis that a phase takes part in.
            let reach = |phase: [usize; 2]| [0, 1].map(|i| positions[i].len() - (n - variant.reach(phase[i])));
            let origin = [(top * step) as isize - s.pad_top as isize, (left * step) as isize - s.pad_left as isize];
            let transform = |c: usize, phase: [usize; 2]| {
                let (from, size) = ([0, 1].map(|i| origin[i] + phase[i] as isize), reach(phase));
                let tile = tile((&s.input(), x), [image, c], from, size, step, pads[c]);
                both(&tile, size, |d| axes[0].input(d), |d| axes[1].input(d))
            };
            let inputs: Vec<Vec<T>> = (0..s.ic)
                .flat_map(|c| phases.iter().map(move |&phase| (c, phase)))
                .map(|(c, p)| transform(c, p))
                .collect();
            for o in 0..s.oc {
                let [rows, cols] = [&positions[0], &positions[1]];
                let product = |p: usize| {
                    let (row, col) = (p / cols.len(), p % cols.len());
                    // The phases that take part, with their numbers.
                    let here = |&(_, &phase): &(usize, &[usize; 2])| row < reach(phase)[0] && col < reach(phase)[1];
                    let here: Vec<(usize, &[usize; 2])> = phases.iter().enumerate().filter(here).collect();
                    let segments: Vec<(usize, (usize, &[usize; 2]))> = (0..s.ic)
                        .step_by(LANES)
                        .flat_map(|first| here.iter().map(move |&phase| (first, phase)))
                        .collect();
                    let segment = |sum: T, &(first, (number, &phase)): &(usize, (usize, &[usize; 2]))| {
                        (first..s.ic.min(first + LANES)).fold(sum, |sum, c| {
                            let u = weights[(o * s.ic + c) * phases.len() + number][rows[row] * n + cols[col]];
                            let v = inputs[c * phases.len() + number][row * reach(phase)[1] + col];
                            v.mul_add(u, sum)
                        })
                    };
                    let chunk = |segments: &[_]| segments.iter().fold(T::zero(), segment);
                    segments.chunks(CHUNK).map(chunk).reduce(|a, b| a + b).unwrap_or(T::zero())
                };
                let size = [rows.len(), cols.len()];
                let products: Vec<T> = (0..size[0] * size[1]).map(product).collect();
                let outputs = both(&products, size, |m| axes[0].output(m), |m| axes[1].output(m));
                let wide = axes[1].outputs();
                for (i, &v) in outputs.iter().enumerate() {
                    let (row, col) = (top + i / wide, left + i % wide);
                    if row < oh && col < ow {
                        y[((image * s.oc + o) * oh + row) * ow + col] = v;
                    }
                }
            }
        }
    }
    Ok(y)
}

/// `dw`, the gradient with respect to the weights, OIHW. Padding reads zeros.
///
/// # Errors
/// A shape whose gradient Winograd does not serve ([`check_weights`]), a length that does not fit.
pub fn backward_weights<T: Float>(variant: Variant, s: &ConvShape, x: &[T], dy: &[T]) -> Result<Vec<T>, Error> {
    check_weights(variant, s)?;
    check_len("x", x.len(), s.input().plain_len())?;
    check_len("dy", dy.len(), s.output().plain_len())?;
    if s.groups > 1 {
        let group = s.group();
        let [x_len, y_len] = [group.input(), group.output()].map(|d| d.c * d.plane());
        let parts = of_groups(x, s.groups, x_len).zip(of_groups(dy, s.groups, y_len));
        let parts = parts.map(|(x, dy)| backward_weights(variant, &group, &x, &dy));
        return Ok(parts.collect::<Result<Vec<_>, _>>()?.concat());
    }
    let (n, m, d) = (variant.n(), variant.m(), s.output());
    let columns = move |image: usize, top: usize| (0..d.w).step_by(m).map(move |left| (image, top, left));
    let mut tiles: Vec<(usize, usize, usize)> =
        (0..s.n).flat_map(|image| (0..d.h).step_by(m).flat_map(move |top| columns(image, top))).collect();
    let axes = |top: usize, left: usize| [variant.axis(top, d.h), variant.axis(left, d.w)];
    // A chunk's order: see above.
    let rank = |&(_, top, left): &(usize, usize, usize)| match axes(top, left).map(|axis| axis.outputs() < m) {
        [true, false] => 0,
        [false, false] => 1,
        [false, true] => 2,
        [true, true] => 3,
    };
    let format = variant.chunks(s.ic, s.oc);
    tiles.chunks_mut(format.tiles).for_each(|chunk| chunk.sort_by_key(rank));
    let place = |values: Vec<T>, axes: [Axis; 2]| -> Positions<T> {
        let [rows, cols] = axes.map(Axis::positions);
        let mut all = vec![None; n * n];
        values.iter().enumerate().for_each(|(i, &v)| all[rows[i / cols.len()] * n + cols[i % cols.len()]] = Some(v));
        all
    };
    // Of a channel at a phase.
    let step = variant.stride();
    let inputs = |c: usize, [row, col]: [usize; 2]| -> Vec<Positions<T>> {
        let transform = |&(image, top, left): &(usize, usize, usize)| {
            let from = [top * step + row, left * step + col];
            let from = [from[0] as isize - s.pad_top as isize, from[1] as isize - s.pad_left as isize];
            let axes = axes(top, left);
            let size = axes.map(|axis| axis.positions().len());
            let tile = tile((&s.input(), x), [image, c], from, size, step, T::zero());
            place(both(&tile, size, |d| axes[0].input(d), |d| axes[1].input(d)), axes)
        };
        tiles.iter().map(transform).collect()
    };
    let gradients = |c: usize| -> Vec<Positions<T>> {
        let transform = |&(image, top, left): &(usize, usize, usize)| {
            let (from, axes) = ([top as isize, left as isize], axes(top, left));
            let size = axes.map(Axis::outputs);
            let tile = tile((&d, dy), [image, c], from, size, 1, T::zero());
            place(both(&tile, size, |d| axes[0].gradient(d), |d| axes[1].gradient(d)), axes)
        };
        tiles.iter().map(transform).collect()
    };
    let phases: Vec<[usize; 2]> = (0..step).flat_map(|row| (0..step).map(move |col| [row, col])).collect();
    let inputs: Vec<Vec<Positions<T>>> =
        (0..s.ic).flat_map(|c| phases.iter().map(move |&phase| (c, phase))).map(|(c, p)| inputs(c, p)).collect();
    let (taps, gradients): (usize, Vec<Vec<Positions<T>>>) = (s.kh * s.kw, (0..s.oc).map(gradients).collect());
    let mut dw = vec![T::zero(); s.weight_len()];
    for (pair, dw) in dw.chunks_exact_mut(taps).enumerate() {
        let gradients = &gradients[pair / s.ic];
        for (phase, inputs) in phases.iter().zip(&inputs[pair % s.ic * phases.len()..]) {
            let product = |p: usize| {
                let pairs = inputs.chunks(format.tiles).zip(gradients.chunks(format.tiles));
                let chunk = |(x, dy): (&[Positions<T>], &[Positions<T>])| {
                    let pairs = x.iter().zip(dy).filter_map(|(x, dy)| x[p].zip(dy[p]));
                    pairs.fold(T::zero(), |sum, (x, dy)| x.mul_add(dy, sum))
                };
                let chunks: Vec<T> = pairs.map(chunk).collect();
                let sum = |sums: &[T]| sums.iter().copied().reduce(|a, b| a + b).unwrap_or(T::zero());
                sum(&chunks.chunks(format.group).map(sum).collect::<Vec<T>>())
            };
            let line = |m: &[T]| variant.taps(m);
            let of_phase = both(&(0..n * n).map(product).collect::<Vec<T>>(), [n, n], line, line);
            for (i, v) in of_phase.into_iter().enumerate() {
                let side = variant.phase_taps(0);
                let (row, col) = (i / side * step + phase[0], i % side * step + phase[1]);
                // A phase may have a tap less than the first.
                if row < s.kh && col < s.kw {
                    dw[row * s.kw + col] = v;
                }
            }
        }
    }
    Ok(dw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::conv::{self, forward_padded};

    /// In `f64` nothing but the roundings of the points is left between the algorithms.
    #[test]
    fn winograd_is_the_convolution() {
        for (variant, size) in Variant::ALL.into_iter().flat_map(|variant| (10..15).map(move |size| (variant, size))) {
            let square = ConvShape::square(2, 4, size, 3, variant.r(), variant.stride(), 1);
            let s = ConvShape { iw: 13, ..square };
            let number = |i: usize| ((i * 7919 % 1000) as f64 - 500.0) / 500.0;
            let x: Vec<f64> = (0..s.input().plain_len()).map(number).collect();
            let w: Vec<f64> = (0..s.weight_len()).map(|i| number(i + 31)).collect();
            let pads: Vec<f64> = (0..s.ic).map(|i| number(i + 77)).collect();
            let want = forward_padded(&s, &x, &w, &pads).unwrap();
            let got = forward(variant, &s, &x, &w, &pads).unwrap();
            for (g, w) in got.iter().zip(&want) {
                assert!((g - w).abs() < 1e-12, "{variant:?}: {g} is not {w}");
            }
            let dy: Vec<f64> = (0..s.output().plain_len()).map(|i| number(i + 5)).collect();
            let paddings = if variant.stride() > 1 { 0..variant.r() } else { 1..2 };
            for padding in paddings {
                let s = ConvShape { pad_top: padding, pad_left: variant.r() - 1 - padding, ..s };
                let dy: Vec<f64> = (0..s.output().plain_len()).map(|i| number(i + 5)).collect();
                let want = conv::backward_data(&s, &dy, &w).unwrap();
                let got = backward_data(variant, &s, &dy, &w).unwrap();
                for (g, w) in got.iter().zip(&want) {
                    assert!((g - w).abs() < 1e-12, "{variant:?} {padding}: {g} is not {w}");
                }
            }
            let want = conv::backward_weights(&s, &x, &dy).unwrap();
            let got = backward_weights(variant, &s, &x, &dy).unwrap();
            for (g, w) in got.iter().zip(&want) {
                assert!((g - w).abs() < 1e-12, "{variant:?}: {g} is not {w}");
            }
        }
    }

    /// Results depend on it.
    #[test]
    fn few_channels_have_short_chunks() {
        for (variant, ic, oc, tiles) in [
            (Variant::F4x3, 96, 96, 32),
            (Variant::F4x3, 97, 96, 128),
            (Variant::F2x3, 1, 576, 32),
            (Variant::F4x2, 577, 16, 128),
            (Variant::F4x3S2, 48, 48, 32),
            (Variant::F4x5S2, 48, 49, 128),
            (Variant::F4x7S2, 4, 1024, 32),
        ] {
            let chunks = variant.chunks(ic, oc);
            let group = if tiles == 32 { 64 } else { usize::MAX };
            assert_eq!(chunks, Chunks { tiles, group }, "{variant:?}, {ic} to {oc}");
        }
    }

    #[test]
    fn what_winograd_does_not_serve_is_named() {
        let s = ConvShape::square(1, 4, 8, 4, 3, 2, 1);
        for e in [check(Variant::F4x3, &s), check_data(Variant::F4x3, &s)] {
            let e = e.unwrap_err();
            assert!(e.to_string().contains("stride_h = 2"), "{e}");
        }
        assert!(check(Variant::F3x2, &ConvShape { stride_h: 1, stride_w: 1, ..s }).is_err());
        let first = ConvShape::square(1, 5, 8, 4, 7, 2, 3);
        assert!(check_weights(Variant::F4x7S2, &first).unwrap_err().to_string().contains("ic = 5"));
    }
}
