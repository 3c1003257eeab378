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
//!
//! Nets that are run but not trained have more. A layer reads the one before it, or the one that `from` names. A `conv`
//! may have no bias (`bias = false`). A `batch-norm` (with the statistics of inference, ε = 10⁻⁵) may have an
//! activation. Both may `add` the output of a layer before them, before their activation:
//!
//! ```toml
//! [[layer]]
//! name = "bn3"
//! type = "batch-norm"
//! from = "conv2"
//! add = "shortcut"
//! ```

use crate::memory::MemoryError;
use rectify_kernels::Dims;

mod builtin;
mod file;
mod op;
#[cfg(test)]
mod tests;
mod training;

pub use builtin::BUILT_IN;
pub use op::{Activation, Conv, Op, Pool};
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
    /// Its name, for people and for other layers.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// The layer before it that it reads; `None` for the one just before, or the net's input.
    pub from: Option<String>,
    /// The layer before it whose output is added to its own, before the activation: the shortcut of a residual block.
    /// Of convolutions and batch norms alone.
    pub add: Option<String>,
}

/// What a layer reads: 0 is the net's input, `i + 1` the output of layer `i`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    pub from: usize,
    pub add: Option<usize>,
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
    /// A layer names another that is not there, or comes after it.
    #[error("layer {layer:?}: {key} = {name:?} is no layer before it")]
    Reference {
        /// Name of the layer.
        layer: String,
        /// `from` or `add`.
        key: &'static str,
        /// The name that it gives.
        name: String,
    },
    /// The net as a whole makes no sense.
    #[error("{0}")]
    Net(String),
    /// The parameters need more memory than there is.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// There is no net of this name.
    #[error("unknown model {0:?}: expected {names} or a file whose name ends in .toml", names = builtin::names())]
    Unknown(String),
    /// A net takes images of its own size alone.
    #[error(
        "layer {layer:?} would read {got} values of an image of {h}×{w}, but has weights for {want}: only a net with a \
         pyramid (`spp`) or a global pooling layer before it takes images of other sizes"
    )]
    Size {
        /// Name of the layer.
        layer: String,
        /// Rows of the image.
        h: usize,
        /// Columns of the image.
        w: usize,
        /// Values that it would read.
        got: usize,
        /// Values that it has weights for.
        want: usize,
    },
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

    /// The same net, with the same weights, for images of another size: what spatial pyramid pooling and global pooling
    /// are for (He et al. 2015, section 3).
    ///
    /// ```
    /// let model = rectify::model::Model::built_in("a19")?.at_size(384, 512)?;
    /// assert_eq!((model.input, model.classes()), ([3, 384, 512], 1000));
    /// # Ok::<(), rectify::model::ModelError>(())
    /// ```
    ///
    /// # Errors
    /// [`ModelError::Size`] if a fully connected layer has no weights for it, and as [`Model::dims`].
    pub fn at_size(&self, h: usize, w: usize) -> Result<Model, ModelError> {
        let model = Model { input: [self.input[0], h, w], ..self.clone() };
        let (before, after, sources) = (self.dims(1)?, model.dims(1)?, self.sources()?);
        for (layer, source) in self.layers.iter().zip(sources) {
            let (want, got) = (before[source.from].plain_len(), after[source.from].plain_len());
            if matches!(layer.op, Op::Linear { .. }) && got != want {
                return Err(ModelError::Size { layer: layer.name.clone(), h, w, got, want });
            }
        }
        Ok(model)
    }

    /// Number of classes: channels of the last layer's output; 0 if the layers do not fit together.
    pub fn classes(&self) -> usize {
        self.dims(1).ok().and_then(|all| all.last().map(|d| d.c)).unwrap_or(0)
    }

    /// What each layer reads.
    ///
    /// # Errors
    /// [`ModelError::Reference`].
    pub(crate) fn sources(&self) -> Result<Vec<Source>, ModelError> {
        let find = |i: usize, key: &'static str, name: &Option<String>| {
            let Some(name) = name else { return Ok(None) };
            match self.layers[..i].iter().position(|l| l.name == *name) {
                Some(at) => Ok(Some(at + 1)),
                None => Err(ModelError::Reference { layer: self.layers[i].name.clone(), key, name: name.clone() }),
            }
        };
        let source = |(i, layer): (usize, &Layer)| {
            Ok(Source { from: find(i, "from", &layer.from)?.unwrap_or(i), add: find(i, "add", &layer.add)? })
        };
        self.layers.iter().enumerate().map(source).collect()
    }

    /// The first layer that training cannot do, and why: it is for chains of layers without batch norm.
    pub(crate) fn untrainable(&self) -> Option<(&Layer, &'static str)> {
        self.layers.iter().find_map(|layer| match &layer.op {
            Op::BatchNorm(_) => Some((layer, "is a batch norm")),
            Op::Conv(conv, _) if !conv.bias => Some((layer, "has no bias")),
            _ if layer.add.is_some() => Some((layer, "adds another layer's output")),
            _ if layer.from.is_some() => Some((layer, "names what it reads")),
            _ => None,
        })
    }

    /// Shapes of the tensors between the layers for a batch of `n`: the input, then each layer's output.
    ///
    /// # Errors
    /// [`ModelError::Layer`] naming the first layer that does not fit, [`ModelError::Reference`], [`ModelError::Net`]
    /// if there is no layer, nothing reads one of them, or the output is not one score a class.
    pub fn dims(&self, n: usize) -> Result<Vec<Dims>, ModelError> {
        let all = self.tensors(n)?;
        match all[all.len() - 1] {
            _ if self.parameter_layers() == 0 => Err(ModelError::Net("no layer has weights".into())),
            Dims { h: 1, w: 1, .. } => Ok(all),
            d => Err(ModelError::Net(format!("the last layer's output is {}×{}×{}, not one pixel", d.c, d.h, d.w))),
        }
    }

    /// As [`Model::dims`], of a part of a net too: its output may have any size.
    pub(crate) fn tensors(&self, n: usize) -> Result<Vec<Dims>, ModelError> {
        let [c, h, w] = self.input;
        let mut all = vec![Dims { n, c, h, w }];
        if [n, c, h, w].contains(&0) {
            return Err(ModelError::Net(format!("input = {n}×{c}×{h}×{w}: no dimension may be 0")));
        }
        let sources = self.sources()?;
        for (layer, source) in self.layers.iter().zip(&sources) {
            let fault = |source| ModelError::Layer { layer: layer.name.clone(), source };
            let out = layer.op.output(all[source.from]).map_err(fault)?;
            if let Some(add) = source.add {
                layer.op.check_add(out, all[add]).map_err(fault)?;
            }
            all.push(out);
        }
        let read = |tensor: usize| sources.iter().any(|s| s.from == tensor || s.add == Some(tensor));
        if let Some(i) = (1..self.layers.len()).find(|&i| !read(i)) {
            return Err(ModelError::Net(format!("nothing reads layer {:?}", self.layers[i - 1].name)));
        }
        Ok(all)
    }

    fn parameter_layers(&self) -> usize {
        self.layers.iter().filter(|l| matches!(l.op, Op::Conv(..) | Op::Linear { .. })).count()
    }

    /// Multiplications of one image's forward pass in convolutions and fully connected layers.
    ///
    /// # Errors
    /// As [`Model::dims`].
    pub fn multiplications(&self) -> Result<f64, ModelError> {
        let (dims, sources) = (self.tensors(1)?, self.sources()?);
        Ok(self.layers.iter().zip(&sources).map(|(l, s)| l.op.multiplications(dims[s.from])).sum())
    }
}
