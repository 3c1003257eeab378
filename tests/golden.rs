//! The kernels against what PyTorch computes in `f64` (tests/golden/generate.py), on every instruction set.
//!
//! The bounds follow from the number of roundings alone: a sum of `n` products, in any order, is off by at most
//! `γ(n)·Σ|a·b|` (Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1).

use rectify_kernels::conv::{self, Epilogue, Options};
use rectify_kernels::pool::{self, PoolShape};
use rectify_kernels::{Buffer, ConvShape, Dims, Isa, elementwise, layout, linear, loss, prelu, reference};
use safetensors::SafeTensors;

/// Unit roundoff of `f32`.
const U: f64 = f32::EPSILON as f64 / 2.0;

/// The relative error that `n` roundings can add up to.
fn gamma(n: usize) -> f64 {
    n as f64 * U / (1.0 - n as f64 * U)
}

static FILE: &[u8] = include_bytes!("golden/values.safetensors");

/// The tensors of one case.
struct Case<'a> {
    file: &'a SafeTensors<'a>,
    name: String,
}

impl Case<'_> {
    fn bytes(&self, tensor: &str) -> &[u8] {
        let name = format!("{}.{tensor}", self.name);
        self.file.tensor(&name).unwrap_or_else(|e| panic!("{name}: {e}")).data()
    }
    /// An input.
    fn f32(&self, tensor: &str) -> Vec<f32> {
        self.bytes(tensor).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }
    /// A result.
    fn f64(&self, tensor: &str) -> Vec<f64> {
        self.bytes(tensor).as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
    }
    /// Sizes.
    fn sizes<const N: usize>(&self) -> [usize; N] {
        self.integers("shape").try_into().unwrap()
    }
    fn integers(&self, tensor: &str) -> Vec<usize> {
        self.bytes(tensor).as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as usize).collect()
    }
    /// Compares a result with PyTorch's; `bound` is the largest error of each element.
    fn check(&self, isa: Isa, tensor: &str, got: &[f32], bound: impl Fn(usize) -> f64) {
        let want = self.f64(tensor);
        assert_eq!(got.len(), want.len(), "{}.{tensor}", self.name);
        for (i, (&got, &want)) in got.iter().zip(&want).enumerate() {
            let (error, bound) = ((f64::from(got) - want).abs(), bound(i));
            assert!(
                error <= bound,
                "{}.{tensor}[{i}] on {isa}: {got}, not {want}: off by {error:e}, {bound:e} allowed",
                self.name
            );
        }
        assert!(8 * want.iter().filter(|&&v| v != 0.0).count() >= want.len(), "{}.{tensor}: mostly zeros", self.name);
    }
}

/// Runs a test on every case whose name starts so, on every instruction set of the machine.
fn each(prefix: &str, test: impl Fn(&Case, Isa)) {
    let file = SafeTensors::deserialize(FILE).unwrap();
    let mut names: Vec<String> = file.names().iter().filter_map(|n| Some(n.rsplit_once('.')?.0.to_owned())).collect();
    names.sort();
    names.dedup();
    names.retain(|n| n.starts_with(prefix));
    assert!(!names.is_empty(), "no case {prefix}");
    for name in names {
        let case = Case { file: &file, name };
        Isa::available().into_iter().for_each(|isa| test(&case, isa));
    }
}

fn blocked(isa: Isa, dims: Dims, x: &[f32]) -> Buffer {
    let mut y = Buffer::zeroed(dims.blocked_len());
    layout::nchw_to_blocked(isa, dims, x, &mut y).unwrap();
    y
}

fn plain(isa: Isa, dims: Dims, x: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; dims.plain_len()];
    layout::blocked_to_nchw(isa, dims, x, &mut y).unwrap();
    y
}

fn magnitudes(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v).abs()).collect()
}

fn largest(x: &[f32]) -> f64 {
    magnitudes(x).into_iter().fold(0.0, f64::max)
}

