//! Winograd convolution, one fused multiply-add at a time.
//!
//! `F(m×m, r×r)` computes a tile of `m × m` outputs from a tile of `n × n` inputs, `n = m + r − 1`, with `n²` products a
//! channel where the direct sum takes `m²·r²` (Winograd 1980; Lavin and Gray 2016, Eq. 8):
//! `Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`. The interpolation points are 0, ±√2, ±√2/2, ∞ where `n = 6` and 0, ±1, ∞ where
//! `n = 4`.
//!
//! Order of the sums. Tiles start at the output's origin. Weights are transformed in `f64` and rounded once. A transform
//! in two dimensions is one along the columns (each column of the tile by itself), then one along the rows; the
//! one-dimensional transforms are the functions below, operation by operation. The products of a position are
//! summed over the input channels: chains of FMAs from zero, cut into chunks of [`CHANNELS`] channels whose sums are
//! added in order. What lies outside the image is transformed like any other input.

// Rows and columns of a tile are clearer as numbers.
#![allow(clippy::needless_range_loop)]

use crate::Error;
use crate::error::check_len;
use crate::shape::{ConvShape, LANES};
use num_traits::Float;

/// Channels in a chunk of the sum over them: a constant of the format.
pub const CHANNELS: usize = super::conv::CHUNK * LANES;

/// Which Winograd algorithm: the tile of outputs and the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// F(4×4, 3×3): 36 products where the direct sum takes 144.
    F4x3,
    /// F(2×2, 3×3): 16 products where the direct sum takes 36; rounds less than F(4×4, 3×3).
    F2x3,
    /// F(3×3, 2×2): 16 products where the direct sum takes 36.
    F3x2,
}

impl Variant {
    /// Rows and columns of the tile of outputs.
    pub const fn m(self) -> usize {
        match self {
            Variant::F4x3 => 4,
            Variant::F2x3 => 2,
            Variant::F3x2 => 3,
        }
    }

    /// Rows and columns of the kernel.
    pub const fn r(self) -> usize {
        match self {
            Variant::F4x3 | Variant::F2x3 => 3,
            Variant::F3x2 => 2,
        }
    }

    /// Rows and columns of the tile of inputs, and of the positions at which products are taken.
    pub const fn n(self) -> usize {
        self.m() + self.r() - 1
    }

