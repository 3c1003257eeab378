//! From tiles of pixels to positions and back, in two dimensions: down the columns, then along the rows.

// Rows and columns of a tile are clearer as numbers.
#![allow(clippy::needless_range_loop)]

use super::Geometry;
use super::edges::{Axis, Both, Grid, MOST, Room, Transform};
use super::order::{Places, Stretch};
use super::transform::Line;
use crate::conv::Layout;
use crate::{Dims, LANES, Lanes, Simd};
use std::ops::Range;

/// What padding reads where it has no values of its own.
pub(super) static ZEROS: [f32; LANES] = [0.0; LANES];

/// Pixels along an axis at most that a tile reads.
pub(super) const WIDEST: usize = 7;

/// A tensor that is read tile by tile, blocked but for [`Source::spread_lanes`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub x: &'a [f32],
    /// Of the images of all groups, blocked but where a first layer reads planes.
    pub layout: Layout,
    pub dims: Dims,
    /// What lies outside, whole blocks of channels; zeros if empty.
    pub pads: &'a [f32],
    pub pad_top: usize,
    pub pad_left: usize,
}

/// Where the transforms of some tiles of a block of channels are written.
#[derive(Debug, Clone)]
pub(super) struct Spread {
    /// Rows of positions that are wanted.
    pub rows: Range<usize>,
    /// `[position][tile][16]`, from the first wanted position on.
    pub v: *mut f32,
    pub tiles: Range<usize>,
}

impl Source<'_> {
    /// Transforms tiles of `A × A` pixels, `step` apart, of one block of channels.
    ///
    /// # Safety
    /// `x` has images as `dims` says, of all groups, in which the places lie, and `to.v` has room for the geometry's
    /// tiles.
    #[inline(always)]
    pub unsafe fn spread<S: Simd, T: Line<A, B>, const A: usize, const B: usize>(
        &self,
        s: S,
        g: &Geometry,
        step: usize,
        places: Places,
        block: usize,
        to: Spread,
    ) {
        // Without a choice all loops over the rows unroll, and of the columns' transforms nothing is computed that the
        // rows, those of one of two threads, do not take.
        // SAFETY: the caller's promise.
        unsafe {
            if to.rows == (0..B) {
                self.spread_rows::<S, T, A, B>(s, g, step, places, block, Spread { rows: 0..B, ..to });
            } else if to.rows == (0..B / 2) {
                self.spread_rows::<S, T, A, B>(s, g, step, places, block, Spread { rows: 0..B / 2, ..to });
            } else if to.rows == (B / 2..B) {
                self.spread_rows::<S, T, A, B>(s, g, step, places, block, Spread { rows: B / 2..B, ..to });
            } else {
                self.spread_rows::<S, T, A, B>(s, g, step, places, block, to);
            }
        }
    }

    /// The same once it is known which rows are wanted.
    ///
    /// # Safety
    /// As [`Source::spread`].
    #[inline(always)]
    unsafe fn spread_rows<S: Simd, T: Line<A, B>, const A: usize, const B: usize>(
        &self,
        s: S,
        g: &Geometry,
        step: usize,
        places: Places,
        block: usize,
        Spread { rows: wanted, v, tiles }: Spread,
    ) {
        let d = &self.dims;
        let pads = self.pads.get(block * LANES..(block + 1) * LANES).map_or(ZEROS.as_ptr(), <[f32]>::as_ptr);
        let row = d.w * LANES;
        let mut edge = [[0.0f32; LANES]; WIDEST * WIDEST];
        for (tile, place) in tiles.zip(places) {
            let plane = (place.image * crate::blocks(d.c) + block) * d.plane() * LANES;
            let x = self.x.as_ptr().wrapping_add(plane);
            let (top, rows) = inside(place.row * step, self.pad_top, A, d.h);
            let (left, cols) = inside(place.col * step, self.pad_left, A, d.w);
            let corner = x.wrapping_offset((top * d.w as isize + left) * LANES as isize);
            let to = v.wrapping_add(tile * LANES);
            // What the next tile reads that this one does not.
            for r in 0..A {
                (A..A + step).for_each(|c| s.prefetch_far(corner.wrapping_add(r * row + c * LANES)));
            }
            for r in A - step..A {
                (A - step..A).for_each(|c| s.prefetch_far(corner.wrapping_add((r + step) * row + c * LANES)));
            }
            // SAFETY: only pixels that `inside` finds in the image are read, in planes of which the input has as many.
            unsafe {
                if rows.len() == A && cols.len() == A {
                    spread_parts::<S, T, A, B, 1>(s, corner, row, to, g.position, wanted.clone());
                } else {
                    let pad = s.load(pads);
                    for (r, line) in edge.chunks_exact_mut(A).enumerate().take(A) {
                        for (c, pixel) in line.iter_mut().enumerate() {
                            let inside = rows.contains(&r) && cols.contains(&c);
                            let from = corner.wrapping_add(r * row + c * LANES);
                            s.write(pixel, if inside { s.load(from) } else { pad });
                        }
                    }
                    spread_parts::<S, T, A, B, 1>(s, edge.as_ptr().cast(), A * LANES, to, g.position, wanted.clone());
                }
            }
        }
    }
}

