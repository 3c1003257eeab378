//! Nets that run: a model planned for a batch size, with every buffer a step needs.
//!
//! Between the layers lie blocked tensors (nChw16c). For training every layer keeps its output; for inference a few
//! buffers take turns, and batch norms are folded into the convolutions and fully connected layers beside them. A forward
//! pass allocates nothing.

mod affine;
mod apart;
mod fold;
mod kernels;
mod parameters;
mod plan;
pub mod reference;
#[cfg(test)]
mod tests;

pub use fold::EPSILON;
pub use kernels::{Kernels, kernels};
pub use parameters::{Parameter, Parameters, Role};

use crate::memory::{self, MemoryError};
use crate::model::{Model, ModelError, Op};
use crate::rng::{self, Rng};
use affine::{Affine, Spec};
use apart::Apart;
use fold::Norm;
use std::time::{Duration, Instant};

use rectify_kernels::conv::Layout;
use rectify_kernels::loss::{self, LossSums};
use rectify_kernels::pool::{self, PoolShape, SppShape};
use rectify_kernels::{Buffer, Dims, Error, Isa, dropout, layout};

/// Why a net cannot be built or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The model is refused.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A layer is refused what it was given.
    #[error("layer {layer:?}: {source}")]
    Layer {
        /// Name of the layer.
        layer: String,
        /// Why.
        source: Error,
    },
    /// A net is planned for training that can only be run.
    #[error("layer {layer:?} {why}: such a net can be run, but not trained")]
    Untrainable {
        /// Name of the layer.
        layer: String,
        /// What is the matter with it.
        why: &'static str,
    },
    /// The tensors between the layers need more memory than there is.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The images, the labels or the loss are refused.
    #[error(transparent)]
    Kernel(#[from] Error),
}

/// What a net is planned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Forward passes alone; dropout does nothing.
    Inference,
    /// Forward and backward passes.
    Training,
}

enum Kind {
    Affine(Box<Affine>),
    Max { shape: PoolShape, index: Vec<u32> },
    Average(PoolShape),
    Spp { shape: SppShape, index: Vec<u32> },
    Dropout { rate: f32, mask: Vec<u8> },
    Norm(Box<Apart>),
}

struct Node {
    name: String,
    kind: Kind,
    /// Elements of its input.
    input: usize,
    output: Dims,
    /// Which buffers hold its input, what it adds and its output; dropout works in place.
    from: usize,
    add: Option<usize>,
    to: usize,
    /// What its forward passes have taken since [`Net::profile`] was last called.
    spent: Duration,
}

/// Where the time of forward passes went.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerTime {
    /// The layer.
    pub layer: String,
    /// The kernel of a convolution or fully connected layer; else what the layer does.
    pub kernel: String,
    /// Seconds of all passes.
    pub seconds: f64,
}

impl Node {
    fn fault(&self) -> impl Fn(Error) -> NetError + '_ {
        |source| NetError::Layer { layer: self.name.clone(), source }
    }
}

/// A model planned for one batch size.
///
/// Run it in the rayon pool that it was built in: the workspace is as large as that number of threads asks for.
pub struct Net {
    isa: Isa,
    mode: Mode,
    dims: Vec<Dims>,
    /// How the images lie for the first layer.
    images: Layout,
    /// How many there are.
    parameters: usize,
    nodes: Vec<Node>,
    activations: Vec<Buffer>,
    gradients: [Buffer; 2],
    workspace: Buffer,
}