    /// `G`: a row for each interpolation point, a column for each tap.
    pub(crate) fn g(self) -> &'static [&'static [f64]] {
        const A: f64 = std::f64::consts::SQRT_2;
        const B: f64 = std::f64::consts::FRAC_1_SQRT_2;
        match self {
            Variant::F4x3 => &[
                &[1.0, 0.0, 0.0],
                &[1.0 / 6.0, A / 6.0, 1.0 / 3.0],
                &[1.0 / 6.0, -A / 6.0, 1.0 / 3.0],
                &[-2.0 / 3.0, -2.0 / 3.0 * B, -1.0 / 3.0],
                &[-2.0 / 3.0, 2.0 / 3.0 * B, -1.0 / 3.0],
                &[0.0, 0.0, 1.0],
            ],
            Variant::F2x3 => &[&[1.0, 0.0, 0.0], &[0.5, 0.5, 0.5], &[0.5, -0.5, 0.5], &[0.0, 0.0, 1.0]],
            Variant::F3x2 => &[&[1.0, 0.0], &[0.5, 0.5], &[0.5, -0.5], &[0.0, 1.0]],
        }
    }

    /// `G g Gᵀ` of one pair of channels in `f64`: position `i·n + j`, from tap `(row, column)`.
    ///
    /// Both products are summed in the order of the taps.
    pub fn weights(self, tap: impl Fn(usize, usize) -> f64) -> [f64; 36] {
        let (n, r, g) = (self.n(), self.r(), self.g());
        let mut half = [[0.0; 3]; 6];
        let mut out = [0.0; 36];
        for (i, row) in g.iter().enumerate() {
            for c in 0..r {
                half[i][c] = (0..r).fold(0.0, |sum, k| sum + row[k] * tap(k, c));
            }
        }
        for i in 0..n {
            for (j, row) in g.iter().enumerate() {
                out[i * n + j] = (0..r).fold(0.0, |sum, k| sum + half[i][k] * row[k]);
            }
        }
        out
    }

    /// `Bᵀ d`, one dimension: `n` inputs to `n` positions.
    pub fn input<T: Float>(self, d: &[T]) -> Vec<T> {
        let c = |x: f64| T::from(x).unwrap_or_else(T::nan);
        if self.n() == 4 {
            return vec![d[0] - d[2], d[1] + d[2], d[2] - d[1], d[3] - d[1]];
        }
        let (a, b) = (c(std::f64::consts::SQRT_2), c(std::f64::consts::FRAC_1_SQRT_2));
        let (even, odd) = (c(-0.5).mul_add(d[2], d[4]), c(-0.5).mul_add(d[1], d[3]));
        let (even2, odd2) = (c(-2.0).mul_add(d[2], d[4]), c(-2.0).mul_add(d[1], d[3]));
        vec![
            c(-2.5).mul_add(d[2], d[0] + d[4]),
            a.mul_add(odd, even),
            (-a).mul_add(odd, even),
            b.mul_add(odd2, even2),
            (-b).mul_add(odd2, even2),
            c(-2.5).mul_add(d[3], d[1] + d[5]),
        ]
    }

    /// `Aᵀ m`, one dimension: `n` positions to `m` outputs.
    pub fn output<T: Float>(self, m: &[T]) -> Vec<T> {
        let c = |x: f64| T::from(x).unwrap_or_else(T::nan);
        let (sum, difference) = (m[1] + m[2], m[1] - m[2]);
        match self {
            Variant::F4x3 => {
                let (a, b) = (c(std::f64::consts::SQRT_2), c(std::f64::consts::FRAC_1_SQRT_2));
                let (a3, b3) = (c(2.0 * std::f64::consts::SQRT_2), c(0.5 * std::f64::consts::FRAC_1_SQRT_2));
                let (sum2, difference2) = (m[3] + m[4], m[3] - m[4]);
                vec![
                    (m[0] + sum) + sum2,
                    b.mul_add(difference2, a * difference),
                    c(0.5).mul_add(sum2, c(2.0) * sum),
                    a3.mul_add(difference, b3.mul_add(difference2, m[5])),
                ]
            }
            Variant::F2x3 => vec![m[0] + sum, difference + m[3]],
            Variant::F3x2 => vec![m[0] + sum, difference, sum + m[3]],
        }
    }
}

/// A transform of a `rows × rows` tile in two dimensions: down the columns, then along the rows.
fn both<T: Float>(tile: &[T], rows: usize, one: impl Fn(&[T]) -> Vec<T>) -> Vec<T> {
    let columns: Vec<Vec<T>> =
        (0..rows).map(|c| one(&(0..rows).map(|r| tile[r * rows + c]).collect::<Vec<T>>())).collect();
    let row = |r: usize| one(&columns.iter().map(|column| column[r]).collect::<Vec<T>>());
    (0..columns[0].len()).flat_map(row).collect()
}

