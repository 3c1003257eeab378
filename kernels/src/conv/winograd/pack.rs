//! Transforms weights, 16 output channels at a time; training does it in every step.

// Positions and taps are clearer as numbers.
#![allow(clippy::needless_range_loop)]

use super::Winograd;
use super::phases::Depth;
use super::transform::{F2x3, F3x2, F4x2, F4x3, F4x4, Line};
use crate::isa::order_streams;
use crate::reference::winograd::Variant;
use crate::{Isa, Kernel, LANES, Lanes, Simd, stream};
use std::ops::Range;

/// Lines of taps that are brought together at a time, of as many channels as they hold.
const LINES: usize = 16 * LANES;
/// The line of a tap that is not there: zeros.
const ABSENT: usize = LINES;
/// Lines ahead of the one that is stored, in its stream, that are asked for.
const AHEAD: usize = 4;
/// Phases of the largest stride.
const PHASES: usize = 4;
/// Elements of packed weights from which on they are written past the caches: 4 MiB. A training step packs them anew, and what
/// the third cache had of them is gone by then: to wait for it took half the time.
const LARGE: usize = 1 << 20;

/// OIHW weights as the convolution that is packed reads them, which may be the gradient's, with the channels exchanged and
/// the kernels turned round.
#[derive(Debug, Clone, Copy)]
pub(in crate::conv) struct Oihw<'a> {
    pub weights: &'a [f32],
    /// Elements between the convolution's output channels, and between its input channels, of a group; the lesser is a kernel's
    /// length.
    pub output: usize,
    pub input: usize,
    /// Taps along an axis.
    pub taps: usize,
    pub turned: bool,
}

impl Winograd {
    /// Transforms and lays out weights.
    pub fn pack(&self, isa: Isa, packed: &mut [f32], weights: &Oihw<'_>) {
        use rayon::prelude::*;
        let depth = self.depth();
        // What is cleared first is in the cache already.
        let streams = !depth.is_padded() && stream::streams(packed, None, self.streamed_from.min(LARGE));
        packed.par_chunks_exact_mut(self.block_len).enumerate().for_each(|(block, packed)| {
            let (group, first) = (block / self.out_blocks(), block % self.out_blocks() * LANES);
            let (channels, lanes) = (self.input.c, LANES.min(self.output.c - first));
            let at = group * channels * self.output.c * weights.taps * weights.taps + first * weights.output;
            let weights = Oihw { weights: &weights.weights[at..], ..*weights };
            isa.dispatch(Pack { variant: self.variant, depth, channels, lanes, weights, packed, streams });
            if streams {
                order_streams();
            }
        });
    }
}

/// One block of output channels. The sums are those of [`Variant::kernel`], in its order.
struct Pack<'a> {
    variant: Variant,
    depth: Depth,
    /// Input channels, and output channels that the block has.
    channels: usize,
    lanes: usize,
    /// From the block's first output channel on.
    weights: Oihw<'a>,
    /// `[position][depth][16]`, and what follows. What has no weight becomes zero.
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

impl Oihw<'_> {
    /// Elements of a kernel.
    fn len(&self) -> usize {
        self.taps * self.taps
    }

    /// Brings together the output channels' taps of some input channels: `[channel][tap][16]`, the lanes that are no channel
    /// zero.
    #[inline(always)]
    fn lines<S: Simd>(&self, s: S, lanes: usize, channels: Range<usize>, lines: &mut [[f32; LANES]; LINES + 1]) {
        let ahead = channels.len() * self.input;
        if self.input == self.len() {
            // A row for each lane, all its taps.
            let len = channels.len() * self.len();
            for at in (0..len).step_by(LANES) {
                let rows = self.rows(s, lanes, channels.start * self.input + at, len - at, ahead);
                for (line, &row) in lines[at..].iter_mut().zip(&rows) {
                    s.write(line, row);
                }
            }
            return;
        }
        for (channel, lines) in channels.zip(lines.chunks_exact_mut(self.len())) {
            for at in (0..self.len()).step_by(LANES) {
                let rows = self.rows(s, lanes, channel * self.input + at, self.len() - at, ahead);
                for (line, &row) in lines[at..].iter_mut().zip(&rows) {
                    s.write(line, row);
                }
            }
        }
    }

    /// Up to 16 of `len` weights of each lane, of the first from element `from` on, exchanged: a vector for each weight.
    #[inline(always)]
    fn rows<S: Simd>(&self, s: S, lanes: usize, from: usize, len: usize, ahead: usize) -> [S::V; LANES] {
        let mut rows = [s.zero(); LANES];
        for lane in 0..lanes {
            let weights = &self.weights[lane * self.output + from..];
            // Lest the next ones be waited for behind the stores of these.
            s.prefetch(weights.as_ptr().wrapping_add(ahead));
            // SAFETY: the slice has as many elements.
            rows[lane] = unsafe {
                match weights.len() >= LANES {
                    true => s.load(weights.as_ptr()),
                    false => s.load_first(weights.as_ptr(), weights.len().min(len)),
                }
            };
        }
        s.transpose(&mut rows);
        rows
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
        let mut lines = [[0.0; LANES]; LINES + 1];
        let together = (LINES / len).clamp(1, LANES);
        for first in (0..self.channels).step_by(together) {
            let channels = first..self.channels.min(first + together);
            self.weights.lines(s, self.lanes, channels.clone(), &mut lines);
            for phase in phases.iter() {
                self.phase::<S, T, N, R>(s, phase, channels.clone(), &lines);
            }
        }
    }

    fn of_phase<const N: usize, const R: usize>(&self, phase: [usize; 2]) -> Phase<N, R> {
        let (variant, step, w) = (self.variant, self.variant.stride(), &self.weights);
        let (taps, reach) = (phase.map(|p| variant.phase_taps(p)), phase.map(|p| variant.reach(p)));
        let mut of = Phase { reach, lines: [[(0, 0); N]; N], taps: [[ABSENT; R]; R] };
        for i in 0..reach[0] {
            for j in 0..reach[1] {
                let line = |channel| self.depth.line([i, j], phase, channel);
                of.lines[i][j] = (line(0), line(LANES) - line(0));
            }
        }
        for row in 0..taps[0] {
            for col in 0..taps[1] {
                let tap = (row * step + phase[0]) * w.taps + col * step + phase[1];
                of.taps[row][col] = if w.turned { w.len() - 1 - tap } else { tap };
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
