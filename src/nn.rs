//! Nets that run: a model planned for a batch size, with every buffer a step needs.
//!
//! Between the layers lie blocked tensors (nChw16c), a few buffers by turns. For training every layer keeps one tensor,
//! mostly what its activation was given; for inference none, and batch norms are folded into the convolutions and fully
//! connected layers beside them. A forward pass allocates nothing.

mod affine;
mod apart;
mod backward;
mod fold;
mod kernels;
mod node;
mod parameters;
mod plan;
mod profile;
pub mod reference;
mod rounds;
mod shared;
#[cfg(test)]
mod tests;

pub use backward::Descent;
pub use fold::EPSILON;
pub use kernels::{Kernels, kernels};
pub use parameters::{Parameter, Parameters, Role};
pub use profile::{LayerTime, MemoryUse, Pass};
pub(crate) use shared::Shared;

use crate::memory::{self, MemoryError};
use crate::model::{Activation, Model, ModelError, Op};
use crate::rng::{self, Rng};
use affine::{Affine, Scratch, Spec};
use apart::Apart;
use fold::Norm;
use node::{Kind, Node};
use plan::Step;
use profile::Spent;
use rounds::{NEAR, Rounds};

use rayon::prelude::*;
use rectify_kernels::conv::Layout;
use rectify_kernels::loss::{self, LossSums};
use rectify_kernels::pool;
use rectify_kernels::{Buffer, Dims, Error, Isa, dropout, layout};
use std::ops::Range;

/// Elements of the images that a task copies.
const COPIED: usize = 1 << 14;

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

/// A model planned for one batch size.
///
/// Run it in the rayon pool that it was built in: the workspace is as large as that number of threads asks for.
pub struct Net {
    isa: Isa,
    mode: Mode,
    dims: Vec<Dims>,
    /// The images of a round, and how many nodes a round goes through.
    few: Dims,
    near: usize,
    /// How the images lie for the first layer, and how far apart those of one round and of the next.
    images: Layout,
    apart: usize,
    /// How many there are.
    parameters: usize,
    nodes: Vec<Node>,
    activations: Vec<Buffer>,
    /// Which of them gradients take turns in, and inputs that are computed again lie in.
    gradients: [usize; 2],
    again: usize,
    scratch: Scratch,
    /// What images and loss have taken.
    images_spent: Spent,
    loss_spent: Spent,
}

impl Net {
    /// Plans a model for batches of `batch` images in the current rayon pool.
    ///
    /// # Errors
    /// A model that does not fit together or, in training mode, cannot be trained; shapes that no slice or no memory
    /// can hold.
    pub fn new(model: &Model, isa: Isa, batch: usize, mode: Mode) -> Result<Net, NetError> {
        Net::in_rounds(model, isa, batch, mode, |steps, dims| match mode {
            Mode::Inference => Rounds::new(model, steps, dims, NEAR),
            // The backward pass reads all that the forward pass has left.
            Mode::Training => Rounds::one(steps, batch),
        })
    }

    /// As [`Net::new`], in the rounds that `rounds` says for the steps and the dimensions of the tensors.
    fn in_rounds(
        model: &Model,
        isa: Isa,
        batch: usize,
        mode: Mode,
        rounds: impl FnOnce(&[Step], &[Dims]) -> Rounds,
    ) -> Result<Net, NetError> {
        let dims = model.tensors(batch)?;
        let training = mode == Mode::Training;
        let steps = match (mode, model.untrainable()) {
            (Mode::Inference, _) => plan::folded(model)?,
            (Mode::Training, None) => plan::plain(model),
            (Mode::Training, Some((layer, why))) => {
                return Err(NetError::Untrainable { layer: layer.name.clone(), why });
            }
        };
        let images = plan::images(model, &steps, dims[0]);
        let layout = |tensor: usize| if tensor == 0 { images } else { Layout::Blocked };
        let rounds = rounds(&steps, &dims);
        let whole = rounds.whole(&steps, &dims);
        let few = |tensor: usize| Dims { n: rounds.images, ..dims[tensor] };
        let apart = |tensor: usize| if whole[tensor] { layout(tensor).len(&few(tensor)) } else { 0 };
        let len = |tensor: usize| layout(tensor).len(&if whole[tensor] { dims[tensor] } else { few(tensor) });
        let len: Vec<usize> = (0..dims.len()).map(len).collect();
        let buffers = match training {
            true => plan::training(model, &steps, &len),
            false => plan::reused(&steps, &len, |at| at < rounds.steps && rounds.images < batch && whole[steps[at].to]),
        };
        // For training, all that activations are given.
        let pre = steps.iter().filter(|s| training && model.layers[s.layer].op.activation() != Activation::None);
        memory::reserve(buffers.lens.iter().copied().chain(pre.map(|s| len[s.to])))?;
        // Where each layer's parameters begin.
        let mut firsts = vec![0];
        for layer in &model.layers {
            firsts.push(firsts[firsts.len() - 1] + layer.op.roles().len());
        }
        let norm = |i: usize| Norm { first: firsts[i], channels: dims[i + 1].c };
        let (mut nodes, mut near): (Vec<Node>, usize) = (Vec::new(), 0);
        for (at, step) in steps.iter().enumerate() {
            let of_step = |tensor: usize| if at < rounds.steps { few(tensor) } else { dims[tensor] };
            let (layer, input, output) = (&model.layers[step.layer], of_step(step.from), of_step(step.to));
            // The activation, and its slopes, are those of the layer whose output the step's is.
            let (activation, slopes) = (model.layers[step.to - 1].op.activation(), firsts[step.to].wrapping_sub(1));
            let (first, before, behind) = (firsts[step.layer], step.before.map(norm), step.behind.map(norm));
            let layout = layout(step.from);
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
            let again = buffers.recomputed.get(step.from) == Some(&true);
            let producer = nodes.len().checked_sub(1).filter(|_| again);
            let apart = [step.from, step.add.unwrap_or(step.to), step.to].map(apart);
            let (input, spent) = (layout.len(&input), Spent::default());
            nodes.push(Node { name, kind, input, output, from, add, to, apart, producer, spent });
            near += usize::from(at < rounds.steps);
        }
        let affine = nodes.iter().filter_map(|n| if let Kind::Affine(a) = &n.kind { Some(&**a) } else { None });
        let scratch = Scratch::new(affine, rayon::current_num_threads());
        let (gradients, again) = (buffers.gradients, buffers.again);
        let activations = buffers.lens.into_iter().map(Buffer::zeroed).collect();
        let (parameters, nothing) = (firsts[model.layers.len()], Spent::default());
        let (images_spent, loss_spent) = (nothing, nothing);
        Ok(Net {
            isa,
            mode,
            few: few(0),
            near,
            apart: apart(0),
            dims,
            images,
            parameters,
            nodes,
            activations,
            gradients,
            again,
            scratch,
            images_spent,
            loss_spent,
        })
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

    /// For inference: folds batch norms and packs the weights of convolutions; the passes use those of the last call.
    /// What is neither packed nor folded (slopes, biases, the weights of fully connected layers) they use as it is, and
    /// in training they use everything as it is.
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
        let (got, want) = (pixels.len(), self.dims[0].plain_len());
        if got != want {
            return Err(Error::Length { what: "pixels", got, want }.into());
        }
        for (round, pixels) in pixels.chunks_exact(self.few.plain_len()).enumerate() {
            let images = &mut self.activations[0][round * self.apart..][..self.images.len(&self.few)];
            self.images_spent.time(Pass::Forward, || match self.images {
                Layout::Blocked => layout::nchw_to_blocked(self.isa, self.few, pixels, images),
                Layout::Nchw => {
                    let parts = images.par_chunks_mut(COPIED).zip(pixels.par_chunks(COPIED));
                    parts.for_each(|(images, pixels)| images.copy_from_slice(pixels));
                    Ok(())
                }
            })?;
            self.run(0..self.near, round, parameters, dropout)?;
        }
        self.run(self.near..self.nodes.len(), 0, parameters, dropout)?;
        Ok(self.scores())
    }

