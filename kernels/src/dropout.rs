//! Inverted dropout: each element is zeroed with a given probability, the others are scaled up to keep the mean.
//!
//! Whether an element stays depends on the seed, the sample's index and the element's place in the blocked image alone.
//! Element `i` (padding lanes count) takes word `i` of the ChaCha8 stream whose key is the seed, the number [`STREAM`],
//! the sample's index and zero, each as eight little-endian bytes, and whose nonce is zero; it is dropped if the word
//! is below `rate·2³²`, rounded down.

use crate::error::check_len;
use crate::task::pixels_mut;
use crate::{Dims, Error, Isa, Kernel, LANES, Simd, blocks};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

/// The part of the key that tells dropout from other uses of a seed.
pub const STREAM: u64 = 4;

/// Bytes of mask for a vector of lanes.
const MASK_BYTES: usize = LANES / 8;

/// Elements of a task; a multiple of the 16 words of a ChaCha block.
const TASK: usize = crate::task::ELEMENTS;

fn check(dims: &Dims, x: usize, rate: f32, mask: usize) -> Result<(), Error> {
    dims.check()?;
    check_len("tensor", x, dims.blocked_len())?;
    check_len("mask", mask, dims.blocked_len() / 8)?;
    if !(0.0..1.0).contains(&rate) {
        return Err(Error::Value { what: "dropout rate", value: rate.to_string(), why: "is not in [0, 1)" });
    }
    Ok(())
}

/// The factor of what stays, `1/(1 − rate)`.
fn scale(rate: f32) -> f32 {
    1.0 / (1.0 - rate)
}

struct Apply<'a> {
    scale: f32,
    x: &'a mut [f32],
    mask: &'a [u8],
}

impl Kernel for Apply<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let scale = s.splat(self.scale);
        for (x, mask) in pixels_mut(self.x).iter_mut().zip(self.mask.as_chunks::<MASK_BYTES>().0) {
            let bits = u16::from_le_bytes(*mask);
            let stays = s.vector(&std::array::from_fn(|i| if bits >> i & 1 == 1 { 1.0 } else { 0.0 }));
            let v = s.select(s.gt(stays, s.zero()), s.mul(s.vector(x), scale), s.zero());
            s.write(x, v);
        }
    }
}

/// Draws the masks of elements of a sample, from element `first` on.
fn draw(mask: &mut [u8], threshold: u32, seed: u64, sample: u64, first: usize) {
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip([seed, STREAM, sample, 0]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_word_pos(first as u128);
    for byte in mask {
        *byte = (0..8).fold(0, |byte, bit| byte | u8::from(rng.next_u32() >= threshold) << bit);
    }
}

/// Zeroes elements of `x` with probability `rate` and multiplies the others by `1/(1 − rate)`.
///
/// `first_sample` is the index of the first image among all that share the seed. Bit `i mod 8` of byte `i/8` of `mask`
/// becomes 1 where element `i` stays; the mask has `dims.blocked_len() / 8` bytes.
///
/// # Errors
/// A length that does not fit `dims`, a rate outside `[0, 1)`.
pub fn forward_in_place(
    isa: Isa,
    dims: Dims,
    x: &mut [f32],
    rate: f32,
    seed: u64,
    first_sample: u64,
    mask: &mut [u8],
) -> Result<(), Error> {
    check(&dims, x.len(), rate, mask.len())?;
    if x.is_empty() {
        return Ok(());
    }
    let image = blocks(dims.c) * LANES * dims.plane();
    let threshold = (f64::from(rate) * (1u64 << 32) as f64) as u32;
    let images = x.par_chunks_mut(image).zip(mask.par_chunks_mut(image / 8)).enumerate();
    images.for_each(|(i, (x, mask))| {
        let sample = first_sample.wrapping_add(i as u64);
        let parts = x.par_chunks_mut(TASK).zip(mask.par_chunks_mut(TASK / 8)).enumerate();
        parts.for_each(|(part, (x, mask))| {
            draw(mask, threshold, seed, sample, part * TASK);
            isa.dispatch(Apply { scale: scale(rate), x, mask });
        });
    });
    Ok(())
}

/// The gradient: where the mask of [`forward_in_place`] is 1 times `1/(1 − rate)`, else zero.
///
/// # Errors
/// A length that does not fit `dims`, a rate outside `[0, 1)`.
pub fn backward_in_place(isa: Isa, dims: Dims, grad: &mut [f32], rate: f32, mask: &[u8]) -> Result<(), Error> {
    check(&dims, grad.len(), rate, mask.len())?;
    let tasks = grad.par_chunks_mut(TASK).zip(mask.par_chunks(TASK / 8));
    tasks.for_each(|(x, mask)| isa.dispatch(Apply { scale: scale(rate), x, mask }));
    Ok(())
}

#[cfg(test)]
mod tests;
