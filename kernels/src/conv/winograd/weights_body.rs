//! The stages of a block of tiles of the weight gradient: transform, multiply at each position, transform the sums.

use super::Geometry;
use super::edges::{Axis, Transform};
use super::order::{Order, Stretch};
use super::spread::{Source, Spread};
use super::transform::{Adjoint, F2x3, F3x2, F4x2, F4x3, Line};
use super::weights::{Share, Weights};
use super::weights_phases::{Inputs, phase};
use crate::conv::Layout;
use crate::conv::backward_weights::add_lines;
use crate::conv::tile::{Ahead, ROWS, Run, accumulate, parts};
use crate::reference::winograd::Variant;
use crate::threads::Shared;
use crate::{Isa, Kernel, LANES, Simd};
use std::marker::PhantomData;
use std::ops::Range;

/// Chunks whose orders are found at a time: found for each position anew, they took a twentieth of A.conv4's time.
const ORDERS: usize = 8;

/// Blocks of input and of output channels.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    pub ins: Range<usize>,
    pub outs: Range<usize>,
}

impl Unit {
    /// Elements between positions of its sums, `[position][oc block][ic][16]`: an odd number of vectors, so that
    /// positions do not share a cache set.
    pub fn plane(&self) -> usize {
        ((self.outs.len() * self.ins.len() * LANES) | 1) * LANES
    }

    /// Elements between blocks of output channels.
    pub fn stream(&self) -> usize {
        self.ins.len() * LANES * LANES
    }
}

/// What to do with a block of tiles.
pub(super) enum Stage {
    /// Transform these blocks of channels of a share, its inputs counted before its outputs, at its rows of positions,
    /// of these tiles, whole chunks of the block's.
    Spread(Share, Range<usize>, Range<usize>),
    /// Sum the products of some units of a share, of these of the blocks of input channels of each as far as it has
    /// them, at these of the share's positions: at each of them all units.
    Multiply(Share, Range<usize>, Range<usize>, Range<usize>),
    /// Transform the sums of these of a unit's blocks of output channels to weights.
    Gather(Unit, Range<usize>),
}

/// What all tasks of a pass are given.
#[derive(Clone, Copy)]
pub(super) struct Tensors<'a> {
    pub x: &'a [f32],
    pub dy: &'a [f32],
    pub dw: Shared,
}

/// A stage of one block of tiles. Whoever makes it promises that `v` has room for a share's transforms of `geometry`'s
/// tiles, `m` for the sums of the stage's units; that `x` and `dy` have the images of all groups, `dw` the weights of
/// this one; and that no other thread touches what the stage writes, or writes what it reads.
pub(super) struct Body<'a> {
    pub plan: &'a Weights,
    pub tensors: Tensors<'a>,
    pub geometry: Geometry,
    pub stage: Stage,
    /// The share's transformed inputs, then output gradients, `[block][position][tile][16]`, as `geometry` says.
    pub v: *mut f32,
    /// The sums of the first unit, which those of the next ones follow.
    pub m: *mut f32,
}

/// A stage's work: one function each, lest the compiler spill in the products.
pub(super) struct Part<'a, T>(pub &'a Body<'a>, pub T);

/// Some tiles of a chunk to transform, of a block of a tensor; and where to.
#[derive(Clone)]
struct Tiles<'a> {
    source: Source<'a>,
    block: usize,
    stretch: Stretch,
    to: Spread,
}

