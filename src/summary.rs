//! What a net consists of: its layers with shapes, parameters, multiplications and memory, as figures and as a picture.

mod svg;

use crate::model::{Activation, Model, ModelError, Op};
use crate::nn::{NetError, Parameters, kernels};
use rectify_kernels::{Buffer, Dims, Isa};

pub use crate::nn::Kernels;

/// A net in figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// An image: one of them, `n` is 1.
    pub input: Dims,
    /// The layers, in order.
    pub layers: Vec<LayerSummary>,
}

/// A layer in figures, for one image.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSummary {
    /// Its name.
    pub name: String,
    /// What it does, such as `conv 3×3, padding 1`.
    pub what: String,
    /// What follows it, such as `prelu`; empty without an activation.
    pub activation: &'static str,
    /// The sort of layer: the first word of `what`.
    pub kind: &'static str,
    /// Number of the tensor that it reads: 0 is the net's input, `i + 1` the output of layer `i`.
    pub from: usize,
    /// Number of the tensor that it adds.
    pub add: Option<usize>,
    /// Its output; `n` is 1.
    pub output: Dims,
    /// Weights, biases, slopes and what batch norms have.
    pub parameters: usize,
    /// Multiplications in convolutions and fully connected layers: one for each weight and output, also where it
    /// multiplies padding, and whatever the algorithm.
    pub multiplications: f64,
    /// The kernels chosen; nothing for a layer without weights.
    pub kernels: Option<Kernels>,
}

impl LayerSummary {
    /// Bytes of its output, blocked as it lies in memory.
    pub fn bytes(&self) -> usize {
        self.output.blocked_len().saturating_mul(size_of::<f32>())
    }
}

impl Summary {
    /// Describes a net as it is planned for batches of `batch` images.
    ///
    /// ```
    /// use rectify::{model::Model, summary::Summary};
    /// let summary = Summary::of(&Model::built_in("a19")?, rectify_kernels::Isa::best()?, 1)?;
    /// assert_eq!(format!("{:.2e}", summary.multiplications()), "1.91e10");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A model that does not fit together.
    pub fn of(model: &Model, isa: Isa, batch: usize) -> Result<Summary, NetError> {
        let (dims, sources, kernels) = (model.dims(1)?, model.sources()?, kernels(model, isa, batch)?);
        let mut parameters = vec![0usize; model.layers.len()];
        let mut shapes: Vec<usize> = Vec::new();
        let all = Parameters::build::<ModelError>(model, |_, _, shape| {
            shapes.push(shape.iter().fold(1, |a: usize, &b| a.saturating_mul(b)));
            Ok(Buffer::zeroed(0))
        })?;
        for (p, len) in all.iter().zip(shapes) {
            parameters[p.layer] = parameters[p.layer].saturating_add(len);
        }
        let layers =
            model.layers.iter().zip(sources).zip(kernels).enumerate().map(|(i, ((layer, source), kernels))| {
                let (kind, what) = describe(&layer.op);
                LayerSummary {
                    name: layer.name.clone(),
                    what,
                    activation: activation(layer.op.activation()),
                    kind,
                    from: source.from,
                    add: source.add,
                    output: dims[i + 1],
                    parameters: parameters[i],
                    multiplications: layer.op.multiplications(dims[source.from]),
                    kernels,
                }
            });
        Ok(Summary { name: model.name.clone(), input: dims[0], layers: layers.collect() })
    }

    /// Parameters of all layers.
    pub fn parameters(&self) -> usize {
        self.layers.iter().map(|l| l.parameters).fold(0, usize::saturating_add)
    }

    /// Multiplications of an image's forward pass.
    pub fn multiplications(&self) -> f64 {
        self.layers.iter().map(|l| l.multiplications).sum()
    }

    /// Bytes of an image's activations, the output of each layer once.
    pub fn activation_bytes(&self) -> usize {
        self.layers.iter().map(LayerSummary::bytes).fold(0, usize::saturating_add)
    }

    /// A picture of the net: a row for each layer, with its shape, multiplications and parameters, and an arrow for
    /// what it reads if that is not the layer before it.
    pub fn svg(&self) -> String {
        svg::draw(self)
    }
}

fn activation(activation: Activation) -> &'static str {
    match activation {
        Activation::None => "",
        Activation::Relu => "relu",
        Activation::Leaky(_) => "leaky",
        Activation::Prelu { shared: false, .. } => "prelu",
        Activation::Prelu { shared: true, .. } => "prelu-shared",
    }
}

/// The sort of a layer, and the whole of it.
fn describe(op: &Op) -> (&'static str, String) {
    let kind = op.kind();
    let mut what = kind.to_owned();
    let mut unless = |key: &str, value: usize, usual: usize| {
        if value != usual {
            what += &format!(", {key} {value}");
        }
    };
    match op {
        Op::Conv(c, _) => {
            unless("stride", c.stride, 1);
            unless("padding", c.padding, 0);
            unless("dilation", c.dilation, 1);
            unless("groups", c.groups, 1);
            what.insert_str(kind.len(), &format!(" {0}×{0}", c.kernel));
        }
        Op::MaxPool(p) | Op::AveragePool(p) => {
            unless("stride", p.stride, p.kernel);
            unless("padding", p.padding, 0);
            what.insert_str(kind.len(), &format!(" {0}×{0}", p.kernel));
        }
        Op::Spp { bins } => what += &bins.iter().map(|b| format!(" {b}")).collect::<String>(),
        Op::Dropout { rate } => what += &format!(" {rate}"),
        Op::Linear { .. } | Op::GlobalMaxPool | Op::GlobalAveragePool | Op::BatchNorm(_) => {}
    }
    (kind, what)
}

#[cfg(test)]
mod tests;
