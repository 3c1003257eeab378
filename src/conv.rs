//! Convolution as a library: spec → plan → pack → run.
//!
//! A [`Conv2dSpec`] names the options; with the input's dimensions it becomes a plan ([`Conv2d`],
//! [`Conv2dBackwardData`], [`Conv2dBackwardWeights`]), which has checked everything that does not depend on data; a
//! plan packs weights once ([`PackedWeights`]) and runs many times on slices, into the caller's buffers, allocating
//! nothing. Activations are blocked (nChw16c, [`crate::kernels::layout`]); [`forward_nchw`] and its like take and
//! return plain NCHW and do all of it in one line.
//!
//! ```
//! use rectify::conv::{Activation, Conv2dSpec, PlanOptions};
//! use rectify::kernels::{Buffer, Dims, conv::Epilogue, layout};
//!
//! let input = Dims { n: 1, c: 3, h: 32, w: 32 };
//! let spec = Conv2dSpec::new(3, 16, 3).padding(1);
//! let plan = spec.plan(input, Activation::BiasPrelu, &PlanOptions::default())?;
//! let packed = plan.pack(&vec![0.1; spec.weight_len()])?;
//!
//! let mut x = Buffer::zeroed(plan.input().blocked_len());
//! layout::nchw_to_blocked(plan.isa(), input, &vec![1.0; input.plain_len()], &mut x)?;
//! let mut y = Buffer::zeroed(plan.output().blocked_len());
//! let mut workspace = Buffer::zeroed(plan.workspace_len());
//! let epilogue = Epilogue::BiasPrelu { bias: &[0.0; 16], slopes: &[0.25; 16] };
//! plan.run(&x, &packed, epilogue, &mut y, &mut workspace)?;
//! println!("{}", plan.describe());
//! # Ok::<(), rectify::conv::ConvError>(())
//! ```

pub use crate::kernels::conv::Algorithm;
use crate::kernels::conv::Epilogue;
use crate::kernels::reference::winograd::Variant;
use crate::kernels::{Buffer, ConvShape, Dims, Error, Isa};

mod nchw;
mod plan;

pub use nchw::{Nchw, backward_nchw, forward_nchw};
pub use plan::{Conv2d, Conv2dBackwardData, Conv2dBackwardWeights};

/// Why a plan cannot be made or run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConvError {
    /// A shape, length or instruction set.
    #[error(transparent)]
    Kernel(#[from] Error),
    /// The weights were packed by another kind of plan.
    #[error("the weights were packed for {packed}, but the plan asks for {plan}")]
    Packed {
        /// What they were packed for.
        packed: String,
        /// What the plan asks for.
        plan: String,
    },
    /// The input has another number of channels than the spec.
    #[error("the input has {got} channels, but the spec asks for {want}")]
    Channels {
        /// Channels of the input.
        got: usize,
        /// Channels of the spec.
        want: usize,
    },
    /// The epilogue is not the one that was planned.
    #[error("the plan was made for {planned:?}, but {given:?} was given")]
    Epilogue {
        /// What was planned.
        planned: Activation,
        /// What was given.
        given: Activation,
    },
}

/// What a plan does to the sums before it stores them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// Nothing.
    None,
    /// Adds the bias.
    Bias,
    /// Adds the bias, then PReLU (He et al. 2015, Eq. 1).
    BiasPrelu,
    /// As [`Activation::BiasPrelu`], and keeps the pre-activation for the backward pass.
    BiasPreluKeep,
    /// Adds the bias, then another tensor: the sum that ends a residual block.
    BiasAdd,
}

impl Activation {
    fn of(epilogue: &Epilogue<'_>) -> Activation {
        match epilogue {
            Epilogue::None => Activation::None,
            Epilogue::Bias(_) => Activation::Bias,
            Epilogue::BiasPrelu { .. } => Activation::BiasPrelu,
            Epilogue::BiasPreluKeep { .. } => Activation::BiasPreluKeep,
            Epilogue::BiasAdd { .. } => Activation::BiasAdd,
        }
    }
}

/// Zero rows and columns around the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns on the left.
    pub left: usize,
    /// Columns on the right.
    pub right: usize,
}

/// Choices beside the shape. None of them but the algorithm changes a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlanOptions {
    /// The instruction set; the best one ([`Isa::best`]) if `None`.
    pub isa: Option<Isa>,
    /// The algorithm.
    pub algorithm: Algorithm,
}

/// The options of a convolution; the defaults are stride 1, no padding, no dilation, one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Conv2dSpec {
    in_channels: usize,
    out_channels: usize,
    kernel: (usize, usize),
    stride: (usize, usize),
    padding: Padding,
    dilation: (usize, usize),
    groups: usize,
}

impl Conv2dSpec {
    /// A square kernel of `kernel × kernel` taps.
    pub fn new(in_channels: usize, out_channels: usize, kernel: usize) -> Conv2dSpec {
        Conv2dSpec {
            in_channels,
            out_channels,
            kernel: (kernel, kernel),
            stride: (1, 1),
            padding: Padding::default(),
            dilation: (1, 1),
            groups: 1,
        }
    }

    /// A kernel of `rows × cols` taps.
    pub fn kernel(self, rows: usize, cols: usize) -> Conv2dSpec {
        Conv2dSpec { kernel: (rows, cols), ..self }
    }

    /// The same stride for rows and columns.
    pub fn stride(self, stride: usize) -> Conv2dSpec {
        self.strides(stride, stride)
    }