/// Transforms tiles by `T`, `M` pixels apart.
struct Whole<'a, T, const A: usize, const B: usize, const M: usize>(&'a Tiles<'a>, PhantomData<T>);
/// The same at one phase, or at all in the lanes of a block.
struct Phase<'a, T, const N: usize, const M: usize>(&'a Tiles<'a>, [usize; 2], PhantomData<T>);
struct Together<'a, T, const N: usize, const M: usize>(&'a Tiles<'a>, PhantomData<T>);
/// The same of tiles that lack positions.
struct Edges<'a, T>(&'a Tiles<'a>, Transform, PhantomData<T>);
/// Sums the products of some units of a share, of some input channels of each at some positions.
struct Products<'a>(&'a Share, Range<usize>, Range<usize>, Range<usize>);
/// A chunk's products at one position: so many transforms of either side from where these point on, and the sums.
#[derive(Clone, Copy)]
struct Chunk {
    x: *const f32,
    dy: *const f32,
    m: *mut f32,
    len: usize,
    /// Whether to set the sums in place of adding to them.
    first: bool,
    /// Groups of chunks before, whose sums are to be added up first; else 0.
    group: usize,
    /// The position.
    at: [usize; 2],
}

// SAFETY of all: `run_group` and `run_together` have made `v` and `m` as [`Body`] says, `Weights::run` the tensors; no
// two tasks have the sums of a pair of channels at the same position, or its weights.
impl<T: Line<A, B>, const A: usize, const B: usize, const M: usize> Kernel for Part<'_, Whole<'_, T, A, B, M>> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part(Body { geometry: g, .. }, Whole(tiles, _)) = self;
        let (places, to) = (tiles.stretch.places.clone(), tiles.to.clone());
        // SAFETY: see above.
        unsafe { tiles.source.spread::<S, T, A, B>(s, g, M, places, tiles.block, to) }
    }
}

impl<T: Line<N, N>, const N: usize, const M: usize> Kernel for Part<'_, Phase<'_, T, N, M>> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part(Body { geometry: g, .. }, Phase(tiles, phase, _)) = self;
        let (places, to) = (tiles.stretch.places.clone(), tiles.to.clone());
        // SAFETY: see above.
        unsafe { tiles.source.spread_phase::<S, T, N>(s, g, M, places, (tiles.block, phase), to) }
    }
}

impl<T: Line<N, N>, const N: usize, const M: usize> Kernel for Part<'_, Together<'_, T, N, M>> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part(Body { geometry: g, .. }, Together(tiles, _)) = self;
        let (places, to) = (tiles.stretch.places.clone(), tiles.to.clone());
        // SAFETY: see above.
        unsafe { tiles.source.spread_lanes::<S, T, N>(s, g, M, places, to) }
    }
}

impl<T: Axis> Kernel for Part<'_, Edges<'_, T>> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part(Body { geometry: g, .. }, Edges(tiles, which, _)) = self;
        let (stretch, to) = (tiles.stretch.clone(), tiles.to.clone());
        // SAFETY: see above.
        unsafe { tiles.source.spread_edges::<S, T>(s, g, which, tiles.block, stretch, to) }
    }
}

impl Kernel for Part<'_, Products<'_>> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part(body, Products(share, units, ins, positions)) = self;
        // SAFETY: see above.
        unsafe { body.multiply(s, share, units, ins, positions) }
    }
}

