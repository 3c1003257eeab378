//! The sums of the forward pass, lane by lane: few images, whose weights memory brings while the first walks them, and
//! many, whose tiles fetch the next weights beside their products.

// Tiles are indexed by row and image.
#![allow(clippy::needless_range_loop)]

use crate::linear::{LinearShape, STRIDE};
use crate::processor::processor;
use crate::reference::linear::CHUNK;
use crate::{Kernel, LANES, Simd};
use std::ops::Range;

/// Outputs of a tile of many images, and of few.
const OUTPUTS: usize = 2;
const ROWS: usize = 4;
/// Rows of weights that one image walks side by side, and how many weights ahead of it each row is asked for: with
/// fewer rows, or left to the processor's own guesses, one thread of Zen 4 got a tenth less of memory.
const WALK: usize = 8;
const AHEAD: usize = 256;
/// Rows that it walks where the processor's guesses are better ([`Processor::foresees`](crate::processor::Processor)).
const GUESSED: usize = 4;
/// Inputs that few images walk at a time: the weights stay in the second level.
const SPAN: usize = 4 * CHUNK;
/// Images at most that walk a chunk together: theirs stays in the first level beside the weights of a tile. More go by
/// so many at a time, which are a tile where the registers are many; each of them has the weights from the second level
/// anew.
const NEAR: usize = 12;
const IMAGES: usize = 8;

/// Up to [`super::HEIGHT`] blocks of outputs of all images, summed lane by lane.
pub(super) struct Task<'a> {
    pub shape: &'a LinearShape,
    /// `[chunk][image][STRIDE]`.
    pub x: &'a [f32],
    pub weights: &'a [f32],
    /// The first of the outputs, and how many there are.
    pub top: usize,
    pub rows: usize,
    /// `[output][image][lane]`.
    pub sums: &'a mut [f32],
}

/// Where a tile stands: its first output of the task, its first image, its inputs; the weights that are fetched
/// meanwhile.
#[derive(Clone, Copy)]
struct Tile {
    row: usize,
    image: usize,
    first: usize,
    len: usize,
    next: *const f32,
}

impl Kernel for Task<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let (n, inputs) = (self.shape.n, self.shape.inputs());
        if n < most_images::<S>() {
            let span = if n == 1 { inputs } else { SPAN };
            for row in (0..self.rows).step_by(LANES) {
                for first in (0..inputs).step_by(span) {
                    self.few(s, row, first, span.min(inputs - first));
                }
            }
        } else {
            for first in (0..inputs).step_by(CHUNK) {
                self.many(s, first, CHUNK.min(inputs - first));
            }
        }
    }
}

