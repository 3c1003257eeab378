//! The loops over one band: vectors of output channels, chunks of the reduction, tiles of pixels.

// Rows and vectors of a tile are clearer as numbers.
#![allow(clippy::needless_range_loop)]

use super::pass::{Pass, Strides};
use super::tile::{Ahead, ROWS, Run, accumulate, parts};
use crate::reference::conv::CHUNK;
use crate::{Kernel, LANES, Lanes, Simd};
use std::hint::black_box;
use std::ops::Range;

/// Weights of a chunk that stay in the second cache while tile after tile uses them: 256 KiB.
const WEIGHTS: usize = 1 << 16;

/// What an epilogue does beside bias and PReLU: nothing, keep the pre-activation, add a shortcut.
const PLAIN: u8 = 0;
const KEEP: u8 = 1;
const ADD: u8 = 2;
/// And stream.
const STREAM: u8 = 4;

/// Bias, slopes (each 16 for a block of output channels), the tensor to add and where the pre-activation goes: the
/// epilogue's pointers, null for what there is not.
#[derive(Clone, Copy)]
pub(super) struct Finish {
    pub bias: *const f32,
    pub slopes: *const f32,
    pub shortcut: *const f32,
    pub pre: *mut f32,
    /// Whether outputs and pre-activations are streamed, which are then whole lines.
    pub streams: bool,
}

impl Finish {
    /// Bias and slopes from a channel on. Where there are none, adding −0 and multiplying by 1 change no bit.
    ///
    /// # Safety
    /// Bias and slopes must have the channels where they are not null.
    #[inline(always)]
    pub unsafe fn parameters<S: Lanes>(&self, s: S, channel: usize) -> (S::V, S::V) {
        let parameter = |p: *const f32, neutral: f32| match p.is_null() {
            true => s.splat(neutral),
            // SAFETY: the caller's promise.
            false => unsafe { s.load(p.add(channel)) },
        };
        (parameter(self.bias, -0.0), parameter(self.slopes, 1.0))
    }

    /// Bias and slope of one channel, as [`Finish::parameters`].
    ///
    /// # Safety
    /// Bias and slopes must have the channel where they are not null.
    #[inline(always)]
    pub unsafe fn parameter(&self, channel: usize) -> (f32, f32) {
        // SAFETY: the caller's promise.
        let parameter = |p: *const f32, neutral| if p.is_null() { neutral } else { unsafe { p.add(channel).read() } };
        (parameter(self.bias, -0.0), parameter(self.slopes, 1.0))
    }

    /// Applies the epilogue with this bias and these slopes to the sums of a pixel and stores it at `y + at`. Lanes
    /// that are not `valid`, those without a channel, become zero: infinities in the input may have made NaN of them.
    ///
    /// # Safety
    /// [`Lanes::WIDTH`] elements must be accessible at `at` of `y`, and of shortcut and pre-activation where they are
    /// not null; if outputs are streamed, those that it writes are whole lines.
    #[inline(always)]
    pub unsafe fn store<S: Lanes>(
        &self,
        s: S,
        sum: S::V,
        (bias, slopes): (S::V, S::V),
        y: *mut f32,
        at: usize,
        valid: S::M,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut v = s.add(sum, bias);
            if !self.pre.is_null() {
                s.put(self.pre.add(at), s.select(valid, v, s.zero()), self.streams);
            }
            if !self.shortcut.is_null() {
                v = s.add(v, s.load(self.shortcut.add(at)));
            }
            v = s.select(s.gt(v, s.zero()), v, s.mul(slopes, v));
            s.put(y.add(at), s.select(valid, v, s.zero()), self.streams);
        }
    }
}

/// One band of one group, for some of its blocks of output channels. Whoever makes it promises that what the pass's
/// runs read of each of the band's pixels can be read from `x` on, and 16 weights for each step of each of the blocks
/// from `w` on; that 16 elements can be read and written at each pixel of each block from `y` on, and accessed there in
/// what else `finish` has, whose bias and slopes are 16 a block; that no other thread touches what is written; and that
/// it is whole lines if it is streamed.
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
        let most = self.pass.most_vectors.min(S::TILE_VECTORS);
        let fit = WEIGHTS / (LANES * self.pass.k.min(CHUNK * LANES)).max(1) / most * most;
        let shares = self.blocks.len().div_ceil(fit.max(most));
        for (start, len) in parts(self.blocks.len(), shares) {
            let blocks = self.blocks.start + start..self.blocks.start + start + len;
            for (i, chunk) in self.pass.chunks.iter().enumerate() {
                let step = Step { first: i == 0, last: i + 1 == self.pass.chunks.len(), block: 0 };
                let runs = &self.pass.runs[chunk.runs.clone()];
                // SAFETY: whoever made the band has promised it; the weights are the chunk's.
                unsafe { self.sweep(s, most, runs, self.w.add(chunk.steps.start * LANES), step, blocks.clone()) };
            }
        }
    }
}

