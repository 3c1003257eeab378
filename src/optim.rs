//! Stochastic gradient descent with momentum.

use crate::model::Training;
use crate::nn::{Parameters, Role};
use rectify_kernels::{Buffer, Error, Isa, elementwise};

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

    /// One step against the gradients.
    ///
    /// # Errors
    /// Gradients of other lengths than the parameters; a learning rate that is not finite.
    pub fn step(&mut self, isa: Isa, parameters: &mut Parameters, gradients: &[Buffer], lr: f32) -> Result<(), Error> {
        let (got, want) = (gradients.len(), parameters.len());
        if got != want || self.velocity.len() != want {
            return Err(Error::Length { what: "gradients", got, want });
        }
        for ((p, gradient), velocity) in parameters.iter_mut().zip(gradients).zip(&mut self.velocity) {
            let decay = if p.role == Role::Weight { self.weight_decay } else { 0.0 };
            elementwise::sgd_step(isa, &mut p.value, gradient, velocity, lr, self.momentum, decay)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;

    #[test]
    fn weights_decay_and_slopes_and_biases_do_not() {
        let model = Model::built_in("shapes-small").unwrap();
        let mut parameters = Parameters::initial(&model, 1).unwrap();
        parameters.iter_mut().for_each(|p| p.value.fill(1.0));
        let mut sgd = Sgd::new(&Training { weight_decay: 0.5, momentum: 0.5, ..Training::default() }, &parameters);
        let gradients = parameters.zeros_like();
        sgd.step(Isa::Portable, &mut parameters, &gradients, 0.5).unwrap();
        sgd.step(Isa::Portable, &mut parameters, &gradients, 0.5).unwrap();
        for p in parameters.iter() {
            // 1 − 0.5·0.5 = 0.75; then v = 0.25 + 0.375, w = 0.75 − 0.3125.
            let want = if p.role == Role::Weight { 0.4375 } else { 1.0 };
            assert!(p.value.iter().all(|&w| w == want), "{}", p.name);
        }
    }
}