impl Body<'_> {
    /// Runs the stage.
    pub fn run(&self, isa: Isa) {
        match &self.stage {
            Stage::Spread(share, channels, tiles) => self.spread(isa, share, channels.clone(), tiles.clone()),
            Stage::Multiply(share, units, ins, positions) => {
                isa.dispatch(Part(self, Products(share, units.clone(), ins.clone(), positions.clone())));
            }
            Stage::Gather(unit, outs) => self.run_gather(isa, unit, outs.clone()),
        }
    }

    /// `Bᵀ d B` of input channels, `A dY Aᵀ` of output channels: of each chunk the tiles in their order.
    fn spread(&self, isa: Isa, share: &Share, channels: Range<usize>, tiles: Range<usize>) {
        let (f, g) = (&self.plan.forward, &self.geometry);
        let (pad_top, pad_left) = (f.pad_top, f.pad_left);
        let x = Source { x: self.tensors.x, layout: self.plan.layout, dims: f.input, pads: &[], pad_top, pad_left };
        let dy =
            Source { x: self.tensors.dy, layout: Layout::Blocked, dims: f.output, pads: &[], pad_top: 0, pad_left: 0 };
        // Without edges the order is that of the places.
        let step = if f.edges() == [0, 0] { tiles.len().max(1) } else { self.plan.chunks.tiles };
        for i in channels {
            let (source, which, block) = match i.checked_sub(share.ins.len()) {
                None => (x, Transform::Input, share.ins.start + i),
                Some(i) => (dy, Transform::Gradient, share.outs.start + i),
            };
            for chunk in tiles.clone().step_by(step) {
                let len = step.min(tiles.end - chunk);
                let (first, v) = (g.first + chunk, self.v.wrapping_add(i * g.block + chunk * LANES));
                for stretch in f.stretches(f.order(first..first + len), 0..len) {
                    let to = Spread { rows: share.rows.clone(), v, tiles: stretch.tiles.clone() };
                    self.transform(isa, &Tiles { source, block, stretch, to }, which);
                }
            }
        }
    }

    fn transform(&self, isa: Isa, tiles: &Tiles<'_>, which: Transform) {
        if which == Transform::Input && self.plan.inputs != Inputs::Channels {
            return self.transform_phase(isa, tiles);
        }
        let is_input = which == Transform::Input;
        match (self.plan.variant(), tiles.stretch.is_whole()) {
            (Variant::F4x3, true) if is_input => isa.dispatch(Part(self, Whole::<F4x3, 6, 6, 4>(tiles, PhantomData))),
            (Variant::F2x3, true) if is_input => isa.dispatch(Part(self, Whole::<F2x3, 4, 4, 2>(tiles, PhantomData))),
            (Variant::F4x2, true) if is_input => isa.dispatch(Part(self, Whole::<F4x2, 5, 5, 4>(tiles, PhantomData))),
            (Variant::F3x2, true) if is_input => isa.dispatch(Part(self, Whole::<F3x2, 4, 4, 3>(tiles, PhantomData))),
            (Variant::F4x3, false) => isa.dispatch(Part(self, Edges::<F4x3>(tiles, which, PhantomData))),
            (Variant::F2x3, false) => isa.dispatch(Part(self, Edges::<F2x3>(tiles, which, PhantomData))),
            (Variant::F4x2, false) => isa.dispatch(Part(self, Edges::<F4x2>(tiles, which, PhantomData))),
            (Variant::F3x2, false) => isa.dispatch(Part(self, Edges::<F3x2>(tiles, which, PhantomData))),
            (Variant::F2x3, true) => isa.dispatch(Part(self, Whole::<F2x3, 2, 4, 2>(tiles, PhantomData))),
            (Variant::F4x3 | Variant::F4x5S2, _) => {
                isa.dispatch(Part(self, Whole::<F4x3, 4, 6, 4>(tiles, PhantomData)));
            }
            (Variant::F4x2 | Variant::F4x3S2 | Variant::F4x4S2, _) => {
                isa.dispatch(Part(self, Whole::<F4x2, 4, 5, 4>(tiles, PhantomData)));
            }
            (Variant::F3x2 | Variant::F3x3S2, _) => {
                isa.dispatch(Part(self, Whole::<F3x2, 3, 4, 3>(tiles, PhantomData)));
            }
            (Variant::F4x7S2, _) => isa.dispatch(Part(self, Whole::<Adjoint, 4, 7, 4>(tiles, PhantomData))),
        }
    }

    /// Transforms the inputs of a block of a phase, or of all.
    fn transform_phase(&self, isa: Isa, tiles: &Tiles<'_>) {
        let of = Tiles { block: tiles.block / self.plan.inputs.phases(), ..tiles.clone() };
        let (tiles, phase) = (&of, phase(tiles.block % self.plan.inputs.phases()));
        match (self.plan.variant(), self.plan.inputs == Inputs::Lanes) {
            (Variant::F4x3S2 | Variant::F4x4S2, false) => {
                isa.dispatch(Part(self, Phase::<F4x2, 5, 4>(tiles, phase, PhantomData)));
            }
            (Variant::F3x3S2, false) => isa.dispatch(Part(self, Phase::<F3x2, 4, 3>(tiles, phase, PhantomData))),
            (Variant::F4x5S2, false) => isa.dispatch(Part(self, Phase::<F4x3, 6, 4>(tiles, phase, PhantomData))),
            (Variant::F4x3S2 | Variant::F4x4S2, true) => {
                isa.dispatch(Part(self, Together::<F4x2, 5, 4>(tiles, PhantomData)));
            }
            (Variant::F3x3S2, true) => isa.dispatch(Part(self, Together::<F3x2, 4, 3>(tiles, PhantomData))),
            (Variant::F4x5S2, true) => isa.dispatch(Part(self, Together::<F4x3, 6, 4>(tiles, PhantomData))),
            (Variant::F4x7S2, true) => isa.dispatch(Part(self, Together::<Adjoint, 7, 4>(tiles, PhantomData))),
            // `check_weights`: no plan has more channels of 7×7; the others have no phases.
            _ => {}
        }
    }
}

