//! Comparing results with the naive reference.
//!
//! A channel of the output (of the gradient) is a convolution of its own, with the same sums in the same order, so a
//! sample of channels is checked in full where all of them would take too long.

use super::tensors::{channel, padding_is_zero};
use num_traits::Float;
use rayon::prelude::*;
use rectify_kernels::reference::{self, winograd::Variant};
use rectify_kernels::{ConvShape, Error};
use std::collections::BTreeSet;

/// FMAs that the reference may spend in either precision; a problem with more is sampled.
const BUDGET: usize = 1 << 26;
/// Channels that are checked at least.
const LEAST: usize = 4;
/// The error relative to the largest output that is accepted: well above what chains of 512 products give, well below
/// what a wrong index does.
pub(super) const TOLERANCE: f64 = 2e-5;
/// The same for sums over all pixels of a channel, whose chains are longer.
pub(super) const SUM_TOLERANCE: f64 = 1e-4;

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Verdict {
    pub max_rel_err: Option<f64>,
    pub exact: Option<bool>,
    /// Why it fails.
    pub failure: Option<String>,
}

/// Bias and slopes that a forward pass has applied.
pub(super) struct Epilogued<'a> {
    pub bias: &'a [f32],
    pub slopes: &'a [f32],
}

/// Checks `y`, blocked, against the reference with bias and PReLU.
pub(super) fn forward(
    s: &ConvShape,
    variant: Option<Variant>,
    x: &[f32],
    w: &[f32],
    e: &Epilogued<'_>,
    y: &[f32],
) -> Result<Verdict, Error> {
    let (icg, ocg, d) = (s.group_ic(), s.group_oc(), s.output());
    let taps = icg * s.kh * s.kw;
    let one = ConvShape { n: 1, groups: 1, ic: icg, oc: 1, ..*s };
    let parts = sample(s.n * s.oc, d.plane() * taps).into_par_iter().map(|at| {
        let (n, oc) = (at / s.oc, at % s.oc);
        let x: Vec<f32> = (0..icg).flat_map(|i| channel(&s.input(), x, n, oc / ocg * icg + i)).collect();
        let w = &w[oc * taps..][..taps];
        let slope = if e.slopes.len() == 1 { e.slopes[0] } else { e.slopes[oc] };
        fn activate<T: Float>(y: Vec<T>, bias: T, slope: T) -> Vec<T> {
            y.into_iter().map(|y| y + bias).map(|y| if y > T::zero() { y } else { slope * y }).collect()
        }
        Ok(Part {
            got: channel(&d, y, n, oc).collect(),
            single: activate(single(variant, &one, &x, w)?, e.bias[oc], slope),
            double: activate(
                reference::conv::forward(&one, &wide(&x), &wide(w))?,
                f64::from(e.bias[oc]),
                f64::from(slope),
            ),
        })
    });
    Ok(Tally::of(parts)?.verdict(TOLERANCE).and(padding_is_zero(&d, y), "a padding lane of the output is not zero"))
}

/// The reference's forward convolution in the order of the algorithm.
fn single(variant: Option<Variant>, s: &ConvShape, x: &[f32], w: &[f32]) -> Result<Vec<f32>, Error> {
    match variant {
        None => reference::conv::forward(s, x, w),
        Some(variant) => reference::winograd::forward(variant, s, x, w, &vec![0.0; s.ic]),
    }
}

/// Checks `dx`, blocked.
pub(super) fn backward_data(
    s: &ConvShape,
    variant: Option<Variant>,
    dy: &[f32],
    w: &[f32],
    dx: &[f32],
) -> Result<Verdict, Error> {
    let (icg, ocg, d, taps) = (s.group_ic(), s.group_oc(), s.input(), s.kh * s.kw);
    let one = ConvShape { n: 1, groups: 1, ic: 1, oc: ocg, ..*s };
    let parts = sample(s.n * s.ic, s.output().plane() * ocg * taps).into_par_iter().map(|at| {
        let (n, ic) = (at / s.ic, at % s.ic);
        let outputs = ic / icg * ocg..(ic / icg + 1) * ocg;
        let dy: Vec<f32> = outputs.clone().flat_map(|oc| channel(&s.output(), dy, n, oc)).collect();
        let w: Vec<f32> = outputs.flat_map(|oc| &w[(oc * icg + ic % icg) * taps..][..taps]).copied().collect();
        Ok(Part {
            got: channel(&d, dx, n, ic).collect(),
            single: match variant {
                None => reference::conv::backward_data(&one, &dy, &w)?,
                Some(variant) => reference::winograd::backward_data(variant, &one, &dy, &w)?,
            },
            double: reference::conv::backward_data(&one, &wide(&dy), &wide(&w))?,
        })
    });
    Ok(Tally::of(parts)?.verdict(TOLERANCE).and(padding_is_zero(&d, dx), "a padding lane of the gradient is not zero"))
}

