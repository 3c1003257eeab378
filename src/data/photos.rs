//! Photos in ImageNet's layout, each of its own size, read from the disk whenever they are needed.
//!
//! The layout is that of [`folder`]: `train/CLASS/*.JPEG` and `val` or `test`. Opening a set decodes
//! every file once, so that a broken one is known before training begins, and the mean, the deviation and the principal
//! components of the colours are those of all training pixels: some milliseconds a photo and core.
//!
//! Training (He et al. 2015, section 4) sees a photo whose shorter side is scaled to a random length, a random crop of
//! it, mirrored or not, its colours altered as by Krizhevsky et al. 2012, section 4.1; see [`Jitter`]. What a photo
//! gets depends on the seed, the epoch and its number alone.

mod colours;

pub use colours::Colours;

use super::folder::{self, Half, MOST_PIXELS, Picture};
use super::{DataError, Dataset, Disk, Epoch, Images, LEVELS, Normalise, read};
use crate::rng::{self, Rng};
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What to do about a file that cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Broken {
    /// Refuse the set, naming the first.
    #[default]
    Fatal,
    /// Leave them out; [`Photos::skipped`] says which and why.
    Skip,
}

/// A set of photos for classification.
#[derive(Debug)]
pub struct Photos {
    /// The last part of its path.
    pub name: String,
    /// Names of the classes, sorted; a label is an index into them.
    pub classes: Vec<String>,
    /// Photos to train on.
    pub train: Vec<Photo>,
    /// Photos to test with.
    pub test: Vec<Photo>,
    /// The files that were left out, training before test, in order, each with its path and what is wrong with it.
    pub skipped: Vec<DataError>,
    /// Mean and standard deviation of the training pixels.
    pub normalise: Normalise,
    /// Principal components of the training pixels.
    pub colours: Colours,
}

/// The test half of a set of photos.
#[derive(Debug)]
pub struct TestPhotos {
    /// The last part of the set's path.
    pub name: String,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// The photos.
    pub photos: Vec<Photo>,
    /// The files that were left out.
    pub skipped: Vec<DataError>,
}

/// What [`Images`] that are cut from photos are made of.
#[derive(Debug, PartialEq)]
pub struct PhotoSet {
    /// The photos.
    pub photos: Vec<Photo>,
    /// What the shorter side is scaled to where nothing varies.
    pub shorter: u32,
    /// Mean and standard deviation of the training pixels.
    pub normalise: Normalise,
    /// Principal components of the training pixels.
    pub colours: Colours,
}

/// A file and its label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Photo {
    /// The file.
    pub path: PathBuf,
    /// Index of its class.
    pub label: u32,
}

/// How training photos are varied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jitter {
    /// The shorter side becomes a random length between these, both included, in pixels: 256 and 512 in the paper.
    pub scale: [u32; 2],
    /// Mirror every second photo, on average, left to right.
    pub flip: bool,
    /// Standard deviation of what the colours are altered by, in units of each principal component's variance: 0.1 in
    /// Krizhevsky et al. 2012; 0 leaves them as they are.
    pub colour: f32,
}

impl Photo {
    /// Reads and decodes it.
    ///
    /// # Errors
    /// [`DataError`], naming the file.
    pub fn open(&self) -> Result<Picture, DataError> {
        folder::decode(&read::file(&self.path)?, MOST_PIXELS).map_err(read::format(&self.path))
    }
}

/// Whole-number sums over pixels.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    pixels: u128,
    /// Of red, green, blue.
    levels: [u128; 3],
    /// Of the products of each two.
    products: [[u128; 3]; 3],
}

impl Sums {
    pub fn of(picture: &Picture) -> Sums {
        // At most 2²⁶ pixels: 2⁴² in a sum of products.
        let (mut levels, mut products) = ([0u64; 3], [[0u64; 3]; 3]);
        for pixel in picture.rgb.as_chunks::<3>().0 {
            for (i, &a) in pixel.iter().enumerate() {
                levels[i] += u64::from(a);
                for (sum, &b) in products[i].iter_mut().zip(pixel) {
                    *sum += u64::from(a) * u64::from(b);
                }
            }
        }
        let pixels = picture.h as u128 * picture.w as u128;
        Sums { pixels, levels: levels.map(u128::from), products: products.map(|row| row.map(u128::from)) }
    }

    pub fn add(&mut self, other: &Sums) {
        self.pixels += other.pixels;
        for i in 0..3 {
            self.levels[i] += other.levels[i];
            (0..3).for_each(|j| self.products[i][j] += other.products[i][j]);
        }
    }

    /// Mean and standard deviation of the first `channels` channels.
    pub fn normalise(&self, channels: usize) -> Normalise {
        let of = |i: usize| super::batch::moments(self.pixels.max(1), self.levels[i], self.products[i][i]);
        let (mean, std) = (0..channels.min(3)).map(of).unzip();
        Normalise { mean, std }
    }
}

/// Photos that are decoded before their sums are added up: a bound on what is remembered meanwhile.
pub(super) const AT_ONCE: usize = 4096;

