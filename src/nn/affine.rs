//! The layers with weights: convolution and fully connected, their plans for all three directions.

use super::backward::{Gradients, kept};
use super::fold::{self, Grid, Norm};
use super::profile::{Pass, Spent};
use super::shared::Loaded;
use super::{Parameters, Role};
use crate::model::{Activation, Op};
use rectify_kernels::conv::{self, Epilogue, Layout, Options};
use rectify_kernels::linear::{self, LinearShape};
use rectify_kernels::reference::winograd::Variant;
use rectify_kernels::{Buffer, Dims, Error, Isa, prelu};
use std::sync::Arc;

/// A convolution's or a fully connected layer's plan, one arm for each.
enum Either<C, L> {
    Conv(C),
    Linear(L),
}

macro_rules! both {
    ($plan:expr, $p:ident => $e:expr) => {
        match $plan {
            Either::Conv($p) => $e,
            Either::Linear($p) => $e,
        }
    };
}

/// What training needs beyond inference.
struct Backward {
    data: Either<conv::BackwardData, linear::BackwardData>,
    weights: Either<conv::BackwardWeights, linear::BackwardWeights>,
    /// Both at once, of a fully connected layer.
    step: Option<linear::BackwardStep>,
    /// What the activation was given; empty without one.
    pre: Buffer,
}

/// Storage that all layers share, each for as long as one of its passes runs.
pub(super) struct Scratch {
    pub workspace: Buffer,
    /// Weights of a convolution, laid out for the pass that runs next; for training.
    pub packed: Buffer,
    /// A convolution's gradient of the weights; slopes and biases; for training.
    pub weights: Buffer,
    pub others: Buffer,
}

impl Scratch {
    /// As large as the largest layer asks for.
    pub fn new<'a>(layers: impl Iterator<Item = &'a Affine> + Clone, threads: usize) -> Scratch {
        let most = |of: &dyn Fn(&Affine) -> usize| Buffer::zeroed(layers.clone().map(of).max().unwrap_or(0));
        Scratch {
            workspace: most(&|a| a.workspace_len(threads)),
            packed: most(&|a| a.backward.as_ref().map_or(0, |b| packed_len(&a.forward).max(b.packed_len()))),
            weights: most(&|a| a.backward.as_ref().map_or(0, Backward::gradient_len)),
            others: most(&|a| a.backward.as_ref().map_or(0, |_| 2 * a.output.c)),
        }
    }
}

/// A buffer of that length to pack into: the one that is there, unless another plan reads it.
fn own(packed: &mut Arc<Buffer>, len: usize) -> &mut [f32] {
    if packed.len() != len || Arc::get_mut(packed).is_none() {
        *packed = Arc::new(Buffer::zeroed(len));
    }
    Arc::get_mut(packed).map_or(&mut [], |p| &mut p[..])
}

/// Elements of a layer's packed weights; a fully connected layer reads them as they are.
fn packed_len(forward: &Either<conv::Forward, linear::Forward>) -> usize {
    if let Either::Conv(plan) = forward { plan.packed_len() } else { 0 }
}

impl Backward {
    fn packed_len(&self) -> usize {
        if let Either::Conv(plan) = &self.data { plan.packed_len() } else { 0 }
    }

    /// Elements of the gradient of the weights, where it cannot be applied as it is summed.
    fn gradient_len(&self) -> usize {
        if let Either::Conv(plan) = &self.weights { plan.shape().weight_len() } else { 0 }
    }
}

/// What a layer is made from.
pub(super) struct Spec<'a> {
    pub op: &'a Op,
    /// The activation behind it, which a batch norm folded into it may have brought.
    pub activation: Activation,
    pub input: Dims,
    /// How the input lies; of convolutions alone.
    pub layout: Layout,
    pub output: Dims,
    /// Places among the parameters: of the weights, which the bias follows if there is one, and of learned slopes.
    pub first: usize,
    pub slopes: usize,
    /// Batch norms that are folded into it.
    pub before: Option<Norm>,
    pub behind: Option<Norm>,
}

/// Where the bias is.
enum Bias {
    Parameter(usize),
    Own(Arc<Buffer>),
}

