//! PReLU alone, forward and backward, on a blocked tensor.

use super::check::{Part, SUM_TOLERANCE, TOLERANCE, Tally, Verdict};
use super::tensors::{Role, channel, padding_is_zero, random, random_blocked};
use super::{BenchError, Measured, Options, timing};
use num_traits::Float;
use rayon::prelude::*;
use rectify_kernels::reference::conv::{GROUP, tree_sum};
use rectify_kernels::{Buffer, Dims, elementwise, prelu};

/// `y = f(x)` into another tensor: a read and a write.
pub(super) fn forward(d: Dims, o: &Options) -> Result<Measured, BenchError> {
    let (x, slopes) = (random_blocked(Role::Input, &d), random(Role::Slopes, d.c));
    let mut y = Buffer::zeroed(d.blocked_len());
    prelu::forward(o.isa, d, &x, &slopes, &mut y)?;
    let verdict = o.check.then(|| check_forward(&d, &x, &slopes, &y));
    let timing = timing::measure(o.isa, o.seconds, || prelu::forward(o.isa, d, &x, &slopes, &mut y))?;
    Ok(measured(&d, o, verdict, 2, (timing.median_s, None)))
}

/// `dx` in place of `dy`, slope and bias gradients in the same pass: two reads and a write. By turns with the plain
/// addition of the same tensors, which reads and writes as much.
pub(super) fn backward(d: Dims, o: &Options) -> Result<Measured, BenchError> {
    let (pre, slopes) = (random_blocked(Role::Input, &d), random(Role::Slopes, d.c));
    let mut grad = random_blocked(Role::OutputGradient, &d);
    let dy = o.check.then(|| grad.clone());
    let (mut dslopes, mut dbias) = (vec![0.0; d.c], vec![0.0; d.c]);
    let mut workspace = Buffer::zeroed(prelu::workspace_len(d));
    let mut run = |slopes: &[f32], grad: &mut [f32], dslopes: &mut [f32], dbias: &mut [f32]| {
        prelu::backward(o.isa, d, &pre, slopes, grad, Some(dslopes), Some(dbias), &mut workspace)
    };
    run(&slopes, &mut grad, &mut dslopes, &mut dbias)?;
    let verdict =
        dy.map(|dy| check_backward(&d, &pre, &slopes, &dy, &Gradients { dx: &grad, dslopes: &dslopes, dbias: &dbias }));
    // Run after run in place, other slopes would shrink the gradient into subnormals, which are slow.
    let signs: Vec<f32> = (0..d.c).map(|c| if c % 2 == 0 { 1.0 } else { -1.0 }).collect();
    let [ours, plain] = timing::by_turns(o.seconds, |is_plain| match is_plain {
        false => run(&signs, &mut grad, &mut dslopes, &mut dbias),
        true => elementwise::add_in_place(o.isa, &mut grad, &pre),
    })?;
    Ok(measured(&d, o, verdict, 3, (ours, Some(plain))))
}

fn measured(
    d: &Dims,
    o: &Options,
    verdict: Option<Verdict>,
    passes: usize,
    (median_s, plain_s): (f64, Option<f64>),
) -> Measured {
    // Padding lanes move too, but serve nobody.
    let bytes = (passes * size_of::<f32>() * d.plain_len()) as f64;
    Measured { kernel: format!("prelu-{}", o.isa), median_s, plain_s, peak_gflops: None, bytes: Some(bytes), verdict }
}

/// Channel `c` of all images.
fn images<'a>(d: &'a Dims, x: &'a [f32], c: usize) -> impl Iterator<Item = f32> + use<'a> {
    (0..d.n).flat_map(move |n| channel(d, x, n, c))
}

/// PReLU (He et al. 2015, Eq. 1).
fn activate<T: Float>(y: T, slope: T) -> T {
    if y > T::zero() { y } else { slope * y }
}

fn check_forward(d: &Dims, x: &[f32], slopes: &[f32], y: &[f32]) -> Verdict {
    let parts = (0..d.c).into_par_iter().map(|c| Part {
        got: images(d, y, c).collect(),
        single: images(d, x, c).map(|x| activate(x, slopes[c])).collect(),
        double: images(d, x, c).map(|x| activate(f64::from(x), f64::from(slopes[c]))).collect(),
    });
    let verdict = parts.map(|p| Tally::one(&p)).reduce(|| Tally::EMPTY, |a, b| a.and(&b)).verdict(TOLERANCE);
    verdict.and(padding_is_zero(d, y), "a padding lane of the output is not zero")
}

/// What the backward pass gives.
struct Gradients<'a> {
    dx: &'a [f32],
    dslopes: &'a [f32],
    dbias: &'a [f32],
}