/// The files of a half that can be decoded, the sums of their pixels and what is wrong with the others.
fn sift(half: Half, broken: Broken) -> Result<(Vec<Photo>, Sums, Vec<DataError>), DataError> {
    let (mut good, mut sums, mut skipped) = (Vec::new(), Sums::default(), Vec::new());
    for files in half.files.chunks(AT_ONCE) {
        let photo = |(path, label): &(PathBuf, u32)| Photo { path: path.clone(), label: *label };
        let seen = files.par_iter().map(photo).map(|p| p.open().map(|picture| (p, Sums::of(&picture))));
        for seen in seen.collect::<Vec<Result<(Photo, Sums), DataError>>>() {
            match seen {
                Ok((photo, of_photo)) => {
                    sums.add(&of_photo);
                    good.push(photo);
                }
                Err(e) if broken == Broken::Fatal => return Err(e),
                Err(e) => skipped.push(e),
            }
        }
    }
    let lacks = |&(label, _): &(u32, &String)| !good.iter().any(|p: &Photo| p.label == label);
    match (0..).zip(&half.classes).find(lacks) {
        Some((_, class)) => {
            let why = "holds no image that can be decoded".into();
            Err(DataError::Folder { path: half.path.join(class), why })
        }
        None => Ok((good, sums, skipped)),
    }
}

impl Photos {
    /// Opens a set, decoding each file with the threads of the current rayon pool; the same result for any number of
    /// them.
    ///
    /// # Errors
    /// [`DataError`], naming the file: as [`folder::load`]; a class of which no file can be decoded.
    pub fn open(path: &Path, broken: Broken) -> Result<Photos, DataError> {
        let (train, test) = folder::halves(path)?;
        let classes = train.classes.clone();
        let (train, sums, mut skipped) = sift(train, broken)?;
        let (test, _, of_test) = sift(test, broken)?;
        skipped.extend(of_test);
        let colours = Colours::of(sums.pixels, sums.levels, sums.products);
        Ok(Photos { name: read::name(path), classes, train, test, skipped, normalise: sums.normalise(3), colours })
    }

    /// A data set of images of `h × w` pixels that are cut from the photos: in the middle, the shorter side scaled to
    /// `shorter`, unless they are varied.
    ///
    /// # Errors
    /// A scale smaller than the images.
    pub fn dataset(self, (h, w): (usize, usize), shorter: u32) -> Result<Dataset, DataError> {
        Sight::Middle(shorter).check((h, w))?;
        let images = |photos: Vec<Photo>| {
            let labels = photos.iter().map(|p| p.label).collect();
            let (normalise, colours) = (self.normalise.clone(), self.colours);
            let set = PhotoSet { photos, shorter, normalise, colours };
            Images { c: 3, h, w, pixels: Vec::new(), labels, disk: Some(Disk::Photos(Arc::new(set))) }
        };
        Ok(Dataset { name: self.name, classes: self.classes, train: images(self.train), test: images(self.test) })
    }

    /// The test half alone: of the training photos only the names are looked at.
    ///
    /// # Errors
    /// As [`Photos::open`].
    pub fn open_test(path: &Path, broken: Broken) -> Result<TestPhotos, DataError> {
        let (_, test) = folder::halves(path)?;
        let classes = test.classes.clone();
        let (photos, _, skipped) = sift(test, broken)?;
        Ok(TestPhotos { name: read::name(path), classes, photos, skipped })
    }
}

/// A picture whose shorter side has that length, in its own proportions, the longer one rounded to the nearest pixel;
/// by the same filter as in [`folder`].
///
/// # Errors
/// [`DataError`] if it would have more than [`MOST_PIXELS`] pixels; `path` is what the error names.
pub fn scaled(picture: Picture, shorter: usize, path: &Path) -> Result<Picture, DataError> {
    let (short, long) = (picture.h.min(picture.w).max(1) as u128, picture.h.max(picture.w) as u128);
    let longer = (2 * long * shorter as u128 + short) / (2 * short);
    let longer = usize::try_from(longer).unwrap_or(usize::MAX).max(shorter);
    let (h, w) = if picture.h < picture.w { (shorter, longer) } else { (longer, shorter) };
    folder::fit(picture, h, w).map_err(read::format(path))
}

/// The window of a picture at a place, as normalised planes, mirrored or not: `3 × h × w` values.
pub(crate) struct Window<'a> {
    pub picture: &'a Picture,
    pub top: usize,
    pub left: usize,
    pub flip: bool,
    /// Values of the levels, one table a channel.
    pub tables: &'a [[f32; LEVELS]],
}

