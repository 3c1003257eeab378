use super::*;
use crate::testing::{everywhere, numbers, same_bits, to_blocked};
use crate::{Error, reference};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn bits_are_the_reference_s(n in prop_oneof![8 => 1usize..40, 1 => 250usize..520], c in 1usize..70, seed: u64, special: bool, scale in 0.1f32..50.0) {
        let d = Dims { n, c, h: 1, w: 1 };
        let z: Vec<f32> = numbers(seed, n * c, special).iter().map(|z| z * scale).collect();
        let labels: Vec<u32> = (0..n as u64).map(|i| ((seed >> 7).wrapping_add(i * 31) % c as u64) as u32).collect();
        let (want, gradient) = reference::loss::softmax_cross_entropy(c, &z, &labels).unwrap();
        let (z, gradient) = (to_blocked(&d, &z, 0.0), to_blocked(&d, &gradient, 0.0));
        let check = everywhere(|_| {
            let mut dz = vec![f32::NAN; z.len()];
            let got = softmax_cross_entropy(d, &z, &labels, Some(&mut dz)).unwrap();
            same_bits(&dz, &gradient)?;
            let without = softmax_cross_entropy(d, &z, &labels, None).unwrap();
            for got in [got, without] {
                let same = got.loss.to_bits() == want.loss.to_bits() || got.loss.is_nan() && want.loss.is_nan();
                if !same || got.correct != want.correct {
                    return Err(format!("{got:?}, want {want:?}"));
                }
            }
            Ok(())
        });
        prop_assert_eq!(check, Ok(()));
    }
}

#[test]
fn the_gradient_is_the_central_difference() {
    let z: Vec<f64> = numbers(3, 4 * 7, false).into_iter().map(f64::from).collect();
    let labels = [0, 6, 3, 3];
    let mean = |z: &[f64]| reference::loss::softmax_cross_entropy(7, z, &labels).unwrap().0.loss / 4.0;
    let gradient = reference::loss::softmax_cross_entropy(7, &z, &labels).unwrap().1;
    for i in 0..z.len() {
        let moved = |e: f64| {
            let mut z = z.clone();
            z[i] += e;
            mean(&z)
        };
        assert!((gradient[i] - (moved(1e-6) - moved(-1e-6)) / 2e-6).abs() < 1e-9);
    }
}

#[test]
fn known_values() {
    // Equal logits: ln 4; the first class wins the tie.
    let d = Dims { n: 2, c: 4, h: 1, w: 1 };
    let mut dz = vec![f32::NAN; 32];
    let got = softmax_cross_entropy(d, &[0.0; 32], &[0, 2], Some(&mut dz)).unwrap();
    assert!((got.loss - 2.0 * 4f64.ln()).abs() < 1e-14);
    assert_eq!(got.correct, 1);
    assert_eq!(dz[..5], [-0.375, 0.125, 0.125, 0.125, 0.0]);
    // Logits far apart neither overflow nor vanish.
    let one = Dims { n: 1, c: 2, h: 1, w: 1 };
    let mut z = [0.0; 16];
    (z[0], z[1]) = (3e38, -3e38);
    assert_eq!(softmax_cross_entropy(one, &z, &[0], None).unwrap(), LossSums { loss: 0.0, correct: 1 });
    assert_eq!(softmax_cross_entropy(one, &z, &[1], None).unwrap().loss, f64::from(3e38f32) * 2.0);
}

#[test]
fn bad_input_is_refused() {
    let d = Dims { n: 2, c: 3, h: 1, w: 1 };
    let e = softmax_cross_entropy(d, &[0.0; 32], &[2, 3], None);
    assert_eq!(e, Err(Error::Label { sample: 1, label: 3, classes: 3 }));
    let e = softmax_cross_entropy(Dims { h: 2, ..d }, &[0.0; 64], &[2, 2], None);
    assert!(matches!(e, Err(Error::Shape { value: 2, .. })));
    let e = softmax_cross_entropy(d, &[0.0; 32], &[2], None);
    assert_eq!(e, Err(Error::Length { what: "labels", got: 1, want: 2 }));
    let none = softmax_cross_entropy(Dims { n: 0, ..d }, &[], &[], None);
    assert_eq!(none, Ok(LossSums::default()));
}
