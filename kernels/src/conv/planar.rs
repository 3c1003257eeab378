//! Passes whose vectors are of pixels: few output channels, or NCHW on both sides, or large depthwise from or to NCHW.
//!
//! A tile is a few output channels by a few vectors of neighbouring pixels, all in registers: each step reads a vector
//! of a plane and broadcasts a weight for each channel. No lane is empty, and NCHW need not be transposed.

// Channels and vectors of a tile are clearer as numbers.
#![allow(clippy::needless_range_loop)]

mod stores;
mod strips;

use super::band::Finish;
use super::pass::{Pass, Strides};
use super::{Layout, Options};
use crate::{Buffer, Kernel, LANES, Simd};
use std::ops::Range;
pub(super) use strips::ROWS as STRIP;

/// Vectors of pixels of the widest tile.
const VECTORS: usize = 4;
/// How far ahead a pass that reads the tensor itself asks for its planes: elements.
const AHEAD: usize = 8 * LANES;

/// Output channels up to which blocks are turned into planes: vectors of channels would be half empty.
pub(super) const CHANNELS: usize = 8;
/// Steps up to which NCHW on both sides is computed from planes: of more, planes and weights leave the first cache.
const STEPS: usize = 160;
/// Elements of 16 channels, of input and output, up to which depthwise turns whole planes into blocks and back: 1 MiB.
/// With vectors of pixels images of 7×7 took four to eight times as long, 56×56 twice, strided four times (Zen 4).
pub(super) const SMALL: usize = 1 << 18;

/// Whether vectors of pixels serve a pass better than vectors of channels, which would be empty to a good part, or
/// would have to be made from planes. Depthwise says of how many channels, and how many elements 16 of them have.
pub(super) fn serves(options: &Options, depthwise: Option<[usize; 2]>, groups: usize, goc: usize, k: usize) -> bool {
    let (from, to) = (options.input == Layout::Nchw, options.output == Layout::Nchw);
    if let Some([channels, len]) = depthwise {
        (from || to) && (channels <= CHANNELS || len > SMALL)
    } else {
        groups == 1 && if from { goc < LANES || to && k <= STEPS } else { goc <= CHANNELS && k > LANES }
    }
}

/// One band of one group (depthwise: of 16 channels), for some of its blocks of output channels. Whoever makes it
/// promises what [`Band`](super::band::Band) asks; but the pass's offsets say what can be read, of a copy whole vectors
/// of pixels, and in planes a pixel has one element for each channel.
pub(super) struct Planar<'a> {
    pub pass: &'a Pass,
    /// Where the band's first output pixel reads the group's first channel.
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
    pub blocks: Range<usize>,
    /// Channels that the group's last block has.
    pub valid: usize,
}

/// Where a tile reads and writes, as distances, and its pixels; the block of output channels and how many it has.
#[derive(Clone, Copy)]
struct Place {
    x: usize,
    y: usize,
    pixels: usize,
    block: usize,
    valid: usize,
}

/// The sums of a block's channels for the pixels of a tile.
type Sums = [[f32; VECTORS * LANES]; LANES];

impl Kernel for Planar<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let pass = self.pass;
        // A tensor's own rows follow each other without a gap.
        let (rows, cols) = if pass.copy { (self.rows, pass.cols.count) } else { (1, self.rows * pass.cols.count) };
        let is_plain = self.finish.shortcut.is_null() && self.finish.pre.is_null();
        if pass.by_lanes.is_some() && pass.copy && pass.out_layout == Layout::Nchw && is_plain && pass.chunks.len() == 1
        {
            // SAFETY: whoever made the kernel has promised it.
            return unsafe { self.strips(s) };
        }
        let most = match (pass.by_lanes.is_some(), pass.out_blocks(), self.valid) {
            (true, ..) => VECTORS,
            (_, 1, channels @ 1..=4) => thin::<S>(channels),
            _ => wide::<S>(),
        };
        // Beyond its last vector a tensor may end; a copy does not.
        let whole = if pass.copy { cols.div_ceil(LANES) } else { cols / LANES };
        let rest = (whole * LANES < cols).then_some((whole, 0));
        let mut sums = [[0.0; VECTORS * LANES]; LANES];
        for image in 0..self.images {
            for row in 0..rows {
                let x = image * self.in_strides.image + row * pass.rows.in_step * self.in_strides.row;
                let y = image * self.out_strides.image + row * self.out_strides.row;
                for (start, vectors) in super::tile::parts(whole, whole.div_ceil(most)).chain(rest) {
                    let start = start * LANES;
                    let pixels = if vectors == 0 { cols - start } else { (cols - start).min(vectors * LANES) };
                    let (x, y) = (x + start, y + start * self.out_strides.col);
                    // SAFETY: whoever made the kernel has promised it; the pixels are the band's, and of part of a
                    // vector no more are read.
                    unsafe { self.pixels(s, x, y, pixels, vectors, &mut sums) };
                }
            }
        }
    }
}

