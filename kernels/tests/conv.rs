//! Convolution against the reference: equal bits on every instruction set, thread count, blocking and batch.

mod common;

use common::forward::forward;
use common::passes::{check, check_backward_weights, check_forward, check_winograd};
use common::{assert_bits, from_blocked, noise, to_blocked, with_threads};
use proptest::prelude::*;
use rectify_kernels::conv::{Algorithm, BackwardData, BackwardWeights, Epilogue, Forward, Layout, Options};
use rectify_kernels::{Buffer, ConvShape, Error, Isa};

/// Enough tiles for each of two threads to take blocks of its own, which forced tiny blocks never are; with weights
/// that the second cache holds and with more, blocked and as bands of NCHW.
#[test]
fn winograd_by_blocks_of_tiles() {
    for s in [
        ConvShape::square(4, 20, 20, 18, 3, 1, 1),
        ConvShape::square(4, 64, 20, 128, 3, 1, 1),
        ConvShape::square(1, 64, 28, 64, 3, 1, 1),
    ] {
        let (x, w) = (noise(s.input().plain_len(), 1), noise(s.weight_len(), 2));
        let options = Options { algorithm: Algorithm::Winograd, ..Options::default() };
        let want = forward(&s, options.algorithm.variant(&s).unwrap(), &x, &w, &vec![0.0; s.ic]);
        let blocked = to_blocked(&s.input(), &x);
        for (isa, threads) in Isa::available().into_iter().flat_map(|isa| [1, 2, 5].map(|threads| (isa, threads))) {
            for layout in [Layout::Blocked, Layout::Nchw] {
                let plan = Forward::new(isa, &s, &Options { input: layout, output: layout, ..options }).unwrap();
                let (mut packed, mut y) = (Buffer::zeroed(plan.packed_len()), vec![0.0; layout.len(&s.output())]);
                plan.pack(&w, &mut packed).unwrap();
                let mut workspace = Buffer::from_slice(&vec![f32::NAN; plan.workspace_len(threads)]);
                let x = if layout == Layout::Nchw { &x[..] } else { &blocked[..] };
                with_threads(threads, || plan.run(x, &packed, Epilogue::None, &mut y, &mut workspace)).unwrap();
                let y = if layout == Layout::Nchw { y } else { from_blocked(&s.output(), &y) };
                assert_bits(&format!("{isa} {threads} {layout:?} {s:?}"), &y, &want);
            }
        }
    }
}

/// More tiles than a chunk of their sums holds, and more than two chunks, short or long ones, in one block or in
/// several; three groups of chunks; more channels than a unit has; more sums than the second cache of most processors
/// holds; blocks of channels that two threads share out, for they cannot have equally many rows of positions.
#[test]
fn winograd_weights_by_chunks_of_tiles() {
    for s in [
        ConvShape::square(3, 5, 26, 9, 3, 1, 1),
        ConvShape::square(6, 17, 28, 33, 3, 1, 1),
        ConvShape::square(12, 3, 19, 18, 2, 1, 0),
        ConvShape::square(1, 150, 9, 70, 3, 1, 1),
        ConvShape::square(3, 1, 40, 930, 3, 1, 1),
        ConvShape::square(1, 1, 262, 50, 3, 1, 1),
        ConvShape::square(1, 20, 30, 70, 2, 1, 0),
    ] {
        let (x, dy) = (noise(s.input().plain_len(), 1), noise(s.output().plain_len(), 5));
        for algorithm in [Algorithm::Winograd, Algorithm::WinogradAccurate] {
            check_backward_weights(&s, algorithm, &x, &dy);
        }
    }
}

/// Threads keep fewer sums each, but a workspace for many must do for one.
#[test]
fn more_threads_never_need_a_smaller_workspace() {
    for (channels, images, side) in [(512, 64, 8), (256, 1, 56), (64, 64, 32), (1024, 1, 14), (16, 1, 5)] {
        let s = ConvShape::square(images, channels, side, channels, 3, 1, 1);
        let plan = BackwardWeights::new(Isa::Portable, &s, &Options::default()).unwrap();
        let forward = [Layout::Blocked, Layout::Nchw].map(|layout| {
            Forward::new(Isa::Portable, &s, &Options { input: layout, output: layout, ..Options::default() }).unwrap()
        });
        for threads in 0..20 {
            assert!(plan.workspace_len(threads) >= plan.workspace_len(1), "{channels}: {threads}");
            for plan in &forward {
                assert!(plan.workspace_len(threads) >= plan.workspace_len(1), "{channels}: {threads} forward");
            }
        }
    }
}