/// Checks `dw`, OIHW.
pub(super) fn backward_weights(
    s: &ConvShape,
    variant: Option<Variant>,
    x: &[f32],
    dy: &[f32],
    dw: &[f32],
) -> Result<Verdict, Error> {
    let (icg, ocg, taps) = (s.group_ic(), s.group_oc(), s.kh * s.kw);
    let one = ConvShape { groups: 1, ic: 1, oc: 1, ..*s };
    let parts = sample(s.oc * icg, s.n * s.output().plane() * taps).into_par_iter().map(|at| {
        let (oc, i) = (at / icg, at % icg);
        let x: Vec<f32> = (0..s.n).flat_map(|n| channel(&s.input(), x, n, oc / ocg * icg + i)).collect();
        let dy: Vec<f32> = (0..s.n).flat_map(|n| channel(&s.output(), dy, n, oc)).collect();
        Ok(Part {
            got: dw[at * taps..][..taps].to_vec(),
            single: match variant {
                None => reference::conv::backward_weights(&one, &x, &dy)?,
                Some(variant) => reference::winograd::backward_weights(variant, &one, &x, &dy)?,
            },
            double: reference::conv::backward_weights(&one, &wide(&x), &wide(&dy))?,
        })
    });
    Ok(Tally::of(parts)?.verdict(TOLERANCE))
}

/// Some of `0..total`, at `cost` FMAs each: all that the budget allows, spread over the range by the golden ratio, the
/// first and the last among them.
fn sample(total: usize, cost: usize) -> Vec<usize> {
    let count = (BUDGET / cost.max(1)).max(LEAST);
    if count >= total {
        return (0..total).collect();
    }
    let spread = (0..count as u64 - 1).map(|i| {
        let fraction = i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((u128::from(fraction) * total as u128) >> 64) as usize
    });
    spread.chain([total - 1]).collect::<BTreeSet<_>>().into_iter().collect()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// A result and what the reference says, in both precisions.
pub(super) struct Part {
    pub got: Vec<f32>,
    pub single: Vec<f32>,
    pub double: Vec<f64>,
}

/// What many parts come to; combining is exact, so that its order does not matter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tally {
    error: f64,
    largest: f64,
    differing: usize,
    nonzero: usize,
    count: usize,
}

impl Tally {
    pub const EMPTY: Tally = Tally { error: 0.0, largest: 0.0, differing: 0, nonzero: 0, count: 0 };

    pub fn of(parts: impl ParallelIterator<Item = Result<Part, Error>>) -> Result<Tally, Error> {
        parts.map(|part| part.map(|p| Tally::one(&p))).try_reduce(|| Tally::EMPTY, |a, b| Ok(a.and(&b)))
    }

    pub fn one(part: &Part) -> Tally {
        let mut tally = Tally::EMPTY;
        for ((&got, &single), &double) in part.got.iter().zip(&part.single).zip(&part.double) {
            // A NaN in either is an infinite error: `max` would lose it.
            let error = (f64::from(got) - double).abs();
            tally.error = tally.error.max(if error.is_nan() { f64::INFINITY } else { error });
            tally.largest = tally.largest.max(double.abs());
            tally.differing += usize::from(got.to_bits() != single.to_bits());
            tally.nonzero += usize::from(got != 0.0);
            tally.count += 1;
        }
        tally
    }

    pub fn and(&self, other: &Tally) -> Tally {
        Tally {
            error: self.error.max(other.error),
            largest: self.largest.max(other.largest),
            differing: self.differing + other.differing,
            nonzero: self.nonzero + other.nonzero,
            count: self.count + other.count,
        }
    }

    pub fn verdict(&self, tolerance: f64) -> Verdict {
        let error = if self.error == 0.0 { 0.0 } else { self.error / self.largest };
        let verdict = Verdict { max_rel_err: Some(error), exact: Some(self.differing == 0), failure: None };
        verdict
            .and(self.nonzero > 0, "all outputs that were compared are zero, which proves nothing")
            .and(error <= tolerance, &format!("the error {error:.1e} exceeds {tolerance:.0e} of the largest output"))
            .and(
                self.differing == 0,
                &format!("{} of {} outputs differ from the reference's bits", self.differing, self.count),
            )
    }
}

impl Verdict {
    /// Of two results: the larger error, and the first reason to fail.
    pub fn merge(self, other: Verdict) -> Verdict {
        Verdict {
            max_rel_err: self.max_rel_err.zip(other.max_rel_err).map(|(a, b)| a.max(b)),
            exact: self.exact.zip(other.exact).map(|(a, b)| a && b),
            failure: self.failure.or(other.failure),
        }
    }

