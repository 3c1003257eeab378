//! Nets by description: named layers in TOML, and the nets that are built in.
//!
//! ```toml
//! name = "tiny"
//! input = [3, 32, 32]            # channels, height, width
//!
//! [[layer]]
//! name = "conv1"
//! type = "conv"
//! channels = 16
//! kernel = 3
//! padding = 1                    # stride, dilation and groups are 1 unless given
//! activation = "prelu"           # or prelu-shared, relu, leaky, none; slope = 0.25 where it has one
//!
//! [[layer]]
//! name = "pool1"
//! type = "max-pool"              # or average-pool, global-max-pool, global-average-pool
//! kernel = 2                     # stride is the kernel unless given
//!
//! [[layer]]
//! name = "pyramid"
//! type = "spp"                   # spatial pyramid pooling: the maxima of 3×3, 2×2 and 1×1 bins
//! bins = [3, 2, 1]
//!
//! [[layer]]
//! name = "fc"
//! type = "linear"                # dropout has a rate
//! outputs = 10
//!
//! [training]                     # defaults for this net: see Training
//! epochs = 10
//! ```

use crate::memory::MemoryError;
use rectify_kernels::linear::LinearShape;
use rectify_kernels::pool::{PoolShape, SppShape};
use rectify_kernels::{ConvShape, Dims};

mod file;
#[cfg(test)]
mod tests;
mod training;

pub use training::Training;

/// A net's description, checked: every layer fits the one before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Channels, height and width of an image.
    pub input: [usize; 3],
    /// The layers, in order; the last one's output is one score a class.
    pub layers: Vec<Layer>,
    /// How it is trained unless somebody says otherwise.
    pub training: Training,
}

/// A named layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Its name, for people.
    pub name: String,
    /// What it does.
    pub op: Op,
}

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

/// Why a model is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A line of the description is wrong.
    #[error("line {line}: {message}")]
    Line {
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// A layer does not fit what it is given.
    #[error("layer {layer:?}: {source}")]
    Layer {
        /// Name of the layer.
        layer: String,
        /// What does not fit.
        source: rectify_kernels::Error,
    },
    /// The net as a whole makes no sense.
    #[error("{0}")]
    Net(String),
    /// The parameters need more memory than there is.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// There is no net of this name.
    #[error(
        "unknown model {0:?}: expected shapes-small, cifar-small, cifar13, e14, a19 or a file whose name ends in .toml"
    )]
    Unknown(String),
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds a description that is refused.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: Box<ModelError>,
    },
}

/// The nets that are built in: name and description.
pub const BUILT_IN: [(&str, &str); 5] = [
    ("shapes-small", include_str!("model/builtin/shapes-small.toml")),
    ("cifar-small", include_str!("model/builtin/cifar-small.toml")),
    ("cifar13", include_str!("model/builtin/cifar13.toml")),
    ("e14", include_str!("model/builtin/e14.toml")),
    ("a19", include_str!("model/builtin/a19.toml")),
];

impl Model {
    /// The net that is built in under this name.
    ///
    /// ```
    /// let model = rectify::model::Model::built_in("cifar13")?;
    /// assert_eq!((model.input, model.classes()), ([3, 32, 32], 10));
    /// # Ok::<(), rectify::model::ModelError>(())
    /// ```
    ///
    /// # Errors
    /// [`ModelError::Unknown`].
    pub fn built_in(name: &str) -> Result<Model, ModelError> {
        let (_, text) =
            BUILT_IN.iter().find(|(n, _)| *n == name).ok_or_else(|| ModelError::Unknown(name.to_owned()))?;
        Model::parse(text)
    }

    /// A built-in net, or the one that a file describes if the name ends in `.toml`.
    ///
    /// # Errors
    /// [`ModelError`], naming the file and the line.
    pub fn load(name: &str) -> Result<Model, ModelError> {
        if !name.ends_with(".toml") {
            return Model::built_in(name);
        }
        let text =
            std::fs::read_to_string(name).map_err(|source| ModelError::Read { path: name.to_owned(), source })?;
        Model::parse(&text).map_err(|e| ModelError::File { path: name.to_owned(), source: Box::new(e) })
    }

