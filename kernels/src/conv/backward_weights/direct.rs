//! The direct gradient with respect to the weights: channels of the input by channels of the output, summed over
//! pixels.
//!
//! A *unit* is one block of input channels, or a few where taps are few, by up to [`PANEL`] blocks of output channels
//! of a group, all taps: what one task, or a few where units are few, sums in a buffer that stays near. Rows of its
//! tiles are pairs of input channel and tap, in the order of OIHW.

mod parts;

use super::chunk::Chunk;
use super::tree::Tree;
use super::unpack::Unpack;
use crate::conv::axis::Axis;
use crate::conv::gather::Window;
use crate::conv::pass::{Strides, lanes_of_group};
use crate::conv::tile::{ROWS, Run};
use crate::conv::{Layout, Options};
use crate::reference::conv::{GROUP, weight_chunk};
use crate::threads::{Shared, for_each_task, most_threads};
use crate::{ConvShape, Isa, LANES, blocks};
use parts::{Part, Parts};
use std::ops::Range;

/// Blocks of output channels in a unit.
const PANEL: usize = 4;

/// Rows up to which a unit has several blocks of input channels. They share the output gradients: pointwise layers in
/// units of one block, 16 rows, took up to a quarter longer (Zen 5).
const TALL: usize = 256;

/// What the direct algorithm computes and how it walks.
#[derive(Debug, Clone)]
pub(super) struct Direct {
    isa: Isa,
    shape: ConvShape,
    /// Channels of a group that is computed lane by lane, 16 channels as one: of depthwise and of small groups.
    by_lanes: Option<usize>,
    groups: usize,
    gic: usize,
    goc: usize,
    rows: Axis,
    cols: Axis,
    /// How the input lies.
    input: Layout,
    /// Whether a chunk's inputs, and its output gradients, are copied (padding; channels that are not whole blocks).
    copy_x: bool,
    copy_dy: bool,
    /// Images and output rows in a chunk.
    chunk: (usize, usize),
    /// One run for each output row of a chunk.
    runs: Vec<Run>,
    /// Where each of a unit's rows begins in the input.
    offsets: Vec<usize>,
    /// Blocks of input channels in a unit, at most; of output channels.
    inputs: usize,
    panel: usize,
}

impl Direct {
    /// Plans a shape that has been checked.
    pub fn new(isa: Isa, shape: &ConvShape, options: &Options) -> Direct {
        let s = shape;
        let by_lanes = lanes_of_group(s.groups, s.group_ic(), s.group_oc());
        let (groups, gic, goc) = match by_lanes {
            Some(_) => (blocks(s.ic), LANES, LANES),
            None => (s.groups, s.group_ic(), s.group_oc()),
        };
        let whole = |c: usize| groups == 1 || c.is_multiple_of(LANES);
        let rows = Axis::forward(s.ih, s.oh(), s.kh, s.stride_h, s.dilation_h, s.pad_top);
        let cols = Axis::forward(s.iw, s.ow(), s.kw, s.stride_w, s.dilation_w, s.pad_left);
        let panel = options.blocking.map_or(PANEL, |b| b.vectors.clamp(1, PANEL));
        let copy_x = options.input == Layout::Nchw
            || rows.padded()
            || cols.padded()
            || !whole(gic)
            || (gic < LANES && s.kh * s.kw > 1);
        // A copy is of one block.
        let most = if copy_x || by_lanes.is_some() { 1 } else { TALL / (s.kh * s.kw * LANES) };
        let units = blocks(gic).div_ceil(most.max(1));
        let mut plan = Direct {
            isa,
            shape: *s,
            by_lanes,
            groups,
            gic,
            goc,
            input: options.input,
            copy_x,
            copy_dy: !whole(goc),
            chunk: weight_chunk(s.oh(), s.ow()),
            runs: Vec::new(),
            offsets: Vec::new(),
            inputs: blocks(gic).div_ceil(units),
            panel: panel.min(blocks(goc)),
            rows,
            cols,
        };
        plan.walk();
        plan
    }

    fn walk(&mut self) {
        let (x, dy) = (self.x_strides(), self.dy_strides());
        for image in 0..self.chunk.0.min(self.shape.n) {
            for row in 0..self.chunk.1 {
                let at = |s: &Strides, step: usize| image * s.image + row * step * s.row;
                self.runs.push(Run { x: at(&x, self.rows.in_step), w: at(&dy, 1), len: self.cols.count });
            }
        }
        let (low_row, low_col) = if self.copy_x { (self.rows.low(), self.cols.low()) } else { (0, 0) };
        for block in 0..self.inputs {
            for lane in 0..self.by_lanes.unwrap_or(self.lanes()) {
                for r in &self.rows.taps {
                    let at = block * x.block + (r.offset - low_row) as usize * x.row + lane;
                    self.offsets.extend(self.cols.taps.iter().map(|c| at + (c.offset - low_col) as usize * x.col));
                }
            }
        }
    }