/// A pool may have more or fewer threads than the workspace was asked for.
#[test]
fn any_workspace_serves_any_pool() {
    for s in [
        ConvShape::square(2, 40, 26, 33, 3, 1, 1),
        ConvShape::square(1, 16, 13, 130, 3, 1, 1),
        ConvShape { groups: 3, ..ConvShape::square(2, 48, 13, 48, 3, 1, 1) },
    ] {
        let (x, w) = (noise(s.input().plain_len(), 1), noise(s.weight_len(), 2));
        let dy = noise(s.output().plain_len(), 3);
        let options = Options { algorithm: Algorithm::Winograd, ..Options::default() };
        let nchw = Options { input: Layout::Nchw, output: Layout::Nchw, ..options };
        let (blocked_x, blocked_dy) = (to_blocked(&s.input(), &x), to_blocked(&s.output(), &dy));
        let cases = [(options, &blocked_x[..], s.output().blocked_len()), (nchw, &x[..], s.output().plain_len())];
        let forward = cases.map(|(o, x, len)| (Forward::new(Isa::Portable, &s, &o).unwrap(), x, len));
        let weights = BackwardWeights::new(Isa::Portable, &s, &options).unwrap();
        // Whatever the workspace holds, nothing of it may show.
        let room = |len: usize| vec![f32::NAN; len];
        let run = |workspace: usize, threads: usize| {
            with_threads(threads, || {
                let mut results = Vec::new();
                for (plan, x, len) in &forward {
                    let (mut packed, mut y) = (vec![0.0; plan.packed_len()], vec![0.0; *len]);
                    plan.pack(&w, &mut packed).unwrap();
                    let mut workspace = room(plan.workspace_len(workspace));
                    plan.run(x, &packed, Epilogue::None, &mut y, &mut workspace).unwrap();
                    results.extend(y);
                }
                let mut dw = vec![0.0; s.weight_len()];
                weights.run(&blocked_x, &blocked_dy, &mut dw, &mut room(weights.workspace_len(workspace))).unwrap();
                results.extend(dw);
                results
            })
        };
        let want = run(1, 1);
        for workspace in 1..7 {
            for threads in [1, 2, 3, 4, 6] {
                assert_bits(&format!("{s:?}: {workspace}, {threads}"), &run(workspace, threads), &want);
            }
        }
    }
}

