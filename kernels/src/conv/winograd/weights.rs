//! The gradient of the weights by Winograd: the order of the sums is that of [`crate::reference::winograd`].
//!
//! Of few threads each takes a *share*: some blocks of channels of either side, at some rows of positions (many work
//! together: see [`weights_together`](super::weights_together)). It transforms the inputs and output gradients that it
//! needs itself, for what another core has written comes from its cache no faster than from memory, unless they have a
//! third cache in common. Tiles are taken in blocks of whole chunks, whose transforms lie in the second cache, of more
//! channels in the third.
//! Then come the products, of a *unit* at a time, a few blocks of input channels by a few of output channels, and unit
//! by unit all positions: the sums stay in the second cache and are transformed to weights with the last block. Where
//! tiles are many and the second cache does not hold the sums of all units, it is position by position all units: its
//! transforms come into that cache once. Where a share has not all positions, the sums are transformed once all
//! shares are done. The sum over tiles is never cut.

use super::weights_body::{Body, Stage, Tensors, Unit};
use super::weights_phases::Inputs;
use super::weights_together::MANY;
use super::{Geometry, Winograd, groups};
use crate::conv::tile::ROWS;
use crate::conv::{Layout, Options};
use crate::processor::processor;
use crate::reference::winograd::{Chunks, Variant};
use crate::task::part;
use crate::threads::{Shared, for_each_task, most_threads};
use crate::{ConvShape, Isa, LANES};
use std::ops::Range;

/// Blocks of channels, of the input or of the output, in a unit at most.
const UNIT: usize = 4;
/// Elements that a block's transforms may have: 4 MiB, a part of the third cache.
pub(super) const BLOCK: usize = 1 << 20;
/// The same of short chunks, of which a block has at least one: 512 KiB, for the second cache holds the sums as well.
/// With 1 MiB 16 to 48 channels took up to a tenth longer, with 4 MiB and chunks of 128 tiles up to half as long again
/// (Granite Rapids).
const NEAR: usize = 1 << 17;
/// Elements of kept sums beyond which the third cache of many threads does not hold them beside the transforms: 16 MiB.
pub(super) const SUMS: usize = 1 << 22;
/// Elements of a block's transforms at one position that the second cache holds beside the sums: 1 MiB.
const SLICE: usize = 1 << 18;
/// Blocks of channels, of the side that has more of them, that a share has at least, where its threads can share out
/// positions: the other side's transforms are computed by each thread. Half as many, if the other side has a single one
/// and no thread goes without, and where threads can have equally many blocks but not rows of positions. A block of
/// channels counts for as many as it has phases, if no thread goes without.
const WIDE: usize = 4;

/// What the gradient of the weights computes and how it walks.
#[derive(Debug, Clone)]
pub(in crate::conv) struct Weights {
    /// The forward pass: the tiles are its.
    pub(super) forward: Winograd,
    /// What the blocks of the input are, and how it lies.
    pub(super) inputs: Inputs,
    pub(super) layout: Layout,
    /// How the products are summed over the tiles.
    pub(super) chunks: Chunks,
    /// Chunks in a block in place of those derived from the shape.
    forced: Option<usize>,
    /// Blocks of channels in a unit, at most; of the input's, where they are of phases, always all of them.
    pub(super) unit: usize,
    /// Whether all units take their turn at a position before the next whatever their sums: a forced blocking of units
    /// of several blocks asks for it.
    by_position: bool,
}

/// How the work is shared out: into parts of the channels of one side and parts of the rows of positions.
#[derive(Debug, Clone, Copy)]
struct Split {
    channels: usize,
    rows: usize,
}

/// Blocks of channels, rows of positions.
#[derive(Debug, Clone)]
pub(super) struct Share {
    pub ins: Range<usize>,
    pub outs: Range<usize>,
    pub rows: Range<usize>,
}

