//! The gradient with respect to the weights: stored, or applied to weights and momentum while it is in registers.

use super::{LinearShape, STRIDE, common};
use crate::elementwise::Rates;
use crate::error::{check_at_least, check_len};
use crate::reference::conv::GROUP;
use crate::reference::linear::CHUNK;
use crate::threads::{Shared, for_each_task};
use crate::{Error, Isa, Kernel, LANES, Simd, blocks, task};
use std::ops::Range;

/// Inputs that all outputs of a block take before the next ones: 2 KiB of each row, packed side by side.
const INPUTS: usize = CHUNK;
/// Outputs and vectors of inputs of the largest tile.
const TILE: usize = 4;

/// Gradient with respect to the weights: `dW = Σₙ dy·xᵀ`.
#[derive(Debug, Clone)]
pub struct BackwardWeights {
    isa: Isa,
    shape: LinearShape,
}
common!(BackwardWeights);

/// What becomes of the gradient.
#[derive(Clone, Copy)]
pub(super) enum Target {
    Store(Shared),
    Step {
        weights: Shared,
        velocity: Shared,
        rates: Rates,
        /// Whether the momentum was asked for before, and is not together with the weights.
        was_asked: bool,
    },
}

/// What lies in the workspace.
pub(super) struct Laid<'a> {
    /// `[chunk][image][STRIDE]`.
    pub x: &'a [f32],
    /// `[block][image][lane]`.
    pub dy: &'a [f32],
    /// Room for a flattened input, and what is left.
    pub flat: &'a mut [f32],
    pub scratch: &'a mut [f32],
}

impl BackwardWeights {
    /// Elements of the sums of groups of images that wait for their neighbours.
    pub(super) fn scratch_len(&self) -> usize {
        let depth = self.shape.n.div_ceil(GROUP).next_power_of_two().trailing_zeros() as usize + 1;
        depth * TILE * TILE * LANES
    }

    /// Elements of the workspace with that many threads; with less than the passes find, they use fewer.
    pub fn workspace_len(&self, threads: usize) -> usize {
        let s = &self.shape;
        let shared = s.flat_len() + s.packed_len() + s.output().blocked_len();
        task::workspace_len(shared, threads, self.scratch_len())
    }

    /// Computes `dw`, `[outputs][c·h·w]`, from `x` and `dy`.
    ///
    /// # Errors
    /// A length that does not fit.
    pub fn run(&self, x: &[f32], dy: &[f32], dw: &mut [f32], workspace: &mut [f32]) -> Result<(), Error> {
        check_len("dw", dw.len(), self.shape.weight_len())?;
        self.all(x, dy, Target::Store(Shared::new(dw)), workspace)
    }

    /// One step of gradient descent with the gradient that [`BackwardWeights::run`] would give: weights and momentum
    /// are read and written once, with the bits of [`sgd_step`](crate::elementwise::sgd_step).
    ///
    /// # Errors
    /// A length that does not fit, a rate that is not finite.
    pub fn step(
        &self,
        x: &[f32],
        dy: &[f32],
        weights: &mut [f32],
        velocity: &mut [f32],
        rates: Rates,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        check_len("weights", weights.len(), self.shape.weight_len())?;
        check_len("velocity", velocity.len(), self.shape.weight_len())?;
        rates.check()?;
        let target =
            Target::Step { weights: Shared::new(weights), velocity: Shared::new(velocity), rates, was_asked: false };
        self.all(x, dy, target, workspace)
    }

    /// Lays `x` and `dy` into the workspace, as tiles read them.
    pub(super) fn laid<'a>(&self, x: &[f32], dy: &[f32], workspace: &'a mut [f32]) -> Result<Laid<'a>, Error> {
        let s = &self.shape;
        check_len("x", x.len(), s.input().blocked_len())?;
        check_len("dy", dy.len(), s.output().blocked_len())?;
        check_at_least("workspace", workspace.len(), self.workspace_len(1))?;
        let (flat, workspace) = workspace.split_at_mut(s.flat_len());
        let (packed, workspace) = workspace.split_at_mut(s.packed_len());
        let (gradients, scratch) = workspace.split_at_mut(dy.len());
        s.pack(self.isa, x, flat, packed)?;
        s.pack_gradients(dy, gradients);
        Ok(Laid { x: packed, dy: gradients, flat, scratch })
    }

    /// All outputs. The target's lengths have been checked.
    fn all(&self, x: &[f32], dy: &[f32], target: Target, workspace: &mut [f32]) -> Result<(), Error> {
        let s = &self.shape;
        let Laid { x, dy, scratch, .. } = self.laid(x, dy, workspace)?;
        for_each_task(blocks(s.outputs), scratch, self.scratch_len(), |block, waiting| {
            self.isa.dispatch(Block { shape: s, x, dy, block, inputs: 0..s.inputs(), target, ahead: INPUTS, waiting });
        });
        Ok(())
    }
}

/// The weights of some inputs to a block of up to sixteen outputs.
pub(super) struct Block<'a> {
    pub shape: &'a LinearShape,
    /// `[chunk][image][STRIDE]`.
    pub x: &'a [f32],
    /// `[block][image][lane]`.
    pub dy: &'a [f32],
    pub block: usize,
    pub inputs: Range<usize>,
    pub target: Target,
    /// How many elements further on the target's next lie.
    pub ahead: usize,
    pub waiting: &'a mut [f32],
}

impl Kernel for Block<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        if const { S::TILE_VECTORS >= TILE } { self.tiles::<S, TILE>(s) } else { self.tiles::<S, 2>(s) }
    }
}

