//! Errors of the convolution algorithms against `f64`.

mod common;

use common::noise;
use rectify_kernels::ConvShape;
use rectify_kernels::conv::{Algorithm, Layout};
use rectify_kernels::reference::{
    self,
    winograd::{Axis, Variant},
};

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
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

/// Standard normal numbers, from sums of twelve uniform ones.
fn normal(len: usize, seed: u64) -> Vec<f32> {
    let sum = |twelve: &[f32]| twelve.iter().map(|&v| f64::from(v) / 2.0).sum::<f64>() as f32;
    noise(12 * len, seed).chunks(12).map(sum).collect()
}

/// The largest error relative to the largest output, with standard-normal inputs and He weights.
fn error(s: &ConvShape, variant: Option<Variant>) -> f64 {
    let deviation = (2.0 / (s.ic * s.kh * s.kw) as f32).sqrt();
    let x = normal(s.input().plain_len(), 1);
    let w: Vec<f32> = normal(s.weight_len(), 2).iter().map(|w| w * deviation).collect();
    let got = match variant {
        None => reference::conv::forward(s, &x, &w),
        Some(variant) => reference::winograd::forward(variant, s, &x, &w, &vec![0.0; s.ic]),
    };
    let exact = reference::conv::forward(s, &wide(&x), &wide(&w)).unwrap();
    let largest = exact.iter().fold(0.0f64, |a, v| a.max(v.abs()));
    let errors = got.unwrap().into_iter().zip(&exact).map(|(g, e)| (f64::from(g) - e).abs());
    errors.fold(0.0, f64::max) / largest
}

/// The bounds that [`Algorithm`] documents, up to 512 channels.
#[test]
fn each_algorithm_keeps_its_documented_bound() {
    for channels in [16, 64, 256, 512] {
        // With stride 1 the tiles at the edges have any number of outputs, by others in the one direction than in the
        // other.
        let sides = [(2, 1, 12), (3, 1, 12), (3, 2, 24), (4, 2, 24), (5, 2, 24)].into_iter();
        for (kernel, stride, side) in sides.chain((13..16).flat_map(|side| [(2, 1, side), (3, 1, side)])) {
            let square = ConvShape::square(1, channels, side, 16, kernel, stride, kernel / 2);
            let s = ConvShape { iw: if side % 2 == 0 { side } else { 26 - side }, ..square };
            for (algorithm, bound) in [
                (Algorithm::Auto, 5e-6),
                (Algorithm::Winograd, 5e-6),
                (Algorithm::WinogradAccurate, 2e-6),
                (Algorithm::Direct, 2e-6),
            ] {
                let Ok(variant) = algorithm.variant(&s) else {
                    assert!(algorithm == Algorithm::WinogradAccurate && kernel > 3, "{algorithm} serves {s:?}");
                    continue;
                };
                let found = error(&s, variant);
                assert!(
                    found < bound,
                    "{algorithm} at {channels} channels, {side} pixels, {kernel}×{kernel}, stride {stride}: {found:e}"
                );
                assert!(found > 0.0, "{algorithm} at {channels} channels: no error at all proves nothing");
            }
        }
    }
}

/// The same for first layers, from NCHW.
#[test]
fn a_first_layer_keeps_its_documented_bound() {
    for channels in 1..=Layout::MOST_CHANNELS {
        let s = ConvShape::square(1, channels, 64, 32, 7, 2, 3);
        for (algorithm, want) in [(Algorithm::Auto, None), (Algorithm::Winograd, Some(Variant::F4x7S2))] {
            let variant = algorithm.variant_from(&s, Layout::Nchw).unwrap();
            assert!(want.is_none() || variant == want, "{algorithm}: {variant:?}");
            let found = error(&s, variant);
            assert!(found < 5e-6 && found > 0.0, "{algorithm} at {channels} channels: {found:e}");
        }
    }
}

