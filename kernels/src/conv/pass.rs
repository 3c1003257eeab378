//! A pass: the one loop nest behind the forward and the backward-data convolution.
//!
//! A pass computes, for a regular set of output pixels, the same sum over taps and input channels. The forward
//! convolution is one pass; backward-data is one for each residue class of the pixels modulo the strides.

use super::axis::Axis;
use super::gather::Window;
use super::planes::Planes;
use super::tile::{ROWS, Run};
use super::{Blocking, Layout, Options, planar};
use crate::reference::conv::CHUNK;
use crate::stream;
use crate::{Dims, LANES, blocks};
use std::ops::Range;

/// Pixels that a band should have at least: so often are packed weights used that have come into the first cache.
const BAND_PIXELS: usize = 192;
/// Output rows that a band should have at least: the rows around a band are read twice.
const BAND_ROWS: usize = 4;

/// Elements of both tensors up to which they stay in the third cache: 8 MiB.
const NEAR: usize = 1 << 21;
/// Steps of a reduction up to which outputs that go to memory cost more than the products: they are written block by
/// block. Four at a time took 1.87 ms where one takes 1.28 (12 to 56 channels of 320×180, Zen 4); at 64 steps a
/// twentieth is left, at 256 nothing.
const SHORT: usize = 24;
/// Elements that the copy of a planar band should have at most: 1 MiB, as the second cache has.
const PLANAR_BAND: usize = 1 << 18;
/// Output rows that a planar band should have for each row of outputs whose inputs it shares with the next, which are
/// copied twice.
const PLANAR_ROWS: usize = 8;

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
    /// Its steps, and its runs where it has some.
    pub steps: Range<usize>,
    pub runs: Range<usize>,
}

/// What a pass computes and how it walks.
#[derive(Debug, Clone)]
pub(super) struct Pass {
    /// Channels of a group whose outputs are computed lane by lane, from the inputs of the same block: one (depthwise),
    /// two, four or eight. Sixteen channels then count as one group.
    pub by_lanes: Option<usize>,
    pub groups: usize,
    /// Input and output channels of a group.
    pub gic: usize,
    pub goc: usize,
    pub input: Dims,
    pub output: Dims,
    /// How the input and the output lie.
    pub layout: Layout,
    pub out_layout: Layout,
    pub rows: Axis,
    pub cols: Axis,
    /// Whether the input is copied band by band: for padding, channels that are not whole blocks, planes, strides.
    pub copy: bool,
    /// Whether vectors are of pixels, not of channels: the input is read from planes.
    pub planar: bool,
    /// Whether a group has one block of outputs, and tall tiles of pixels serve it.
    pub narrow: bool,
    /// Whether a group's outputs are computed apart and then copied to where they belong: to planes, or lane by lane to
    /// blocks that several groups share.
    pub scatter: bool,
    /// Images and output rows in a band, oc vectors that share a pass over it (at most what the tile takes).
    pub band_images: usize,
    pub band_rows: usize,
    pub most_vectors: usize,
    /// Elements of the output from which on it is streamed.
    pub streamed_from: usize,
    /// How the planes of a planar pass lie: those of the copy, or of the tensor.
    pub planes: Planes,
    /// Where each step of a planar pass reads, from a pixel's first tap on.
    pub offsets: Vec<usize>,
    /// For the others, stretches of steps that read neighbours: with a list of steps the compiler spilled the sums.
    pub runs: Vec<Run>,
    pub chunks: Vec<Chunk>,
    /// Steps of the reduction.
    pub k: usize,
}

/// Channels of a group, where groups are as many lanes of a block and computed lane by lane.
pub(super) fn lanes_of_group(groups: usize, gic: usize, goc: usize) -> Option<usize> {
    (groups > 1 && gic == goc && matches!(gic, 1 | 2 | 4 | 8)).then_some(gic)
}

