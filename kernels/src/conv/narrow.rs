//! Passes to at most 16 output channels: one virtual vector wide, so the register tile is many pixels tall.
//!
//! The pixels of a tile are neighbours in a row, 16 elements apart, so that one pointer reaches them all.

// The pixels of a tile are clearer as numbers.
#![allow(clippy::needless_range_loop)]

use super::band::Finish;
use super::pass::{Chunk, Pass, Strides};
use crate::{Kernel, LANES, Simd};
use std::hint::black_box;

/// One band of one group, of all its chunks. Whoever makes it promises that what the pass's runs read of each of the
/// band's pixels can be read from `x` on, and 16 weights for each step from `w` on; that 16 elements can be written at
/// each pixel from `y` on, and accessed there in what else `finish` has, whose bias and slopes are 16; that no other
/// thread touches what is written; and that it is whole lines if it is streamed.
pub(super) struct Narrow<'a> {
    pub pass: &'a Pass,
    /// Where the band's first output pixel reads, and the distances from there; columns are 16 apart.
    pub x: *const f32,
    pub in_strides: Strides,
    /// Where the band's first output pixel is written, and the distances from there.
    pub y: *mut f32,
    pub out_strides: Strides,
    /// The group's packed weights.
    pub w: *const f32,
    /// The group's epilogue; `shortcut` and `pre` correspond to `y`.
    pub finish: Finish,
    pub images: usize,
    pub rows: usize,
    /// Channels that the block has.
    pub valid: usize,
}

impl Kernel for Narrow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let cols = self.pass.cols.count;
        let tiles = cols.div_ceil(S::NARROW_ROWS);
        for image in 0..self.images {
            for row in 0..self.rows {
                let x = image * self.in_strides.image + row * self.pass.rows.in_step * self.in_strides.row;
                let y = image * self.out_strides.image + row * self.out_strides.row;
                for (start, len) in super::tile::parts(cols, tiles) {
                    let x = self.x.wrapping_add(x + start * LANES);
                    let y = y + start * self.out_strides.col;
                    // SAFETY: whoever made the kernel has promised it; the tile's pixels are the band's.
                    unsafe {
                        match len {
                            1 => self.tile::<S, 1>(s, x, y),
                            2 => self.tile::<S, 2>(s, x, y),
                            3 => self.tile::<S, 3>(s, x, y),
                            4 => self.tile::<S, 4>(s, x, y),
                            5 => self.tile::<S, 5>(s, x, y),
                            6 => self.tile::<S, 6>(s, x, y),
                            7 if const { S::NARROW_ROWS > 6 } => self.tile::<S, 7>(s, x, y),
                            8 if const { S::NARROW_ROWS > 6 } => self.tile::<S, 8>(s, x, y),
                            9 if const { S::NARROW_ROWS > 6 } => self.tile::<S, 9>(s, x, y),
                            10 if const { S::NARROW_ROWS > 6 } => self.tile::<S, 10>(s, x, y),
                            11 if const { S::NARROW_ROWS > 6 } => self.tile::<S, 11>(s, x, y),
                            12 if const { S::NARROW_ROWS > 6 } => self.tile::<S, 12>(s, x, y),
                            13 if const { S::NARROW_ROWS > 6 } => self.tile::<S, 13>(s, x, y),
                            _ if const { S::NARROW_ROWS > 6 } => self.tile::<S, 14>(s, x, y),
                            _ => unreachable!(),
                        }
                    }
                }
            }
        }
    }
}

impl Narrow<'_> {
    /// `I` neighbouring pixels.
    ///
    /// # Safety
    /// As [`Narrow`] says; the pixels are the band's, the first of them reads at `x` and is written `y` elements on.
    #[inline(always)]
    unsafe fn tile<S: Simd, const I: usize>(&self, s: S, x: *const f32, y: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let [first, rest @ ..] = &self.pass.chunks[..] else { return };
            let mut sums = self.chain::<S, I>(s, first, x);
            for chunk in rest {
                let chain = self.chain::<S, I>(s, chunk, x);
                for i in 0..I {
                    sums[i] = s.add(sums[i], chain[i]);
                }
            }
            let is_plain = self.finish.shortcut.is_null() && self.finish.pre.is_null();
            let (bias, slopes) = self.finish.parameters(s, 0);
            let valid = s.first(self.valid, 0);
            if is_plain {
                for i in 0..I {
                    let v = s.add(sums[i], bias);
                    let to = self.y.add(y + i * self.out_strides.col);
                    let v = s.select(s.gt(v, s.zero()), v, s.mul(slopes, v));
                    s.put(to, s.select(valid, v, s.zero()), self.finish.streams);
                }
                return;
            }
            // Through memory, in a loop that is not unrolled: the compiler spilled the chains.
            let mut lines = [[0.0f32; LANES]; I];
            for i in 0..I {
                s.write(&mut lines[i], sums[i]);
            }
            for (i, line) in black_box(&lines).iter().enumerate() {
                let at = y + i * self.out_strides.col;
                self.finish.store(s, s.vector(line), (bias, slopes), self.y, at, valid);
            }
        }
    }

    /// The sums of one chunk.
    ///
    /// # Safety
    /// As [`Narrow`] says of `w`; the chunk is one of the pass's, and for each of its runs, each `k` below its length
    /// and each `i` below `I` the element `x + run.x + k + 16·i` must be readable.
    #[inline(always)]
    unsafe fn chain<S: Simd, const I: usize>(&self, s: S, chunk: &Chunk, x: *const f32) -> [S::V; I] {
        let mut chain = [s.zero(); I];
        for run in &self.pass.runs[chunk.runs.clone()] {
            let (from, weights) = (x.wrapping_add(run.x), self.w.wrapping_add(chunk.steps.start * LANES + run.w));
            for k in 0..run.len {
                // SAFETY: the caller's promise.
                unsafe {
                    let w = s.load(weights.add(k * LANES));
                    for i in 0..I {
                        chain[i] = s.fma(s.broadcast(from.add(k + i * LANES)), w, chain[i]);
                    }
                }
            }
        }
        chain
    }
}
