//! First layers: kernels of 7×7 with stride 2 over the few channels of an NCHW image.
//!
//! So few channels leave a block's lanes empty: here the lanes are tiles. Columns are transformed where they lie, 16
//! neighbouring columns of the image at a time; a transposition brings the same column of every other tile together,
//! and the rows are transformed for as many tiles. Since the inputs of two neighbouring tiles start 16 columns apart,
//! even tiles are a vector and odd tiles another. All phases of all channels are one segment: a position's products are
//! one short matrix product.
//!
//! For NCHW a block's outputs lie in scratch first, blocked, and go to their planes from there.

use super::first_body::Body;
use super::{Call, Geometry, PANEL, Place, Winograd};
use crate::conv::Layout;
use crate::conv::gather::Window;
use crate::conv::planes::{FromPixels, ToPixels};
use crate::conv::tile::parts;
use crate::threads::{Shared, for_each_task};
use crate::{Dims, Isa, LANES};

/// Positions along an axis.
pub(super) const N: usize = 7;
/// Rows and columns of a tile of outputs.
pub(super) const M: usize = 4;
/// Columns of the image from one tile to the next.
pub(super) const STEP: usize = 2 * M;
/// Rows and columns of the image that a tile reads, and rows of positions of both phases of rows.
pub(super) const SIDE: usize = 13;
/// Columns of the image in a row of a block: what a transposition takes.
pub(super) const SPAN: usize = LANES * LANES;
/// Tiles in a row of a block at most: the last tile's columns must lie in the span.
const WIDEST: usize = 2 * (LANES - 1);
/// Tiles in a block, if so many are in a row.
pub(super) const TILES: usize = WIDEST;

/// A block of tiles: of some neighbouring rows the same few. In a row even tiles come before odd ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub image: usize,
    pub row: usize,
    pub rows: usize,
    pub col: usize,
    pub cols: usize,
}

impl Block {
    fn tiles(&self) -> usize {
        self.rows * self.cols
    }

    /// Even tiles in a row.
    #[inline(always)]
    pub fn even(&self) -> usize {
        self.cols.div_ceil(2)
    }

    /// Elements of a line of transformed inputs: a vector is stored from the last row's odd tiles on.
    #[inline(always)]
    pub fn line(&self) -> usize {
        (self.tiles() - self.cols + self.even() + LANES).next_multiple_of(LANES)
    }

    pub fn geometry(&self) -> Geometry {
        Geometry::with(N * N, 0..self.tiles())
    }
}

/// A thread's scratch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scratch {
    /// The rows of the image that a row of tiles reads, of one channel, with padding: `[SIDE][SPAN]`.
    pub rows: *mut f32,
    /// The same after the columns' transforms, those of even rows before those of odd ones; and a vector.
    pub half: *mut f32,
    /// Transformed inputs, `[position][phase][channel][tile]`.
    pub v: *mut f32,
    /// Products, `[oc block of a panel][position][tile][16]`.
    pub m: *mut f32,
}

/// Where a block's outputs go: blocked tensors of some dimensions, and where its first tile lies in them.
pub(super) struct Target<'a> {
    pub call: Call<'a>,
    pub output: Dims,
    pub origin: Place,
}

impl Winograd {
    /// Rows of tiles in a block, blocks along a column of the grid, tiles in a row of a block, blocks along a row.
    fn first_blocks(&self) -> [usize; 4] {
        let (rows, cols) = self.grid();
        let wanted = self.tiles.max(1);
        let width = cols.div_ceil(cols.div_ceil(wanted.min(WIDEST)));
        let height = (wanted / width).clamp(1, rows);
        [height, rows.div_ceil(height), width, cols.div_ceil(width)]
    }

    /// Elements of a thread's scratch.
    pub(super) fn first_len(&self) -> usize {
        let [rows, _, cols, _] = self.first_blocks();
        self.first_lens(&Block { image: 0, row: 0, rows, col: 0, cols }).iter().sum()
    }

