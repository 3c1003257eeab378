//! The layers with weights: convolution and fully connected, their plans for all three directions.

use super::fold::{self, Grid, Norm};
use super::{Parameters, Role};
use crate::model::{Activation, Op};
use rectify_kernels::conv::{self, Epilogue, Layout, Options};
use rectify_kernels::linear::{self, LinearShape};
use rectify_kernels::{Buffer, Dims, Error, Isa, prelu};

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
    packed: Buffer,
    /// What the activation was given; empty without one.
    pre: Buffer,
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
    Own(Buffer),
}

/// A layer with weights, bias and perhaps an activation, and the batch norms that are folded into it.
pub(super) struct Affine {
    isa: Isa,
    output: Dims,
    /// Index of the weights among the parameters.
    first: usize,
    /// Its own parameters, without those of batch norms.
    count: usize,
    bias: Bias,
    /// Index of the slopes of an activation that is learned.
    learned: Option<usize>,
    /// The slopes of an activation that is not.
    fixed: Option<[f32; 1]>,
    grid: Grid,
    before: Option<Norm>,
    behind: Option<Norm>,
    forward: Either<conv::Forward, linear::Forward>,
    packed: Buffer,
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
                    Some((data, Either::Conv(conv::BackwardWeights::new(isa, &shape, &options)?)))
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
                    Some((data, Either::Linear(linear::BackwardWeights::new(isa, &shape)?)))
                } else {
                    None
                };
                (Grid { outputs: *outputs, inputs: input.c, taps: input.plane(), groups: 1 }, true, forward, backward)
            }
            _ => return Ok(None),
        };
        let packed = Buffer::zeroed(both!(&forward, p => p.packed_len()));
        let backward = backward.map(|(data, weights)| {
            let packed = Buffer::zeroed(both!(&data, p => p.packed_len()));
            let pre = if activation == Activation::None { 0 } else { output.blocked_len() };
            Backward { data, weights, packed, pre: Buffer::zeroed(pre) }
        });
        let learned = matches!(activation, Activation::Prelu { .. }).then_some(slopes);
        let fixed = if learned.is_some() { None } else { activation.slope().map(|slope| [slope]) };
        let bias = match has_bias && before.is_none() && behind.is_none() {
            true => Bias::Parameter(first + 1),
            false => Bias::Own(Buffer::zeroed(grid.outputs)),
        };
        let count = op.roles().len();
        let layer =
            Affine { isa, output, first, count, bias, learned, fixed, grid, before, behind, forward, packed, backward };
        Ok(Some(layer))
    }

    /// The kernel that computes it.
    pub(super) fn kernel(&self) -> String {
        both!(&self.forward, p => p.kernel())
    }

    pub(super) fn workspace_len(&self, threads: usize) -> usize {
        let forward = both!(&self.forward, p => p.workspace_len(threads));
        let backward = self.backward.as_ref().map_or(0, |b| {
            let data = both!(&b.data, p => p.workspace_len(threads));
            let weights = both!(&b.weights, p => p.workspace_len(threads));
            data.max(weights).max(prelu::workspace_len(self.output))
        });
        forward.max(backward)
    }

    /// Folds the batch norms into the weights and packs these for all plans.
    pub(super) fn load(&mut self, parameters: &Parameters) -> Result<(), Error> {
        let weights = &parameters[self.first].value;
        if self.before.is_none() && self.behind.is_none() {
            both!(&self.forward, p => p.pack(weights, &mut self.packed))?;
            if let Some(b) = &mut self.backward {
                both!(&b.data, p => p.pack(weights, &mut b.packed))?;
            }
            return Ok(());
        }
        let maps = |norm: Option<Norm>| norm.map(|n| n.maps(parameters)).transpose();
        let (before, behind) = (maps(self.before)?, maps(self.behind)?);
        let bias = parameters.get(self.first + 1).filter(|p| p.role == Role::Bias).map(|p| &p.value[..]);
        let folded = self.grid.fold(weights, bias, before.as_deref(), behind.as_deref())?;
        match (&self.forward, &before) {
            (Either::Conv(plan), Some(before)) if is_padded(plan) => {
                plan.pack_padded(&folded.weights, &fold::pads(before)?, &mut self.packed)?;
            }
            (forward, _) => both!(forward, p => p.pack(&folded.weights, &mut self.packed))?,
        }
        self.bias = Bias::Own(Buffer::from_slice(&folded.bias));
        Ok(())
    }

    fn slopes<'a>(&'a self, parameters: &'a Parameters) -> Option<&'a [f32]> {
        match self.learned {
            Some(at) => Some(&parameters[at].value),
            None => self.fixed.as_ref().map(|s| &s[..]),
        }
    }

    /// `shortcut`, if there is one, is added before the activation.
    pub(super) fn forward(
        &mut self,
        parameters: &Parameters,
        x: &[f32],
        shortcut: Option<&[f32]>,
        y: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let Affine { isa, output, forward, packed, backward, fixed, learned, bias, .. } = self;
        let bias: &[f32] = match bias {
            Bias::Parameter(at) => &parameters[*at].value,
            Bias::Own(bias) => bias,
        };
        let slopes: Option<&[f32]> = match learned {
            Some(at) => Some(&parameters[*at].value),
            None => fixed.as_ref().map(|s| &s[..]),
        };
        let epilogue = match (shortcut, slopes, backward) {
            (Some(shortcut), ..) => Epilogue::BiasAdd { bias, shortcut },
            (None, None, _) => Epilogue::Bias(bias),
            (None, Some(slopes), None) => Epilogue::BiasPrelu { bias, slopes },
            (None, Some(slopes), Some(b)) => Epilogue::BiasPreluKeep { bias, slopes, pre: &mut b.pre },
        };
        both!(forward, p => p.run(x, packed, epilogue, y, workspace))?;
        match (shortcut, slopes) {
            (Some(_), Some(slopes)) => prelu::forward_in_place(*isa, *output, y, slopes),
            _ => Ok(()),
        }
    }

    /// `grad` holds the output's gradient and is overwritten; `dx`, if wanted, gets the input's.
    pub(super) fn backward(
        &self,
        parameters: &Parameters,
        x: &[f32],
        grad: &mut [f32],
        dx: Option<&mut [f32]>,
        gradients: &mut [Buffer],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let Some(b) = &self.backward else {
            return Err(Error::Shape { what: "backward passes", value: 0, why: "were planned: inference only" });
        };
        let [dw, dbias, dslopes @ ..] = &mut gradients[self.first..self.first + self.count] else {
            return Err(Error::Length { what: "gradients", got: gradients.len(), want: self.first + 2 });
        };
        match self.slopes(parameters) {
            Some(slopes) => {
                let dslopes = dslopes.first_mut().map(|d| &mut d[..]);
                prelu::backward(self.isa, self.output, &b.pre, slopes, grad, dslopes, Some(dbias), workspace)?;
            }
            None => prelu::bias_gradient(self.isa, self.output, grad, dbias, workspace)?,
        }
        both!(&b.weights, p => p.run(x, grad, dw, workspace))?;
        match dx {
            Some(dx) => both!(&b.data, p => p.run(grad, &b.packed, dx, workspace)),
            None => Ok(()),
        }
    }
}

/// Whether a convolution reads pixels outside the image.
fn is_padded(plan: &conv::Forward) -> bool {
    let s = plan.shape();
    s.pad_top + s.pad_bottom + s.pad_left + s.pad_right > 0
}
