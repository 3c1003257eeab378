//! What becomes of a tile's sums.

// Channels and vectors of a tile are clearer as numbers.
#![allow(clippy::needless_range_loop)]

use super::{Place, Planar, Sums};
use crate::conv::band::Finish;
use crate::{LANES, Simd};
use std::ops::Range;

impl Planar<'_> {
    /// Bias, PReLU and the stores of a tile whose channels are all there, to their planes.
    /// # Safety
    /// As [`Planar`] says of `y` and `finish`; pixels and channels are the band's, and whole lines if `STREAM`.
    #[inline(always)]
    pub(super) unsafe fn store_tile<S: Simd, const O: usize, const V: usize, const STREAM: bool>(
        &self,
        s: S,
        acc: &[[S::V; V]; O],
        place: Place,
        first: usize,
    ) {
        let (plane, last) = (self.out_strides.block / LANES, place.pixels - (V - 1) * LANES);
        for o in 0..O {
            // SAFETY: the caller's promise; if it streams, lines are whole.
            unsafe {
                let (bias, slope) = self.finish.parameter(place.block * LANES + first + o);
                let (bias, slope) = (s.splat(bias), s.splat(slope));
                let to = self.y.add(place.y + (first + o) * plane);
                for v in 0..V {
                    let sum = s.add(acc[o][v], bias);
                    let sum = s.select(s.gt(sum, s.zero()), sum, s.mul(slope, sum));
                    if v + 1 < V || last == LANES {
                        s.put(to.add(v * LANES), sum, STREAM);
                    } else {
                        s.store_first(to.add(v * LANES), sum, last);
                    }
                }
            }
        }
    }

    /// Stores some channels' pixels to their planes.
    /// # Safety
    /// As [`Planar`] says of `y` and `finish`; pixels and channels are the band's.
    #[inline(always)]
    pub(super) unsafe fn store_planes<S: Simd>(&self, s: S, place: Place, sums: &Sums, channels: Range<usize>) {
        let plane = self.out_strides.block / LANES;
        let Finish { shortcut, pre, .. } = self.finish;
        for o in channels {
            // SAFETY: the caller's promise.
            unsafe {
                let (bias, slope) = self.finish.parameter(place.block * LANES + o);
                let (bias, slope) = (s.splat(bias), s.splat(slope));
                for start in (0..place.pixels).step_by(LANES) {
                    let n = LANES.min(place.pixels - start);
                    let at = place.y + o * plane + start;
                    let mut v = s.add(s.load(sums[o].as_ptr().add(start)), bias);
                    if !pre.is_null() {
                        s.store_first(pre.add(at), v, n);
                    }
                    if !shortcut.is_null() {
                        v = s.add(v, s.load_first(shortcut.add(at), n));
                    }
                    s.store_first(self.y.add(at), s.select(s.gt(v, s.zero()), v, s.mul(slope, v)), n);
                }
            }
        }
    }

    /// Stores a block's pixels, 16 lanes each.
    /// # Safety
    /// As [`Planar`] says of `y` and `finish`; pixels and block are the band's, the outputs blocked.
    #[inline(always)]
    pub(super) unsafe fn store_pixels<S: Simd>(&self, s: S, place: Place, sums: &Sums) {
        let valid = s.first(place.valid, 0);
        // SAFETY: the caller's promise.
        let parameters = unsafe { self.finish.parameters(s, place.block * LANES) };
        for start in (0..place.pixels).step_by(LANES) {
            let mut rows = [s.zero(); LANES];
            // SAFETY: the caller's promise; a row of sums has room for all vectors.
            unsafe {
                for o in 0..place.valid {
                    rows[o] = s.load(sums[o].as_ptr().add(start));
                }
                s.transpose(&mut rows);
                for i in 0..LANES.min(place.pixels - start) {
                    let at = place.y + (start + i) * self.out_strides.col;
                    self.finish.store(s, rows[i], parameters, self.y, at, valid);
                }
            }
        }
    }
}
