//! The gradient with respect to the input of a convolution with stride 2: from the output's gradient each phase of the
//! rotated kernel computes every other row and column, all from the same transforms.
//!
//! A phase is a block of outputs with weights of its own, `[phase][ic / 16][position][depth][16]`. Of up to four
//! channels all phases lie in the lanes of one block.

// Rows and columns of a tile are clearer as numbers.
#![allow(clippy::needless_range_loop)]

use super::Winograd;
use super::body::{Body, Part};
use super::epilogue::{Epilogue, Rooms};
use super::order::Stretch;
use super::transform::{F3x2, F4x2, F4x3, F4x4, Line};
use crate::conv::Options;
use crate::reference::winograd::{Interleaved, Variant};
use crate::{ConvShape, Isa, Kernel, LANES, Simd, blocks};
use std::marker::PhantomData;
use std::ops::Range;

/// The phases of rows and of columns.
const PHASES: [[usize; 2]; 4] = [[0, 0], [0, 1], [1, 0], [1, 1]];

/// How the outputs of phases share the output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interleave {
    /// Of rows and of columns.
    pub axes: [Interleaved; 2],
    /// Whether the phases are lanes of one block rather than blocks of their own.
    pub is_together: bool,
}

impl Interleave {
    /// Blocks for each block of output channels.
    pub fn blocks(&self) -> usize {
        if self.is_together { 1 } else { PHASES.len() }
    }

    /// Rows and columns that a phase computes.
    pub fn lens(&self) -> [usize; 2] {
        self.axes.map(|axis| axis.len)
    }
}

impl Winograd {
    /// Plans the gradient of a shape that the variant serves ([`crate::reference::winograd::check_data`]): with stride
    /// 2.
    pub fn interleaved(variant: Variant, s: &ConvShape, options: &Options) -> Winograd {
        let group = s.group();
        let axes = [Interleaved::new(s.ih, s.kh, s.pad_top), Interleaved::new(s.iw, s.kw, s.pad_left)];
        let interleave = Interleave { axes, is_together: s.has_few_channels() };
        let pads = axes.map(|axis| axis.pad);
        Winograd::plan(variant, s, [group.output(), group.input()], pads, Some(interleave), options)
    }

    /// The block of output channels and the phase of a block of outputs; phase 0 of all where they are together.
    pub(super) fn of_phase(&self, block: usize) -> (usize, [usize; 2]) {
        let each = blocks(self.output.c);
        (block % each, PHASES[block / each])
    }

    /// The blocks of outputs, of some, that are of the first one's phase.
    pub(super) fn of_one_phase(&self, blocks: Range<usize>) -> Range<usize> {
        let each = crate::blocks(self.output.c);
        blocks.start..blocks.end.min((blocks.start / each + 1) * each)
    }

    /// Whether a block of outputs takes part in a position.
    #[inline(always)]
    pub(super) fn takes_part(&self, block: usize, position: [usize; 2]) -> bool {
        let Some(Interleave { is_together: false, .. }) = self.interleave else { return true };
        let (_, phase) = self.of_phase(block);
        position[0] < self.variant.reach(phase[0]) && position[1] < self.variant.reach(phase[1])
    }
}

/// Transforms the products of a panel, of one phase or of all, by `T`.
struct Interleaving<T, const N: usize, const M: usize>(Range<usize>, Stretch, PhantomData<T>);

impl<T: Line<N, M>, const N: usize, const M: usize> Kernel for Part<'_, Interleaving<T, N, M>> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part(body, Interleaving(panel, stretch, _)) = self;
        // SAFETY: `run_apart` and `run_together` (see `blocks.rs`) have made `m` as [`Body`] says; `Winograd::run` has
        // checked the lengths of the call's slices; panel and stretch are the stage's.
        unsafe { body.interleaved::<S, T, N, M>(s, panel, &stretch) }
    }
}

impl Body<'_> {
    /// Runs the last stage of a panel.
    pub(super) fn run_interleaved(&self, isa: Isa, panel: Range<usize>, stretch: Stretch) {
        match self.plan.variant {
            Variant::F4x3S2 | Variant::F4x4S2 => {
                isa.dispatch(Part(self, Interleaving::<F4x2, 5, 4>(panel, stretch, PhantomData)));
            }
            Variant::F3x3S2 => isa.dispatch(Part(self, Interleaving::<F3x2, 4, 3>(panel, stretch, PhantomData))),
            Variant::F4x5S2 => isa.dispatch(Part(self, Interleaving::<F4x3, 6, 4>(panel, stretch, PhantomData))),
            Variant::F4x7S2 => isa.dispatch(Part(self, Interleaving::<F4x4, 7, 4>(panel, stretch, PhantomData))),
            // Their phases are none.
            Variant::F4x3 | Variant::F2x3 | Variant::F4x2 | Variant::F3x2 => {}
        }
    }

    /// `Aᵀ m A` of a panel, of each phase to its rows and columns.
    ///
    /// # Safety
    /// As [`Body`] says of `m` and the call's tensors; panel and stretch are the stage's, `N` and `M` its plan's.
    #[inline(always)]
    unsafe fn interleaved<S: Simd, T: Line<N, M>, const N: usize, const M: usize>(
        &self,
        s: S,
        panel: Range<usize>,
        stretch: &Stretch,
    ) {
        let (d, g, mut rooms) = (&self.plan.output, &self.products, Rooms::new());
        let Some(interleave) = self.plan.interleave else { return };
        let lacks = self.plan.variant.reach(1) < N;
        for (j, block) in panel.enumerate() {
            let (block, phase) = self.plan.of_phase(block);
            let epilogue = Epilogue::new(s, self.call, d, block);
            for (tile, place) in stretch.tiles.clone().zip(stretch.places.clone()) {
                let from = self.m.wrapping_add(j * g.block + tile * LANES);
                // SAFETY: the caller's promise; the place is one of the plan.
                unsafe {
                    match interleave.is_together {
                        true => {
                            let axes = (&interleave.axes, lacks);
                            epilogue.phases::<S, T, N, M>(s, from, g.position, place, axes, &mut rooms);
                        }
                        false => {
                            let axes = (&interleave.axes, phase);
                            epilogue.phase::<S, T, N, M>(s, from, g.position, place, axes, &mut rooms);
                        }
                    }
                }
            }
        }
    }
}
