//! The gradient of the weights by many threads: of each block of tiles they share out the transforms, then the
//! products, at last the transforms of the sums.
//!
//! With shares (see [`weights`](super::weights)) many threads would compute most transforms again and again, and of few
//! channels some would have more positions than others. Two threads do better with them, though: where cores do not
//! have a third cache in common, each reads what the other has written no faster than from memory.

use super::Geometry;
use super::weights::{BLOCK, SUMS, Share, Weights};
use super::weights_body::{Body, Stage, Tensors};
use crate::Isa;
use crate::task::part;
use crate::threads::{Shared, for_each_stage};
use std::ops::Range;

/// From how many threads on.
pub(super) const MANY: usize = 4;
/// Tasks of a stage for each thread, so that it matters little who ends last.
const TASKS: usize = 4;

/// How the work on each block of tiles is cut.
struct Cuts<'a> {
    plan: &'a Weights,
    /// All channels at all positions.
    whole: Share,
    /// Tiles in a block, and blocks.
    tiles: usize,
    blocks: usize,
    units: usize,
    /// Into how many parts the chunks of each block of channels are cut.
    spreads: usize,
    /// Whether a task has all positions of a unit, whose sums stay near until they are transformed. Else it has one
    /// position of some units, for neighbours read the same transforms.
    by_unit: bool,
    /// Into how many parts the units are cut, if not `by_unit`.
    parts: usize,
    /// And into how many parts the blocks of input channels of each.
    ins: usize,
}

impl<'a> Cuts<'a> {
    fn new(plan: &'a Weights, threads: usize) -> Cuts<'a> {
        let (f, wanted) = (&plan.forward, TASKS * threads);
        let (whole, positions) =
            (Share { ins: 0..plan.ins(), outs: 0..f.out_blocks(), rows: 0..f.variant.n() }, f.positions());
        let units = plan.units(&whole).0 * plan.units(&whole).1;
        // Larger blocks than a share's: the threads wait for each other less often.
        let tiles = plan.tiles_within(&whole, 4 * BLOCK);
        let parts = wanted.div_ceil(positions).min(units);
        Cuts {
            plan,
            tiles,
            blocks: f.total().div_ceil(tiles),
            units,
            spreads: wanted.div_ceil(whole.ins.len() + whole.outs.len()).min(tiles.div_ceil(plan.chunks.tiles)),
            by_unit: units >= 2 * threads && !plan.is_by_position(&whole, SUMS),
            parts,
            ins: wanted.div_ceil(positions * parts).min(plan.unit(&whole, 0).ins.len()),
            whole,
        }
    }

    /// Blocks of channels of either side.
    fn channels(&self) -> usize {
        self.whole.ins.len() + self.whole.outs.len()
    }

    /// Tasks of a block's transforms.
    fn spread_tasks(&self) -> usize {
        self.channels() * self.spreads
    }

    /// Tasks of a block's products.
    fn product_tasks(&self) -> usize {
        if self.by_unit { self.units } else { self.plan.forward.positions() * self.parts * self.ins }
    }

    /// Blocks of output channels of a unit, at most.
    fn outs(&self) -> usize {
        self.whole.outs.len().div_ceil(self.plan.units(&self.whole).1)
    }

    /// Whether the sums of all units are kept: for another block, or for other tasks.
    fn keeps(&self) -> bool {
        !self.by_unit || self.blocks > 1
    }

    /// Elements of a block's transforms, of those of two blocks if there are so many (while products of one are
    /// computed, the next is transformed), of the sums that are kept, of a thread's scratch, never none.
    fn lens(&self) -> [usize; 4] {
        let block = self.channels() * Geometry::new(self.plan.variant(), 0..self.tiles).block;
        let unit = self.plan.unit_len();
        let (kept, scratch) = if self.keeps() { (self.units * unit, 1) } else { (0, unit) };
        [block, block * self.blocks.min(2), kept, scratch]
    }

    /// A block, counted from 0; empty where there is none.
    fn block(&self, i: usize) -> Geometry {
        let (tiles, total) = (self.tiles, self.plan.forward.total());
        Geometry::new(self.plan.variant(), total.min(i * tiles)..total.min((i + 1) * tiles))
    }

    /// The channels and the tiles of a task of a block's transforms.
    fn spread(&self, block: &Geometry, task: usize) -> (Range<usize>, Range<usize>) {
        let channels = task / self.spreads;
        let each = self.plan.chunks.tiles;
        let chunks = part(block.tiles.div_ceil(each), self.spreads, task % self.spreads);
        (channels..channels + 1, chunks.start * each..block.tiles.min(chunks.end * each))
    }

    /// Calls `multiply(unit, blocks of its input channels, positions)` for all that a task of a block's products has.
    fn each_product(&self, task: usize, multiply: impl Fn(usize, Range<usize>, Range<usize>)) {
        let ins = |unit: usize| self.plan.unit(&self.whole, unit).ins.len();
        if self.by_unit {
            return multiply(task, 0..ins(task), 0..self.plan.forward.positions());
        }
        let (position, task) = (task / (self.parts * self.ins), task % (self.parts * self.ins));
        for unit in part(self.units, self.parts, task / self.ins) {
            multiply(unit, part(ins(unit), self.ins, task % self.ins), position..position + 1);
        }
    }
}

impl Weights {
    /// Elements of the workspace of so many threads.
    pub(super) fn len_together(&self, threads: usize) -> usize {
        let [_, held, kept, scratch] = Cuts::new(self, threads).lens();
        held + kept + threads * scratch
    }

