//! Average pooling.

use super::PoolShape;
use crate::error::check_len;
use crate::task::{pixels, pixels_mut, plane_len, units};
use crate::{Error, Isa, Kernel, Simd};
use rayon::prelude::*;

struct Forward<'a> {
    shape: &'a PoolShape,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (shape, out) = (self.shape, self.shape.output());
        let (x, y) = (pixels(self.x), pixels_mut(self.y));
        for r in 0..out.h {
            for c in 0..out.w {
                let (rows, columns) = (shape.rows(r), shape.columns(c));
                let count = (rows.len() * columns.len()) as f32;
                let mut sum = s.zero();
                for row in rows {
                    for pixel in &x[row * shape.w..][columns.clone()] {
                        sum = s.add(sum, s.vector(pixel));
                    }
                }
                y[r * out.w + c] = s.to_array(sum).map(|v| v / count);
            }
        }
    }
}

struct Backward<'a> {
    shape: &'a PoolShape,
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (shape, out) = (self.shape, self.shape.output());
        self.dx.fill(0.0);
        let (dy, dx) = (pixels(self.dy), pixels_mut(self.dx));
        for r in 0..out.h {
            for c in 0..out.w {
                let (rows, columns) = (shape.rows(r), shape.columns(c));
                let count = (rows.len() * columns.len()) as f32;
                let share = s.vector(&dy[r * out.w + c].map(|v| v / count));
                for row in rows {
                    for pixel in &mut dx[row * shape.w..][columns.clone()] {
                        let sum = s.add(s.vector(pixel), share);
                        s.write(pixel, sum);
                    }
                }
            }
        }
    }
}

/// The mean of each window, blocked in and out: the pixels added one by one from zero, divided by their number.
///
/// # Errors
/// A shape that [`PoolShape::check`] refuses, a length that does not fit it.
pub fn average_forward(isa: Isa, shape: &PoolShape, x: &[f32], y: &mut [f32]) -> Result<(), Error> {
    shape.check()?;
    let (input, output) = (shape.input(), shape.output());
    check_len("x", x.len(), input.blocked_len())?;
    check_len("y", y.len(), output.blocked_len())?;
    let planes = x.par_chunks(plane_len(&input)).zip(y.par_chunks_mut(plane_len(&output)));
    planes.with_min_len(units(plane_len(&input))).for_each(|(x, y)| isa.dispatch(Forward { shape, x, y }));
    Ok(())
}

/// `dx`, overwritten: each `dy`, divided by the pixels of its window, is added to each of them, window by window.
///
/// # Errors
/// A shape that [`PoolShape::check`] refuses, a length that does not fit it.
pub fn average_backward(isa: Isa, shape: &PoolShape, dy: &[f32], dx: &mut [f32]) -> Result<(), Error> {
    shape.check()?;
    let (input, output) = (shape.input(), shape.output());
    check_len("dy", dy.len(), output.blocked_len())?;
    check_len("dx", dx.len(), input.blocked_len())?;
    let planes = dy.par_chunks(plane_len(&output)).zip(dx.par_chunks_mut(plane_len(&input)));
    planes.with_min_len(units(plane_len(&input))).for_each(|(dy, dx)| isa.dispatch(Backward { shape, dy, dx }));
    Ok(())
}
