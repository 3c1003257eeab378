//! The gradient of the weights by Winograd: the order of the sums is that of [`crate::reference::winograd`].
//!
//! Tiles are taken in blocks of whole chunks. A block's inputs and output gradients are transformed into the workspace,
//! of which they take a part of the third cache. Then come the products: a *unit* is a few blocks of input channels by a few
//! blocks of output channels, at all positions, whose sums stay in the second cache while the tiles pass, and are
//! transformed to weights when the last block has. With one block a unit's sums are never stored elsewhere; with
//! more all units' sums lie in the workspace. Threads share the channels to transform and the units, or a
//! unit's positions; never the tiles.

use super::weights_body::{Body, Stage, Unit};
use super::{Geometry, Winograd};
use crate::conv::Options;
use crate::conv::tile::{ROWS, parts};
use crate::reference::winograd::{TILES, Variant};
use crate::threads::{Shared, for_each_task};
use crate::{ConvShape, Isa, LANES};

/// Blocks of channels, of the input or of the output, in a unit at most.
const UNIT: usize = 4;
/// Elements that a block's transforms should have at most: 16 MiB, a part of the third cache.
const BLOCK: usize = 1 << 22;
/// Units a thread from which on it does not matter whether threads get equally many.
const EVEN: usize = 8;

/// What the gradient of the weights computes and how it walks.
#[derive(Debug, Clone)]
pub(in crate::conv) struct Weights {
    /// The forward pass: the tiles are its.
    pub(super) forward: Winograd,
    /// Tiles in a block: whole chunks.
    tiles: usize,
    /// Blocks of channels in a unit, at most.
    unit: usize,
}

impl Weights {
    /// Plans a shape that the variant serves ([`crate::reference::winograd::check`]).
    pub fn new(variant: Variant, s: &ConvShape, options: &Options) -> Weights {
        let forward = Winograd::new(variant, s, options);
        let chunk = forward.positions() * (forward.in_blocks() + forward.out_blocks()) * LANES * TILES;
        let wanted = options.blocking.map_or(BLOCK / chunk, |b| b.rows).max(1);
        let chunks = forward.total().div_ceil(TILES);
        let tiles = chunks.div_ceil(chunks.div_ceil(wanted)) * TILES;
        let unit = options.blocking.map_or(UNIT, |b| b.vectors.clamp(1, UNIT));
        Weights { tiles: tiles.min(forward.total()), unit, forward }
    }

    pub fn variant(&self) -> Variant {
        self.forward.variant
    }

    /// The name of the kernel.
    pub fn kernel(&self, isa: Isa) -> String {
        let vectors = if isa == Isa::Avx512 { 4 } else { 1 };
        let (r, m) = (self.variant().r(), self.variant().m());
        format!("winograd-f{r}x{m}-{isa}-{ROWS}x{}", vectors.min(self.forward.out_blocks()).min(self.unit) * LANES)
    }

    /// How many units there are, of input and of output channels.
    fn units(&self) -> (usize, usize) {
        (self.forward.in_blocks().div_ceil(self.unit), self.forward.out_blocks().div_ceil(self.unit))
    }

    /// The channels of a unit, and where its sums lie if they lie among those of all units.
    fn place(&self, unit: usize) -> Unit {
        let (ins, outs) = self.units();
        let part = |total: usize, count: usize, i: usize| {
            let (start, len) = parts(total, count).nth(i).unwrap_or_default();
            start..start + len
        };
        // Neighbours share the input's transforms, of which there are more for the first cache to keep.
        let (i, o) = (unit / outs, unit % outs);
        Unit { ins: part(self.forward.in_blocks(), ins, i), outs: part(self.forward.out_blocks(), outs, o) }
    }

    /// Elements of a unit's sums.
    fn unit_len(&self) -> usize {
        let (ins, outs) = (self.unit.min(self.forward.in_blocks()), self.unit.min(self.forward.out_blocks()));
        self.forward.positions() * Unit { ins: 0..ins, outs: 0..outs }.plane()
    }

