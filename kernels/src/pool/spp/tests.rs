use super::*;
use crate::reference;
use crate::testing::{everywhere, numbers, same_bits, spp_shape, to_blocked};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn bits_are_the_reference_s(s in spp_shape(), seed: u64, special: bool) {
        let (input, output) = (s.input(), s.output());
        let (x, dy) = (numbers(seed, input.plain_len(), special), numbers(!seed, output.plain_len(), special));
        let (max, index) = reference::pool::spp_forward(&s, &x).unwrap();
        let dmax = to_blocked(&input, &reference::pool::spp_backward(&s, &index, &dy).unwrap(), 0.0);
        let (bx, bdy) = (to_blocked(&input, &x, 0.0), to_blocked(&output, &dy, 0.0));
        let (max, index) = (to_blocked(&output, &max, 0.0), to_blocked(&output, &index, 0));
        let check = everywhere(|isa| {
            let (mut y, mut dx) = (vec![f32::NAN; max.len()], vec![f32::NAN; bx.len()]);
            let mut at = vec![u32::MAX; y.len()];
            spp_forward(isa, &s, &bx, &mut y, Some(&mut at)).unwrap();
            same_bits(&y, &max)?;
            if let Some(i) = (0..at.len()).find(|&i| at[i] != index[i]) {
                return Err(format!("index {i}: {}, want {}", at[i], index[i]));
            }
            spp_backward(isa, &s, &at, &bdy, &mut dx).unwrap();
            same_bits(&dx, &dmax)?;
            y.fill(f32::NAN);
            spp_forward(isa, &s, &bx, &mut y, None).unwrap();
            same_bits(&y, &max)
        });
        prop_assert_eq!(check, Ok(()));
    }

    #[test]
    fn forward_does_not_depend_on_the_batch(s in spp_shape(), seed: u64) {
        let s = SppShape { n: 7, ..s };
        let x = to_blocked(&s.input(), &numbers(seed, s.input().plain_len(), true), 0.0);
        let (single, isa) = (SppShape { n: 1, ..s.clone() }, Isa::best().unwrap());
        let (mut whole, mut each) = (vec![0.0; s.output().blocked_len()], vec![0.0; s.output().blocked_len()]);
        spp_forward(isa, &s, &x, &mut whole, None).unwrap();
        for (x, y) in x.chunks(x.len() / 7).zip(each.chunks_mut(whole.len() / 7)) {
            spp_forward(isa, &single, x, y, None).unwrap();
        }
        prop_assert_eq!(same_bits(&each, &whole), Ok(()));
    }
}

/// What PyTorch gives in float64 for `x[i] = 37·i mod 101 − 50` and `dy[i] = i + 1`:
/// `torch.cat([adaptive_max_pool2d(x, b).flatten(1) for b in (4, 3, 6, 1)], 1)` and the gradient of `x`.
#[test]
fn bins_and_their_order_are_pytorch_s() {
    let s = SppShape { n: 1, c: 2, h: 5, w: 7, bins: vec![4, 3, 6, 1] };
    let y = [
        44, 44, 34, 34, 44, 44, 47, 47, 20, 37, 47, 47, 20, 50, 30, 40, 33, 43, 43, 16, 46, 26, 36, 29, 46, 39, 49, 29,
        39, 39, 49, 42, 44, 24, 34, 44, 37, 47, 50, 50, 40, 33, 43, 36, 46, 49, 49, 39, 49, 49, -13, 24, 24, -3, 34,
        34, 44, 44, 24, 17, 34, 34, 44, 44, 37, 17, 47, 47, 20, 37, 37, 30, 47, 47, 20, 50, 50, 30, 23, 40, 13, 50, 50,
        23, 23, -4, 33, 6, 43, 43, 16, 16, 33, 26, 43, 43, 36, 16, 46, 26, 19, 36, 36, 29, 46, 39, 19, 49, 49, 29, 39,
        39, 32, 49, 49, 42, -5, 32, 32, 5, 42, 42, 50, 49,
    ];
    let dx = [
        0, 51, 198, 0, 54, 276, 0, 0, 325, 0, 126, 0, 0, 0, 0, 0, 253, 0, 0, 358, 0, 166, 0, 0, 165, 0, 0, 137, 0, 81,
        534, 0, 248, 0, 86, 239, 0, 88, 450, 0, 301, 0, 0, 216, 0, 0, 369, 0, 0, 295, 0, 208, 0, 0, 266, 0, 0, 462, 0,
        0, 820, 0, 0, 0, 117, 350, 0, 120, 391, 0,
    ];
    let x: Vec<f32> = (0..70).map(|i| (i * 37 % 101) as f32 - 50.0).collect();
    let dy: Vec<f32> = (1..=124).map(|i| i as f32).collect();
    let (input, output) = (s.input(), s.output());
    assert_eq!(output, Dims { n: 1, c: 124, h: 1, w: 1 });
    for isa in Isa::available() {
        let (mut got, mut at) = (vec![0.0; output.blocked_len()], vec![0; output.blocked_len()]);
        spp_forward(isa, &s, &to_blocked(&input, &x, 0.0), &mut got, Some(&mut at)).unwrap();
        assert_eq!(got[..124], y.map(|v| v as f32), "{isa}");
        let mut got = vec![0.0; input.blocked_len()];
        spp_backward(isa, &s, &at, &to_blocked(&output, &dy, 0.0), &mut got).unwrap();
        assert_eq!(got, to_blocked(&input, &dx.map(|v| v as f32), 0.0), "{isa}");
    }
}

#[test]
fn bad_shapes_and_indices_are_refused() {
    let good = SppShape { n: 1, c: 3, h: 4, w: 4, bins: vec![2, 1] };
    assert_eq!(good.check(), Ok(()));
    let what = |s: SppShape| match s.check() {
        Err(Error::Shape { what, .. } | Error::Overflow { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(what(SppShape { c: 0, ..good.clone() }), "c");
    assert_eq!(what(SppShape { bins: vec![], ..good.clone() }), "levels of bins");
    assert_eq!(what(SppShape { bins: vec![2, 0], ..good.clone() }), "bins");
    assert_eq!(what(SppShape { bins: vec![usize::MAX], ..good.clone() }), "bins");
    assert_eq!(what(SppShape { bins: vec![1 << 26; 1000], ..good.clone() }), "pyramid");
    assert_eq!(what(SppShape { h: 1 << 16, w: 1 << 16, ..good.clone() }), "h·w");
    let (dy, mut dx) = ([1.0; 16], [0.0; 256]);
    let mut index = [0; 16];
    assert_eq!(spp_backward(Isa::Portable, &good, &index, &dy, &mut dx), Ok(()));
    index[14] = 16;
    let e = spp_backward(Isa::Portable, &good, &index, &dy, &mut dx);
    assert_eq!(e, Err(Error::Shape { what: "index", value: 16, why: "lies outside the plane" }));
    let e = spp_forward(Isa::Portable, &good, &dy, &mut dx, None);
    assert_eq!(e, Err(Error::Length { what: "x", got: 16, want: 256 }));
}
