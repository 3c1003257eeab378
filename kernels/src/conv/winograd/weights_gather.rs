//! From the sums of the weight gradient to weights.

// Taps are clearer as numbers.
#![allow(clippy::needless_range_loop)]

use super::spread::gather_tile;
use super::transform::{Adjoint, F2x3, F3x2, F4x2, F4x3, Line};
use super::weights_body::{Body, Part, Unit};
use super::weights_phases::Inputs;
use crate::reference::winograd::Variant;
use crate::{Isa, Kernel, LANES, Lanes, Simd};
use std::marker::PhantomData;
use std::ops::Range;

/// Taps of the largest kernel of whole blocks.
const TAPS: usize = 25;

/// Transforms the sums of some of a unit's output channels by `T`, to kernels of `K × K`.
struct Gather<'a, T, const N: usize, const R: usize, const K: usize>(&'a Unit, Range<usize>, PhantomData<T>);

impl<T: Line<N, R>, const N: usize, const R: usize, const K: usize> Kernel for Part<'_, Gather<'_, T, N, R, K>> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part(body, Gather(unit, outs, _)) = self;
        // SAFETY: `run_group` and `run_together` have made `m` as [`Body`] says, `Weights::run` has made `dw`; no two
        // tasks have the weights of the same pair of channels.
        unsafe { body.gather::<S, T, N, R, K>(s, unit, outs) }
    }
}

impl Body<'_> {
    /// Transforms the sums of some of a unit's blocks of output channels.
    pub(super) fn run_gather(&self, isa: Isa, unit: &Unit, outs: Range<usize>) {
        match self.plan.variant() {
            Variant::F4x3 => isa.dispatch(Part(self, Gather::<F4x3, 6, 3, 3>(unit, outs, PhantomData))),
            Variant::F2x3 => isa.dispatch(Part(self, Gather::<F2x3, 4, 3, 3>(unit, outs, PhantomData))),
            Variant::F4x2 => isa.dispatch(Part(self, Gather::<F4x2, 5, 2, 2>(unit, outs, PhantomData))),
            Variant::F3x2 => isa.dispatch(Part(self, Gather::<F3x2, 4, 2, 2>(unit, outs, PhantomData))),
            Variant::F4x3S2 => isa.dispatch(Part(self, Gather::<F4x2, 5, 2, 3>(unit, outs, PhantomData))),
            Variant::F3x3S2 => isa.dispatch(Part(self, Gather::<F3x2, 4, 2, 3>(unit, outs, PhantomData))),
            Variant::F4x4S2 => isa.dispatch(Part(self, Gather::<F4x2, 5, 2, 4>(unit, outs, PhantomData))),
            Variant::F4x5S2 => isa.dispatch(Part(self, Gather::<F4x3, 6, 3, 5>(unit, outs, PhantomData))),
            Variant::F4x7S2 => isa.dispatch(Part(self, Gather::<Adjoint, 7, 4, 7>(unit, outs, PhantomData))),
        }
    }

    /// `Gᵀ m G` of each pair of channels, written where it belongs in OIHW: for an output channel one contiguous
    /// stretch.
    ///
    /// # Safety
    /// As [`Body`] says of `m` and `dw`; the unit is the stage's, `outs` are of its blocks of output channels, counted
    /// from its first, `N`, `R` and `K` are the plan's.
    #[inline(always)]
    unsafe fn gather<S: Simd, T: Line<N, R>, const N: usize, const R: usize, const K: usize>(
        &self,
        s: S,
        unit: &Unit,
        outs: Range<usize>,
    ) {
        let (ic, oc) = (self.plan.forward.input.c, self.plan.forward.output.c);
        let (inputs, step) = (self.plan.inputs, if K > R { 2 } else { 1 });
        // From a phase's sums to the next: of another block, or of other lanes.
        let each = if inputs == Inputs::Lanes { ic * LANES } else { LANES * LANES };
        let mut lines = [[0.0f32; LANES]; LANES * TAPS];
        for j in outs {
            let out = unit.outs.start + j;
            if self.plan.has_groups() {
                for at in (0..N * N).flat_map(|p| (0..unit.stream()).step_by(LANES).map(move |i| (p, i))) {
                    let m = self.m.wrapping_add(at.0 * unit.plane() + j * unit.stream() + at.1);
                    // SAFETY: the caller's promise; the sums of the groups before lie behind those of all positions.
                    unsafe { s.store(m, s.add(s.load(m.add(self.plan.before())), s.load(m))) };
                }
            }
            for i in (0..unit.ins.len()).step_by(inputs.phases()) {
                let block = (unit.ins.start + i) / inputs.phases();
                let lanes = LANES.min(ic - block * LANES);
                let from = self.m.wrapping_add(j * unit.stream() + i * LANES * LANES).cast_const();
                for (lane, lines) in lines.chunks_exact_mut(K * K).enumerate().take(lanes) {
                    // Where another output's weights go, lest their stores wait.
                    let to = self.tensors.dw.ptr().wrapping_add(((out * LANES + lane) * ic + block * LANES) * K * K);
                    (0..lanes * K * K).step_by(LANES).for_each(|k| s.prefetch_far(to.wrapping_add(k)));
                    for phase in 0..step * step {
                        let number = if inputs == Inputs::Lanes { phase % step * step + phase / step } else { phase };
                        let from = from.wrapping_add(lane * LANES + number * each);
                        for part in 0..S::PARTS {
                            let (r, at) = (s.register(), part * S::Register::WIDTH);
                            // SAFETY: the caller's promise.
                            let taps =
                                unsafe { gather_tile::<S::Register, T, N, R>(r, from.wrapping_add(at), unit.plane()) };
                            for i in 0..(K - phase / step).div_ceil(step) {
                                for j in 0..(K - phase % step).div_ceil(step) {
                                    let tap = (i * step + phase / step) * K + j * step + phase % step;
                                    // SAFETY: a line has as many lanes as all parts.
                                    unsafe { r.store(lines[tap].as_mut_ptr().add(at), taps[i][j]) };
                                }
                            }
                        }
                    }
                }
                let len = lanes * K * K;
                for (first, lines) in (0..len).step_by(LANES).zip(lines.chunks_exact(LANES)) {
                    let mut rows = [s.zero(); LANES];
                    for (row, line) in rows.iter_mut().zip(lines) {
                        *row = s.vector(line);
                    }
                    s.transpose(&mut rows);
                    for (lane, &row) in rows.iter().enumerate().take(oc - out * LANES) {
                        let at = ((out * LANES + lane) * ic + block * LANES) * K * K + first;
                        // SAFETY: an index into OIHW of channels below the shape's; each pair belongs to one task.
                        unsafe {
                            let to = self.tensors.dw.ptr().add(at);
                            if len - first >= LANES {
                                s.store(to, row);
                            } else {
                                s.store_first(to, row, len - first);
                            }
                        }
                    }
                }
            }
        }
    }
}
