//! Batches: normalised images, augmented for training.

use super::photos::{Jitter, Sight, photo_batch};
use super::{DataError, Disk, Images};
use crate::rng::{self, Rng};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Values of a channel's pixels: 0 to 255.
pub(crate) const LEVELS: usize = 256;

/// Mean and standard deviation of each channel, in units of the full scale: a pixel of 255 is 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalise {
    /// One mean a channel, finite.
    pub mean: Vec<f32>,
    /// One standard deviation a channel, finite and positive.
    pub std: Vec<f32>,
}

/// How training images are varied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Mirror every second image, on average, left to right.
    pub flip: bool,
    /// Widen the image by this many pixels on each side, of the mean colour, and cut the original size out of it at
    /// a random place. Not of photos, which are larger than the images cut out of them.
    pub pad_crop: usize,
    /// Scale the shorter side of a photo to a random length between these, see [`Jitter`]; of photos alone.
    pub scale: Option<[u32; 2]>,
    /// Alter the colours of a photo, see [`Jitter`]; of photos alone.
    pub colour: f32,
}

/// One pass through the training images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    /// Seed of the run.
    pub seed: u64,
    /// Number of the epoch.
    pub number: u64,
}

impl Normalise {
    /// Mean and standard deviation (of the population) of each channel. The sums are whole numbers; a channel whose
    /// pixels are all equal, or which has none, gets the standard deviation 1. Those of photos are of all training
    /// photos.
    ///
    /// # Errors
    /// [`DataError::Length`] if the pixels do not fit the size.
    pub fn of(images: &Images) -> Result<Normalise, DataError> {
        images.check()?;
        if let Some(disk) = &images.disk {
            return Ok(disk.normalise().clone());
        }
        let plane = images.h.saturating_mul(images.w).max(1);
        let mut sums = vec![(0u64, 0u64); images.c];
        for (i, pixels) in images.pixels.chunks_exact(plane).enumerate() {
            let (sum, squares) = &mut sums[i % images.c];
            *sum += pixels.iter().map(|&p| u64::from(p)).sum::<u64>();
            *squares += pixels.iter().map(|&p| u64::from(p) * u64::from(p)).sum::<u64>();
        }
        let count = (images.len() as u128 * plane as u128).max(1);
        let (mean, std) = sums.into_iter().map(|(sum, squares)| moments(count, sum.into(), squares.into())).unzip();
        Ok(Normalise { mean, std })
    }

    /// The values of each pixel level: `(level/255 + shift - mean)/std` in f64, rounded once; channels beyond those of
    /// `shift` are not shifted.
    pub(crate) fn tables<const N: usize>(
        &self,
        channels: usize,
        shift: [f64; N],
    ) -> Result<Vec<[f32; LEVELS]>, DataError> {
        for (what, got) in [("mean", self.mean.len()), ("std", self.std.len())] {
            if got != channels {
                return Err(DataError::Length { what, got, want: channels });
            }
        }
        (0..channels)
            .map(|channel| {
                let (mean, std) = (self.mean[channel], self.std[channel]);
                let wrong = |what, value, must| DataError::Normalise { what, channel, value, must };
                if !mean.is_finite() {
                    return Err(wrong("mean", mean, "finite"));
                }
                if !(std.is_finite() && std > 0.0) {
                    return Err(wrong("std", std, "finite and positive"));
                }
                let shift = shift.get(channel).copied().unwrap_or(0.0);
                let value = |level: usize| ((level as f64 / 255.0 + shift - f64::from(mean)) / f64::from(std)) as f32;
                Ok(std::array::from_fn(value))
            })
            .collect()
    }
}

/// Mean and standard deviation from the number of pixels, their sum and the sum of their squares.
pub(super) fn moments(count: u128, sum: u128, squares: u128) -> (f32, f32) {
    let mean = sum as f64 / (count as f64 * 255.0);
    // Variance times count², a whole number: nothing is lost by the subtraction.
    let spread = squares.saturating_mul(count).saturating_sub(sum.saturating_mul(sum));
    let std = (spread as f64).sqrt() / (count as f64 * 255.0);
    (mean as f32, if spread == 0 { 1.0 } else { std as f32 })
}

impl Epoch {
    /// The order of the samples in this epoch: the numbers below `samples`, shuffled by the seed and the epoch alone.
    pub fn order(&self, samples: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..samples).collect();
        Rng::at(self.seed, rng::SHUFFLE, self.number, 0).shuffle(&mut order);
        order
    }
}

/// Where to read an image from: mirrored or not, and shifted.
struct View {
    flip: bool,
    down: isize,
    right: isize,
}

