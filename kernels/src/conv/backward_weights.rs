//! The gradient with respect to the weights.

mod chunk;
mod direct;
mod tree;
mod unpack;

use super::winograd::Weights;
use super::{Layout, Options};
use crate::error::{check_at_least, check_len};
use crate::reference::winograd::Variant;
use crate::{ConvShape, Error, Isa, task};
pub(super) use chunk::add_lines;
use direct::Direct;

/// A plan of the gradient with respect to the weights (He et al. 2015, section 2.2: what the chain rule gives).
#[derive(Debug, Clone)]
pub struct BackwardWeights {
    isa: Isa,
    shape: ConvShape,
    /// Elements of the input, as it lies.
    x_len: usize,
    kind: Kind,
}

/// The algorithm's own plan.
#[derive(Debug, Clone)]
enum Kind {
    Direct(Box<Direct>),
    Winograd(Box<Weights>),
}

impl BackwardWeights {
    /// Plans the shape (that of the forward convolution).
    ///
    /// # Errors
    /// A shape that cannot be served by the algorithm asked for, an instruction set that the processor lacks.
    pub fn new(isa: Isa, shape: &ConvShape, options: &Options) -> Result<BackwardWeights, Error> {
        shape.check()?;
        options.input.check(shape, options.algorithm)?;
        let isa = isa.require()?;
        let variant = match options.input {
            Layout::Blocked => options.algorithm.weights_variant(shape)?,
            // Of a stride the phases of few channels are brought together, wherever they lie.
            Layout::Nchw => options.algorithm.weights_variant(shape)?.filter(|v| v.stride() > 1),
        };
        let kind = match variant {
            None => Kind::Direct(Box::new(Direct::new(isa, shape, options))),
            Some(variant) => Kind::Winograd(Box::new(Weights::new(variant, shape, options))),
        };
        Ok(BackwardWeights { isa, shape: *shape, x_len: options.input.len(&shape.input()), kind })
    }

    /// The kernel chosen, for people to read: algorithm, instruction set, rows × channels of the register tile.
    pub fn kernel(&self) -> String {
        match &self.kind {
            Kind::Direct(direct) => direct.kernel(),
            Kind::Winograd(winograd) => winograd.kernel(self.isa),
        }
    }

    /// The Winograd variant, `None` if the algorithm is the direct one: the order of the sums.
    pub fn variant(&self) -> Option<Variant> {
        match &self.kind {
            Kind::Direct(_) => None,
            Kind::Winograd(winograd) => Some(winograd.variant()),
        }
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The shape.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// Elements of the workspace with that many threads; with less than [`BackwardWeights::run`] finds, it uses fewer.
    pub fn workspace_len(&self, threads: usize) -> usize {
        let threads = task::counted(threads);
        match &self.kind {
            Kind::Direct(direct) => direct.workspace_len(threads),
            Kind::Winograd(winograd) => winograd.workspace_len(threads),
        }
    }

    /// Computes `dw` (OIHW, overwritten) from `x` (blocked as [`ConvShape::input`], or as [`Options::input`] says) and
    /// `dy` (as [`ConvShape::output`]) on the current rayon pool. The workspace may hold anything.
    ///
    /// # Errors
    /// A length that does not fit.
    pub fn run(&self, x: &[f32], dy: &[f32], dw: &mut [f32], workspace: &mut [f32]) -> Result<(), Error> {
        let s = &self.shape;
        check_len("x", x.len(), self.x_len)?;
        check_len("dy", dy.len(), s.output().blocked_len())?;
        check_len("dw", dw.len(), s.weight_len())?;
        check_at_least("workspace", workspace.len(), self.workspace_len(1))?;
        match &self.kind {
            Kind::Direct(direct) => direct.run(x, dy, dw, workspace),
            Kind::Winograd(winograd) => winograd.run(self.isa, x, dy, dw, workspace),
        }
        Ok(())
    }
}
