//! The transforms of tiles at the lower and the right edge that have fewer positions than others: the operations of
//! [`crate::reference::winograd`]'s `Axis`, in their order.
//!
//! Such tiles are few. Their lines are transformed one by one, through memory, so that each axis has a choice of its
//! own.

// Rows and columns of a tile are clearer as numbers.
#![allow(clippy::needless_range_loop)]

use super::transform::{F2x3, F3x2, F4x2, F4x3, Line};
use crate::reference::winograd::{Matrix, Variant};
use crate::{LANES, Lanes};
use std::marker::PhantomData;
use std::ops::Range;

/// Positions along an axis at most.
pub(super) const MOST: usize = 6;

/// Where the values of a tile lie: of each row, in each of which of each column, so many elements from the first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    pub rows: [usize; MOST],
    pub cols: [usize; MOST],
}

impl Grid {
    /// Values at multiples.
    #[inline(always)]
    pub fn dense(row: usize, col: usize) -> Grid {
        let mut grid = Grid { rows: [0; MOST], cols: [0; MOST] };
        for i in 0..MOST {
            (grid.rows[i], grid.cols[i]) = (i * row, i * col);
        }
        grid
    }

    /// The positions of a tile of `k` outputs along each axis, of `n × n`: `position` elements apart.
    #[inline(always)]
    pub fn positions(variant: Variant, k: [usize; 2], position: usize) -> Grid {
        let n = variant.n();
        let mut grid = Grid::dense(n * position, position);
        if k[0] > 0 {
            grid.rows[variant.finite(k[0])] = (n - 1) * n * position;
        }
        if k[1] > 0 {
            grid.cols[variant.finite(k[1])] = (n - 1) * position;
        }
        grid
    }
}

/// Lines to transform: where each begins, where its values lie from there, and the same of what comes out.
pub(super) struct Lines<'a> {
    from: *const f32,
    from_lines: &'a [usize],
    from_values: &'a [usize; MOST],
    to: *mut f32,
    to_lines: &'a [usize],
    to_values: &'a [usize; MOST],
}

impl Lines<'_> {
    /// # Safety
    /// [`Lanes::WIDTH`] elements must be readable at each of `A` values of each line, and writable at `B`.
    #[inline(always)]
    unsafe fn transform<S: Lanes, T: Line<A, B>, const A: usize, const B: usize>(&self, s: S) {
        for (&from, &to) in self.from_lines.iter().zip(self.to_lines) {
            let (from, to) = (self.from.wrapping_add(from), self.to.wrapping_add(to));
            let mut values = [s.zero(); A];
            for i in 0..A {
                // SAFETY: the caller's promise.
                values[i] = unsafe { s.load(from.add(self.from_values[i])) };
            }
            let values = T::line(s, values);
            for i in 0..B {
                // SAFETY: the caller's promise.
                unsafe { s.store(to.add(self.to_values[i]), values[i]) };
            }
        }
    }
}

/// One of a variant's one-dimensional transforms: `Bᵀ`, `Aᵀ`, `A`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transform {
    Input,
    Output,
    Gradient,
}

impl Transform {
    /// How many values an axis of `k` outputs takes and gives.
    #[inline(always)]
    pub fn sizes(self, variant: Variant, k: usize) -> (usize, usize) {
        let (positions, outputs) = if k > 0 { (variant.finite(k) + 1, k) } else { (variant.n(), variant.m()) };
        match self {
            Transform::Input => (positions, positions),
            Transform::Output => (positions, outputs),
            Transform::Gradient => (outputs, positions),
        }
    }
}

/// A variant's transforms along an axis of which the tile has `k` outputs; all of them if `k` is 0.
pub(super) trait Axis {
    const VARIANT: Variant;

