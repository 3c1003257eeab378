//! Depthwise from planes to planes.

// Rows and vectors of a strip are clearer as numbers.
#![allow(clippy::needless_range_loop)]

use super::{Place, Planar, VECTORS};
use crate::conv::tile::parts;
use crate::{LANES, Simd};

/// Rows of a strip.
pub(in crate::conv) const ROWS: usize = 4;

impl Planar<'_> {
    /// Depthwise, plane by plane, some rows at a time: a weight is broadcast once for all of them.
    ///
    /// # Safety
    /// As [`Planar`] says, of a depthwise pass that reads a copy and writes planes.
    #[inline(always)]
    pub(super) unsafe fn strips<S: Simd>(&self, s: S) {
        let (cols, planes) = (self.pass.cols.count, self.pass.planes);
        let whole = cols.div_ceil(LANES);
        let most = if S::TILE_VECTORS >= VECTORS { VECTORS } else { 1 };
        for plane in 0..self.images * self.valid {
            let (image, lane) = (plane / self.valid, plane % self.valid);
            let (x, y) = (image * self.in_strides.image, image * self.out_strides.image);
            let (x, y) = (x + lane * planes.channel, y + lane * self.out_strides.block / LANES);
            let mut row = 0;
            while row < self.rows {
                let rows = if self.rows - row >= ROWS { ROWS } else { 1 };
                for (start, vectors) in parts(whole, whole.div_ceil(most)) {
                    let start = start * LANES;
                    let x = x + row * self.pass.rows.in_step * self.in_strides.row + start;
                    let pixels = (cols - start).min(vectors * LANES);
                    let place = Place { x, y: y + row * self.out_strides.row + start, pixels, block: 0, valid: 1 };
                    // SAFETY: the caller's promise.
                    unsafe {
                        match (rows, vectors) {
                            (ROWS, 1) => self.strip::<S, ROWS, 1>(s, lane, place),
                            (ROWS, 2) if const { S::TILE_VECTORS >= VECTORS } => {
                                self.strip::<S, ROWS, 2>(s, lane, place)
                            }
                            (ROWS, 3) if const { S::TILE_VECTORS >= VECTORS } => {
                                self.strip::<S, ROWS, 3>(s, lane, place)
                            }
                            (ROWS, _) if const { S::TILE_VECTORS >= VECTORS } => {
                                self.strip::<S, ROWS, VECTORS>(s, lane, place)
                            }
                            (_, 1) => self.strip::<S, 1, 1>(s, lane, place),
                            (_, 2) if const { S::TILE_VECTORS >= VECTORS } => self.strip::<S, 1, 2>(s, lane, place),
                            (_, 3) if const { S::TILE_VECTORS >= VECTORS } => self.strip::<S, 1, 3>(s, lane, place),
                            _ if const { S::TILE_VECTORS >= VECTORS } => self.strip::<S, 1, VECTORS>(s, lane, place),
                            _ => unreachable!(),
                        }
                    }
                }
                row += rows;
            }
        }
    }

    /// `R` rows of `V` vectors of one plane.
    ///
    /// # Safety
    /// As [`Planar::strips`]; the rows are the band's, the first of which is at the place, the lane is a channel of it.
    #[inline(always)]
    unsafe fn strip<S: Simd, const R: usize, const V: usize>(&self, s: S, lane: usize, place: Place) {
        let mut acc = [[s.zero(); V]; R];
        let in_row = self.pass.rows.in_step * self.in_strides.row;
        let x = self.x.wrapping_add(place.x);
        let mut w = self.w.wrapping_add(lane);
        let last = place.pixels - (V - 1) * LANES;
        // SAFETY: the caller's promise.
        unsafe {
            for &offset in &self.pass.offsets {
                let weight = s.broadcast(w);
                for r in 0..R {
                    for v in 0..V {
                        acc[r][v] = s.fma(s.load(x.add(offset + r * in_row + v * LANES)), weight, acc[r][v]);
                    }
                }
                w = w.wrapping_add(LANES);
            }
            let (bias, slope) = self.finish.parameter(lane);
            let (bias, slope) = (s.splat(bias), s.splat(slope));
            for r in 0..R {
                for v in 0..V {
                    let sum = s.add(acc[r][v], bias);
                    let sum = s.select(s.gt(sum, s.zero()), sum, s.mul(slope, sum));
                    let to = self.y.add(place.y + r * self.out_strides.row + v * LANES);
                    if v + 1 < V || last == LANES { s.store(to, sum) } else { s.store_first(to, sum, last) }
                }
            }
        }
    }
}