    /// Fails for this reason, unless it holds or there is a reason already.
    pub fn and(mut self, holds: bool, why: &str) -> Verdict {
        if !holds && self.failure.is_none() {
            self.failure = Some(why.to_owned());
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::tensors::{Role, random, random_blocked};
    use super::*;
    use rectify_kernels::{Isa, conv};

    #[test]
    fn samples_cover_the_ends_and_stay_within_the_budget() {
        assert_eq!(sample(5, 1), [0, 1, 2, 3, 4]);
        assert_eq!(sample(3, usize::MAX), [0, 1, 2]);
        let some = sample(1000, BUDGET / 10);
        assert!(some.len() <= 10 && some.len() > 5, "{some:?}");
        assert_eq!((some[0], some[some.len() - 1]), (0, 999));
        let lanes: BTreeSet<usize> = some.iter().map(|at| at % 16).collect();
        assert!(lanes.len() > 4, "{lanes:?}");
    }

    /// Groups, a remainder of channels, unequal sides, strides and dilation.
    fn shape() -> ConvShape {
        ConvShape {
            groups: 2,
            ic: 36,
            oc: 6,
            pad_left: 2,
            stride_h: 2,
            dilation_w: 2,
            iw: 9,
            ..ConvShape::square(3, 36, 7, 6, 3, 1, 1)
        }
    }

    fn broken(found: Result<Verdict, Error>) -> String {
        found.unwrap().failure.expect("the check must fail")
    }

    #[test]
    fn forward_is_accepted_whole_and_refused_when_touched() {
        let (s, o) = (shape(), conv::Options::default());
        let (x, w) = (random_blocked(Role::Input, &s.input()), random(Role::Weights, s.weight_len()));
        let (bias, slopes) = (random(Role::Bias, s.oc), random(Role::Slopes, s.oc));
        let plan = conv::Forward::new(Isa::Portable, &s, &o).unwrap();
        let (mut packed, mut y) = (vec![0.0; plan.packed_len()], vec![0.0; s.output().blocked_len()]);
        plan.pack(&w, &mut packed).unwrap();
        let epilogue = conv::Epilogue::BiasPrelu { bias: &bias, slopes: &slopes };
        plan.run(&x, &packed, epilogue, &mut y, &mut vec![0.0; plan.workspace_len(1)]).unwrap();
        let e = Epilogued { bias: &bias, slopes: &slopes };
        let check = |y: &[f32]| forward(&s, None, &x, &w, &e, y);
        let found = check(&y).unwrap();
        assert_eq!((found.exact, &found.failure), (Some(true), &None));
        assert!(found.max_rel_err.unwrap() > 0.0 && found.max_rel_err.unwrap() < 1e-6, "{found:?}");
        assert!(broken(check(&vec![0.0; y.len()])).contains("are zero"));
        let last = y.len() - 16 + 5;
        for (at, to, why) in [
            (last, y[last].next_up(), "1 of"),
            (last, y[last] + 0.1, "exceeds"),
            (last, f32::NAN, "inf exceeds"),
            (last + 1, 1e-9, "padding lane"),
        ] {
            let mut y = y.clone();
            y[at] = to;
            assert!(broken(check(&y)).contains(why), "{why}: {}", broken(check(&y)));
        }
    }

    #[test]
    fn both_backward_passes_are_accepted_whole_and_refused_when_touched() {
        let (s, o) = (shape(), conv::Options::default());
        let (x, w) = (random_blocked(Role::Input, &s.input()), random(Role::Weights, s.weight_len()));
        let dy = random_blocked(Role::OutputGradient, &s.output());
        let plan = conv::BackwardData::new(Isa::Portable, &s, &o).unwrap();
        let (mut packed, mut dx) = (vec![0.0; plan.packed_len()], vec![0.0; s.input().blocked_len()]);
        plan.pack(&w, &mut packed).unwrap();
        plan.run(&dy, &packed, &mut dx, &mut vec![0.0; plan.workspace_len(1)]).unwrap();
        assert_eq!(backward_data(&s, None, &dy, &w, &dx).unwrap().failure, None);
        dx[16 + 3] = dx[16 + 3].next_down();
        assert!(broken(backward_data(&s, None, &dy, &w, &dx)).contains("1 of"));

        let plan = conv::BackwardWeights::new(Isa::Portable, &s, &o).unwrap();
        let mut dw = vec![0.0; s.weight_len()];
        plan.run(&x, &dy, &mut dw, &mut vec![0.0; plan.workspace_len(1)]).unwrap();
        assert_eq!(backward_weights(&s, None, &x, &dy, &dw).unwrap().failure, None);
        dw.swap(0, 1);
        assert!(broken(backward_weights(&s, None, &x, &dy, &dw)).contains("exceeds"));
    }
}