impl Net {
    /// Plans a model for batches of `batch` images in the current rayon pool.
    ///
    /// # Errors
    /// A model that does not fit together or, in training mode, cannot be trained; shapes that no slice or no memory can
    /// hold.
    pub fn new(model: &Model, isa: Isa, batch: usize, mode: Mode) -> Result<Net, NetError> {
        let dims = model.tensors(batch)?;
        let mut len: Vec<usize> = dims.iter().map(Dims::blocked_len).collect();
        let training = mode == Mode::Training;
        let steps = match (mode, model.untrainable()) {
            (Mode::Inference, _) => plan::folded(model)?,
            (Mode::Training, None) => plan::plain(model),
            (Mode::Training, Some((layer, why))) => {
                return Err(NetError::Untrainable { layer: layer.name.clone(), why });
            }
        };
        let images = plan::images(model, &steps, dims[0]);
        len[0] = images.len(&dims[0]);
        let buffers = if training { plan::all(model, &steps, &len) } else { plan::reused(&steps, &len) };
        // For training, of most layers the output and what its activation was given.
        let factor = if training { 2 } else { 1 };
        memory::reserve(buffers.lens.iter().map(|len| len.saturating_mul(factor)))?;
        // Where each layer's parameters begin.
        let mut firsts = vec![0];
        for layer in &model.layers {
            firsts.push(firsts[firsts.len() - 1] + layer.op.roles().len());
        }
        let norm = |i: usize| Norm { first: firsts[i], channels: dims[i + 1].c };
        let mut nodes: Vec<Node> = Vec::new();
        for step in &steps {
            let (layer, input, output) = (&model.layers[step.layer], dims[step.from], dims[step.to]);
            // The activation, and its slopes, are those of the layer whose output the step's is.
            let (activation, slopes) = (model.layers[step.to - 1].op.activation(), firsts[step.to].wrapping_sub(1));
            let (first, before, behind) = (firsts[step.layer], step.before.map(norm), step.behind.map(norm));
            let layout = if step.from == 0 { images } else { Layout::Blocked };
            let spec = Spec { op: &layer.op, activation, input, layout, output, first, slopes, before, behind };
            let affine = Affine::new(isa, spec, training);
            let affine = affine.map_err(|source| NetError::Layer { layer: layer.name.clone(), source })?;
            let index = || vec![0; if training { output.blocked_len() } else { 0 }];
            let kind = match (affine, &layer.op, layer.op.pool_shape(input)) {
                (Some(affine), ..) => Kind::Affine(Box::new(affine)),
                (_, Op::MaxPool(_) | Op::GlobalMaxPool, Some(shape)) => Kind::Max { shape, index: index() },
                (_, _, Some(shape)) => Kind::Average(shape),
                (_, Op::Spp { bins }, _) => Kind::Spp { shape: Op::spp_shape(bins, input), index: index() },
                (_, Op::BatchNorm(_), _) => Kind::Norm(Box::new(Apart::new(norm(step.layer), activation, slopes))),
                (_, &Op::Dropout { rate }, _) => Kind::Dropout { rate, mask: vec![0; output.blocked_len() / 8] },
                _ => continue,
            };
            let name = layer.name.clone();
            let (from, add, to) = (buffers.of[step.from], step.add.map(|a| buffers.of[a]), buffers.of[step.to]);
            let (input, spent) = (layout.len(&input), Duration::ZERO);
            nodes.push(Node { name, kind, input, output, from, add, to, spent });
        }
        let threads = rayon::current_num_threads();
        let workspace = nodes.iter().map(|n| if let Kind::Affine(a) = &n.kind { a.workspace_len(threads) } else { 0 });
        let workspace = Buffer::zeroed(workspace.max().unwrap_or(0));
        let widest = if training { len.iter().copied().max().unwrap_or(0) } else { 0 };
        let gradients = [Buffer::zeroed(widest), Buffer::zeroed(widest)];
        let activations = buffers.lens.into_iter().map(Buffer::zeroed).collect();
        let parameters = firsts[model.layers.len()];
        Ok(Net { isa, mode, dims, images, parameters, nodes, activations, gradients, workspace })
    }

    /// Images in a batch.
    pub fn batch(&self) -> usize {
        self.dims[0].n
    }