impl Planar<'_> {
    /// All channels of some of the pass's neighbouring pixels: so many vectors, or part of one where there are none.
    /// # Safety
    /// As [`Planar`] says; the pixels are the band's, the first reads at `x`, is written at `y`, has so many vectors.
    #[inline(always)]
    unsafe fn pixels<S: Simd>(&self, s: S, x: usize, y: usize, pixels: usize, vectors: usize, sums: &mut Sums) {
        for block in self.blocks.clone() {
            let valid = if block + 1 == self.pass.out_blocks() { self.valid } else { LANES };
            let place = Place { x, y: y + block * self.out_strides.block, pixels, block, valid };
            // The tiles of few registers take longer than their stores.
            if self.pass.out_layout == Layout::Nchw && S::TILE_VECTORS > 1 && !self.finish.streams {
                ask(s, self.y.wrapping_add(place.y + pixels), self.out_strides.block / LANES, valid);
            }
            // SAFETY: the caller's promise.
            unsafe {
                let left = match (self.pass.by_lanes.is_some(), vectors) {
                    (true, 0) => self.lanes::<S, 1, true>(s, place, sums),
                    (true, 1) => self.lanes::<S, 1, false>(s, place, sums),
                    (true, 2) => self.lanes::<S, 2, false>(s, place, sums),
                    (true, 3) => self.lanes::<S, 3, false>(s, place, sums),
                    (true, _) => self.lanes::<S, VECTORS, false>(s, place, sums),
                    (false, 0) => self.block::<S, 1, true>(s, place, sums),
                    (false, 1) => self.block::<S, 1, false>(s, place, sums),
                    (false, 2) => self.block::<S, 2, false>(s, place, sums),
                    (false, 3) => self.block::<S, 3, false>(s, place, sums),
                    (false, _) => self.block::<S, VECTORS, false>(s, place, sums),
                };
                // Here, once for all tiles.
                match self.pass.out_layout {
                    Layout::Nchw => self.store_planes(s, place, sums, left..valid),
                    Layout::Blocked => self.store_pixels(s, place, sums),
                }
            }
        }
    }

    /// The channels of a block, a few at a time. Those before the one that it returns are stored, the others' sums are
    /// left in `sums`: all, or those of the last tile.
    /// # Safety
    /// As [`Planar::pixels`], of the place, whose block is the band's, and `V` vectors or, if `PART`, its pixels.
    #[inline(always)]
    unsafe fn block<S: Simd, const V: usize, const PART: bool>(&self, s: S, place: Place, sums: &mut Sums) -> usize {
        let x = self.x.wrapping_add(place.x);
        let w = self.w.wrapping_add(place.block * self.pass.k * LANES);
        // With 32 registers twelve channels; two times eight rather than twelve and four.
        let most = match S::TILE_VECTORS {
            1 => 6,
            _ if place.valid > 12 => 8,
            _ => 12,
        };
        let mut left = 0;
        for (first, channels) in super::tile::parts(place.valid, place.valid.div_ceil(most)) {
            // SAFETY: the caller's promise; weights beyond the last channel are zeros, up to the 16th.
            let is_stored = unsafe {
                let w = w.add(first);
                match channels {
                    1 => self.tile::<S, 1, V, PART>(s, x, w, place, first, sums),
                    2 if const { V <= thin::<S>(2) } => self.tile::<S, 2, V, PART>(s, x, w, place, first, sums),
                    3 if const { V <= thin::<S>(3) } => self.tile::<S, 3, V, PART>(s, x, w, place, first, sums),
                    4 if const { V <= thin::<S>(4) } => self.tile::<S, 4, V, PART>(s, x, w, place, first, sums),
                    _ if const { V > wide::<S>() } => unreachable!(),
                    _ if const { S::TILE_VECTORS == 1 } => self.tile::<S, 6, V, PART>(s, x, w, place, first, sums),
                    5..=8 => self.tile::<S, 8, V, PART>(s, x, w, place, first, sums),
                    _ => self.tile::<S, 12, V, PART>(s, x, w, place, first, sums),
                }
            };
            debug_assert!(!is_stored || left == first, "a tile before has left its sums");
            if is_stored {
                left = first + channels;
            }
        }
        left
    }

    /// Channel by channel, each from its own plane; as [`Planar::block`].
    /// # Safety
    /// As [`Planar::block`].
    #[inline(always)]
    unsafe fn lanes<S: Simd, const V: usize, const PART: bool>(&self, s: S, place: Place, sums: &mut Sums) -> usize {
        let mut left = 0;
        for lane in 0..self.valid {
            let x = self.x.wrapping_add(place.x + lane * self.pass.planes.channel);
            // SAFETY: the caller's promise.
            if unsafe { self.tile::<S, 1, V, PART>(s, x, self.w.add(lane), place, lane, sums) } {
                left = lane + 1;
            }
        }
        left
    }

    /// `O` channels from `first` of the block on, `V` vectors of pixels. Whether they are stored, else they are left in
    /// `sums`.
    /// # Safety
    /// As [`Planar::block`], but read from `x` on; at `w` and 16 elements on for each step are weights of `O` lanes.
    #[inline(always)]
    unsafe fn tile<S: Simd, const O: usize, const V: usize, const PART: bool>(
        &self,
        s: S,
        x: *const f32,
        w: *const f32,
        place: Place,
        first: usize,
        sums: &mut Sums,
    ) -> bool {
        let mut acc = [[s.zero(); V]; O];
        // SAFETY: the caller's promise.
        unsafe {
            for (i, chunk) in self.pass.chunks.iter().enumerate() {
                if i > 0 {
                    put(s, &acc, sums, first);
                }
                acc = self.chain::<S, O, V, PART>(s, x, w, &chunk.steps, place.pixels);
                if i > 0 {
                    for o in 0..O.min(LANES - first) {
                        for v in 0..V {
                            acc[o][v] = s.add(s.load(sums[first + o].as_ptr().add(v * LANES)), acc[o][v]);
                        }
                    }
                }
            }
            let is_plain = self.finish.shortcut.is_null() && self.finish.pre.is_null();
            let stores = self.pass.out_layout == Layout::Nchw && is_plain && first + O <= place.valid;
            if !stores {
                put(s, &acc, sums, first);
            } else if self.finish.streams && self.y.add(place.y).addr().is_multiple_of(Buffer::ALIGN) {
                // Planes are whole lines; a band's rows need not begin with one.
                self.store_tile::<S, O, V, true>(s, &acc, place, first);
            } else {
                self.store_tile::<S, O, V, false>(s, &acc, place, first);
            }
            stores
        }
    }

    /// The sums of one chunk.
    /// # Safety
    /// As [`Planar::tile`]; the steps are those of one of the pass's chunks.
    #[inline(always)]
    unsafe fn chain<S: Simd, const O: usize, const V: usize, const PART: bool>(
        &self,
        s: S,
        x: *const f32,
        w: *const f32,
        steps: &Range<usize>,
        pixels: usize,
    ) -> [[S::V; V]; O] {
        let mut chain = [[s.zero(); V]; O];
        let offsets = self.pass.offsets[steps.clone()].iter();
        let mut w = w.wrapping_add(steps.start * LANES);
        for &offset in offsets {
            let from = x.wrapping_add(offset);
            let mut vectors = [s.zero(); V];
            // SAFETY: the caller's promise.
            unsafe {
                for v in 0..V {
                    vectors[v] = if PART { s.load_first(from, pixels) } else { s.load(from.add(v * LANES)) };
                }
                for o in 0..O {
                    let weight = s.broadcast(w.add(o));
                    for v in 0..V {
                        chain[o][v] = s.fma(vectors[v], weight, chain[o][v]);
                    }
                }
            }
            if !self.pass.copy {
                (0..V).for_each(|v| s.prefetch(from.wrapping_add(AHEAD + v * LANES)));
            }
            w = w.wrapping_add(LANES);
        }
        chain
    }
}

