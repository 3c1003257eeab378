//! Both backward passes at once: the weights are read once for the gradient with respect to the input and for their own
//! step.

use super::backward_data::Strip;
use super::backward_weights::{Block, Laid, Target};
use super::{BackwardData, BackwardWeights, LinearShape};
use crate::elementwise::Rates;
use crate::error::{check_at_least, check_len};
use crate::threads::Shared;
use crate::{Error, Isa, LANES, task};

/// Elements of weights, momentum, inputs and chains that stay in the first cache from one gradient to the other, of up
/// to 48 images: 32 KiB.
const NEAR: usize = 1 << 13;
/// Of vectors of inputs a multiple of which is taken at a time: those of a tile.
const VECTORS: usize = 4;

/// Gradient with respect to the input, and one step of gradient descent of the weights: rows of sixteen outputs are
/// walked a few inputs at a time, whose weights are updated as soon as they are used, while those that come are on
/// their way. Of 4096 outputs it takes two thirds (1 image) to five sixths (16) of the time of one pass after the
/// other, of 64 images as long (Granite Rapids, two threads).
#[derive(Debug, Clone)]
pub struct BackwardStep {
    isa: Isa,
    data: BackwardData,
    weights: BackwardWeights,
}

impl BackwardStep {
    /// Plans the shape.
    ///
    /// # Errors
    /// A shape that cannot be served, an instruction set that the processor lacks.
    pub fn new(isa: Isa, shape: &LinearShape) -> Result<BackwardStep, Error> {
        Ok(BackwardStep {
            isa: isa.require()?,
            data: BackwardData::new(isa, shape)?,
            weights: BackwardWeights::new(isa, shape)?,
        })
    }

    /// The shape it was made for.
    pub fn shape(&self) -> &LinearShape {
        self.data.shape()
    }

    /// The kernel, for people to read.
    pub fn kernel(&self) -> String {
        self.data.kernel()
    }

    fn scratch_len(&self) -> usize {
        self.data.scratch_len() + self.weights.scratch_len()
    }

    /// Inputs that are taken at a time.
    fn inputs(&self) -> usize {
        let vectors = NEAR / (2 * (self.shape().n + LANES) * LANES);
        (vectors / VECTORS).max(1) * VECTORS * LANES
    }

    /// Elements of the workspace with that many threads; with less than [`BackwardStep::run`] finds, it uses fewer.
    pub fn workspace_len(&self, threads: usize) -> usize {
        task::workspace_len(self.weights.workspace_len(threads), threads, self.data.scratch_len())
    }

    /// Computes `dx` (blocked like the input) as [`BackwardData::run`] does from the weights as they are, and updates
    /// these, `[outputs][c·h·w]`, and their momentum as [`BackwardWeights::step`] does: with the bits of the one and
    /// then the other.
    ///
    /// # Errors
    /// A length that does not fit, a rate that is not finite.
    #[allow(clippy::too_many_arguments)]
    pub fn run(
        &self,
        x: &[f32],
        dy: &[f32],
        weights: &mut [f32],
        velocity: &mut [f32],
        rates: Rates,
        dx: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let s = self.shape();
        check_len("weights", weights.len(), s.weight_len())?;
        check_len("velocity", velocity.len(), s.weight_len())?;
        check_len("x", x.len(), s.input().blocked_len())?;
        check_len("dy", dy.len(), s.output().blocked_len())?;
        check_len("dx", dx.len(), s.input().blocked_len())?;
        check_at_least("workspace", workspace.len(), self.workspace_len(1))?;
        rates.check()?;
        // Few inputs are too few strips for many threads.
        if s.inputs().div_ceil(LANES) < VECTORS * rayon::current_num_threads() {
            self.data.run(dy, weights, dx, workspace)?;
            return self.weights.step(x, dy, weights, velocity, rates, workspace);
        }
        let Laid { x, dy, flat, scratch } = self.weights.laid(x, dy, workspace)?;
        let (weights, velocity) = (Shared::new(weights), Shared::new(velocity));
        let target = Target::Step { weights, velocity, rates, was_asked: true };
        let each = self.inputs();
        self.data.strips(flat, dx, scratch, self.scratch_len(), |strip, dx, scratch| {
            let (chains, waiting) = scratch.split_at_mut(self.data.scratch_len());
            for first in (0..s.outputs).step_by(LANES) {
                let outputs = first..s.outputs.min(first + LANES);
                let parts = strip.clone().step_by(each).zip(chains.chunks_mut(each * s.n));
                for (start, chains) in parts {
                    let (columns, weights) = (start..strip.end.min(start + each), weights.ptr().cast_const());
                    let (outputs, inputs, block) = (outputs.clone(), columns.clone(), first / LANES);
                    // Memory is asked all along: beside the first gradient for the momentum, beside the second for the
                    // weights that come.
                    let next = velocity.ptr().cast_const();
                    self.isa.dispatch(Strip { shape: s, dy, weights, outputs, columns, dx, chains, next });
                    let waiting = &mut *waiting;
                    self.isa.dispatch(Block { shape: s, x, dy, block, inputs, target, ahead: each, waiting });
                }
            }
        })
    }
}
