//! The three stages of a block of tiles: transform the inputs, multiply at each position, transform the products.

use super::epilogue::Epilogue;
use super::multiply::Multiply;
use super::spread::{Source, Spread};
use super::transform::{F2x3, F3x2, F4x2, F4x3, Line};
use super::{Call, Geometry, PANEL, Winograd, phases};
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

/// A stage of one block of tiles.
pub(super) struct Body<'a> {
    pub plan: &'a Winograd,
    pub call: &'a Call<'a>,
    pub geometry: Geometry,
    pub stage: Stage,
    /// Transformed inputs, `[segment][position][tile][16]`, as `geometry` says.
    pub v: *mut f32,
    /// Room for products, `[oc block of a panel][position][tile][16]`.
    pub m: *mut f32,
}

/// A stage's transform or product of a block of tiles: one function each. In one with all variants the compiler spilled, and
/// shallow layers took a quarter longer.
pub(super) struct Part<'a, T>(pub &'a Body<'a>, pub T);

/// Transforms blocks of input channels of some tiles by `T`.
struct Input<T, const N: usize, const M: usize>(Range<usize>, Range<usize>, PhantomData<T>);

/// The same at all phases.
struct Phases<T, const N: usize, const O: usize>(Range<usize>, Range<usize>, PhantomData<T>);

/// Transforms the products of a panel by `T`.
struct Output<T, const N: usize, const M: usize>(Range<usize>, Range<usize>, PhantomData<T>);

// SAFETY of all: `Winograd::run` has made the pointers: `v` and `m` have room for the geometry's tiles, the call's
// slices have the lengths of the plan.
impl<T: Line<N, N>, const N: usize, const M: usize> Kernel for Part<'_, Input<T, N, M>> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part(body, Input(blocks, tiles, _)) = self;
        // A loop: a closure is not always inlined, and outside its shim a vector is not a register.
        for block in blocks {
            // SAFETY: see above.
            unsafe { body.input::<S, T, N, M>(s, block, tiles.clone()) }
        }
    }
}

impl<T: Line<N, N> + Line<O, O>, const N: usize, const O: usize> Kernel for Part<'_, Phases<T, N, O>> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part(body, Phases(blocks, tiles, _)) = self;
        // A loop: a closure is not always inlined, and outside its shim a vector is not a register.
        for block in blocks {
            // SAFETY: see above.
            unsafe { body.phases::<S, T, N, O>(s, block, tiles.clone()) }
        }
    }
}

impl<T: Line<N, M>, const N: usize, const M: usize> Kernel for Part<'_, Output<T, N, M>> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part(body, Output(panel, tiles, _)) = self;
        // SAFETY: see above.
        unsafe { body.output::<S, T, N, M>(s, panel, tiles) }
    }
}

impl Body<'_> {
    /// Runs the stage.
    pub fn run(&self, isa: Isa) {
        match self.stage.clone() {
            Stage::Input(blocks, tiles) => match self.plan.variant {
                Variant::F4x3 => isa.dispatch(Part(self, Input::<F4x3, 6, 4>(blocks, tiles, PhantomData))),
                Variant::F2x3 => isa.dispatch(Part(self, Input::<F2x3, 4, 2>(blocks, tiles, PhantomData))),
                Variant::F3x2 => isa.dispatch(Part(self, Input::<F3x2, 4, 3>(blocks, tiles, PhantomData))),
                Variant::F4x3S2 => isa.dispatch(Part(self, Phases::<F4x2, 5, 4>(blocks, tiles, PhantomData))),
                Variant::F4x4S2 => isa.dispatch(Part(self, Phases::<F4x2, 5, 5>(blocks, tiles, PhantomData))),
                Variant::F4x5S2 => isa.dispatch(Part(self, Phases::<F4x3, 6, 5>(blocks, tiles, PhantomData))),
                Variant::F3x3S2 => isa.dispatch(Part(self, Phases::<F3x2, 4, 3>(blocks, tiles, PhantomData))),
                // See `first.rs`.
                Variant::F4x7S2 => {}
            },
            Stage::Output(blocks, tiles) => {
                for (start, len) in parts(blocks.len(), blocks.len().div_ceil(PANEL)) {
                    let panel = blocks.start + start..blocks.start + start + len;
                    isa.dispatch(Part(self, Multiply(panel.clone(), tiles.clone())));
                    let tiles = tiles.clone();
                    match self.plan.variant {
                        Variant::F4x3 | Variant::F4x5S2 => {
                            isa.dispatch(Part(self, Output::<F4x3, 6, 4>(panel, tiles, PhantomData)));
                        }
                        Variant::F2x3 => isa.dispatch(Part(self, Output::<F2x3, 4, 2>(panel, tiles, PhantomData))),
                        Variant::F3x2 | Variant::F3x3S2 => {
                            isa.dispatch(Part(self, Output::<F3x2, 4, 3>(panel, tiles, PhantomData)));
                        }
                        Variant::F4x3S2 | Variant::F4x4S2 => {
                            isa.dispatch(Part(self, Output::<F4x2, 5, 4>(panel, tiles, PhantomData)));
                        }
                        Variant::F4x7S2 => {}
                    }
                }
            }
        }
    }
}

impl Body<'_> {
    /// `Bᵀ d B` of one block of channels.
    #[inline(always)]
    unsafe fn input<S: Simd, T: Line<N, N>, const N: usize, const M: usize>(
        &self,
        s: S,
        block: usize,
        tiles: Range<usize>,
    ) {
        let places = self.plan.places(self.geometry.first + tiles.start);
        let to = Spread { rows: 0..N, v: self.v.wrapping_add(block * self.geometry.block), tiles };
        // SAFETY: the caller's promise.
        unsafe { self.source().spread::<S, T, N, N>(s, &self.geometry, M, places, block, to) }
    }

    /// `Bᵀ d B` of one block of channels at all phases.
    #[inline(always)]
    unsafe fn phases<S: Simd, T: Line<N, N> + Line<O, O>, const N: usize, const O: usize>(
        &self,
        s: S,
        block: usize,
        tiles: Range<usize>,
    ) {
        let (variant, places) = (self.plan.variant, self.plan.places(self.geometry.first + tiles.start));
        let to = phases::Spread { variant, block, v: self.v, tiles };
        // SAFETY: the caller's promise.
        unsafe { self.source().spread_phases::<S, T, N, O>(s, &self.geometry, 2 * variant.m(), places, &to) }
    }

    /// The input.
    fn source(&self) -> Source<'_> {
        let (plan, Call { x, pads, .. }) = (self.plan, *self.call);
        Source { x, dims: plan.input, pads, pad_top: plan.pad_top, pad_left: plan.pad_left }
    }

    /// `Aᵀ m A` of a panel, and the epilogue.
    #[inline(always)]
    unsafe fn output<S: Simd, T: Line<N, M>, const N: usize, const M: usize>(
        &self,
        s: S,
        panel: Range<usize>,
        tiles: Range<usize>,
    ) {
        let (d, g) = (&self.plan.output, &self.geometry);
        for (j, block) in panel.enumerate() {
            let epilogue = Epilogue::new(s, self.call, d, block);
            for (tile, place) in tiles.clone().zip(self.plan.places(g.first + tiles.start)) {
                let from = self.m.wrapping_add(j * g.block + tile * LANES).cast_const();
                // SAFETY: the caller's promise; the place is one of the plan.
                unsafe { epilogue.tile::<S, T, N, M>(s, from, g.position, place) };
            }
        }
    }
}
