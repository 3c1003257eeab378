//! Winograd convolution: the order of the sums is that of [`crate::reference::winograd`].
//!
//! Tiles are taken block by block: a block's inputs are transformed, then for each panel of output channels the
//! products at all positions are summed over the input channels (a small matrix product each) and transformed back,
//! with bias and PReLU, before the next panel. So products stay near, while the transformed inputs of many channels lie
//! in the third cache: reading the weights seldom is worth more. Where the second cache holds the weights, blocks are
//! smaller, and it holds their transforms too.

mod blocks;
mod body;
mod borders;
mod call;
mod edges;
mod epilogue;
mod first;
mod first_body;
mod groups;
mod interleave;
mod multiply;
mod order;
mod pack;
mod phases;
mod spread;
mod transform;
mod weights;
mod weights_body;
mod weights_gather;
mod weights_phases;
mod weights_together;

use super::run::Call as Tensors;
use super::tile::ROWS;
use super::{Layout, Options};
use crate::processor::processor;
use crate::reference::winograd::Variant;
use crate::stream;
use crate::threads::Shared;
use crate::{ConvShape, Dims, Isa, LANES, blocks};
use call::Call;
use interleave::Interleave;
use order::{Order, Place, Stretch};
use phases::Depth;
use std::ops::Range;
pub(super) use weights::Weights;

/// Blocks of output channels whose products are summed before they are transformed back.
const PANEL: usize = 4;
/// Tiles of a thread's block at least and at most: few read the weights too often, many fall out of the second cache.
const TILES: Range<usize> = 24..72;
/// Elements of the transformed inputs and products that a block should have, down to the fewest tiles, where the second
/// cache holds the weights beside them ([`Winograd::is_near`]) and to read them often costs little: 480 KiB. 64
/// channels took up to a ninth longer with the most tiles (Granite Rapids).
const BESIDE: usize = 15 << 13;
/// Tiles that a thread takes at least, lest it read the weights for too few; threads rather share a block.
const FEWEST: usize = 2 * ROWS;
/// Products of a vector in the time in which one comes from the third cache.
const READ: usize = 8;
/// Elements that a block's transformed inputs should have at most: 8 MiB, a part of the third cache.
const BLOCK: usize = 1 << 21;
/// Elements of transformed weights beyond which they come from memory rather than from the third cache: 32 MiB.
pub(super) const UNCACHED: usize = 1 << 23;
/// Elements of packed weights beyond which they are asked for ahead of time: 1 MiB. The second cache does not hold them
/// beside the transforms, and in a net whose weights exceed the third they come from memory: layers of one image took
/// up to a fifth longer without. Where it has 2 MiB (Granite Rapids), weights of 1 to 2 MiB gain 2 to 9 %.
pub(super) const FAR: usize = 1 << 18;
/// And beyond which it pays to take fewer streams of them at a time (see `multiply.rs`): 12 MiB.
const FARTHEST: usize = 3 << 20;
/// Blocks a thread from which on it does not matter whether threads get equally many.
const EVEN: usize = 8;

/// What a Winograd pass computes and how it walks.
#[derive(Debug, Clone)]
pub(super) struct Winograd {
    pub variant: Variant,
    /// Of a group.
    input: Dims,
    output: Dims,
    /// How many groups of channels there are, and which of them is computed (see `groups.rs`).
    groups: usize,
    group: usize,
    /// How input and output lie. If one is NCHW, `input` and `output` are of one image of so many.
    layouts: (Layout, Layout),
    images: usize,
    pad_top: usize,
    pad_left: usize,
    /// How the outputs of phases share the output, where the phases are not of the input.
    interleave: Option<Interleave>,
    /// Elements of the output from which on it is streamed.
    streamed_from: usize,
    /// Tiles in a thread's block at most.
    tiles: usize,
    /// Tiles in a block that threads share.
    shared_tiles: usize,
    /// Elements of the packed weights of a block of output channels, `[position][depth][16]`: an odd number of vectors,
    /// so that blocks do not share a cache set.
    block_len: usize,
}

/// Where a block of tiles stands and how its transformed inputs and products lie.
#[derive(Debug, Clone, Copy)]
struct Geometry {
    /// Its first tile, counted over all images.
    first: usize,
    /// Its tiles.
    tiles: usize,
    /// Elements between positions: an odd number of vectors, so that positions do not share a cache set.
    position: usize,
    /// Elements between blocks of channels.
    block: usize,
}

impl Geometry {
    fn new(variant: Variant, tiles: Range<usize>) -> Geometry {
        Geometry::with(variant.n() * variant.n(), tiles)
    }

    /// With so many positions.
    fn with(positions: usize, tiles: Range<usize>) -> Geometry {
        let position = (tiles.len() | 1) * LANES;
        let block = ((positions * (position / LANES)) | 1) * LANES;
        Geometry { first: tiles.start, tiles: tiles.len(), position, block }
    }

    /// Its tiles, counted over all images.
    fn range(&self) -> Range<usize> {
        self.first..self.first + self.tiles
    }
}

