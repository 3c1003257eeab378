//! The register tiles of the weight gradient over one chunk of pixels.

// The lines of a tile are clearer as numbers.
#![allow(clippy::needless_range_loop)]

use crate::conv::tile::{Ahead, ROWS, Run, accumulate, accumulate_lanes, parts};
use crate::{Kernel, LANES, Lanes, Simd};

/// Taps of the tile of small groups: with four or eight channels chains enough to hide the latency of FMA.
const TAPS: usize = 3;

/// A unit's sums over one chunk. Whoever makes it promises that for each offset, each run and each `k` below its length
/// `x + offset + run.x + k·step` can be read, lane by lane 16 elements from there on if the offset is of a first
/// channel; and 16 elements at `dy + run.w + 16·k` in each of the blocks.
pub(super) struct Chunk<'a> {
    /// Channels of a group that is computed lane by lane.
    pub by_lanes: Option<usize>,
    /// Where each row begins in the input; of small groups all rows of a unit, `[channel of the group][tap]`, those of
    /// the first channel where a pixel's sixteen begin.
    pub offsets: &'a [usize],
    /// Where the chunk's first pixel reads, and the distance of pixels.
    pub x: *const f32,
    pub step: usize,
    /// The chunk's output gradients, and the distance of blocks.
    pub dy: *const f32,
    pub stream: usize,
    /// One for each output row.
    pub runs: &'a [Run],
    /// Blocks of output channels.
    pub vectors: usize,
    /// Whether to set the sums in place of adding to them.
    pub first: bool,
    /// `[oc block][row][16]`.
    pub sums: &'a mut [f32],
}

impl Kernel for Chunk<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        // SAFETY: `Direct::group` has made the pointers: they reach what the runs, the offsets and the blocks ask.
        unsafe {
            match self.by_lanes {
                Some(2) => self.lanes::<S, 2>(s),
                Some(4) => self.lanes::<S, 4>(s),
                Some(8) => self.lanes::<S, 8>(s),
                _ => self.blocks(s),
            }
        }
    }
}