impl Source<'_> {
    /// The same of tiles that have fewer positions than others.
    ///
    /// # Safety
    /// `x` has images as `dims` says, of all groups, in which the places lie, and `to.v` has room for the geometry's
    /// tiles.
    #[inline(always)]
    pub unsafe fn spread_edges<S: Simd, T: Axis>(
        &self,
        s: S,
        g: &Geometry,
        which: Transform,
        block: usize,
        stretch: Stretch,
        to: Spread,
    ) {
        let (d, n, m, k) = (&self.dims, T::VARIANT.n(), T::VARIANT.m(), stretch.k);
        let pads = self.pads.get(block * LANES..(block + 1) * LANES).map_or(ZEROS.as_ptr(), <[f32]>::as_ptr);
        let [(height, positions), (width, _)] = k.map(|k| which.sizes(T::VARIANT, k));
        // The last of an edge's positions is the last of all.
        let is_before = |end: usize| move |i: &usize| if i + 1 == positions { n - 1 < end } else { *i < end };
        let before = |end: usize| (0..positions).filter(is_before(end)).count();
        let rows = before(to.rows.start)..before(to.rows.end);
        let (from_grid, to_grid) = (Grid::dense(width * LANES, LANES), Grid::positions(T::VARIANT, k, g.position));
        let v = to.v.wrapping_sub(to.rows.start * n * g.position);
        let (mut pixels, mut half) = ([[0.0f32; LANES]; MOST * MOST], Room::new());
        for (tile, place) in stretch.tiles.zip(stretch.places) {
            let plane = (place.image * crate::blocks(d.c) + block) * d.plane() * LANES;
            let (top, inside_rows) = inside(place.row * m, self.pad_top, height, d.h);
            let (left, inside_cols) = inside(place.col * m, self.pad_left, width, d.w);
            let corner = self.x.as_ptr().wrapping_add(plane);
            let corner = corner.wrapping_offset((top * d.w as isize + left) * LANES as isize);
            // SAFETY: only pixels that `inside` finds in the image are read, in planes of which the input has as many;
            // the rest is the caller's promise.
            unsafe {
                let pad = s.load(pads);
                for (r, line) in pixels.chunks_exact_mut(width).enumerate().take(height) {
                    for (c, pixel) in line.iter_mut().enumerate() {
                        let is_inside = inside_rows.contains(&r) && inside_cols.contains(&c);
                        let from = corner.wrapping_add((r * d.w + c) * LANES);
                        s.write(pixel, if is_inside { s.load(from) } else { pad });
                    }
                }
                for part in 0..S::PARTS {
                    let at = part * S::Register::WIDTH;
                    let (from, to) = (pixels.as_ptr().cast::<f32>().add(at), v.wrapping_add(tile * LANES + at));
                    let both =
                        Both { which, k, from, from_grid: &from_grid, to, to_grid: &to_grid, rows: rows.clone() };
                    both.run::<S::Register, T>(s.register(), &mut half);
                }
            }
        }
    }
}

/// From where on a tile reads an axis, and which of its `n` pixels lie inside the image.
#[inline(always)]
pub(super) fn inside(first: usize, pad: usize, n: usize, size: usize) -> (isize, Range<usize>) {
    let start = first as isize - pad as isize;
    let end = (size as isize - start).clamp(0, n as isize) as usize;
    (start, (-start).clamp(0, end as isize) as usize..end)
}

/// Transforms one tile of one block of channels at some rows of positions, whose first pixel is at `from` and whose
/// rows are `row` elements apart, neighbours in a row `P` pixels.
///
/// # Safety
/// 16 elements must be readable at each of `A²` pixels, and writable at `to` and each of the `B` positions of each row,
/// `position` apart.
#[inline(always)]
pub(super) unsafe fn spread_parts<S: Simd, T: Line<A, B>, const A: usize, const B: usize, const P: usize>(
    s: S,
    from: *const f32,
    row: usize,
    to: *mut f32,
    position: usize,
    rows: Range<usize>,
) {
    for part in 0..S::PARTS {
        let at = part * S::Register::WIDTH;
        // SAFETY: the caller's promise.
        unsafe {
            spread_tile::<S::Register, T, A, B, P>(s.register(), from.add(at), row, to.add(at), position, rows.clone());
        }
    }
}

/// The same of one part of the block's lanes.
///
/// # Safety
/// As [`spread_parts`], but of so many elements.
#[inline(always)]
unsafe fn spread_tile<S: Lanes, T: Line<A, B>, const A: usize, const B: usize, const P: usize>(
    s: S,
    from: *const f32,
    row: usize,
    to: *mut f32,
    position: usize,
    rows: Range<usize>,
) {
    let mut half = [[s.zero(); A]; B];
    for c in 0..A {
        // SAFETY: the caller's promise.
        let column = T::line(s, std::array::from_fn(|r| unsafe { s.load(from.add(r * row + c * P * LANES)) }));
        for r in 0..B {
            half[r][c] = column[r];
        }
    }
    for (r, row) in rows.enumerate() {
        for (c, v) in T::line(s, half[row]).into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { s.store(to.add((r * B + c) * position), v) };
        }
    }
}

/// The `B × B` results of one tile of so many channels.
///
/// # Safety
/// [`Lanes::WIDTH`] elements must be readable at `from` and each of the `A²` positions, `position` apart.
#[inline(always)]
pub(super) unsafe fn gather_tile<S: Lanes, T: Line<A, B>, const A: usize, const B: usize>(
    s: S,
    from: *const f32,
    position: usize,
) -> [[S::V; B]; B] {
    let mut half = [[s.zero(); A]; B];
    for c in 0..A {
        // SAFETY: the caller's promise.
        let column = T::line(s, std::array::from_fn(|r| unsafe { s.load(from.add((r * A + c) * position)) }));
        for r in 0..B {
            half[r][c] = column[r];
        }
    }
    let mut y = [[s.zero(); B]; B];
    // A loop, for `array::map` is not always inlined, and outside its shim a vector is not a register.
    for r in 0..B {
        y[r] = T::line(s, half[r]);
    }
    y
}
