//! The stages of a first layer's block of tiles: transform the inputs, multiply at each position, transform the
//! products.

// Positions, rows and columns are clearer as numbers.
#![allow(clippy::needless_range_loop)]

use super::epilogue::{Epilogue, Rooms};
use super::first::{Block, M, N, SIDE, SPAN, STEP, Scratch, Target};
use super::transform::{F4x4, Line};
use super::{Call, Geometry, Place, Winograd};
use crate::conv::tile::{Ahead, ROWS, Run, accumulate, parts};
use crate::{Isa, Kernel, LANES, Lanes, Simd};
use std::ops::Range;

/// One block of tiles. Whoever makes it promises that the parts of `scratch` are as long as `first_lens` says for the
/// block and no other thread's; and that the block lies in the images and the call's slices have the plan's lengths.
pub(super) struct Body<'a> {
    pub plan: &'a Winograd,
    pub call: &'a Call<'a>,
    pub block: Block,
    pub scratch: Scratch,
}

/// A stage: one function each, lest the compiler spill.
struct Part<'a, T>(&'a Body<'a>, T);

/// Transforms the inputs.
struct Input;

/// Multiplies for a panel of output channels.
struct Multiply(Range<usize>);

/// Transforms the products of a panel.
struct Output<'a>(Range<usize>, &'a Target<'a>);

// SAFETY of all three: `Winograd::run_first` has made the scratch as long as `first_lens` says, and the targets;
// `Winograd::run` has checked the lengths of the call's slices.
impl Kernel for Part<'_, Input> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part(body, Input) = self;
        for row in 0..body.block.rows {
            for c in 0..body.plan.input.c {
                // SAFETY: see above.
                unsafe {
                    body.window(row, c);
                    body.columns(s);
                    body.spread(s, row, c);
                }
            }
        }
    }
}

impl Kernel for Part<'_, Multiply> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part(body, Multiply(panel)) = self;
        // SAFETY: see above.
        unsafe { body.multiply(s, panel) }
    }
}

impl Kernel for Part<'_, Output<'_>> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part(body, Output(panel, target)) = self;
        // SAFETY: see above.
        unsafe { body.gather(s, panel, target) }
    }
}

/// A register tile's part of a position: transformed inputs, weights, sums.
#[derive(Clone, Copy)]
struct Products {
    x: *const f32,
    w: *const f32,
    m: *mut f32,
    /// Lines of the sum.
    len: usize,
}

