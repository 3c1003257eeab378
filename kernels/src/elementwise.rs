//! Operations on each element alone: the optimiser's step and addition.

use crate::error::check_len;
use crate::task::{ELEMENTS, pixels, pixels_mut};
use crate::{Error, Isa, Kernel, Simd};
use rayon::prelude::*;

/// The hyper-parameters of a step of [`sgd_step`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Learning rate.
    pub lr: f32,
    /// Momentum.
    pub momentum: f32,
    /// Weight decay.
    pub weight_decay: f32,
}

impl Rates {
    /// Refuses what is not finite.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let Rates { lr, momentum, weight_decay } = *self;
        for (what, value) in [("learning rate", lr), ("momentum", momentum), ("weight decay", weight_decay)] {
            if !value.is_finite() {
                return Err(Error::Value { what, value: value.to_string(), why: "is not finite" });
            }
        }
        Ok(())
    }

    /// New weights and velocities from old ones and the gradients.
    #[inline(always)]
    pub(crate) fn step<S: Simd>(self, s: S, w: S::V, gradient: S::V, velocity: S::V) -> (S::V, S::V) {
        let decayed = s.fma(s.splat(self.weight_decay), w, gradient);
        let v = s.fma(s.splat(self.momentum), velocity, decayed);
        (s.fma(s.splat(-self.lr), v, w), v)
    }
}

struct Sgd<'a> {
    w: &'a mut [f32],
    grad: &'a [f32],
    velocity: &'a mut [f32],
    rates: Rates,
}

impl Kernel for Sgd<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Rates { lr, momentum, weight_decay } = self.rates;
        let (w, w_rest) = self.w.as_chunks_mut();
        let (grad, grad_rest) = self.grad.as_chunks();
        let (velocity, velocity_rest) = self.velocity.as_chunks_mut();
        for ((w, grad), velocity) in w.iter_mut().zip(grad).zip(velocity) {
            let (new_w, new_velocity) = self.rates.step(s, s.vector(w), s.vector(grad), s.vector(velocity));
            s.write(velocity, new_velocity);
            s.write(w, new_w);
        }
        for ((w, grad), velocity) in w_rest.iter_mut().zip(grad_rest).zip(velocity_rest) {
            *velocity = momentum.mul_add(*velocity, weight_decay.mul_add(*w, *grad));
            *w = (-lr).mul_add(*velocity, *w);
        }
    }
}

/// One step of stochastic gradient descent with momentum and weight decay, in PyTorch's form:
/// `v = μ·v + (g + λ·w)`, then `w = w − lr·v`; each line's products and sums are fused multiply-adds, innermost
/// `fma(λ, w, g)`, then `fma(μ, v, ·)`, then `fma(−lr, v, w)`.
///
/// # Errors
/// Slices of different lengths, a rate that is not finite.
pub fn sgd_step(isa: Isa, w: &mut [f32], grad: &[f32], velocity: &mut [f32], rates: Rates) -> Result<(), Error> {
    check_len("gradient", grad.len(), w.len())?;
    check_len("velocity", velocity.len(), w.len())?;
    rates.check()?;
    let tasks = w.par_chunks_mut(ELEMENTS).zip(grad.par_chunks(ELEMENTS)).zip(velocity.par_chunks_mut(ELEMENTS));
    tasks.for_each(|((w, grad), velocity)| isa.dispatch(Sgd { w, grad, velocity, rates }));
    Ok(())
}

struct Add<'a> {
    y: &'a mut [f32],
    x: &'a [f32],
}

impl Kernel for Add<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let whole = self.y.len() / crate::LANES * crate::LANES;
        let ((y, y_rest), (x, x_rest)) = (self.y.split_at_mut(whole), self.x.split_at(whole));
        for (y, x) in pixels_mut(y).iter_mut().zip(pixels(x)) {
            let sum = s.add(s.vector(y), s.vector(x));
            s.write(y, sum);
        }
        y_rest.iter_mut().zip(x_rest).for_each(|(y, x)| *y += x);
    }
}

/// `y = y + x`.
///
/// # Errors
/// Slices of different lengths.
pub fn add_in_place(isa: Isa, y: &mut [f32], x: &[f32]) -> Result<(), Error> {
    check_len("x", x.len(), y.len())?;
    let tasks = y.par_chunks_mut(ELEMENTS).zip(x.par_chunks(ELEMENTS));
    tasks.for_each(|(y, x)| isa.dispatch(Add { y, x }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{everywhere, numbers, same_bits};

    #[test]
    fn bits_are_the_documented_operations() {
        for (len, special) in
            [(0, false), (1, false), (15, true), (16, true), (17, true), (40_001, false), (40_001, true)]
        {
            let (w, g, v) = (numbers(1, len, special), numbers(2, len, special), numbers(3, len, special));
            let (lr, mu, lambda) = (0.1f32, 0.9f32, 5e-4f32);
            let step = |i: usize| {
                let v = mu.mul_add(v[i], lambda.mul_add(w[i], g[i]));
                ((-lr).mul_add(v, w[i]), v)
            };
            let (want_w, want_v): (Vec<f32>, Vec<f32>) = (0..len).map(step).unzip();
            let sum: Vec<f32> = w.iter().zip(&g).map(|(a, b)| a + b).collect();
            everywhere(|isa| {
                let (mut w1, mut v1) = (w.clone(), v.clone());
                let rates = Rates { lr, momentum: mu, weight_decay: lambda };
                sgd_step(isa, &mut w1, &g, &mut v1, rates).unwrap();
                same_bits(&w1, &want_w)?;
                same_bits(&v1, &want_v)?;
                w1.copy_from_slice(&w);
                add_in_place(isa, &mut w1, &g).unwrap();
                same_bits(&w1, &sum)
            })
            .unwrap();
        }
    }

    #[test]
    fn bad_input_is_refused() {
        let good = Rates { lr: 0.1, momentum: 0.9, weight_decay: 0.0 };
        let e = sgd_step(Isa::Portable, &mut [0.0], &[0.0], &mut [0.0], Rates { lr: f32::NAN, ..good });
        assert!(matches!(e, Err(Error::Value { what: "learning rate", .. })));
        let e = sgd_step(Isa::Portable, &mut [0.0], &[0.0; 2], &mut [0.0], good);
        assert_eq!(e, Err(Error::Length { what: "gradient", got: 2, want: 1 }));
        assert!(add_in_place(Isa::Portable, &mut [0.0], &[]).is_err());
    }
}