fn check_backward(d: &Dims, pre: &[f32], slopes: &[f32], dy: &[f32], got: &Gradients<'_>) -> Verdict {
    let tallies = (0..d.c).into_par_iter().map(|c| {
        let (pre, dy): (Vec<f32>, Vec<f32>) = (images(d, pre, c).collect(), images(d, dy, c).collect());
        let single = backward_channel(d.plane(), &pre, &dy, slopes[c]);
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let double = backward_channel(d.plane(), &wide(&pre), &wide(&dy), f64::from(slopes[c]));
        let sum = |got, single, double| Part { got: vec![got], single: vec![single], double: vec![double] };
        [
            Part { got: images(d, got.dx, c).collect(), single: single.dx, double: double.dx },
            sum(got.dslopes[c], single.slope, double.slope),
            sum(got.dbias[c], single.bias, double.bias),
        ]
        .map(|part| Tally::one(&part))
    });
    let and = |a: [Tally; 3], b: [Tally; 3]| std::array::from_fn(|i| a[i].and(&b[i]));
    let [dx, dslopes, dbias] = tallies.reduce(|| [Tally::EMPTY; 3], and);
    dx.verdict(TOLERANCE)
        .merge(dslopes.verdict(SUM_TOLERANCE))
        .merge(dbias.verdict(SUM_TOLERANCE))
        .and(padding_is_zero(d, got.dx), "a padding lane of the gradient is not zero")
}

struct ChannelGradients<T> {
    dx: Vec<T>,
    slope: T,
    bias: T,
}

/// The backward pass of a channel over all images, with the sums in the order of [`prelu`].
fn backward_channel<T: Float>(plane: usize, pre: &[T], dy: &[T], slope: T) -> ChannelGradients<T> {
    let dx: Vec<T> = pre.iter().zip(dy).map(|(&y, &dy)| if y > T::zero() { dy } else { slope * dy }).collect();
    let combine = |[a, b, c, d]: [T; prelu::ACCUMULATORS]| (a + b) + (c + d);
    let image = |n: usize| {
        let (mut slope, mut bias) = ([T::zero(); prelu::ACCUMULATORS], [T::zero(); prelu::ACCUMULATORS]);
        for p in 0..plane {
            let (at, k) = (n * plane + p, p % prelu::ACCUMULATORS);
            // NaN is not above zero either.
            let positive = pre[at] > T::zero();
            if !positive {
                slope[k] = dy[at].mul_add(pre[at], slope[k]);
            }
            bias[k] = bias[k] + dx[at];
        }
        (combine(slope), combine(bias))
    };
    let add = |a: (T, T), b: (T, T)| (a.0 + b.0, a.1 + b.1);
    let count = dx.len() / plane;
    let group = |first: usize| (first..count.min(first + GROUP)).map(image).fold((T::zero(), T::zero()), add);
    let sums = tree_sum((0..count).step_by(GROUP).map(group), add);
    let (slope, bias) = sums.unwrap_or((T::zero(), T::zero()));
    ChannelGradients { dx, slope, bias }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rectify_kernels::Isa;

    #[test]
    fn what_is_touched_is_refused() {
        let d = Dims { n: 10, c: 18, h: 3, w: 3 };
        let (x, slopes) = (random_blocked(Role::Input, &d), random(Role::Slopes, d.c));
        let mut y = vec![0.0; d.blocked_len()];
        prelu::forward(Isa::Portable, d, &x, &slopes, &mut y).unwrap();
        assert_eq!(check_forward(&d, &x, &slopes, &y).failure, None);
        y[17] = y[17].next_up();
        assert!(check_forward(&d, &x, &slopes, &y).failure.is_some());

        let dy = random_blocked(Role::OutputGradient, &d);
        let (mut dx, mut dslopes, mut dbias) = (dy.clone(), vec![0.0; d.c], vec![0.0; d.c]);
        let mut workspace = vec![0.0; prelu::workspace_len(d)];
        let (a, b) = (Some(&mut dslopes[..]), Some(&mut dbias[..]));
        prelu::backward(Isa::Portable, d, &x, &slopes, &mut dx, a, b, &mut workspace).unwrap();
        let check = |dx: &[f32], dslopes: &[f32], dbias: &[f32]| {
            check_backward(&d, &x, &slopes, &dy, &Gradients { dx, dslopes, dbias })
        };
        let found = check(&dx, &dslopes, &dbias);
        assert_eq!((found.exact, &found.failure), (Some(true), &None));
        let touched = |x: &[f32], at: usize| {
            let mut x = x.to_vec();
            x[at] = x[at].next_down();
            x
        };
        for found in [
            check(&touched(&dx, 3), &dslopes, &dbias),
            check(&dx, &touched(&dslopes, 17), &dbias),
            check(&dx, &dslopes, &touched(&dbias, 0)),
            check(&touched(&dx, d.blocked_len() - 1), &dslopes, &dbias),
        ] {
            assert!(found.failure.is_some());
        }
        assert_eq!(check(&dx, &dslopes, &touched(&dbias, 0)).exact, Some(false));
    }
}