impl View {
    const PLAIN: View = View { flip: false, down: 0, right: 0 };

    /// The view that the seed, the epoch and the sample's index draw.
    fn draw(augment: Augment, epoch: Epoch, index: u32) -> View {
        let mut rng = Rng::at(epoch.seed, rng::AUGMENT, epoch.number, u64::from(index));
        let flip = rng.below(2) == 1 && augment.flip;
        let pad = u32::try_from(augment.pad_crop).unwrap_or(u32::MAX / 2).min(u32::MAX / 2);
        let mut shift = || rng.below(2 * pad + 1) as isize - pad as isize;
        View { flip, down: shift(), right: shift() }
    }

    /// Writes one plane of `w` pixels a row as seen through the view; what lies outside is 0, the mean.
    fn copy(&self, plane: &[u8], w: usize, table: &[f32; LEVELS], out: &mut [f32]) {
        let h = (plane.len() / w) as isize;
        for (y, out) in out.chunks_exact_mut(w).enumerate() {
            let from = y as isize + self.down;
            if !(0..h).contains(&from) {
                out.fill(0.0);
                continue;
            }
            let row = &plane[from as usize * w..][..w];
            for (x, out) in out.iter_mut().enumerate() {
                let x = if self.flip { w - 1 - x } else { x } as isize + self.right;
                *out = usize::try_from(x).ok().and_then(|x| row.get(x)).map_or(0.0, |&p| table[usize::from(p)]);
            }
        }
    }
}

/// Assembles a batch: image `indices[i]`, normalised and, with `augment`, varied, goes to place `i` of `out` (NCHW,
/// `indices.len() * c * h * w` values), its label to `labels[i]`. A varied image depends on the seed, the epoch and
/// its index alone: neither on its place in the batch nor on the threads.
///
/// ```
/// use rectify::data::{self, Augment, Epoch, Normalise};
/// let data = data::load("shapes", 1)?;
/// let norm = Normalise::of(&data.train)?;
/// let epoch = Epoch { seed: 1, number: 0 };
/// let order = epoch.order(data.train.len() as u32);
/// let (mut x, mut labels) = (vec![0.0; 8 * 3 * 32 * 32], vec![0; 8]);
/// let augment = Augment { flip: true, pad_crop: 2, ..Augment::default() };
/// data::batch(&data.train, &order[..8], &norm, Some((augment, epoch)), &mut x, &mut labels)?;
/// # Ok::<(), data::DataError>(())
/// ```
///
/// # Errors
/// [`DataError`] if a length does not fit, a sample does not exist or can no longer be decoded, or the normalisation is
/// not finite.
pub fn batch(
    images: &Images,
    indices: &[u32],
    norm: &Normalise,
    augment: Option<(Augment, Epoch)>,
    out: &mut [f32],
    labels: &mut [u32],
) -> Result<(), DataError> {
    images.check()?;
    if let Some(Disk::Photos(set)) = &images.disk {
        let varied = |(a, epoch): (Augment, Epoch)| {
            let jitter = Jitter { scale: a.scale.unwrap_or([set.shorter; 2]), flip: a.flip, colour: a.colour };
            Sight::Varied(jitter, &set.colours, epoch)
        };
        let sight = augment.map_or(Sight::Middle(set.shorter), varied);
        return photo_batch(&set.photos, indices, (images.h, images.w), norm, sight, out, labels);
    }
    let (image_len, plane) = (images.image_len(), images.h.saturating_mul(images.w));
    let want = image_len.saturating_mul(indices.len());
    for (what, got, want) in [("out", out.len(), want), ("labels", labels.len(), indices.len())] {
        if got != want {
            return Err(DataError::Length { what, got, want });
        }
    }
    if let Some(&index) = indices.iter().find(|&&i| i as usize >= images.len()) {
        return Err(DataError::Index { index, samples: images.len() });
    }
    let tables = norm.tables(images.c, [])?;
    for (label, &index) in labels.iter_mut().zip(indices) {
        *label = images.labels[index as usize];
    }
    if image_len == 0 {
        return Ok(());
    }
    // The first failure in the order of the batch, whichever thread is faster.
    let failed = out.par_chunks_exact_mut(image_len).zip(indices).find_map_first(|(out, &index)| {
        let view = augment.map_or(View::PLAIN, |(augment, epoch)| View::draw(augment, epoch, index));
        let image = match images.read(index as usize) {
            Ok(image) => image,
            Err(e) => return Some(e),
        };
        for ((out, image), table) in out.chunks_exact_mut(plane).zip(image.chunks_exact(plane)).zip(&tables) {
            view.copy(image, images.w, table, out);
        }
        None
    });
    failed.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests;
