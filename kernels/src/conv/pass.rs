//! A pass: the one loop nest behind the forward and the backward-data convolution.
//!
//! A pass computes, for a regular set of output pixels, the same sum over taps and input channels. The forward
//! convolution is one pass; backward-data is one for each residue class of the pixels modulo the strides.

use super::axis::Axis;
use super::gather::Window;
use super::tile::{ROWS, Run};
use super::{Blocking, Layout, Options};
use crate::reference::conv::CHUNK;
use crate::{Dims, LANES, blocks};
use std::ops::Range;

/// Pixels that a band should have at least: so often are packed weights used that have come into the first cache.
const BAND_PIXELS: usize = 192;
/// Output rows that a band should have at least: the rows around a band are read twice.
const BAND_ROWS: usize = 4;

/// Distances between neighbours of a blocked tensor or of a copy of a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Strides {
    pub image: usize,
    pub block: usize,
    pub row: usize,
    pub col: usize,
}

impl Strides {
    pub fn of(dims: &Dims) -> Strides {
        let (row, block) = (dims.w * LANES, dims.plane() * LANES);
        Strides { image: blocks(dims.c) * block, block, row, col: LANES }
    }
}

/// A part of the reduction that is one chain of FMAs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Its runs.
    pub runs: Range<usize>,
    /// Its first step, counted in all chunks.
    pub k: usize,
}

/// What a pass computes and how it walks.
#[derive(Debug, Clone)]
pub(super) struct Pass {
    pub depthwise: bool,
    pub groups: usize,
    /// Input and output channels of a group.
    pub gic: usize,
    pub goc: usize,
    pub input: Dims,
    pub output: Dims,
    /// How the input lies.
    pub layout: Layout,
    pub rows: Axis,
    pub cols: Axis,
    /// Whether the input is copied band by band: for padding, for channels that are not whole blocks.
    pub copy: bool,
    /// Whether a group has one block of outputs, and tall tiles of pixels serve it.
    pub narrow: bool,
    /// Whether a group's outputs are computed apart and then copied to where they belong, lane by lane.
    pub scatter: bool,
    /// Images and output rows in a band, oc vectors that share a pass over it (at most what the tile takes).
    pub band_images: usize,
    pub band_rows: usize,
    pub most_vectors: usize,
    pub runs: Vec<Run>,
    pub chunks: Vec<Chunk>,
    /// Steps of the reduction.
    pub k: usize,
}

impl Pass {
    /// Plans a pass from `channels.0` input to `channels.1` output channels in `groups` groups.
    pub fn new(input: Dims, output: Dims, groups: usize, rows: Axis, cols: Axis, options: &Options) -> Pass {
        let (mut gic, mut goc, mut groups) = (input.c / groups, output.c / groups, groups);
        let depthwise = groups > 1 && gic == 1 && goc == 1;
        if depthwise {
            (gic, goc, groups) = (LANES, LANES, blocks(groups));
        }
        let whole = |c: usize| groups == 1 || c.is_multiple_of(LANES);
        let taps = rows.taps.len() * cols.taps.len();
        let copy =
            options.input == Layout::Nchw || rows.padded() || cols.padded() || !whole(gic) || (gic < LANES && taps > 1);
        let Blocking { rows: band_rows, vectors } =
            options.blocking.unwrap_or(Blocking { rows: 0, vectors: usize::MAX });
        let mut pass = Pass {
            depthwise,
            groups,
            gic,
            goc,
            input,
            output,
            layout: options.input,
            copy: copy && taps > 0 && !depthwise,
            narrow: goc <= LANES && !depthwise && taps > 0 && cols.in_step == 1 && (gic > LANES / 2 || !copy),
            scatter: !whole(goc),
            band_images: 1,
            band_rows: band_rows.min(rows.count),
            most_vectors: vectors.max(1),
            runs: Vec::new(),
            chunks: Vec::new(),
            k: 0,
            rows,
            cols,
        };
        if options.blocking.is_none() {
            pass.block();
        }
        pass.band_rows = pass.band_rows.max(1);
        pass.walk();
        pass
    }

    /// Chooses the band: a pure function of the shape.
    fn block(&mut self) {
        let (rows, cols) = (self.rows.count, self.cols.count);
        let wanted = BAND_PIXELS.div_ceil(cols).max(BAND_ROWS).min(rows);
        self.band_rows = rows.div_ceil(rows.div_ceil(wanted));
        if self.band_rows == rows {
            self.band_images = BAND_PIXELS.div_ceil(rows * cols).clamp(1, self.input.n);
        }
    }

    /// Lists the runs: segments in the order of the sums, neighbours in memory merged, cut where chunks end.
    fn walk(&mut self) {
        if self.depthwise {
            // It walks over the taps themselves.
            self.k = self.rows.taps.len() * self.cols.taps.len();
            return;
        }
        let (strides, lanes) = (self.in_strides(), self.in_lanes());
        let (low_row, low_col) = if self.copy { (self.rows.low(), self.cols.low()) } else { (0, 0) };
        let mut start = Chunk { runs: 0..0, k: 0 };
        let mut segments = 0;
        for block in 0..blocks(self.gic) {
            let len = LANES.min(self.gic - block * LANES);
            for row in &self.rows.taps {
                for col in &self.cols.taps {
                    if segments == CHUNK {
                        start.runs.end = self.runs.len();
                        self.chunks.push(start);
                        start = Chunk { runs: self.runs.len()..self.runs.len(), k: self.k };
                        segments = 0;
                    }
                    let (r, c) = ((row.offset - low_row) as usize, (col.offset - low_col) as usize);
                    let run = Run {
                        x: block * strides.block + r * strides.row + c * lanes,
                        w: (self.k - start.k) * LANES,
                        len,
                    };
                    match self.runs[start.runs.start..].last_mut() {
                        Some(last) if last.x + last.len == run.x => last.len += len,
                        _ => self.runs.push(run),
                    }
                    self.k += len;
                    segments += 1;
                }
            }
        }
        start.runs.end = self.runs.len();
        self.chunks.push(start);
    }

