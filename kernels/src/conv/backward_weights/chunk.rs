//! The register tiles of the weight gradient over one chunk of pixels.

use crate::conv::tile::{Ahead, ROWS, Run, accumulate, accumulate_lanes, parts};
use crate::{Kernel, LANES, Simd};

/// A unit's sums over one chunk.
pub(super) struct Chunk<'a> {
    pub depthwise: bool,
    /// Where each row begins in the input.
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
        for (start, vectors) in parts(self.vectors, self.vectors.div_ceil(S::TILE_VECTORS)) {
            // SAFETY: `group` made the pointers: they reach what the runs, the offsets and the blocks ask.
            unsafe {
                match vectors {
                    4 if S::TILE_VECTORS >= 4 => self.sweep::<S, 4>(s, start),
                    3 if S::TILE_VECTORS >= 3 => self.sweep::<S, 3>(s, start),
                    2 if S::TILE_VECTORS >= 2 => self.sweep::<S, 2>(s, start),
                    _ => self.sweep::<S, 1>(s, start),
                }
            }
        }
    }
}

impl Chunk<'_> {
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
            if self.depthwise {
                let acc = accumulate_lanes::<S, I>(s, &x, self.step, self.runs, dy);
                add_lines::<S, I, 1>(s, &acc, sums.as_mut_ptr().add(start * LANES), height, self.first);
            } else {
                let acc =
                    accumulate::<S, I, J>(s, &x, self.step, self.runs.iter().copied(), dy, self.stream, Ahead::NONE);
                add_lines::<S, I, J>(s, &acc, sums.as_mut_ptr().add(start * LANES), height, self.first);
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
