//! Transforms weights, 16 output channels at a time; training does it in every step.

// Positions and taps are clearer as numbers.
#![allow(clippy::needless_range_loop)]

use super::phases::Depth;
use crate::reference::winograd::Variant;
use crate::{Kernel, LANES, Simd};

/// One block of output channels. The sums are those of [`Variant::weights`], in its order, in `f64`.
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
    fn run<S: Simd>(self, _: S) {
        match self.variant {
            Variant::F4x3 => self.transform::<6, 3>(),
            Variant::F2x3 => self.transform::<4, 3>(),
            Variant::F3x2 => self.transform::<4, 2>(),
            Variant::F4x3S2 | Variant::F4x4S2 => self.phases::<5, 2>(),
            Variant::F3x3S2 => self.phases::<4, 2>(),
            Variant::F4x5S2 => self.phases::<6, 3>(),
            Variant::F4x7S2 => self.phases::<7, 4>(),
        }
    }
}

impl<W: Fn(usize, usize, usize, usize) -> f32> Pack<'_, W> {
    /// With stride 1: one phase.
    #[inline(always)]
    fn transform<const N: usize, const R: usize>(mut self) {
        self.clear();
        self.phase::<N, R>([0, 0], [R, R], [N, N]);
    }

    #[inline(always)]
    fn phases<const N: usize, const R: usize>(mut self) {
        self.clear();
        for p in 0..4 {
            let phase = [p / 2, p % 2];
            let (taps, reach) = (phase.map(|p| self.variant.phase_taps(p)), phase.map(|p| self.variant.reach(p)));
            self.phase::<N, R>(phase, taps, reach);
        }
    }

    /// Zeroes what no channel has.
    fn clear(&mut self) {
        let from = if self.depth.is_padded() { 0 } else { self.depth.lines() * LANES };
        self.packed[from..].fill(0.0);
    }

    /// `G g Gᵀ` of all channels at one phase: lane by lane, so that the compiler takes as many at once as the instruction set
    /// has.
    #[inline(always)]
    fn phase<const N: usize, const R: usize>(&mut self, phase: [usize; 2], taps: [usize; 2], reach: [usize; 2]) {
        let step = self.variant.stride();
        let mut g = [[0.0; R]; N];
        for (g, row) in g.iter_mut().zip(self.variant.g()) {
            g.copy_from_slice(row);
        }
        let lines = self.packed.as_chunks_mut::<LANES>().0;
        // Taps that the phase lacks stay zero, and add nothing.
        let mut tap = [[[0.0f64; LANES]; R]; R];
        for c in 0..self.channels {
            for lane in 0..self.lanes {
                for row in 0..taps[0] {
                    for col in 0..taps[1] {
                        let at = [row * step + phase[0], col * step + phase[1]];
                        tap[row][col][lane] = f64::from((self.weight)(lane, c, at[0], at[1]));
                    }
                }
            }
            let mut half = [[[0.0f64; LANES]; R]; N];
            for i in 0..N {
                for col in 0..R {
                    for k in 0..R {
                        for lane in 0..LANES {
                            half[i][col][lane] += g[i][k] * tap[k][col][lane];
                        }
                    }
                }
            }
            for i in 0..reach[0] {
                for j in 0..reach[1] {
                    let mut sum = [0.0f64; LANES];
                    for k in 0..R {
                        for lane in 0..LANES {
                            sum[lane] += half[i][k][lane] * g[j][k];
                        }
                    }
                    // A whole line at once: positions may lie a multiple of a page apart.
                    let line = &mut lines[self.depth.line([i, j], phase, c)];
                    for lane in 0..LANES {
                        line[lane] = sum[lane] as f32;
                    }
                }
            }
        }
    }
}