    /// The window of the input that a band reads, all of the group's channels.
    pub fn window(&self, group: usize, row: usize) -> Window {
        Window {
            dims: self.input,
            layout: self.layout,
            channel: group * self.gic,
            channels: self.gic.min(self.input.c - group * self.gic),
            row: (row * self.rows.in_step) as isize + self.rows.low(),
            rows: self.rows.extent(self.band_rows),
            col: self.cols.low(),
            cols: self.cols.extent(self.cols.count),
            lanes: self.in_lanes(),
        }
    }

    /// Elements between neighbouring input pixels.
    fn in_lanes(&self) -> usize {
        if self.copy && !self.narrow { self.gic.min(LANES) } else { LANES }
    }

    /// Distances between inputs: of the copy, or of the tensor.
    pub fn in_strides(&self) -> Strides {
        if !self.copy {
            return Strides::of(&self.input);
        }
        let window = self.window(0, 0);
        let row = window.cols * window.lanes;
        let block = window.rows * row;
        Strides { image: blocks(self.gic) * block, block, row, col: window.lanes }
    }

    /// Distances between outputs: of the tensor, or of the part computed apart.
    pub fn out_strides(&self) -> Strides {
        if !self.scatter {
            return Strides::of(&self.output);
        }
        let row = self.cols.count * LANES;
        let block = self.band_rows * row;
        Strides { image: blocks(self.goc) * block, block, row, col: LANES }
    }

    /// Elements of a task's copy of the input.
    pub fn copy_len(&self) -> usize {
        if self.copy { self.band_images * self.in_strides().image } else { 0 }
    }

    /// Elements of a task's outputs computed apart.
    pub fn apart_len(&self) -> usize {
        if self.scatter { self.band_images * self.out_strides().image } else { 0 }
    }

    /// Blocks of output channels of a group.
    pub fn out_blocks(&self) -> usize {
        blocks(self.goc)
    }

    /// Elements of the packed weights: `[group][oc / 16][k][16]`.
    pub fn packed_len(&self) -> usize {
        self.groups * self.out_blocks() * self.k * LANES
    }

    /// Lays out weights: `weight(group, out, in, tap row, tap column)` with channels counted within the group.
    pub fn pack(&self, packed: &mut [f32], weight: impl Fn(usize, usize, usize, usize, usize) -> f32 + Sync) {
        use rayon::prelude::*;
        if self.k == 0 {
            return;
        }
        packed.par_chunks_exact_mut(self.k * LANES).enumerate().for_each(|(unit, packed)| {
            let (group, block) = (unit / self.out_blocks(), unit % self.out_blocks());
            let (mut lines, valid) = (packed.chunks_exact_mut(LANES), LANES.min(self.goc - block * LANES));
            for first in (0..if self.depthwise { 1 } else { self.gic }).step_by(LANES) {
                for row in &self.rows.taps {
                    for col in &self.cols.taps {
                        for i in first..if self.depthwise { 1 } else { self.gic.min(first + LANES) } {
                            let line = lines.next().unwrap_or_default();
                            for (o, w) in line.iter_mut().enumerate() {
                                *w = match self.depthwise {
                                    true if group * LANES + o < self.output.c => {
                                        weight(group * LANES + o, 0, 0, row.weight, col.weight)
                                    }
                                    false if o < valid => weight(group, block * LANES + o, i, row.weight, col.weight),
                                    _ => 0.0,
                                };
                            }
                        }
                    }
                }
            }
        });
    }

    /// Bands of images, bands of rows.
    pub fn bands(&self) -> (usize, usize) {
        (self.input.n.div_ceil(self.band_images), self.rows.count.div_ceil(self.band_rows))
    }

    /// In how many parts to cut the output channels of a band, so that all threads have work.
    pub fn oc_parts(&self, threads: usize) -> usize {
        let (images, rows) = self.bands();
        let tasks = images * rows * self.groups;
        let wanted = if threads == 1 { 1 } else { (4 * threads).div_ceil(tasks) };
        wanted.clamp(1, self.out_blocks().div_ceil(self.most_vectors.min(4)))
    }

    /// The name of the kernel.
    pub fn kernel(&self, isa: crate::Isa) -> String {
        let vectors = if isa == crate::Isa::Avx512 { 4 } else { 1 };
        let tile = vectors.min(self.out_blocks()).min(self.most_vectors) * LANES;
        let rows = if self.narrow && isa == crate::Isa::Avx512 { 14 } else { ROWS };
        if self.depthwise { format!("depthwise-{isa}") } else { format!("direct-{isa}-{rows}x{tile}") }
    }
}
