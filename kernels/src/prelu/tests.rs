use super::*;
use crate::testing::{dims, everywhere, numbers, same_bits, slope, to_blocked};
use crate::{Dims, reference};
use proptest::prelude::*;

/// The bits of forward, backward and the bias gradient are the reference's; padding lanes stay zero.
fn check_bits(d: Dims, seed: u64, slopes: &[f32], special: bool) -> Result<(), String> {
    let (pre, dy) = (numbers(seed, d.plain_len(), special), numbers(!seed, d.plain_len(), special));
    let y = reference::prelu::forward(&d, &pre, slopes).unwrap();
    let want = reference::prelu::backward(&d, &pre, slopes, &dy).unwrap();
    let want_db = reference::prelu::bias_gradient(&d, &dy).unwrap();
    let (bpre, bdy) = (to_blocked(&d, &pre, 0.0), to_blocked(&d, &dy, 0.0));
    let (by, bdx) = (to_blocked(&d, &y, 0.0), to_blocked(&d, &want.dx, 0.0));
    everywhere(|isa| {
        let mut out = vec![f32::NAN; by.len()];
        forward(isa, d, &bpre, slopes, &mut out).unwrap();
        same_bits(&out, &by)?;
        out.copy_from_slice(&bpre);
        forward_in_place(isa, d, &mut out, slopes).unwrap();
        same_bits(&out, &by)?;
        let (mut ds, mut db) = (vec![f32::NAN; slopes.len()], vec![f32::NAN; d.c]);
        let mut workspace = vec![f32::NAN; workspace_len(d)];
        out.copy_from_slice(&bdy);
        backward(isa, d, &bpre, slopes, &mut out, Some(&mut ds), Some(&mut db), &mut workspace).unwrap();
        same_bits(&out, &bdx)?;
        same_bits(&ds, &want.dslopes)?;
        same_bits(&db, &want.dbias)?;
        workspace.fill(f32::NAN);
        bias_gradient(isa, d, &bdy, &mut db, &mut workspace).unwrap();
        same_bits(&db, &want_db)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn bits_are_the_reference_s(
        d in dims(), seed: u64, special: bool, shared: bool, slopes in prop::collection::vec(slope(), 600),
    ) {
        let slopes = &slopes[..if shared { 1 } else { d.c }];
        prop_assert_eq!(check_bits(d, seed, slopes, special), Ok(()));
    }

    #[test]
    fn forward_does_not_depend_on_the_batch(d in dims(), seed: u64, a in slope()) {
        let d = Dims { n: 7, ..d };
        let x = to_blocked(&d, &numbers(seed, d.plain_len(), true), 0.0);
        let (mut whole, mut single) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        let isa = Isa::best().unwrap();
        forward(isa, d, &x, &[a], &mut whole).unwrap();
        for (x, y) in x.chunks(x.len() / 7).zip(single.chunks_mut(x.len() / 7)) {
            forward(isa, Dims { n: 1, ..d }, x, &[a], y).unwrap();
        }
        prop_assert_eq!(same_bits(&single, &whole), Ok(()));
    }
}

#[test]
fn a_large_plane_is_cut_into_tasks_without_a_trace() {
    let slopes: Vec<f32> = numbers(3, 33, false);
    check_bits(Dims { n: 10, c: 33, h: 30, w: 21 }, 1, &slopes, false).unwrap();
    check_bits(Dims { n: 300, c: 33, h: 1, w: 1 }, 2, &slopes, false).unwrap();
}

#[test]
fn special_values_are_as_documented() {
    let x = [f32::NAN, -0.0, 0.0, -3.0, f32::NEG_INFINITY, f32::INFINITY, 2.0];
    let f = |a: f32| {
        let d = Dims { n: 1, c: 1, h: 1, w: x.len() };
        let (mut y, mut plain) = (to_blocked(&d, &x, 0.0), vec![0.0; x.len()]);
        forward_in_place(Isa::Portable, d, &mut y, &[a]).unwrap();
        plain.iter_mut().zip(y.chunks(LANES)).for_each(|(p, y)| *p = y[0]);
        plain
    };
    let inf = f32::INFINITY;
    same_bits(&f(0.5), &[f32::NAN, -0.0, 0.0, -1.5, -inf, inf, 2.0]).unwrap();
    same_bits(&f(0.0), &[f32::NAN, -0.0, 0.0, -0.0, f32::NAN, inf, 2.0]).unwrap();
    same_bits(&f(-1.0), &[f32::NAN, 0.0, -0.0, 3.0, inf, inf, 2.0]).unwrap();
}

#[test]
fn the_sums_are_accurate() {
    let d = Dims { n: 9, c: 3, h: 40, w: 41 };
    let (pre, dy) = (numbers(5, d.plain_len(), false), numbers(6, d.plain_len(), false));
    let got = reference::prelu::backward(&d, &pre, &[0.25; 3], &dy).unwrap();
    let wide = |x: &[f32]| x.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    let want = reference::prelu::backward(&d, &wide(&pre), &[0.25; 3], &wide(&dy)).unwrap();
    for c in 0..3 {
        // Chains of at most h·w/4 additions, then n + 3 more, each off by half a unit of the sum of magnitudes.
        let steps = f64::from(f32::EPSILON) / 2.0 * (d.plane() / 4 + 4 + d.n) as f64;
        let (mut slope, mut bias) = (0.0, 0.0);
        for i in (0..pre.len()).filter(|i| i / d.plane() % d.c == c) {
            slope += f64::from(dy[i]).abs() * f64::from(-pre[i].min(0.0));
            bias += want.dx[i].abs();
        }
        assert!(slope > 100.0 && bias > 100.0);
        assert!((f64::from(got.dslopes[c]) - want.dslopes[c]).abs() <= steps * slope);
        assert!((f64::from(got.dbias[c]) - want.dbias[c]).abs() <= steps * bias);
    }
}

#[test]
fn gradients_are_the_central_differences() {
    let d = Dims { n: 2, c: 3, h: 3, w: 5 };
    let wide = |seed, len| numbers(seed, len, false).into_iter().map(f64::from).collect::<Vec<f64>>();
    let (x, dy) = (wide(1, d.plain_len()), wide(2, d.plain_len()));
    for slopes in [vec![0.25, -0.5, 1.5], vec![0.3], vec![0.0]] {
        let loss = |x: &[f64], a: &[f64]| -> f64 {
            let y = reference::prelu::forward(&d, x, a).unwrap();
            y.iter().zip(&dy).map(|(y, g)| y * g).sum()
        };
        let got = reference::prelu::backward(&d, &x, &slopes, &dy).unwrap();
        let difference = |f: &dyn Fn(f64) -> f64| (f(1e-6) - f(-1e-6)) / 2e-6;
        let moved = |v: &[f64], i: usize, e: f64| {
            let mut v = v.to_vec();
            v[i] += e;
            v
        };
        for i in 0..x.len() {
            assert!(x[i].abs() > 1e-5, "too near the kink");
            let want = difference(&|e| loss(&moved(&x, i, e), &slopes));
            assert!((got.dx[i] - want).abs() < 1e-8, "dx {i}: {} {want}", got.dx[i]);
        }
        for i in 0..slopes.len() {
            let want = difference(&|e| loss(&x, &moved(&slopes, i, e)));
            assert!((got.dslopes[i] - want).abs() < 1e-8, "slope {i}: {} {want}", got.dslopes[i]);
        }
        for c in 0..d.c {
            let shifted = |e| {
                let add = |(i, v): (usize, &f64)| if i / d.plane() % d.c == c { v + e } else { *v };
                x.iter().enumerate().map(add).collect::<Vec<f64>>()
            };
            let want = difference(&|e| loss(&shifted(e), &slopes));
            assert!((got.dbias[c] - want).abs() < 1e-7, "bias {c}: {} {want}", got.dbias[c]);
        }
    }
}

#[test]
fn an_infinite_gradient_of_a_positive_pixel_leaves_the_slope_alone() {
    let d = Dims { n: 1, c: 1, h: 1, w: 2 };
    let got = reference::prelu::backward(&d, &[1.0f32, -2.0], &[0.5], &[f32::INFINITY, 3.0]).unwrap();
    assert_eq!(got.dslopes, [-6.0]);
    assert_eq!(check_bits(d, 0, &[0.5], true), Ok(()));
}

#[test]
fn empty_tensors_and_wrong_lengths() {
    let isa = Isa::Portable;
    for d in [Dims { n: 0, c: 3, h: 2, w: 2 }, Dims { n: 2, c: 3, h: 0, w: 2 }, Dims { n: 2, c: 0, h: 1, w: 2 }] {
        let (mut ds, mut db) = ([f32::NAN], vec![f32::NAN; d.c]);
        let mut workspace = vec![0.0; workspace_len(d)];
        backward(isa, d, &[], &[0.1], &mut [], Some(&mut ds), Some(&mut db), &mut workspace).unwrap();
        assert_eq!((ds, db), ([0.0], vec![0.0; d.c]));
        forward(isa, d, &[], &[0.1], &mut []).unwrap();
        forward_in_place(isa, d, &mut [], &[0.1]).unwrap();
        bias_gradient(isa, d, &[], &mut vec![0.0; d.c], &mut workspace).unwrap();
    }
    let d = Dims { n: 1, c: 3, h: 1, w: 1 };
    let e = forward_in_place(isa, d, &mut [0.0; 16], &[0.1, 0.2]);
    assert_eq!(e, Err(Error::Length { what: "slopes", got: 2, want: 3 }));
    let e = backward(isa, d, &[0.0; 16], &[0.1], &mut [0.0; 16], Some(&mut [0.0; 3]), None, &mut [0.0; 32]);
    assert_eq!(e, Err(Error::Length { what: "slope gradient", got: 3, want: 1 }));
    let e = backward(isa, d, &[0.0; 16], &[0.1], &mut [0.0; 16], None, None, &mut [0.0; 31]);
    assert_eq!(e, Err(Error::Length { what: "workspace", got: 31, want: 32 }));
}
