//! OIHW weights, brought together for 16 output channels at a time, as both algorithms lay them out; and the layout of
//! the direct one. Training does it in every step.

use super::pass::Pass;
use crate::threads::Shared;
use crate::{Isa, Kernel, LANES, Simd};
use rayon::prelude::*;
use std::ops::Range;

/// Lines of taps that are brought together at a time.
pub(super) const LINES: usize = 16 * LANES;

/// OIHW weights as the convolution that is packed reads them, which may be the gradient's, with the channels exchanged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Oihw<'a> {
    pub weights: &'a [f32],
    /// Elements between the convolution's output channels, and between its input channels, of a group; the lesser is a
    /// kernel's length.
    pub output: usize,
    pub input: usize,
    /// Rows and columns of a kernel.
    pub kernel: [usize; 2],
}

impl<'a> Oihw<'a> {
    /// As the forward convolution reads them.
    pub fn forward(weights: &'a [f32], inputs: usize, kernel: [usize; 2]) -> Oihw<'a> {
        let len = kernel[0] * kernel[1];
        Oihw { weights, output: inputs * len, input: len, kernel }
    }

    /// As the gradient of its input does; `inputs` are the convolution's own, of a group.
    pub fn backward(weights: &'a [f32], inputs: usize, kernel: [usize; 2]) -> Oihw<'a> {
        let len = kernel[0] * kernel[1];
        Oihw { weights, output: len, input: inputs * len, kernel }
    }

    /// Elements of a kernel.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// From a block of output channels of a group on; a group has so many input and output channels.
    pub fn block(&self, group: usize, block: usize, (inputs, outputs): (usize, usize)) -> Oihw<'a> {
        let at = group * inputs * outputs * self.len() + block * LANES * self.output;
        Oihw { weights: &self.weights[at..], ..*self }
    }

    /// Brings together the weights of so many output channels, 16 at most, of some input channels at some taps:
    /// `[channel][tap][16]`, the lanes that are no channel zero. Of the lines behind them it may overwrite some.
    #[inline(always)]
    pub fn lines<S: Simd>(
        &self,
        s: S,
        lanes: usize,
        channels: Range<usize>,
        taps: Range<usize>,
        lines: &mut [[f32; LANES]],
    ) {
        debug_assert!(channels.len() * taps.len() <= lines.len() && taps.end <= self.len());
        let (lanes, ahead) = (lanes.min(LANES), channels.len() * self.input);
        if self.output == 1 {
            // A tap whose output channels are neighbours.
            for (channel, line) in channels.zip(lines) {
                let weights = &self.weights[channel * self.input..][..lanes];
                // SAFETY: the slice has as many elements, 16 at most.
                s.write(line, unsafe { s.load_first(weights.as_ptr(), lanes) });
            }
            return;
        }
        if self.input == taps.len() {
            // A row for each lane, all its taps.
            let len = channels.len() * taps.len();
            for at in (0..len).step_by(LANES) {
                let rows = self.rows(s, lanes, channels.start * self.input + at, len - at, ahead);
                for (line, &row) in lines[at..].iter_mut().zip(&rows) {
                    s.write(line, row);
                }
            }
            return;
        }
        for (channel, lines) in channels.zip(lines.chunks_exact_mut(taps.len())) {
            for at in (0..taps.len()).step_by(LANES) {
                let rows = self.rows(s, lanes, channel * self.input + taps.start + at, taps.len() - at, ahead);
                for (line, &row) in lines[at..].iter_mut().zip(&rows) {
                    s.write(line, row);
                }
            }
        }
    }

    /// Up to 16 of `len` weights of each of so many output channels, of the first from element `from` on, exchanged: a
    /// vector for each weight. The lanes that are no channel are zero.
    #[inline(always)]
    fn rows<S: Simd>(&self, s: S, lanes: usize, from: usize, len: usize, ahead: usize) -> [S::V; LANES] {
        let mut rows = [s.zero(); LANES];
        for (lane, row) in rows.iter_mut().enumerate().take(lanes) {
            let weights = &self.weights[lane * self.output + from..];
            // Lest the next ones be waited for behind the stores of these.
            s.prefetch(weights.as_ptr().wrapping_add(ahead));
            // SAFETY: the slice has as many elements.
            *row = unsafe {
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

/// Lays out weights for passes that share their channels, `[group][oc / 16][k][16]` for one pass after the other. A
/// kernel's taps are those of one of them or of several.
///
/// # Panics
/// If the passes' channels differ, or the length does not fit.
pub(super) fn pack(passes: &[Pass], isa: Isa, packed: &mut [f32], weights: &Oihw<'_>) {
    let Some(pass) = passes.first() else { return };
    let channels = |pass: &Pass| (pass.groups, pass.gic, pass.goc);
    assert!(passes.iter().all(|p| channels(p) == channels(pass)));
    assert!(packed.len() == passes.iter().map(Pass::packed_len).sum());
    let (packed, blocks) = (Shared::new(packed), pass.out_blocks());
    (0..pass.groups * blocks).into_par_iter().for_each(|unit| {
        let (group, block) = (unit / blocks, unit % blocks);
        let (lanes, weights) = (LANES.min(pass.goc - block * LANES), weights.block(group, block, (pass.gic, pass.goc)));
        isa.dispatch(Block { passes, unit, weights, lanes, packed });
    });
}

/// A block of output channels.
struct Block<'a> {
    passes: &'a [Pass],
    /// Which of all groups' blocks.
    unit: usize,
    /// From its first channel on.
    weights: Oihw<'a>,
    /// Channels that it has.
    lanes: usize,
    /// Pass by pass `[unit][ic / 16][tap][ic][16]`.
    packed: Shared,
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (len, channels) = (self.weights.len(), self.passes.first().map_or(0, |pass| pass.gic));
        let mut lines = [[0.0; LANES]; LINES];
        let together = (LINES / len).clamp(1, LANES);
        for first in (0..channels).step_by(LANES) {
            let inputs = LANES.min(channels - first);
            for start in (0..inputs).step_by(together) {
                let some = start..inputs.min(start + together);
                // Kernels of more than so many taps come piece by piece.
                for tap in (0..len).step_by(LINES) {
                    let piece = tap..len.min(tap + LINES);
                    self.weights.lines(s, self.lanes, first + some.start..first + some.end, piece.clone(), &mut lines);
                    self.place(s, first..first + inputs, some.clone(), &piece, &lines);
                }
            }
        }
    }
}

impl Block<'_> {
    /// Copies the lines of a piece of the kernels of some channels of a block of inputs to where each pass reads them.
    #[inline(always)]
    fn place<S: Simd>(
        &self,
        s: S,
        block: Range<usize>,
        some: Range<usize>,
        piece: &Range<usize>,
        lines: &[[f32; LANES]; LINES],
    ) {
        let (width, mut before) = (self.weights.kernel[1], 0);
        for pass in self.passes {
            let cols = pass.cols.taps.len();
            let taps = pass.rows.taps.len() * cols;
            let to = before + (self.unit * pass.k + block.start * taps) * LANES;
            before += pass.packed_len();
            for (r, row) in pass.rows.taps.iter().enumerate() {
                let at = row.weight * width;
                if at >= piece.end || at + width <= piece.start {
                    continue;
                }
                for (c, col) in pass.cols.taps.iter().enumerate() {
                    if !piece.contains(&(at + col.weight)) {
                        continue;
                    }
                    let from = lines[at + col.weight - piece.start..].iter().step_by(piece.len());
                    let to = to + ((r * cols + c) * block.len() + some.start) * LANES;
                    for (line, i) in from.zip(0..some.len()) {
                        // SAFETY: `pack` has checked the channels and the length of `packed`, of which a pass has `k`
                        // lines for each unit, and a block of inputs one for each tap and channel; this task alone
                        // writes the unit's.
                        unsafe { s.store(self.packed.ptr().add(to + i * LANES), s.vector(line)) };
                    }
                }
            }
        }
    }
}

impl Pass {
    /// Lays out the weights of channels that are computed lane by lane, `[block][k][16]`:
    /// `weight(lane, input of its group, row, column)`. They are few.
    pub fn pack_lanes(&self, packed: &mut [f32], weight: impl Fn(usize, usize, usize, usize) -> f32 + Sync) {
        let (Some(inputs), 1..) = (self.by_lanes, self.k) else { return };
        packed.par_chunks_exact_mut(self.k * LANES).enumerate().for_each(|(block, packed)| {
            let lanes = LANES.min(self.output.c - block * LANES);
            let mut lines = packed.as_chunks_mut::<LANES>().0.iter_mut();
            for row in &self.rows.taps {
                for col in &self.cols.taps {
                    for (i, line) in (0..inputs).zip(&mut lines) {
                        line.fill(0.0);
                        for (lane, w) in line[..lanes].iter_mut().enumerate() {
                            *w = weight(block * LANES + lane, i, row.weight, col.weight);
                        }
                    }
                }
            }
        });
    }
}