impl Winograd {
    /// Plans a shape that the variant serves ([`crate::reference::winograd::check`]).
    pub fn new(variant: Variant, s: &ConvShape, options: &Options) -> Winograd {
        let images =
            if (options.input, options.output) == (Layout::Blocked, Layout::Blocked) { s.n } else { s.n.min(1) };
        let group = ConvShape { n: images, ..s.group() };
        let pads = [s.pad_top, s.pad_left];
        Winograd::plan(variant, s, [group.input(), group.output()], pads, None, options)
    }

    /// Plans the dimensions of a group of a shape, or of its gradient.
    fn plan(
        variant: Variant,
        s: &ConvShape,
        [input, output]: [Dims; 2],
        [pad_top, pad_left]: [usize; 2],
        interleave: Option<Interleave>,
        options: &Options,
    ) -> Winograd {
        let mut plan = Winograd {
            variant,
            input,
            output,
            groups: s.groups,
            group: 0,
            layouts: (options.input, options.output),
            images: s.n,
            pad_top,
            pad_left,
            interleave,
            streamed_from: stream::least(options),
            tiles: 1,
            shared_tiles: 1,
            block_len: 0,
        };
        plan.block_len = (plan.depth().lines() | 1).saturating_mul(LANES);
        let (tile, total) = (plan.positions() * plan.segments() * LANES, plan.total());
        let most = BLOCK / tile;
        let usual = match plan.is_near() {
            true => BESIDE / (tile + plan.positions() * PANEL.min(plan.out_blocks()) * LANES),
            false => most,
        };
        let usual = if plan.is_first() { first::TILES } else { usual.clamp(TILES.start, TILES.end) };
        let wanted = options.blocking.map_or(usual, |b| b.rows.max(1));
        plan.tiles = if plan.is_first() { wanted } else { wanted.clamp(1, total.max(1)) };
        let wanted = options.blocking.map_or(most.max(TILES.start), |b| b.rows.max(1));
        plan.shared_tiles = total.div_ceil(total.div_ceil(wanted));
        plan
    }

    /// Whether it is that of a first layer, from NCHW, with stages of its own.
    fn is_first(&self) -> bool {
        self.variant == Variant::F4x7S2 && self.interleave.is_none()
    }

    fn in_blocks(&self) -> usize {
        blocks(self.input.c)
    }

    /// Blocks of outputs that have weights of their own: of output channels, at all phases where these are of the
    /// output.
    fn out_blocks(&self) -> usize {
        self.interleave.map_or(1, |i| i.blocks()) * blocks(self.output.c)
    }

    /// Blocks of input channels at all of the input's phases.
    fn segments(&self) -> usize {
        self.in_blocks() * self.depth().phases([0, 0])
    }

    /// How far a position's sum goes.
    fn depth(&self) -> Depth {
        match self.interleave {
            Some(_) => Depth::interleaved(self.variant, self.input.c),
            None => Depth::new(self.variant, self.input.c),
        }
    }

    fn positions(&self) -> usize {
        self.variant.n() * self.variant.n()
    }

    /// Rows and columns of tiles of one image.
    fn grid(&self) -> (usize, usize) {
        let [rows, cols] = self.interleave.map_or([self.output.h, self.output.w], |i| i.lens());
        (rows.div_ceil(self.variant.m()), cols.div_ceil(self.variant.m()))
    }

    /// Tiles of all images.
    fn total(&self) -> usize {
        let (rows, cols) = self.grid();
        self.input.n * rows * cols
    }

    /// Whether a group's weights are few enough for the second cache that small blocks pay: half of it.
    fn is_near(&self) -> bool {
        self.group_packed_len() <= processor().second_cache_len() / 2
    }

    /// Whether a group's weights come from memory each time that they are used.
    fn is_uncached(&self) -> bool {
        self.group_packed_len() > UNCACHED
    }

    /// Whether weights come from so far that it pays to ask for them ahead of time.
    fn is_far(&self) -> bool {
        self.packed_len() > FAR
    }

    /// Whether they come from so far that few streams are best.
    fn is_farthest(&self) -> bool {
        self.packed_len() > FARTHEST
    }

    /// Elements of the packed weights, `[group][oc / 16][position][depth][16]`; see `interleave.rs` for those of a
    /// strided gradient.
    pub fn packed_len(&self) -> usize {
        self.groups.saturating_mul(self.group_packed_len())
    }

    /// Elements of those of a group.
    fn group_packed_len(&self) -> usize {
        self.out_blocks().saturating_mul(self.block_len)
    }

    /// The name of the kernel.
    pub fn kernel(&self, isa: Isa) -> String {
        let vectors = isa.tile_vectors();
        let (m, r) = (self.variant.m(), self.variant.r());
        let stride = if self.variant.stride() > 1 { "s2" } else { "" };
        let blocks = if self.interleave.is_some_and(|i| i.is_together) { 1 } else { blocks(self.output.c) };
        let rows = if blocks == 1 && !self.is_first() { isa.narrow_rows() } else { ROWS };
        format!("winograd-f{m}x{r}{stride}-{isa}-{rows}x{}", vectors.min(blocks) * LANES)
    }