/// A layer with weights, bias and perhaps an activation, and the batch norms that are folded into it.
pub(super) struct Affine {
    isa: Isa,
    output: Dims,
    /// Index of the weights among the parameters.
    first: usize,
    bias: Bias,
    /// Index of the slopes of an activation that is learned.
    learned: Option<usize>,
    /// The slopes of an activation that is not.
    fixed: Option<[f32; 1]>,
    grid: Grid,
    before: Option<Norm>,
    behind: Option<Norm>,
    forward: Either<conv::Forward, linear::Forward>,
    /// Of inference; empty before [`Affine::load`], and where the weights are read as they are.
    packed: Arc<Buffer>,
    backward: Option<Backward>,
}

impl Affine {
    /// Plans a layer; nothing if it has no weights.
    pub(super) fn new(isa: Isa, spec: Spec<'_>, training: bool) -> Result<Option<Affine>, Error> {
        let Spec { op, activation, input, layout, output, first, slopes, before, behind } = spec;
        let (grid, has_bias, forward, backward) = match op {
            Op::Conv(conv, _) => {
                let (shape, options) = (Op::conv_shape(conv, input), Options { input: layout, ..Options::default() });
                let forward = Either::Conv(conv::Forward::new(isa, &shape, &options)?);
                let backward = if training {
                    let data = Either::Conv(conv::BackwardData::new(isa, &shape, &options)?);
                    Some((data, Either::Conv(conv::BackwardWeights::new(isa, &shape, &options)?), None))
                } else {
                    None
                };
                let (outputs, inputs, taps) = (shape.oc, shape.group_ic(), shape.kh * shape.kw);
                (Grid { outputs, inputs, taps, groups: shape.groups }, conv.bias, forward, backward)
            }
            Op::Linear { outputs, .. } => {
                let shape = LinearShape { n: input.n, c: input.c, h: input.h, w: input.w, outputs: *outputs };
                let forward = Either::Linear(linear::Forward::new(isa, &shape)?);
                let backward = if training {
                    let data = Either::Linear(linear::BackwardData::new(isa, &shape)?);
                    let weights = Either::Linear(linear::BackwardWeights::new(isa, &shape)?);
                    Some((data, weights, Some(linear::BackwardStep::new(isa, &shape)?)))
                } else {
                    None
                };
                (Grid { outputs: *outputs, inputs: input.c, taps: input.plane(), groups: 1 }, true, forward, backward)
            }
            _ => return Ok(None),
        };
        let backward = backward.map(|(data, weights, step)| {
            let pre = if activation == Activation::None { 0 } else { output.blocked_len() };
            Backward { data, weights, step, pre: Buffer::zeroed(pre) }
        });
        let learned = matches!(activation, Activation::Prelu { .. }).then_some(slopes);
        let fixed = if learned.is_some() { None } else { activation.slope().map(|slope| [slope]) };
        let bias = match has_bias && before.is_none() && behind.is_none() {
            true => Bias::Parameter(first + 1),
            false => Bias::Own(Arc::new(Buffer::zeroed(grid.outputs))),
        };
        let packed = Arc::new(Buffer::zeroed(0));
        let layer =
            Affine { isa, output, first, bias, learned, fixed, grid, before, behind, forward, packed, backward };
        Ok(Some(layer))
    }

    /// The kernel that computes it.
    pub(super) fn kernel(&self) -> String {
        both!(&self.forward, p => p.kernel())
    }

    fn workspace_len(&self, threads: usize) -> usize {
        let forward = both!(&self.forward, p => p.workspace_len(threads));
        let backward = self.backward.as_ref().map_or(0, |b| {
            let data = both!(&b.data, p => p.workspace_len(threads));
            let weights = both!(&b.weights, p => p.workspace_len(threads));
            let step = b.step.as_ref().map_or(0, |p| p.workspace_len(threads));
            data.max(weights).max(step).max(prelu::workspace_len(self.output))
        });
        forward.max(backward)
    }

    /// Bytes of the pre-activation, and of packed weights.
    pub(super) fn bytes(&self) -> (usize, usize) {
        (self.backward.as_ref().map_or(0, |b| size_of_val(&b.pre[..])), size_of_val(&self.packed[..]))
    }

