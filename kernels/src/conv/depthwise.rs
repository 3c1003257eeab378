//! Depthwise convolution: each channel by itself, lane by lane, straight from the tensor.
//!
//! It moves more than it computes, so nothing is copied: pixels whose taps all lie in the image are taken a few at a time,
//! those at its edges one by one, with the padding's values for the taps outside.

// The pixels of a tile are clearer as numbers.
#![allow(clippy::needless_range_loop)]

use super::band::Finish;
use super::pass::Pass;
use crate::reference::conv::CHUNK;
use crate::{Kernel, LANES, Lanes, Simd};
use std::ops::Range;

/// Pixels of a tile: chains enough to hide the latency of FMA.
const PIXELS: usize = 8;

/// Some rows of one block of channels of one image.
pub(super) struct Depthwise<'a> {
    pub pass: &'a Pass,
    /// The block's plane of the input, and 16 values for what lies outside.
    pub x: &'a [f32],
    pub pads: &'a [f32; LANES],
    /// The block's plane of the output.
    pub y: *mut f32,
    /// The block's weights, `[tap][16]`.
    pub w: &'a [f32],
    /// The block's bias and slopes, and its planes of shortcut and pre-activation.
    pub finish: Finish,
    pub rows: Range<usize>,
    /// Lanes that have a channel.
    pub valid: usize,
}

impl Kernel for Depthwise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let cols = &self.pass.cols;
        // Columns all of whose taps lie in the image.
        let first = (-cols.low()).max(0) as usize;
        let inner = first.div_ceil(cols.in_step).min(cols.count);
        let reach = cols.low() + cols.extent(1) as isize;
        let fits = |q: usize| (q * cols.in_step) as isize + reach <= cols.input as isize;
        let outer = inner.max((0..cols.count).rev().find(|&q| fits(q)).map_or(0, |q| q + 1));
        let is_near = cols.in_step == 1 && cols.taps.is_sorted_by(|a, b| a.offset + 1 == b.offset);
        let near = if is_near && self.pass.k <= CHUNK { cols.taps.len() } else { 0 };
        for row in self.rows.clone() {
            let mut col = 0;
            while col < cols.count {
                // SAFETY: whoever made the kernel promises that its pointers are the planes of the pass; the taps of an inner
                // tile lie in the image, those of an edge pixel are checked.
                unsafe {
                    if (inner..outer).contains(&col) && inner + PIXELS <= outer {
                        // The last tile overlaps the one before, which costs less than pixels one by one.
                        let last = col.min(outer - PIXELS);
                        match near {
                            3 => self.near::<S, PIXELS, 3>(s, row, last),
                            5 => self.near::<S, PIXELS, 5>(s, row, last),
                            _ => self.tile::<S, PIXELS, false>(s, row, last),
                        }
                        col = outer.min(col + PIXELS);
                    } else {
                        self.tile::<S, 1, true>(s, row, col);
                        col += 1;
                    }
                }
            }
        }
    }
}