    /// # Safety
    /// As [`Lines::transform`], for as many values as [`Transform::sizes`] says.
    unsafe fn transform<S: Lanes>(s: S, which: Transform, k: usize, lines: &Lines<'_>);
}

macro_rules! axis {
    ($variant:ident: $n:literal, $m:literal; $($k:literal: $edge:literal),*) => {
        impl Axis for $variant {
            const VARIANT: Variant = Variant::$variant;

            #[inline(always)]
            unsafe fn transform<S: Lanes>(s: S, which: Transform, k: usize, lines: &Lines<'_>) {
                // SAFETY: the caller's promise.
                unsafe {
                    match (which, k) {
                        $(
                            (Transform::Input, $k) => lines.transform::<S, Edge<Self, INPUT, $k>, $edge, $edge>(s),
                            (Transform::Output, $k) => lines.transform::<S, Edge<Self, OUTPUT, $k>, $edge, $k>(s),
                            (Transform::Gradient, $k) => lines.transform::<S, Edge<Self, GRADIENT, $k>, $k, $edge>(s),
                        )*
                        (Transform::Input, _) => lines.transform::<S, Self, $n, $n>(s),
                        (Transform::Output, _) => lines.transform::<S, Self, $n, $m>(s),
                        (Transform::Gradient, _) => lines.transform::<S, Self, $m, $n>(s),
                    }
                }
            }
        }
    };
}

axis!(F4x3: 6, 4; 1: 3, 2: 4, 3: 5);
axis!(F2x3: 4, 2; 1: 3);
axis!(F4x2: 5, 4; 1: 2, 2: 3, 3: 4);
axis!(F3x2: 4, 3; 1: 2, 2: 3);

const INPUT: usize = Transform::Input as usize;
const OUTPUT: usize = Transform::Output as usize;
const GRADIENT: usize = Transform::Gradient as usize;

/// The matrix of a [`Transform`] at the edge of `K` outputs.
struct Edge<T, const TRANSFORM: usize, const K: usize>(PhantomData<T>);

impl<T: Axis, const TRANSFORM: usize, const K: usize> Edge<T, TRANSFORM, K> {
    const MATRIX: Matrix = {
        let edge = T::VARIANT.edge(K);
        match TRANSFORM {
            INPUT => edge.input,
            OUTPUT => edge.output,
            _ => edge.gradient,
        }
    };
}

impl<T: Axis, const TRANSFORM: usize, const K: usize, const A: usize, const B: usize> Line<A, B>
    for Edge<T, TRANSFORM, K>
{
    #[inline(always)]
    fn line<S: Lanes>(s: S, d: [S::V; A]) -> [S::V; B] {
        let mut y = [s.zero(); B];
        for r in 0..B {
            let mut is_first = true;
            for c in 0..A {
                let coefficient = Self::MATRIX[r][c] as f32;
                if Self::MATRIX[r][c] != 0.0 {
                    let v = s.splat(coefficient);
                    y[r] = if is_first { s.mul(v, d[c]) } else { s.fma(v, d[c], y[r]) };
                    is_first = false;
                }
            }
        }
        y
    }
}

/// Room for a tile.
#[repr(align(64))]
pub(super) struct Room([f32; MOST * MOST * LANES]);

impl Room {
    #[inline(always)]
    pub fn new() -> Room {
        Room([0.0; MOST * MOST * LANES])
    }

    #[inline(always)]
    pub fn ptr(&mut self) -> *mut f32 {
        self.0.as_mut_ptr()
    }
}

/// A tile's transform in two dimensions: down its columns, then along its rows.
pub(super) struct Both<'a> {
    pub which: Transform,
    /// Outputs along each axis, 0 where these are all.
    pub k: [usize; 2],
    pub from: *const f32,
    pub from_grid: &'a Grid,
    pub to: *mut f32,
    pub to_grid: &'a Grid,
    /// Rows of the result that are wanted.
    pub rows: Range<usize>,
}

impl Both<'_> {
    /// # Safety
    /// [`Lanes::WIDTH`] elements must be readable at each value of the tile, and writable at each of the wanted rows of
    /// the result.
    #[inline(always)]
    pub unsafe fn run<S: Lanes, T: Axis>(&self, s: S, half: &mut Room) {
        let between = Grid::dense(MOST * LANES, LANES);
        let half = half.ptr();
        let columns = self.which.sizes(T::VARIANT, self.k[1]).0;
        let down = Lines {
            from: self.from,
            from_lines: &self.from_grid.cols[..columns],
            from_values: &self.from_grid.rows,
            to: half,
            to_lines: &between.cols[..columns],
            to_values: &between.rows,
        };
        let along = Lines {
            from: half,
            from_lines: &between.rows[self.rows.clone()],
            from_values: &between.cols,
            to: self.to,
            to_lines: &self.to_grid.rows[self.rows.clone()],
            to_values: &self.to_grid.cols,
        };
        // SAFETY: the caller's promise; in between there is room for a largest tile.
        unsafe {
            T::transform(s, self.which, self.k[0], &down);
            T::transform(s, self.which, self.k[1], &along);
        }
    }
}