impl Pass {
    /// Plans a pass from `input.c` to `output.c` channels in `groups` groups.
    pub fn new(input: Dims, output: Dims, groups: usize, rows: Axis, cols: Axis, options: &Options) -> Pass {
        let (mut gic, mut goc, mut groups) = (input.c / groups, output.c / groups, groups);
        let by_lanes = lanes_of_group(groups, gic, goc);
        if by_lanes.is_some() {
            (gic, goc, groups) = (LANES, LANES, blocks(input.c));
        }
        let whole = |c: usize| groups == 1 || c.is_multiple_of(LANES);
        let taps = rows.taps.len() * cols.taps.len();
        // Stores to planes take neighbours; gradients alone have a step, and they are blocked.
        debug_assert!(cols.step == 1 || options.output == Layout::Blocked);
        let plane = by_lanes.map(|_| [input.c, input.plane().max(output.plane()) * LANES]);
        let planar =
            taps > 0 && by_lanes.is_none_or(|g| g == 1) && planar::serves(options, plane, groups, goc, taps * gic);
        let padded = rows.padded() || cols.padded();
        let copy = match planar {
            true => options.input == Layout::Blocked || padded || taps > 1 || rows.in_step * cols.in_step > 1,
            false => options.input == Layout::Nchw || padded || !whole(gic) || (gic < LANES && taps > 1),
        };
        let Blocking { rows: band_rows, vectors } =
            options.blocking.unwrap_or(Blocking { rows: 0, vectors: usize::MAX });
        let mut pass = Pass {
            by_lanes,
            groups,
            gic,
            goc,
            input,
            output,
            layout: options.input,
            out_layout: options.output,
            copy: copy && taps > 0 && (planar || by_lanes.is_none()),
            planar,
            narrow: goc <= LANES
                && by_lanes.is_none()
                && !planar
                && taps > 0
                && cols.in_step == 1
                && (gic > LANES / 2 || !copy),
            scatter: !planar && (!whole(goc) || options.output == Layout::Nchw),
            band_images: 1,
            band_rows: band_rows.min(rows.count),
            most_vectors: vectors.max(1),
            streamed_from: stream::least(options),
            planes: Planes::default(),
            offsets: Vec::new(),
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
        pass.planes = pass.lay_planes();
        pass.walk();
        if options.blocking.is_none() && !pass.planar && pass.is_far() && pass.k <= SHORT {
            pass.most_vectors = 1;
        }
        pass
    }

    /// Chooses the band: a pure function of the shape.
    fn block(&mut self) {
        let (rows, cols) = (self.rows.count, self.cols.count);
        if self.planar && self.copy {
            self.band_rows = 1;
            let (first, step) = (self.rows.extent(1), self.rows.in_step);
            let most = PLANAR_BAND / (self.lay_planes().row * self.gic).max(1);
            let fits = most.saturating_sub(first) / step + 1;
            let shared = first.saturating_sub(step).div_ceil(step);
            let wanted = (PLANAR_ROWS * shared).max(BAND_PIXELS.div_ceil(cols)).min(fits).max(BAND_ROWS).min(rows);
            let even = rows.div_ceil(rows.div_ceil(wanted));
            // Depthwise takes some rows together.
            let rest = if self.by_lanes.is_some() && even > planar::STRIP { even % planar::STRIP } else { 0 };
            self.band_rows = even - rest;
            return;
        }
        let wanted = BAND_PIXELS.div_ceil(cols).max(BAND_ROWS).min(rows);
        self.band_rows = rows.div_ceil(rows.div_ceil(wanted));
        if self.band_rows == rows {
            self.band_images = BAND_PIXELS.div_ceil(rows * cols).clamp(1, self.input.n);
        }
    }

    /// How the planes lie.
    fn lay_planes(&self) -> Planes {
        let step = self.cols.in_step;
        if !self.copy {
            let Dims { w, .. } = self.input;
            return Planes { phases: 1, phase: w, row: w, channel: self.input.plane(), read_phases: 1, read_step: 1 };
        }
        // A tile may read past the last pixel, to the end of its last vector.
        let phase =
            (self.cols.count.next_multiple_of(LANES) + (self.cols.extent(1) - 1) / step).next_multiple_of(LANES);
        let read_phases = if self.cols.taps.len() == 1 { 1 } else { step };
        let row = read_phases * phase;
        // An odd number of vectors, so that channels do not share a cache set.
        Planes {
            phases: step,
            phase,
            read_phases,
            read_step: if self.rows.taps.len() == 1 { self.rows.in_step } else { 1 },
            row,
            channel: ((self.rows.extent(self.band_rows) * row).div_ceil(LANES) | 1) * LANES,
        }
    }

    /// Lists where the steps read, in the order of the sums, and cuts them into chains.
    pub fn walk(&mut self) {
        let taps = self.rows.taps.len() * self.cols.taps.len();
        if let (Some(group), false) = (self.by_lanes, self.planar) {
            // It walks over the taps itself.
            self.k = taps * group;
            return;
        }
        let (planes, strides, lanes) = (self.planes, self.in_strides(), self.in_lanes());
        let (low_row, low_col) = if self.copy { (self.rows.low(), self.cols.low()) } else { (0, 0) };
        let mut segments = 0;
        (self.k, self.offsets, self.runs, self.chunks) = (0, Vec::new(), Vec::new(), Vec::new());
        self.chunks.push(Chunk { steps: 0..0, runs: 0..0 });
        let inputs = self.by_lanes.unwrap_or(self.gic);
        for block in 0..blocks(inputs) {
            let len = LANES.min(inputs - block * LANES);
            for row in &self.rows.taps {
                for col in &self.cols.taps {
                    if segments == CHUNK {
                        self.chunks.push(Chunk { steps: self.k..self.k, runs: self.runs.len()..self.runs.len() });
                        segments = 0;
                    }
                    let (r, c) = ((row.offset - low_row) as usize, (col.offset - low_col) as usize);
                    if self.planar {
                        let at = r * planes.row + c % planes.phases * planes.phase + c / planes.phases;
                        let channel = |lane: usize| (block * LANES + lane) * planes.channel;
                        self.offsets.extend((0..len).map(|lane| channel(lane) + at));
                    } else {
                        let x = block * strides.block + r * strides.row + c * lanes;
                        push(&mut self.runs, self.chunks.last(), x, self.k, len);
                    }
                    self.k += len;
                    segments += 1;
                    if let Some(chunk) = self.chunks.last_mut() {
                        (chunk.steps.end, chunk.runs.end) = (self.k, self.runs.len());
                    }
                }
            }
        }
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

    /// Whether to write outputs past the caches: whole lines, each of which is written once, without sums of a chunk
    /// before. So many planes at once one thread writes a fifteenth faster as usual, but two sometimes take twice as
    /// long (Zen 4).
    pub fn streams_output(&self, y: &[f32], pre: Option<&[f32]>) -> bool {
        let is_once = !self.scatter && self.chunks.len() <= 1;
        let is_whole = match self.out_layout {
            Layout::Blocked => true,
            Layout::Nchw => self.output.plane().is_multiple_of(LANES) && rayon::current_num_threads() > 1,
        };
        is_once && is_whole && stream::streams(y, pre, self.streamed_from)
    }

    /// Whether inputs and outputs come from memory, each once: it pays to ask for them ahead of time.
    pub fn is_far(&self) -> bool {
        let taps = self.rows.taps.len() * self.cols.taps.len();
        taps == 1 && !self.copy && self.input.blocked_len().saturating_add(self.output.blocked_len()) > NEAR
    }

    /// Distances between inputs: of the copy, or of the tensor.
    pub fn in_strides(&self) -> Strides {
        if self.planar {
            let Planes { row, channel, .. } = self.planes;
            let image = if self.copy { self.gic * channel } else { self.input.c * channel };
            return Strides { image, block: LANES * channel, row, col: 1 };
        }
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
        if self.planar && self.out_layout == Layout::Nchw {
            let plane = self.output.plane();
            return Strides { image: self.output.c * plane, block: LANES * plane, row: self.output.w, col: 1 };
        }
        if !self.scatter {
            return Strides::of(&self.output);
        }
        let row = self.cols.count * LANES;
        let block = self.band_rows * row;
        Strides { image: blocks(self.goc) * block, block, row, col: LANES }
    }

    /// Blocks of output channels of a group.
    pub fn out_blocks(&self) -> usize {
        blocks(self.goc)
    }

    /// Elements of the packed weights: `[group][oc / 16][k][16]`.
    pub fn packed_len(&self) -> usize {
        self.groups * self.out_blocks() * self.k * LANES
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
        let vectors = isa.tile_vectors();
        let tile = vectors.min(self.out_blocks()).min(self.most_vectors) * LANES;
        let rows = if self.narrow { isa.narrow_rows() } else { ROWS };
        match (self.planar, self.by_lanes) {
            (true, _) => format!("planar-{isa}"),
            (_, Some(1)) => format!("depthwise-{isa}"),
            (_, Some(_)) => format!("grouped-{isa}"),
            _ => format!("direct-{isa}-{rows}x{tile}"),
        }
    }
}

/// Adds a segment that reads from `x` on and is step `k` to the chunk's runs, to the last one if it goes on from there.
fn push(runs: &mut Vec<Run>, chunk: Option<&Chunk>, x: usize, k: usize, len: usize) {
    let (start, first) = chunk.map_or((0, 0), |c| (c.runs.start, c.steps.start));
    match runs[start..].last_mut() {
        Some(last) if last.x + last.len == x => last.len += len,
        _ => runs.push(Run { x, w: (k - first) * LANES, len }),
    }
}