impl Chunk<'_> {
    /// All blocks of output channels, as many at a time as a tile has.
    ///
    /// # Safety
    /// As [`Chunk`] says.
    #[inline(always)]
    unsafe fn blocks<S: Simd>(&mut self, s: S) {
        for (start, vectors) in parts(self.vectors, self.vectors.div_ceil(S::TILE_VECTORS)) {
            // SAFETY: the caller's promise.
            unsafe {
                match vectors {
                    4 if const { S::TILE_VECTORS >= 4 } => self.sweep::<S, 4>(s, start),
                    3 if const { S::TILE_VECTORS >= 3 } => self.sweep::<S, 3>(s, start),
                    2 if const { S::TILE_VECTORS >= 2 } => self.sweep::<S, 2>(s, start),
                    _ => self.sweep::<S, 1>(s, start),
                }
            }
        }
    }

    /// All rows of `J` blocks of output channels from `block` on.
    ///
    /// # Safety
    /// As [`Chunk`] says; it has the blocks.
    #[inline(always)]
    unsafe fn sweep<S: Simd, const J: usize>(&mut self, s: S, block: usize) {
        let rows = self.offsets.len();
        for (start, len) in parts(rows, rows.div_ceil(ROWS)) {
            // SAFETY: the caller's promise.
            unsafe {
                match len {
                    1 => self.tile::<S, 1, J>(s, block, start),
                    2 => self.tile::<S, 2, J>(s, block, start),
                    3 => self.tile::<S, 3, J>(s, block, start),
                    4 => self.tile::<S, 4, J>(s, block, start),
                    5 => self.tile::<S, 5, J>(s, block, start),
                    _ => self.tile::<S, ROWS, J>(s, block, start),
                }
            }
        }
    }

    /// One register tile: `I` rows from `start` on of these blocks.
    ///
    /// # Safety
    /// As [`Chunk::sweep`].
    #[inline(always)]
    unsafe fn tile<S: Simd, const I: usize, const J: usize>(&mut self, s: S, block: usize, start: usize) {
        let mut x = [self.x; I];
        for (x, offset) in x.iter_mut().zip(&self.offsets[start..start + I]) {
            *x = x.wrapping_add(*offset);
        }
        let dy = self.dy.wrapping_add(block * self.stream);
        let height = self.offsets.len() * LANES;
        let sums = &mut self.sums[block * height..(block + J) * height];
        // SAFETY: the caller's promise for the reads; the sums are a slice of `J` blocks of `offsets.len()` lines, and
        // `start + I` lines exist.
        unsafe {
            if self.by_lanes.is_some() {
                let acc = accumulate_lanes::<S, I>(s, &x, self.step, self.runs, dy);
                add_lines::<S, I, 1>(s, &acc, sums.as_mut_ptr().add(start * LANES), height, self.first);
            } else {
                let acc =
                    accumulate::<S, I, J>(s, &x, self.step, self.runs.iter().copied(), dy, self.stream, Ahead::NONE);
                add_lines::<S, I, J>(s, &acc, sums.as_mut_ptr().add(start * LANES), height, self.first);
            }
        }
    }

    /// Groups of `G` channels: three taps at a time, or one where their sums might not fit the registers.
    ///
    /// # Safety
    /// As [`Chunk`] says, of groups of `G` channels.
    #[inline(always)]
    unsafe fn lanes<S: Simd, const G: usize>(&mut self, s: S) {
        let taps = self.offsets.len() / G;
        let mut tap = 0;
        while tap < taps {
            // SAFETY: the caller's promise.
            unsafe {
                if const { S::UNROLLS && (G < 8 || S::TILE_VECTORS > 1) } && tap + TAPS <= taps {
                    self.lane_tile::<S, G, TAPS>(s, tap);
                    tap += TAPS;
                } else {
                    self.lane_tile::<S, G, 1>(s, tap);
                    tap += 1;
                }
            }
        }
    }

    /// `T` taps of groups of `G` channels: each lane's output gradient by the inputs of its group, one after the other.
    ///
    /// # Safety
    /// As [`Chunk::lanes`].
    #[inline(always)]
    unsafe fn lane_tile<S: Simd, const G: usize, const T: usize>(&mut self, s: S, tap: usize) {
        let x: [_; T] = std::array::from_fn(|t| self.x.wrapping_add(self.offsets[tap + t]));
        let taps = self.offsets.len() / G;
        let sums = &mut self.sums[tap * LANES..][..((G - 1) * taps + T) * LANES];
        let s = s.register();
        for part in 0..S::PARTS {
            let lane = part * S::Register::WIDTH;
            let mut acc = [[s.zero(); G]; T];
            for run in self.runs {
                for k in 0..run.len {
                    // SAFETY: the caller's promise for the reads: sixteen inputs of each pixel, sixteen gradients.
                    unsafe {
                        let dy = s.load(self.dy.add(run.w + k * LANES + lane));
                        for t in 0..T {
                            let of_group = s.group::<G>(x[t].add(run.x + k * self.step), lane);
                            for g in 0..G {
                                acc[t][g] = s.fma(of_group[g], dy, acc[t][g]);
                            }
                        }
                    }
                }
            }
            for t in 0..T {
                for g in 0..G {
                    // SAFETY: the slice has a line for each.
                    unsafe {
                        let to = sums.as_mut_ptr().add((g * taps + t) * LANES + lane);
                        s.store(to, if self.first { acc[t][g] } else { s.add(s.load(to), acc[t][g]) });
                    }
                }
            }
        }
    }
}

/// Adds a tile to the sums at `to`, or sets them if it is the first.
///
/// # Safety
/// `J` streams, `stream` apart, of `I` lines of 16 must be readable and writable at `to`.
#[inline(always)]
pub(in crate::conv) unsafe fn add_lines<S: Simd, const I: usize, const J: usize>(
    s: S,
    acc: &[[S::V; J]; I],
    to: *mut f32,
    stream: usize,
    first: bool,
) {
    for (i, row) in acc.iter().enumerate() {
        for (j, &v) in row.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe {
                let p = to.add(j * stream + i * LANES);
                s.store(p, if first { v } else { s.add(s.load(p), v) });
            }
        }
    }
}
