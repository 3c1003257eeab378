//! Random numbers: ChaCha with 8 rounds, addressed by the seed and up to three counters, so that what is drawn for a
//! sample depends on neither the threads nor what was drawn before it.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// Stream of a net's initial weights.
pub const INIT: u64 = 1;
/// Stream of the order of the samples in an epoch.
pub const SHUFFLE: u64 = 2;
/// Stream of augmentation: flips and crops.
pub const AUGMENT: u64 = 3;
/// Stream of dropout masks.
pub const DROPOUT: u64 = 4;
/// Stream of the embedded data set's pictures.
pub const SHAPES: u64 = 5;
/// Stream of a benchmark's tensors.
pub const BENCH: u64 = 6;
/// Stream of a study's images and gradients.
pub const STUDY: u64 = 7;

/// A ChaCha8 generator. Its 256-bit key is the seed, the stream and two counters, each as eight little-endian bytes in
/// this order; its nonce and its starting position are zero.
///
/// ```
/// use rectify::rng::{self, Rng};
/// let mut rng = Rng::new(1, rng::INIT);
/// let die = rng.below(6) + 1;
/// assert!((1..=6).contains(&die));
/// ```
#[derive(Debug, Clone)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// The generator of a purpose, such as [`INIT`]; the same as [`Rng::at`] with both counters zero.
    pub fn new(seed: u64, stream: u64) -> Rng {
        Rng::at(seed, stream, 0, 0)
    }

    /// The generator of a purpose at two counters, such as the epoch and the sample's index.
    pub fn at(seed: u64, stream: u64, a: u64, b: u64) -> Rng {
        let mut key = [0; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip([seed, stream, a, b]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Rng(ChaCha8Rng::from_seed(key))
    }

    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// 64 random bits: two draws of [`Rng::next_u32`], the low half first.
    pub fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        low | u64::from(self.next_u32()) << 32
    }

    /// A whole number below `n`, each with the same probability (Lemire 2019, "Fast random integer generation in an
    /// interval"); 0 if `n` is 0.
    pub fn below(&mut self, n: u32) -> u32 {
        if n == 0 {
            return 0;
        }
        // The draws whose low half falls below 2³² mod n would favour some results.
        let unfair = n.wrapping_neg() % n;
        loop {
            let product = u64::from(self.next_u32()) * u64::from(n);
            if product as u32 >= unfair {
                return (product >> 32) as u32;
            }
        }
    }

    /// A multiple of 2⁻²⁴ in `[0, 1)`, each with the same probability.
    pub fn uniform(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// A number in `[low, high]`: `low + (high - low)·uniform`, rounded after each operation.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.uniform()
    }

    /// A sample of the standard normal distribution, by the transform of Box and Muller (1958), computed in f64 by
    /// `libm`; it takes two draws and leaves the second of the pair unused.
    pub fn normal(&mut self) -> f32 {
        const STEP: f64 = 1.0 / (1u64 << 32) as f64;
        // In (0, 1], so that the logarithm is finite.
        let radius = libm::sqrt(-2.0 * libm::log((f64::from(self.next_u32()) + 1.0) * STEP));
        let angle = core::f64::consts::TAU * (f64::from(self.next_u32()) * STEP);
        (radius * libm::cos(angle)) as f32
    }

    /// Puts the items into random order, each order with the same probability (Fisher and Yates). Items past the
    /// 2³²-th stay where they are.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        let last = items.len().min(u32::MAX as usize);
        for at in (1..last).rev() {
            items.swap(at, self.below(at as u32 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_chacha8() {
        // The first words of ChaCha8 under the all-zero key and nonce, as published in
        // draft-strombergson-chacha-test-vectors (TC1, 8 rounds, 256-bit key).
        let mut rng = Rng::at(0, 0, 0, 0);
        let bytes: Vec<u8> = (0..4).flat_map(|_| rng.next_u32().to_le_bytes()).collect();
        let want = [0x3e, 0x00, 0xef, 0x2f, 0x89, 0x5f, 0x40, 0xd6, 0x7f, 0x5b, 0xb8, 0xe8, 0x1f, 0x09, 0xa5, 0xa1];
        assert_eq!(bytes, want);
    }

    #[test]
    fn every_part_of_the_address_matters() {
        let draw = |seed, stream, a, b| Rng::at(seed, stream, a, b).next_u64();
        let all = [draw(0, 0, 0, 0), draw(1, 0, 0, 0), draw(0, 1, 0, 0), draw(0, 0, 1, 0), draw(0, 0, 0, 1)];
        for (i, x) in all.iter().enumerate() {
            assert!(!all[..i].contains(x));
        }
        assert_eq!(Rng::new(7, SHAPES).next_u64(), draw(7, SHAPES, 0, 0));
    }

    #[test]
    fn below_is_fair_and_in_range() {
        let mut rng = Rng::new(3, 0);
        for n in [1, 2, 3, 10, 1 << 31, (1 << 31) + 1, u32::MAX] {
            assert!((0..100).all(|_| rng.below(n) < n));
        }
        assert_eq!(rng.below(0), 0);
        let mut counts = [0; 10];
        (0..100_000).for_each(|_| counts[rng.below(10) as usize] += 1);
        assert!(counts.iter().all(|c| (9_600..10_400).contains(c)), "{counts:?}");
        // Without rejection, the multiples of 3 would come up twice as often as the others here.
        let n = 3 << 30;
        let multiples = (0..10_000).filter(|_| rng.below(n).is_multiple_of(3)).count();
        assert!((3_100..3_570).contains(&multiples), "{multiples}");
    }

    #[test]
    fn moments() {
        let mut rng = Rng::new(11, 0);
        let n = 200_000;
        let uniform: Vec<f64> = (0..n).map(|_| f64::from(rng.uniform())).collect();
        assert!(uniform.iter().all(|u| (0.0..1.0).contains(u)));
        assert!((uniform.iter().sum::<f64>() / f64::from(n) - 0.5).abs() < 0.003);
        let normal: Vec<f64> = (0..n).map(|_| f64::from(rng.normal())).collect();
        let mean = |power| normal.iter().map(|x| x.powi(power)).sum::<f64>() / f64::from(n);
        assert!(mean(1).abs() < 0.01, "mean {}", mean(1));
        assert!((mean(2) - 1.0).abs() < 0.015, "variance {}", mean(2));
        assert!((mean(4) - 3.0).abs() < 0.1, "fourth moment {}", mean(4));
        let mut between = (0..1_000).map(|_| rng.between(-2.0, 3.0));
        assert!(between.all(|x| (-2.0..=3.0).contains(&x)));
    }

    #[test]
    fn normal_has_the_same_bits_everywhere() {
        let mut rng = Rng::new(1, INIT);
        let bits: Vec<u32> = (0..4).map(|_| rng.normal().to_bits()).collect();
        assert_eq!(bits, [1040667316, 1057519554, 3220476483, 3205741142]);
    }

    #[test]
    fn shuffle_gives_every_order() {
        let mut rng = Rng::new(5, SHUFFLE);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..6_000 {
            let mut items = [0, 1, 2];
            rng.shuffle(&mut items);
            *counts.entry(items).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|c| (880..1_120).contains(c)), "{counts:?}");
        rng.shuffle::<u8>(&mut []);
    }
}