/// The same for the gradient of the input of strided convolutions, relative to its largest element, with
/// standard-normal gradients of outputs.
#[test]
fn a_strided_gradient_keeps_its_documented_bound() {
    for channels in [16, 64, 128, 512] {
        for (kernel, ic) in [3, 4, 5, 7].into_iter().flat_map(|kernel| [(kernel, 3), (kernel, 8)]) {
            let s = ConvShape::square(1, ic, 31, channels, kernel, 2, kernel / 2);
            let deviation = (2.0 / (s.oc * s.kh * s.kw) as f32).sqrt();
            let dy = normal(s.output().plain_len(), 1);
            let w: Vec<f32> = normal(s.weight_len(), 2).iter().map(|w| w * deviation).collect();
            let exact = reference::conv::backward_data(&s, &wide(&dy), &wide(&w)).unwrap();
            let largest = exact.iter().fold(0.0f64, |a, v| a.max(v.abs()));
            for (algorithm, bound) in
                [(Algorithm::Auto, 5e-6), (Algorithm::Winograd, 5e-6), (Algorithm::WinogradAccurate, 2e-6)]
            {
                let is_long = algorithm == Algorithm::Winograd && kernel == 7 && channels > 128;
                let bound = if is_long { 1.5e-5 } else { bound };
                let Ok(variant) = algorithm.data_variant(&s) else {
                    assert!(algorithm == Algorithm::WinogradAccurate && kernel > 3, "{algorithm} serves {s:?}");
                    continue;
                };
                let got = match variant {
                    None => reference::conv::backward_data(&s, &dy, &w),
                    Some(variant) => reference::winograd::backward_data(variant, &s, &dy, &w),
                };
                let errors = got.unwrap().into_iter().zip(&exact).map(|(g, e)| (f64::from(g) - e).abs());
                let found = errors.fold(0.0, f64::max) / largest;
                assert!(
                    found < bound && found > 0.0,
                    "{algorithm} at {channels} channels, {kernel}×{kernel}: {found:e}"
                );
            }
        }
    }
}

const VARIANTS: [Variant; 4] = [Variant::F4x3, Variant::F2x3, Variant::F4x2, Variant::F3x2];

/// The magnitudes of a transform's coefficients, row by row, from what it does to unit vectors.
fn coefficients(from: usize, line: impl Fn(&[f64]) -> Vec<f64>) -> Vec<Vec<f64>> {
    let columns: Vec<Vec<f64>> =
        (0..from).map(|c| line(&(0..from).map(|i| f64::from(u8::from(i == c))).collect::<Vec<f64>>())).collect();
    (0..columns[0].len()).map(|r| columns.iter().map(|c| c[r].abs()).collect()).collect()
}

/// A matrix times a tile times another matrix's transpose.
fn sandwich(a: &[Vec<f64>], tile: &[f64], b: &[Vec<f64>]) -> Vec<f64> {
    let cols = b[0].len();
    let pair = |i: usize, j: usize| -> f64 { (0..tile.len()).map(|k| a[i][k / cols] * tile[k] * b[j][k % cols]).sum() };
    (0..a.len() * b.len()).map(|p| pair(p / b.len(), p % b.len())).collect()
}

/// The matrices of both axes of the tile at `(top, left)` of so many outputs: from so many values the transforms that
/// `line` says.
fn axes(
    variant: Variant,
    s: &ConvShape,
    [top, left]: [usize; 2],
    from: impl Fn(Axis) -> usize,
    line: impl Fn(Axis, &[f64]) -> Vec<f64>,
) -> [Vec<Vec<f64>>; 2] {
    [variant.axis(top, s.oh()), variant.axis(left, s.ow())].map(|axis| coefficients(from(axis), |d| line(axis, d)))
}

/// Those of a variant's positions that products are taken at.
fn positions(variant: Variant, s: &ConvShape, [top, left]: [usize; 2]) -> Vec<usize> {
    let [rows, cols] = [variant.axis(top, s.oh()), variant.axis(left, s.ow())].map(Axis::positions);
    rows.iter().flat_map(|row| cols.iter().map(move |col| row * variant.n() + col)).collect()
}

