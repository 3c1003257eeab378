//! Winograd with stride 2: the phases of the input, forward and for the weights' gradient, and of the input's gradient.

mod common;

use common::passes::{check_backward_data, check_backward_weights, check_winograd};
use common::{from_blocked, noise, to_blocked};
use rectify_kernels::conv::{Algorithm, BackwardData, BackwardWeights, Layout, Options};
use rectify_kernels::reference;
use rectify_kernels::{Buffer, ConvShape, Isa};

#[test]
fn strided_winograd_edges() {
    let square = ConvShape::square;
    for s in [
        square(2, 16, 7, 16, 3, 2, 1),
        square(1, 3, 3, 5, 3, 2, 0),
        square(5, 17, 19, 33, 3, 2, 1),
        // An input row and column that no output reads, but the transforms of the last tiles do.
        square(2, 20, 12, 24, 3, 2, 0),
        // More segments than a chunk has at all positions but those with a row or a column at infinity; at all.
        square(1, 150, 9, 70, 3, 2, 1),
        square(1, 530, 5, 20, 3, 2, 1),
        square(3, 33, 21, 17, 4, 2, 1),
        square(2, 20, 22, 24, 5, 2, 2),
        ConvShape { iw: 21, pad_top: 2, pad_bottom: 0, pad_left: 0, pad_right: 1, ..square(2, 18, 11, 19, 3, 2, 1) },
        ConvShape { pad_top: 9, pad_right: 12, ..square(1, 5, 4, 6, 3, 2, 0) },
        // One pixel, whose gradient is a convolution of the same stride.
        square(2, 5, 1, 6, 3, 2, 1),
    ] {
        check_winograd(&s);
    }
}

/// Gradients of first layers, whose phases lie in the lanes of one block, and of others with their kernel; even and odd
/// paddings, on which it depends where phases begin; more segments than a chunk.
#[test]
fn strided_winograd_gradients() {
    let square = ConvShape::square;
    for s in [
        square(2, 3, 21, 33, 7, 2, 3),
        // Several chunks of tiles; blocks of channels that threads share out.
        square(2, 3, 60, 20, 7, 2, 3),
        // Three groups of chunks.
        square(4, 1, 262, 2, 7, 2, 3),
        // Two of them, where phases are blocks of their own.
        square(1, 5, 370, 3, 3, 2, 1),
        // Short and long chunks.
        square(2, 20, 98, 18, 3, 2, 1),
        square(2, 5, 98, 146, 3, 2, 1),
        square(1, 70, 12, 90, 3, 2, 1),
        // No column of the image in a tile's first phases, and a whole tile of padding.
        ConvShape { iw: 2, pad_left: 6, pad_right: 20, ..square(1, 2, 9, 5, 7, 2, 3) },
        square(1, 18, 16, 40, 7, 2, 2),
        square(1, 1, 7, 1, 7, 2, 0),
        square(1, 4, 9, 530, 7, 2, 6),
        square(3, 2, 9, 530, 3, 2, 1),
        // Five tiles of F(3×3, 3×3) in a row: as many pixels as are brought together at once.
        square(2, 3, 34, 18, 3, 2, 1),
        square(1, 40, 9, 530, 3, 2, 2),
        ConvShape { iw: 26, pad_left: 1, pad_right: 4, ..square(2, 4, 13, 17, 4, 2, 2) },
        ConvShape { iw: 26, pad_left: 4, pad_bottom: 3, ..square(2, 3, 14, 17, 5, 2, 0) },
        ConvShape { iw: 9, pad_left: 2, ..square(5, 1, 30, 16, 3, 2, 0) },
    ] {
        let (x, w) = (noise(s.input().plain_len(), 1), noise(s.weight_len(), 2));
        let dy = noise(s.output().plain_len(), 5);
        for algorithm in
            [Algorithm::Winograd, Algorithm::WinogradAccurate].into_iter().take(if s.kh == 3 { 2 } else { 1 })
        {
            check_backward_data(&s, algorithm, &w, &dy);
            if s.kh < 7 || s.ic <= Layout::MOST_CHANNELS {
                check_backward_weights(&s, algorithm, &x, &dy);
            }
        }
    }
    let s = ConvShape { pad_left: 3, ..square(1, 3, 9, 16, 3, 2, 0) };
    let e = Algorithm::Winograd.data_variant(&s).unwrap_err().to_string();
    assert!(e.contains("pad_left = 3"), "{e}");
    assert_eq!(Algorithm::Auto.data_variant(&s), Ok(None));
}

/// An infinite or NaN value reaches what the reference says: of the output's gradient the input's and the weights', of
/// the input the weights'. In the lanes of one block too.
#[test]
fn strided_gradients_spread_what_is_not_finite() {
    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    let options = Options { algorithm: Algorithm::Winograd, ..Options::default() };
    for (ic, kernel, isa) in [(3, 3), (20, 3), (20, 5), (3, 7), (5, 7)]
        .into_iter()
        .flat_map(|(ic, kernel)| Isa::available().into_iter().map(move |isa| (ic, kernel, isa)))
    {
        let s = ConvShape::square(1, ic, 18, 5, kernel, 2, kernel / 2);
        let w = noise(s.weight_len(), 2);
        let plan = BackwardData::new(isa, &s, &options).unwrap();
        let mut packed = Buffer::from_slice(&vec![f32::NAN; plan.packed_len()]);
        plan.pack(&w, &mut packed).unwrap();
        let variant = plan.variant().unwrap();
        for at in (0..s.output().plane()).step_by(5) {
            let bad = if at % 2 == 0 { f32::INFINITY } else { f32::NAN };
            let (mut x, mut dy) = (noise(s.input().plain_len(), 1), noise(s.output().plain_len(), 5));
            dy[at] = bad;
            let want = reference::winograd::backward_data(variant, &s, &dy, &w).unwrap();
            let mut dx = Buffer::from_slice(&vec![f32::NAN; s.input().blocked_len()]);
            let mut workspace = Buffer::zeroed(plan.workspace_len(1));
            plan.run(&to_blocked(&s.output(), &dy), &packed, &mut dx, &mut workspace).unwrap();
            assert!(from_blocked(&s.input(), &dx).iter().zip(&want).all(same), "dx {isa} {ic} {kernel} {at}");
            let Ok(weights) = BackwardWeights::new(isa, &s, &options) else {
                assert!(ic > 4 && kernel == 7);
                continue;
            };
            if at % 3 == 0 {
                (dy[at], x[at * 4]) = (0.0, bad);
            }
            let want = reference::winograd::backward_weights(variant, &s, &x, &dy).unwrap();
            let mut dw = vec![f32::NAN; s.weight_len()];
            let mut workspace = Buffer::zeroed(weights.workspace_len(1));
            let (x, dy) = (to_blocked(&s.input(), &x), to_blocked(&s.output(), &dy));
            weights.run(&x, &dy, &mut dw, &mut workspace).unwrap();
            assert!(dw.iter().zip(&want).all(same), "dw {isa} {ic} {kernel} {at}");
        }
    }
}