impl Block<'_> {
    /// All outputs and inputs, up to `T` outputs by `T` vectors at a time.
    #[inline(always)]
    fn tiles<S: Simd, const T: usize>(&mut self, s: S) {
        let Range { start: mut first, end: inputs } = self.inputs;
        let end = self.shape.outputs.min((self.block + 1) * LANES);
        while first < inputs {
            let last = inputs.min((first / INPUTS + 1) * INPUTS);
            let mut output = self.block * LANES;
            while output < end {
                let height = if end - output >= T { T } else { 1 };
                let mut input = first;
                while input < last {
                    let width = if last - input >= T * LANES { T } else { 1 };
                    // SAFETY: outputs and inputs of the shape, whose lengths `run`, `step` or `BackwardStep::run` has
                    // checked; no other task has these outputs at these inputs.
                    unsafe {
                        match (height > 1, width > 1) {
                            (true, true) => self.tile::<S, T, T>(s, output, input),
                            (true, false) => self.tile::<S, T, 1>(s, output, input),
                            (false, true) => self.tile::<S, 1, T>(s, output, input),
                            (false, false) => self.tile::<S, 1, 1>(s, output, input),
                        }
                    }
                    input += width * LANES;
                }
                output += height;
            }
            first = last;
        }
    }

    /// `I` outputs, `J` vectors of inputs, of which the only one may be cut short by the end of the row.
    ///
    /// # Safety
    /// The outputs and at least the first of the inputs must be the shape's, all of them where `J > 1`; no other thread
    /// may touch the target's part.
    #[inline(always)]
    unsafe fn tile<S: Simd, const I: usize, const J: usize>(&mut self, s: S, output: usize, input: usize) {
        let (n, inputs) = (self.shape.n, self.shape.inputs());
        let lanes = LANES.min(inputs - input);
        let waiting = self.waiting.as_chunks_mut::<LANES>().0;
        let mut sum = [[s.zero(); J]; I];
        // What the target reads next is asked for little by little, beside the products: asked for all at once it came
        // after them, and memory and arithmetic took the time of both.
        let per_image = (I * J).div_ceil(n);
        for (number, first) in (0..n).step_by(GROUP).enumerate() {
            let mut acc = [[s.zero(); J]; I];
            for image in first..n.min(first + GROUP) {
                for line in image * per_image..(I * J).min((image + 1) * per_image) {
                    self.target.fetch(s, (output + line / J) * inputs + input + line % J * LANES + self.ahead);
                }
                // SAFETY: an image's inputs and output gradients, by the caller's promise.
                unsafe {
                    let x = self.x.as_ptr().add((input / CHUNK * n + image) * STRIDE + input % CHUNK);
                    let dy = self.dy.as_ptr().add((self.block * n + image) * LANES + output % LANES);
                    let mut v = [s.zero(); J];
                    for (j, v) in v.iter_mut().enumerate() {
                        *v = if J == 1 && lanes < LANES { s.load_first(x, lanes) } else { s.load(x.add(j * LANES)) };
                    }
                    for (i, acc) in acc.iter_mut().enumerate() {
                        let dy = s.broadcast(dy.add(i));
                        for j in 0..J {
                            acc[j] = s.fma(v[j], dy, acc[j]);
                        }
                    }
                }
            }
            // The tree of the groups: a sum waits at the level of its size for an equal neighbour.
            let is_last = first + GROUP >= n;
            let merged = number.trailing_ones() as usize;
            for level in (0..usize::BITS as usize).take_while(|&level| number >> level > 0) {
                if level < merged || is_last && number >> level & 1 == 1 {
                    for i in 0..I {
                        for j in 0..J {
                            let left = s.vector(&waiting[(level * I + i) * J + j]);
                            acc[i][j] = s.add(left, acc[i][j]);
                        }
                    }
                }
            }
            if is_last {
                sum = acc;
            } else {
                for i in 0..I {
                    for j in 0..J {
                        s.write(&mut waiting[(merged * I + i) * J + j], acc[i][j]);
                    }
                }
            }
        }
        for (i, sum) in sum.iter().enumerate() {
            for (j, &g) in sum.iter().enumerate() {
                let at = (output + i) * inputs + input + j * LANES;
                // SAFETY: `lanes` weights, by the caller's promise.
                unsafe { self.target.take(s, at, g, if J == 1 { lanes } else { LANES }) };
            }
        }
    }
}

impl Target {
    /// Asks for the vectors of weights and momentum from `at` on, which need not exist, if they are to be read.
    #[inline(always)]
    fn fetch<S: Simd>(self, s: S, at: usize) {
        if let Target::Step { weights, velocity, was_asked, .. } = self {
            s.prefetch_far(weights.ptr().wrapping_add(at));
            if !was_asked {
                s.prefetch_far(velocity.ptr().wrapping_add(at));
            }
        }
    }

    /// Takes the gradient of the `lanes` weights from `at` on.
    ///
    /// # Safety
    /// They must exist, and no other thread touch them.
    #[inline(always)]
    unsafe fn take<S: Simd>(self, s: S, at: usize, g: S::V, lanes: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Target::Store(to) if lanes == LANES => s.store(to.ptr().add(at), g),
                Target::Store(to) => s.store_first(to.ptr().add(at), g, lanes),
                Target::Step { weights, velocity, rates, .. } => {
                    let (w, v) = (weights.ptr().add(at), velocity.ptr().add(at));
                    if lanes == LANES {
                        let (new_w, new_v) = rates.step(s, s.load(w), g, s.load(v));
                        s.store(v, new_v);
                        s.store(w, new_w);
                    } else {
                        let (new_w, new_v) = rates.step(s, s.load_first(w, lanes), g, s.load_first(v, lanes));
                        s.store_first(v, new_v, lanes);
                        s.store_first(w, new_w, lanes);
                    }
                }
            }
        }
    }
}
