//! The gradient with respect to the input: each weight is read once.

use super::{LinearShape, common};
use crate::error::{check_at_least, check_len};
use crate::reference::linear::CHUNK;
use crate::threads::{Shared, for_each_task};
use crate::{Error, Isa, Kernel, LANES, Simd, blocks, layout};
use std::ops::Range;

/// Elements of the chains that a thread works on: 32 KiB.
const CHAINS: usize = 1 << 13;
/// Vectors of inputs that a thread works on at least: shorter stretches of a row are read slowly.
const LEAST: usize = 16;
/// Outputs that a chain takes up between a load and a store; fewer where the weights of so many would not stay in registers.
const OUTPUTS: usize = 8;
const FEW_OUTPUTS: usize = 4;

/// Gradient with respect to the input: `dx = Wᵀ·dy`.
#[derive(Debug, Clone)]
pub struct BackwardData {
    isa: Isa,
    shape: LinearShape,
}
common!(BackwardData);

impl BackwardData {
    /// Vectors of inputs in a strip, the work of a task.
    fn strip(&self) -> usize {
        (CHAINS / (self.shape.n * LANES)).clamp(LEAST, 4 * LEAST)
    }

    fn scratch_len(&self) -> usize {
        self.strip() * LANES * self.shape.n
    }

    /// Elements of the workspace with that many threads; with less than [`BackwardData::run`] finds, it uses fewer.
    pub fn workspace_len(&self, threads: usize) -> usize {
        let s = &self.shape;
        s.flat_len() + s.output().blocked_len() + threads.max(1) * self.scratch_len()
    }

    /// Computes `dx` (blocked like the input) from `dy` (blocked like the output) and `weights`, `[outputs][c·h·w]`.
    ///
    /// # Errors
    /// A length that does not fit.
    pub fn run(&self, dy: &[f32], weights: &[f32], dx: &mut [f32], workspace: &mut [f32]) -> Result<(), Error> {
        let s = &self.shape;
        check_len("dy", dy.len(), s.output().blocked_len())?;
        check_len("weights", weights.len(), s.weight_len())?;
        check_len("dx", dx.len(), s.input().blocked_len())?;
        check_at_least("workspace", workspace.len(), self.workspace_len(1))?;
        let (flat, workspace) = workspace.split_at_mut(s.flat_len());
        let (gradients, scratch) = workspace.split_at_mut(dy.len());
        s.pack_gradients(dy, gradients);
        let stride = if s.is_flat() { blocks(s.c) * LANES } else { s.inputs() };
        let to = if s.is_flat() { &mut *dx } else { &mut flat[..s.n * s.inputs()] };
        if stride > s.inputs() {
            to.chunks_mut(stride).for_each(|image| image[s.inputs()..].fill(0.0));
        }
        let (dy, to, vectors) = (&*gradients, Shared::new(to), s.inputs().div_ceil(LANES));
        let threads = rayon::current_num_threads();
        let strip = self.strip().min(vectors.div_ceil(threads)).max(1);
        for_each_task(vectors.div_ceil(strip), scratch, self.scratch_len(), |task, chains| {
            let columns = task * strip * LANES..s.inputs().min((task + 1) * strip * LANES);
            self.isa.dispatch(Strip { shape: s, dy, weights, columns, dx: to, stride, chains });
        });
        if s.is_flat() { Ok(()) } else { layout::nchw_to_blocked(self.isa, s.input(), &flat[..s.n * s.inputs()], dx) }
    }
}

/// Some inputs of all images.
struct Strip<'a> {
    shape: &'a LinearShape,
    /// `[block][image][lane]`.
    dy: &'a [f32],
    weights: &'a [f32],
    columns: Range<usize>,
    dx: Shared,
    stride: usize,
    /// `[vector][image][lane]`.
    chains: &'a mut [f32],
}

impl Kernel for Strip<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let LinearShape { n, outputs, .. } = *self.shape;
        for first in (0..outputs).step_by(CHUNK) {
            let end = outputs.min(first + CHUNK);
            let mut output = first;
            while output < end {
                let most = if S::TILE_VECTORS >= 4 { OUTPUTS } else { FEW_OUTPUTS };
                let height = if end - output >= most { most } else { 1 };
                match height {
                    FEW_OUTPUTS => self.outputs::<S, FEW_OUTPUTS>(s, output, output == first),
                    OUTPUTS => self.outputs::<S, OUTPUTS>(s, output, output == first),
                    _ => self.outputs::<S, 1>(s, output, output == first),
                }
                output += height;
            }
            for (vector, chains) in self.chains.chunks(n * LANES).enumerate() {
                let column = self.columns.start + vector * LANES;
                if column >= self.columns.end {
                    break;
                }
                let lanes = LANES.min(self.columns.end - column);
                for (image, chain) in chains.as_chunks::<LANES>().0.iter().enumerate() {
                    // SAFETY: `lanes` inputs of an image of `dx`, whose length `run` has checked; this task alone writes
                    // its columns.
                    unsafe {
                        let to = self.dx.ptr().add(image * self.stride + column);
                        let sum = match first {
                            0 => s.vector(chain),
                            _ => s.add(s.load_first(to, lanes), s.vector(chain)),
                        };
                        s.store_first(to, sum, lanes);
                    }
                }
            }
        }
    }
}

impl Strip<'_> {
    /// Takes `R` outputs into the chains of all columns and images.
    #[inline(always)]
    fn outputs<S: Simd, const R: usize>(&mut self, s: S, output: usize, is_first: bool) {
        let (n, inputs) = (self.shape.n, self.shape.inputs());
        let dy = self.dy[output / LANES * n * LANES + output % LANES..].as_ptr();
        for (column, chains) in self.columns.clone().step_by(LANES).zip(self.chains.chunks_mut(n * LANES)) {
            let lanes = LANES.min(self.columns.end - column);
            let mut w = [s.zero(); R];
            for (r, w) in w.iter_mut().enumerate() {
                // SAFETY: `lanes` weights of an output of the shape, whose length `run` has checked.
                unsafe {
                    let from = self.weights.as_ptr().add((output + r) * inputs + column);
                    s.prefetch_far(from.wrapping_add(R * inputs));
                    *w = if lanes == LANES { s.load(from) } else { s.load_first(from, lanes) };
                }
            }
            for (image, chain) in chains.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let mut acc = if is_first { s.zero() } else { s.vector(chain) };
                for (r, &w) in w.iter().enumerate() {
                    // SAFETY: an output of an image of `dy`, whose length `run` has checked.
                    let dy = unsafe { s.broadcast(dy.add(image * LANES + r)) };
                    acc = s.fma(dy, w, acc);
                }
                s.write(chain, acc);
            }
        }
    }
}