    /// Shape of the output: one score a class.
    pub fn output(&self) -> Dims {
        self.dims[self.dims.len() - 1]
    }

    fn check(&self, parameters: &Parameters) -> Result<(), Error> {
        let (got, want) = (parameters.len(), self.parameters);
        if got == want { Ok(()) } else { Err(Error::Length { what: "parameters", got, want }) }
    }

    /// Folds batch norms and packs the weights; the passes use those of the last call, but slopes, and biases that no
    /// batch norm is folded into, as they are.
    ///
    /// # Errors
    /// Parameters of another model; a batch norm before a padded convolution that maps no number to zero in a channel,
    /// which cannot be folded.
    pub fn load(&mut self, parameters: &Parameters) -> Result<(), NetError> {
        self.check(parameters)?;
        for node in &mut self.nodes {
            let result = match &mut node.kind {
                Kind::Affine(a) => a.load(parameters),
                Kind::Norm(apart) => apart.load(parameters),
                _ => Ok(()),
            };
            result.map_err(node.fault())?;
        }
        Ok(())
    }

    /// Computes the scores, blocked `n × classes × 1 × 1`, of images in NCHW. `dropout` is the seed of this step's
    /// masks, which are drawn in training mode alone.
    ///
    /// # Errors
    /// Lengths that do not fit.
    pub fn forward(&mut self, parameters: &Parameters, pixels: &[f32], dropout: u64) -> Result<&[f32], NetError> {
        self.check(parameters)?;
        let input = self.dims[0];
        let images = &mut self.activations[0][..self.images.len(&input)];
        match self.images {
            Layout::Blocked => layout::nchw_to_blocked(self.isa, input, pixels, images)?,
            Layout::Nchw if pixels.len() == images.len() => images.copy_from_slice(pixels),
            Layout::Nchw => {
                return Err(Error::Length { what: "pixels", got: pixels.len(), want: images.len() }.into());
            }
        }
        let training = self.mode == Mode::Training;
        for (place, node) in self.nodes.iter_mut().enumerate() {
            let (start, ilen, olen) = (Instant::now(), node.input, node.output.blocked_len());
            let result = if let Kind::Dropout { rate, mask } = &mut node.kind {
                let seed = Rng::at(dropout, rng::DROPOUT, place as u64, 0).next_u64();
                let x = &mut self.activations[node.to][..olen];
                dropout::forward_in_place(self.isa, node.output, x, *rate, seed, 0, mask)
            } else {
                let (x, shortcut, y) = borrow(&mut self.activations, node.from, node.add, node.to)?;
                let (x, shortcut, y) = (&x[..ilen], shortcut.map(|s| &s[..olen]), &mut y[..olen]);
                match &mut node.kind {
                    Kind::Affine(a) => a.forward(parameters, x, shortcut, y, &mut self.workspace),
                    Kind::Max { shape, index } => {
                        pool::max_forward(self.isa, shape, x, y, training.then_some(&mut index[..]))
                    }
                    Kind::Average(shape) => pool::average_forward(self.isa, shape, x, y),
                    Kind::Spp { shape, index } => {
                        pool::spp_forward(self.isa, shape, x, y, training.then_some(&mut index[..]))
                    }
                    Kind::Norm(apart) => apart.forward(self.isa, node.output, parameters, x, shortcut, y),
                    Kind::Dropout { .. } => Ok(()),
                }
            };
            result.map_err(node.fault())?;
            node.spent += start.elapsed();
        }
        Ok(self.scores())
    }

    /// Where the time of the forward passes since the last call went, layer by layer.
    pub fn profile(&mut self) -> Vec<LayerTime> {
        let time = |node: &mut Node| LayerTime {
            layer: node.name.clone(),
            kernel: match &node.kind {
                Kind::Affine(a) => a.kernel(),
                Kind::Max { .. } => "max-pool".into(),
                Kind::Average(_) => "average-pool".into(),
                Kind::Spp { .. } => "spp".into(),
                Kind::Dropout { .. } => "dropout".into(),
                Kind::Norm(_) => "batch-norm".into(),
            },
            seconds: std::mem::take(&mut node.spent).as_secs_f64(),
        };
        self.nodes.iter_mut().map(time).collect()
    }

