//! Nets that run: a model planned for a batch size, with every buffer a step needs.
//!
//! Between the layers lie blocked tensors (nChw16c). For training every layer keeps its output; for inference two
//! buffers take turns. A forward or backward pass allocates nothing.

mod affine;
mod parameters;
pub mod reference;
#[cfg(test)]
mod tests;

pub use parameters::{Parameter, Parameters, Role};

use crate::memory::{self, MemoryError};
use crate::model::{Model, ModelError, Op};
use crate::rng::{self, Rng};
use affine::Affine;
use rectify_kernels::loss::{self, LossSums};
use rectify_kernels::pool::{self, PoolShape, SppShape};
use rectify_kernels::{Buffer, Dims, Isa, dropout, layout};

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
        source: rectify_kernels::Error,
    },
    /// The tensors between the layers need more memory than there is.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The images, the labels or the loss are refused.
    #[error(transparent)]
    Kernel(#[from] rectify_kernels::Error),
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
}

struct Node {
    name: String,
    kind: Kind,
    input: Dims,
    output: Dims,
    /// Which buffers hold its input and its output; dropout works in place.
    from: usize,
    to: usize,
}

impl Node {
    fn fault(&self) -> impl Fn(rectify_kernels::Error) -> NetError + '_ {
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
    nodes: Vec<Node>,
    activations: Vec<Buffer>,
    gradients: [Buffer; 2],
    workspace: Buffer,
}

impl Net {
    /// Plans a model for batches of `batch` images in the current rayon pool.
    ///
    /// # Errors
    /// A model that does not fit together, shapes that no slice or no memory can hold.
    pub fn new(model: &Model, isa: Isa, batch: usize, mode: Mode) -> Result<Net, NetError> {
        let dims = model.dims(batch)?;
        let training = mode == Mode::Training;
        reserve(&dims, mode)?;
        let mut lens = vec![dims[0].blocked_len()];
        let mut nodes: Vec<Node> = Vec::new();
        let (mut first, mut from) = (0, 0);
        for (i, layer) in model.layers.iter().enumerate() {
            let (input, output) = (dims[i], dims[i + 1]);
            let affine = Affine::new(isa, &layer.op, (input, output), first, training);
            let affine = affine.map_err(|source| NetError::Layer { layer: layer.name.clone(), source })?;
            let index = || vec![0; if training { output.blocked_len() } else { 0 }];
            let kind = match (affine, &layer.op, layer.op.pool_shape(input)) {
                (Some(affine), ..) => {
                    first += affine.parameters();
                    Kind::Affine(Box::new(affine))
                }
                (_, Op::MaxPool(_) | Op::GlobalMaxPool, Some(shape)) => Kind::Max { shape, index: index() },
                (_, _, Some(shape)) => Kind::Average(shape),
                (_, Op::Spp { bins }, _) => Kind::Spp { shape: Op::spp_shape(bins, input), index: index() },
                (_, &Op::Dropout { rate }, _) => {
                    Kind::Dropout { rate, mask: vec![0; if training { output.blocked_len() / 8 } else { 0 }] }
                }
                _ => continue,
            };
            let to = match (&kind, mode) {
                (Kind::Dropout { .. }, _) => from,
                (_, Mode::Training) => lens.len(),
                (_, Mode::Inference) if from == 1 => 2,
                (_, Mode::Inference) => 1,
            };
            lens.resize(lens.len().max(to + 1), 0);
            lens[to] = lens[to].max(output.blocked_len());
            nodes.push(Node { name: layer.name.clone(), kind, input, output, from, to });
            from = to;
        }
        let threads = rayon::current_num_threads();
        let workspace = nodes.iter().map(|n| if let Kind::Affine(a) = &n.kind { a.workspace_len(threads) } else { 0 });
        let workspace = Buffer::zeroed(workspace.max().unwrap_or(0));
        let widest = if training { dims.iter().map(Dims::blocked_len).max().unwrap_or(0) } else { 0 };
        let gradients = [Buffer::zeroed(widest), Buffer::zeroed(widest)];
        let activations = lens.into_iter().map(Buffer::zeroed).collect();
        Ok(Net { isa, mode, dims, nodes, activations, gradients, workspace })
    }

