//! Lays out weights for a pass, 16 output channels at a time; training does it in every step.

use super::pass::Pass;
use crate::{Isa, Kernel, LANES, Simd};
use rayon::prelude::*;
use std::ops::Range;

/// Lines of taps that are brought together at a time.
pub(super) const LINES: usize = 16 * LANES;

/// OIHW weights as the convolution that is packed reads them, which may be the gradient's, with the channels exchanged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Oihw<'a> {
    pub weights: &'a [f32],
    /// Elements between the convolution's output channels, and between its input channels, of a group; the lesser is a kernel's
    /// length.
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

    /// Brings together the output channels' weights of some input channels at some taps: `[channel][tap][16]`, the lanes that
    /// are no channel zero.
    #[inline(always)]
    pub fn lines<S: Simd>(
        &self,
        s: S,
        lanes: usize,
        channels: Range<usize>,
        taps: Range<usize>,
        lines: &mut [[f32; LANES]],
    ) {
        let ahead = channels.len() * self.input;
        if self.output == 1 {
            // A tap whose output channels are neighbours.
            for (channel, line) in channels.zip(lines) {
                let weights = &self.weights[channel * self.input..][..lanes];
                // SAFETY: the slice has as many elements.
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

    /// Up to 16 of `len` weights of each of so many output channels, of the first from element `from` on, exchanged: a vector
    /// for each weight. The lanes that are no channel are zero.
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

impl Pass {
    /// Lays out weights, `[group][oc / 16][k][16]`.
    pub fn pack(&self, isa: Isa, packed: &mut [f32], weights: &Oihw<'_>) {
        if self.k == 0 {
            return;
        }
        packed.par_chunks_exact_mut(self.k * LANES).enumerate().for_each(|(unit, packed)| {
            let (group, block) = (unit / self.out_blocks(), unit % self.out_blocks());
            let (lanes, weights) =
                (LANES.min(self.goc - block * LANES), weights.block(group, block, (self.gic, self.goc)));
            isa.dispatch(Block { pass: self, weights, lanes, packed });
        });
    }

    /// The same of channels that are computed lane by lane, `[block][k][16]`: `weight(lane, input of its group, row, column)`. They
    /// are few.
    pub fn pack_lanes(&self, packed: &mut [f32], weight: impl Fn(usize, usize, usize, usize) -> f32) {
        let inputs = self.by_lanes.unwrap_or(1);
        let mut lines = packed.as_chunks_mut::<LANES>().0.iter_mut();
        for block in 0..self.groups {
            let lanes = LANES.min(self.output.c - block * LANES);
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
        }
    }
}

/// A block of output channels.
struct Block<'a> {
    pass: &'a Pass,
    /// From its first channel on.
    weights: Oihw<'a>,
    /// Channels that it has.
    lanes: usize,
    /// `[ic / 16][tap][ic][16]`.
    packed: &'a mut [f32],
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Block { pass, weights, lanes, packed } = self;
        let (len, taps) = (weights.len(), pass.rows.taps.len() * pass.cols.taps.len());
        let (mut lines, mut rest) = ([[0.0; LANES]; LINES], packed.as_chunks_mut::<LANES>().0);
        let together = (LINES / len).clamp(1, LANES);
        for first in (0..pass.gic).step_by(LANES) {
            let inputs = LANES.min(pass.gic - first);
            let (to, after) = std::mem::take(&mut rest).split_at_mut(taps * inputs);
            rest = after;
            for start in (0..inputs).step_by(together) {
                let channels = start..inputs.min(start + together);
                // Kernels of more than so many taps come piece by piece.
                for tap in (0..len).step_by(LINES) {
                    let piece = tap..len.min(tap + LINES);
                    weights.lines(s, lanes, first + channels.start..first + channels.end, piece.clone(), &mut lines);
                    pass.place(s, inputs, channels.clone(), &piece, weights.kernel[1], &lines, to);
                }
            }
        }
    }
}

impl Pass {
    /// Copies the lines of a piece of the kernels of some channels of a block to where the pass reads them; it may lack taps.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn place<S: Simd>(
        &self,
        s: S,
        inputs: usize,
        channels: Range<usize>,
        piece: &Range<usize>,
        width: usize,
        lines: &[[f32; LANES]],
        to: &mut [[f32; LANES]],
    ) {
        for (r, row) in self.rows.taps.iter().enumerate() {
            for (c, col) in self.cols.taps.iter().enumerate() {
                let tap = row.weight * width + col.weight;
                if !piece.contains(&tap) {
                    continue;
                }
                let from = lines[tap - piece.start..].iter().step_by(piece.len());
                let to = &mut to[(r * self.cols.taps.len() + c) * inputs + channels.start..];
                for (line, to) in from.zip(to).take(channels.len()) {
                    s.write(to, s.vector(line));
                }
            }
        }
    }
}