impl Band<'_> {
    /// All the band's pixels, a range of blocks of output channels in panels of at most `most`, one chunk.
    ///
    /// # Safety
    /// As [`Band`] says; the blocks are the band's, the runs those of one of the pass's chunks, and `w` is where the
    /// group's weights for it begin.
    #[inline(always)]
    unsafe fn sweep<S: Simd>(&self, s: S, most: usize, runs: &[Run], w: *const f32, step: Step, blocks: Range<usize>) {
        let cols = self.pass.cols.count;
        let pixels = self.images * self.rows * cols;
        let tiles = pixels.div_ceil(ROWS);
        // Split here, once: a division costs more than the start of a tile should.
        let panels = parts(blocks.len(), blocks.len().div_ceil(most));
        let (a, b) = (&self.in_strides, &self.out_strides);
        let (in_row, in_col) = (self.pass.rows.in_step * a.row, self.pass.cols.in_step * a.col);
        let is_far = self.pass.is_far();
        // Outputs that are asked for: none that need not be there.
        let asked = if S::STREAMS && self.finish.streams { 0..0 } else { blocks.clone() };
        let (mut image, mut row, mut col) = (0, 0, 0);
        for (_, len) in parts(pixels, tiles) {
            let mut x = [self.x; ROWS];
            let mut y = [0; ROWS];
            if col + len < cols {
                // Within a row, as most are.
                let from = self.x.wrapping_add(image * a.image + row * in_row + col * in_col);
                let to = image * b.image + row * b.row + col * b.col;
                for i in 0..ROWS {
                    x[i] = from.wrapping_add(i * in_col);
                    y[i] = to + i * b.col;
                }
                col += len;
            } else {
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
            }
            if is_far {
                // Of the next tiles; beyond a row's end it is in vain.
                for i in 0..ROWS {
                    let (x, y) = (x[i].wrapping_add(2 * ROWS * in_col), self.y.wrapping_add(y[i] + ROWS * b.col));
                    runs.iter().for_each(|run| s.prefetch_far(x.wrapping_add(run.x)));
                    asked.clone().for_each(|block| s.prefetch_far(y.wrapping_add(block * b.block)));
                }
            }
            for (start, vectors) in panels.clone() {
                let block = blocks.start + start;
                let step = Step { block, ..step };
                // SAFETY: the caller's promise; the tile's pixels are the band's.
                unsafe {
                    let w = w.add(block * self.pass.k * LANES);
                    match vectors {
                        4 if const { S::TILE_VECTORS >= 4 } => self.rows::<S, 4>(s, len, runs, w, &x, &y, step),
                        3 if const { S::TILE_VECTORS >= 3 } => self.rows::<S, 3>(s, len, runs, w, &x, &y, step),
                        2 if const { S::TILE_VECTORS >= 2 } => self.rows::<S, 2>(s, len, runs, w, &x, &y, step),
                        _ => self.rows::<S, 1>(s, len, runs, w, &x, &y, step),
                    }
                }
            }
        }
    }

    /// A tile of as many pixels as there are.
    ///
    /// # Safety
    /// As [`Band::tile`], for `len` pixels, 1 to [`ROWS`].
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
    ///
    /// # Safety
    /// As [`Band`] says; the first `I` of `x` and `y` are where pixels of the band read and are written, the runs are
    /// those of one of the pass's chunks, and from `w` on lie its weights for `J` of the band's blocks, from the step's
    /// on.
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
        // SAFETY: the caller's promise: each row reaches all runs, the weights are of `J` blocks of `k` steps.
        unsafe {
            let acc = accumulate::<S, I, J>(s, &rows, 1, runs.iter().copied(), w, self.pass.k * LANES, Ahead::NONE);
            self.store::<S, I, J>(s, &acc, y, step);
        }
    }

    /// Stores a tile's sums in one of the two ways below.
    ///
    /// # Safety
    /// As [`Band`] says of `y` and `finish`; the first `I` of `y` are pixels of the band, which has `J` blocks from the
    /// step's on.
    #[inline(always)]
    unsafe fn store<S: Simd, const I: usize, const J: usize>(
        &self,
        s: S,
        acc: &[[S::V; J]; I],
        y: &[usize; ROWS],
        step: Step,
    ) {
        let Finish { shortcut, pre, .. } = self.finish;
        let ragged = step.block + J == self.pass.out_blocks() && self.valid < LANES;
        // SAFETY: the caller's promise.
        unsafe {
            if step.last && (ragged || !shortcut.is_null() && !pre.is_null()) {
                return self.store_slowly::<S, I, J>(s, acc, y, step);
            }
            if const { S::STREAMS } && self.finish.streams {
                // One chunk: the first is the last.
                return match (shortcut.is_null(), pre.is_null()) {
                    (true, true) => self.store_fast::<S, I, J, true, true, { PLAIN | STREAM }>(s, acc, y, step),
                    (true, false) => self.store_fast::<S, I, J, true, true, { KEEP | STREAM }>(s, acc, y, step),
                    (false, _) => self.store_fast::<S, I, J, true, true, { ADD | STREAM }>(s, acc, y, step),
                };
            }
            match (step.first, step.last, shortcut.is_null(), pre.is_null()) {
                (true, false, ..) => self.store_fast::<S, I, J, true, false, PLAIN>(s, acc, y, step),
                (false, false, ..) => self.store_fast::<S, I, J, false, false, PLAIN>(s, acc, y, step),
                (true, true, true, true) => self.store_fast::<S, I, J, true, true, PLAIN>(s, acc, y, step),
                (false, true, true, true) => self.store_fast::<S, I, J, false, true, PLAIN>(s, acc, y, step),
                (true, true, true, false) => self.store_fast::<S, I, J, true, true, KEEP>(s, acc, y, step),
                (false, true, true, false) => self.store_fast::<S, I, J, false, true, KEEP>(s, acc, y, step),
                (true, true, false, _) => self.store_fast::<S, I, J, true, true, ADD>(s, acc, y, step),
                (false, true, false, _) => self.store_fast::<S, I, J, false, true, ADD>(s, acc, y, step),
            }
        }
    }

    /// Whole blocks: what nearly every tile is, with all questions answered beforehand, so that the sums stay in their
    /// registers.
    ///
    /// # Safety
    /// As [`Band::store`]; `finish` has a pre-activation if `EXTRA` is to [`KEEP`] one, a shortcut if it is to [`ADD`]
    /// one.
    #[inline(always)]
    unsafe fn store_fast<
        S: Simd,
        const I: usize,
        const J: usize,
        const FIRST: bool,
        const LAST: bool,
        const EXTRA: u8,
    >(
        &self,
        s: S,
        acc: &[[S::V; J]; I],
        y: &[usize; ROWS],
        step: Step,
    ) {
        for j in 0..J {
            let at = (step.block + j) * self.out_strides.block;
            // SAFETY: the caller's promise: 16 elements of each output, and of what the epilogue has.
            unsafe {
                let (bias, slopes) = self.finish.parameters(s, (step.block + j) * LANES);
                for i in 0..I {
                    let (mut v, to) = (acc[i][j], self.y.add(at + y[i]));
                    if !FIRST {
                        v = s.add(s.load(to), v);
                    }
                    if LAST {
                        v = s.add(v, bias);
                        let pre = self.finish.pre.wrapping_add(at + y[i]);
                        if EXTRA & KEEP != 0 {
                            s.put(pre, v, EXTRA & STREAM != 0);
                        }
                        if EXTRA & ADD != 0 {
                            v = s.add(v, s.load(self.finish.shortcut.add(at + y[i])));
                        }
                        v = s.select(s.gt(v, s.zero()), v, s.mul(slopes, v));
                    }
                    s.put(to, v, EXTRA & STREAM != 0);
                }
            }
        }
    }

    /// Any tile, in a loop that is not unrolled.
    ///
    /// # Safety
    /// As [`Band::store`].
    #[inline(always)]
    unsafe fn store_slowly<S: Simd, const I: usize, const J: usize>(
        &self,
        s: S,
        acc: &[[S::V; J]; I],
        y: &[usize; ROWS],
        step: Step,
    ) {
        for n in 0..black_box(I * J) {
            let (i, j) = (n % I, n / I);
            let block = step.block + j;
            let valid = if block + 1 == self.pass.out_blocks() { self.valid } else { LANES };
            let at = block * self.out_strides.block + y[i];
            // SAFETY: the caller's promise: 16 elements of each output, and of what the epilogue has.
            unsafe {
                let mut v = acc[i][j];
                if !step.first {
                    v = s.add(s.load(self.y.add(at)), v);
                }
                if step.last {
                    self.finish.store(s, v, self.finish.parameters(s, block * LANES), self.y, at, s.first(valid, 0));
                } else {
                    s.store(self.y.add(at), v);
                }
            }
        }
    }
}
