//! The forward convolution against the reference.

use super::{assert_bits, from_blocked, noise, to_blocked, with_threads};
use rectify_kernels::conv::{Algorithm, Blocking, Epilogue, Forward, Layout, Options};
use rectify_kernels::reference::{self, winograd::Variant};
use rectify_kernels::{Buffer, ConvShape, Isa};

pub const BLOCKINGS: [Option<Blocking>; 3] =
    [None, Some(Blocking { rows: 1, vectors: 1 }), Some(Blocking { rows: 2, vectors: 3 })];

/// One plan's variations: instruction sets, threads, blockings.
pub fn variations(algorithm: Algorithm) -> impl Iterator<Item = (Isa, usize, Options)> {
    Isa::available().into_iter().flat_map(move |isa| {
        let options = BLOCKINGS.map(|blocking| Options { algorithm, blocking, ..Options::default() });
        [1, 2, 5].into_iter().zip(options).map(move |(threads, options)| (isa, threads, options))
    })
}

/// The reference in the order of the algorithm.
pub fn forward(s: &ConvShape, variant: Option<Variant>, x: &[f32], w: &[f32], pads: &[f32]) -> Vec<f32> {
    match variant {
        None => reference::conv::forward_padded(s, x, w, pads).unwrap(),
        Some(variant) => reference::winograd::forward(variant, s, x, w, pads).unwrap(),
    }
}

/// Whether all variations have the bits of the reference, with each epilogue and with padding of its own.
pub fn check_variations(
    s: &ConvShape,
    variant: Option<Variant>,
    variations: impl Iterator<Item = (Isa, usize, Options)>,
    x: &[f32],
    w: &[f32],
) {
    let d = s.output();
    let plain = forward(s, variant, x, w, &vec![0.0; s.ic]);
    let (bias, slopes) = (noise(s.oc, 3), noise(s.oc, 4));
    let channel = |i: usize| i / d.plane() % d.c;
    let pre: Vec<f32> = plain.iter().enumerate().map(|(i, v)| v + bias[channel(i)]).collect();
    let prelu = |a: &[f32]| -> Vec<f32> {
        let slope = |i: usize| a[if a.len() == 1 { 0 } else { channel(i) }];
        pre.iter().enumerate().map(|(i, &v)| if v > 0.0 { v } else { slope(i) * v }).collect()
    };
    let (shortcut, pads) = (noise(d.plain_len(), 6), noise(s.ic, 7));
    let padded = forward(s, variant, x, w, &pads);
    for (isa, threads, options) in variations {
        let what = format!("{s:?} {isa} {threads} {options:?}");
        let laid_out = |layout, d: &_, x: &[f32]| match layout {
            Layout::Blocked => to_blocked(d, x),
            Layout::Nchw => Buffer::from_slice(x),
        };
        let plain_of = |y: &[f32]| match options.output {
            Layout::Blocked => from_blocked(&d, y),
            Layout::Nchw => y.to_vec(),
        };
        let (x, shortcut_here) = (laid_out(options.input, &s.input(), x), laid_out(options.output, &d, &shortcut));
        let plan = Forward::new(isa, s, &options).unwrap();
        assert!(plan.kernel().contains(isa.name()), "{}", plan.kernel());
        assert_eq!(plan.variant(), variant, "{what}");
        let mut packed = Buffer::zeroed(plan.packed_len());
        plan.pack(w, &mut packed).unwrap();
        let run = |packed: &[f32], epilogue: Epilogue| {
            // With forced blocks outputs are streamed, but not to where lines do not begin.
            let first = if threads == 2 && options.output == Layout::Blocked { 1 } else { 0 };
            let mut y = Buffer::from_slice(&vec![f32::NAN; first + options.output.len(&d)]);
            let mut workspace = Buffer::from_slice(&vec![f32::NAN; plan.workspace_len(threads)]);
            with_threads(threads, || plan.run(&x, packed, epilogue, &mut y[first..], &mut workspace)).unwrap();
            plain_of(&y[first..])
        };
        assert_bits(&what, &run(&packed, Epilogue::None), &plain);
        assert_bits(&what, &run(&packed, Epilogue::Bias(&bias)), &pre);
        assert_bits(&what, &run(&packed, Epilogue::BiasPrelu { bias: &bias, slopes: &[-0.5] }), &prelu(&[-0.5]));
        let mut kept = Buffer::from_slice(&vec![f32::NAN; options.output.len(&d)]);
        let keep = Epilogue::BiasPreluKeep { bias: &bias, slopes: &slopes, pre: &mut kept };
        assert_bits(&what, &run(&packed, keep), &prelu(&slopes));
        assert_bits(&what, &plain_of(&kept), &pre);
        let added: Vec<f32> = pre.iter().zip(&shortcut).map(|(v, s)| v + s).collect();
        assert_bits(&what, &run(&packed, Epilogue::BiasAdd { bias: &bias, shortcut: &shortcut_here }), &added);
        plan.pack_padded(w, &pads, &mut packed).unwrap();
        assert_bits(&what, &run(&packed, Epilogue::None), &padded);
    }
}