    /// The forward pass of some nodes in one of the rounds.
    fn run(
        &mut self,
        nodes: Range<usize>,
        round: usize,
        parameters: &Parameters,
        dropout: u64,
    ) -> Result<(), NetError> {
        let training = self.mode == Mode::Training;
        for place in nodes {
            let node = &mut self.nodes[place];
            let (isa, ilen, olen) = (self.isa, node.input, node.output.blocked_len());
            let [from, add, to] = node.apart.map(|apart| round * apart);
            let (fault, spent) = (node.fault(), &mut node.spent);
            let result = if let Kind::Dropout { rate, mask } = &mut node.kind {
                let seed = Rng::at(dropout, rng::DROPOUT, place as u64, 0).next_u64();
                let x = &mut self.activations[node.to][..olen];
                spent.time(Pass::Forward, || dropout::forward_in_place(isa, node.output, x, *rate, seed, 0, mask))
            } else {
                let (x, shortcut, y) = borrow(&mut self.activations, node.from, node.add, node.to)?;
                let (x, shortcut, y) = (&x[from..][..ilen], shortcut.map(|s| &s[add..][..olen]), &mut y[to..][..olen]);
                match &mut node.kind {
                    Kind::Affine(a) => a.forward(parameters, x, shortcut, y, &mut self.scratch, spent),
                    kind => spent.time(Pass::Forward, || match kind {
                        Kind::Max { shape, index } => {
                            pool::max_forward(isa, shape, x, y, training.then_some(&mut index[..]))
                        }
                        Kind::Average(shape) => pool::average_forward(isa, shape, x, y),
                        Kind::Spp { shape, index } => {
                            pool::spp_forward(isa, shape, x, y, training.then_some(&mut index[..]))
                        }
                        Kind::Norm(apart) => apart.forward(isa, node.output, parameters, x, shortcut, y),
                        Kind::Affine(_) | Kind::Dropout { .. } => Ok(()),
                    }),
                }
            };
            result.map_err(fault)?;
        }
        Ok(())
    }

    /// Where the time since the last call went, layer by layer; in training with rows for the images' layout and the
    /// loss.
    pub fn profile(&mut self) -> Vec<LayerTime> {
        let images = self.images_spent.take("images", "layout".into());
        let layers = self.nodes.iter_mut().map(|node| node.spent.take(&node.name, node.kernel()));
        let loss = self.loss_spent.take("loss", "softmax".into());
        match self.mode {
            Mode::Inference => layers.collect(),
            Mode::Training => std::iter::once(images).chain(layers).chain([loss]).collect(),
        }
    }

    /// What the net's memory is for: activations, gradients of weights, workspace and packed weights. The buffers
    /// between the layers, which gradients use too, count as activations.
    pub fn memory(&self) -> Vec<MemoryUse> {
        let bytes = |buffer: &Buffer| size_of_val(&buffer[..]);
        let (kept, packed) = self.nodes.iter().map(Node::bytes).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        let Scratch { workspace, packed: shared, weights, others } = &self.scratch;
        let of = |kind, bytes| MemoryUse { kind, bytes };
        vec![
            of("activations", self.activations.iter().map(bytes).sum::<usize>() + kept),
            of("gradients", bytes(weights) + bytes(others)),
            of("workspace", bytes(workspace)),
            of("packed", bytes(shared) + packed),
        ]
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
