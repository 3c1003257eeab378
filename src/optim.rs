//! Stochastic gradient descent with momentum.

use crate::model::Training;
use crate::nn::{Descent, Parameters};
use rectify_kernels::{Buffer, elementwise::Rates};

/// SGD with momentum and weight decay, as PyTorch writes it: `v ← μ·v + (g + λ·w)`, `w ← w − ε·v`.
///
/// Slopes and biases do not decay: decay would push slopes towards ReLU (He et al. 2015, section 2.1, Eq. 4).
#[derive(Debug, Clone)]
pub struct Sgd {
    momentum: f32,
    weight_decay: f32,
    /// One buffer a parameter, of its length.
    velocity: Vec<Buffer>,
}

impl Sgd {
    /// At rest.
    pub fn new(training: &Training, parameters: &Parameters) -> Sgd {
        Sgd { momentum: training.momentum, weight_decay: training.weight_decay, velocity: parameters.zeros_like() }
    }

    /// The momentum buffers, one a parameter.
    pub fn velocity(&self) -> &[Buffer] {
        &self.velocity
    }

    /// The momentum buffers, to overwrite.
    pub fn velocity_mut(&mut self) -> &mut [Buffer] {
        &mut self.velocity
    }

    /// One step's descent at a learning rate: what [`Net::descend`](crate::nn::Net::descend) does with the gradients.
    pub fn descent<'a>(&'a mut self, parameters: &'a mut Parameters, lr: f32) -> Descent<'a> {
        let others = Rates { lr, momentum: self.momentum, weight_decay: 0.0 };
        let weights = Rates { weight_decay: self.weight_decay, ..others };
        Descent { parameters, velocity: &mut self.velocity, weights, others }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use crate::nn::Role;
    use rectify_kernels::Isa;

    #[test]
    fn weights_decay_and_slopes_and_biases_do_not() {
        let model = Model::built_in("shapes-small").unwrap();
        let mut parameters = Parameters::initial(&model, 1).unwrap();
        parameters.iter_mut().for_each(|p| p.value.fill(1.0));
        let mut sgd = Sgd::new(&Training { weight_decay: 0.5, momentum: 0.5, ..Training::default() }, &parameters);
        for _ in 0..2 {
            let mut descent = sgd.descent(&mut parameters, 0.5);
            for place in 0..descent.parameters.len() {
                let zeros = vec![0.0; descent.parameters[place].value.len()];
                descent.apply(Isa::Portable, place, &zeros).unwrap();
            }
        }
        for p in parameters.iter() {
            // 1 − 0.5·0.5 = 0.75; then v = 0.25 + 0.375, w = 0.75 − 0.3125.
            let want = if p.role == Role::Weight { 0.4375 } else { 1.0 };
            assert!(p.value.iter().all(|&w| w == want), "{}", p.name);
        }
    }
}