/// The weight gradient of one pair of channels, one image without padding, with the magnitudes of all numbers and all
/// coefficients: what its roundings are relative to.
fn weights_size(variant: Variant, s: &ConvShape, x: &[f64], dy: &[f64]) -> Vec<f64> {
    let (n, m) = (variant.n(), variant.m());
    let taps = coefficients(n, |d| variant.taps(d));
    let tile = |from: &[f64], (h, w): (usize, usize), [top, left]: [usize; 2], [a, b]: [usize; 2]| -> Vec<f64> {
        let pixel = |(r, c): (usize, usize)| if r < h && c < w { from[r * w + c].abs() } else { 0.0 };
        (0..a * b).map(|i| pixel((top + i / b, left + i % b))).collect()
    };
    let mut sums = vec![0.0; n * n];
    for at in (0..s.oh()).step_by(m).flat_map(|top| (0..s.ow()).step_by(m).map(move |left| [top, left])) {
        let inputs = axes(variant, s, at, |axis| axis.positions().len(), |axis, d| axis.input(d));
        let gradients = axes(variant, s, at, Axis::outputs, |axis, d| axis.gradient(d));
        let sides = |m: &[Vec<Vec<f64>>; 2]| [m[0][0].len(), m[1][0].len()];
        let x = sandwich(&inputs[0], &tile(x, (s.ih, s.iw), at, sides(&inputs)), &inputs[1]);
        let dy = sandwich(&gradients[0], &tile(dy, (s.oh(), s.ow()), at, sides(&gradients)), &gradients[1]);
        positions(variant, s, at).into_iter().zip(x.iter().zip(&dy)).for_each(|(p, (x, dy))| sums[p] += x * dy);
    }
    sandwich(&taps, &sums, &taps)
}

/// An output of one image without padding, with the magnitudes of all numbers and all coefficients: what its roundings
/// are relative to.
fn forward_size(variant: Variant, s: &ConvShape, x: &[f64], w: &[f64]) -> Vec<f64> {
    let (n, m, r, step) = (variant.n(), variant.m(), variant.r(), variant.stride());
    let taps = variant.phase_taps(0);
    let kernel = coefficients(taps, |g| variant.kernel(g));
    let mut y = vec![0.0; s.oh() * s.ow()];
    for at in (0..s.oh()).step_by(m).flat_map(|top| (0..s.ow()).step_by(m).map(move |left| [top, left])) {
        let [top, left] = at;
        let output = axes(variant, s, at, |axis| axis.positions().len(), |axis, d| axis.output(d));
        let positions = positions(variant, s, at);
        let wide = output[1][0].len();
        let mut sums = vec![0.0; positions.len()];
        for (c, [p, q]) in (0..s.ic).flat_map(|c| (0..step * step).map(move |phase| (c, [phase / step, phase % step])))
        {
            // Positions that the phase has no part in are the last.
            let line = |phase: usize| {
                let reach = |axis: Axis| axis.positions().len() - (n - variant.reach(phase));
                axes(variant, s, at, reach, |axis, d| axis.input(d))
            };
            let ([rows, _], [_, cols]) = (line(p), line(q));
            let x = |i: usize, j: usize| {
                let (row, col) = ((top + i) * step + p, (left + j) * step + q);
                if row < s.ih && col < s.iw { x[(c * s.ih + row) * s.iw + col].abs() } else { 0.0 }
            };
            let tap = |i: usize| {
                let (row, col) = (i / taps * step + p, i % taps * step + q);
                if row < r && col < r { w[(c * r + row) * r + col].abs() } else { 0.0 }
            };
            let u = sandwich(&kernel, &(0..taps * taps).map(tap).collect::<Vec<f64>>(), &kernel);
            for (i, a) in rows.iter().enumerate() {
                for (j, b) in cols.iter().enumerate() {
                    let v: f64 = (0..a.len() * b.len())
                        .map(|k| a[k / b.len()] * b[k % b.len()] * x(k / b.len(), k % b.len()))
                        .sum();
                    sums[i * wide + j] += u[positions[i * wide + j]] * v;
                }
            }
        }
        let outputs = sandwich(&output[0], &sums, &output[1]);
        let across = output[1].len();
        for (i, v) in outputs.into_iter().enumerate() {
            let (row, col) = (top + i / across, left + i % across);
            if row < s.oh() && col < s.ow() {
                y[row * s.ow() + col] = v;
            }
        }
    }
    y
}

