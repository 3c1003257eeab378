//! Transforms weights, 16 output channels at a time; training does it in every step.

// Positions and taps are clearer as numbers.
#![allow(clippy::needless_range_loop)]

use crate::reference::winograd::Variant;
use crate::{Kernel, LANES, Simd};

/// One block of output channels. The sums are those of [`Variant::weights`], in its order, in `f64`.
pub(super) struct Pack<'a, W> {
    pub variant: Variant,
    /// Input channels, and output channels that the block has.
    pub channels: usize,
    pub lanes: usize,
    /// `weight(lane, input channel, row, column)`.
    pub weight: W,
    /// `[position][input channel][16]`, and what follows, which becomes zero.
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
        }
    }
}

impl<W: Fn(usize, usize, usize, usize) -> f32> Pack<'_, W> {
    /// `G g Gᵀ` of all channels: lane by lane, so that the compiler takes as many at once as the instruction set has.
    #[inline(always)]
    fn transform<const N: usize, const R: usize>(self) {
        let mut g = [[0.0; R]; N];
        for (g, row) in g.iter_mut().zip(self.variant.g()) {
            g.copy_from_slice(row);
        }
        let (lines, rest) = self.packed.split_at_mut(N * N * self.channels * LANES);
        rest.fill(0.0);
        let lines = lines.as_chunks_mut::<LANES>().0;
        let mut taps = [[[0.0f64; LANES]; R]; R];
        for c in 0..self.channels {
            for lane in 0..self.lanes {
                for row in 0..R {
                    for col in 0..R {
                        taps[row][col][lane] = f64::from((self.weight)(lane, c, row, col));
                    }
                }
            }
            let mut half = [[[0.0f64; LANES]; R]; N];
            for i in 0..N {
                for col in 0..R {
                    for k in 0..R {
                        for lane in 0..LANES {
                            half[i][col][lane] += g[i][k] * taps[k][col][lane];
                        }
                    }
                }
            }
            for i in 0..N {
                for j in 0..N {
                    let mut sum = [0.0f64; LANES];
                    for k in 0..R {
                        for lane in 0..LANES {
                            sum[lane] += half[i][k][lane] * g[j][k];
                        }
                    }
                    // A whole line at once: positions may lie a multiple of a page apart.
                    let line = &mut lines[(i * N + j) * self.channels + c];
                    for lane in 0..LANES {
                        line[lane] = sum[lane] as f32;
                    }
                }
            }
        }
    }
}