/// The bias gradient of `dy`, compared.
fn check_bias_gradient(case: &Case, isa: Isa, dims: Dims, dy: &[f32]) {
    let mut dbias = vec![f32::NAN; dims.c];
    let mut workspace = Buffer::zeroed(prelu::workspace_len(dims));
    prelu::bias_gradient(isa, dims, &blocked(isa, dims, dy), &mut dbias, &mut workspace).unwrap();
    let sum = |c: usize| -> f64 {
        let images = dy.chunks(dims.c * dims.plane());
        images.flat_map(|image| magnitudes(&image[c * dims.plane()..][..dims.plane()])).sum()
    };
    case.check(isa, "dbias", &dbias, |c| gamma(dims.n * dims.plane()) * sum(c));
}

#[test]
fn convolution() {
    each("conv.", |case, isa| {
        let [n, groups, ic, ih, iw, oc, kh, kw, stride_h, stride_w, pad_top, pad_bottom, pad_left, pad_right, dh, dw] =
            case.sizes();
        let s = ConvShape {
            n,
            groups,
            ic,
            ih,
            iw,
            oc,
            kh,
            kw,
            stride_h,
            stride_w,
            pad_top,
            pad_bottom,
            pad_left,
            pad_right,
            dilation_h: dh,
            dilation_w: dw,
        };
        let (x, w, bias, dy) = (case.f32("x"), case.f32("w"), case.f32("bias"), case.f32("dy"));
        let (ax, aw, ady) = (magnitudes(&x), magnitudes(&w), magnitudes(&dy));
        let (taps, options) = (s.kh * s.kw, Options::default());

        let plan = conv::Forward::new(isa, &s, &options).unwrap();
        let mut packed = Buffer::zeroed(plan.packed_len());
        plan.pack(&w, &mut packed).unwrap();
        let mut y = Buffer::zeroed(s.output().blocked_len());
        let mut workspace = Buffer::zeroed(plan.workspace_len(1));
        plan.run(&blocked(isa, s.input(), &x), &packed, Epilogue::Bias(&bias), &mut y, &mut workspace).unwrap();
        let sums = reference::conv::forward(&s, &ax, &aw).unwrap();
        let plane = s.output().plane();
        case.check(isa, "y", &plain(isa, s.output(), &y), |i| {
            gamma(s.group_ic() * taps + 1) * (sums[i] + f64::from(bias[i / plane % s.oc]).abs())
        });

        let plan = conv::BackwardData::new(isa, &s, &options).unwrap();
        let mut packed = Buffer::zeroed(plan.packed_len());
        plan.pack(&w, &mut packed).unwrap();
        let mut dx = Buffer::zeroed(s.input().blocked_len());
        let mut workspace = Buffer::zeroed(plan.workspace_len(1));
        plan.run(&blocked(isa, s.output(), &dy), &packed, &mut dx, &mut workspace).unwrap();
        let sums = reference::conv::backward_data(&s, &ady, &aw).unwrap();
        case.check(isa, "dx", &plain(isa, s.input(), &dx), |i| gamma(s.group_oc() * taps) * sums[i]);

        let plan = conv::BackwardWeights::new(isa, &s, &options).unwrap();
        let mut dw = vec![f32::NAN; s.weight_len()];
        let mut workspace = Buffer::zeroed(plan.workspace_len(1));
        plan.run(&blocked(isa, s.input(), &x), &blocked(isa, s.output(), &dy), &mut dw, &mut workspace).unwrap();
        let sums = reference::conv::backward_weights(&s, &ax, &ady).unwrap();
        case.check(isa, "dw", &dw, |i| gamma(s.n * plane) * sums[i]);
        check_bias_gradient(case, isa, s.output(), &dy);
    });
}