/// Winograd's outputs: `|error| ≤ γ(k) · |Aᵀ| [Σ (|G| |g| |Gᵀ|) ⊙ (|Bᵀ| |d| |B|)] |A|`, the sum over phases and
/// channels, where `k` counts the roundings on the longest way: in each dimension of the input's transform five (a
/// coefficient, four operations), of the weights' four, a chunk of the sum and an addition a chunk, in each dimension
/// of the output's transform five.
#[test]
fn winograds_outputs_are_within_the_derived_bound() {
    for (variant, side) in Variant::ALL.into_iter().flat_map(|variant| (14..18).map(move |side| (variant, side))) {
        // Two chunks and a bit at the positions of one phase, nine at those of four; all numbers of outputs at the
        // edges.
        let s = ConvShape { iw: 15, ..ConvShape::square(1, 1060, side, 1, variant.r(), variant.stride(), 0) };
        let (x, w) = (normal(s.input().plain_len(), 1), normal(s.weight_len(), 2));
        let exact = reference::conv::forward(&s, &wide(&x), &wide(&w)).unwrap();
        let got = reference::winograd::forward(variant, &s, &x, &w, &vec![0.0; s.ic]).unwrap();
        let size = forward_size(variant, &s, &wide(&x), &wide(&w));
        let segments = s.ic.div_ceil(16) * variant.stride() * variant.stride();
        let chunks = segments.div_ceil(reference::conv::CHUNK);
        let k = (2 * 5 + 2 * 4 + 16 * reference::conv::CHUNK + chunks + 2 * 5) as f64 * f64::from(f32::EPSILON) / 2.0;
        let gamma = k / (1.0 - k);
        let mut worst = 0.0f64;
        for ((g, e), size) in got.iter().zip(&exact).zip(&size) {
            worst = worst.max((f64::from(*g) - e).abs() / (gamma * size));
        }
        assert!(worst <= 1.0 && worst > 0.0, "{variant:?}, {side} pixels: {worst} of the bound");
    }
}

/// Winograd's weight gradient: `|error| ≤ γ(k) · |Gᵀ| [Σ (|Bᵀ| |d| |B|) ⊙ (|A| |dY| |Aᵀ|)] |G|`, where `k` counts the
/// roundings on the longest way: in each dimension of the inputs' transform five (a coefficient, four operations), of
/// the gradients' three, four in the last; a chunk of the sum; an addition a chunk of a group, an addition a group.
#[test]
fn winograds_weight_gradient_is_within_the_derived_bound() {
    let edges = VARIANTS.into_iter().flat_map(|variant| (0..variant.m()).map(move |edge| (variant, edge)));
    // Several chunks, with all numbers of outputs at the lower edge; of short ones two groups and a bit, of long ones
    // two.
    let shapes = |edge| if edge == 0 { &[(1, 65, 4096), (577, 17, 256)][..] } else { &[(1, 35, 1120)] };
    for ((variant, edge), &(oc, side, least)) in edges.flat_map(|of| shapes(of.1).iter().map(move |shape| (of, shape)))
    {
        let square = ConvShape::square(1, 1, side * variant.m() + variant.r(), oc, variant.r(), 1, 0);
        let s = ConvShape { ih: square.ih + edge, ..square };
        assert!((s.oh() / variant.m()) * (s.ow() / variant.m()) > least);
        let (x, dy) = (normal(s.input().plain_len(), 1), normal(s.output().plain_len(), 2));
        let exact = reference::conv::backward_weights(&s, &wide(&x), &wide(&dy)).unwrap();
        let got = reference::winograd::backward_weights(variant, &s, &x, &dy).unwrap();
        let size = weights_size(variant, &s, &wide(&x), &wide(&dy));
        let tiles = s.oh().div_ceil(variant.m()) * s.ow().div_ceil(variant.m());
        let format = variant.chunks(s.ic, s.oc);
        let chunks = tiles.div_ceil(format.tiles);
        let additions = chunks.min(format.group) + chunks.div_ceil(format.group);
        let k = (2 * 5 + 2 * 3 + format.tiles + additions + 2 * 4) as f64 * f64::from(f32::EPSILON) / 2.0;
        let gamma = k / (1.0 - k);
        let mut worst = 0.0f64;
        for ((g, e), size) in got.iter().zip(&exact).zip(&size) {
            worst = worst.max((f64::from(*g) - e).abs() / (gamma * size));
        }
        assert!(worst <= 1.0 && worst > 0.0, "{variant:?}, {oc}: {worst} of the bound");
    }
}