impl Task<'_> {
    /// A block of outputs of fewer images than fill a tile: the first walks some rows as fast as memory gives them, and
    /// the others find them in the cache.
    #[inline(always)]
    fn few<S: Simd>(&mut self, s: S, top: usize, first: usize, len: usize) {
        let (others, end) = (self.shape.n - 1, self.rows.min(top + LANES));
        let whole = top + (end - top) / ROWS * ROWS;
        // SAFETY: rows, images and inputs are of the shape, whose lengths `run_by` has checked.
        unsafe {
            if processor().foresees {
                self.walk_all::<S, GUESSED, 0>(s, top..end, first, len);
            } else {
                self.walk_all::<S, WALK, WALK>(s, top..end, first, len);
            }
            for start in (first..first + len).step_by(CHUNK) {
                let len = CHUNK.min(first + len - start);
                let tile = Tile { row: 0, image: 1, first: start, len, next: self.weights.as_ptr() };
                for row in (top..whole).step_by(ROWS) {
                    let tile = Tile { row, ..tile };
                    match others {
                        0 => {}
                        6 if S::TILE_VECTORS >= 4 => self.tile::<S, ROWS, 6, 0>(s, tile),
                        5 if S::TILE_VECTORS >= 4 => self.tile::<S, ROWS, 5, 0>(s, tile),
                        4 if S::TILE_VECTORS >= 4 => self.tile::<S, ROWS, 4, 0>(s, tile),
                        3 if S::TILE_VECTORS >= 4 => self.tile::<S, ROWS, 3, 0>(s, tile),
                        2 if S::TILE_VECTORS >= 4 => self.tile::<S, ROWS, 2, 0>(s, tile),
                        _ => self.tile::<S, ROWS, 1, 0>(s, tile),
                    }
                }
                for row in whole..end {
                    for image in 1..=others {
                        self.tile::<S, 1, 1, 0>(s, Tile { row, image, ..tile });
                    }
                }
            }
        }
    }

    /// The chains of some rows for the first image, `I` rows side by side, `P` of them asked for ahead.
    ///
    /// # Safety
    /// As of [`Task::walk`].
    #[inline(always)]
    unsafe fn walk_all<S: Simd, const I: usize, const P: usize>(
        &mut self,
        s: S,
        rows: Range<usize>,
        first: usize,
        len: usize,
    ) {
        let walked = rows.start + rows.len() / I * I;
        // SAFETY: the caller's promise.
        unsafe {
            for row in (rows.start..walked).step_by(I) {
                self.walk::<S, I, P>(s, row, first, len);
            }
            for row in walked..rows.end {
                self.walk::<S, 1, 1>(s, row, first, len);
            }
        }
    }

    /// The chains of `I` rows for the first image, over as many chunks as there are.
    ///
    /// # Safety
    /// The rows and inputs must lie within the task and the shape, and begin with a chunk.
    #[inline(always)]
    unsafe fn walk<S: Simd, const I: usize, const P: usize>(&mut self, s: S, row: usize, first: usize, len: usize) {
        let (n, inputs) = (self.shape.n, self.shape.inputs());
        let (mut sum, sums) = ([s.zero(); I], self.sums[row * n * LANES..].as_mut_ptr());
        // SAFETY: rows of the weights, the inputs and the sums, by the caller's promise.
        unsafe {
            if first > 0 {
                for i in 0..I {
                    sum[i] = s.load(sums.add(i * n * LANES));
                }
            }
            for start in (first..first + len).step_by(CHUNK) {
                let len = CHUNK.min(first + len - start);
                let x = self.x.as_ptr().add(start / CHUNK * n * STRIDE);
                let w = self.weights.as_ptr().add((self.top + row) * inputs + start);
                let mut acc = [[s.zero(); 1]; I];
                let whole = len / LANES * LANES;
                for k in (0..whole).step_by(LANES) {
                    self.step::<S, I, 1, P>(s, &mut acc, x.add(k), w.add(k), w.wrapping_add(k + AHEAD));
                }
                if whole < len {
                    self.last::<S, I, 1>(s, &mut acc, x.add(whole), w.add(whole), len - whole);
                }
                for i in 0..I {
                    sum[i] = if start == 0 { acc[i][0] } else { s.add(sum[i], acc[i][0]) };
                }
            }
            for i in 0..I {
                s.store(sums.add(i * n * LANES), sum[i]);
            }
        }
    }

    /// All rows and images, for one chunk.
    #[inline(always)]
    fn many<S: Simd>(&mut self, s: S, first: usize, len: usize) {
        let (n, inputs) = (self.shape.n, self.shape.inputs());
        let groups = if n <= NEAR { 1 } else { n.div_ceil(IMAGES) };
        // What comes next: the same rows' next chunk, at the end the next task's first.
        let (down, right) = if first + CHUNK < inputs { (0, first + CHUNK) } else { (self.rows, 0) };
        let next = self.weights.as_ptr().wrapping_add((self.top + down) * inputs + right);
        for group in 0..groups {
            let (from, to) = (n * group / groups, n * (group + 1) / groups);
            let tiles = (to - from).div_ceil(most_images::<S>());
            for row in (0..self.rows).step_by(OUTPUTS) {
                let next = next.wrapping_add(row * inputs);
                let mut image = from;
                for t in 0..tiles {
                    // The larger tiles first: branches that alternate are foretold badly.
                    let images = (to - from) / tiles + usize::from(t < (to - from) % tiles);
                    // Evenly over the tiles: one alone fetches both rows, else the first one of them and one half-way
                    // the other.
                    let half = if groups > 1 { (groups / 2, 0) } else { (0, tiles / 2) };
                    let (is_first, is_half) = ((group, t) == (0, 0), (group, t) == half);
                    let fetched = usize::from(is_first) + usize::from(is_half);
                    let next = if is_first { next } else { next.wrapping_add(inputs) };
                    let tile = Tile { row, image, first, len, next };
                    // SAFETY: rows, images and inputs of the tile are of the shape, whose lengths `run_by` has checked.
                    unsafe {
                        if self.rows - row < OUTPUTS {
                            for image in image..image + images {
                                self.tile::<S, 1, 1, 0>(s, Tile { image, ..tile });
                            }
                        } else if most_images::<S>() == 8 {
                            match (images, fetched) {
                                // Eight images alone.
                                (8, 2) => self.tile::<S, OUTPUTS, 8, 2>(s, tile),
                                (8, 1) => self.tile::<S, OUTPUTS, 8, 1>(s, tile),
                                (8, _) => self.tile::<S, OUTPUTS, 8, 0>(s, tile),
                                (7, 1) => self.tile::<S, OUTPUTS, 7, 1>(s, tile),
                                (7, _) => self.tile::<S, OUTPUTS, 7, 0>(s, tile),
                                (6, 1) => self.tile::<S, OUTPUTS, 6, 1>(s, tile),
                                (6, _) => self.tile::<S, OUTPUTS, 6, 0>(s, tile),
                                (5, 1) => self.tile::<S, OUTPUTS, 5, 1>(s, tile),
                                (5, _) => self.tile::<S, OUTPUTS, 5, 0>(s, tile),
                                // Of nine images.
                                _ => self.tile::<S, OUTPUTS, 4, 1>(s, tile),
                            }
                        } else {
                            match (images, fetched) {
                                // Three alone.
                                (3, 2) => self.tile::<S, OUTPUTS, 3, 2>(s, tile),
                                (3, 1) => self.tile::<S, OUTPUTS, 3, 1>(s, tile),
                                (3, _) => self.tile::<S, OUTPUTS, 3, 0>(s, tile),
                                (_, 1) => self.tile::<S, OUTPUTS, 2, 1>(s, tile),
                                _ => self.tile::<S, OUTPUTS, 2, 0>(s, tile),
                            }
                        }
                    }
                    image += images;
                }
            }
        }
    }

    /// The chains of one chunk for `I` outputs and `J` images, added to what the chunks before have left; `P` rows of
    /// the next weights are fetched into the second level beside, a line each for sixteen inputs.
    ///
    /// # Safety
    /// The tile must lie within the task, the images and the inputs, and be a chunk.
    #[inline(always)]
    unsafe fn tile<S: Simd, const I: usize, const J: usize, const P: usize>(&mut self, s: S, tile: Tile) {
        let (n, inputs, Tile { row, image, first, len, next }) = (self.shape.n, self.shape.inputs(), tile);
        let mut acc = [[s.zero(); J]; I];
        // SAFETY: rows of the weights, the inputs and the sums, by the caller's promise.
        unsafe {
            let x = self.x.as_ptr().add((first / CHUNK * n + image) * STRIDE);
            let w = self.weights.as_ptr().add((self.top + row) * inputs + first);
            let mut k = 0;
            while k + LANES <= len {
                self.step::<S, I, J, P>(s, &mut acc, x.add(k), w.add(k), next.wrapping_add(k));
                k += LANES;
            }
            if k < len {
                self.last::<S, I, J>(s, &mut acc, x.add(k), w.add(k), len - k);
            }
            let sums = self.sums.as_mut_ptr().add((row * n + image) * LANES);
            for i in 0..I {
                for j in 0..J {
                    let to = sums.add((i * n + j) * LANES);
                    s.store(to, if first == 0 { acc[i][j] } else { s.add(s.load(to), acc[i][j]) });
                }
            }
        }
    }

    /// The products of sixteen inputs.
    ///
    /// # Safety
    /// Sixteen inputs of `J` images and sixteen weights of `I` rows must be readable.
    #[inline(always)]
    unsafe fn step<S: Simd, const I: usize, const J: usize, const P: usize>(
        &self,
        s: S,
        acc: &mut [[S::V; J]; I],
        x: *const f32,
        w: *const f32,
        next: *const f32,
    ) {
        let inputs = self.shape.inputs();
        for p in 0..P {
            s.prefetch_far(next.wrapping_add(p * inputs));
        }
        // SAFETY: the caller's promise.
        unsafe {
            let mut v = [s.zero(); J];
            for j in 0..J {
                v[j] = s.load(x.add(j * STRIDE));
            }
            for i in 0..I {
                let w = s.load(w.add(i * inputs));
                for j in 0..J {
                    acc[i][j] = s.fma(v[j], w, acc[i][j]);
                }
            }
        }
    }

    /// The products of the last inputs, `len` < 16.
    ///
    /// # Safety
    /// As many inputs of `J` images and weights of `I` rows must be readable.
    #[inline(always)]
    unsafe fn last<S: Simd, const I: usize, const J: usize>(
        &self,
        s: S,
        acc: &mut [[S::V; J]; I],
        x: *const f32,
        w: *const f32,
        len: usize,
    ) {
        for j in 0..J {
            // SAFETY: the caller's promise.
            unsafe {
                let v = s.load_first(x.add(j * STRIDE), len);
                for i in 0..I {
                    acc[i][j] = s.fma(v, s.load_first(w.add(i * self.shape.inputs()), len), acc[i][j]);
                }
            }
        }
    }
}

/// Images of the largest tile: with [`OUTPUTS`] they fill the registers.
const fn most_images<S: Simd>() -> usize {
    if S::TILE_VECTORS >= 4 { 8 } else { 3 }
}