    /// Images in a batch.
    pub fn batch(&self) -> usize {
        self.dims[0].n
    }

    /// Shape of the output: one score a class.
    pub fn output(&self) -> Dims {
        self.dims[self.dims.len() - 1]
    }

    /// Packs the weights; the passes use those of the last call, but biases and slopes as they are.
    ///
    /// # Errors
    /// Parameters of another model.
    pub fn load(&mut self, parameters: &Parameters) -> Result<(), NetError> {
        let nodes = self.nodes.iter_mut();
        nodes.flat_map(|n| if let Kind::Affine(a) = &mut n.kind { Some(a) } else { None }).try_for_each(|a| {
            if parameters.len() < a.end() {
                return Err(rectify_kernels::Error::Length {
                    what: "parameters",
                    got: parameters.len(),
                    want: a.end(),
                });
            }
            a.load(parameters)
        })?;
        Ok(())
    }

    /// Computes the scores, blocked `n × classes × 1 × 1`, of images in NCHW. `dropout` is the seed of this step's
    /// masks, which are drawn in training mode alone.
    ///
    /// # Errors
    /// Lengths that do not fit.
    pub fn forward(&mut self, parameters: &Parameters, pixels: &[f32], dropout: u64) -> Result<&[f32], NetError> {
        let input = self.dims[0];
        layout::nchw_to_blocked(self.isa, input, pixels, &mut self.activations[0][..input.blocked_len()])?;
        for (place, node) in self.nodes.iter_mut().enumerate() {
            let (ilen, olen) = (node.input.blocked_len(), node.output.blocked_len());
            let result = if let Kind::Dropout { rate, mask } = &mut node.kind {
                if self.mode == Mode::Inference {
                    continue;
                }
                let seed = Rng::at(dropout, rng::DROPOUT, place as u64, 0).next_u64();
                let x = &mut self.activations[node.to][..olen];
                dropout::forward_in_place(self.isa, node.output, x, *rate, seed, 0, mask)
            } else {
                let (before, after) = two(&mut self.activations, node.from, node.to);
                let (x, y) = (&before[..ilen], &mut after[..olen]);
                match &mut node.kind {
                    Kind::Affine(a) => a.forward(parameters, x, y, &mut self.workspace),
                    Kind::Max { shape, index } => {
                        let index = (self.mode == Mode::Training).then_some(&mut index[..]);
                        pool::max_forward(self.isa, shape, x, y, index)
                    }
                    Kind::Average(shape) => pool::average_forward(self.isa, shape, x, y),
                    Kind::Spp { shape, index } => {
                        let index = (self.mode == Mode::Training).then_some(&mut index[..]);
                        pool::spp_forward(self.isa, shape, x, y, index)
                    }
                    Kind::Dropout { .. } => Ok(()),
                }
            };
            result.map_err(node.fault())?;
        }
        Ok(self.scores())
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
            return Err(rectify_kernels::Error::Shape { what: "backward passes", value: 0, why }.into());
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
            let (ilen, olen) = (node.input.blocked_len(), node.output.blocked_len());
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

/// Refuses tensors between the layers that do not fit into memory.
fn reserve(dims: &[Dims], mode: Mode) -> Result<(), MemoryError> {
    let lens = dims.iter().map(Dims::blocked_len);
    match mode {
        Mode::Inference => memory::reserve([lens.max().unwrap_or(0).saturating_mul(2)]),
        // Of most layers the output and what its activation was given.
        Mode::Training => memory::reserve(lens.map(|len| len.saturating_mul(2))),
    }
}

/// Two different buffers, the first to read, the second to write.
fn two(buffers: &mut [Buffer], from: usize, to: usize) -> (&Buffer, &mut Buffer) {
    if from < to {
        let (left, right) = buffers.split_at_mut(to);
        (&left[from], &mut right[0])
    } else {
        let (left, right) = buffers.split_at_mut(from);
        (&right[0], &mut left[to])
    }
}
