//! Variants of a net, and the weights that all of them start with.

use crate::init::Init;
use crate::model::{Activation, Model, ModelError, Op};
use crate::nn::{Parameters, Role};

/// What a variant of a net has of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Variant {
    /// Its name in tables and folders.
    pub name: &'static str,
    /// The rectifier in place of every rectifier of the net.
    pub activation: Option<Activation>,
    /// The initial weights.
    pub init: Option<Init>,
}

const fn rectifier(name: &'static str, activation: Activation) -> Variant {
    Variant { name, activation: Some(activation), init: None }
}

/// The rectifiers that He et al. 2015, section 2.1 and Table 2, compare; slopes that are learned start at 0.25, the
/// fixed ones are that of leaky ReLU (Maas et al. 2013) and, to tell what learning does from what the start does, 0.25.
pub(super) const RECTIFIERS: [Variant; 5] = [
    rectifier("relu", Activation::Relu),
    rectifier("leaky", Activation::Leaky(0.01)),
    rectifier("leaky-0.25", Activation::Leaky(0.25)),
    rectifier("shared", Activation::Prelu { slope: 0.25, shared: true }),
    rectifier("channel-wise", Activation::Prelu { slope: 0.25, shared: false }),
];

/// The initial weights that He et al. 2015, Figures 2 and 3, compare, in nets with ReLU.
pub(super) const INITS: [Variant; 2] = [
    Variant { name: "he", activation: Some(Activation::Relu), init: Some(Init::He) },
    Variant { name: "xavier", activation: Some(Activation::Relu), init: Some(Init::Xavier) },
];

impl Variant {
    /// The net with what the variant has of its own, under the name `NET-VARIANT`.
    pub fn of(&self, base: &Model) -> Model {
        let mut model = base.clone();
        model.name = format!("{}-{}", base.name, self.name);
        model.training.init = self.init.unwrap_or(base.training.init);
        if let Some(activation) = self.activation {
            replace(&mut model, activation);
        }
        model
    }
}

/// Puts this rectifier where there is one.
fn replace(model: &mut Model, by: Activation) {
    for layer in &mut model.layers {
        if let Op::Conv(_, a) | Op::Linear { activation: a, .. } | Op::BatchNorm(a) = &mut layer.op
            && *a != Activation::None
        {
            *a = by;
        }
    }
}

/// The parameters that a variant's run starts with: weights and biases are those of the net with ReLU everywhere, so
/// that all rectifiers start with the same; slopes are what the model says. (The random numbers of a weight tensor are
/// addressed by its place among all parameters, of which slopes are some.)
///
/// # Errors
/// As [`Parameters::initial`].
pub fn initial(model: &Model, seed: u64) -> Result<Parameters, ModelError> {
    let mut plain = model.clone();
    replace(&mut plain, Activation::Relu);
    let plain = Parameters::initial(&plain, seed)?;
    let mut all = Parameters::initial(model, seed)?;
    let learned = all.iter_mut().filter(|p| p.role != Role::Slopes);
    learned.zip(plain.iter()).for_each(|(to, from)| to.value.copy_from_slice(&from.value));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_differ_in_their_own_alone() {
        let base = Model::built_in("e14-32").unwrap();
        let of = |v: &Variant| (v.of(&base), initial(&v.of(&base), 7).unwrap());
        let all: Vec<_> = RECTIFIERS.iter().map(of).collect();
        assert_eq!(all.iter().map(|(m, _)| m.name.as_str()).collect::<Vec<_>>()[..2], ["e14-32-relu", "e14-32-leaky"]);
        let relu: Vec<_> = all[0].1.iter().collect();
        assert!(relu[0].value.iter().any(|&w| w != 0.0));
        for (model, parameters) in &all[1..] {
            let learned: Vec<_> = parameters.iter().filter(|p| p.role != Role::Slopes).collect();
            assert_eq!(learned.len(), relu.len());
            assert!(learned.iter().zip(&relu).all(|(a, b)| a.value[..] == b.value[..] && a.layer == b.layer));
            let slopes = parameters.iter().filter(|p| p.role == Role::Slopes);
            assert!(slopes.flat_map(|p| p.value.to_vec()).all(|a| a == 0.25));
            let mut back = model.clone();
            replace(&mut back, Activation::Relu);
            back.name.clone_from(&all[0].0.name);
            assert_eq!(back, all[0].0);
        }
        let slopes =
            |i: usize| all[i].1.iter().filter(|p| p.role == Role::Slopes).map(|p| p.value.len()).sum::<usize>();
        assert_eq!([0, 1, 2, 3, 4].map(slopes), [0, 0, 0, 13, 32 + 4 * 64 + 6 * 128 + 2 * 512]);
        // The last layer has none, and gets none.
        assert_eq!(all[4].0.layers.last().unwrap().op.activation(), Activation::None);
    }

    #[test]
    fn initial_weights_differ_by_their_scale() {
        let base = Model::built_in("e30-32").unwrap();
        assert_eq!(INITS.map(|v| v.of(&base).layers), [base.layers.clone(), base.layers.clone()]);
        let [he, xavier] = INITS.map(|v| initial(&v.of(&base), 3).unwrap());
        let (a, b) = (&he[0].value, &xavier[0].value);
        assert!(a.iter().zip(b.iter()).all(|(a, b)| (a / b - 2.0f32.sqrt()).abs() < 1e-5));
    }
}