    /// For inference: folds the batch norms into the weights and packs these.
    pub(super) fn load(&mut self, parameters: &Parameters) -> Result<(), Error> {
        let weights = &parameters[self.first].value;
        if self.backward.is_some() {
            return Ok(());
        }
        if self.before.is_none() && self.behind.is_none() {
            return match &self.forward {
                Either::Conv(plan) => plan.pack(weights, own(&mut self.packed, plan.packed_len())),
                Either::Linear(_) => Ok(()),
            };
        }
        let maps = |norm: Option<Norm>| norm.map(|n| n.maps(parameters)).transpose();
        let (before, behind) = (maps(self.before)?, maps(self.behind)?);
        let bias = parameters.get(self.first + 1).filter(|p| p.role == Role::Bias).map(|p| &p.value[..]);
        let folded = self.grid.fold(weights, bias, before.as_deref(), behind.as_deref())?;
        match (&self.forward, &before) {
            (Either::Conv(plan), Some(before)) if is_padded(plan) => {
                let packed = own(&mut self.packed, plan.packed_len());
                plan.pack_padded(&folded.weights, &fold::pads(before)?, packed)?;
            }
            (Either::Conv(plan), _) => {
                plan.pack(&folded.weights, own(&mut self.packed, plan.packed_len()))?;
            }
            (Either::Linear(_), _) => self.packed = Arc::new(Buffer::from_slice(&folded.weights)),
        }
        self.bias = Bias::Own(Arc::new(Buffer::from_slice(&folded.bias)));
        Ok(())
    }

    /// What the layout of the packed weights depends on, of one layer.
    pub(super) fn key(&self) -> (Isa, Option<Variant>) {
        (self.isa, if let Either::Conv(plan) = &self.forward { plan.variant() } else { None })
    }

    /// What [`Affine::load`] has made.
    pub(super) fn loaded(&self) -> Loaded {
        let bias = if let Bias::Own(bias) = &self.bias { Some(bias.clone()) } else { None };
        Loaded { key: self.key(), packed: self.packed.clone(), bias }
    }

    /// Takes what another plan of the same layer has loaded.
    pub(super) fn take(&mut self, loaded: &Loaded) {
        self.packed = loaded.packed.clone();
        if let Some(bias) = &loaded.bias {
            self.bias = Bias::Own(bias.clone());
        }
    }

    fn slopes<'a>(&'a self, parameters: &'a Parameters) -> Option<&'a [f32]> {
        match self.learned {
            Some(at) => Some(&parameters[at].value),
            None => self.fixed.as_ref().map(|s| &s[..]),
        }
    }