    /// Input channels in a block.
    fn lanes(&self) -> usize {
        if self.copy_x { self.gic.min(LANES) } else { LANES }
    }

    /// The window of the input that a chunk reads: one block of channels.
    fn x_window(&self, group: usize, block: usize, row: usize) -> Window {
        let channel = group * self.gic + block * LANES;
        Window {
            dims: self.shape.input(),
            layout: self.input,
            channel,
            channels: LANES.min((group + 1) * self.gic - channel).min(self.shape.ic - channel),
            row: (row * self.rows.in_step) as isize + self.rows.low(),
            rows: self.rows.extent(self.chunk.1),
            col: self.cols.low(),
            cols: self.cols.extent(self.cols.count),
            lanes: self.lanes(),
        }
    }

    /// The window of the output gradient that a chunk reads: a unit's blocks of channels.
    fn dy_window(&self, group: usize, panel: &Range<usize>, row: usize) -> Window {
        let (start, end) = (panel.start * LANES, self.goc.min(panel.end * LANES));
        Window {
            dims: self.shape.output(),
            layout: Layout::Blocked,
            channel: group * self.goc + start,
            channels: end - start,
            row: row as isize,
            rows: self.chunk.1,
            col: 0,
            cols: self.cols.count,
            lanes: LANES,
        }
    }

    fn x_strides(&self) -> Strides {
        if !self.copy_x {
            return Strides::of(&self.shape.input());
        }
        let window = self.x_window(0, 0, 0);
        let row = window.cols * window.lanes;
        Strides { image: window.rows * row, block: window.rows * row, row, col: window.lanes }
    }

    fn dy_strides(&self) -> Strides {
        if !self.copy_dy {
            return Strides::of(&self.shape.output());
        }
        let row = self.cols.count * LANES;
        Strides { image: self.panel * self.chunk.1 * row, block: self.chunk.1 * row, row, col: LANES }
    }

    /// The kernel chosen, for people to read: algorithm, instruction set, rows × channels of the register tile where
    /// that is one of input by output channels.
    pub fn kernel(&self) -> String {
        let vectors = self.isa.tile_vectors();
        match self.by_lanes {
            Some(1) => format!("depthwise-{}-{ROWS}x{LANES}", self.isa),
            Some(_) => format!("grouped-{}", self.isa),
            None => format!("direct-{}-{ROWS}x{}", self.isa, vectors.min(self.panel) * LANES),
        }
    }

    fn panels(&self) -> usize {
        blocks(self.goc).div_ceil(self.panel)
    }

    /// Into how many parts the blocks of input channels are cut.
    fn input_parts(&self) -> usize {
        blocks(self.gic).div_ceil(self.inputs)
    }

    fn units(&self) -> usize {
        self.groups * self.input_parts() * self.panels()
    }

    /// Elements of the sums of a part of a unit, at most: `[oc block][row][16]`.
    fn part_len(&self, parts: Parts) -> usize {
        self.panel.div_ceil(parts.panels) * self.offsets.len().div_ceil(parts.rows) * LANES
    }

    /// Sums that a thread keeps while it combines a span of groups as a tree.
    fn depth(&self) -> usize {
        self.shape.n.div_ceil(GROUP).next_power_of_two().trailing_zeros() as usize + 2
    }

    fn scratch_len(&self, parts: Parts) -> usize {
        let images = self.chunk.0.min(self.shape.n);
        let x = if self.copy_x { images * self.x_strides().image } else { 0 };
        let dy = if self.copy_dy { images * self.dy_strides().image } else { 0 };
        x.next_multiple_of(LANES) + dy + self.depth() * self.part_len(parts)
    }

    /// Elements of the workspace with that many threads, never less than with one.
    pub fn workspace_len(&self, threads: usize) -> usize {
        let len = |threads: usize| {
            let ((spans, _), parts) = (self.spans(threads), self.parts(threads));
            let partial = if spans > 1 { spans * self.units() * parts.count() * self.part_len(parts) } else { 0 };
            partial + threads * self.scratch_len(parts)
        };
        len(1).max(len(threads.max(1)))
    }

