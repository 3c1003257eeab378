//! Convolution against the reference: equal bits on every instruction set, thread count, blocking and batch.

mod common;

use common::{assert_bits, assert_not_trivial, from_blocked, noise, to_blocked, with_threads};
use proptest::prelude::*;
use rectify_kernels::conv::{BackwardData, BackwardWeights, Blocking, Epilogue, Forward, Options};
use rectify_kernels::{Buffer, ConvShape, Isa, reference};

const BLOCKINGS: [Option<Blocking>; 3] =
    [None, Some(Blocking { rows: 1, vectors: 1 }), Some(Blocking { rows: 2, vectors: 3 })];

/// One plan's variations: instruction sets, threads, blockings.
fn variations() -> impl Iterator<Item = (Isa, usize, Options)> {
    Isa::available().into_iter().flat_map(|isa| {
        [1, 2, 5].into_iter().zip(BLOCKINGS).map(move |(threads, blocking)| (isa, threads, Options { blocking }))
    })
}

fn check_forward(s: &ConvShape, x: &[f32], w: &[f32]) {
    let d = s.output();
    let plain = reference::conv::forward(s, x, w).unwrap();
    let (bias, slopes) = (noise(s.oc, 3), noise(s.oc, 4));
    let channel = |i: usize| i / d.plane() % d.c;
    let pre: Vec<f32> = plain.iter().enumerate().map(|(i, v)| v + bias[channel(i)]).collect();
    let prelu = |a: &[f32]| -> Vec<f32> {
        let slope = |i: usize| a[if a.len() == 1 { 0 } else { channel(i) }];
        pre.iter().enumerate().map(|(i, &v)| if v > 0.0 { v } else { slope(i) * v }).collect()
    };
    let (shortcut, pads) = (noise(d.plain_len(), 6), noise(s.ic, 7));
    let blocked_shortcut = to_blocked(&d, &shortcut);
    let padded = reference::conv::forward_padded(s, x, w, &pads).unwrap();
    let blocked = to_blocked(&s.input(), x);
    for (isa, threads, options) in variations() {
        let what = format!("{s:?} {isa} {threads} {options:?}");
        let plan = Forward::new(isa, s, &options).unwrap();
        assert!(plan.kernel().contains(isa.name()), "{}", plan.kernel());
        let mut packed = Buffer::zeroed(plan.packed_len());
        plan.pack(w, &mut packed).unwrap();
        let run = |epilogue: Epilogue| {
            let mut y = Buffer::from_slice(&vec![f32::NAN; d.blocked_len()]);
            let mut workspace = Buffer::from_slice(&vec![f32::NAN; plan.workspace_len(threads)]);
            with_threads(threads, || plan.run(&blocked, &packed, epilogue, &mut y, &mut workspace)).unwrap();
            from_blocked(&d, &y)
        };
        assert_bits(&what, &run(Epilogue::None), &plain);
        assert_bits(&what, &run(Epilogue::Bias(&bias)), &pre);
        assert_bits(&what, &run(Epilogue::BiasPrelu { bias: &bias, slopes: &[-0.5] }), &prelu(&[-0.5]));
        let mut kept = Buffer::from_slice(&vec![f32::NAN; d.blocked_len()]);
        let keep = Epilogue::BiasPreluKeep { bias: &bias, slopes: &slopes, pre: &mut kept };
        assert_bits(&what, &run(keep), &prelu(&slopes));
        assert_bits(&what, &from_blocked(&d, &kept), &pre);
        let added: Vec<f32> = pre.iter().zip(&shortcut).map(|(v, s)| v + s).collect();
        assert_bits(&what, &run(Epilogue::BiasAdd { bias: &bias, shortcut: &blocked_shortcut }), &added);
        plan.pack_padded(w, &pads, &mut packed).unwrap();
        let mut y = Buffer::from_slice(&vec![f32::NAN; d.blocked_len()]);
        let mut workspace = Buffer::from_slice(&vec![f32::NAN; plan.workspace_len(threads)]);
        with_threads(threads, || plan.run(&blocked, &packed, Epilogue::None, &mut y, &mut workspace)).unwrap();
        assert_bits(&what, &from_blocked(&d, &y), &padded);
    }
}