    /// What the activation was given in the last forward pass, and the slopes.
    pub(super) fn activation<'a>(&'a self, parameters: &'a Parameters) -> Option<(&'a [f32], &'a [f32])> {
        Some((&self.backward.as_ref()?.pre, self.slopes(parameters)?))
    }

    /// `shortcut`, if there is one, is added before the activation.
    pub(super) fn forward(
        &mut self,
        parameters: &Parameters,
        x: &[f32],
        shortcut: Option<&[f32]>,
        y: &mut [f32],
        scratch: &mut Scratch,
        spent: &mut Spent,
    ) -> Result<(), Error> {
        let Affine { isa, output, first, forward, packed, backward, fixed, learned, bias, before, behind, .. } = self;
        let bias: &[f32] = match bias {
            Bias::Parameter(at) => &parameters[*at].value,
            Bias::Own(bias) => bias,
        };
        let slopes: Option<&[f32]> = match learned {
            Some(at) => Some(&parameters[*at].value),
            None => fixed.as_ref().map(|s| &s[..]),
        };
        let weights = &parameters[*first].value;
        let own: &[f32] = if let (Either::Conv(plan), Some(_)) = (&*forward, &*backward) {
            let packed = &mut scratch.packed[..plan.packed_len()];
            spent.time(Pass::Pack, || plan.pack(weights, packed))?;
            packed
        } else {
            packed
        };
        let epilogue = match (shortcut, slopes, backward) {
            (Some(shortcut), ..) => Epilogue::BiasAdd { bias, shortcut },
            (None, None, _) => Epilogue::Bias(bias),
            (None, Some(slopes), None) => Epilogue::BiasPrelu { bias, slopes },
            (None, Some(slopes), Some(b)) => Epilogue::BiasPreluKeep { bias, slopes, pre: &mut b.pre },
        };
        let workspace = &mut scratch.workspace;
        spent.time(Pass::Forward, || {
            match forward {
                Either::Conv(plan) => plan.run(x, own, epilogue, y, workspace),
                Either::Linear(plan) => {
                    // Its own are those that a batch norm is folded into; before `load` there are none, an error.
                    let weights = if before.is_none() && behind.is_none() { weights } else { own };
                    plan.run(x, weights, epilogue, y, workspace)
                }
            }?;
            match (shortcut, slopes) {
                (Some(_), Some(slopes)) => prelu::forward_in_place(*isa, *output, y, slopes),
                _ => Ok(()),
            }
        })
    }

    /// `grad` holds the output's gradient and is overwritten; `dx`, if wanted, gets the input's.
    pub(super) fn backward(
        &self,
        gradients: &mut Gradients<'_>,
        x: &[f32],
        grad: &mut [f32],
        mut dx: Option<&mut [f32]>,
        scratch: &mut Scratch,
        spent: &mut Spent,
    ) -> Result<(), Error> {
        let Some(b) = &self.backward else {
            return Err(Error::Shape { what: "backward passes", value: 0, why: "were planned: inference only" });
        };
        let (isa, first, workspace) = (self.isa, self.first, &mut scratch.workspace);
        let (dbias, dslopes) = scratch.others.split_at_mut(self.output.c);
        let mut dslopes = match self.learned.map(|at| gradients.parameters()[at].value.len()) {
            Some(got) if got > dslopes.len() => {
                return Err(Error::Length { what: "slopes", got, want: dslopes.len() });
            }
            len => len.map(|len| &mut dslopes[..len]),
        };
        spent.time(Pass::Rectifier, || match self.slopes(gradients.parameters()) {
            Some(slopes) => {
                let dslopes = dslopes.as_deref_mut();
                prelu::backward(isa, self.output, &b.pre, slopes, grad, dslopes, Some(dbias), workspace)
            }
            None => prelu::bias_gradient(isa, self.output, grad, dbias, workspace),
        })?;
        spent.time(Pass::Update, || {
            gradients.take(isa, first + 1, dbias)?;
            self.learned.zip(dslopes).map_or(Ok(()), |(at, dslopes)| gradients.take(isa, at, dslopes))
        })?;
        // The input's gradient is that of the weights as they were in the forward pass.
        if let (Some(plan), Some(dx), Gradients::Apply(descent)) = (&b.step, &mut dx, &mut *gradients) {
            let (weights, velocity, rates) = descent.at(first)?;
            return spent.time(Pass::Weights, || plan.run(x, grad, weights, velocity, rates, dx, workspace));
        }
        if let Some(dx) = dx {
            let weights = &gradients.parameters()[first].value;
            match &b.data {
                Either::Conv(plan) => {
                    let packed = &mut scratch.packed[..plan.packed_len()];
                    spent.time(Pass::Pack, || plan.pack(weights, packed))?;
                    spent.time(Pass::Data, || plan.run(grad, packed, dx, workspace))?;
                }
                Either::Linear(plan) => spent.time(Pass::Data, || plan.run(grad, weights, dx, workspace))?,
            }
        }
        match (&b.weights, &mut *gradients) {
            (Either::Linear(plan), Gradients::Apply(descent)) => {
                let (weights, velocity, rates) = descent.at(first)?;
                spent.time(Pass::Weights, || plan.step(x, grad, weights, velocity, rates, workspace))
            }
            (plan, Gradients::Keep(_, all)) => {
                let dw = kept(all, first)?;
                spent.time(Pass::Weights, || both!(plan, p => p.run(x, grad, dw, workspace)))
            }
            (Either::Conv(plan), Gradients::Apply(_)) => {
                let dw = &mut scratch.weights[..plan.shape().weight_len()];
                spent.time(Pass::Weights, || plan.run(x, grad, dw, workspace))?;
                spent.time(Pass::Update, || gradients.take(isa, first, dw))
            }
        }
    }
}

/// Whether a convolution reads pixels outside the image.
fn is_padded(plan: &conv::Forward) -> bool {
    let s = plan.shape();
    s.pad_top + s.pad_bottom + s.pad_left + s.pad_right > 0
}
