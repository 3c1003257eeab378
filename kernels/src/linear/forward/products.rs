//! The sums of the forward pass, lane by lane: of one image, which walks the weights as fast as memory gives them, and
//! of more, whose tiles fetch weights beside their products.

// Tiles are indexed by row and image.
#![allow(clippy::needless_range_loop)]

use crate::linear::{LinearShape, STRIDE};
use crate::processor::processor;
use crate::reference::linear::CHUNK;
use crate::task::part;
use crate::{Kernel, LANES, Simd};

/// Rows of weights that one image walks side by side, and how many weights ahead of it each row is asked for: with
/// fewer rows, or left to the processor's own guesses, one thread of Zen 4 got a tenth less of memory.
const WALK: usize = 8;
const AHEAD: usize = 256;
/// Rows that it walks where the processor's guesses are better ([`Processor::foresees`](crate::processor::Processor)).
const GUESSED: usize = 4;
/// How many rows further on in the chunk the rows are that a tile fetches. The next chunk's, a task's rows further on,
/// took an eighth longer (16 images on two threads of Emerald Rapids, a prototype of these tiles). Several groups of
/// images fetch the next chunk's nevertheless, for in this one only the first group could.
const ROWS_AHEAD: usize = 8;

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
        let inputs = self.shape.inputs();
        assert!(self.sums.len() >= self.rows * self.shape.n * LANES);
        if self.shape.n == 1 {
            // SAFETY: rows and inputs are of the shape, whose lengths `run_by` has checked.
            unsafe {
                if processor().foresees {
                    self.walk_all::<S, GUESSED, 0>(s);
                } else {
                    self.walk_all::<S, WALK, WALK>(s);
                }
            }
        } else {
            for first in (0..inputs).step_by(CHUNK) {
                self.chunk(s, first, CHUNK.min(inputs - first));
            }
        }
    }
}