#[test]
fn winograd_edges() {
    let square = ConvShape::square;
    for s in [
        square(2, 16, 7, 16, 3, 1, 1),
        square(1, 3, 3, 5, 3, 1, 0),
        square(5, 17, 9, 33, 3, 1, 1),
        square(1, 530, 5, 70, 3, 1, 1),
        square(3, 30, 6, 100, 3, 1, 2),
        square(2, 20, 10, 24, 2, 1, 0),
        square(3, 33, 7, 17, 2, 1, 1),
        ConvShape { iw: 21, pad_top: 2, pad_bottom: 0, pad_left: 0, pad_right: 1, ..square(2, 18, 11, 19, 3, 1, 1) },
        ConvShape { pad_top: 7, pad_right: 6, ..square(1, 5, 4, 6, 3, 1, 0) },
        // All numbers of outputs at the lower and at the right edge.
        ConvShape { iw: 12, ..square(3, 17, 9, 20, 3, 1, 1) },
        ConvShape { iw: 9, ..square(3, 17, 10, 20, 3, 1, 1) },
        ConvShape { iw: 10, ..square(3, 17, 11, 20, 3, 1, 1) },
        ConvShape { iw: 11, ..square(3, 17, 12, 20, 3, 1, 1) },
        ConvShape { iw: 9, ..square(3, 17, 8, 20, 2, 1, 0) },
        ConvShape { iw: 7, ..square(3, 17, 9, 20, 2, 1, 0) },
        ConvShape { iw: 8, ..square(3, 17, 11, 20, 2, 1, 0) },
        // Images of a row, of a column, of a pixel.
        ConvShape { iw: 30, ..square(3, 17, 1, 20, 3, 1, 1) },
        ConvShape { iw: 2, ..square(3, 17, 30, 20, 3, 1, 1) },
        square(200, 3, 1, 5, 3, 1, 1),
    ] {
        check_winograd(&s);
    }
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
        // Kernels whose weights are laid out in pieces.
        ConvShape { kh: 17, kw: 16, ..square(1, 18, 8, 19, 1, 1, 8) },
        ConvShape { groups: 2, stride_h: 2, kh: 18, kw: 19, ..square(1, 6, 20, 34, 1, 1, 0) },
        // Planes of whole lines.
        square(2, 3, 8, 20, 3, 1, 1),
        square(2, 9, 4, 12, 1, 1, 0),
        // Several blocks of inputs in a unit of the weights' gradient, in some one fewer.
        square(1, 272, 3, 20, 1, 1, 0),
        square(17, 272, 2, 20, 1, 1, 0),
        ConvShape { kw: 2, ..square(2, 140, 3, 16, 1, 1, 0) },
        ConvShape { groups: 2, ..square(1, 160, 3, 32, 1, 1, 0) },
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

/// Tiles of few output channels have up to four vectors of pixels; a strided gradient's are beside classes that no tap
/// reaches.
#[test]
fn few_channels_of_wide_images() {
    for channels in 1..=5 {
        for iw in [33, 64] {
            check(&ConvShape { iw, ..ConvShape::square(1, 2, 3, channels, 3, 1, 1) });
        }
        check(&ConvShape { iw: 130, ..ConvShape::square(1, channels, 3, 17, 3, 2, 1) });
    }
    check(&ConvShape::square(1, 3, 7, 17, 1, 2, 0));
    // Gradients whose last taps lie right of the image.
    check(&ConvShape {
        iw: 1,
        kw: 2,
        stride_h: 1,
        dilation_w: 3,
        pad_left: 8,
        ..ConvShape::square(1, 2, 4, 20, 2, 2, 0)
    });
    // Passes of 17 and of 16 rows and columns share copies, band by band.
    check(&ConvShape::square(1, 2, 33, 17, 3, 2, 1));
}

/// A stride without a second output.
#[test]
fn a_stride_may_be_as_large_as_it_likes() {
    let square = ConvShape::square;
    for s in [square(1, 1, 3, 1, 3, 1, 0), square(1, 16, 4, 16, 3, 1, 1), square(2, 19, 3, 5, 1, 1, 0)] {
        for stride in [3, (1 << 60) + 1, isize::MAX as usize, usize::MAX] {
            check(&ConvShape { stride_h: stride, stride_w: stride, ..s });
            check(&ConvShape { stride_w: stride, ..s });
        }
        check(&ConvShape { groups: s.ic, oc: s.ic, stride_w: usize::MAX, ..s });
    }
}

/// Plans keep something for each tap, and for each class of pixels modulo the strides.
#[test]
fn no_plan_is_larger_than_what_it_is_for() {
    let isa = Isa::Portable;
    let s = ConvShape::square(1, 16, 4096, 16, 1, 4096, 0);
    assert!(Forward::new(isa, &s, &Options::default()).is_ok());
    let e = BackwardData::new(isa, &s, &Options::default()).unwrap_err();
    assert!(matches!(e, Error::Shape { what: "stride_w", value: 4096, .. }), "{e}");
    let long = ConvShape { kh: 1 << 40, pad_top: 1 << 40, ..ConvShape::square(1, 1, 1, 1, 1, 1, 0) };
    let e = Forward::new(isa, &long, &Options::default()).unwrap_err();
    assert!(matches!(e, Error::Shape { what: "kh", .. }), "{e}");
}

/// What is said of a choice without a plan is what a plan takes.
#[test]
fn a_plan_takes_the_variant_that_is_named() {
    for (ic, oc, k, stride) in
        [(64, 8, 3, 1), (64, 16, 3, 1), (3, 8, 7, 2), (3, 64, 7, 2), (3, 64, 3, 1), (64, 8, 3, 2)]
    {
        let s = ConvShape::square(1, ic, 56, oc, k, stride, k / 2);
        for (algorithm, input) in
            Algorithm::ALL.into_iter().flat_map(|a| [Layout::Blocked, Layout::Nchw].map(|l| (a, l)))
        {
            let plan = Forward::new(Isa::Portable, &s, &Options { algorithm, input, ..Options::default() });
            assert_eq!(plan.map(|plan| plan.variant()), algorithm.variant_from(&s, input), "{s:?}, {algorithm:?}");
        }
    }
}

/// Tensors of a pixel whose padding has as many as no memory holds: a plan is refused, or its workspace has room for
/// what its kernel spans, whatever the product is in 64 bits.
#[test]
fn padding_is_as_large_as_memory_at_most() {
    for (n, distance) in (0..60).flat_map(|power| [1, 256].map(|n| (n, 1usize << power))) {
        let square = ConvShape { oc: 1 << 12, ..ConvShape::square(n, 1, 1, 1, 2, 1, 0) };
        let s =
            ConvShape { dilation_h: distance, dilation_w: distance, pad_top: distance, pad_left: distance, ..square };
        // Two outputs as far apart.
        let strided =
            ConvShape { stride_h: distance, stride_w: distance, pad_bottom: distance, pad_right: distance, ..s };
        let options = Options { algorithm: Algorithm::Direct, ..Options::default() };
        let nchw = Options { input: Layout::Nchw, ..options };
        let plans = [
            (Forward::new(Isa::Portable, &s, &options).map(|plan| plan.workspace_len(1)), s.ic),
            (Forward::new(Isa::Portable, &strided, &nchw).map(|plan| plan.workspace_len(1)), s.ic),
            (BackwardData::new(Isa::Portable, &s, &options).map(|plan| plan.workspace_len(1)), s.oc),
        ];
        for (len, channels) in plans {
            match len {
                Ok(len) => assert!(len as u128 >= channels as u128 * (distance as u128 + 1).pow(2), "{s:?}: {len}"),
                Err(e) => assert!(distance > 1 << 10, "{s:?}: {e}"),
            }
        }
    }
}

#[test]
fn infinities_do_not_reach_the_padding_lanes() {
    // Few inputs, one block of outputs, several.
    for s in [(3, 5), (19, 12), (20, 37)].map(|(ic, oc)| ConvShape::square(1, ic, 5, oc, 3, 1, 1)) {
        let mut x = noise(s.input().plain_len(), 1);
        (x[7], x[12], x[20], x[30]) = (f32::INFINITY, f32::NAN, -0.0, 1e-42);
        for algorithm in Algorithm::ALL {
            check_forward(&s, algorithm, &x, &noise(s.weight_len(), 2));
        }
    }
}

#[test]
fn a_batch_is_its_images() {
    let winograd = [ConvShape::square(7, 40, 14, 33, 3, 1, 1), ConvShape::square(7, 64, 31, 72, 3, 2, 1)];
    for s in winograd {
        assert!(Algorithm::Auto.variant(&s).unwrap().is_some());
    }
    // Of the batch, not of an image, the outputs go to memory: a short sum and a longer one.
    let streamed = [12, 40].map(|ic| ConvShape::square(7, ic, 75, 60, 1, 1, 0));
    for s in [ConvShape::square(7, 19, 6, 21, 3, 2, 1)].into_iter().chain(winograd).chain(streamed) {
        check_batch(&s);
    }
}

fn check_batch(s: &ConvShape) {
    let one = ConvShape { n: 1, ..*s };
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
        assert_bits("batch", &run(s, &x), &apart);
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

/// Shapes that Winograd serves, around the edges of tiles, blocks and images.
fn winograd_shapes() -> impl Strategy<Value = ConvShape> {
    let channels = || prop_oneof![1usize..8, 15usize..18, 31usize..36, 63usize..70];
    let image = (1usize..4, channels(), 1usize..20, 1usize..20, channels());
    let kernel = prop_oneof![(2usize..4, Just(1usize)), (3usize..6, Just(2usize))];
    (image, kernel, prop::array::uniform4(0usize..4))
        .prop_map(|((n, ic, ih, iw, oc), (k, stride), [pad_top, pad_bottom, pad_left, pad_right])| {
            let square = ConvShape::square(n, ic, ih, oc, k, stride, 0);
            ConvShape { iw, pad_top, pad_bottom, pad_left, pad_right, ..square }
        })
        .prop_filter("kernel within the padded image", |s| s.check().is_ok())
}

proptest! {
    #![proptest_config(common::cases(64))]
    #[test]
    fn any_shape_has_the_bits_of_the_reference(s in shapes()) {
        check(&s);
    }

    #[test]
    fn winograd_has_the_bits_of_its_reference(s in winograd_shapes()) {
        check_winograd(&s);
    }
}