    /// Computes `dw`. All lengths have been checked; the workspace is at least that of one thread.
    pub fn run(&self, x: &[f32], dy: &[f32], dw: &mut [f32], workspace: &mut [f32]) {
        let s = &self.shape;
        let threads = rayon::current_num_threads();
        let threads = most_threads(threads, workspace.len(), |threads| self.workspace_len(threads));
        let ((spans, span), parts) = (self.spans(threads), self.parts(threads));
        let (tasks, len, scratch_len) = (self.units() * parts.count(), self.part_len(parts), self.scratch_len(parts));
        let part = |i: usize| self.part(parts, i);
        let dw = Shared::new(dw);
        if spans == 1 {
            for_each_task(tasks, workspace, scratch_len, |task, scratch| {
                let part = part(task);
                let sums = self.span(&part, 0..s.n, x, dy, scratch);
                self.unpack(&part, sums, dw);
            });
            return;
        }
        let (partial, workspace) = workspace.split_at_mut(spans * tasks * len);
        let shared = Shared::new(partial);
        for_each_task(tasks * spans, workspace, scratch_len, |i, scratch| {
            let (part, step) = (part(i / spans), i % spans);
            let images = step * span * GROUP..s.n.min((step + 1) * span * GROUP);
            let sums = self.span(&part, images, x, dy, scratch);
            // SAFETY: `partial` holds `tasks · spans` parts of `len` elements; this task alone writes this one.
            unsafe { sums.as_ptr().copy_to_nonoverlapping(shared.ptr().add(i * len), sums.len()) };
        });
        use rayon::prelude::*;
        partial.par_chunks_exact_mut(spans * len).enumerate().for_each(|(task, sums)| {
            let mut tree = Tree::new(sums, len);
            for i in 0..spans {
                tree.buffer.copy_within(i * len..(i + 1) * len, tree.height * len);
                tree.push();
            }
            self.unpack(&part(task), tree.finish(), dw);
        });
    }

    /// The sums of a part of a unit over a span of images, groups combined as a tree.
    fn span<'a>(&self, part: &Part, images: Range<usize>, x: &[f32], dy: &[f32], scratch: &'a mut [f32]) -> &'a [f32] {
        let len = part.panel.len() * part.rows.len() * LANES;
        let (sums, copies) = scratch.split_at_mut(self.depth() * len);
        let mut tree = Tree::new(sums, len);
        for first in images.clone().step_by(GROUP) {
            self.group(part, first..images.end.min(first + GROUP), x, dy, tree.top(), copies);
            tree.push();
        }
        tree.finish()
    }

    /// The sums of a part of a unit over a group of images, chunk after chunk.
    fn group(&self, part: &Part, images: Range<usize>, x: &[f32], dy: &[f32], sums: &mut [f32], copies: &mut [f32]) {
        let &Part { group, ref inputs, ref panel, .. } = part;
        let (xs, dys) = (self.x_strides(), self.dy_strides());
        let together = self.chunk.0.min(self.shape.n);
        let (copy_x, copy_dy) =
            copies.split_at_mut(if self.copy_x { (together * xs.image).next_multiple_of(LANES) } else { 0 });
        for first in images.clone().step_by(self.chunk.0) {
            let chunk_images = first..images.end.min(first + self.chunk.0);
            for row in (0..self.rows.count).step_by(self.chunk.1) {
                let rows = self.chunk.1.min(self.rows.count - row);
                let x = if self.copy_x {
                    let window = self.x_window(group, inputs.start, row);
                    for (image, to) in chunk_images.clone().zip(copy_x.chunks_exact_mut(xs.image)) {
                        window.copy(x, image, &[], to);
                    }
                    copy_x.as_ptr()
                } else {
                    let first_block = (group * self.gic / LANES + inputs.start) * xs.block;
                    x[first * xs.image + first_block + row * self.rows.in_step * xs.row..].as_ptr()
                };
                let dy = if self.copy_dy {
                    let window = self.dy_window(group, panel, row);
                    for (image, to) in chunk_images.clone().zip(copy_dy.chunks_exact_mut(dys.image)) {
                        window.copy(dy, image, &[], to);
                    }
                    copy_dy.as_ptr()
                } else {
                    let first_block = (group * self.goc / LANES + panel.start) * dys.block;
                    dy[first * dys.image + first_block + row * dys.row..].as_ptr()
                };
                self.isa.dispatch(Chunk {
                    by_lanes: self.by_lanes,
                    offsets: &self.offsets[part.rows.clone()],
                    x,
                    step: self.cols.in_step * xs.col,
                    dy,
                    stream: dys.block,
                    runs: &self.runs[..chunk_images.len() * rows],
                    vectors: panel.len(),
                    first: first == images.start && row == 0,
                    sums,
                });
            }
        }
    }

    /// Writes the sums of a part of a unit to where they belong in OIHW: for each output channel one contiguous
    /// stretch.
    fn unpack(&self, part: &Part, sums: &[f32], dw: Shared) {
        let &Part { group, ref inputs, ref panel, .. } = part;
        let s = &self.shape;
        let taps = s.kh * s.kw;
        // Lanes without a channel are a unit's last rows.
        let end = self.by_lanes.unwrap_or(self.gic - inputs.start * LANES) * taps;
        let rows = part.rows.start..part.rows.end.min(end);
        let (stream, height) = (s.group_ic() * taps, part.rows.len() * LANES);
        let first = group * self.goc + panel.start * LANES;
        let channels = (self.goc.min(panel.end * LANES) - panel.start * LANES).min(s.oc - first);
        let at = first * stream + inputs.start * LANES * taps + rows.start;
        // These channels' rows lie in OIHW, whose length `run` has checked, and belong to this part alone.
        self.isa.dispatch(Unpack { sums, height, rows: rows.len(), to: dw.ptr().wrapping_add(at), stream, channels });
    }
}