impl Weights {
    /// Plans a shape whose gradient the variant serves ([`crate::reference::winograd::check_weights`]).
    pub fn new(variant: Variant, s: &ConvShape, options: &Options) -> Weights {
        let blocked = Options { input: Layout::Blocked, output: Layout::Blocked, ..*options };
        let forward = Winograd::new(variant, s, &blocked);
        let inputs = Inputs::new(variant, s);
        let chunks = variant.chunks(s.group_ic(), s.group_oc());
        let forced = options.blocking.map(|b| b.rows.max(1));
        let unit = options.blocking.map_or(UNIT, |b| b.vectors.clamp(1, UNIT));
        let by_position = options.blocking.is_some_and(|b| b.vectors > 1);
        Weights { forward, inputs, layout: options.input, chunks, forced, unit, by_position }
    }

    pub fn variant(&self) -> Variant {
        self.forward.variant
    }

    /// The name of the kernel.
    pub fn kernel(&self, isa: Isa) -> String {
        let vectors = isa.tile_vectors();
        let (r, m) = (self.variant().r(), self.variant().m());
        let stride = if self.variant().stride() > 1 { "s2" } else { "" };
        format!(
            "winograd-f{r}x{m}{stride}-{isa}-{ROWS}x{}",
            vectors.min(self.forward.out_blocks()).min(self.unit) * LANES
        )
    }

    fn split(&self, threads: usize) -> Split {
        let (ins, outs, n) = (self.ins(), self.forward.out_blocks(), self.variant().n());
        // Phases of a block of channels stay together.
        let blocks = self.forward.in_blocks();
        let most = if ins > outs { blocks } else { outs };
        if threads == 2 && self.has_equal_rows() {
            return Split { channels: 1, rows: threads };
        }
        let is_narrow = blocks.min(outs) == 1 && most >= threads * WIDE / 2;
        let is_even = !n.is_multiple_of(threads) && most.is_multiple_of(threads);
        let wide = if is_narrow || is_even { WIDE / 2 } else { WIDE };
        let wide = if ins > outs && most >= threads { wide.div_ceil(self.inputs.phases()) } else { wide };
        let rows = (threads / threads.min(most / wide).max(1)).clamp(1, n);
        Split { channels: (threads / rows).clamp(1, most), rows }
    }

    /// Whether two threads should share out the rows of positions however many channels there are: none then transforms
    /// what the other does, and of tiles that fill several long chunks the sums are kept either way. All tiles must
    /// have all rows, lest the thread with the last ones has less to do. (128 to 512 channels of F(3×3, 4×4): up to a
    /// twelfth less time; with a single chunk a tenth to a fifth more, of tiles that lack rows 2 to 7 %. Granite
    /// Rapids.)
    fn has_equal_rows(&self) -> bool {
        let f = &self.forward;
        let is_long = self.chunks != Chunks::SHORT && f.total() > self.chunks.tiles;
        f.variant == Variant::F4x3 && f.output.h.is_multiple_of(f.variant.m()) && is_long
    }

    /// The shares run by parts of channels, each by rows.
    fn share(&self, split: Split, i: usize) -> Share {
        let (ins, outs) = (self.ins(), self.forward.out_blocks());
        let rows = part(self.variant().n(), split.rows, i % split.rows);
        let channels = |total: usize| part(total, split.channels, i / split.rows);
        let each = self.inputs.phases();
        match ins > outs {
            true => {
                let ins = channels(ins / each);
                Share { ins: ins.start * each..ins.end * each, outs: 0..outs, rows }
            }
            false => Share { ins: 0..ins, outs: channels(outs), rows },
        }
    }

    /// Tiles in a share's block, whole chunks: sums that are kept are read and written once a block, so that there may
    /// be more transforms where there are more sums.
    fn tiles(&self, share: &Share) -> usize {
        self.tiles_within(share, if self.chunks == Chunks::SHORT { NEAR } else { BLOCK })
    }

    /// The same for transforms of so many elements.
    pub(super) fn tiles_within(&self, share: &Share, len: usize) -> usize {
        let (positions, channels) = (share.rows.len() * self.variant().n(), share.ins.len() + share.outs.len());
        let sums = self.share_sums(share);
        let most = len.max(sums).min(len.max(positions * SLICE));
        let wanted = self.forced.unwrap_or(most / (positions * channels * LANES * self.chunks.tiles)).max(1);
        let chunks = self.forward.total().div_ceil(self.chunks.tiles);
        (chunks.div_ceil(chunks.div_ceil(wanted)) * self.chunks.tiles).min(self.forward.total())
    }

