//! Stochastic gradient descent with momentum.

use crate::model::Training;
use crate::nn::{Descent, Parameters};
use rectify_kernels::{Buffer, elementwise::Rates};

/// SGD with momentum and weight decay, as PyTorch writes it: `v ← μ·v + (g + λ·w)`, `w ← w − ε·v`.
///
/// Slopes and biases do not decay: decay would push slopes towards ReLU (He et al. 2015, section 2.1, Eq. 4). Slopes
/// have a rate of their own: `ε` times [`Training::slope_lr`]. In Eq. 4, `Δa ← μ·Δa + ε·∂E/∂a`, the rate stands inside
/// the momentum: the two are one while it stays, and where it falls it falls here for what is under way, too.
#[derive(Debug, Clone)]
pub struct Sgd {
    momentum: f32,
    weight_decay: f32,
    slope_lr: f32,
    /// One buffer a parameter, of its length.
    velocity: Vec<Buffer>,
}

impl Sgd {
    /// At rest.
    pub fn new(training: &Training, parameters: &Parameters) -> Sgd {
        let Training { momentum, weight_decay, slope_lr, .. } = *training;
        Sgd { momentum, weight_decay, slope_lr, velocity: parameters.zeros_like() }
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
        let slopes = Rates { lr: lr * self.slope_lr, ..others };
        Descent { parameters, velocity: &mut self.velocity, weights, slopes, others }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use crate::nn::Role;
    use crate::rng::Rng;
    use rectify_kernels::{Isa, elementwise::sgd_step};

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

    /// Eq. 4 with a rate of their own; 1 is that of all, bit for bit.
    #[test]
    fn slopes_have_a_rate_of_their_own_and_nothing_else_has() {
        let model = Model::built_in("shapes-small").unwrap();
        let start = Parameters::initial(&model, 1).unwrap();
        for slope_lr in [1.0, 0.0, 0.3, 4.0] {
            let training = Training { slope_lr, ..Training::default() };
            let (mut parameters, mut sgd) = (start.clone(), Sgd::new(&training, &start));
            let (mut want, mut velocity) = (start.clone(), start.zeros_like());
            let mut rng = Rng::new(1, 99);
            for lr in [0.1, 0.07, 0.01] {
                let mut descent = sgd.descent(&mut parameters, lr);
                for (place, (p, velocity)) in want.iter_mut().zip(&mut velocity).enumerate() {
                    let gradient: Vec<f32> = p.value.iter().map(|_| rng.normal()).collect();
                    descent.apply(Isa::Portable, place, &gradient).unwrap();
                    let weight_decay = if p.role == Role::Weight { training.weight_decay } else { 0.0 };
                    let lr = if p.role == Role::Slopes && slope_lr != 1.0 { lr * slope_lr } else { lr };
                    let rates = Rates { lr, momentum: training.momentum, weight_decay };
                    sgd_step(Isa::Portable, &mut p.value, &gradient, velocity, rates).unwrap();
                }
            }
            for ((got, want), start) in parameters.iter().zip(want.iter()).zip(start.iter()) {
                assert!(
                    got.value.iter().map(|v| v.to_bits()).eq(want.value.iter().map(|v| v.to_bits())),
                    "{}",
                    got.name
                );
                let still = got.value[..] == start.value[..];
                assert_eq!(still, got.role == Role::Slopes && slope_lr == 0.0, "{}", got.name);
            }
        }
    }
}