    /// Elements of the parts of [`Scratch`], of the outputs where they lie apart, and of what goes or comes with them.
    fn first_lens(&self, block: &Block) -> [usize; 6] {
        let v = self.depth().lines() * block.line();
        let m = PANEL.min(self.out_blocks()) * block.geometry().block;
        let apart = match self.layouts.1 {
            Layout::Blocked => 0,
            Layout::Nchw => self.part(block).blocked_len(),
        };
        [SIDE * SPAN, SIDE * SPAN + LANES, v, m, apart, apart]
    }

    /// The outputs of a block's tiles that the image has.
    fn part(&self, block: &Block) -> Dims {
        let Dims { h, w, .. } = self.output;
        Dims {
            n: 1,
            h: (block.rows * M).min(h - block.row * M),
            w: (block.cols * M).min(w - block.col * M),
            ..self.output
        }
    }

    /// Runs block by block; `call` has been checked.
    pub(super) fn run_first(&self, isa: Isa, call: &Call<'_>, workspace: &mut [f32]) {
        let [height, down, width, along] = self.first_blocks();
        let (rows, cols) = self.grid();
        // Products of few blocks stay near; but the tiles of 32 wide registers are wider.
        let panel = if isa.tile_vectors() >= PANEL { PANEL } else { 2 };
        for_each_task(self.images * down * along, workspace, self.first_len(), |task, scratch| {
            let (row, col) = (task / along % down * height, task % along * width);
            let (image, rows, cols) = (task / along / down, height.min(rows - row), width.min(cols - col));
            let block = Block { image, row, rows, col, cols };
            let mut rest = scratch;
            let [rows, half, v, m, y, extra] = self.first_lens(&block).map(|len| {
                let (part, behind) = std::mem::take(&mut rest).split_at_mut(len);
                rest = behind;
                part
            });
            let [rows, half, v, m] = [rows, half, v, m].map(|part| part.as_mut_ptr());
            let body = Body { plan: self, call, block, scratch: Scratch { rows, half, v, m } };
            body.input(isa);
            let output = |target: &Target<'_>| {
                for (start, len) in parts(self.out_blocks(), self.out_blocks().div_ceil(panel)) {
                    body.output(isa, start..start + len, target);
                }
            };
            if self.layouts.1 == Layout::Blocked {
                let origin = Place { image: block.image, row: block.row, col: block.col };
                return output(&Target { call: *call, output: self.output, origin });
            }
            if let Some(shortcut) = call.shortcut {
                self.load_planes(isa, &block, shortcut, extra);
            }
            let apart = call.apart(y, extra);
            output(&Target { call: apart, output: self.part(&block), origin: Place { image: 0, row: 0, col: 0 } });
            self.store_planes(isa, &block, y, call.y);
            if let Some(pre) = call.pre {
                self.store_planes(isa, &block, extra, pre);
            }
        });
    }

    /// Copies a block's part of an NCHW tensor of the output's dimensions to blocks of channels.
    fn load_planes(&self, isa: Isa, block: &Block, x: &[f32], to: &mut [f32]) {
        let (dims, part) = (Dims { n: self.images, ..self.output }, self.part(block));
        for (i, to) in to.chunks_exact_mut(part.plane() * LANES).enumerate() {
            let (channel, channels) = (i * LANES, LANES.min(part.c - i * LANES));
            let (row, col) = ((block.row * M) as isize, (block.col * M) as isize);
            let (rows, cols) = (part.h, part.w);
            let window = Window { dims, layout: Layout::Nchw, channel, channels, row, rows, col, cols, lanes: LANES };
            isa.dispatch(ToPixels { window, x, n: block.image, pads: &[], to });
        }
    }

    /// Copies a block's outputs to the planes of an NCHW tensor.
    fn store_planes(&self, isa: Isa, block: &Block, from: &[f32], y: Shared) {
        let (d, part) = (&self.output, self.part(block));
        for (i, pixels) in from.chunks_exact(part.plane() * LANES).enumerate() {
            let (plane, valid) = (d.plane(), LANES.min(d.c - i * LANES));
            for (row, pixels) in (block.row * M..).zip(pixels.chunks_exact(part.w * LANES)) {
                let at = (block.image * d.c + i * LANES) * plane + row * d.w + block.col * M;
                let y = y.ptr().wrapping_add(at);
                isa.dispatch(FromPixels { pixels, y, shortcut: std::ptr::null(), plane, valid });
            }
        }
    }
}
