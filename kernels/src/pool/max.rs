//! Max pooling: the largest pixel of each window and where it lies.

use super::PoolShape;
use crate::error::check_len;
use crate::task::{pixels, pixels_mut, plane_len, units};
use crate::{Error, Isa, Kernel, LANES, Simd};
use rayon::prelude::*;
use std::ops::Range;

/// The largest pixel of a window of a plane of `width` columns.
#[inline(always)]
pub(super) fn largest<S: Simd>(
    s: S,
    x: &[[f32; LANES]],
    width: usize,
    rows: Range<usize>,
    columns: Range<usize>,
) -> S::V {
    let mut best = s.vector(&x[rows.start * width + columns.start]);
    // Apart from the maximum, whose chain is then one instruction long: a NaN is never larger, and nothing than it.
    let mut nan = best;
    for row in rows {
        for pixel in &x[row * width..][columns.clone()] {
            let v = s.vector(pixel);
            best = s.select(s.gt(v, best), v, best);
            nan = s.select(s.is_nan(v), v, nan);
        }
    }
    s.select(s.is_nan(nan), nan, best)
}

/// As [`largest`], and the bits of its position.
#[inline(always)]
pub(super) fn largest_and_where<S: Simd>(
    s: S,
    x: &[[f32; LANES]],
    width: usize,
    rows: Range<usize>,
    columns: Range<usize>,
) -> (S::V, S::V) {
    let first = rows.start * width + columns.start;
    let (mut best, mut nan) = (s.vector(&x[first]), s.vector(&x[first]));
    // Lanes of positions: their bits pass through the selects untouched.
    let (mut at, mut nan_at) = (s.splat(f32::from_bits(first as u32)), s.splat(f32::from_bits(first as u32)));
    for row in rows {
        for (i, pixel) in (row * width + columns.start..).zip(&x[row * width..][columns.clone()]) {
            let (v, here) = (s.vector(pixel), s.splat(f32::from_bits(i as u32)));
            let (larger, is_nan) = (s.gt(v, best), s.is_nan(v));
            (best, at) = (s.select(larger, v, best), s.select(larger, here, at));
            (nan, nan_at) = (s.select(is_nan, v, nan), s.select(is_nan, here, nan_at));
        }
    }
    let is_nan = s.is_nan(nan);
    (s.select(is_nan, nan, best), s.select(is_nan, nan_at, at))
}

/// The pixel that a stored index names.
pub(super) fn check_index(plane: &mut [[f32; LANES]], index: u32) -> Result<&mut [f32; LANES], Error> {
    let (what, value) = ("index", index as usize);
    plane.get_mut(value).ok_or(Error::Shape { what, value, why: "lies outside the plane" })
}

struct Forward<'a> {
    shape: &'a PoolShape,
    x: &'a [f32],
    y: &'a mut [f32],
    index: Option<&'a mut [u32]>,
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (shape, out) = (self.shape, self.shape.output());
        let (x, y) = (pixels(self.x), pixels_mut(self.y));
        let mut index = self.index.map(|i| i.as_chunks_mut::<LANES>().0);
        for r in 0..out.h {
            let rows = shape.rows(r);
            for c in 0..out.w {
                let (to, rows, columns) = (r * out.w + c, rows.clone(), shape.columns(c));
                // The window below, if there is one: planes beyond the second level came three times as fast.
                for row in rows.clone() {
                    let below = x.as_ptr().wrapping_add(row.wrapping_add(shape.stride_h).wrapping_mul(shape.w));
                    columns.clone().for_each(|column| s.prefetch(below.wrapping_add(column).cast()));
                }
                match &mut index {
                    None => s.write(&mut y[to], largest(s, x, shape.w, rows, columns)),
                    Some(index) => {
                        let (best, at) = largest_and_where(s, x, shape.w, rows, columns);
                        s.write(&mut y[to], best);
                        index[to] = s.to_array(at).map(f32::to_bits);
                    }
                }
            }
        }
    }
}

/// The largest pixel of each window, blocked in and out.
///
/// Of equal pixels (−0.0 equals +0.0) the first is taken; if there is a NaN, the last NaN. `index`, as long as `y`,
/// becomes the position of the pixel taken, `row·w + column` in its plane, for [`max_backward`].
///
/// # Errors
/// A shape that [`PoolShape::check`] refuses, a length that does not fit it.
pub fn max_forward(
    isa: Isa,
    shape: &PoolShape,
    x: &[f32],
    y: &mut [f32],
    index: Option<&mut [u32]>,
) -> Result<(), Error> {
    shape.check()?;
    let (input, output) = (shape.input(), shape.output());
    check_len("x", x.len(), input.blocked_len())?;
    check_len("y", y.len(), output.blocked_len())?;
    check_len("index", index.as_ref().map_or(y.len(), |i| i.len()), y.len())?;
    let (ilen, olen) = (plane_len(&input), plane_len(&output));
    let planes = x.par_chunks(ilen).zip(y.par_chunks_mut(olen)).with_min_len(units(ilen));
    match index {
        None => planes.for_each(|(x, y)| isa.dispatch(Forward { shape, x, y, index: None })),
        Some(index) => planes
            .zip(index.par_chunks_mut(olen))
            .for_each(|((x, y), index)| isa.dispatch(Forward { shape, x, y, index: Some(index) })),
    }
    Ok(())
}

/// `dx`, overwritten: each `dy` is added to the pixel that its window's maximum came from, window by window.
///
/// `index` is what [`max_forward`] stored.
///
/// # Errors
/// A shape that [`PoolShape::check`] refuses, a length that does not fit it, an index outside the plane.
pub fn max_backward(_isa: Isa, shape: &PoolShape, index: &[u32], dy: &[f32], dx: &mut [f32]) -> Result<(), Error> {
    shape.check()?;
    let (input, output) = (shape.input(), shape.output());
    check_len("dy", dy.len(), output.blocked_len())?;
    check_len("index", index.len(), output.blocked_len())?;
    check_len("dx", dx.len(), input.blocked_len())?;
    let (ilen, olen) = (plane_len(&input), plane_len(&output));
    let planes = dx.par_chunks_mut(ilen).zip(dy.par_chunks(olen)).zip(index.par_chunks(olen));
    planes.with_min_len(units(ilen)).try_for_each(|((dx, dy), index)| {
        dx.fill(0.0);
        let dx = pixels_mut(dx);
        for (dy, index) in pixels(dy).iter().zip(index.as_chunks::<LANES>().0) {
            for lane in 0..LANES {
                check_index(dx, index[lane])?[lane] += dy[lane];
            }
        }
        Ok(())
    })
}
