//! Errors of the convolution algorithms against `f64`.

mod common;

use common::noise;
use rectify_kernels::ConvShape;
use rectify_kernels::conv::{Algorithm, Layout};
use rectify_kernels::reference::{self, winograd::Variant};

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
        for (kernel, stride) in [(2, 1), (3, 1), (3, 2), (4, 2), (5, 2)] {
            let s = ConvShape::square(1, channels, 12 * stride, 16, kernel, stride, kernel / 2);
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
                    "{algorithm} at {channels} channels, {kernel}×{kernel}, stride {stride}: {found:e}"
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

const VARIANTS: [Variant; 3] = [Variant::F4x3, Variant::F2x3, Variant::F3x2];

/// The magnitudes of a transform's coefficients, row by row, from what it does to unit vectors.
fn coefficients(from: usize, line: impl Fn(&[f64]) -> Vec<f64>) -> Vec<Vec<f64>> {
    let columns: Vec<Vec<f64>> =
        (0..from).map(|c| line(&(0..from).map(|i| f64::from(u8::from(i == c))).collect::<Vec<f64>>())).collect();
    (0..columns[0].len()).map(|r| columns.iter().map(|c| c[r].abs()).collect()).collect()
}

/// A matrix times a square tile times the matrix's transpose.
fn sandwich(m: &[Vec<f64>], tile: &[f64]) -> Vec<f64> {
    let side = m[0].len();
    let pair =
        |i: usize, j: usize| -> f64 { (0..side * side).map(|k| m[i][k / side] * tile[k] * m[j][k % side]).sum() };
    (0..m.len() * m.len()).map(|p| pair(p / m.len(), p % m.len())).collect()
}

/// The weight gradient of one pair of channels, one image without padding, with the magnitudes of all numbers and all
/// coefficients: what its roundings are relative to.
fn weights_size(variant: Variant, s: &ConvShape, x: &[f64], dy: &[f64]) -> Vec<f64> {
    let (n, m) = (variant.n(), variant.m());
    let inputs = coefficients(n, |d| variant.input(d));
    let (gradients, taps) = (coefficients(m, |d| variant.gradient(d)), coefficients(n, |d| variant.taps(d)));
    let tile = |from: &[f64], (h, w): (usize, usize), (top, left): (usize, usize), side: usize| -> Vec<f64> {
        let pixel = |(r, c): (usize, usize)| if r < h && c < w { from[r * w + c].abs() } else { 0.0 };
        (0..side * side).map(|i| pixel((top + i / side, left + i % side))).collect()
    };
    let mut sums = vec![0.0; n * n];
    for (top, left) in (0..s.oh()).step_by(m).flat_map(|top| (0..s.ow()).step_by(m).map(move |left| (top, left))) {
        let x = sandwich(&inputs, &tile(x, (s.ih, s.iw), (top, left), n));
        let dy = sandwich(&gradients, &tile(dy, (s.oh(), s.ow()), (top, left), m));
        sums.iter_mut().zip(x.iter().zip(&dy)).for_each(|(sum, (x, dy))| *sum += x * dy);
    }
    sandwich(&taps, &sums)
}

/// An output of one image without padding, with the magnitudes of all numbers and all coefficients: what its roundings are
/// relative to.
fn forward_size(variant: Variant, s: &ConvShape, x: &[f64], w: &[f64]) -> Vec<f64> {
    let (n, m, r, step) = (variant.n(), variant.m(), variant.r(), variant.stride());
    let taps = variant.phase_taps(0);
    let (output, kernel) = (coefficients(n, |d| variant.output(d)), coefficients(taps, |g| variant.kernel(g)));
    let line = |positions: usize| coefficients(positions, |d| variant.input(d));
    let mut y = vec![0.0; s.oh() * s.ow()];
    for (top, left) in (0..s.oh()).step_by(m).flat_map(|top| (0..s.ow()).step_by(m).map(move |left| (top, left))) {
        let mut sums = vec![0.0; n * n];
        for (c, [p, q]) in (0..s.ic).flat_map(|c| (0..step * step).map(move |phase| (c, [phase / step, phase % step])))
        {
            let (rows, cols) = (line(variant.reach(p)), line(variant.reach(q)));
            let x = |i: usize, j: usize| {
                let (row, col) = ((top + i) * step + p, (left + j) * step + q);
                if row < s.ih && col < s.iw { x[(c * s.ih + row) * s.iw + col].abs() } else { 0.0 }
            };
            let tap = |i: usize| {
                let (row, col) = (i / taps * step + p, i % taps * step + q);
                if row < r && col < r { w[(c * r + row) * r + col].abs() } else { 0.0 }
            };
            let u = sandwich(&kernel, &(0..taps * taps).map(tap).collect::<Vec<f64>>());
            for (i, a) in rows.iter().enumerate() {
                for (j, b) in cols.iter().enumerate() {
                    let v: f64 = (0..a.len() * b.len())
                        .map(|k| a[k / b.len()] * b[k % b.len()] * x(k / b.len(), k % b.len()))
                        .sum();
                    sums[i * n + j] += u[i * n + j] * v;
                }
            }
        }
        for (i, v) in sandwich(&output, &sums).into_iter().enumerate() {
            let (row, col) = (top + i / m, left + i % m);
            if row < s.oh() && col < s.ow() {
                y[row * s.ow() + col] = v;
            }
        }
    }
    y
}

/// Winograd's outputs: `|error| ≤ γ(k) · |Aᵀ| [Σ (|G| |g| |Gᵀ|) ⊙ (|Bᵀ| |d| |B|)] |A|`, the sum over phases and channels, where `k`
/// counts the roundings on the longest way: in each dimension of the input's transform three (a coefficient, two operations),
/// of the weights' four, a chunk of the sum and an addition a chunk, in each dimension of the output's transform four.
#[test]
fn winograds_outputs_are_within_the_derived_bound() {
    for variant in Variant::ALL {
        // Two chunks and a bit at the positions of one phase, nine at those of four.
        let s = ConvShape::square(1, 1060, 15, 1, variant.r(), variant.stride(), 0);
        let (x, w) = (normal(s.input().plain_len(), 1), normal(s.weight_len(), 2));
        let exact = reference::conv::forward(&s, &wide(&x), &wide(&w)).unwrap();
        let got = reference::winograd::forward(variant, &s, &x, &w, &vec![0.0; s.ic]).unwrap();
        let size = forward_size(variant, &s, &wide(&x), &wide(&w));
        let segments = s.ic.div_ceil(16) * variant.stride() * variant.stride();
        let chunks = segments.div_ceil(reference::conv::CHUNK);
        let k = (2 * 3 + 2 * 4 + 16 * reference::conv::CHUNK + chunks + 2 * 4) as f64 * f64::from(f32::EPSILON) / 2.0;
        let gamma = k / (1.0 - k);
        let mut worst = 0.0f64;
        for ((g, e), size) in got.iter().zip(&exact).zip(&size) {
            worst = worst.max((f64::from(*g) - e).abs() / (gamma * size));
        }
        assert!(worst <= 1.0 && worst > 0.0, "{variant:?}: {worst} of the bound");
    }
}

/// Winograd's weight gradient: `|error| ≤ γ(k) · |Gᵀ| [Σ (|Bᵀ| |d| |B|) ⊙ (|A| |dY| |Aᵀ|)] |G|`, where `k` counts the roundings
/// on the longest way: in each dimension of a transform three (a coefficient, two operations), four in the last; a chunk
/// of the sum; an addition a chunk.
#[test]
fn winograds_weight_gradient_is_within_the_derived_bound() {
    for variant in VARIANTS {
        // Nine chunks of tiles and a bit.
        let s = ConvShape::square(1, 1, 35 * variant.m() + variant.r(), 1, variant.r(), 1, 0);
        assert!((s.oh() / variant.m()).pow(2) > 9 * reference::winograd::TILES);
        let (x, dy) = (normal(s.input().plain_len(), 1), normal(s.output().plain_len(), 2));
        let exact = reference::conv::backward_weights(&s, &wide(&x), &wide(&dy)).unwrap();
        let got = reference::winograd::backward_weights(variant, &s, &x, &dy).unwrap();
        let size = weights_size(variant, &s, &wide(&x), &wide(&dy));
        let chunks = (s.oh().div_ceil(variant.m()).pow(2)).div_ceil(reference::winograd::TILES);
        let k = (2 * 3 + 2 * 3 + reference::winograd::TILES + chunks + 2 * 4) as f64 * f64::from(f32::EPSILON) / 2.0;
        let gamma = k / (1.0 - k);
        let mut worst = 0.0f64;
        for ((g, e), size) in got.iter().zip(&exact).zip(&size) {
            worst = worst.max((f64::from(*g) - e).abs() / (gamma * size));
        }
        assert!(worst <= 1.0 && worst > 0.0, "{variant:?}: {worst} of the bound");
    }
}

/// The bounds that [`Algorithm`] documents, relative to the largest weight's gradient, with standard-normal inputs and
/// output gradients.
#[test]
fn each_weight_gradient_keeps_its_documented_bound() {
    for (images, side) in [(1, 12), (1, 56), (20, 32)] {
        for kernel in [2, 3] {
            let s = ConvShape::square(images, 2, side, 3, kernel, 1, kernel / 2);
            let (x, dy) = (normal(s.input().plain_len(), 1), normal(s.output().plain_len(), 2));
            let exact = reference::conv::backward_weights(&s, &wide(&x), &wide(&dy)).unwrap();
            let largest = exact.iter().fold(0.0f64, |a, v| a.max(v.abs()));
            for (algorithm, bound) in
                [(Algorithm::Winograd, 5e-6), (Algorithm::WinogradAccurate, 2e-6), (Algorithm::Direct, 2e-6)]
            {
                let got = match algorithm.weights_variant(&s).unwrap() {
                    None => reference::conv::backward_weights(&s, &x, &dy),
                    Some(variant) => reference::winograd::backward_weights(variant, &s, &x, &dy),
                };
                let errors = got.unwrap().into_iter().zip(&exact).map(|(g, e)| (f64::from(g) - e).abs());
                let found = errors.fold(0.0, f64::max) / largest;
                assert!(found < bound && found > 0.0, "{algorithm}, {images} of {side}, {kernel}×{kernel}: {found:e}");
            }
        }
    }
}

/// Inputs scaled by 1e30 stay finite, as they do in the direct sum.
#[test]
fn large_inputs_stay_finite() {
    for variant in Variant::ALL {
        let s = ConvShape::square(1, 64, 12, 8, variant.r(), variant.stride(), 1);
        let x: Vec<f32> = normal(s.input().plain_len(), 1).iter().map(|x| x * 1e30).collect();
        let w = normal(s.weight_len(), 2);
        let y = reference::winograd::forward(variant, &s, &x, &w, &vec![0.0; s.ic]).unwrap();
        assert!(y.iter().all(|v| v.is_finite()), "{variant:?}");
    }
}