fn check_backward(s: &ConvShape, x: &[f32], w: &[f32], dy: &[f32]) {
    let dx = reference::conv::backward_data(s, dy, w).unwrap();
    let dw = reference::conv::backward_weights(s, x, dy).unwrap();
    let (blocked, blocked_dy) = (to_blocked(&s.input(), x), to_blocked(&s.output(), dy));
    for (isa, threads, options) in variations() {
        let what = format!("{s:?} {isa} {threads} {options:?}");
        let plan = BackwardData::new(isa, s, &options).unwrap();
        let mut packed = Buffer::zeroed(plan.packed_len());
        plan.pack(w, &mut packed).unwrap();
        let mut got = Buffer::from_slice(&vec![f32::NAN; s.input().blocked_len()]);
        let mut workspace = Buffer::from_slice(&vec![f32::NAN; plan.workspace_len(threads)]);
        with_threads(threads, || plan.run(&blocked_dy, &packed, &mut got, &mut workspace)).unwrap();
        assert_bits(&format!("dx {what}"), &from_blocked(&s.input(), &got), &dx);

        let plan = BackwardWeights::new(isa, s, &options).unwrap();
        let mut workspace = Buffer::from_slice(&vec![f32::NAN; plan.workspace_len(threads)]);
        let mut got = vec![f32::NAN; s.weight_len()];
        with_threads(threads, || plan.run(&blocked, &blocked_dy, &mut got, &mut workspace)).unwrap();
        assert_bits(&format!("dw {what}"), &got, &dw);
    }
    let ones = |x: &[f32]| vec![1.0f32; x.len()];
    assert_not_trivial("dx", &dx, &reference::conv::backward_data(s, &ones(dy), &ones(w)).unwrap());
    assert_not_trivial("dw", &dw, &reference::conv::backward_weights(s, &ones(x), &ones(dy)).unwrap());
}

fn check(s: &ConvShape) {
    let (x, w) = (noise(s.input().plain_len(), 1), noise(s.weight_len(), 2));
    check_forward(s, &x, &w);
    check_backward(s, &x, &w, &noise(s.output().plain_len(), 5));
}

#[test]
fn edges() {
    let square = ConvShape::square;
    let base = square(2, 16, 7, 16, 3, 1, 1);
    for s in [
        base,
        square(1, 3, 11, 17, 7, 2, 3),
        square(1, 1, 1, 1, 1, 1, 0),
        square(9, 5, 4, 3, 3, 1, 1),
        square(17, 4, 3, 6, 3, 1, 1),
        square(1, 57, 5, 80, 3, 1, 1),
        square(1, 33, 6, 15, 4, 3, 5),
        square(1, 513, 3, 16, 1, 1, 0),
        square(3, 16, 13, 31, 1, 2, 0),
        square(2, 20, 9, 24, 2, 1, 0),
        square(1, 2, 13, 70, 5, 1, 2),
        ConvShape { groups: 2, ..square(2, 32, 6, 64, 3, 1, 1) },
        ConvShape { groups: 3, ..square(2, 9, 6, 15, 3, 2, 1) },
        ConvShape { groups: 2, ..square(1, 40, 6, 36, 3, 1, 1) },
        ConvShape { groups: 19, ..square(9, 19, 7, 19, 3, 2, 1) },
        ConvShape { groups: 16, ..square(1, 16, 9, 16, 7, 1, 3) },
        ConvShape { groups: 4, ..square(1, 4, 6, 8, 3, 1, 1) },
        ConvShape { dilation_h: 2, dilation_w: 3, ..square(1, 16, 12, 16, 3, 1, 0) },
        ConvShape { stride_h: 3, stride_w: 1, dilation_h: 2, pad_top: 4, pad_bottom: 0, pad_right: 2, ..base },
        ConvShape { ih: 1, iw: 40, kh: 1, kw: 5, pad_top: 0, pad_bottom: 0, ..base },
        ConvShape { pad_top: 9, pad_bottom: 8, pad_left: 0, pad_right: 11, ..base },
    ] {
        check(&s);
    }
}

