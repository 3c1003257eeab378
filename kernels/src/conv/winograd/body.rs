//! The three stages of a block of tiles: transform the inputs, multiply at each position, transform the products.

use super::edges::{Axis, Transform};
use super::epilogue::{Epilogue, Rooms};
use super::multiply::Multiply;
use super::spread::{Source, Spread};
use super::transform::{F2x3, F3x2, F4x2, F4x3, F4x4, Line};
use super::{Call, Geometry, Order, PANEL, Stretch, Winograd, phases};
use crate::conv::Layout;
use crate::conv::tile::parts;
use crate::reference::winograd::Variant;
use crate::{Isa, Kernel, LANES, Simd};
use std::marker::PhantomData;
use std::ops::Range;

/// What to do with a block of tiles.
#[derive(Debug, Clone)]
pub(super) enum Stage {
    /// Transform these blocks of input channels of these tiles.
    Input(Range<usize>, Range<usize>),
    /// From the transformed inputs, compute these blocks of output channels of these tiles.
    Output(Range<usize>, Range<usize>),
}

/// A stage of one block of tiles. Whoever makes it promises that `v` has room for the transforms of `geometry`'s tiles,
/// of all segments, and `m`, where outputs are computed, for the products of `products`'s tiles, of as many blocks as a
/// panel has, at most [`PANEL`]; that the call's tensors have the images of all groups, its other slices the lengths of
/// the plan; that no other thread touches what the stage writes, or writes what it reads; and that outputs are whole
/// lines if they are streamed.
pub(super) struct Body<'a> {
    pub plan: &'a Winograd,
    pub call: &'a Call<'a>,
    /// How the transformed inputs lie.
    pub geometry: Geometry,
    /// How the products lie.
    pub products: Geometry,
    pub order: Order,
    pub stage: Stage,
    /// Transformed inputs, `[segment][position][tile][16]`, as `geometry` says.
    pub v: *mut f32,
    /// Room for products, `[oc block of a panel][position][tile][16]`, as `products` says, where the block's first tile
    /// would lie.
    pub m: *mut f32,
}

/// A stage's transform or product of a block of tiles: one function each. In one with all variants the compiler
/// spilled, and shallow layers took a quarter longer.
pub(super) struct Part<'a, T>(pub &'a Body<'a>, pub T);

/// Transforms blocks of input channels of some tiles by `T`.
struct Input<T, const N: usize, const M: usize>(Range<usize>, Stretch, PhantomData<T>);

/// The same of tiles that lack positions.
struct EdgeInput<T>(Range<usize>, Stretch, PhantomData<T>);

/// The same at all phases.
struct Phases<T, const N: usize, const O: usize>(Range<usize>, Stretch, PhantomData<T>);

/// Transforms the products of a panel by `T`.
struct Output<T, const N: usize, const M: usize>(Range<usize>, Stretch, PhantomData<T>);

/// The same of tiles that lack positions.
struct EdgeOutput<T, const M: usize>(Range<usize>, Stretch, PhantomData<T>);

// SAFETY of all: `run_apart` and `run_together` (see `blocks.rs`) have made `v` and `m` as [`Body`] says;
// `Winograd::run` has checked the call's lengths, and where a tensor is NCHW `run_band` has made those of a band;
// blocks, panels and stretches are the stage's.
impl<T: Line<N, N>, const N: usize, const M: usize> Kernel for Part<'_, Input<T, N, M>> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part(body, Input(blocks, stretch, _)) = self;
        // A loop: a closure is not always inlined, and outside its shim a vector is not a register.
        for block in blocks {
            // SAFETY: see above.
            unsafe { body.input::<S, T, N, M>(s, block, stretch.clone()) }
        }
    }
}

impl<T: Line<N, N> + Line<O, O>, const N: usize, const O: usize> Kernel for Part<'_, Phases<T, N, O>> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part(body, Phases(blocks, stretch, _)) = self;
        // A loop: a closure is not always inlined, and outside its shim a vector is not a register.
        for block in blocks {
            // SAFETY: see above.
            unsafe { body.phases::<S, T, N, O>(s, block, stretch.clone()) }
        }
    }
}

impl<T: Line<N, M>, const N: usize, const M: usize> Kernel for Part<'_, Output<T, N, M>> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part(body, Output(panel, stretch, _)) = self;
        // SAFETY: see above.
        unsafe { body.output::<S, T, N, M>(s, panel, &stretch) }
    }
}

impl<T: Axis> Kernel for Part<'_, EdgeInput<T>> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part(body, EdgeInput(blocks, stretch, _)) = self;
        for block in blocks {
            // SAFETY: see above.
            unsafe { body.edge_input::<S, T>(s, block, stretch.clone()) }
        }
    }
}