impl Depthwise<'_> {
    /// `I` neighbouring pixels with taps in `C` neighbouring columns, all in the image: an input is loaded once for a row of
    /// taps.
    #[inline(always)]
    unsafe fn near<S: Simd, const I: usize, const C: usize>(&self, s: S, row: usize, col: usize) {
        let (rows, cols) = (&self.pass.rows, &self.pass.cols);
        let s = s.register();
        for part in 0..S::PARTS {
            let lane = part * S::Register::WIDTH;
            let mut chain = [s.zero(); I];
            for (t, tap) in rows.taps.iter().enumerate() {
                // SAFETY: as many taps as the weights have, 16 lanes of padding, inputs in the image.
                unsafe {
                    let mut w = [s.zero(); C];
                    for c in 0..C {
                        w[c] = s.load(self.w.as_ptr().add((t * C + c) * LANES + lane));
                    }
                    let y = (row * rows.in_step) as isize + tap.offset;
                    let (mut from, mut step) = (self.pads.as_ptr().add(lane), 0);
                    if y >= 0 && y < rows.input as isize {
                        let at = y * cols.input as isize + col as isize + cols.low();
                        (from, step) = (self.x.as_ptr().offset(at * LANES as isize).add(lane), LANES);
                    }
                    for p in 0..I + C - 1 {
                        let v = s.load(from.add(p * step));
                        for c in 0..C {
                            if p >= c && p - c < I {
                                chain[p - c] = s.fma(v, w[c], chain[p - c]);
                            }
                        }
                    }
                }
            }
            // SAFETY: the caller's promise.
            unsafe { self.store::<S::Register, I>(s, &chain, part, row, col) };
        }
    }

    /// `I` neighbouring pixels, of which `EDGE` ones may have taps outside the image.
    #[inline(always)]
    unsafe fn tile<S: Simd, const I: usize, const EDGE: bool>(&self, s: S, row: usize, col: usize) {
        let (rows, cols) = (&self.pass.rows, &self.pass.cols);
        let step = cols.in_step;
        let pad = s.vector(self.pads);
        let (mut sums, mut chain) = ([s.zero(); I], [s.zero(); I]);
        let (mut taps, is_long) = (0, self.pass.k > CHUNK);
        for r in &rows.taps {
            let y = (row * rows.in_step) as isize + r.offset;
            let above = y < 0 || y >= rows.input as isize;
            let line = self.x.as_ptr().wrapping_offset(y * (cols.input * LANES) as isize);
            for c in &cols.taps {
                if is_long && taps % CHUNK == 0 && taps > 0 {
                    for i in 0..I {
                        sums[i] = if taps == CHUNK { chain[i] } else { s.add(sums[i], chain[i]) };
                        chain[i] = s.zero();
                    }
                }
                // SAFETY: as many taps as the weights have; a pixel is read if it lies in the image.
                let w = unsafe { s.load(self.w.as_ptr().add(taps * LANES)) };
                let x = (col * cols.in_step) as isize + c.offset;
                let from = line.wrapping_offset(x * LANES as isize);
                if above || EDGE && (x < 0 || x >= cols.input as isize) {
                    (0..I).for_each(|i| chain[i] = s.fma(pad, w, chain[i]));
                } else {
                    for i in 0..I {
                        // SAFETY: as above.
                        chain[i] = s.fma(unsafe { s.load(from.add(i * step * LANES)) }, w, chain[i]);
                    }
                }
                taps += 1;
            }
        }
        if is_long {
            for i in 0..I {
                chain[i] = s.add(sums[i], chain[i]);
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.store::<S, I>(s, &chain, 0, row, col) };
    }

    /// Applies the epilogue to a part of the lanes of `I` neighbouring pixels and stores them.
    #[inline(always)]
    unsafe fn store<L: Lanes, const I: usize>(&self, s: L, sums: &[L::V; I], part: usize, row: usize, col: usize) {
        let (rows, cols) = (&self.pass.rows, &self.pass.cols);
        let lane = part * L::WIDTH;
        let at = ((rows.first + row * rows.step) * self.pass.output.w + cols.first + col * cols.step) * LANES + lane;
        let is_plain = self.finish.shortcut.is_null() && self.finish.pre.is_null() && self.valid == LANES;
        let valid = s.first(self.valid, part);
        // SAFETY: output pixels of the pass.
        unsafe {
            let (bias, slopes) = self.finish.parameters(s, lane);
            for i in 0..I {
                let at = at + i * cols.step * LANES;
                if is_plain {
                    let v = s.add(sums[i], bias);
                    s.store(self.y.add(at), s.select(s.gt(v, s.zero()), v, s.mul(slopes, v)));
                } else {
                    self.finish.store(s, sums[i], (bias, slopes), self.y, at, valid);
                }
            }
        }
    }
}