/// The bounds that [`Algorithm`] documents, relative to the largest weight's gradient, with standard-normal inputs and
/// output gradients.
#[test]
fn each_weight_gradient_keeps_its_documented_bound() {
    for (images, side) in [(1, 12), (1, 13), (3, 14), (3, 15), (1, 56), (20, 32), (8, 224)] {
        // First layers have so many tiles that groups of chunks matter.
        let kernels = [(7, 2), (2, 1), (3, 1), (3, 2), (4, 2), (5, 2)];
        for (kernel, stride) in kernels.into_iter().take(if side > 100 { 1 } else { 6 }) {
            let s = ConvShape::square(images, 2, side, 3, kernel, stride, kernel / 2);
            let (x, dy) = (normal(s.input().plain_len(), 1), normal(s.output().plain_len(), 2));
            let exact = reference::conv::backward_weights(&s, &wide(&x), &wide(&dy)).unwrap();
            let largest = exact.iter().fold(0.0f64, |a, v| a.max(v.abs()));
            for (algorithm, bound) in
                [(Algorithm::Winograd, 5e-6), (Algorithm::WinogradAccurate, 2e-6), (Algorithm::Direct, 2e-6)]
            {
                let Ok(variant) = algorithm.weights_variant(&s) else {
                    assert!(algorithm == Algorithm::WinogradAccurate && kernel > 3, "{algorithm} serves {s:?}");
                    continue;
                };
                let got = match variant {
                    None => reference::conv::backward_weights(&s, &x, &dy),
                    Some(variant) => reference::winograd::backward_weights(variant, &s, &x, &dy),
                };
                let errors = got.unwrap().into_iter().zip(&exact).map(|(g, e)| (f64::from(g) - e).abs());
                let found = errors.fold(0.0, f64::max) / largest;
                assert!(
                    found < bound && found > 0.0,
                    "{algorithm}, {images} of {side}, {kernel}×{kernel}, stride {stride}: {found:e}"
                );
            }
        }
    }
}

/// Inputs scaled by 1e30 stay finite, as they do in the direct sum.
#[test]
fn large_inputs_stay_finite() {
    for variant in Variant::ALL {
        let s = ConvShape::square(1, 64, 12, 64, variant.r(), variant.stride(), 1);
        let x: Vec<f32> = normal(s.input().plain_len(), 1).iter().map(|x| x * 1e30).collect();
        let w = normal(s.weight_len(), 2);
        let y = reference::winograd::forward(variant, &s, &x, &w, &vec![0.0; s.ic]).unwrap();
        assert!(y.iter().all(|v| v.is_finite()), "{variant:?}");
        let dy: Vec<f32> = normal(s.output().plain_len(), 3).iter().map(|dy| dy * 1e30).collect();
        let dx = reference::winograd::backward_data(variant, &s, &dy, &w).unwrap();
        assert!(dx.iter().all(|v| v.is_finite()), "{variant:?}");
    }
}