#[test]
fn fully_connected() {
    each("linear", |case, isa| {
        let [n, c, h, w, outputs] = case.sizes();
        let s = linear::LinearShape { n, c, h, w, outputs };
        let inputs = c * h * w;
        let (x, w, bias, dy) = (case.f32("x"), case.f32("w"), case.f32("bias"), case.f32("dy"));
        let sum = |terms: usize, a: &dyn Fn(usize) -> f32, b: &dyn Fn(usize) -> f32| -> f64 {
            (0..terms).map(|i| (f64::from(a(i)) * f64::from(b(i))).abs()).sum::<f64>() * gamma(terms)
        };

        let plan = linear::Forward::new(isa, &s).unwrap();
        let mut y = Buffer::zeroed(s.output().blocked_len());
        let mut workspace = Buffer::zeroed(plan.workspace_len(1));
        plan.run(&blocked(isa, s.input(), &x), &w, Epilogue::Bias(&bias), &mut y, &mut workspace).unwrap();
        case.check(isa, "y", &plain(isa, s.output(), &y), |i| {
            let (image, o) = (i / outputs, i % outputs);
            let a = |k: usize| if k < inputs { x[image * inputs + k] } else { 1.0 };
            let b = |k: usize| if k < inputs { w[o * inputs + k] } else { bias[o] };
            sum(inputs + 1, &a, &b)
        });

        let plan = linear::BackwardData::new(isa, &s).unwrap();
        let mut dx = Buffer::zeroed(s.input().blocked_len());
        let mut workspace = Buffer::zeroed(plan.workspace_len(1));
        plan.run(&blocked(isa, s.output(), &dy), &w, &mut dx, &mut workspace).unwrap();
        case.check(isa, "dx", &plain(isa, s.input(), &dx), |i| {
            sum(outputs, &|o| dy[i / inputs * outputs + o], &|o| w[o * inputs + i % inputs])
        });

        let plan = linear::BackwardWeights::new(isa, &s).unwrap();
        let mut dw = vec![f32::NAN; s.weight_len()];
        let mut workspace = Buffer::zeroed(plan.workspace_len(1));
        plan.run(&blocked(isa, s.input(), &x), &blocked(isa, s.output(), &dy), &mut dw, &mut workspace).unwrap();
        case.check(isa, "dw", &dw, |i| {
            sum(n, &|image| dy[image * outputs + i / inputs], &|image| x[image * inputs + i % inputs])
        });
        check_bias_gradient(case, isa, s.output(), &dy);
    });
}

#[test]
fn prelu_with_slope_gradient() {
    each("prelu.", |case, isa| {
        let [n, c, h, w] = case.sizes();
        let dims = Dims { n, c, h, w };
        let (x, slopes, dy) = (case.f32("x"), case.f32("slopes"), case.f32("dy"));
        let (wanted_y, wanted_dx) = (case.f64("y"), case.f64("dx"));
        let pre = blocked(isa, dims, &x);

        let mut y = Buffer::zeroed(dims.blocked_len());
        prelu::forward(isa, dims, &pre, &slopes, &mut y).unwrap();
        case.check(isa, "y", &plain(isa, dims, &y), |i| U * wanted_y[i].abs());

        let mut grad = blocked(isa, dims, &dy);
        let mut dslopes = vec![f32::NAN; slopes.len()];
        let mut workspace = Buffer::zeroed(prelu::workspace_len(dims));
        prelu::backward(isa, dims, &pre, &slopes, &mut grad, Some(&mut dslopes), None, &mut workspace).unwrap();
        case.check(isa, "dx", &plain(isa, dims, &grad), |i| U * wanted_dx[i].abs());
        let terms = dims.plain_len() / slopes.len();
        case.check(isa, "dslopes", &dslopes, |slope| {
            let shares = |i: usize| slopes.len() == 1 || i / dims.plane() % c == slope;
            let products = x.iter().zip(&dy).map(|(&x, &dy)| (f64::from(x.min(0.0)) * f64::from(dy)).abs());
            gamma(terms + 1) * products.enumerate().filter(|&(i, _)| shares(i)).map(|(_, p)| p).sum::<f64>()
        });
    });
}

