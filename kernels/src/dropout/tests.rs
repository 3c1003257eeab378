use super::*;
use crate::testing::{everywhere, numbers, same_bits, to_blocked};

#[test]
fn the_mask_is_the_documented_stream_everywhere() {
    // More than one task an image, and a last one that is not whole.
    let d = Dims { n: 3, c: 40, h: 21, w: 19 };
    let x = to_blocked(&d, &numbers(1, d.plain_len(), true), 0.0);
    let (rate, seed, first) = (0.3f32, 77, u64::MAX);
    let image = x.len() / 3;
    assert!(image > TASK && !image.is_multiple_of(TASK));
    let (mut want, mut bits) = (Vec::new(), Vec::new());
    for n in 0..3u64 {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&77u64.to_le_bytes());
        key[8] = 4;
        key[16..24].copy_from_slice(&first.wrapping_add(n).to_le_bytes());
        let mut rng = ChaCha8Rng::from_seed(key);
        for i in 0..image {
            let stays = f64::from(rng.next_u32()) >= (f64::from(rate) * 4294967296.0).floor();
            bits.push(stays);
            want.push(if stays { x[n as usize * image + i] * (1.0 / (1.0 - rate)) } else { 0.0 });
        }
    }
    let stay = bits.iter().filter(|b| **b).count() as f64 / bits.len() as f64;
    assert!((stay - 0.7).abs() < 0.01, "{stay}");
    everywhere(|isa| {
        let (mut y, mut mask) = (x.clone(), vec![0; x.len() / 8]);
        forward_in_place(isa, d, &mut y, rate, seed, first, &mut mask).unwrap();
        same_bits(&y, &want)?;
        if let Some(i) = (0..bits.len()).find(|&i| (mask[i / 8] >> (i % 8) & 1 == 1) != bits[i]) {
            return Err(format!("mask of {i}"));
        }
        // The gradient passes through the same mask.
        let mut grad = x.clone();
        backward_in_place(isa, d, &mut grad, rate, &mask).unwrap();
        same_bits(&grad, &want)
    })
    .unwrap();
    // A batch is its samples.
    let (mut y, mut mask) = (x[image..2 * image].to_vec(), vec![0; image / 8]);
    let one = Dims { n: 1, ..d };
    forward_in_place(Isa::Portable, one, &mut y, rate, seed, first.wrapping_add(1), &mut mask).unwrap();
    same_bits(&y, &want[image..2 * image]).unwrap();
}

#[test]
fn rates_at_the_edges() {
    let d = Dims { n: 1, c: 16, h: 1, w: 1 };
    let (mut x, mut mask) = ([1.5; 16], [0; 2]);
    forward_in_place(Isa::Portable, d, &mut x, 0.0, 1, 0, &mut mask).unwrap();
    assert_eq!((x, mask), ([1.5; 16], [255; 2]));
    for rate in [1.0, -0.1, f32::NAN, f32::INFINITY] {
        let e = forward_in_place(Isa::Portable, d, &mut x, rate, 1, 0, &mut mask);
        assert!(matches!(e, Err(Error::Value { what: "dropout rate", .. })), "{rate}");
    }
    let e = backward_in_place(Isa::Portable, d, &mut x, 0.5, &[0; 3]);
    assert_eq!(e, Err(Error::Length { what: "mask", got: 3, want: 2 }));
    forward_in_place(Isa::Portable, Dims { n: 0, ..d }, &mut [], 0.5, 1, 0, &mut []).unwrap();
}
