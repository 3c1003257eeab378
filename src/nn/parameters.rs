//! A net's weights, biases and slopes, named as PyTorch would name them.

use crate::init;
use crate::memory;
use crate::model::{Activation, Model, ModelError, Op};
use crate::rng::{self, Rng};
use rectify_kernels::Buffer;

/// What a parameter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Weights: OIHW of a convolution, `[outputs][inputs]` of a fully connected layer.
    Weight,
    /// Biases, one an output channel.
    Bias,
    /// PReLU slopes, one a channel or one for all.
    Slopes,
    /// What a batch norm multiplies the normalised value by, one a channel.
    Scale,
    /// What a batch norm adds to that, one a channel.
    Shift,
    /// Mean of a channel that a batch norm assumes.
    Mean,
    /// Variance of a channel that a batch norm assumes.
    Variance,
}

impl Role {
    /// The last part of its name.
    fn name(self) -> &'static str {
        match self {
            Role::Weight | Role::Scale => "weight",
            Role::Bias | Role::Shift => "bias",
            Role::Mean => "running_mean",
            Role::Variance => "running_var",
            Role::Slopes => "slopes",
        }
    }
}

/// A named tensor that is learned.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// `features.0.weight` and the like: see [`Parameters::build`].
    pub name: String,
    /// Index of its layer in [`Model::layers`].
    pub layer: usize,
    /// What it is for.
    pub role: Role,
    /// Its shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub value: Buffer,
}

/// All parameters of a net, in the order of the layers; within a layer weight, bias, slopes.
#[derive(Debug, Clone)]
pub struct Parameters(Vec<Parameter>);

impl Parameters {
    /// The parameters of a model, with the values that `value` makes of their place, name and shape.
    ///
    /// Names are those of two `torch.nn.Sequential`: `features` up to the first fully connected layer (and the dropout
    /// just before it), `classifier` from there on. Every layer takes a number, every activation takes another. In a
    /// net that is no chain of trainable layers, names are the layer's with PyTorch's `weight`, `bias`, `running_mean`
    /// or `running_var`, or with `slopes`.
    ///
    /// # Errors
    /// As [`Model::dims`], and what `value` says.
    pub fn build<E: From<ModelError>>(
        model: &Model,
        mut value: impl FnMut(usize, &str, &[usize]) -> Result<Buffer, E>,
    ) -> Result<Parameters, E> {
        let dims = model.tensors(1)?;
        let linear = model.layers.iter().position(|l| matches!(l.op, Op::Linear { .. }));
        let classifier = linear.map_or(model.layers.len(), |at| {
            let dropouts = model.layers[..at].iter().rev().take_while(|l| matches!(l.op, Op::Dropout { .. }));
            at - dropouts.count()
        });
        let (sources, named) = (model.sources()?, model.untrainable().is_some());
        let mut all = Vec::new();
        let mut number = 0;
        for (layer, (entry, source)) in model.layers.iter().zip(&sources).enumerate() {
            if layer == classifier {
                number = 0;
            }
            let part = if layer < classifier { "features" } else { "classifier" };
            let weights = entry.op.weights(dims[source.from]);
            for role in entry.op.roles() {
                let name = match role {
                    _ if named => format!("{}.{}", entry.name, role.name()),
                    Role::Slopes => format!("{part}.{}.weight", number + 1),
                    _ => format!("{part}.{number}.{}", role.name()),
                };
                let shape = match (role, entry.op.activation()) {
                    (Role::Weight, _) => weights.clone(),
                    (Role::Slopes, Activation::Prelu { shared: true, .. }) => vec![1],
                    _ => vec![weights[0]],
                };
                let value = value(all.len(), &name, &shape)?;
                all.push(Parameter { name, layer, role, shape, value });
            }
            number += 1 + usize::from(entry.op.activation() != Activation::None);
        }
        Ok(Parameters(all))
    }

    /// The parameters that training starts with: weights as the model's [`init::Init`] says, biases 0, slopes as the
    /// model says; batch norms change (almost) nothing. Each weight tensor has its own random stream, numbered by its
    /// place.
    ///
    /// # Errors
    /// As [`Model::dims`]; more parameters than there is memory for.
    pub fn initial(model: &Model, seed: u64) -> Result<Parameters, ModelError> {
        let mut lens = Vec::new();
        Parameters::build::<ModelError>(model, |_, _, shape| {
            // The parameter itself, its gradient, its momentum, its packed forms.
            lens.push(shape.iter().product::<usize>().saturating_mul(4));
            Ok(Buffer::zeroed(0))
        })?;
        memory::reserve(lens)?;
        let zeros = |_: usize, _: &str, shape: &[usize]| Ok(Buffer::zeroed(shape.iter().product()));
        let mut all = Parameters::build::<ModelError>(model, zeros)?;
        for (place, p) in all.0.iter_mut().enumerate() {
            let op = &model.layers[p.layer].op;
            let groups = if let Op::Conv(conv, _) = op { conv.groups } else { 1 };
            let slope = op.activation().slope().unwrap_or(0.0);
            match p.role {
                Role::Weight => {
                    let fan_in: usize = p.shape[1..].iter().product();
                    let fan_out = p.shape[0] / groups * p.shape[2..].iter().product::<usize>();
                    let std = model.training.init.std(fan_in, fan_out, slope);
                    init::fill(&mut Rng::at(seed, rng::INIT, place as u64, 0), std, &mut p.value);
                }
                Role::Bias | Role::Shift | Role::Mean => {}
                Role::Scale | Role::Variance => p.value.fill(1.0),
                Role::Slopes => p.value.fill(slope),
            }
        }
        Ok(all)
    }

    /// Zeros in the shape of the parameters: gradients, momentum.
    pub fn zeros_like(&self) -> Vec<Buffer> {
        self.0.iter().map(|p| Buffer::zeroed(p.value.len())).collect()
    }
}

impl std::ops::Deref for Parameters {
    type Target = [Parameter];
    fn deref(&self) -> &[Parameter] {
        &self.0
    }
}

impl std::ops::DerefMut for Parameters {
    fn deref_mut(&mut self) -> &mut [Parameter] {
        &mut self.0
    }
}
