//! What layers do: their options, their shapes.

use crate::nn::Role;
use rectify_kernels::linear::LinearShape;
use rectify_kernels::pool::{PoolShape, SppShape};
use rectify_kernels::{ConvShape, Dims, Error};

/// What a layer does.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Convolution with bias, then the activation.
    Conv(Conv, Activation),
    /// Fully connected layer with bias over the flattened input, then the activation.
    Linear {
        /// Outputs.
        outputs: usize,
        /// What follows.
        activation: Activation,
    },
    /// Maximum of each window.
    MaxPool(Pool),
    /// Mean of each window; padding does not count.
    AveragePool(Pool),
    /// Maximum of each channel.
    GlobalMaxPool,
    /// Mean of each channel.
    GlobalAveragePool,
    /// Spatial pyramid pooling (He et al. 2015, Table 3): the maxima of grids of bins, flattened; see [`SppShape`].
    Spp {
        /// Bins of an axis, level by level.
        bins: Vec<usize>,
    },
    /// Batch normalisation with fixed statistics, `(x − mean)/√(var + ε)·weight + bias` in each channel with ε = 10⁻⁵,
    /// then the activation.
    BatchNorm(Activation),
    /// In training, zeroes each value with probability `rate` and divides the others by `1 − rate`.
    Dropout {
        /// In `[0, 1)`.
        rate: f32,
    },
}

/// A convolution with a square kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv {
    /// Output channels.
    pub channels: usize,
    /// Rows and columns of the kernel.
    pub kernel: usize,
    /// Stride of rows and columns.
    pub stride: usize,
    /// Zeros on each side.
    pub padding: usize,
    /// Distance of the kernel's taps (1: dense).
    pub dilation: usize,
    /// Groups.
    pub groups: usize,
    /// Whether it has a bias.
    pub bias: bool,
}

/// A pooling window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Rows and columns of the window.
    pub kernel: usize,
    /// Stride of rows and columns.
    pub stride: usize,
    /// Padding on each side.
    pub padding: usize,
}

/// The rectifier behind a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// None.
    None,
    /// `max(0, y)`.
    Relu,
    /// PReLU with a fixed slope.
    Leaky(f32),
    /// PReLU (He et al. 2015, Eq. 1) with learned slopes that start at this value.
    Prelu {
        /// Initial slope.
        slope: f32,
        /// One slope for all channels rather than one each.
        shared: bool,
    },
}

impl Activation {
    /// The slope below zero that the layer starts with; nothing without an activation.
    pub fn slope(&self) -> Option<f32> {
        match *self {
            Activation::None => None,
            Activation::Relu => Some(0.0),
            Activation::Leaky(slope) | Activation::Prelu { slope, .. } => Some(slope),
        }
    }
}

impl Op {
    /// The convolution's shape for this input.
    pub(crate) fn conv_shape(conv: &Conv, d: Dims) -> ConvShape {
        let shape = ConvShape::square(d.n, d.c, d.h, conv.channels, conv.kernel, conv.stride, conv.padding);
        let (dilation_h, dilation_w) = (conv.dilation, conv.dilation);
        ConvShape { iw: d.w, groups: conv.groups, dilation_h, dilation_w, ..shape }
    }

    /// The pooling shape for this input; nothing for other layers.
    pub(crate) fn pool_shape(&self, d: Dims) -> Option<PoolShape> {
        match *self {
            Op::MaxPool(p) | Op::AveragePool(p) => {
                let shape = PoolShape::square(d, p.kernel, p.stride);
                let (pad_top, pad_bottom, pad_left, pad_right) = (p.padding, p.padding, p.padding, p.padding);
                Some(PoolShape { pad_top, pad_bottom, pad_left, pad_right, ..shape })
            }
            Op::GlobalMaxPool | Op::GlobalAveragePool => Some(PoolShape::global(d)),
            _ => None,
        }
    }

    /// The pyramid's shape for this input.
    pub(crate) fn spp_shape(bins: &[usize], d: Dims) -> SppShape {
        SppShape { n: d.n, c: d.c, h: d.h, w: d.w, bins: bins.to_vec() }
    }

    /// What follows the layer.
    pub(crate) fn activation(&self) -> Activation {
        match *self {
            Op::Conv(_, activation) | Op::Linear { activation, .. } | Op::BatchNorm(activation) => activation,
            _ => Activation::None,
        }
    }

    /// The roles of its parameters, in their order.
    pub(crate) fn roles(&self) -> Vec<Role> {
        let mut roles = match self {
            Op::Conv(Conv { bias: false, .. }, _) => vec![Role::Weight],
            Op::Conv(..) | Op::Linear { .. } => vec![Role::Weight, Role::Bias],
            Op::BatchNorm(_) => vec![Role::Scale, Role::Shift, Role::Mean, Role::Variance],
            _ => Vec::new(),
        };
        if matches!(self.activation(), Activation::Prelu { .. }) {
            roles.push(Role::Slopes);
        }
        roles
    }

    /// Refuses a shortcut where there can be none, or of another shape than the layer's output.
    pub(super) fn check_add(&self, output: Dims, shortcut: Dims) -> Result<(), Error> {
        if !matches!(self, Op::Conv(..) | Op::BatchNorm(_)) {
            return Err(Error::Shape { what: "add", value: 1, why: "layer cannot be added to a layer of this type" });
        }
        let sizes =
            [("channels", output.c, shortcut.c), ("rows", output.h, shortcut.h), ("columns", output.w, shortcut.w)];
        for (what, want, value) in sizes {
            if value != want {
                return Err(Error::Shape { what, value, why: "of the layer that it adds are not those of its output" });
            }
        }
        Ok(())
    }

    pub(super) fn output(&self, d: Dims) -> Result<Dims, Error> {
        match self {
            Op::Conv(conv, _) => {
                let shape = Op::conv_shape(conv, d);
                shape.check().map(|()| shape.output())
            }
            &Op::Linear { outputs, .. } => {
                let shape = LinearShape { n: d.n, c: d.c, h: d.h, w: d.w, outputs };
                shape.check().map(|()| shape.output())
            }
            Op::Spp { bins } => {
                let shape = Op::spp_shape(bins, d);
                shape.check().map(|()| shape.output())
            }
            Op::BatchNorm(_) | Op::Dropout { .. } => Ok(d),
            _ => match self.pool_shape(d) {
                Some(shape) => shape.check().map(|()| shape.output()),
                None => Ok(d),
            },
        }
    }

    /// The dimensions of its weights, or of those of a batch norm, for this input.
    pub(crate) fn weights(&self, d: Dims) -> Vec<usize> {
        match *self {
            Op::Conv(conv, _) => vec![conv.channels, d.c / conv.groups, conv.kernel, conv.kernel],
            Op::Linear { outputs, .. } => vec![outputs, d.c * d.plane()],
            _ => vec![d.c],
        }
    }

    pub(crate) fn multiplications(&self, d: Dims) -> f64 {
        match self {
            Op::Conv(conv, _) => Op::conv_shape(conv, d).flops() / 2.0,
            Op::Linear { outputs, .. } => *outputs as f64 * d.plain_len() as f64,
            _ => 0.0,
        }
    }
}