impl Body<'_> {
    /// The products of some units' channels, summed over the block's tiles that have the position.
    /// # Safety
    /// As [`Body`] says of `v` and `m`; share, units, blocks and positions are the stage's.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(
        &self,
        s: S,
        share: &Share,
        units: Range<usize>,
        ins: Range<usize>,
        positions: Range<usize>,
    ) {
        let (f, g, each) = (&self.plan.forward, &self.geometry, self.plan.chunks.tiles);
        for first in (0..g.tiles).step_by(ORDERS * each) {
            let at = |i: usize| g.first + g.tiles.min(first + i * each);
            let orders: [Order; ORDERS] = std::array::from_fn(|i| f.order(at(i)..at(i + 1)));
            for position in positions.clone() {
                for number in units.clone() {
                    let unit = self.plan.unit(share, number);
                    let m = self.m.wrapping_add((number - units.start) * self.plan.unit_len());
                    let ins = ins.start..ins.end.min(unit.ins.len());
                    // SAFETY: the caller's promise.
                    unsafe { self.multiply_unit(s, share, &unit, m, ins, position, first, &orders) };
                }
            }
        }
    }

    /// Those of one unit, whose sums lie at `m`, at one position: of the chunks of these orders, from tile `first` on.
    /// # Safety
    /// As [`Body::multiply`]; the orders are those of the geometry's chunks.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn multiply_unit<S: Simd>(
        &self,
        s: S,
        share: &Share,
        unit: &Unit,
        m: *mut f32,
        ins: Range<usize>,
        position: usize,
        first: usize,
        orders: &[Order; ORDERS],
    ) {
        let (g, each, n) = (&self.geometry, self.plan.chunks.tiles, self.plan.variant().n());
        let m = m.wrapping_add((share.rows.start * n + position) * unit.plane());
        let from = |block: usize| self.v.wrapping_add(block * g.block + position * g.position);
        let x = from(unit.ins.start - share.ins.start).cast_const();
        let dy = from(share.ins.len() + unit.outs.start - share.outs.start).cast_const();
        let at = [share.rows.start + position / n, position % n];
        for (start, order) in (first..g.tiles).step_by(each).zip(orders) {
            let having = order.having(at);
            let from = (start + having.start) * LANES;
            let (x, dy, len) = (x.wrapping_add(from), dy.wrapping_add(from), having.len());
            let (number, group) = ((g.first + start) / each, self.plan.chunks.group);
            let first = number.is_multiple_of(group);
            let chunk = Chunk { x, dy, m, len, first, group: if first { number / group } else { 0 }, at };
            for (start, vectors) in parts(unit.outs.len(), unit.outs.len().div_ceil(S::TILE_VECTORS)) {
                let (dy, m) = (dy.wrapping_add(start * g.block), m.wrapping_add(start * unit.stream()));
                let chunk = Chunk { dy, m, ..chunk };
                // SAFETY: the caller's promise.
                unsafe {
                    match vectors {
                        4 if const { S::TILE_VECTORS >= 4 } => self.panel::<S, 4>(s, unit, ins.clone(), chunk),
                        3 if const { S::TILE_VECTORS >= 3 } => self.panel::<S, 3>(s, unit, ins.clone(), chunk),
                        2 if const { S::TILE_VECTORS >= 2 } => self.panel::<S, 2>(s, unit, ins.clone(), chunk),
                        _ => self.panel::<S, 1>(s, unit, ins.clone(), chunk),
                    }
                }
            }
        }
    }

    /// A chunk of one position, some input channels of the unit, `J` vectors of output channels.
    /// # Safety
    /// So many transforms of each of these blocks must be readable from `chunk.x` on, and of `J` from `chunk.dy` on;
    /// the unit's sums of them must be accessible from `chunk.m` on, and where there are groups before, theirs.
    #[inline(always)]
    unsafe fn panel<S: Simd, const J: usize>(&self, s: S, unit: &Unit, ins: Range<usize>, chunk: Chunk) {
        for i in ins {
            if !self.plan.takes_part(unit.ins.start + i, chunk.at) {
                continue;
            }
            let x = chunk.x.wrapping_add(i * self.geometry.block);
            let lanes = self.plan.lanes(unit.ins.start + i);
            for (row, rows) in parts(lanes, lanes.div_ceil(ROWS)) {
                let m = chunk.m.wrapping_add((i * LANES + row) * LANES);
                let chunk = Chunk { x: x.wrapping_add(row), m, ..chunk };
                // SAFETY: the caller's promise.
                unsafe {
                    match rows {
                        1 => self.rows::<S, 1, J>(s, unit, chunk),
                        2 => self.rows::<S, 2, J>(s, unit, chunk),
                        3 => self.rows::<S, 3, J>(s, unit, chunk),
                        4 => self.rows::<S, 4, J>(s, unit, chunk),
                        5 => self.rows::<S, 5, J>(s, unit, chunk),
                        _ => self.rows::<S, ROWS, J>(s, unit, chunk),
                    }
                }
            }
        }
    }

    /// One register tile: `I` input channels, `J` vectors.
    /// # Safety
    /// As [`Body::panel`], of `I` channels of a block, the first at `chunk.x`.
    #[inline(always)]
    unsafe fn rows<S: Simd, const I: usize, const J: usize>(&self, s: S, unit: &Unit, chunk: Chunk) {
        let Chunk { x, dy, m, len, first, group, .. } = chunk;
        if group > 0 {
            // SAFETY: the caller's promise; there is room for the sums of the groups before.
            unsafe { self.carry::<S, I, J>(s, unit, m, group == 1) };
        }
        let mut rows = [x; I];
        for (i, x) in rows.iter_mut().enumerate() {
            *x = x.wrapping_add(i);
        }
        if !first {
            for i in 0..I {
                (0..J).for_each(|j| s.prefetch(m.wrapping_add(j * unit.stream() + i * LANES)));
            }
        }
        // SAFETY: the caller's promise.
        unsafe {
            let run = Run { x: 0, w: 0, len };
            let acc = accumulate::<S, I, J>(s, &rows, LANES, [run], dy, self.geometry.block, Ahead::NONE);
            add_lines::<S, I, J>(s, &acc, m, unit.stream(), first);
        }
    }

    /// Adds the sums of a group of chunks to those of the groups before, or sets these.
    /// # Safety
    /// `J` streams of `I` lines of 16 must be readable at `m`, and accessible [`Weights::before`] elements on.
    #[inline(always)]
    unsafe fn carry<S: Simd, const I: usize, const J: usize>(&self, s: S, unit: &Unit, m: *mut f32, sets: bool) {
        for at in (0..I).flat_map(|i| (0..J).map(move |j| (i, j))).map(|(i, j)| j * unit.stream() + i * LANES) {
            // SAFETY: the caller's promise.
            unsafe {
                let (sum, total) = (s.load(m.add(at)), m.add(at + self.plan.before()));
                s.store(total, if sets { sum } else { s.add(s.load(total), sum) });
            }
        }
    }
}
