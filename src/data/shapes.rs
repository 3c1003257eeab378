//! The embedded data set: 32×32 colour pictures of drawn shapes, which the program makes itself.
//!
//! Each picture shows one shape of random place, size, proportions, angle and colours on a shaded, textured ground,
//! among small distracting marks and under noise. A picture depends on the seed, its part of the set (training or
//! test) and its index alone, and is made with additions, multiplications, divisions and square roots in f32 and
//! `libm`'s sine and cosine, so that every machine draws the same bytes.

mod outline;
mod picture;

use super::{Dataset, Images};
use crate::rng::{self, Rng};
use outline::Outline;
use rayon::prelude::*;

/// Height and width of a picture.
pub const SIZE: usize = 32;
/// Pictures to train on; every class has the same number.
pub const TRAIN: usize = 7_200;
/// Pictures to test with; every class has the same number.
pub const TEST: usize = 1_800;

/// Draws the data set of a seed.
pub fn dataset(seed: u64) -> Dataset {
    Dataset {
        name: "shapes".into(),
        classes: Outline::ALL.iter().map(|outline| outline.name().to_owned()).collect(),
        train: draw(seed, 0, TRAIN),
        test: draw(seed, 1, TEST),
    }
}

/// Draws the first `len` pictures of a part (0: training, 1: test), the classes in turn.
fn draw(seed: u64, part: u64, len: usize) -> Images {
    let classes = Outline::ALL.len();
    let mut pixels = vec![0; len * 3 * SIZE * SIZE];
    pixels.par_chunks_exact_mut(3 * SIZE * SIZE).enumerate().for_each(|(i, pixels)| {
        let mut rng = Rng::at(seed, rng::SHAPES, part, i as u64);
        picture::draw(Outline::ALL[i % classes], &mut rng, pixels);
    });
    let labels = (0..len).map(|i| (i % classes) as u32).collect();
    Images { c: 3, h: SIZE, w: SIZE, pixels, labels, disk: None }
}

#[cfg(test)]
mod tests;