/// Vectors of pixels of a tile of many channels.
const fn wide<S: Simd>() -> usize {
    if S::TILE_VECTORS < 2 { S::TILE_VECTORS } else { 2 }
}

/// Vectors of pixels of a tile of one to four channels: enough to hide FMA's latency, as far as registers hold sums.
const fn thin<S: Simd>(channels: usize) -> usize {
    match (channels, S::TILE_VECTORS) {
        (1, _) | (_, VECTORS..) => VECTORS,
        (2, _) => 2,
        _ => wide::<S>(),
    }
}

/// Asks for where the next pixels' outputs go, in too many planes to be foreseen. Apart, to spare the tiles registers.
#[inline(never)]
fn ask<S: Simd>(s: S, to: *const f32, plane: usize, channels: usize) {
    for channel in 0..channels {
        let to = to.wrapping_add(channel * plane);
        s.prefetch_far(to);
        s.prefetch_far(to.wrapping_add(LANES));
    }
}

/// Leaves a tile's sums in memory.
#[inline(always)]
fn put<S: Simd, const O: usize, const V: usize>(s: S, acc: &[[S::V; V]; O], sums: &mut Sums, first: usize) {
    for o in 0..O.min(LANES - first) {
        let (vectors, _) = sums[first + o].as_chunks_mut::<LANES>();
        (0..V).for_each(|v| s.write(&mut vectors[v], acc[o][v]));
    }
}
