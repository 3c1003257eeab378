use super::*;
use crate::testing::{everywhere, numbers, pool_shape, same_bits, to_blocked};
use crate::{Isa, reference};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn bits_are_the_reference_s(s in pool_shape(), seed: u64, special: bool) {
        let (input, output) = (s.input(), s.output());
        let (x, dy) = (numbers(seed, input.plain_len(), special), numbers(!seed, output.plain_len(), special));
        let (max, index) = reference::pool::max_forward(&s, &x).unwrap();
        let dmax = reference::pool::max_backward(&s, &index, &dy).unwrap();
        let mean = reference::pool::average_forward(&s, &x).unwrap();
        let dmean = reference::pool::average_backward(&s, &dy).unwrap();
        let (bx, bdy) = (to_blocked(&input, &x, 0.0), to_blocked(&output, &dy, 0.0));
        let (max, mean) = (to_blocked(&output, &max, 0.0), to_blocked(&output, &mean, 0.0));
        let (dmax, dmean) = (to_blocked(&input, &dmax, 0.0), to_blocked(&input, &dmean, 0.0));
        let check = everywhere(|isa| {
            let (mut y, mut dx) = (vec![f32::NAN; max.len()], vec![f32::NAN; bx.len()]);
            let mut at = vec![u32::MAX; y.len()];
            max_forward(isa, &s, &bx, &mut y, Some(&mut at)).unwrap();
            same_bits(&y, &max)?;
            let lane = |i: usize| i / (output.plane() * crate::LANES) % crate::blocks(s.c) * crate::LANES + i % crate::LANES;
            let want = to_blocked(&output, &index, 0);
            match (0..at.len()).find(|&i| lane(i) < s.c && at[i] != want[i]) {
                None => {}
                Some(i) => return Err(format!("index {i}: {}, want {}", at[i], want[i])),
            }
            max_backward(isa, &s, &at, &bdy, &mut dx).unwrap();
            same_bits(&dx, &dmax)?;
            y.fill(f32::NAN);
            max_forward(isa, &s, &bx, &mut y, None).unwrap();
            same_bits(&y, &max)?;
            y.fill(f32::NAN);
            average_forward(isa, &s, &bx, &mut y).unwrap();
            same_bits(&y, &mean)?;
            dx.fill(f32::NAN);
            average_backward(isa, &s, &bdy, &mut dx).unwrap();
            same_bits(&dx, &dmean)
        });
        prop_assert_eq!(check, Ok(()));
    }

    #[test]
    fn forward_does_not_depend_on_the_batch(s in pool_shape(), seed: u64) {
        let s = PoolShape { n: 7, ..s };
        let x = to_blocked(&s.input(), &numbers(seed, s.input().plain_len(), true), 0.0);
        let single = PoolShape { n: 1, ..s };
        let isa = Isa::best().unwrap();
        for forward in [average_forward, |isa, s: &PoolShape, x: &[f32], y: &mut [f32]| max_forward(isa, s, x, y, None)] {
            let len = s.output().blocked_len();
            let (mut whole, mut each) = (vec![0.0; len], vec![0.0; len]);
            forward(isa, &s, &x, &mut whole).unwrap();
            for (x, y) in x.chunks(x.len() / 7).zip(each.chunks_mut(len / 7)) {
                forward(isa, &single, x, y).unwrap();
            }
            prop_assert_eq!(same_bits(&each, &whole), Ok(()));
        }
    }
}

#[test]
fn the_last_nan_and_the_first_of_equals_are_taken() {
    let s = PoolShape::global(Dims { n: 1, c: 2, h: 2, w: 3 });
    let nan = f32::NAN;
    let x = [1.0, nan, 9.0, nan, 2.0, 3.0, -1.0, -0.0, 0.0, -5.0, 0.0, -0.0];
    let mut y = [0.0; 16];
    let mut at = [0; 16];
    max_forward(Isa::Portable, &s, &to_blocked(&s.input(), &x, 0.0), &mut y, Some(&mut at)).unwrap();
    assert!(y[0].is_nan() && at[0] == 3);
    assert_eq!((y[1].to_bits(), at[1]), ((-0.0f32).to_bits(), 1));
}

#[test]
fn a_stride_may_lie_beyond_the_image() {
    let s =
        PoolShape { stride_h: usize::MAX, stride_w: usize::MAX, ..PoolShape::global(Dims { n: 1, c: 1, h: 2, w: 2 }) };
    let x = to_blocked(&s.input(), &[1.0, 4.0, 3.0, 2.0], 0.0);
    for isa in Isa::available() {
        let mut y = [0.0; 16];
        max_forward(isa, &s, &x, &mut y, None).unwrap();
        assert_eq!(y[0], 4.0, "{isa}");
    }
}

/// Gradient of `Σ y·dy` by central differences, which are exact up to rounding as long as no maximum changes hands.
fn differences(x: &[f64], dy: &[f64], forward: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let loss = |x: &[f64]| forward(x).iter().zip(dy).map(|(y, g)| y * g).sum::<f64>();
    let moved = |i: usize, e: f64| {
        let mut x = x.to_vec();
        x[i] += e;
        loss(&x)
    };
    (0..x.len()).map(|i| (moved(i, 1e-6) - moved(i, -1e-6)) / 2e-6).collect()
}

#[test]
fn gradients_are_the_central_differences() {
    let wide = |seed, len| numbers(seed, len, false).into_iter().map(f64::from).collect::<Vec<f64>>();
    let s = PoolShape { pad_top: 1, pad_right: 2, ..PoolShape::square(Dims { n: 2, c: 2, h: 5, w: 6 }, 3, 2) };
    let (x, dy) = (wide(1, s.input().plain_len()), wide(2, s.output().plain_len()));
    let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-8);
    let index = reference::pool::max_forward(&s, &x).unwrap().1;
    let got = reference::pool::max_backward(&s, &index, &dy).unwrap();
    assert!(close(&got, &differences(&x, &dy, |x| reference::pool::max_forward(&s, x).unwrap().0)));
    let got = reference::pool::average_backward(&s, &dy).unwrap();
    assert!(close(&got, &differences(&x, &dy, |x| reference::pool::average_forward(&s, x).unwrap())));
}

#[test]
fn bad_shapes_and_indices_are_refused() {
    let good = PoolShape::square(Dims { n: 1, c: 1, h: 4, w: 4 }, 2, 2);
    assert_eq!(good.check(), Ok(()));
    let what = |s: PoolShape| match s.check() {
        Err(Error::Shape { what, .. } | Error::Overflow { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(what(PoolShape { stride_w: 0, ..good }), "stride_w");
    assert_eq!(what(PoolShape { kh: 5, ..good }), "kh");
    assert_eq!(what(PoolShape { pad_left: 2, ..good }), "pad_left");
    assert_eq!(what(PoolShape { pad_bottom: usize::MAX, kh: usize::MAX, ..good }), "pad_bottom");
    assert_eq!(what(PoolShape { h: 1 << 16, w: 1 << 16, ..good }), "h·w");
    let (d, mut dx) = ([1.0; 64], [0.0; 256]);
    let mut index = [5; 64];
    assert_eq!(max_backward(Isa::Portable, &good, &index, &d, &mut dx), Ok(()));
    index[63] = 16;
    let e = max_backward(Isa::Portable, &good, &index, &d, &mut dx);
    assert_eq!(e, Err(Error::Shape { what: "index", value: 16, why: "lies outside the plane" }));
    let e = average_forward(Isa::Portable, &good, &d, &mut dx);
    assert_eq!(e, Err(Error::Length { what: "x", got: 64, want: 256 }));
}
