//! Blocks of tiles between blocked tensors: each thread takes its own, or the threads share them.

use super::body::{Body, Stage};
use super::{Call, Geometry, Winograd};
use crate::task::part;
use crate::threads::{Shared, for_each_stage, for_each_task, most_threads};
use crate::{Isa, LANES};

impl Winograd {
    /// Runs a group between blocked tensors on so many threads at most.
    pub(super) fn run_blocked(&self, isa: Isa, call: &Call<'_>, threads: usize, workspace: &mut [f32]) {
        let threads = most_threads(threads, workspace.len(), |threads| self.blocks_len(threads));
        match self.own_tiles(threads) {
            Some(tiles) => self.run_apart(isa, call, tiles, &mut workspace[..threads * self.scratch_len()]),
            None => self.run_together(isa, call, threads, workspace),
        }
    }

    /// Each thread takes blocks of tiles, with all channels.
    fn run_apart(&self, isa: Isa, call: &Call<'_>, tiles: usize, workspace: &mut [f32]) {
        let (total, per_thread) = (self.total(), self.scratch_len());
        for_each_task(total.div_ceil(tiles), workspace, per_thread, |task, scratch| {
            let geometry = Geometry::new(self.variant, task * tiles..total.min((task + 1) * tiles));
            let (v, m) = scratch.split_at_mut(self.block_lens(&geometry).0);
            assert!(m.len() >= self.block_lens(&geometry).1);
            let (v, m) = (v.as_mut_ptr(), m.as_mut_ptr());
            let order = self.order(geometry.range());
            for stage in [
                Stage::Input(0..self.in_blocks(), 0..geometry.tiles),
                Stage::Output(0..self.out_blocks(), 0..geometry.tiles),
            ] {
                Body { plan: self, call, geometry, products: geometry, order, stage, v, m }.run(isa);
            }
        });
    }

    /// The threads share a block of tiles: first its input channels, then its output channels.
    fn run_together(&self, isa: Isa, call: &Call<'_>, threads: usize, workspace: &mut [f32]) {
        let total = self.total();
        let (v_len, m_len) = self.shared_lens(threads);
        let (v, scratch) = workspace.split_at_mut(v_len);
        let v = Shared::new(v);
        let block = |first: usize| Geometry::new(self.variant, first..total.min(first + self.shared_tiles));
        let blocks = total.div_ceil(self.shared_tiles);
        let input_parts = (4 * threads).div_ceil(self.in_blocks()).min(self.shared_tiles);
        let (panels, parts) = self.cuts(self.shared_tiles, threads);
        let is_input = |stage: usize| stage.is_multiple_of(2);
        let tasks = |stage: usize| if is_input(stage) { self.in_blocks() * input_parts } else { panels * parts };
        for_each_stage(2 * blocks, tasks, scratch, m_len, |stage, task, m| {
            let geometry = block(stage / 2 * self.shared_tiles);
            let order = self.order(geometry.range());
            let body = |stage, products, m| {
                Body { plan: self, call, geometry, products, order, stage, v: v.ptr(), m }.run(isa);
            };
            if is_input(stage) {
                let (block, tiles) = (task / input_parts, part(geometry.tiles, input_parts, task % input_parts));
                return body(Stage::Input(block..block + 1, tiles), geometry, std::ptr::null_mut());
            }
            let panel = part(self.out_blocks(), panels, task / parts);
            let tiles = part(geometry.tiles, parts, task % parts);
            let products = Geometry::new(self.variant, tiles.clone());
            assert!(m.len() >= self.block_lens(&products).1);
            let m = m.as_mut_ptr().wrapping_sub(tiles.start * LANES);
            body(Stage::Output(panel, tiles), products, m);
        });
    }
}
