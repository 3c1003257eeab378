//! Analytic gradients against central differences in `f64`: of the reference operations here, of whole nets in
//! gradients/.
//!
//! Each operation but the loss is linear in what is moved, as long as no pre-activation changes its sign and no maximum
//! changes hands, so a difference quotient is exact but for rounding. For `f = Σ g·y` whose evaluation has `n`
//! roundings on the way from an input to `f`, each of the two values is off by at most `γ(n)·F`, with `F` the sum of
//! the terms' magnitudes; so is the analytic gradient, times the step `h`. Hence the bound `2·γ(n)·F/h`.

use rectify_kernels::pool::PoolShape;
use rectify_kernels::{ConvShape, Dims, reference};

#[path = "gradients/net.rs"]
mod net;
#[path = "gradients/walk.rs"]
mod walk;

/// The relative error that `n` roundings can add up to, with unit roundoff `u` (Higham, "Accuracy and Stability of
/// Numerical Algorithms", section 3.1).
fn gamma(n: usize, u: f64) -> f64 {
    n as f64 * u / (1.0 - n as f64 * u)
}

/// Unit roundoff of `f64`.
const U64: f64 = f64::EPSILON / 2.0;

/// Multiples of 2⁻²³ between −1 and 1, so that steps of a power of two are exact.
fn numbers(stream: u64, len: usize) -> Vec<f64> {
    let mut rng = rectify::rng::Rng::new(7, 100 + stream);
    (0..len).map(|_| f64::from(rng.uniform()) * 2.0 - 1.0).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn abs(x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| x.abs()).collect()
}

fn moved(x: &[f64], i: usize, by: f64) -> Vec<f64> {
    let mut x = x.to_vec();
    x[i] += by;
    x
}

/// Compares a gradient with the differences of `f` at `x`; elements for which `smooth` does not hold are left out, but
/// few of them. A gradient that is mostly zero fails: it proves nothing.
fn compare(
    what: &str,
    gradient: &[f64],
    x: &[f64],
    (h, bound): (f64, f64),
    f: impl Fn(&[f64]) -> f64,
    smooth: impl Fn(&[f64], &[f64]) -> bool,
) {
    assert_eq!(gradient.len(), x.len(), "{what}");
    let mut skipped = 0;
    for (i, g) in gradient.iter().enumerate() {
        let (up, down) = (moved(x, i, h), moved(x, i, -h));
        if !smooth(&up, &down) {
            skipped += 1;
            continue;
        }
        let want = (f(&up) - f(&down)) / (2.0 * h);
        assert!((g - want).abs() <= bound, "{what}[{i}]: {g}, not {want}; {bound:e} allowed");
    }
    assert!(50 * skipped <= x.len(), "{what}: {skipped} of {} skipped", x.len());
    let large = gradient.iter().filter(|g| g.abs() > 1e3 * bound).count();
    assert!(4 * large > gradient.len(), "{what}: {large} of {} are far from zero", gradient.len());
}

fn always(_: &[f64], _: &[f64]) -> bool {
    true
}

fn shapes() -> Vec<ConvShape> {
    let square = ConvShape::square;
    vec![
        square(2, 3, 6, 5, 3, 1, 1),
        square(9, 2, 5, 3, 2, 2, 0),
        square(1, 18, 4, 17, 3, 1, 1),
        ConvShape { groups: 3, ih: 7, ..square(2, 6, 5, 9, 3, 2, 1) },
        ConvShape { groups: 5, ..square(2, 5, 6, 10, 3, 1, 1) },
        ConvShape { dilation_h: 2, dilation_w: 3, kh: 2, pad_top: 3, pad_left: 0, ..square(2, 3, 7, 4, 3, 1, 1) },
        // A fully connected layer is a convolution of one pixel.
        square(7, 40, 1, 11, 1, 1, 0),
    ]
}

#[test]
fn convolution_and_fully_connected() {
    use reference::conv::{backward_data, backward_weights, forward};
    for s in shapes() {
        let (input, output) = (s.input().plain_len(), s.output().plain_len());
        let (x, w, g) = (numbers(1, input), numbers(2, s.weight_len()), numbers(3, output));
        let h = 1.0;
        // A product and at most as many additions as there are terms, in `y` and in the sum over `y`; both backward
        // passes have fewer.
        let terms = s.group_ic() * s.kh * s.kw + output + 2;
        let size = |x: &[f64], w: &[f64]| dot(&abs(&g), &forward(&s, &abs(x), &abs(w)).unwrap());
        let larger = |x: &[f64]| x.iter().map(|x| x.abs() + h).collect::<Vec<f64>>();

        let bound = 2.0 * gamma(terms, U64) * size(&larger(&x), &w) / h;
        let dx = backward_data(&s, &g, &w).unwrap();
        let f = |x: &[f64]| dot(&g, &forward(&s, x, &w).unwrap());
        compare(&format!("dx of {s:?}"), &dx, &x, (h, bound), f, always);

        let bound = 2.0 * gamma(terms, U64) * size(&x, &larger(&w)) / h;
        let dw = backward_weights(&s, &x, &g).unwrap();
        let f = |w: &[f64]| dot(&g, &forward(&s, &x, w).unwrap());
        compare(&format!("dw of {s:?}"), &dw, &w, (h, bound), f, always);

        let (y, bias) = (forward(&s, &x, &w).unwrap(), numbers(4, s.oc));
        let channel = |i: usize| i / s.output().plane() % s.oc;
        let with = |bias: &[f64]| y.iter().enumerate().map(|(i, y)| y + bias[channel(i)]).collect::<Vec<f64>>();
        let size = g.iter().enumerate().map(|(i, g)| g.abs() * (y[i].abs() + bias[channel(i)].abs() + h)).sum::<f64>();
        let bound = 2.0 * gamma(output + 2, U64) * size / h;
        let db = reference::prelu::bias_gradient(&s.output(), &g).unwrap();
        compare(&format!("db of {s:?}"), &db, &bias, (h, bound), |bias| dot(&g, &with(bias)), always);
    }
}

