//! The gradient with respect to the input: each weight is read once.

use super::{LinearShape, common};
use crate::error::{check_at_least, check_len};
use crate::reference::linear::CHUNK;
use crate::threads::{Shared, for_each_task};
use crate::{Error, Isa, Kernel, LANES, Simd, blocks, layout, task};
use std::ops::Range;

/// Elements of a strip's chains: 256 KiB, a part of the second cache. Long stretches of a row come from memory faster
/// than short ones: of 512 inputs each they took a seventh longer (16 images, Granite Rapids).
const CHAINS: usize = 1 << 16;
/// Vectors of inputs that a strip may have at least, however many images there are.
const LEAST: usize = 16;
/// Outputs that a chain takes up between a load and a store, and how many outputs ahead weights are asked for; fewer
/// are taken up where the weights of so many would not stay in registers.
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
    /// Vectors of inputs in a strip, the work of a task, at most.
    fn strip(&self) -> usize {
        (CHAINS / (self.shape.n * LANES)).max(LEAST).min(self.shape.inputs().div_ceil(LANES))
    }

    /// Elements of a strip's chains.
    pub(super) fn scratch_len(&self) -> usize {
        self.shape.n.saturating_mul(self.strip() * LANES)
    }

    /// Elements of the workspace with that many threads; with less than [`BackwardData::run`] finds, it uses fewer.
    pub fn workspace_len(&self, threads: usize) -> usize {
        let s = &self.shape;
        task::workspace_len(s.flat_len() + s.output().blocked_len(), threads, self.scratch_len())
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
        let dy = &*gradients;
        self.strips(flat, dx, scratch, self.scratch_len(), |columns, dx, chains| {
            let weights = weights.as_ptr();
            let next = weights.wrapping_add(OUTPUTS * s.inputs());
            self.isa.dispatch(Strip { shape: s, dy, weights, outputs: 0..s.outputs, columns, dx, chains, next });
        })
    }

    /// Calls `strip(inputs, dx, scratch)` for all inputs, to each with `per_thread` elements of the scratch, which
    /// computes those of `dx`, where this is given all images' inputs or, if it must be flattened, is `flat`. The
    /// lengths have been checked.
    pub(super) fn strips(
        &self,
        flat: &mut [f32],
        dx: &mut [f32],
        scratch: &mut [f32],
        per_thread: usize,
        strip: impl Fn(Range<usize>, InputGradient, &mut [f32]) + Sync,
    ) -> Result<(), Error> {
        let s = &self.shape;
        let stride = if s.is_flat() { blocks(s.c) * LANES } else { s.inputs() };
        let to = if s.is_flat() { &mut *dx } else { &mut flat[..s.n * s.inputs()] };
        if stride > s.inputs() {
            to.chunks_mut(stride).for_each(|image| image[s.inputs()..].fill(0.0));
        }
        let (to, vectors) = (InputGradient { to: Shared::new(to), stride }, s.inputs().div_ceil(LANES));
        // As many for each thread.
        let count = vectors.div_ceil(self.strip()).next_multiple_of(rayon::current_num_threads());
        let len = vectors.div_ceil(count);
        for_each_task(vectors.div_ceil(len), scratch, per_thread, |task, scratch| {
            strip(task * len * LANES..s.inputs().min((task + 1) * len * LANES), to, scratch);
        });
        if s.is_flat() { Ok(()) } else { layout::nchw_to_blocked(self.isa, s.input(), &flat[..s.n * s.inputs()], dx) }
    }
}

/// The inputs' gradients of all images, and the distance of images.
#[derive(Clone, Copy)]
pub(super) struct InputGradient {
    to: Shared,
    stride: usize,
}

/// What some outputs give to some inputs of all images: outputs from a whole block on, after all before them.
pub(super) struct Strip<'a> {
    pub shape: &'a LinearShape,
    /// `[block][image][lane]`.
    pub dy: &'a [f32],
    /// Those of the shape.
    pub weights: *const f32,
    pub outputs: Range<usize>,
    pub columns: Range<usize>,
    pub dx: InputGradient,
    /// `[vector][image][lane]`, which stay from outputs to outputs.
    pub chains: &'a mut [f32],
    /// Laid out like the weights: what stands there at each place that is read is asked for. It need not exist.
    pub next: *const f32,
}

impl Kernel for Strip<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let Range { start: mut output, end } = self.outputs;
        while output < end {
            output += if const { S::TILE_VECTORS >= 4 } {
                self.up_to::<S, OUTPUTS>(s, output, end)
            } else {
                self.up_to::<S, FEW_OUTPUTS>(s, output, end)
            };
            if output.is_multiple_of(CHUNK) || output == self.shape.outputs {
                self.add(s, output <= CHUNK);
            }
        }
    }
}

impl Strip<'_> {
    /// Adds the chains to the sums, or makes them the first.
    #[inline(always)]
    fn add<S: Simd>(&mut self, s: S, is_first: bool) {
        let chains = self.chains.chunks(self.shape.n * LANES);
        for (column, chains) in self.columns.clone().step_by(LANES).zip(chains) {
            let lanes = LANES.min(self.columns.end - column);
            for (image, chain) in chains.as_chunks::<LANES>().0.iter().enumerate() {
                // SAFETY: `lanes` inputs of an image of `dx`, whose length `run` has checked; this task alone writes
                // its columns.
                unsafe {
                    let to = self.dx.to.ptr().add(image * self.dx.stride + column);
                    let sum = match is_first {
                        true => s.vector(chain),
                        false => s.add(s.load_first(to, lanes), s.vector(chain)),
                    };
                    s.store_first(to, sum, lanes);
                }
            }
        }
    }

    /// Takes `R` outputs, or one where there are fewer up to `end`; how many.
    #[inline(always)]
    fn up_to<S: Simd, const R: usize>(&mut self, s: S, output: usize, end: usize) -> usize {
        if end - output < R {
            self.outputs::<S, 1>(s, output);
            return 1;
        }
        self.outputs::<S, R>(s, output);
        R
    }

    /// Takes `R` outputs into the chains of all columns and images.
    #[inline(always)]
    fn outputs<S: Simd, const R: usize>(&mut self, s: S, output: usize) {
        let (n, inputs, is_first) = (self.shape.n, self.shape.inputs(), output.is_multiple_of(CHUNK));
        let dy = self.dy[output / LANES * n * LANES + output % LANES..].as_ptr();
        let per_image = R.div_ceil(n);
        for (column, chains) in self.columns.clone().step_by(LANES).zip(self.chains.chunks_mut(n * LANES)) {
            let lanes = LANES.min(self.columns.end - column);
            let mut w = [s.zero(); R];
            for (r, w) in w.iter_mut().enumerate() {
                // SAFETY: `lanes` weights of an output of the shape, whose length `run` has checked.
                unsafe {
                    let from = self.weights.add((output + r) * inputs + column);
                    *w = if lanes == LANES { s.load(from) } else { s.load_first(from, lanes) };
                }
            }
            for (image, chain) in chains.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                // Little by little, beside the products: see `Block::tile`.
                for r in image * per_image..R.min((image + 1) * per_image) {
                    s.prefetch_far(self.next.wrapping_add((output + r) * inputs + column));
                }
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
