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
    /// just before it), `classifier` from there on. Every layer takes a number, every activation takes another.
    ///
    /// # Errors
    /// As [`Model::dims`], and what `value` says.
    pub fn build<E: From<ModelError>>(
        model: &Model,
        mut value: impl FnMut(usize, &str, &[usize]) -> Result<Buffer, E>,
    ) -> Result<Parameters, E> {
        let dims = model.dims(1)?;
        let linear = model.layers.iter().position(|l| matches!(l.op, Op::Linear { .. }));
        let classifier = linear.map_or(model.layers.len(), |at| {
            let dropouts = model.layers[..at].iter().rev().take_while(|l| matches!(l.op, Op::Dropout { .. }));
            at - dropouts.count()
        });
        let mut all = Vec::new();
        let mut number = 0;
        for (layer, entry) in model.layers.iter().enumerate() {
            if layer == classifier {
                number = 0;
            }
            let part = if layer < classifier { "features" } else { "classifier" };
            let d = dims[layer];
            let (shape, activation) = match entry.op {
                Op::Conv(conv, activation) => {
                    (vec![conv.channels, d.c / conv.groups, conv.kernel, conv.kernel], activation)
                }
                Op::Linear { outputs, activation } => (vec![outputs, d.plain_len()], activation),
                _ => {
                    number += 1;
                    continue;
                }
            };
            let mut add = |number: usize, what: &str, role: Role, shape: Vec<usize>| -> Result<(), E> {
                let name = format!("{part}.{number}.{what}");
                let value = value(all.len(), &name, &shape)?;
                all.push(Parameter { name, layer, role, shape, value });
                Ok(())
            };
            let channels = shape[0];
            add(number, "weight", Role::Weight, shape)?;
            add(number, "bias", Role::Bias, vec![channels])?;
            if let Activation::Prelu { shared, .. } = activation {
                add(number + 1, "weight", Role::Slopes, vec![if shared { 1 } else { channels }])?;
            }
            number += 1 + usize::from(activation != Activation::None);
        }
        Ok(Parameters(all))
    }

    /// The parameters that training starts with: weights as the model's [`init::Init`] says, biases 0, slopes as the
    /// model says. Each weight tensor has its own random stream, numbered by its place.
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
            let (groups, activation) = match model.layers[p.layer].op {
                Op::Conv(conv, activation) => (conv.groups, activation),
                Op::Linear { activation, .. } => (1, activation),
                _ => continue,
            };
            let slope = activation.slope().unwrap_or(0.0);
            match p.role {
                Role::Weight => {
                    let fan_in: usize = p.shape[1..].iter().product();
                    let fan_out = p.shape[0] / groups * p.shape[2..].iter().product::<usize>();
                    let std = model.training.init.std(fan_in, fan_out, slope);
                    init::fill(&mut Rng::at(seed, rng::INIT, place as u64, 0), std, &mut p.value);
                }
                Role::Bias => {}
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
