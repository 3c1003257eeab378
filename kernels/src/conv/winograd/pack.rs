//! Transforms weights, 16 output channels at a time; training does it in every step.

// Positions and taps are clearer as numbers.
#![allow(clippy::needless_range_loop)]

use super::phases::Depth;
use super::transform::{F2x3, F3x2, F4x2, F4x3, F4x4, Line};
use crate::reference::winograd::Variant;
use crate::{Kernel, LANES, Lanes, Simd};

/// One block of output channels. The sums are those of [`Variant::kernel`], in its order.
pub(super) struct Pack<'a, W> {
    pub variant: Variant,
    pub depth: Depth,
    /// Input channels, and output channels that the block has.
    pub channels: usize,
    pub lanes: usize,
    /// `weight(lane, input channel, row, column)`.
    pub weight: W,
    /// `[position][depth][16]`, and what follows. What has no weight becomes zero.
    pub packed: &'a mut [f32],
}

impl<W: Fn(usize, usize, usize, usize) -> f32> Kernel for Pack<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.variant {
            Variant::F4x3 => self.transform::<S, F4x3, 6, 3>(s),
            Variant::F2x3 => self.transform::<S, F2x3, 4, 3>(s),
            Variant::F3x2 | Variant::F3x3S2 => self.transform::<S, F3x2, 4, 2>(s),
            Variant::F4x3S2 | Variant::F4x4S2 => self.transform::<S, F4x2, 5, 2>(s),
            Variant::F4x5S2 => self.transform::<S, F4x3, 6, 3>(s),
            Variant::F4x7S2 => self.transform::<S, F4x4, 7, 4>(s),
        }
    }
}

impl<W: Fn(usize, usize, usize, usize) -> f32> Pack<'_, W> {
    /// All phases.
    #[inline(always)]
    fn transform<S: Simd, T: Line<R, N>, const N: usize, const R: usize>(mut self, s: S) {
        self.clear();
        let step = self.variant.stride();
        for phase in 0..step * step {
            self.phase::<S, T, N, R>(s, [phase / step, phase % step]);
        }
    }

    /// Zeroes what no channel has.
    fn clear(&mut self) {
        let from = if self.depth.is_padded() { 0 } else { self.depth.lines() * LANES };
        self.packed[from..].fill(0.0);
    }

    /// `G g Gᵀ` of all channels at one phase.
    #[inline(always)]
    fn phase<S: Simd, T: Line<R, N>, const N: usize, const R: usize>(&mut self, s: S, phase: [usize; 2]) {
        let (variant, step) = (self.variant, self.variant.stride());
        let (taps, reach) = (phase.map(|p| variant.phase_taps(p)), phase.map(|p| variant.reach(p)));
        let lines = self.packed.as_chunks_mut::<LANES>().0;
        // Where the first channel's line lies at each position, and how far each block of channels is from the one before.
        let mut places = [[(0, 0); N]; N];
        for i in 0..reach[0] {
            for j in 0..reach[1] {
                let line = |channel| self.depth.line([i, j], phase, channel);
                places[i][j] = (line(0), line(LANES) - line(0));
            }
        }
        // Taps that the phase lacks stay zero.
        let mut tap = [[[0.0f32; LANES]; R]; R];
        for c in 0..self.channels {
            for lane in 0..self.lanes {
                for row in 0..taps[0] {
                    for col in 0..taps[1] {
                        tap[row][col][lane] = (self.weight)(lane, c, row * step + phase[0], col * step + phase[1]);
                    }
                }
            }
            for part in 0..S::PARTS {
                let (r, at) = (s.register(), part * S::Register::WIDTH);
                // SAFETY: `tap` has a line for each tap, of as many lanes as all parts.
                let u = unsafe { spread_taps::<S::Register, T, N, R>(r, tap.as_ptr().cast::<f32>().add(at)) };
                for i in 0..reach[0] {
                    for j in 0..reach[1] {
                        let (first, block) = places[i][j];
                        let line = &mut lines[first + c / LANES * block + c % LANES];
                        // SAFETY: a line has as many lanes as all parts.
                        unsafe { r.store(line.as_mut_ptr().add(at), u[i][j]) };
                    }
                }
            }
        }
    }
}

/// `G g Gᵀ` of so many pairs of channels.
///
/// # Safety
/// [`Lanes::WIDTH`] elements must be readable at `from` and each of the `R²` taps, one after the other.
#[inline(always)]
unsafe fn spread_taps<S: Lanes, T: Line<R, N>, const N: usize, const R: usize>(
    s: S,
    from: *const f32,
) -> [[S::V; N]; N] {
    let mut half = [[s.zero(); R]; N];
    for c in 0..R {
        let mut column = [s.zero(); R];
        for r in 0..R {
            // SAFETY: the caller's promise.
            column[r] = unsafe { s.load(from.add((r * R + c) * LANES)) };
        }
        let column = T::line(s, column);
        for r in 0..N {
            half[r][c] = column[r];
        }
    }
    let mut u = [[s.zero(); N]; N];
    for r in 0..N {
        u[r] = T::line(s, half[r]);
    }
    u
}
