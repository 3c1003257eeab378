//! Transforms weights, 16 output channels at a time; training does it in every step.

// Positions and taps are clearer as numbers.
#![allow(clippy::needless_range_loop)]

use super::super::pack::{LINES, Oihw};
use super::Winograd;
use super::phases::Depth;
use super::transform::{F2x3, F3x2, F4x2, F4x3, F4x4, Line};
use crate::isa::order_streams;
use crate::reference::winograd::Variant;
use crate::{Isa, Kernel, LANES, Lanes, Simd, blocks, stream};
use std::ops::Range;

/// The line of a tap that is not there: zeros.
const ABSENT: usize = LINES;
/// Lines ahead of the one that is stored, in its stream, that are asked for.
const AHEAD: usize = 4;
/// Phases of the largest stride.
const PHASES: usize = 4;
/// Elements of packed weights from which on they are written past the caches: 4 MiB. A training step packs them anew,
/// and what the third cache had of them is gone by then: to wait for it took half the time.
const LARGE: usize = 1 << 20;

impl Winograd {
    /// Transforms and lays out weights, the kernels turned round where it is the gradient's.
    pub fn pack(&self, isa: Isa, packed: &mut [f32], weights: &Oihw<'_>, turned: bool) {
        use rayon::prelude::*;
        let depth = self.depth();
        // What is cleared first is in the cache already.
        let streams = !depth.is_padded() && stream::streams(packed, None, self.streamed_from.min(LARGE));
        packed.par_chunks_exact_mut(self.block_len).enumerate().for_each(|(block, packed)| {
            let (group, out) = (block / self.out_blocks(), block % self.out_blocks());
            let phases = match self.interleave {
                None => Phases::Inputs,
                Some(i) if i.is_together => Phases::Lanes,
                Some(_) => Phases::Output(self.of_phase(out).1),
            };
            let out = out % blocks(self.output.c);
            let (channels, lanes) = (self.input.c, LANES.min(self.output.c - out * LANES));
            let weights = weights.block(group, out, (channels, self.output.c));
            isa.dispatch(Pack {
                variant: self.variant,
                depth,
                phases,
                channels,
                lanes,
                weights,
                turned,
                packed,
                streams,
            });
            if streams {
                order_streams();
            }
        });
    }
}

/// The phases of a block of outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phases {
    /// All, of the input.
    Inputs,
    /// One, of the output.
    Output([usize; 2]),
    /// All of the output, side by side in the lanes.
    Lanes,
}

/// One block of output channels. The sums are those of [`Variant::kernel`], in its order.
struct Pack<'a> {
    variant: Variant,
    depth: Depth,
    phases: Phases,
    /// Input channels, and output channels that the block has.
    channels: usize,
    lanes: usize,
    /// From the block's first output channel on.
    weights: Oihw<'a>,
    turned: bool,
    /// `[position][depth][16]`, and what follows. What is read and has no weight becomes zero.
    packed: &'a mut [f32],
    /// Whether it is streamed; its lines are whole then.
    streams: bool,
}

/// A line for each position.
#[repr(align(64))]
struct Positions<const N: usize>([[[f32; LANES]; N]; N]);

/// How the kernels of a phase lie.
#[derive(Clone, Copy)]
struct Phase<const N: usize, const R: usize> {
    /// Positions along each axis.
    reach: [usize; 2],
    /// Where the first channel's line lies at each position, and how far each block of channels is from the one before.
    lines: [[(usize, usize); N]; N],
    /// Which of the kernel's taps are the phase's; those that it lacks are zero.
    taps: [[usize; R]; R],
}

impl Kernel for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.variant {
            Variant::F4x3 => self.transform::<S, F4x3, 6, 3>(s),
            Variant::F2x3 => self.transform::<S, F2x3, 4, 3>(s),
            Variant::F3x2 | Variant::F3x3S2 => self.transform::<S, F3x2, 4, 2>(s),
            Variant::F4x2 | Variant::F4x3S2 | Variant::F4x4S2 => self.transform::<S, F4x2, 5, 2>(s),
            Variant::F4x5S2 => self.transform::<S, F4x3, 6, 3>(s),
            Variant::F4x7S2 => self.transform::<S, F4x4, 7, 4>(s),
        }
    }
}