impl<T: Axis, const M: usize> Kernel for Part<'_, EdgeOutput<T, M>> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part(body, EdgeOutput(panel, stretch, _)) = self;
        // SAFETY: see above.
        unsafe { body.edge_output::<S, T, M>(s, panel, &stretch) }
    }
}

impl Body<'_> {
    /// Runs the stage.
    pub fn run(&self, isa: Isa) {
        match self.stage.clone() {
            Stage::Input(blocks, tiles) => {
                for stretch in self.plan.stretches(self.order, tiles) {
                    self.run_input(isa, blocks.clone(), stretch);
                }
            }
            Stage::Output(mut blocks, tiles) => {
                while !blocks.is_empty() {
                    let of_phase = self.plan.of_one_phase(blocks.clone());
                    for (start, len) in parts(of_phase.len(), of_phase.len().div_ceil(PANEL)) {
                        let panel = of_phase.start + start..of_phase.start + start + len;
                        isa.dispatch(Part(self, Multiply(panel.clone(), tiles.clone())));
                        for stretch in self.plan.stretches(self.order, tiles.clone()) {
                            self.run_output(isa, panel.clone(), stretch);
                        }
                    }
                    blocks.start = of_phase.end;
                }
            }
        }
    }

    fn run_input(&self, isa: Isa, blocks: Range<usize>, stretch: Stretch) {
        let is_whole = stretch.is_whole();
        let variant = match (self.plan.interleave, self.plan.variant) {
            // Phases of the output read one tile.
            (Some(_), Variant::F4x3S2 | Variant::F4x4S2) => Variant::F4x2,
            (Some(_), Variant::F3x3S2) => Variant::F3x2,
            (Some(_), Variant::F4x5S2) => Variant::F4x3,
            (Some(_), Variant::F4x7S2) => {
                return isa.dispatch(Part(self, Input::<F4x4, 7, 4>(blocks, stretch, PhantomData)));
            }
            (_, variant) => variant,
        };
        match variant {
            Variant::F4x3 if is_whole => isa.dispatch(Part(self, Input::<F4x3, 6, 4>(blocks, stretch, PhantomData))),
            Variant::F2x3 if is_whole => isa.dispatch(Part(self, Input::<F2x3, 4, 2>(blocks, stretch, PhantomData))),
            Variant::F4x2 if is_whole => isa.dispatch(Part(self, Input::<F4x2, 5, 4>(blocks, stretch, PhantomData))),
            Variant::F3x2 if is_whole => isa.dispatch(Part(self, Input::<F3x2, 4, 3>(blocks, stretch, PhantomData))),
            Variant::F4x3 => isa.dispatch(Part(self, EdgeInput::<F4x3>(blocks, stretch, PhantomData))),
            Variant::F2x3 => isa.dispatch(Part(self, EdgeInput::<F2x3>(blocks, stretch, PhantomData))),
            Variant::F4x2 => isa.dispatch(Part(self, EdgeInput::<F4x2>(blocks, stretch, PhantomData))),
            Variant::F3x2 => isa.dispatch(Part(self, EdgeInput::<F3x2>(blocks, stretch, PhantomData))),
            Variant::F4x3S2 => isa.dispatch(Part(self, Phases::<F4x2, 5, 4>(blocks, stretch, PhantomData))),
            Variant::F4x4S2 => isa.dispatch(Part(self, Phases::<F4x2, 5, 5>(blocks, stretch, PhantomData))),
            Variant::F4x5S2 => isa.dispatch(Part(self, Phases::<F4x3, 6, 5>(blocks, stretch, PhantomData))),
            Variant::F3x3S2 => isa.dispatch(Part(self, Phases::<F3x2, 4, 3>(blocks, stretch, PhantomData))),
            // See `first.rs`.
            Variant::F4x7S2 => {}
        }
    }

    fn run_output(&self, isa: Isa, panel: Range<usize>, stretch: Stretch) {
        if self.plan.interleave.is_some() {
            return self.run_interleaved(isa, panel, stretch);
        }
        match (self.plan.variant, stretch.is_whole()) {
            (Variant::F4x3, false) => isa.dispatch(Part(self, EdgeOutput::<F4x3, 4>(panel, stretch, PhantomData))),
            (Variant::F2x3, false) => isa.dispatch(Part(self, EdgeOutput::<F2x3, 2>(panel, stretch, PhantomData))),
            (Variant::F4x2, false) => isa.dispatch(Part(self, EdgeOutput::<F4x2, 4>(panel, stretch, PhantomData))),
            (Variant::F3x2, false) => isa.dispatch(Part(self, EdgeOutput::<F3x2, 3>(panel, stretch, PhantomData))),
            (Variant::F4x3 | Variant::F4x5S2, _) => {
                isa.dispatch(Part(self, Output::<F4x3, 6, 4>(panel, stretch, PhantomData)));
            }
            (Variant::F2x3, _) => isa.dispatch(Part(self, Output::<F2x3, 4, 2>(panel, stretch, PhantomData))),
            (Variant::F3x2 | Variant::F3x3S2, _) => {
                isa.dispatch(Part(self, Output::<F3x2, 4, 3>(panel, stretch, PhantomData)));
            }
            (Variant::F4x2 | Variant::F4x3S2 | Variant::F4x4S2, _) => {
                isa.dispatch(Part(self, Output::<F4x2, 5, 4>(panel, stretch, PhantomData)));
            }
            (Variant::F4x7S2, _) => {}
        }
    }
}

