//! Outputs of phases: every other row and column.

// Rows and columns of a tile are clearer as numbers.
#![allow(clippy::needless_range_loop)]

use super::{Epilogue, Rooms};
use crate::conv::winograd::Place;
use crate::conv::winograd::spread::gather_tile;
use crate::conv::winograd::transform::Line;
use crate::reference::winograd::Interleaved;
use crate::{LANES, Lanes, Simd, blocks};
use std::ops::Range;

/// Pixels from one of a phase's to the next.
const STEP: usize = 2;

impl Epilogue<'_> {
    /// Transforms the products of the tile at `place`, which are `position` apart from `from` on, and writes what one
    /// phase computes: no bias, no PReLU.
    ///
    /// # Safety
    /// As [`Epilogue::tile`].
    #[inline(always)]
    pub unsafe fn phase<S: Simd, T: Line<N, M>, const N: usize, const M: usize>(
        &self,
        s: S,
        from: *const f32,
        position: usize,
        place: Place,
        (axes, phase): (&[Interleaved; 2], [usize; 2]),
        Rooms([room, _]): &mut Rooms,
    ) {
        let (d, r, streams) = (self.output, s.register(), S::STREAMS && self.call.streams);
        let (row, rows) = range::<M>(&axes[0], place.row, phase[0], d.h);
        let (col, cols) = range::<M>(&axes[1], place.col, phase[1], d.w);
        let to = self.call.y.ptr().wrapping_add(self.plane(place.image));
        let to = to.wrapping_offset((row * d.w as isize + col) * LANES as isize);
        let line = STEP * d.w * LANES;
        if !streams {
            // Where the next tile's outputs go, lest their stores wait.
            for i in 0..M {
                for c in M..2 * M {
                    s.prefetch_far(to.wrapping_add(i * line + c * STEP * LANES));
                }
            }
        }
        // A line of several registers is put together first, for it has to be streamed at once.
        let is_apart = streams && !S::Register::STREAMS;
        for part in 0..S::PARTS {
            let (lane, valid) = (part * S::Register::WIDTH, r.first(self.valid, part));
            // SAFETY: the caller's promise; a room has more pixels than a tile.
            unsafe {
                let y = gather_tile::<S::Register, T, N, M>(r, from.add(lane), position);
                for i in rows.clone() {
                    for j in cols.clone() {
                        let v = if self.valid == LANES { y[i][j] } else { r.select(valid, y[i][j], r.zero()) };
                        match is_apart {
                            true => r.store(room.ptr().add((i * M + j) * LANES + lane), v),
                            false => r.put(to.wrapping_add(i * line + j * STEP * LANES + lane), v, streams),
                        }
                    }
                }
            }
        }
        if is_apart {
            for i in rows {
                for j in cols.clone() {
                    // SAFETY: the caller's promise; the call's outputs are whole lines.
                    unsafe {
                        let v = s.load(room.ptr().add((i * M + j) * LANES));
                        s.stream(to.wrapping_add(i * line + j * STEP * LANES), v);
                    }
                }
            }
        }
    }

    /// The same of all phases, which lie side by side in the lanes; those of odd rows and columns may lack the last
    /// position, where products are overwritten.
    ///
    /// # Safety
    /// As [`Epilogue::tile`], and the positions must be writable.
    #[inline(always)]
    pub unsafe fn phases<S: Simd, T: Line<N, M>, const N: usize, const M: usize>(
        &self,
        s: S,
        from: *mut f32,
        position: usize,
        place: Place,
        (axes, lacks): (&[Interleaved; 2], bool),
        Rooms([room, _]): &mut Rooms,
    ) {
        let (d, r, streams) = (self.output, s.register(), S::STREAMS && self.call.streams);
        let room = room.ptr();
        if lacks {
            // SAFETY: the caller's promise.
            unsafe { self.clear::<S, N>(s, from, position) };
        }
        for part in 0..S::PARTS {
            let lane = part * S::Register::WIDTH;
            // SAFETY: the caller's promise; a room has more pixels than a tile.
            unsafe {
                let y = gather_tile::<S::Register, T, N, M>(r, from.add(lane), position);
                for (i, &v) in y.as_flattened().iter().enumerate() {
                    r.store(room.add(i * LANES + lane), v);
                }
            }
        }
        let to = self.call.y.ptr().wrapping_add(self.plane(place.image));
        for (row, phase_row) in (0..M).flat_map(|i| [(i, 1), (i, 0)]) {
            let Some(y) = axes[0].row(place.row * M + row, phase_row, d.h) else { continue };
            for (col, phase_col) in (0..M).flat_map(|j| [(j, 1), (j, 0)]) {
                let Some(x) = axes[1].row(place.col * M + col, phase_col, d.w) else { continue };
                let lane = (phase_row * STEP + phase_col) * self.valid;
                // SAFETY: the caller's promise; four phases of this many channels are a block's lanes at most.
                unsafe {
                    let v = s.load_first(room.add((row * M + col) * LANES + lane), self.valid);
                    s.put(to.add((y * d.w + x) * LANES), v, streams);
                }
            }
        }
    }

    /// Makes the products zero that a phase lacks: of an infinite or NaN input they are NaN.
    ///
    /// # Safety
    /// 16 elements must be readable and writable at each of `N²` positions.
    #[inline(always)]
    unsafe fn clear<S: Simd, const N: usize>(&self, s: S, at: *mut f32, position: usize) {
        let [one, two, three] = [1, 2, 3].map(|phases| s.first(phases * self.valid, 0));
        for i in 0..N {
            let (right, lower) =
                (at.wrapping_add((i * N + N - 1) * position), at.wrapping_add(((N - 1) * N + i) * position));
            // SAFETY: the caller's promise.
            unsafe {
                let v = s.load(right);
                let of_even_columns = s.select(two, s.zero(), s.select(three, v, s.zero()));
                s.store(right, s.select(one, v, of_even_columns));
                s.store(lower, s.select(two, s.load(lower), s.zero()));
            }
        }
    }

    /// Where the block's plane of an image begins.
    #[inline(always)]
    fn plane(&self, image: usize) -> usize {
        (image * blocks(self.output.c) + self.block) * self.output.plane() * LANES
    }
}

/// Where a phase's first of a tile's rows lies, and which of them lie in the image.
#[inline(always)]
fn range<const M: usize>(axis: &Interleaved, tile: usize, phase: usize, size: usize) -> (isize, Range<usize>) {
    let first = (STEP * tile * M + axis.first) as isize - phase as isize;
    let end = ((size as isize - first + 1).max(0) as usize / STEP).min(M);
    (first, usize::from(first < 0).min(end)..end)
}