impl Pack<'_> {
    /// All phases.
    #[inline(always)]
    fn transform<S: Simd, T: Line<R, N>, const N: usize, const R: usize>(mut self, s: S) {
        self.clear();
        let (step, len) = (self.variant.stride(), self.weights.len());
        let mut phases = [Phase { reach: [0; 2], lines: [[(0, 0); N]; N], taps: [[ABSENT; R]; R] }; PHASES];
        let phases = &mut phases[..step * step];
        for (i, phase) in phases.iter_mut().enumerate() {
            *phase = self.of_phase([i / step, i % step]);
        }
        let phases = match self.phases {
            Phases::Output([row, col]) => &phases[row * step + col..][..1],
            _ => &*phases,
        };
        let mut lines = [[0.0; LANES]; LINES + 1];
        let together = (LINES / len).clamp(1, LANES);
        for first in (0..self.channels).step_by(together) {
            let channels = first..self.channels.min(first + together);
            self.weights.lines(s, self.lanes, channels.clone(), 0..len, &mut lines[..LINES]);
            if self.phases == Phases::Lanes {
                for channel in channels {
                    let (phase, lines) = self.beside::<N, R>(phases, &lines[(channel - first) * len..][..len]);
                    self.phase::<S, T, N, R>(s, &phase, channel..channel + 1, &lines);
                }
                continue;
            }
            for phase in phases {
                self.phase::<S, T, N, R>(s, phase, channels.clone(), &lines);
            }
        }
    }

    /// A channel's taps of all phases side by side in the lanes, as one phase.
    fn beside<const N: usize, const R: usize>(
        &self,
        phases: &[Phase<N, R>],
        lines: &[[f32; LANES]],
    ) -> (Phase<N, R>, [[f32; LANES]; LINES + 1]) {
        let (mut beside, mut phase) = ([[0.0; LANES]; LINES + 1], phases[0]);
        for (row, col) in (0..R).flat_map(|row| (0..R).map(move |col| (row, col))) {
            let tap = row * R + col;
            for (of, to) in phases.iter().zip(beside[tap].chunks_exact_mut(self.lanes)) {
                if let Some(line) = lines.get(of.taps[row][col]) {
                    to.copy_from_slice(&line[..self.lanes]);
                }
            }
            phase.taps[row][col] = tap;
        }
        (phase, beside)
    }

    fn of_phase<const N: usize, const R: usize>(&self, phase: [usize; 2]) -> Phase<N, R> {
        let (variant, step, w) = (self.variant, self.variant.stride(), &self.weights);
        let taps = phase.map(|p| variant.phase_taps(p));
        let (reach, at) = match self.phases {
            Phases::Inputs => (phase.map(|p| variant.reach(p)), phase),
            // What is not read is not written.
            Phases::Output(_) => (phase.map(|p| variant.reach(p)), [0; 2]),
            Phases::Lanes => ([N; 2], [0; 2]),
        };
        let mut of = Phase { reach, lines: [[(0, 0); N]; N], taps: [[ABSENT; R]; R] };
        for i in 0..reach[0] {
            for j in 0..reach[1] {
                let line = |channel| self.depth.line([i, j], at, channel);
                of.lines[i][j] = (line(0), line(LANES) - line(0));
            }
        }
        for row in 0..taps[0] {
            for col in 0..taps[1] {
                let tap = (row * step + phase[0]) * w.kernel[1] + col * step + phase[1];
                of.taps[row][col] = if self.turned { w.len() - 1 - tap } else { tap };
            }
        }
        of
    }

    /// Zeroes what no channel has.
    fn clear(&mut self) {
        let from = if self.depth.is_padded() { 0 } else { self.depth.lines() * LANES };
        self.packed[from..].fill(0.0);
        let n = self.variant.n();
        for position in 1..=n * n {
            let end = self.depth.before([position / n, position % n]) * LANES;
            self.packed[end - self.depth.gap() * LANES..end].fill(0.0);
        }
    }

    /// `G g Gᵀ` of some channels at one phase.
    #[inline(always)]
    fn phase<S: Simd, T: Line<R, N>, const N: usize, const R: usize>(
        &mut self,
        s: S,
        phase: &Phase<N, R>,
        channels: Range<usize>,
        lines: &[[f32; LANES]; LINES + 1],
    ) {
        let packed = self.packed.as_chunks_mut::<LANES>().0;
        let (mut u, streams) = (Positions([[[0.0; LANES]; N]; N]), S::STREAMS && self.streams);
        for (c, first) in channels.zip((0..).step_by(self.weights.len())) {
            let mut from = phase.taps;
            for tap in from.as_flattened_mut() {
                *tap = if *tap == ABSENT { ABSENT } else { first + *tap };
            }
            for part in 0..S::PARTS {
                let (r, at) = (s.register(), part * S::Register::WIDTH);
                let taps = spread_taps::<S::Register, T, N, R>(r, lines, &from, at);
                for (line, &v) in u.0.as_flattened_mut().iter_mut().zip(taps.as_flattened()) {
                    // SAFETY: a line has as many lanes as all parts.
                    unsafe { r.store(line.as_mut_ptr().add(at), v) };
                }
            }
            for i in 0..phase.reach[0] {
                for j in 0..phase.reach[1] {
                    let (first, block) = phase.lines[i][j];
                    let line = &mut packed[first + c / LANES * block + c % LANES];
                    // Stores to as many streams as there are positions would wait, one after the other.
                    if !streams {
                        s.prefetch(line.as_ptr().wrapping_add(AHEAD * LANES));
                    }
                    // SAFETY: a line, which is whole where it is streamed.
                    unsafe { s.put(line.as_mut_ptr(), s.vector(&u.0[i][j]), streams) };
                }
            }
        }
    }
}

/// `G g Gᵀ` of so many pairs of channels, whose taps lie in these lines from a lane on.
#[inline(always)]
fn spread_taps<S: Lanes, T: Line<R, N>, const N: usize, const R: usize>(
    s: S,
    lines: &[[f32; LANES]; LINES + 1],
    from: &[[usize; R]; R],
    lane: usize,
) -> [[S::V; N]; N] {
    let mut half = [[s.zero(); R]; N];
    for c in 0..R {
        let mut column = [s.zero(); R];
        for r in 0..R {
            // SAFETY: a line has as many lanes as all parts.
            column[r] = unsafe { s.load(lines[from[r][c]].as_ptr().add(lane)) };
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