#[test]
fn infinities_do_not_reach_the_padding_lanes() {
    let s = ConvShape::square(1, 3, 5, 5, 3, 1, 1);
    let mut x = noise(s.input().plain_len(), 1);
    (x[7], x[12], x[20], x[30]) = (f32::INFINITY, f32::NAN, -0.0, 1e-42);
    check_forward(&s, &x, &noise(s.weight_len(), 2));
}

#[test]
fn a_batch_is_its_images() {
    let s = ConvShape::square(7, 19, 6, 21, 3, 2, 1);
    let one = ConvShape { n: 1, ..s };
    let (x, w, bias) = (noise(s.input().plain_len(), 1), noise(s.weight_len(), 2), noise(s.oc, 3));
    for isa in Isa::available() {
        let run = |s: &ConvShape, x: &[f32]| {
            let plan = Forward::new(isa, s, &Options::default()).unwrap();
            let mut packed = Buffer::zeroed(plan.packed_len());
            plan.pack(&w, &mut packed).unwrap();
            let mut y = Buffer::zeroed(s.output().blocked_len());
            let mut workspace = Buffer::zeroed(plan.workspace_len(1));
            let epilogue = Epilogue::BiasPrelu { bias: &bias, slopes: &[0.1] };
            plan.run(&to_blocked(&s.input(), x), &packed, epilogue, &mut y, &mut workspace).unwrap();
            from_blocked(&s.output(), &y)
        };
        let apart: Vec<f32> = x.chunks(one.input().plain_len()).flat_map(|x| run(&one, x)).collect();
        assert_bits("batch", &run(&s, &x), &apart);
    }
}

/// `|error| ≤ γ · Σ|a·b|` against f64, with γ of the longest chain and the additions after it.
#[test]
fn errors_are_within_the_derived_bound() {
    let s = ConvShape::square(2, 130, 6, 20, 3, 1, 1);
    let (x, w) = (noise(s.input().plain_len(), 1), noise(s.weight_len(), 2));
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    let (x64, w64) = (wide(&x), wide(&w));
    let exact = reference::conv::forward(&s, &x64, &w64).unwrap();
    let abs = |v: &[f64]| v.iter().map(|v| v.abs()).collect::<Vec<_>>();
    let size = reference::conv::forward(&s, &abs(&x64), &abs(&w64)).unwrap();
    let got = reference::conv::forward(&s, &x, &w).unwrap();
    let roundings = (32 * 16 + s.group_ic().div_ceil(16) * 9 / 32 + 1) as f64;
    let gamma = roundings * f64::from(f32::EPSILON) / 2.0;
    for ((g, e), size) in got.iter().zip(&exact).zip(&size) {
        assert!((f64::from(*g) - e).abs() <= 1.001 * gamma * size);
    }
}

fn axis() -> impl Strategy<Value = [usize; 6]> {
    (1usize..14, 1usize..6, 1usize..4, 1usize..4, 0usize..5, 0usize..5)
        .prop_map(|(i, k, s, d, a, b)| [i, k, s, d, a, b])
        .prop_filter("kernel within the padded image", |[i, k, _, d, a, b]| (k - 1) * d < i + a + b)
}

fn shapes() -> impl Strategy<Value = ConvShape> {
    let channels = prop_oneof![1usize..8, 15usize..18, 31usize..36];
    (1usize..4, prop_oneof![3 => Just(1usize), 1 => 2usize..5], channels.clone(), channels, axis(), axis()).prop_map(
        |(n, groups, ic, oc, h, w)| ConvShape {
            n,
            groups,
            ic: ic * groups,
            ih: h[0],
            iw: w[0],
            oc: oc * groups,
            kh: h[1],
            kw: w[1],
            stride_h: h[2],
            stride_w: w[2],
            dilation_h: h[3],
            dilation_w: w[3],
            pad_top: h[4],
            pad_bottom: h[5],
            pad_left: w[4],
            pad_right: w[5],
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn any_shape_has_the_bits_of_the_reference(s in shapes()) {
        check(&s);
    }
}
