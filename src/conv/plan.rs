//! The three plans.

use super::{Activation, ConvError, PackedWeights, PlanOptions, Tag, isa};
use crate::kernels::conv::{BackwardData, BackwardWeights, Epilogue, Forward, Options};
use crate::kernels::{Buffer, ConvShape, Dims, Isa};

/// The algorithm asked for, with the blocking that follows from the shape.
fn kernel_options(options: &PlanOptions) -> Options {
    Options { algorithm: options.algorithm, ..Options::default() }
}

/// What all plans tell of themselves.
macro_rules! about {
    ($name:ident) => {
        impl $name {
            /// The shape it was made for.
            pub fn shape(&self) -> &ConvShape {
                self.plan.shape()
            }
            /// The dimensions of the input (blocked).
            pub fn input(&self) -> Dims {
                self.shape().input()
            }
            /// The dimensions of the output (blocked).
            pub fn output(&self) -> Dims {
                self.shape().output()
            }
            /// The instruction set.
            pub fn isa(&self) -> Isa {
                self.plan.isa()
            }
            /// The kernel chosen.
            pub fn kernel(&self) -> String {
                self.plan.kernel()
            }
            /// Elements of the workspace for the threads of the current rayon pool; `run` is content with that of one
            /// thread and then uses fewer.
            pub fn workspace_len(&self) -> usize {
                self.plan.workspace_len(rayon::current_num_threads())
            }
            /// The kernel, the shape and why no better instruction set was taken, for people to read.
            pub fn describe(&self) -> String {
                let others = Isa::ALL.iter().filter(|&&i| i > self.isa());
                let why = |i: &Isa| match i.is_available() {
                    true => format!("; {i} is there, but was not asked for"),
                    false => format!("; this processor has no {i}"),
                };
                format!("{} on {:?}{}", self.kernel(), self.shape(), others.map(why).collect::<String>())
            }
        }
    };
}

/// A plan of the forward pass.
#[derive(Debug, Clone)]
pub struct Conv2d {
    plan: Forward,
    activation: Activation,
}
about!(Conv2d);

impl Conv2d {
    pub(super) fn new(shape: &ConvShape, activation: Activation, options: &PlanOptions) -> Result<Conv2d, ConvError> {
        Ok(Conv2d { plan: Forward::new(isa(options)?, shape, &kernel_options(options))?, activation })
    }

    /// Lays out OIHW weights. They serve every plan of the same channels, groups and kernel.
    ///
    /// # Errors
    /// A length that does not fit.
    pub fn pack(&self, weights: &[f32]) -> Result<PackedWeights, ConvError> {
        let mut data = Buffer::zeroed(self.plan.packed_len());
        self.plan.pack(weights, &mut data)?;
        Ok(PackedWeights { data, tag: Tag::forward(self.shape(), self.plan.variant()) })
    }

    /// Computes `y` from `x`, both blocked, on the current rayon pool. Allocates nothing.
    ///
    /// # Errors
    /// A length that does not fit, weights packed for another kind of plan, another epilogue than planned.
    pub fn run(
        &self,
        x: &[f32],
        weights: &PackedWeights,
        epilogue: Epilogue<'_>,
        y: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), ConvError> {
        Tag::forward(self.shape(), self.plan.variant()).require(&weights.tag)?;
        let given = Activation::of(&epilogue);
        if given != self.activation {
            return Err(ConvError::Epilogue { planned: self.activation, given });
        }
        Ok(self.plan.run(x, &weights.data, epilogue, y, workspace)?)
    }
}

/// A plan of the gradient with respect to the input.
#[derive(Debug, Clone)]
pub struct Conv2dBackwardData {
    plan: BackwardData,
}
about!(Conv2dBackwardData);

impl Conv2dBackwardData {
    pub(super) fn new(shape: &ConvShape, options: &PlanOptions) -> Result<Self, ConvError> {
        Ok(Conv2dBackwardData { plan: BackwardData::new(isa(options)?, shape, &kernel_options(options))? })
    }

    /// Lays out OIHW weights. They serve every plan that differs in the number of images alone.
    ///
    /// # Errors
    /// A length that does not fit.
    pub fn pack(&self, weights: &[f32]) -> Result<PackedWeights, ConvError> {
        let mut data = Buffer::zeroed(self.plan.packed_len());
        self.plan.pack(weights, &mut data)?;
        Ok(PackedWeights { data, tag: Tag::backward_data(self.shape(), self.plan.variant()) })
    }

    /// Computes `dx` from `dy`, both blocked, on the current rayon pool. Allocates nothing.
    ///
    /// # Errors
    /// A length that does not fit, weights packed for another kind of plan.
    pub fn run(
        &self,
        dy: &[f32],
        weights: &PackedWeights,
        dx: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), ConvError> {
        Tag::backward_data(self.shape(), self.plan.variant()).require(&weights.tag)?;
        Ok(self.plan.run(dy, &weights.data, dx, workspace)?)
    }
}

/// A plan of the gradient with respect to the weights.
#[derive(Debug, Clone)]
pub struct Conv2dBackwardWeights {
    plan: BackwardWeights,
}
about!(Conv2dBackwardWeights);

impl Conv2dBackwardWeights {
    pub(super) fn new(shape: &ConvShape, options: &PlanOptions) -> Result<Self, ConvError> {
        Ok(Conv2dBackwardWeights { plan: BackwardWeights::new(isa(options)?, shape, &kernel_options(options))? })
    }

    /// Computes `dw` (OIHW, overwritten) from `x` and `dy`, both blocked, on the current rayon pool. Allocates nothing.
    ///
    /// # Errors
    /// A length that does not fit.
    pub fn run(&self, x: &[f32], dy: &[f32], dw: &mut [f32], workspace: &mut [f32]) -> Result<(), ConvError> {
        Ok(self.plan.run(x, dy, dw, workspace)?)
    }
}