    /// Strides of rows and columns.
    pub fn strides(self, rows: usize, cols: usize) -> Conv2dSpec {
        Conv2dSpec { stride: (rows, cols), ..self }
    }

    /// The same padding on all sides.
    pub fn padding(self, padding: usize) -> Conv2dSpec {
        self.paddings(Padding { top: padding, bottom: padding, left: padding, right: padding })
    }

    /// Each side's own padding.
    pub fn paddings(self, padding: Padding) -> Conv2dSpec {
        Conv2dSpec { padding, ..self }
    }

    /// Distance of the kernel's rows and columns (1: dense).
    pub fn dilation(self, rows: usize, cols: usize) -> Conv2dSpec {
        Conv2dSpec { dilation: (rows, cols), ..self }
    }

    /// Groups that input and output channels are split into.
    pub fn groups(self, groups: usize) -> Conv2dSpec {
        Conv2dSpec { groups, ..self }
    }

    /// Elements of the OIHW weights, `[out][in / groups][kernel rows][kernel columns]`.
    pub fn weight_len(&self) -> usize {
        let (rows, cols) = self.kernel;
        self.out_channels
            .saturating_mul(self.in_channels / self.groups.max(1))
            .saturating_mul(rows.saturating_mul(cols))
    }

    /// The shape on an input of these dimensions.
    ///
    /// # Errors
    /// Channels that differ, a shape that cannot be served.
    pub fn shape(&self, input: Dims) -> Result<ConvShape, ConvError> {
        if input.c != self.in_channels {
            return Err(ConvError::Channels { got: input.c, want: self.in_channels });
        }
        let shape = ConvShape {
            n: input.n,
            groups: self.groups,
            ic: input.c,
            ih: input.h,
            iw: input.w,
            oc: self.out_channels,
            kh: self.kernel.0,
            kw: self.kernel.1,
            stride_h: self.stride.0,
            stride_w: self.stride.1,
            pad_top: self.padding.top,
            pad_bottom: self.padding.bottom,
            pad_left: self.padding.left,
            pad_right: self.padding.right,
            dilation_h: self.dilation.0,
            dilation_w: self.dilation.1,
        };
        shape.check()?;
        Ok(shape)
    }

    /// Plans the forward pass.
    ///
    /// # Errors
    /// Channels that differ, a shape that cannot be served, an unknown or unsupported instruction set.
    pub fn plan(&self, input: Dims, activation: Activation, options: &PlanOptions) -> Result<Conv2d, ConvError> {
        Conv2d::new(&self.shape(input)?, activation, options)
    }

    /// Plans the gradient with respect to the input.
    ///
    /// # Errors
    /// As [`Conv2dSpec::plan`].
    pub fn plan_backward_data(&self, input: Dims, options: &PlanOptions) -> Result<Conv2dBackwardData, ConvError> {
        Conv2dBackwardData::new(&self.shape(input)?, options)
    }

    /// Plans the gradient with respect to the weights.
    ///
    /// # Errors
    /// As [`Conv2dSpec::plan`].
    pub fn plan_backward_weights(
        &self,
        input: Dims,
        options: &PlanOptions,
    ) -> Result<Conv2dBackwardWeights, ConvError> {
        Conv2dBackwardWeights::new(&self.shape(input)?, options)
    }
}

/// Weights laid out for a kind of plan; a plan of another kind refuses them.
#[derive(Debug, Clone)]
pub struct PackedWeights {
    data: Buffer,
    tag: Tag,
}

/// What the layout of packed weights depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tag {
    direction: &'static str,
    /// The Winograd variant; `None` for the direct algorithm.
    variant: Option<Variant>,
    /// The shape, with all zeroed that the layout does not depend on.
    shape: ConvShape,
}

impl Tag {
    /// Forward weights depend on neither image nor stride.
    fn forward(s: &ConvShape, variant: Option<Variant>) -> Tag {
        let none = ConvShape { n: 0, ih: 0, iw: 0, stride_h: 0, stride_w: 0, dilation_h: 0, dilation_w: 0, ..*s };
        let shape = ConvShape { pad_top: 0, pad_bottom: 0, pad_left: 0, pad_right: 0, ..none };
        Tag { direction: "forward", variant, shape }
    }

    /// Rotated weights are grouped by the residue classes of the input pixels.
    fn backward_data(s: &ConvShape, variant: Option<Variant>) -> Tag {
        Tag { direction: "backward-data", variant, shape: ConvShape { n: 0, ..*s } }
    }

    fn require(&self, packed: &Tag) -> Result<(), ConvError> {
        if self == packed {
            return Ok(());
        }
        Err(ConvError::Packed { packed: packed.to_string(), plan: self.to_string() })
    }
}

impl std::fmt::Display for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let s = &self.shape;
        if let Some(variant) = self.variant {
            write!(f, "winograd-f{}x{} ", variant.m(), variant.r())?;
        }
        write!(f, "{} g{}ic{}oc{}kh{}kw{}", self.direction, s.groups, s.ic, s.oc, s.kh, s.kw)?;
        if s.ih > 0 {
            write!(f, "ih{}iw{}sh{}sw{}ph{}pw{}", s.ih, s.iw, s.stride_h, s.stride_w, s.pad_top, s.pad_left)?;
            write!(f, "dh{}dw{}", s.dilation_h - 1, s.dilation_w - 1)?;
        }
        Ok(())
    }
}

/// The instruction set that the options ask for.
fn isa(options: &PlanOptions) -> Result<Isa, Error> {
    options.isa.map_or_else(Isa::best, Isa::require)
}

#[cfg(test)]
mod tests;