/// He et al. 2015, Eq. 2 and 3: `∂E/∂a_c = Σ ∂E/∂f·min(0, y)`, and `∂E/∂y = ∂E/∂f` or `a_c·∂E/∂f`.
#[test]
fn prelu() {
    use reference::prelu::{backward, forward};
    let d = Dims { n: 9, c: 6, h: 3, w: 5 };
    let (y, g) = (numbers(1, d.plain_len()), numbers(2, d.plain_len()));
    for slopes in [numbers(3, d.c), vec![0.25], vec![-0.5], vec![1.5]] {
        let got = backward(&d, &y, &slopes, &g).unwrap();
        let h = 1.0 / 1024.0;
        // Of the larger of both branches, with the step in `y` and in the slope.
        let steepest = slopes.iter().fold(1.0, |most: f64, a| most.max(a.abs() + h));
        let size = steepest * g.iter().zip(&y).map(|(g, y)| g.abs() * (y.abs() + h)).sum::<f64>();
        let bound = 2.0 * gamma(d.plain_len() + 3, U64) * size / h;
        let f = |y: &[f64]| dot(&g, &forward(&d, y, &slopes).unwrap());
        let smooth = |up: &[f64], down: &[f64]| up.iter().zip(down).all(|(a, b)| (*a > 0.0) == (*b > 0.0));
        compare(&format!("dy with {slopes:?}"), &got.dx, &y, (h, bound), f, smooth);
        let f = |slopes: &[f64]| dot(&g, &forward(&d, &y, slopes).unwrap());
        compare(&format!("da at {slopes:?}"), &got.dslopes, &slopes, (h, bound), f, always);
    }
}

#[test]
fn pooling() {
    use reference::pool::{average_backward, average_forward, max_backward, max_forward};
    let d = Dims { n: 2, c: 3, h: 7, w: 6 };
    let padded = PoolShape { pad_top: 1, pad_right: 2, ..PoolShape::square(d, 3, 2) };
    for s in [PoolShape::square(d, 2, 2), PoolShape::square(d, 3, 1), padded, PoolShape::global(d)] {
        let (x, g) = (numbers(1, d.plain_len()), numbers(2, s.output().plain_len()));
        let h = 1.0 / 65536.0;
        let terms = s.kh * s.kw + g.len() + 2;
        // A mean and a maximum are at most 1 + h.
        let bound = 2.0 * gamma(terms, U64) * abs(&g).iter().sum::<f64>() * (1.0 + h) / h;
        let winners = |x: &[f64]| max_forward(&s, x).unwrap().1;
        let dx = max_backward(&s, &winners(&x), &g).unwrap();
        let f = |x: &[f64]| dot(&g, &max_forward(&s, x).unwrap().0);
        // Most pixels win nothing where a window is the image: those that do are looked at.
        let owners: Vec<usize> = (0..x.len()).filter(|&i| dx[i] != 0.0).collect();
        let put = |v: &[f64]| owners.iter().zip(v).fold(x.clone(), |x, (&i, &v)| moved(&x, i, v - x[i]));
        let (some, at): (Vec<f64>, Vec<f64>) = owners.iter().map(|&i| (dx[i], x[i])).unzip();
        let same = |up: &[f64], down: &[f64]| winners(&put(up)) == winners(&put(down));
        compare(&format!("max dx of {s:?}"), &some, &at, (h, bound), |v| f(&put(v)), same);
        for i in (0..x.len()).filter(|i| dx[*i] == 0.0) {
            assert_eq!(f(&moved(&x, i, h)), f(&moved(&x, i, -h)), "{s:?}: pixel {i} wins nothing");
        }

        let dx = average_backward(&s, &g).unwrap();
        let f = |x: &[f64]| dot(&g, &average_forward(&s, x).unwrap());
        compare(&format!("average dx of {s:?}"), &dx, &x, (h, bound), f, always);
    }
}

/// The third derivative of `ln Σ exp z` by one logit is `p(1−p)(1−2p)`, below 0.1: so much a difference is off, times
/// `h²/6`.
#[test]
fn softmax_with_cross_entropy() {
    let (classes, labels) = (7, [0, 6, 3, 3, 1]);
    let z: Vec<f64> = numbers(1, classes * labels.len()).iter().map(|z| 4.0 * z).collect();
    let loss = |z: &[f64]| reference::loss::softmax_cross_entropy(classes, z, &labels).unwrap();
    let n = labels.len() as f64;
    let h = 1.0 / 131072.0;
    // Exponentials and logarithms are off by an ulp, two roundings; a sample's loss is below ln 7 + 8.
    let rounding = 2.0 * gamma(classes + labels.len() + 8, U64) * 10.0 / h;
    let bound = h * h / 6.0 * 0.1 / n + rounding;
    compare("dz", &loss(&z).1, &z, (h, bound), |z| loss(z).0.loss / n, always);
}