impl Task<'_> {
    /// All rows for the only image, `I` of them side by side, `P` asked for ahead.
    ///
    /// # Safety
    /// As of [`Task::walk`].
    #[inline(always)]
    unsafe fn walk_all<S: Simd, const I: usize, const P: usize>(&mut self, s: S) {
        let walked = self.rows / I * I;
        // SAFETY: the caller's promise.
        unsafe {
            for row in (0..walked).step_by(I) {
                self.walk::<S, I, P>(s, row);
            }
            for row in walked..self.rows {
                self.walk::<S, 1, 1>(s, row);
            }
        }
    }

    /// The chains of `I` rows for the only image.
    ///
    /// # Safety
    /// The rows must lie within the task, and the task within the shape.
    #[inline(always)]
    unsafe fn walk<S: Simd, const I: usize, const P: usize>(&mut self, s: S, row: usize) {
        let (inputs, mut sum) = (self.shape.inputs(), [s.zero(); I]);
        // SAFETY: rows of the weights, the inputs and the sums, by the caller's promise.
        unsafe {
            for start in (0..inputs).step_by(CHUNK) {
                let len = CHUNK.min(inputs - start);
                let x = self.x.as_ptr().add(start / CHUNK * STRIDE);
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
                s.store(self.sums.as_mut_ptr().add((row + i) * LANES), sum[i]);
            }
        }
    }

    /// All rows and images, for one chunk.
    #[inline(always)]
    fn chunk<S: Simd>(&mut self, s: S, first: usize, len: usize) {
        let n = self.shape.n;
        let (height, most) = (rows_of_tile::<S>(), images_of_tile::<S>());
        let groups = groups(n, processor().first_cache_len(), most);
        let ahead = if groups == 1 { ROWS_AHEAD.min(self.rows) } else { self.rows };
        let whole = self.rows / height * height;
        for group in 0..groups {
            let of_group = part(n, groups, group);
            let tiles = of_group.len().div_ceil(most);
            for row in (0..whole).step_by(height) {
                let mut image = of_group.start;
                for t in 0..tiles {
                    // The tiles of all groups fetch as many rows as they read, evenly.
                    let fetched = part(height, groups * tiles, group * tiles + t);
                    let images = images(of_group.len(), tiles, t);
                    let next = self.ahead(first, row + ahead + fetched.start);
                    let tile = Tile { row, image, first, len, next };
                    // SAFETY: rows, images and inputs of the tile are of the shape, whose lengths `run_by` has checked.
                    unsafe { self.tile_of(s, images, fetched.len(), tile) };
                    image += images;
                }
            }
        }
        for row in whole..self.rows {
            for image in 0..n {
                let tile = Tile { row, image, first, len, next: self.weights.as_ptr() };
                // SAFETY: as above.
                unsafe { self.tile::<S, 1, 1, 0>(s, tile) };
            }
        }
    }

    /// Where the weights of a row of the task lie, from an input on; rows behind the task's are those of what comes
    /// next: its next chunk, at the end the next task's first.
    #[inline(always)]
    fn ahead(&self, first: usize, row: usize) -> *const f32 {
        let inputs = self.shape.inputs();
        let (row, first) = match row.checked_sub(self.rows) {
            Some(row) if first + CHUNK < inputs => (row, first + CHUNK),
            Some(row) => (self.rows + row, 0),
            None => (row, first),
        };
        self.weights.as_ptr().wrapping_add((self.top + row) * inputs + first)
    }

    /// [`Task::tile`] of the height that the registers hold, of two images and more, as many as [`images`] gives, and
    /// with `fetched` rows.
    ///
    /// # Safety
    /// As of [`Task::tile`].
    #[inline(always)]
    unsafe fn tile_of<S: Simd>(&mut self, s: S, images: usize, fetched: usize, tile: Tile) {
        // SAFETY: the caller's promise.
        unsafe {
            if const { rows_of_tile::<S>() == 4 } {
                match (images, fetched) {
                    // All images in one tile.
                    (2, 4) => self.tile::<S, 4, 2, 4>(s, tile),
                    (3, 4) => self.tile::<S, 4, 3, 4>(s, tile),
                    (4, 4) => self.tile::<S, 4, 4, 4>(s, tile),
                    (5, 4) => self.tile::<S, 4, 5, 4>(s, tile),
                    (6, 4) => self.tile::<S, 4, 6, 4>(s, tile),
                    // In several tiles: three of seven, and four to six.
                    (3, 2) => self.tile::<S, 4, 3, 2>(s, tile),
                    (4, 2) => self.tile::<S, 4, 4, 2>(s, tile),
                    (5, 2) => self.tile::<S, 4, 5, 2>(s, tile),
                    (6, 2) => self.tile::<S, 4, 6, 2>(s, tile),
                    (3, 1) => self.tile::<S, 4, 3, 1>(s, tile),
                    (4, 1) => self.tile::<S, 4, 4, 1>(s, tile),
                    (5, 1) => self.tile::<S, 4, 5, 1>(s, tile),
                    (6, 1) => self.tile::<S, 4, 6, 1>(s, tile),
                    (3, 0) => self.tile::<S, 4, 3, 0>(s, tile),
                    (4, 0) => self.tile::<S, 4, 4, 0>(s, tile),
                    (5, 0) => self.tile::<S, 4, 5, 0>(s, tile),
                    (6, 0) => self.tile::<S, 4, 6, 0>(s, tile),
                    other => unreachable!("a tile of four outputs by {other:?}"),
                }
            } else {
                match (images, fetched) {
                    (2, 2) => self.tile::<S, 2, 2, 2>(s, tile),
                    (3, 2) => self.tile::<S, 2, 3, 2>(s, tile),
                    (2, 1) => self.tile::<S, 2, 2, 1>(s, tile),
                    (3, 1) => self.tile::<S, 2, 3, 1>(s, tile),
                    (2, 0) => self.tile::<S, 2, 2, 0>(s, tile),
                    (3, 0) => self.tile::<S, 2, 3, 0>(s, tile),
                    other => unreachable!("a tile of two outputs by {other:?}"),
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
            let mut weights = [s.zero(); I];
            for i in 0..I {
                weights[i] = s.load(w.add(i * inputs));
            }
            for j in 0..J {
                let v = s.load(x.add(j * STRIDE));
                for i in 0..I {
                    acc[i][j] = s.fma(v, weights[i], acc[i][j]);
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

/// Outputs of a tile, and images of the largest: as many as the registers hold, and rather square, for the fewer loads
/// stand beside as many products the better.
const fn rows_of_tile<S: Simd>() -> usize {
    if S::TILE_VECTORS >= 4 { 4 } else { 2 }
}
const fn images_of_tile<S: Simd>() -> usize {
    if S::TILE_VECTORS >= 4 { 6 } else { 3 }
}

/// Into how many groups images go that take a chunk one group after the other, where the first level holds so many
/// elements: four fifths of it are for their inputs, the weights of a tile pass through the rest. A second group has
/// the weights from the second level.
fn groups(n: usize, first_cache_len: usize, most: usize) -> usize {
    n.div_ceil((first_cache_len / 5 * 4 / STRIDE).max(most))
}

/// Images of a group's tile. The larger tiles come first: branches that alternate are foretold badly.
fn images(of_group: usize, tiles: usize, t: usize) -> usize {
    of_group / tiles + usize::from(t < of_group % tiles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tile_has_at_least_two_images_and_fetches_rows_that_there_are_bodies_for() {
        for (height, most) in [(4, 6), (2, 3)] {
            for n in 2..300 {
                for len in [1 << 10, 1 << 12, 1 << 13, 3 << 12, 1 << 14, 1 << 16] {
                    let groups = groups(n, len, most);
                    for group in 0..groups {
                        let of_group = part(n, groups, group).len();
                        let tiles = of_group.div_ceil(most);
                        for t in 0..tiles {
                            let fetched = part(height, groups * tiles, group * tiles + t).len();
                            let images = images(of_group, tiles, t);
                            assert!((2..=most).contains(&images), "{n} images, cache {len}: a tile of {images}");
                            let is_whole = groups * tiles == 1;
                            assert!(images > 2 || most == 3 || is_whole, "{n} images, cache {len}: a tile of {images}");
                            assert!(fetched <= 2 || is_whole, "{n} images, cache {len}: {fetched} rows");
                        }
                        assert_eq!((0..tiles).map(|t| images(of_group, tiles, t)).sum::<usize>(), of_group);
                    }
                }
            }
        }
    }
}