#[test]
fn pooling() {
    each("pool.", |case, isa| {
        let [n, c, h, w, kh, kw, stride_h, stride_w, pad_top, pad_bottom, pad_left, pad_right] = case.sizes();
        let s = PoolShape { n, c, h, w, kh, kw, stride_h, stride_w, pad_top, pad_bottom, pad_left, pad_right };
        let (x, dy) = (case.f32("x"), case.f32("dy"));
        let (xb, dyb) = (blocked(isa, s.input(), &x), blocked(isa, s.output(), &dy));
        let mut y = Buffer::zeroed(s.output().blocked_len());
        let mut dx = Buffer::zeroed(s.input().blocked_len());
        let max = case.name.starts_with("pool.max");
        if max {
            let mut index = vec![0; y.len()];
            pool::max_forward(isa, &s, &xb, &mut y, Some(&mut index)).unwrap();
            pool::max_backward(isa, &s, &index, &dyb, &mut dx).unwrap();
        } else {
            pool::average_forward(isa, &s, &xb, &mut y).unwrap();
            pool::average_backward(isa, &s, &dyb, &mut dx).unwrap();
        }
        // The mean of `taps` numbers, and a sum over the windows that hold a pixel: at most `taps` too.
        let taps = kh * kw;
        let (of_y, of_dx) = (gamma(taps + 1) * largest(&x), gamma(taps + 1) * taps as f64 * largest(&dy));
        case.check(isa, "y", &plain(isa, s.output(), &y), |_| if max { 0.0 } else { of_y });
        case.check(isa, "dx", &plain(isa, s.input(), &dx), |_| of_dx);
    });
}

#[test]
fn cross_entropy() {
    each("loss", |case, isa| {
        let labels: Vec<u32> = case.integers("labels").into_iter().map(|l| l as u32).collect();
        let (logits, wanted) = (case.f32("logits"), case.f64("dlogits"));
        let dims = Dims { n: labels.len(), c: logits.len() / labels.len(), h: 1, w: 1 };
        let mut dlogits = Buffer::zeroed(dims.blocked_len());
        let sums =
            loss::softmax_cross_entropy(dims, &blocked(isa, dims, &logits), &labels, Some(&mut dlogits)).unwrap();
        // Computed in f64 and rounded once.
        assert!((sums.loss - case.f64("loss")[0]).abs() < 1e-13 * sums.loss.abs(), "{} on {isa}", sums.loss);
        assert_eq!(sums.correct, case.integers("correct")[0], "{isa}");
        case.check(isa, "dlogits", &plain(isa, dims, &dlogits), |i| U * wanted[i].abs() + 1e-15);
    });
}

#[test]
fn one_step_of_sgd() {
    each("sgd", |case, isa| {
        let (mut w, grad, mut velocity) = (case.f32("w"), case.f32("grad"), case.f32("velocity"));
        let (lr, momentum, weight_decay) = (0.1f32, 0.9f32, 0.0005f32);
        let terms: Vec<f64> = (0..w.len())
            .map(|i| {
                let (mu, lambda) = (f64::from(momentum), f64::from(weight_decay));
                (mu * f64::from(velocity[i])).abs() + f64::from(grad[i]).abs() + (lambda * f64::from(w[i])).abs()
            })
            .collect();
        let before = magnitudes(&w);
        let rates = elementwise::Rates { lr, momentum, weight_decay };
        elementwise::sgd_step(isa, &mut w, &grad, &mut velocity, rates).unwrap();
        case.check(isa, "velocity_after", &velocity, |i| gamma(3) * terms[i]);
        case.check(isa, "w_after", &w, |i| gamma(4) * (before[i] + f64::from(lr) * terms[i]));
    });
}
