//! The three passes of a convolution against the reference.

use super::forward::{BLOCKINGS, check_variations, variations};
use super::{assert_bits, assert_not_trivial, from_blocked, noise, to_blocked, with_threads};
use rectify_kernels::conv::{Algorithm, BackwardData, BackwardWeights, Layout, Options};
use rectify_kernels::reference;
use rectify_kernels::{Buffer, ConvShape, Isa};

/// Variations of the forward pass: layouts as well.
fn forward_variations(algorithm: Algorithm) -> impl Iterator<Item = (Isa, usize, Options)> {
    use Layout::{Blocked, Nchw};
    let bordered = [
        (1, Nchw, Nchw, BLOCKINGS[0]),
        (2, Nchw, Blocked, BLOCKINGS[1]),
        (5, Blocked, Nchw, BLOCKINGS[2]),
        (2, Nchw, Nchw, BLOCKINGS[1]),
    ];
    let bordered = Isa::available().into_iter().flat_map(move |isa| {
        bordered
            .map(|(threads, input, output, blocking)| (isa, threads, Options { algorithm, input, output, blocking }))
    });
    variations(algorithm).chain(bordered)
}

/// Whether a forward pass has the bits of the reference.
pub fn check_forward(s: &ConvShape, algorithm: Algorithm, x: &[f32], w: &[f32]) {
    check_variations(s, algorithm.variant(s).unwrap(), forward_variations(algorithm), x, w);
}

/// The same of the input's gradient.
pub fn check_backward_data(s: &ConvShape, algorithm: Algorithm, w: &[f32], dy: &[f32]) {
    let dx = match algorithm.data_variant(s).unwrap() {
        None => reference::conv::backward_data(s, dy, w).unwrap(),
        Some(variant) => reference::winograd::backward_data(variant, s, dy, w).unwrap(),
    };
    let blocked_dy = to_blocked(&s.output(), dy);
    for (isa, threads, options) in variations(algorithm) {
        let what = format!("{s:?} {isa} {threads} {options:?}");
        let plan = BackwardData::new(isa, s, &options).unwrap();
        // What a pass does not read need not be written.
        let mut packed = Buffer::from_slice(&vec![f32::NAN; plan.packed_len()]);
        plan.pack(w, &mut packed).unwrap();
        let mut got = Buffer::from_slice(&vec![f32::NAN; s.input().blocked_len()]);
        let mut workspace = Buffer::from_slice(&vec![f32::NAN; plan.workspace_len(threads)]);
        with_threads(threads, || plan.run(&blocked_dy, &packed, &mut got, &mut workspace)).unwrap();
        assert_bits(&format!("dx {what}"), &from_blocked(&s.input(), &got), &dx);
    }
    let ones = |len: usize| vec![1.0f32; len];
    assert_not_trivial("dx", &dx, &reference::conv::backward_data(s, &ones(dy.len()), &ones(w.len())).unwrap());
}

/// The same of the weights' gradient.
pub fn check_backward_weights(s: &ConvShape, algorithm: Algorithm, x: &[f32], dy: &[f32]) {
    let dw = match algorithm.weights_variant(s).unwrap() {
        None => reference::conv::backward_weights(s, x, dy).unwrap(),
        Some(variant) => reference::winograd::backward_weights(variant, s, x, dy).unwrap(),
    };
    let (blocked, blocked_dy) = (to_blocked(&s.input(), x), to_blocked(&s.output(), dy));
    let variations = Isa::available().into_iter().flat_map(|isa| {
        [1, 2, 3, 5].into_iter().flat_map(move |threads| BLOCKINGS.map(|blocking| (isa, threads, blocking)))
    });
    for (i, (isa, threads, blocking)) in variations.enumerate() {
        let takes_nchw = algorithm == Algorithm::Direct || s.stride_h > 1;
        let is_nchw = takes_nchw && s.groups == 1 && s.ic <= Layout::MOST_CHANNELS && i % 2 == 1;
        let input = if is_nchw { Layout::Nchw } else { Layout::Blocked };
        let options = Options { algorithm, blocking, input, ..Options::default() };
        let what = format!("{s:?} {isa} {threads} {options:?}");
        let plan = BackwardWeights::new(isa, s, &options).unwrap();
        let mut workspace = Buffer::from_slice(&vec![f32::NAN; plan.workspace_len(threads)]);
        let mut got = vec![f32::NAN; s.weight_len()];
        with_threads(threads, || plan.run(if is_nchw { x } else { &blocked }, &blocked_dy, &mut got, &mut workspace))
            .unwrap();
        assert_bits(&format!("dw {what}"), &got, &dw);
    }
    let ones = |x: &[f32]| vec![1.0f32; x.len()];
    let ones = reference::conv::backward_weights(s, &ones(x), &ones(dy)).unwrap();
    if algorithm == Algorithm::Direct {
        assert_not_trivial("dw", &dw, &ones);
    } else {
        // Of thousands of such sums now and then one is zero.
        let idle = dw.iter().zip(&ones).filter(|(w, n)| **w == 0.0 && **n != 0.0).count();
        assert!(idle <= dw.len() / 100, "{idle} of {} sums are zero", dw.len());
    }
}

/// The same of all three, direct.
pub fn check(s: &ConvShape) {
    let (x, w) = (noise(s.input().plain_len(), 1), noise(s.weight_len(), 2));
    let dy = noise(s.output().plain_len(), 5);
    check_forward(s, Algorithm::Direct, &x, &w);
    check_backward_data(s, Algorithm::Direct, &w, &dy);
    check_backward_weights(s, Algorithm::Direct, &x, &dy);
}

/// The same of those that Winograd serves, by both of its algorithms; the others are refused.
pub fn check_winograd(s: &ConvShape) {
    let (x, w) = (noise(s.input().plain_len(), 1), noise(s.weight_len(), 2));
    let dy = noise(s.output().plain_len(), 5);
    for algorithm in [Algorithm::Winograd, Algorithm::WinogradAccurate] {
        if s.kh > 3 && algorithm == Algorithm::WinogradAccurate {
            assert!(algorithm.variant(s).is_err());
            continue;
        }
        check_forward(s, algorithm, &x, &w);
        let options = Options { algorithm, ..Options::default() };
        // Where the padding is beyond the kernel's reach the input's gradient is refused.
        let is_padded = s.pad_top >= s.kh || s.pad_left >= s.kw;
        if is_padded || s.stride_h == 1 && reference::winograd::reversed(s).is_none() {
            assert!(BackwardData::new(Isa::Portable, s, &options).is_err());
        } else {
            check_backward_data(s, algorithm, &w, &dy);
        }
        check_backward_weights(s, algorithm, &x, &dy);
    }
}