/// Whether a shape is one that Winograd algorithms serve: stride 1, no dilation, one group, the variant's kernel.
///
/// # Errors
/// [`Error::Shape`], naming the first dimension that is not.
pub fn check(variant: Variant, s: &ConvShape) -> Result<(), Error> {
    s.check()?;
    for (what, value, want, why) in [
        ("kh", s.kh, variant.r(), "is not the kernel of this Winograd algorithm"),
        ("kw", s.kw, variant.r(), "is not the kernel of this Winograd algorithm"),
        ("stride_h", s.stride_h, 1, "cannot be served by Winograd: it takes stride 1"),
        ("stride_w", s.stride_w, 1, "cannot be served by Winograd: it takes stride 1"),
        ("dilation_h", s.dilation_h, 1, "cannot be served by Winograd: it takes no dilation"),
        ("dilation_w", s.dilation_w, 1, "cannot be served by Winograd: it takes no dilation"),
        ("groups", s.groups, 1, "cannot be served by Winograd: it takes one group"),
    ] {
        if value != want {
            return Err(Error::Shape { what, value, why });
        }
    }
    Ok(())
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
    let (n, m, r, oh, ow) = (variant.n(), variant.m(), variant.r(), s.oh(), s.ow());
    let wide = |v: T| v.to_f64().unwrap_or(f64::NAN);
    let weights: Vec<[f64; 36]> =
        w.chunks(r * r).map(|taps| variant.weights(|row, col| wide(taps[row * r + col]))).collect();
    let mut y = vec![T::zero(); s.output().plain_len()];
    for image in 0..s.n {
        for (top, left) in (0..oh).step_by(m).flat_map(|t| (0..ow).step_by(m).map(move |l| (t, l))) {
            let inputs: Vec<Vec<T>> = (0..s.ic)
                .map(|c| {
                    let pixel = |i: usize| {
                        let (row, col) =
                            ((top + i / n).wrapping_sub(s.pad_top), (left + i % n).wrapping_sub(s.pad_left));
                        let inside = row < s.ih && col < s.iw;
                        if inside { x[((image * s.ic + c) * s.ih + row) * s.iw + col] } else { pads[c] }
                    };
                    both(&(0..n * n).map(pixel).collect::<Vec<T>>(), n, |d| variant.input(d))
                })
                .collect();
            for o in 0..s.oc {
                let product = |p: usize| {
                    let chunk = |first: usize| {
                        (first..s.ic.min(first + CHANNELS)).fold(T::zero(), |sum, c| {
                            let u = T::from(weights[o * s.ic + c][p]).unwrap_or_else(T::nan);
                            inputs[c][p].mul_add(u, sum)
                        })
                    };
                    (0..s.ic).step_by(CHANNELS).map(chunk).reduce(|a, b| a + b).unwrap_or(T::zero())
                };
                let products: Vec<T> = (0..n * n).map(product).collect();
                let outputs = both(&products, n, |m| variant.output(m));
                for (i, &v) in outputs.iter().enumerate() {
                    let (row, col) = (top + i / m, left + i % m);
                    if row < oh && col < ow {
                        y[((image * s.oc + o) * oh + row) * ow + col] = v;
                    }
                }
            }
        }
    }
    Ok(y)
}

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

/// `dx`, the gradient with respect to the input: [`forward`] of [`reversed`] with the rotated weights.
///
/// # Errors
/// A shape that Winograd does not serve, a length that does not fit.
pub fn backward_data<T: Float>(variant: Variant, s: &ConvShape, dy: &[T], w: &[T]) -> Result<Vec<T>, Error> {
    check(variant, s)?;
    check_len("w", w.len(), s.weight_len())?;
    let why = "cannot be served by Winograd: the gradient's padding would be negative";
    let back = reversed(s).ok_or(Error::Shape { what: "pad_top", value: s.pad_top, why })?;
    let taps = s.kh * s.kw;
    let rotated = |i: usize| (0..s.oc).flat_map(move |o| w[(o * s.ic + i) * taps..][..taps].iter().rev().copied());
    let rotated: Vec<T> = (0..s.ic).flat_map(rotated).collect();
    forward(variant, &back, dy, &rotated, &vec![T::zero(); s.oc])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::conv::forward_padded;

    /// In `f64` nothing but the roundings of the points is left between the algorithms.
    #[test]
    fn winograd_is_the_convolution() {
        for variant in [Variant::F4x3, Variant::F2x3, Variant::F3x2] {
            let s = ConvShape::square(2, 5, 7, 3, variant.r(), 1, 1);
            let number = |i: usize| ((i * 7919 % 1000) as f64 - 500.0) / 500.0;
            let x: Vec<f64> = (0..s.input().plain_len()).map(number).collect();
            let w: Vec<f64> = (0..s.weight_len()).map(|i| number(i + 31)).collect();
            let pads: Vec<f64> = (0..s.ic).map(|i| number(i + 77)).collect();
            let want = forward_padded(&s, &x, &w, &pads).unwrap();
            let got = forward(variant, &s, &x, &w, &pads).unwrap();
            for (g, w) in got.iter().zip(&want) {
                assert!((g - w).abs() < 1e-12, "{variant:?}: {g} is not {w}");
            }
        }
    }

    #[test]
    fn what_winograd_does_not_serve_is_named() {
        let s = ConvShape::square(1, 4, 8, 4, 3, 2, 1);
        let e = check(Variant::F4x3, &s).unwrap_err();
        assert!(e.to_string().contains("stride_h = 2"), "{e}");
        assert!(check(Variant::F3x2, &ConvShape { stride_h: 1, stride_w: 1, ..s }).is_err());
    }
}