impl Window<'_> {
    /// Writes the window of `w` columns that fills `out`; pixels outside the picture are 0, the mean.
    pub fn copy(&self, (h, w): (usize, usize), out: &mut [f32]) {
        let Window { picture, top, left, flip, tables } = *self;
        for (channel, (plane, table)) in out.chunks_exact_mut((h * w).max(1)).zip(tables).enumerate() {
            for (y, row) in plane.chunks_exact_mut(w.max(1)).enumerate() {
                for (x, out) in row.iter_mut().enumerate() {
                    let x = left + if flip { w - 1 - x } else { x };
                    let inside = top + y < picture.h && x < picture.w;
                    let at = 3 * ((top + y) * picture.w + x) + channel;
                    *out = picture.rgb.get(at).filter(|_| inside).map_or(0.0, |&level| table[usize::from(level)]);
                }
            }
        }
    }
}

/// What a photo's variation consists of.
#[derive(Debug)]
struct Draw {
    shorter: u32,
    /// Of the places that a crop may have, in `[0, 1)`.
    top: f64,
    left: f64,
    flip: bool,
    shift: [f64; 3],
}

impl Draw {
    fn new(jitter: &Jitter, colours: &Colours, epoch: Epoch, index: u32) -> Draw {
        let mut rng = Rng::at(epoch.seed, rng::AUGMENT, epoch.number, u64::from(index));
        let [low, high] = jitter.scale;
        let shorter = low + rng.below((high.saturating_sub(low)).saturating_add(1));
        let [top, left] = [(); 2].map(|()| f64::from(rng.uniform()));
        let flip = rng.below(2) == 1 && jitter.flip;
        let alphas = [(); 3].map(|()| f64::from(rng.normal()) * f64::from(jitter.colour));
        Draw { shorter, top, left, flip, shift: colours.shift(alphas) }
    }
}

/// What [`photo_batch`] makes of a photo.
#[derive(Debug, Clone, Copy)]
pub enum Sight<'a> {
    /// The crop in the middle, the shorter side scaled to this length.
    Middle(u32),
    /// A random variation.
    Varied(Jitter, &'a Colours, Epoch),
}

impl Sight<'_> {
    /// Refuses lengths that the crop does not fit into.
    fn check(&self, (h, w): (usize, usize)) -> Result<(), DataError> {
        let [low, high] = match self {
            Sight::Middle(s) => [*s; 2],
            Sight::Varied(jitter, ..) => jitter.scale,
        };
        let most = h.max(w);
        if (low as usize) < most || high < low {
            let why = format!("scale = {low} to {high}: it must be rising, and at least the crop's {most} pixels");
            return Err(DataError::Photos { why });
        }
        Ok(())
    }
}

/// Assembles a batch of photos: number `indices[i]`, seen as `sight` says, goes to place `i` of `out` (NCHW, 3 channels
/// of `size`), its label to `labels[i]`. What a photo becomes depends on neither its place in the batch nor the
/// threads.
///
/// # Errors
/// [`DataError`]: a length that does not fit, a photo that does not exist or can no longer be decoded, a normalisation
/// that is not finite, a scale smaller than the crop.
pub fn photo_batch(
    photos: &[Photo],
    indices: &[u32],
    size: (usize, usize),
    norm: &Normalise,
    sight: Sight<'_>,
    out: &mut [f32],
    labels: &mut [u32],
) -> Result<(), DataError> {
    let image_len = size.0.saturating_mul(size.1).saturating_mul(3);
    let want = image_len.saturating_mul(indices.len());
    for (what, got, want) in [("out", out.len(), want), ("labels", labels.len(), indices.len())] {
        if got != want {
            return Err(DataError::Length { what, got, want });
        }
    }
    if let Some(&index) = indices.iter().find(|&&i| i as usize >= photos.len()) {
        return Err(DataError::Index { index, samples: photos.len() });
    }
    sight.check(size)?;
    let plain = norm.tables(3, [0.0; 3])?;
    labels.iter_mut().zip(indices).for_each(|(label, &index)| *label = photos[index as usize].label);
    if image_len == 0 {
        return Ok(());
    }
    // The first failure in the order of the batch, whichever thread is faster.
    let failed = out.par_chunks_exact_mut(image_len).zip(indices).find_map_first(|(out, &index)| {
        let photo = &photos[index as usize];
        let mut put = || -> Result<(), DataError> {
            let picture = photo.open()?;
            let middle = Draw { shorter: 0, top: 0.5, left: 0.5, flip: false, shift: [0.0; 3] };
            let (draw, tables) = match sight {
                Sight::Middle(shorter) => (Draw { shorter, ..middle }, plain.clone()),
                Sight::Varied(jitter, colours, epoch) => {
                    let draw = Draw::new(&jitter, colours, epoch, index);
                    let tables = norm.tables(3, draw.shift)?;
                    (draw, tables)
                }
            };
            let picture = scaled(picture, draw.shorter as usize, &photo.path)?;
            let place = |share: f64, room: usize| (share * (room + 1) as f64) as usize;
            let (top, left) = (place(draw.top, picture.h - size.0), place(draw.left, picture.w - size.1));
            Window { picture: &picture, top, left, flip: draw.flip, tables: &tables }.copy(size, out);
            Ok(())
        };
        put().err()
    });
    failed.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests;