    /// Computes `dw`; all lengths have been checked.
    pub(super) fn run_together(&self, isa: Isa, tensors: Tensors<'_>, threads: usize, workspace: &mut [f32]) {
        let cuts = &Cuts::new(self, threads);
        let [block_len, held, kept, scratch] = cuts.lens();
        let (v, workspace) = workspace.split_at_mut(held);
        let (kept, workspace) = workspace.split_at_mut(kept);
        let workspace = &mut workspace[..threads * scratch];
        let (v, kept) = (Shared::new(v), Shared::new(kept));
        let run = |block: usize, stage, m| {
            let v = v.ptr().wrapping_add(block % 2 * block_len);
            Body { plan: self, tensors, geometry: cuts.block(block), stage, v, m }.run(isa);
        };
        let sums = |unit: usize, scratch: *mut f32| match cuts.keeps() {
            true => kept.ptr().wrapping_add(unit * self.unit_len()),
            false => scratch,
        };
        let multiply = |block: usize, task: usize, scratch: *mut f32| {
            cuts.each_product(task, |unit, ins, positions| {
                let m = sums(unit, scratch);
                let of = self.unit(&cuts.whole, unit);
                run(block, Stage::Multiply(cuts.whole.clone(), unit..unit + 1, ins, positions), m);
                if cuts.by_unit && block + 1 == cuts.blocks {
                    let outs = 0..of.outs.len();
                    run(block, Stage::Gather(of, outs), m);
                }
            });
        };
        // A stage has the products of a block and the transforms of the next one, so that no thread waits in between;
        // if tasks have not all positions of a unit, a last one has the transforms of the sums.
        let products = |stage: usize| if stage == 0 { 0 } else { cuts.product_tasks() };
        let tasks = |stage: usize| match stage {
            _ if stage < cuts.blocks => products(stage) + cuts.spread_tasks(),
            _ if stage == cuts.blocks => products(stage),
            _ => cuts.units * cuts.outs(),
        };
        let stages = cuts.blocks + if cuts.by_unit { 1 } else { 2 };
        for_each_stage(stages, tasks, workspace, scratch, |stage, task, scratch| {
            if stage > cuts.blocks {
                let (unit, out) = (task / cuts.outs(), task % cuts.outs());
                let of = self.unit(&cuts.whole, unit);
                let outs = out..of.outs.len().min(out + 1);
                return run(stage, Stage::Gather(of, outs), sums(unit, scratch.as_mut_ptr()));
            }
            if task < products(stage) {
                return multiply(stage - 1, task, scratch.as_mut_ptr());
            }
            let (channels, tiles) = cuts.spread(&cuts.block(stage), task - products(stage));
            run(stage, Stage::Spread(cuts.whole.clone(), channels, tiles), std::ptr::null_mut());
        });
    }
}