impl Body<'_> {
    /// `Bᵀ d B` of one block of channels.
    ///
    /// # Safety
    /// As [`Body`] says of `v` and the call's input; block and stretch are the stage's, `N` is its plan's.
    #[inline(always)]
    unsafe fn input<S: Simd, T: Line<N, N>, const N: usize, const M: usize>(
        &self,
        s: S,
        block: usize,
        Stretch { tiles, places, .. }: Stretch,
    ) {
        let to = Spread { rows: 0..N, v: self.v.wrapping_add(block * self.geometry.block), tiles };
        // SAFETY: the caller's promise.
        unsafe { self.source().spread::<S, T, N, N>(s, &self.geometry, M, places, block, to) }
    }

    /// The same of tiles that lack positions.
    ///
    /// # Safety
    /// As [`Body::input`], of the positions of `T`.
    #[inline(always)]
    unsafe fn edge_input<S: Simd, T: Axis>(&self, s: S, block: usize, stretch: Stretch) {
        let v = self.v.wrapping_add(block * self.geometry.block);
        let to = Spread { rows: 0..T::VARIANT.n(), v, tiles: stretch.tiles.clone() };
        // SAFETY: the caller's promise.
        unsafe { self.source().spread_edges::<S, T>(s, &self.geometry, Transform::Input, block, stretch, to) }
    }

    /// `Bᵀ d B` of one block of channels at all phases.
    ///
    /// # Safety
    /// As [`Body::input`]; `O` is the plan's, too.
    #[inline(always)]
    unsafe fn phases<S: Simd, T: Line<N, N> + Line<O, O>, const N: usize, const O: usize>(
        &self,
        s: S,
        block: usize,
        Stretch { tiles, places, .. }: Stretch,
    ) {
        let variant = self.plan.variant;
        let to = phases::Spread { variant, block, v: self.v, tiles };
        // SAFETY: the caller's promise.
        unsafe { self.source().spread_phases::<S, T, N, O>(s, &self.geometry, 2 * variant.m(), places, &to) }
    }

    /// The input.
    fn source(&self) -> Source<'_> {
        let (plan, Call { x, pads, .. }) = (self.plan, *self.call);
        Source { x, layout: Layout::Blocked, dims: plan.input, pads, pad_top: plan.pad_top, pad_left: plan.pad_left }
    }

    /// `Aᵀ m A` of a panel, and the epilogue.
    ///
    /// # Safety
    /// As [`Body`] says of `m` and the call's tensors; panel and stretch are the stage's, `N` and `M` its plan's.
    #[inline(always)]
    unsafe fn output<S: Simd, T: Line<N, M>, const N: usize, const M: usize>(
        &self,
        s: S,
        panel: Range<usize>,
        stretch: &Stretch,
    ) {
        let (d, g, mut room) = (&self.plan.output, &self.products, Rooms::new());
        for (j, block) in panel.enumerate() {
            let epilogue = Epilogue::new(s, self.call, d, block);
            for (tile, place) in stretch.tiles.clone().zip(stretch.places.clone()) {
                let from = self.m.wrapping_add(j * g.block + tile * LANES).cast_const();
                // SAFETY: the caller's promise; the place is one of the plan.
                unsafe { epilogue.tile::<S, T, N, M>(s, from, g.position, place, &mut room) };
            }
        }
    }

    /// The same of tiles that lack positions.
    ///
    /// # Safety
    /// As [`Body::output`], of the positions of `T`.
    #[inline(always)]
    unsafe fn edge_output<S: Simd, T: Axis, const M: usize>(&self, s: S, panel: Range<usize>, stretch: &Stretch) {
        let (d, g, mut room) = (&self.plan.output, &self.products, Rooms::new());
        for (j, block) in panel.enumerate() {
            let epilogue = Epilogue::new(s, self.call, d, block);
            for (tile, place) in stretch.tiles.clone().zip(stretch.places.clone()) {
                let from = self.m.wrapping_add(j * g.block + tile * LANES).cast_const();
                // SAFETY: the caller's promise; the place is one of the plan.
                unsafe { epilogue.edge_tile::<S, T, M>(s, from, g.position, place, stretch.k, &mut room) };
            }
        }
    }
}