    /// Whether the name is that of a net that is built in.
    pub fn is_built_in(name: &str) -> bool {
        BUILT_IN.iter().any(|(n, _)| *n == name)
    }

    /// The same net for images of another size and another number of classes: the last layer gets as many outputs.
    ///
    /// # Errors
    /// [`ModelError`] if a layer does not fit any more.
    pub fn fit(&self, input: [usize; 3], classes: usize) -> Result<Model, ModelError> {
        let mut model = Model { input, ..self.clone() };
        match model.layers.last_mut().map(|l| &mut l.op) {
            Some(Op::Linear { outputs, .. }) => *outputs = classes,
            Some(Op::Conv(conv, _)) => conv.channels = classes,
            _ => {}
        }
        model.dims(1)?;
        Ok(model)
    }

    /// Number of classes: channels of the last layer's output.
    pub fn classes(&self) -> usize {
        self.layers
            .iter()
            .rev()
            .find_map(|layer| match layer.op {
                Op::Conv(conv, _) => Some(conv.channels),
                Op::Linear { outputs, .. } => Some(outputs),
                _ => None,
            })
            .unwrap_or(self.input[0])
    }

    /// Shapes of the tensors between the layers for a batch of `n`: the input, then each layer's output.
    ///
    /// # Errors
    /// [`ModelError::Layer`] naming the first layer that does not fit, [`ModelError::Net`] if there is no layer or
    /// the output is not one score a class.
    pub fn dims(&self, n: usize) -> Result<Vec<Dims>, ModelError> {
        let [c, h, w] = self.input;
        let mut all = vec![Dims { n, c, h, w }];
        if [n, c, h, w].contains(&0) {
            return Err(ModelError::Net(format!("input = {n}×{c}×{h}×{w}: no dimension may be 0")));
        }
        for layer in &self.layers {
            let last = all[all.len() - 1];
            let out = layer.op.output(last);
            all.push(out.map_err(|source| ModelError::Layer { layer: layer.name.clone(), source })?);
        }
        match all[all.len() - 1] {
            _ if self.parameter_layers() == 0 => Err(ModelError::Net("no layer has weights".into())),
            Dims { h: 1, w: 1, .. } => Ok(all),
            d => Err(ModelError::Net(format!("the last layer's output is {}×{}×{}, not one pixel", d.c, d.h, d.w))),
        }
    }

    fn parameter_layers(&self) -> usize {
        self.layers.iter().filter(|l| matches!(l.op, Op::Conv(..) | Op::Linear { .. })).count()
    }

    /// Multiplications of one image's forward pass in convolutions and fully connected layers.
    ///
    /// # Errors
    /// As [`Model::dims`].
    pub fn multiplications(&self) -> Result<f64, ModelError> {
        let dims = self.dims(1)?;
        Ok(self.layers.iter().zip(&dims).map(|(l, &d)| l.op.multiplications(d)).sum())
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

    fn output(&self, d: Dims) -> Result<Dims, rectify_kernels::Error> {
        match self {
            Op::Conv(conv, _) => {
                let shape = Op::conv_shape(conv, d);
                shape.check().map(|()| shape.output())
            }
            &Op::Linear { outputs, .. } => {
                let shape = LinearShape { n: d.n, c: d.c, h: d.h, w: d.w, outputs };
                shape.conv().map(|_| shape.output())
            }
            Op::Spp { bins } => {
                let shape = Op::spp_shape(bins, d);
                shape.check().map(|()| shape.output())
            }
            Op::Dropout { .. } => Ok(d),
            _ => match self.pool_shape(d) {
                Some(shape) => shape.check().map(|()| shape.output()),
                None => Ok(d),
            },
        }
    }

    fn multiplications(&self, d: Dims) -> f64 {
        match self {
            Op::Conv(conv, _) => Op::conv_shape(conv, d).flops() / 2.0,
            Op::Linear { outputs, .. } => *outputs as f64 * d.plain_len() as f64,
            _ => 0.0,
        }
    }
}