    /// Elements of a block's transformed inputs, and of a panel's products.
    fn block_lens(&self, geometry: &Geometry) -> (usize, usize) {
        (self.segments() * geometry.block, PANEL.min(self.out_blocks()) * geometry.block)
    }

    /// Tiles of the blocks that so many threads take each on its own; `None` where they share blocks.
    fn own_tiles(&self, threads: usize) -> Option<usize> {
        let total = self.total();
        let mut count = total.div_ceil(self.tiles);
        if count < EVEN * threads {
            count = count.next_multiple_of(threads).min(total);
        }
        let tiles = total.div_ceil(count);
        (threads == 1 || tiles >= FEWEST && !self.is_uncached()).then_some(tiles)
    }

    /// Into how many panels of output channels, and each into how many parts of a block's tiles, so many threads cut
    /// what they compute of a block that they share: so that the last of them ends as early as may be.
    fn cuts(&self, tiles: usize, threads: usize) -> (usize, usize) {
        let most = self.out_blocks();
        // Parts of few tiles read the weights too often, but where there are no other tasks.
        let parts = 1..=(tiles / FEWEST).max(threads.div_ceil(most).min(tiles));
        let time = |&(panels, parts): &(usize, usize)| {
            // In products of a vector at a position: those of a task, and what reading its weights and inputs takes.
            let (blocks, tiles) = (most.div_ceil(panels), tiles.div_ceil(parts));
            let task = blocks * tiles + READ * (blocks + tiles.div_ceil(LANES));
            (panels * parts).div_ceil(threads) * task
        };
        (most.div_ceil(PANEL)..=most)
            .flat_map(|panels| parts.clone().map(move |parts| (panels, parts)))
            .min_by_key(time)
            .unwrap_or((most, 1))
    }

    /// Elements of a shared block's transformed inputs, and of a thread's products.
    fn shared_lens(&self, threads: usize) -> (usize, usize) {
        let part = self.shared_tiles.div_ceil(self.cuts(self.shared_tiles, threads).1);
        let of = |tiles| self.block_lens(&Geometry::new(self.variant, 0..tiles));
        (of(self.shared_tiles).0, of(part).1)
    }

    /// Elements of the workspace with that many threads.
    pub fn workspace_len(&self, threads: usize) -> usize {
        groups::len(self.groups, threads, |threads| self.group_len(threads))
    }

    /// Elements that a group needs.
    fn group_len(&self, threads: usize) -> usize {
        let threads = threads.max(1);
        if self.is_first() {
            return threads * self.first_len();
        }
        self.blocks_len(threads) + self.borders_len(threads)
    }

    /// Elements of the transformed inputs and products of so many threads, never less than of one.
    fn blocks_len(&self, threads: usize) -> usize {
        // Bands of their own, of tensors with borders, are never shared.
        if self.own_tiles(threads).is_some() || self.borders_len(threads) > 0 && self.schedule(threads).is_some() {
            return threads * self.scratch_len();
        }
        let (v, m) = self.shared_lens(threads);
        (v + threads * m).max(self.scratch_len())
    }

    /// Elements of a thread's transformed inputs and products.
    fn scratch_len(&self) -> usize {
        let (v, m) = self.block_lens(&Geometry::new(self.variant, 0..self.tiles));
        v + m
    }

    /// Runs the pass. All lengths have been checked: the tensors are those of the shape, the weights
    /// [`Winograd::packed_len`], the padding whole blocks, the workspace at least [`Winograd::workspace_len`] of one
    /// thread.
    pub fn run(&self, isa: Isa, call: Tensors<'_>, workspace: &mut [f32]) {
        let Tensors { x, packed, pads, y, bias, slopes, shortcut, pre } = call;
        let images = self.images / self.input.n.max(1) * self.groups;
        let (input, output) = (self.layouts.0.len(&self.input), self.layouts.1.len(&self.output));
        assert!(x.len() == images * input && y.len() == images * output);
        assert!(pre.as_ref().is_none_or(|p| p.len() == y.len()) && packed.len() == self.packed_len());
        let padding = self.groups * self.in_blocks() * LANES;
        assert!(shortcut.is_none_or(|s| s.len() == y.len()) && (pads.is_empty() || pads.len() == padding));
        let fits = |p: Option<&[f32]>| p.is_none_or(|p| p.len() == 1 || p.len() == self.groups * self.output.c);
        assert!(fits(bias) && fits(slopes));
        let streams = stream::streams(y, pre.as_deref(), self.streamed_from);
        let (y, pre) = (Shared::new(y), pre.map(Shared::new));
        let call = Call { x, packed, pads, bias, slopes, shortcut, y, pre, streams };
        groups::for_each(
            self.groups,
            workspace,
            |threads| self.group_len(threads),
            |group, threads, workspace| {
                let (plan, call) = self.of_group(&call, group);
                plan.run_group(isa, &call, threads, workspace);
            },
        );
    }
}
