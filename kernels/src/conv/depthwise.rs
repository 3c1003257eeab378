//! Depthwise convolution: each channel by itself, lane by lane, straight from blocks to blocks. Small planes, on either
//! side, are made into blocks or of them. Groups of two, four or eight channels are computed in the same way: each lane
//! takes the inputs of its group one after the other, from the other lanes of its block.
//!
//! It moves more than it computes, so nothing is copied for padding: pixels are taken a few at a time, with the
//! padding's values for the taps outside the image. Of an unusual kernel or padding, or of very narrow rows, those at
//! the edges are taken one by one, all of them where fewer than a tile lie between; portable code takes all of them one
//! by one.

// The pixels of a tile are clearer as numbers.
#![allow(clippy::needless_range_loop)]

use super::band::Finish;
use super::pass::Pass;
use crate::reference::conv::CHUNK;
use crate::{Isa, Kernel, LANES, Lanes, Simd};
use std::ops::Range;

/// Pixels of a tile: chains enough to hide the latency of FMA.
const PIXELS: usize = 8;
/// The same of narrow images, and of strides of 2.
const FEW: usize = 4;
/// Inputs outside the image: all.
const ALL: usize = usize::MAX;

/// [`Depthwise`] with groups of `G` channels: one function each.
struct Grouped<'a, const G: usize>(&'a Depthwise<'a>);

/// Some rows of one block of channels of one image. Whoever makes it promises that 16 elements can be read at each
/// pixel of `x` that the rows' taps meet inside the image; that as many can be written at each of the rows' outputs in
/// `y`, and accessed there in what else `finish` has, whose bias and slopes are 16; that `w` is of all taps; that no
/// other thread touches what is written; and that it is whole lines if it is streamed.
pub(super) struct Depthwise<'a> {
    pub pass: &'a Pass,
    /// The block's plane of the input, of which those rows are there that the output rows read, and 16 values for what
    /// lies outside.
    pub x: *const f32,
    pub pads: &'a [f32; LANES],
    /// The block's plane of the output, from row `first` on.
    pub y: *mut f32,
    /// The block's weights, `[tap][channel of a group][16]`.
    pub w: &'a [f32],
    /// The block's bias and slopes, and its planes of shortcut and pre-activation.
    pub finish: Finish,
    pub first: usize,
    pub rows: Range<usize>,
    /// Lanes that have a channel.
    pub valid: usize,
}

impl<const G: usize> Kernel for Grouped<'_, G> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Grouped(block) = self;
        if const { !S::UNROLLS } {
            // SAFETY: whoever made the block has promised it; `Depthwise::run` takes `G` from the pass.
            return unsafe { block.singly::<S, G>(s) };
        }
        let (rows, cols) = (&block.pass.rows, &block.pass.cols);
        let are_neighbours = cols.taps.is_sorted_by(|a, b| a.offset + 1 == b.offset);
        let near = if are_neighbours && rows.taps.len() * cols.taps.len() <= CHUNK { cols.taps.len() } else { 0 };
        // A kernel that stands over the middle of its outputs, and the inputs outside the image that the last one
        // reads.
        let pad = near / 2;
        let is_same = near % 2 == 1 && cols.low() == -(pad as isize);
        let right = ((cols.count - 1) * cols.in_step + pad + 1).wrapping_sub(cols.input);
        // SAFETY: whoever made the block has promised it; `Depthwise::run` takes `G` from the pass. Rows have a tile's
        // pixels and as many as the padding.
        unsafe {
            match (near, cols.in_step, right, cols.count) {
                (3, 1, 1, 9..) if is_same => block.same::<S, G, PIXELS, 3, 1, 1, 1>(s),
                (5, 1, 2, 10..) if is_same && G == 1 => block.same::<S, G, PIXELS, 5, 2, 1, 2>(s),
                (3, 1, 1, 5..) if is_same => block.same::<S, G, FEW, 3, 1, 1, 1>(s),
                (5, 1, 2, 6..) if is_same && G == 1 => block.same::<S, G, FEW, 5, 2, 1, 2>(s),
                (3, 2, 0, 5..) if is_same => block.same::<S, G, FEW, 3, 1, 2, 0>(s),
                (3, 2, 1, 5..) if is_same => block.same::<S, G, FEW, 3, 1, 2, 1>(s),
                (5, 2, 1, 6..) if is_same && G == 1 => block.same::<S, G, FEW, 5, 2, 2, 1>(s),
                (5, 2, 2, 6..) if is_same && G == 1 => block.same::<S, G, FEW, 5, 2, 2, 2>(s),
                _ => block.any::<S, G>(s, near),
            }
        }
    }
}

