//! The loops over one band: vectors of output channels, chunks of the reduction, tiles of pixels.

use super::pass::{Pass, Strides};
use super::tile::{ROWS, Run, accumulate, accumulate_lanes, parts};
use crate::reference::conv::CHUNK;
use crate::{Kernel, LANES, Simd};
use std::ops::Range;

/// Weights of a chunk that stay in the second cache while tile after tile uses them: 256 KiB.
const WEIGHTS: usize = 1 << 16;

/// Bias, slopes (each 16 for a block of output channels), the tensor to add and where the pre-activation goes: the
/// epilogue's pointers, null for what there is not.
#[derive(Clone, Copy)]
pub(super) struct Finish {
    pub bias: *const f32,
    pub slopes: *const f32,
    pub shortcut: *const f32,
    pub pre: *mut f32,
}

/// One band of one group, for some of its blocks of output channels.
pub(super) struct Band<'a> {
    pub pass: &'a Pass,
    /// Where the band's first output pixel reads, and the distances from there.
    pub x: *const f32,
    pub in_strides: Strides,
    /// Where the band's first output pixel of the group's first block is written, and the distances from there.
    pub y: *mut f32,
    pub out_strides: Strides,
    /// The group's packed weights.
    pub w: *const f32,
    /// The group's epilogue; `shortcut` and `pre` correspond to `y`.
    pub finish: Finish,
    pub images: usize,
    pub rows: usize,
    /// Blocks of output channels.
    pub blocks: Range<usize>,
    /// Channels that the group's last block has.
    pub valid: usize,
}

/// A block's outputs for one tile: whether earlier chunks have left a sum there, whether this is the last chunk.
#[derive(Clone, Copy)]
struct Step {
    first: bool,
    last: bool,
    block: usize,
}

impl Kernel for Band<'_> {
    type Output = ();

    /// Panels share a chunk of the input while it is in the first cache, as many as keep their weights in the second.
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let most = if self.pass.depthwise { 1 } else { self.pass.most_vectors.min(S::TILE_VECTORS) };
        let fit = WEIGHTS / (LANES * self.pass.k.min(CHUNK * LANES)).max(1) / most * most;
        let shares = self.blocks.len().div_ceil(fit.max(most));
        for (start, len) in parts(self.blocks.len(), shares) {
            let blocks = self.blocks.start + start..self.blocks.start + start + len;
            for (i, chunk) in self.pass.chunks.iter().enumerate() {
                let step = Step { first: i == 0, last: i + 1 == self.pass.chunks.len(), block: 0 };
                let runs = &self.pass.runs[chunk.runs.clone()];
                // SAFETY: whoever made the band promises that its pointers reach what pass, strides and ranges ask.
                unsafe { self.sweep(s, most, runs, self.w.add(chunk.k * LANES), step, blocks.clone()) };
            }
        }
    }
}

