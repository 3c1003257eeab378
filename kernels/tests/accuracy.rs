//! Errors of the convolution algorithms against `f64`.

mod common;

use common::noise;
use rectify_kernels::ConvShape;
use rectify_kernels::conv::Algorithm;
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
        for kernel in [2, 3] {
            let s = ConvShape::square(1, channels, 12, 16, kernel, 1, kernel / 2);
            for (algorithm, bound) in [
                (Algorithm::Auto, 5e-6),
                (Algorithm::Winograd, 5e-6),
                (Algorithm::WinogradAccurate, 2e-6),
                (Algorithm::Direct, 2e-6),
            ] {
                let found = error(&s, algorithm.variant(&s).unwrap());
                assert!(found < bound, "{algorithm} at {channels} channels, {kernel}×{kernel}: {found:e}");
                assert!(found > 0.0, "{algorithm} at {channels} channels: no error at all proves nothing");
            }
        }
    }
}

/// Inputs scaled by 1e30 stay finite, as they do in the direct sum.
#[test]
fn large_inputs_stay_finite() {
    let s = ConvShape::square(1, 64, 12, 8, 3, 1, 1);
    let x: Vec<f32> = normal(s.input().plain_len(), 1).iter().map(|x| x * 1e30).collect();
    let w = normal(s.weight_len(), 2);
    for variant in [Variant::F4x3, Variant::F2x3] {
        let y = reference::winograd::forward(variant, &s, &x, &w, &vec![0.0; s.ic]).unwrap();
        assert!(y.iter().all(|v| v.is_finite()), "{variant:?}");
    }
}
