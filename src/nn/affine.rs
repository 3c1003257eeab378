//! The layers with weights: convolution and fully connected, their plans for all three directions.

use super::Parameters;
use crate::model::{Activation, Op};
use rectify_kernels::conv::{self, Epilogue, Options};
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

/// A layer with weights, bias and perhaps an activation.
pub(super) struct Affine {
    isa: Isa,
    output: Dims,
    /// Index of the weights among the parameters; bias and slopes follow.
    first: usize,
    /// The slopes of an activation that is not learned.
    fixed: Option<[f32; 1]>,
    learned: bool,
    forward: Either<conv::Forward, linear::Forward>,
    packed: Buffer,
    backward: Option<Backward>,
}

impl Affine {
    /// Plans a layer; nothing if it has no weights.
    pub(super) fn new(
        isa: Isa,
        op: &Op,
        (input, output): (Dims, Dims),
        first: usize,
        training: bool,
    ) -> Result<Option<Affine>, Error> {
        let (activation, forward, backward) = match op {
            Op::Conv(conv, activation) => {
                let (shape, options) = (Op::conv_shape(conv, input), Options::default());
                let forward = Either::Conv(conv::Forward::new(isa, &shape, &options)?);
                let backward = if training {
                    let data = Either::Conv(conv::BackwardData::new(isa, &shape, &options)?);
                    Some((data, Either::Conv(conv::BackwardWeights::new(isa, &shape, &options)?)))
                } else {
                    None
                };
                (activation, forward, backward)
            }
            Op::Linear { outputs, activation } => {
                let shape = LinearShape { n: input.n, c: input.c, h: input.h, w: input.w, outputs: *outputs };
                let forward = Either::Linear(linear::Forward::new(isa, &shape)?);
                let backward = if training {
                    let data = Either::Linear(linear::BackwardData::new(isa, &shape)?);
                    Some((data, Either::Linear(linear::BackwardWeights::new(isa, &shape)?)))
                } else {
                    None
                };
                (activation, forward, backward)
            }
            _ => return Ok(None),
        };
        let packed = Buffer::zeroed(both!(&forward, p => p.packed_len()));
        let backward = backward.map(|(data, weights)| {
            let packed = Buffer::zeroed(both!(&data, p => p.packed_len()));
            let pre = if *activation == Activation::None { 0 } else { output.blocked_len() };
            Backward { data, weights, packed, pre: Buffer::zeroed(pre) }
        });
        let learned = matches!(activation, Activation::Prelu { .. });
        let fixed = if learned { None } else { activation.slope().map(|slope| [slope]) };
        Ok(Some(Affine { isa, output, first, fixed, learned, forward, packed, backward }))
    }

    /// Number of parameters.
    pub(super) fn parameters(&self) -> usize {
        2 + usize::from(self.learned)
    }

    /// Number of parameters up to and with this layer's.
    pub(super) fn end(&self) -> usize {
        self.first + self.parameters()
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

    /// Packs the weights for all plans.
    pub(super) fn load(&mut self, parameters: &Parameters) -> Result<(), Error> {
        let weights = &parameters[self.first].value;
        both!(&self.forward, p => p.pack(weights, &mut self.packed))?;
        if let Some(b) = &mut self.backward {
            both!(&b.data, p => p.pack(weights, &mut b.packed))?;
        }
        Ok(())
    }

    fn slopes<'a>(&'a self, parameters: &'a Parameters) -> Option<&'a [f32]> {
        if self.learned { Some(&parameters[self.first + 2].value) } else { self.fixed.as_ref().map(|s| &s[..]) }
    }

    pub(super) fn forward(
        &mut self,
        parameters: &Parameters,
        x: &[f32],
        y: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let bias: &[f32] = &parameters[self.first + 1].value;
        let Affine { forward, packed, backward, fixed, learned, first, .. } = self;
        let slopes: Option<&[f32]> =
            if *learned { Some(&parameters[*first + 2].value) } else { fixed.as_ref().map(|s| &s[..]) };
        let epilogue = match (slopes, backward) {
            (None, _) => Epilogue::Bias(bias),
            (Some(slopes), None) => Epilogue::BiasPrelu { bias, slopes },
            (Some(slopes), Some(b)) => Epilogue::BiasPreluKeep { bias, slopes, pre: &mut b.pre },
        };
        both!(forward, p => p.run(x, packed, epilogue, y, workspace))
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
        let [dw, dbias, dslopes @ ..] = &mut gradients[self.first..self.first + self.parameters()] else {
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
