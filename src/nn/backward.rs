//! The backward pass, and what becomes of the gradients.

use super::node::Kind;
use super::profile::Pass;
use super::{Mode, Net, NetError, Parameters, Role};
use rectify_kernels::elementwise::{self, Rates};
use rectify_kernels::loss::{self, LossSums};
use rectify_kernels::{Buffer, Error, Isa, dropout, pool, prelu};

/// What it takes to apply gradients as soon as they are whole.
#[derive(Debug)]
pub struct Descent<'a> {
    /// What is learned.
    pub parameters: &'a mut Parameters,
    /// Momentum, one buffer a parameter, of its length.
    pub velocity: &'a mut [Buffer],
    /// For weights.
    pub weights: Rates,
    /// For slopes.
    pub slopes: Rates,
    /// For biases.
    pub others: Rates,
}

impl Descent<'_> {
    /// Applies the gradient of the parameter at a place, once it is whole.
    pub(crate) fn apply(&mut self, isa: Isa, place: usize, gradient: &[f32]) -> Result<(), Error> {
        let (value, velocity, rates) = self.at(place)?;
        elementwise::sgd_step(isa, value, gradient, velocity, rates)
    }

    /// A parameter, its momentum and the rates for it.
    pub(super) fn at(&mut self, place: usize) -> Result<(&mut [f32], &mut [f32], Rates), Error> {
        let got = self.velocity.len().min(self.parameters.len());
        match (self.parameters.get_mut(place), self.velocity.get_mut(place)) {
            (Some(p), Some(velocity)) => {
                let rates = match p.role {
                    Role::Weight => self.weights,
                    Role::Slopes => self.slopes,
                    _ => self.others,
                };
                Ok((&mut p.value, velocity, rates))
            }
            _ => Err(Error::Length { what: "momentum", got, want: place + 1 }),
        }
    }
}

/// What becomes of the gradients.
pub(super) enum Gradients<'a> {
    /// They are kept, one buffer a parameter.
    Keep(&'a Parameters, &'a mut [Buffer]),
    /// They are applied.
    Apply(Descent<'a>),
}

impl Gradients<'_> {
    pub(super) fn parameters(&self) -> &Parameters {
        match self {
            Gradients::Keep(parameters, _) => parameters,
            Gradients::Apply(descent) => descent.parameters,
        }
    }

    /// Takes the gradient of one parameter.
    pub(super) fn take(&mut self, isa: Isa, place: usize, gradient: &[f32]) -> Result<(), Error> {
        match self {
            Gradients::Apply(descent) => descent.apply(isa, place, gradient),
            Gradients::Keep(_, gradients) => {
                let to = kept(gradients, place)?;
                let (got, want) = (to.len(), gradient.len());
                if got != want {
                    return Err(Error::Length { what: "gradient", got, want });
                }
                to.copy_from_slice(gradient);
                Ok(())
            }
        }
    }
}

/// The buffer for a parameter's gradient.
pub(super) fn kept(gradients: &mut [Buffer], place: usize) -> Result<&mut Buffer, Error> {
    let got = gradients.len();
    gradients.get_mut(place).ok_or(Error::Length { what: "gradients", got, want: place + 1 })
}

impl Net {
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
        self.walk(labels, &mut Gradients::Keep(parameters, gradients))
    }

    /// As [`Net::backward`], but each gradient is applied as soon as it is whole: see [`Descent`]. After an error some
    /// parameters may have been updated.
    ///
    /// # Errors
    /// A net planned for inference, labels or momentum that do not fit, a rate that is not finite.
    pub fn descend(&mut self, descent: Descent<'_>, labels: &[u32]) -> Result<LossSums, NetError> {
        self.walk(labels, &mut Gradients::Apply(descent))
    }

    fn walk(&mut self, labels: &[u32], gradients: &mut Gradients<'_>) -> Result<LossSums, NetError> {
        if self.mode == Mode::Inference {
            let why = "were planned: the net is for inference";
            return Err(Error::Shape { what: "backward passes", value: 0, why }.into());
        }
        self.check(gradients.parameters())?;
        let (isa, output) = (self.isa, self.output());
        let last = self.nodes.last().map_or(0, |n| n.to);
        let ([mut grad, mut other], again) = (self.gradients, self.again);
        let len = output.blocked_len();
        let buffers = &mut self.activations;
        let planned = |_| Error::Shape { what: "buffer", value: last, why: "is read and written at once" };
        let [scores, dy] = buffers.get_disjoint_mut([last, grad]).map_err(planned)?;
        let softmax = || loss::softmax_cross_entropy(output, &scores[..len], labels, Some(&mut dy[..len]));
        let sums = self.loss_spent.time(Pass::Forward, softmax)?;
        let first = self.nodes.iter().position(|n| matches!(n.kind, Kind::Affine(_))).unwrap_or(0);
        for place in (first..self.nodes.len()).rev() {
            let (before, rest) = self.nodes.split_at_mut(place);
            let Some(node) = rest.first_mut() else { continue };
            let (ilen, olen, from) = (node.input, node.output.blocked_len(), node.from);
            let fault = node.fault();
            let spent = &mut node.spent;
            if let Kind::Dropout { rate, mask } = &node.kind {
                let dy = &mut buffers[grad][..olen];
                let done = spent.time(Pass::Data, || dropout::backward_in_place(isa, node.output, dy, *rate, mask));
                done.map_err(fault)?;
                continue;
            }
            // The input is computed again from what the activation before was given.
            let producer = node.producer.and_then(|at| before.get(at));
            let input = if producer.is_some() { again } else { from };
            let result = match &mut node.kind {
                Kind::Affine(a) => {
                    let [x, dy, dx] = buffers.get_disjoint_mut([input, grad, other]).map_err(planned)?;
                    let (x, dy) = (&mut x[..ilen], &mut dy[..olen]);
                    if let Some((pre, dims, slopes)) = producer.and_then(|p| p.activation(gradients.parameters())) {
                        spent.time(Pass::Rectifier, || prelu::forward(isa, dims, pre, slopes, x))?;
                    }
                    let dx = if place > first { dx.get_mut(..ilen) } else { None };
                    a.backward(gradients, x, dy, dx, &mut self.scratch, spent)
                }
                kind => {
                    let [dy, dx] = buffers.get_disjoint_mut([grad, other]).map_err(planned)?;
                    let (dy, dx) = (&dy[..olen], &mut dx[..ilen]);
                    spent.time(Pass::Data, || match kind {
                        Kind::Max { shape, index } => pool::max_backward(isa, shape, index, dy, dx),
                        Kind::Average(shape) => pool::average_backward(isa, shape, dy, dx),
                        Kind::Spp { shape, index } => pool::spp_backward(isa, shape, index, dy, dx),
                        // Training has refused a batch norm.
                        Kind::Affine(_) | Kind::Dropout { .. } | Kind::Norm(_) => Ok(()),
                    })
                }
            };
            result.map_err(fault)?;
            std::mem::swap(&mut grad, &mut other);
        }
        Ok(sums)
    }
}