    /// Whether the sums of all units are kept: for another block, or for other shares.
    fn keeps(&self, split: Split, share: &Share) -> bool {
        split.rows > 1
            || self.tiles(share) < self.forward.total()
            || self.is_by_position(share, processor().second_cache_len())
    }

    /// Whether all units take their turn at a position before the next, of a share for whose sums a cache has
    /// room for so many elements.
    pub(super) fn is_by_position(&self, share: &Share, room: usize) -> bool {
        let (ins, outs) = self.units(share);
        let has_several = self.forward.total() > self.chunks.tiles && ins * outs > 1;
        has_several && (self.by_position || self.share_sums(share) > room)
    }

    /// Elements of a share's sums.
    fn share_sums(&self, share: &Share) -> usize {
        share.rows.len() * self.variant().n() * share.ins.len() * share.outs.len() * LANES * LANES
    }

    /// How many units of input and of output channels a share has.
    pub(super) fn units(&self, share: &Share) -> (usize, usize) {
        (share.ins.len().div_ceil(self.unit_ins()), share.outs.len().div_ceil(self.unit))
    }

    pub(super) fn unit(&self, share: &Share, i: usize) -> Unit {
        let (ins, outs) = self.units(share);
        let of = |range: &Range<usize>, count: usize, i: usize| {
            let part = part(range.len(), count, i);
            range.start + part.start..range.start + part.end
        };
        Unit { ins: of(&share.ins, ins, i / outs), outs: of(&share.outs, outs, i % outs) }
    }

    /// Elements of a unit's sums, twice as many where there are several groups of chunks.
    pub(super) fn unit_len(&self) -> usize {
        let (ins, outs) = (self.unit_ins().min(self.ins()), self.unit.min(self.forward.out_blocks()));
        self.sums_len(&Unit { ins: 0..ins, outs: 0..outs }) * if self.has_groups() { 2 } else { 1 }
    }

    /// Elements of the sums of a unit, of all positions.
    fn sums_len(&self, unit: &Unit) -> usize {
        self.forward.positions() * unit.plane()
    }

    /// Where the sums of the groups of chunks before lie, from those of this one on.
    #[inline(always)]
    pub(super) fn before(&self) -> usize {
        self.unit_len() / 2
    }

    /// Whether there are several groups of chunks.
    pub(super) fn has_groups(&self) -> bool {
        self.forward.total() > self.chunks.tiles.saturating_mul(self.chunks.group)
    }

    /// Elements of a share's transforms, of the sums that it keeps, and of those that all shares keep together.
    fn lens(&self, split: Split) -> (usize, usize, usize) {
        let mut lens = (0, 0, 0);
        for share in (0..split.channels * split.rows).map(|i| self.share(split, i)) {
            let (ins, outs) = self.units(&share);
            let geometry = Geometry::with(share.rows.len() * self.variant().n(), 0..self.tiles(&share));
            lens.0 = lens.0.max((share.ins.len() + share.outs.len()) * geometry.block);
            let units = if self.keeps(split, &share) { ins * outs } else { 1 };
            lens.1 = lens.1.max(units * self.unit_len());
        }
        if split.rows > 1 { (lens.0, 0, split.channels * lens.1) } else { lens }
    }

    /// Elements of the workspace with that many threads, never less than with one.
    pub fn workspace_len(&self, threads: usize) -> usize {
        groups::len(self.forward.groups, threads, |threads| self.group_len(threads))
    }

    /// Elements that a group needs.
    fn group_len(&self, threads: usize) -> usize {
        let len = |split: Split| {
            let (transforms, own, together) = self.lens(split);
            together + split.channels * split.rows * (transforms + own)
        };
        let one = len(self.split(1));
        one.max(if threads < MANY { len(self.split(threads.max(1))) } else { self.len_together(threads) })
    }