impl Body<'_> {
    /// Transforms the inputs.
    pub fn input(&self, isa: Isa) {
        isa.dispatch(Part(self, Input));
    }

    /// Computes a panel of blocks of output channels from the transformed inputs.
    pub fn output(&self, isa: Isa, panel: Range<usize>, target: &Target<'_>) {
        isa.dispatch(Part(self, Multiply(panel.clone())));
        isa.dispatch(Part(self, Output(panel, target)));
    }

    /// Vectors of the image's columns that a row of tiles reads.
    #[inline(always)]
    fn vectors(&self) -> usize {
        self.block.even() + 1
    }

    /// Copies what a row of tiles reads of a channel, with padding around it.
    ///
    /// # Safety
    /// As [`Body`] says of `scratch.rows`.
    #[inline(always)]
    unsafe fn window(&self, row: usize, channel: usize) {
        let (d, plan) = (&self.plan.input, self.plan);
        let pad = self.call.pads.get(channel).copied().unwrap_or(0.0);
        let cols = self.vectors() * LANES;
        let left = (self.block.col * STEP) as isize - plan.pad_left as isize;
        let end = (d.w as isize - left).clamp(0, cols as isize) as usize;
        let start = (-left).clamp(0, end as isize) as usize;
        let top = ((self.block.row + row) * STEP) as isize - plan.pad_top as isize;
        let plane = &self.call.x[(self.block.image * d.c + channel) * d.plane()..][..d.plane()];
        for r in 0..SIDE {
            // SAFETY: the scratch has as many rows.
            let to = unsafe { std::slice::from_raw_parts_mut(self.scratch.rows.add(r * SPAN), cols) };
            let from = top + r as isize;
            if from < 0 || from >= d.h as isize || start == end {
                to.fill(pad);
                continue;
            }
            let from = from as usize * d.w + (left + start as isize) as usize;
            to[..start].fill(pad);
            to[start..end].copy_from_slice(&plane[from..][..end - start]);
            to[end..].fill(pad);
        }
    }

    /// Transforms the columns and brings together what lies 16 columns apart: `half` becomes `[SIDE][column][vector]`.
    ///
    /// # Safety
    /// As [`Body`] says of `scratch.rows` and `scratch.half`.
    #[inline(always)]
    unsafe fn columns<S: Simd>(&self, s: S) {
        let Scratch { rows, half, .. } = self.scratch;
        // SAFETY: the scratch has as many rows of a span.
        unsafe {
            for at in (0..self.vectors() * LANES).step_by(S::Register::WIDTH) {
                let (r, from, to) = (s.register(), rows.add(at).cast_const(), half.add(at));
                line::<S::Register, N>(r, from, 2 * SPAN, to, SPAN);
                line::<S::Register, { N - 1 }>(r, from.add(SPAN), 2 * SPAN, to.add(N * SPAN), SPAN);
            }
            for r in 0..SIDE {
                let at = half.add(r * SPAN);
                s.transpose_between(at, LANES, at, LANES);
            }
        }
    }

    /// Transforms the rows of a row of tiles.
    ///
    /// # Safety
    /// As [`Body`] says of `scratch.half` and `scratch.v`; row and channel must be the block's and the input's.
    #[inline(always)]
    unsafe fn spread<S: Simd>(&self, s: S, row: usize, channel: usize) {
        let (c, line_len) = (self.plan.input.c, self.block.line());
        for (parity, first) in [0, self.block.even()].into_iter().enumerate() {
            if first == self.block.cols {
                continue;
            }
            let v = self.scratch.v.wrapping_add(row * self.block.cols + first + channel * line_len);
            for h in 0..SIDE {
                let from = self.scratch.half.wrapping_add(h * SPAN + parity * (SPAN / 2)).cast_const();
                let (i, odd) = (h % N, h / N);
                let phases = if i + 1 < N { 2 } else { 1 };
                // Lines of the positions before this row's, and of one of its positions at one phase of columns.
                let (before, lines) = (2 * (2 * N - 1) * i * c, phases * c);
                // SAFETY: a transposed row's columns, and for odd tiles those of the next vector's, one element on; the
                // lines of the row's positions, each of which has room for a vector.
                unsafe {
                    let to = v.add((before + 2 * odd * c) * line_len);
                    // In the last position there is one phase of columns.
                    let last = v.add((before + 2 * (N - 1) * lines + odd * c) * line_len);
                    for at in (0..LANES).step_by(S::Register::WIDTH) {
                        let r = s.register();
                        let (to, last) = (to.add(at), last.add(at));
                        let mut d = [r.zero(); N];
                        for k in 0..N {
                            d[k] = r.load(column(from, parity, 2 * k).add(at));
                        }
                        let y: [_; N] = F4x4::line(r, d);
                        for j in 0..N - 1 {
                            r.store(to.add(2 * j * lines * line_len), y[j]);
                        }
                        r.store(last, y[N - 1]);
                        let mut d = [r.zero(); N - 1];
                        for k in 0..N - 1 {
                            d[k] = r.load(column(from, parity, 2 * k + 1).add(at));
                        }
                        let y: [_; N - 1] = F4x4::line(r, d);
                        let to = to.add(c * line_len);
                        for j in 0..N - 1 {
                            r.store(to.add(2 * j * lines * line_len), y[j]);
                        }
                    }
                }
            }
        }
    }

    /// The products of each position, summed over phases and channels.
    ///
    /// # Safety
    /// As [`Body`] says of `scratch.v`, `scratch.m` and the weights; the panel must be of the plan's blocks of outputs,
    /// of no more than [`PANEL`](super::PANEL).
    #[inline(always)]
    unsafe fn multiply<S: Simd>(&self, s: S, panel: Range<usize>) {
        let (stream, c, g) = (self.plan.block_len, self.plan.input.c, self.block.geometry());
        let mut before = 0;
        for position in 0..N * N {
            let phases = |i: usize| if i + 1 < N { 2 } else { 1 };
            let len = phases(position / N) * phases(position % N) * c;
            for (start, vectors) in parts(panel.len(), panel.len().div_ceil(S::TILE_VECTORS)) {
                let w = (panel.start + start) * stream + before * LANES;
                let products = Products {
                    x: self.scratch.v.wrapping_add(before * self.block.line()).cast_const(),
                    w: self.call.packed[w..].as_ptr(),
                    m: self.scratch.m.wrapping_add(start * g.block + position * g.position),
                    len,
                };
                // SAFETY: the caller's promise.
                unsafe {
                    match vectors {
                        4 if const { S::TILE_VECTORS >= 4 } => self.panel::<S, 4>(s, &g, products),
                        3 if const { S::TILE_VECTORS >= 3 } => self.panel::<S, 3>(s, &g, products),
                        2 if const { S::TILE_VECTORS >= 2 } => self.panel::<S, 2>(s, &g, products),
                        _ => self.panel::<S, 1>(s, &g, products),
                    }
                }
            }
            before += len;
        }
    }

    /// One position, `J` vectors of output channels.
    ///
    /// # Safety
    /// In each of `p.len` lines from `p.x` on an element must be readable for each of the block's tiles, and 16 weights
    /// for each line from `p.w` on, in each of `J` blocks; for each tile 16 elements must be writable from `p.m` on, in
    /// each of as many.
    #[inline(always)]
    unsafe fn panel<S: Simd, const J: usize>(&self, s: S, g: &Geometry, p: Products) {
        for (start, len) in parts(g.tiles, g.tiles.div_ceil(ROWS)) {
            let p = Products { x: p.x.wrapping_add(start), m: p.m.wrapping_add(start * LANES), ..p };
            // SAFETY: the caller's promise.
            unsafe {
                match len {
                    1 => self.tile::<S, 1, J>(s, g, p),
                    2 => self.tile::<S, 2, J>(s, g, p),
                    3 => self.tile::<S, 3, J>(s, g, p),
                    4 => self.tile::<S, 4, J>(s, g, p),
                    5 => self.tile::<S, 5, J>(s, g, p),
                    _ => self.tile::<S, ROWS, J>(s, g, p),
                }
            }
        }
    }

    /// One register tile: `I` tiles, `J` vectors.
    ///
    /// # Safety
    /// As [`Body::panel`], of the first `I` tiles.
    #[inline(always)]
    unsafe fn tile<S: Simd, const I: usize, const J: usize>(&self, s: S, g: &Geometry, p: Products) {
        let x = std::array::from_fn(|i| p.x.wrapping_add(i));
        let runs = Some(Run { x: 0, w: 0, len: p.len });
        // SAFETY: the caller's promise.
        unsafe {
            let acc = accumulate::<S, I, J>(s, &x, self.block.line(), runs, p.w, self.plan.block_len, Ahead::NONE);
            for i in 0..I {
                for j in 0..J {
                    s.store(p.m.add(j * g.block + i * LANES), acc[i][j]);
                }
            }
        }
    }

    /// `Aᵀ m A` of a panel, and the epilogue.
    ///
    /// # Safety
    /// As [`Body::multiply`] for `m` and the panel; the target's tensors must have the outputs of the block's tiles
    /// from `origin` on, whole lines if they are streamed, and no other thread may touch them.
    #[inline(always)]
    unsafe fn gather<S: Simd>(&self, s: S, panel: Range<usize>, target: &Target<'_>) {
        let (g, b, origin) = (&self.block.geometry(), &self.block, &target.origin);
        let mut room = Rooms::new();
        for (j, block) in panel.enumerate() {
            let epilogue = Epilogue::new(s, &target.call, &target.output, block);
            // As they lie in the image: neighbours' outputs go to memory together.
            for at in 0..g.tiles {
                let (row, col) = (at / b.cols, at % b.cols);
                let tile = row * b.cols + col / 2 + col % 2 * b.even();
                let from = self.scratch.m.wrapping_add(j * g.block + tile * LANES).cast_const();
                let place = Place { image: origin.image, row: origin.row + row, col: origin.col + col };
                // SAFETY: the caller's promise; the place is one of the target.
                unsafe { epilogue.tile::<S, F4x4, N, M>(s, from, g.position, place, &mut room) };
            }
        }
    }
}

/// Transforms `A` times so many lanes, `step` apart.
///
/// # Safety
/// [`Lanes::WIDTH`] elements must be readable at each of them, and writable at each of `A` from `to` on, `to_step`
/// apart.
#[inline(always)]
unsafe fn line<S: Lanes, const A: usize>(s: S, from: *const f32, step: usize, to: *mut f32, to_step: usize)
where
    F4x4: Line<A, A>,
{
    let mut d = [s.zero(); A];
    // SAFETY: the caller's promise.
    unsafe {
        for i in 0..A {
            d[i] = s.load(from.add(i * step));
        }
        let y = F4x4::line(s, d);
        for i in 0..A {
            s.store(to.add(i * to_step), y[i]);
        }
    }
}

/// Where column `c` of every other tile lies in a transposed row, from the first column of the first of them on.
#[inline(always)]
fn column(from: *const f32, parity: usize, c: usize) -> *const f32 {
    // Beyond the sixteenth column of two tiles lies the first of the next two.
    let at = parity * STEP + c;
    if at < LANES { from.wrapping_add(c * LANES) } else { from.wrapping_add(c * LANES).wrapping_sub(SPAN - 1) }
}