impl Band<'_> {
    /// All the band's pixels, a range of blocks of output channels in panels of at most `most`, one chunk.
    #[inline(always)]
    unsafe fn sweep<S: Simd>(&self, s: S, most: usize, runs: &[Run], w: *const f32, step: Step, blocks: Range<usize>) {
        let cols = self.pass.cols.count;
        let pixels = self.images * self.rows * cols;
        let tiles = pixels.div_ceil(ROWS);
        let panels = blocks.len().div_ceil(most);
        let (a, b) = (&self.in_strides, &self.out_strides);
        let (in_row, in_col) = (self.pass.rows.in_step * a.row, self.pass.cols.in_step * a.col);
        let (mut image, mut row, mut col) = (0, 0, 0);
        for (_, len) in parts(pixels, tiles) {
            let mut x = [self.x; ROWS];
            let mut y = [0; ROWS];
            for i in 0..len {
                x[i] = x[i].wrapping_add(image * a.image + row * in_row + col * in_col);
                y[i] = image * b.image + row * b.row + col * b.col;
                col += 1;
                if col == cols {
                    (row, col) = (row + 1, 0);
                }
                if row == self.rows {
                    (image, row) = (image + 1, 0);
                }
            }
            for (start, vectors) in parts(blocks.len(), panels) {
                let block = blocks.start + start;
                let step = Step { block, ..step };
                // SAFETY: the caller's promise; the tile's pixels are the band's.
                unsafe {
                    let w = w.add(block * self.pass.k * LANES);
                    match vectors {
                        4 if S::TILE_VECTORS >= 4 => self.rows::<S, 4>(s, len, runs, w, &x, &y, step),
                        3 if S::TILE_VECTORS >= 3 => self.rows::<S, 3>(s, len, runs, w, &x, &y, step),
                        2 if S::TILE_VECTORS >= 2 => self.rows::<S, 2>(s, len, runs, w, &x, &y, step),
                        _ => self.rows::<S, 1>(s, len, runs, w, &x, &y, step),
                    }
                }
            }
        }
    }

    /// A tile of as many pixels as there are.
    #[allow(clippy::too_many_arguments)]
    #[inline(always)]
    unsafe fn rows<S: Simd, const J: usize>(
        &self,
        s: S,
        len: usize,
        runs: &[Run],
        w: *const f32,
        x: &[*const f32; ROWS],
        y: &[usize; ROWS],
        step: Step,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match len {
                1 => self.tile::<S, 1, J>(s, runs, w, x, y, step),
                2 => self.tile::<S, 2, J>(s, runs, w, x, y, step),
                3 => self.tile::<S, 3, J>(s, runs, w, x, y, step),
                4 => self.tile::<S, 4, J>(s, runs, w, x, y, step),
                5 => self.tile::<S, 5, J>(s, runs, w, x, y, step),
                _ => self.tile::<S, ROWS, J>(s, runs, w, x, y, step),
            }
        }
    }

    /// One register tile: the chunk's sums, what the chunks before have left, and after the last one the epilogue.
    #[inline(always)]
    unsafe fn tile<S: Simd, const I: usize, const J: usize>(
        &self,
        s: S,
        runs: &[Run],
        w: *const f32,
        x: &[*const f32; ROWS],
        y: &[usize; ROWS],
        step: Step,
    ) {
        let mut rows = [x[0]; I];
        rows.copy_from_slice(&x[..I]);
        // SAFETY: the band's promise: each row reaches all runs, the weights hold J blocks of k steps.
        unsafe {
            if self.pass.depthwise {
                let acc = accumulate_lanes::<S, I>(s, &rows, 1, runs, w);
                self.store::<S, I, 1>(s, &acc, y, step);
            } else {
                let acc = accumulate::<S, I, J>(s, &rows, 1, runs.iter().copied(), w, self.pass.k * LANES);
                self.store::<S, I, J>(s, &acc, y, step);
            }
        }
    }

    #[inline(always)]
    unsafe fn store<S: Simd, const I: usize, const J: usize>(
        &self,
        s: S,
        acc: &[[S::V; J]; I],
        y: &[usize; ROWS],
        step: Step,
    ) {
        let Finish { bias, slopes, shortcut, pre } = self.finish;
        for (j, block) in (step.block..step.block + J).enumerate() {
            let ragged = block + 1 == self.pass.out_blocks() && self.valid < LANES;
            let parameter = |p: *const f32, neutral: f32| match p.is_null() {
                true => s.splat(neutral),
                // SAFETY: 16 for each block where they are not null: the band's promise.
                false => unsafe { s.load(p.add(block * LANES)) },
            };
            // Adding −0 and multiplying by 1 change no bit.
            let (bias, slopes) = (parameter(bias, -0.0), parameter(slopes, 1.0));
            let prelu = |v: S::V| s.select(s.gt(v, s.zero()), v, s.mul(slopes, v));
            let at = block * self.out_strides.block;
            let plain = step.first && step.last && shortcut.is_null() && pre.is_null() && !ragged;
            for (row, &y) in acc.iter().zip(y) {
                let at = at + y;
                // SAFETY: the band's promise: 16 elements of each of its outputs, and of shortcut and pre-activation where
                // they are not null.
                unsafe {
                    if plain {
                        s.store(self.y.add(at), prelu(s.add(row[j], bias)));
                        continue;
                    }
                    let mut v = row[j];
                    if !step.first {
                        v = s.add(s.load(self.y.add(at)), v);
                    }
                    if step.last {
                        v = s.add(v, bias);
                        if !pre.is_null() {
                            s.store(pre.add(at), v);
                            self.clear(pre.add(at), ragged);
                        }
                        if !shortcut.is_null() {
                            v = s.add(v, s.load(shortcut.add(at)));
                        }
                        v = prelu(v);
                    }
                    s.store(self.y.add(at), v);
                    self.clear(self.y.add(at), ragged && step.last);
                }
            }
        }
    }

    /// Zeroes the lanes that have no channel: infinities in the input have made NaN of them.
    #[inline(always)]
    unsafe fn clear(&self, p: *mut f32, ragged: bool) {
        if ragged {
            for lane in self.valid..LANES {
                // SAFETY: the 16 elements that were just stored.
                unsafe { p.add(lane).write(0.0) };
            }
        }
    }
}