    /// Computes `dw`. All lengths have been checked: the tensors and the gradient are those of the shape, the workspace
    /// is at least that of one thread.
    pub fn run(&self, isa: Isa, x: &[f32], dy: &[f32], dw: &mut [f32], workspace: &mut [f32]) {
        let (f, groups) = (&self.forward, self.forward.groups);
        let weights = f.input.c * f.output.c * f.variant.r() * f.variant.r();
        assert!(x.len() == groups * self.layout.len(&f.input) && dy.len() == groups * f.output.blocked_len());
        assert!(dw.len() == groups * weights);
        let tensors = Tensors { x, dy, dw: Shared::new(dw) };
        groups::for_each(
            groups,
            workspace,
            |threads| self.group_len(threads),
            |group, threads, workspace| {
                let plan = Weights { forward: Winograd { group, ..f.clone() }, ..*self };
                let tensors = Tensors { dw: tensors.dw.from(group * weights), ..tensors };
                plan.run_group(isa, tensors, threads, workspace);
            },
        );
    }

    /// Computes `dw` of a group on so many threads at most.
    fn run_group(&self, isa: Isa, tensors: Tensors<'_>, threads: usize, workspace: &mut [f32]) {
        let f = &self.forward;
        let threads = most_threads(threads, workspace.len(), |threads| self.group_len(threads));
        if threads >= MANY {
            return self.run_together(isa, tensors, threads, workspace);
        }
        let split = self.split(threads);
        let (transforms, own, together) = self.lens(split);
        let (sums, workspace) = workspace.split_at_mut(together);
        assert!(workspace.len() >= transforms + own);
        let sums = Shared::new(sums);
        let body = |geometry, stage, v, m| Body { plan: self, tensors, geometry, stage, v, m };
        let slots = together / split.channels / self.unit_len();
        for_each_task(split.channels * split.rows, workspace, transforms + own, |task, scratch| {
            let share = self.share(split, task);
            let (v, m) = scratch.split_at_mut(transforms);
            let v = v.as_mut_ptr();
            let m = if split.rows > 1 {
                sums.ptr().wrapping_add(task / split.rows * slots * self.unit_len())
            } else {
                m.as_mut_ptr()
            };
            let (tiles, total) = (self.tiles(&share), f.total());
            let (ins, outs) = self.units(&share);
            let (units, positions) = (ins * outs, share.rows.len() * f.variant.n());
            let keeps = self.keeps(split, &share);
            let by_position = self.is_by_position(&share, processor().second_cache_len());
            for first in (0..total).step_by(tiles) {
                let geometry = Geometry::with(positions, first..total.min(first + tiles));
                let run = |stage, m| body(geometry, stage, v, m).run(isa);
                let sums = |unit: usize| if keeps { m.wrapping_add(unit * self.unit_len()) } else { m };
                let multiply = |units: Range<usize>, positions: Range<usize>| {
                    let m = sums(units.start);
                    run(Stage::Multiply(share.clone(), units, 0..self.unit_ins(), positions), m);
                };
                let channels = 0..share.ins.len() + share.outs.len();
                run(Stage::Spread(share.clone(), channels, 0..geometry.tiles), m);
                if by_position {
                    multiply(0..units, 0..positions);
                }
                for unit in 0..units {
                    if !by_position {
                        multiply(unit..unit + 1, 0..positions);
                    }
                    if split.rows == 1 && first + geometry.tiles == total {
                        let of = self.unit(&share, unit);
                        let outs = 0..of.outs.len();
                        run(Stage::Gather(of, outs), sums(unit));
                    }
                }
            }
        });
        if split.rows == 1 {
            return;
        }
        for_each_task(split.channels * slots, workspace, LANES, |task, scratch| {
            let share = self.share(split, task / slots * split.rows);
            let (ins, outs) = self.units(&share);
            if task % slots < ins * outs {
                let unit = self.unit(&share, task % slots);
                let outs = 0..unit.outs.len();
                let stage = Stage::Gather(unit, outs);
                let m = sums.ptr().wrapping_add(task * self.unit_len());
                body(Geometry::with(0, 0..0), stage, scratch.as_mut_ptr(), m).run(isa);
            }
        });
    }
}