impl Depthwise<'_> {
    /// Computes the rows.
    pub fn run(&self, isa: Isa) {
        match self.pass.by_lanes {
            Some(2) => isa.dispatch(Grouped::<2>(self)),
            Some(4) => isa.dispatch(Grouped::<4>(self)),
            Some(8) => isa.dispatch(Grouped::<8>(self)),
            _ => isa.dispatch(Grouped::<1>(self)),
        }
    }

    /// Rows of at least `I + PAD` pixels, `STEP` inputs apart, with taps in `C` neighbouring columns: the first pixel
    /// has `PAD` of them outside the image, the last one `RIGHT`.
    ///
    /// # Safety
    /// As [`Depthwise`] says, with `G` channels a group; rows and taps are as said.
    #[inline(always)]
    unsafe fn same<
        S: Simd,
        const G: usize,
        const I: usize,
        const C: usize,
        const PAD: usize,
        const STEP: usize,
        const RIGHT: usize,
    >(
        &self,
        s: S,
    ) {
        const { assert!(RIGHT.div_ceil(STEP) <= PAD && PAD <= I) };
        let last = self.pass.cols.count - I;
        for row in self.rows.clone() {
            // SAFETY: the caller's promise; between the first tile and the last all taps lie in the image.
            unsafe {
                self.near::<S, G, I, C, STEP, PAD, 0>(s, row, 0);
                for col in (I..last).step_by(I) {
                    // The last tiles overlap those before, which costs less than pixels one by one.
                    self.near::<S, G, I, C, STEP, 0, 0>(s, row, col.min(last - RIGHT.div_ceil(STEP)));
                }
                self.near::<S, G, I, C, STEP, 0, RIGHT>(s, row, last);
            }
        }
    }

    /// Any rows, pixel by pixel.
    ///
    /// # Safety
    /// As [`Depthwise`] says, with `G` channels a group.
    #[inline(always)]
    unsafe fn singly<S: Simd, const G: usize>(&self, s: S) {
        for row in self.rows.clone() {
            for col in 0..self.pass.cols.count {
                // SAFETY: the caller's promise; whether taps lie in the image is checked.
                unsafe { self.tile::<S, G, 1, true>(s, row, col) };
            }
        }
    }

    /// Any rows, of taps in `near` neighbouring columns or, if that is zero, in any.
    ///
    /// # Safety
    /// As [`Depthwise`] says, with `G` channels a group; the taps are as said.
    #[inline(always)]
    unsafe fn any<S: Simd, const G: usize>(&self, s: S, near: usize) {
        let cols = &self.pass.cols;
        // Columns all of whose taps lie in the image.
        let first = (-cols.low()).max(0) as usize;
        let inner = first.div_ceil(cols.in_step).min(cols.count);
        let reach = cols.low() + cols.extent(1) as isize;
        let fits = |q: usize| (q * cols.in_step) as isize + reach <= cols.input as isize;
        let outer = inner.max((0..cols.count).rev().find(|&q| fits(q)).map_or(0, |q| q + 1));
        for row in self.rows.clone() {
            let mut col = 0;
            while col < cols.count {
                // SAFETY: the taps of an inner tile lie in the image, those of an edge pixel are checked.
                unsafe {
                    if (inner..outer).contains(&col) && inner + PIXELS <= outer {
                        let last = col.min(outer - PIXELS);
                        match (near, cols.in_step) {
                            (3, 1) => self.near::<S, G, PIXELS, 3, 1, 0, 0>(s, row, last),
                            (5, 1) if G == 1 => self.near::<S, G, PIXELS, 5, 1, 0, 0>(s, row, last),
                            _ => self.tile::<S, G, PIXELS, false>(s, row, last),
                        }
                        col = outer.min(col + PIXELS);
                    } else {
                        self.tile::<S, G, 1, true>(s, row, col);
                        col += 1;
                    }
                }
            }
        }
    }

    /// `I` neighbouring pixels, `STEP` inputs apart, with taps in `C` neighbouring columns, of which the first `LEFT`
    /// inputs and the last `RIGHT` lie outside the image: an input is loaded once for a row of taps.
    ///
    /// # Safety
    /// As [`Depthwise`] says, with `G` channels a group; the row is one of its rows and has these pixels, the taps are
    /// as said, and the columns of all other inputs lie in the image.
    #[inline(always)]
    unsafe fn near<
        S: Simd,
        const G: usize,
        const I: usize,
        const C: usize,
        const STEP: usize,
        const LEFT: usize,
        const RIGHT: usize,
    >(
        &self,
        s: S,
        row: usize,
        col: usize,
    ) {
        let (rows, cols) = (&self.pass.rows, &self.pass.cols);
        let (s, first) = (s.register(), (col * STEP) as isize + cols.taps[0].offset);
        for part in 0..S::PARTS {
            let lane = part * S::Register::WIDTH;
            // SAFETY: 16 lanes of padding.
            let pad = unsafe { s.group::<G>(self.pads.as_ptr(), lane) };
            let mut chain = [s.zero(); I];
            for (t, tap) in rows.taps.iter().enumerate() {
                let y = (row * rows.in_step) as isize + tap.offset;
                // SAFETY: as many taps as the weights have; what is read of the row lies in it.
                unsafe {
                    let w = self.w.as_ptr().add(t * C * G * LANES + lane);
                    if y >= 0 && y < rows.input as isize {
                        let at = (y * cols.input as isize + first) * LANES as isize;
                        let x = self.x.wrapping_offset(at);
                        add_row::<_, G, I, C, STEP, LEFT, RIGHT>(s, &mut chain, x, lane, pad, w);
                    } else {
                        add_row::<_, G, I, C, STEP, ALL, 0>(s, &mut chain, self.x, lane, pad, w);
                    }
                }
            }
            // SAFETY: the caller's promise.
            unsafe { self.store::<S::Register, I>(s, &chain, part, row, col) };
        }
    }

    /// `I` neighbouring pixels, of which `EDGE` ones may have taps outside the image.
    ///
    /// # Safety
    /// As [`Depthwise`] says, with `G` channels a group; the row is one of its rows and has these pixels. If `EDGE`,
    /// there is one pixel; else the columns of all taps lie in the image.
    #[inline(always)]
    unsafe fn tile<S: Simd, const G: usize, const I: usize, const EDGE: bool>(&self, s: S, row: usize, col: usize) {
        let (rows, cols) = (&self.pass.rows, &self.pass.cols);
        let step = cols.in_step;
        // SAFETY: 16 lanes of padding.
        let pad = unsafe { s.group::<G>(self.pads.as_ptr(), 0) };
        let (mut sums, mut chain) = ([s.zero(); I], [s.zero(); I]);
        let (mut taps, is_long) = (0, self.pass.k > CHUNK * G);
        for r in &rows.taps {
            let y = (row * rows.in_step) as isize + r.offset;
            let above = y < 0 || y >= rows.input as isize;
            let line = self.x.wrapping_offset(y * (cols.input * LANES) as isize);
            for c in &cols.taps {
                if is_long && taps % CHUNK == 0 && taps > 0 {
                    for i in 0..I {
                        sums[i] = if taps == CHUNK { chain[i] } else { s.add(sums[i], chain[i]) };
                        chain[i] = s.zero();
                    }
                }
                let w = self.w.as_ptr().wrapping_add(taps * G * LANES);
                let x = (col * cols.in_step) as isize + c.offset;
                let from = line.wrapping_offset(x * LANES as isize);
                let outside = above || EDGE && (x < 0 || x >= cols.input as isize);
                for i in 0..I {
                    // SAFETY: as many taps as the weights have; a pixel is read if it lies in the image.
                    unsafe {
                        let v = if outside { pad } else { s.group::<G>(from.wrapping_add(i * step * LANES), 0) };
                        for g in 0..G {
                            chain[i] = s.fma(v[g], s.load(w.add(g * LANES)), chain[i]);
                        }
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
    ///
    /// # Safety
    /// As [`Depthwise`] says of `y` and `finish`; the row is one of its rows and has these pixels.
    #[inline(always)]
    unsafe fn store<L: Lanes, const I: usize>(&self, s: L, sums: &[L::V; I], part: usize, row: usize, col: usize) {
        let (rows, cols) = (&self.pass.rows, &self.pass.cols);
        let lane = part * L::WIDTH;
        let row = rows.first + row * rows.step - self.first;
        let at = (row * self.pass.output.w + cols.first + col * cols.step) * LANES + lane;
        let is_plain = self.finish.shortcut.is_null() && self.finish.pre.is_null() && self.valid == LANES;
        let valid = s.first(self.valid, part);
        // SAFETY: output pixels of the pass.
        unsafe {
            let (bias, slopes) = self.finish.parameters(s, lane);
            for i in 0..I {
                let at = at + i * cols.step * LANES;
                if is_plain {
                    let v = s.add(sums[i], bias);
                    let v = s.select(s.gt(v, s.zero()), v, s.mul(slopes, v));
                    s.put(self.y.add(at), v, self.finish.streams);
                } else {
                    self.finish.store(s, sums[i], (bias, slopes), self.y, at, valid);
                }
            }
        }
    }
}

/// One row of `C` taps of `I` neighbouring pixels, `STEP` inputs apart, of the lanes from `lane` on. Of the inputs the
/// first `LEFT` and the last `RIGHT` are `pad`.
///
/// # Safety
/// [`Lanes::WIDTH`] elements must be readable at each of `C · G` lines from `w` on, and 16 at each of the other inputs
/// from `x` on; `lane` is a multiple of [`Lanes::WIDTH`] below 16.
#[inline(always)]
unsafe fn add_row<
    L: Lanes,
    const G: usize,
    const I: usize,
    const C: usize,
    const STEP: usize,
    const LEFT: usize,
    const RIGHT: usize,
>(
    s: L,
    chain: &mut [L::V; I],
    x: *const f32,
    lane: usize,
    pad: [L::V; G],
    w: *const f32,
) {
    let mut taps = [[s.zero(); G]; C];
    for c in 0..C {
        for g in 0..G {
            // SAFETY: the caller's promise: `C · G` lines of weights.
            taps[c][g] = unsafe { s.load(w.add((c * G + g) * LANES)) };
        }
    }
    let inputs = (I - 1) * STEP + C;
    if L::WIDTH <= G {
        // All lanes take the same number: it is cheaper to load it again than to keep so many, or the taps.
        for c in 0..C {
            for g in 0..G {
                for i in 0..I {
                    let p = i * STEP + c;
                    let is_pad = p < LEFT || p + RIGHT >= inputs;
                    let from = x.wrapping_add(p * LANES + lane / G * G + g);
                    // SAFETY: the caller's promise: the inputs that are not `pad`.
                    let v = if is_pad { pad[g] } else { s.splat(unsafe { from.read() }) };
                    chain[i] = s.fma(v, taps[c][g], chain[i]);
                }
            }
        }
        return;
    }
    for p in 0..inputs {
        let is_pad = p < LEFT || p + RIGHT >= inputs;
        // SAFETY: the caller's promise: the inputs that are not `pad`.
        let v = if is_pad { pad } else { unsafe { s.group::<G>(x.wrapping_add(p * LANES), lane) } };
        for c in 0..C {
            if p >= c && (p - c) % STEP == 0 && (p - c) / STEP < I {
                for g in 0..G {
                    chain[(p - c) / STEP] = s.fma(v[g], taps[c][g], chain[(p - c) / STEP]);
                }
            }
        }
    }
}