    /// The scores of the last forward pass.
    pub fn scores(&self) -> &[f32] {
        let last = self.nodes.last().map_or(0, |n| n.to);
        &self.activations[last][..self.output().blocked_len()]
    }

    /// Cross-entropy and correct answers of the last forward pass, without gradients.
    ///
    /// # Errors
    /// A number of labels other than the batch, a label that is no class.
    pub fn loss(&self, labels: &[u32]) -> Result<LossSums, NetError> {
        Ok(loss::softmax_cross_entropy(self.output(), self.scores(), labels, None)?)
    }

    /// Cross-entropy of the last forward pass, and the gradients of its mean with respect to every parameter.
    ///
    /// # Errors
    /// A net planned for inference, labels or gradients that do not fit.
    pub fn backward(
        &mut self,
        parameters: &Parameters,
        labels: &[u32],
        gradients: &mut [Buffer],
    ) -> Result<LossSums, NetError> {
        if self.mode == Mode::Inference {
            let why = "were planned: the net is for inference";
            return Err(Error::Shape { what: "backward passes", value: 0, why }.into());
        }
        let output = self.output();
        let last = self.nodes.last().map_or(0, |n| n.to);
        let [grad, other] = &mut self.gradients;
        let (mut grad, mut other) = (grad, other);
        let len = output.blocked_len();
        let scores = &self.activations[last][..len];
        let sums = loss::softmax_cross_entropy(output, scores, labels, Some(&mut grad[..len]))?;
        let first = self.nodes.iter().position(|n| matches!(n.kind, Kind::Affine(_))).unwrap_or(0);
        for (place, node) in self.nodes.iter().enumerate().skip(first).rev() {
            let (ilen, olen) = (node.input, node.output.blocked_len());
            let (dy, dx) = (&mut grad[..olen], &mut other[..ilen]);
            let result = match &node.kind {
                Kind::Affine(a) => {
                    let x = &self.activations[node.from][..ilen];
                    let dx = (place > first).then_some(dx);
                    a.backward(parameters, x, dy, dx, gradients, &mut self.workspace)
                }
                Kind::Max { shape, index } => pool::max_backward(self.isa, shape, index, dy, dx),
                Kind::Average(shape) => pool::average_backward(self.isa, shape, dy, dx),
                Kind::Spp { shape, index } => pool::spp_backward(self.isa, shape, index, dy, dx),
                // Training has refused it.
                Kind::Norm(_) => continue,
                Kind::Dropout { rate, mask } => {
                    dropout::backward_in_place(self.isa, node.output, dy, *rate, mask).map_err(node.fault())?;
                    continue;
                }
            };
            result.map_err(node.fault())?;
            std::mem::swap(&mut grad, &mut other);
        }
        Ok(sums)
    }
}

/// A buffer to read, another to add (which may be the first), a third to write.
#[allow(clippy::type_complexity)]
fn borrow(
    buffers: &mut [Buffer],
    from: usize,
    add: Option<usize>,
    to: usize,
) -> Result<(&[f32], Option<&[f32]>, &mut [f32]), Error> {
    let planned = |_| Error::Shape { what: "buffer", value: to, why: "is read and written at once" };
    match add.filter(|&a| a != from) {
        Some(add) => {
            let [x, shortcut, y] = buffers.get_disjoint_mut([from, add, to]).map_err(planned)?;
            Ok((x, Some(shortcut), y))
        }
        None => {
            let [x, y] = buffers.get_disjoint_mut([from, to]).map_err(planned)?;
            let x: &[f32] = x;
            Ok((x, add.map(|_| x), y))
        }
    }
}