    /// Into how many parts a unit's positions are cut, so that all threads have work.
    fn cuts(&self, threads: usize) -> usize {
        let units = self.units().0 * self.units().1;
        if threads <= 1 || units >= EVEN * threads {
            return 1;
        }
        (EVEN * threads).div_ceil(units).min(self.forward.positions())
    }

    /// Elements of a block's transforms, of all units' sums and of a thread's own.
    fn lens(&self, threads: usize) -> (usize, usize, usize) {
        let f = &self.forward;
        let transforms = (f.in_blocks() + f.out_blocks()) * Geometry::new(f.variant, 0..self.tiles).block;
        let together = self.tiles < f.total() || self.cuts(threads) > 1;
        let units = self.units().0 * self.units().1 * self.unit_len();
        if together { (transforms, units, LANES) } else { (transforms, 0, self.unit_len()) }
    }

    /// Elements of the workspace with that many threads.
    pub fn workspace_len(&self, threads: usize) -> usize {
        let (transforms, sums, own) = self.lens(threads);
        transforms + sums + threads.max(1) * own
    }

    /// Computes `dw`. All lengths have been checked: the tensors and the gradient are those of the shape, the workspace is
    /// at least that of one thread.
    pub fn run(&self, isa: Isa, x: &[f32], dy: &[f32], dw: &mut [f32], workspace: &mut [f32]) {
        let f = &self.forward;
        let taps = f.variant.r() * f.variant.r();
        assert!(x.len() == f.input.blocked_len() && dy.len() == f.output.blocked_len());
        assert!(dw.len() == f.input.c * f.output.c * taps);
        let threads = rayon::current_num_threads();
        let threads = if workspace.len() < self.workspace_len(threads) { 1 } else { threads };
        let (transforms, sums, own) = self.lens(threads);
        let (v, workspace) = workspace.split_at_mut(transforms);
        let (sums, workspace) = workspace.split_at_mut(sums);
        assert!(workspace.len() >= own);
        let (v, dw) = (Shared::new(v), Shared::new(dw));
        let (is_apart, sums) = (sums.is_empty(), Shared::new(sums));
        let (units, cuts) = (self.units().0 * self.units().1, self.cuts(threads));
        let total = f.total();
        for first in (0..total).step_by(self.tiles) {
            let geometry = Geometry::new(f.variant, first..total.min(first + self.tiles));
            let body = |stage, m| Body { plan: self, x, dy, geometry, stage, v: v.ptr(), m, dw: dw.ptr() };
            let channels = f.in_blocks() + f.out_blocks();
            let cut = |i: usize, parts: usize| geometry.tiles * i / parts..geometry.tiles * (i + 1) / parts;
            let parts = if threads == 1 { 1 } else { (EVEN * threads).div_ceil(channels).min(geometry.tiles) };
            for_each_task(channels * parts, workspace, own, |task, m| {
                let stage = Stage::Spread(task / parts, cut(task % parts, parts));
                isa.dispatch(body(stage, m.as_mut_ptr()));
            });
            let positions = |i: usize| f.positions() * i / cuts..f.positions() * (i + 1) / cuts;
            for_each_task(units * cuts, workspace, own, |task, m| {
                let (unit, part) = (task / cuts, positions(task % cuts));
                let m = if is_apart { m.as_mut_ptr() } else { sums.ptr().wrapping_add(unit * self.unit_len()) };
                isa.dispatch(body(Stage::Multiply(self.place(unit), part), m));
                if is_apart {
                    isa.dispatch(body(Stage::Gather(self.place(unit)), m));
                }
            });
            if !is_apart && first + geometry.tiles == total {
                for_each_task(units, workspace, own, |unit, _| {
                    let m = sums.ptr().wrapping_add(unit * self.unit_len());
                    isa.dispatch(body(Stage::Gather(self.place(unit)), m));
                });
            }
        }
    }
}
