//! Image folders: `train/CLASS/*.jpg|jpeg|png` and `test/CLASS/…`, the extensions in any case. Where `test` lacks,
//! `val` takes its place.
//!
//! The classes are the names of the folders, sorted by their bytes; training and test must have the same, and each
//! folder an image. A class's images are sorted by name. Names that begin with a dot, files beside the classes, folders
//! inside a class and files that are no images by their name are passed over; links are followed.
//!
//! The first training image sets the size. An image of another size is stretched to it by linear interpolation, over as
//! many pixels as it shrinks (the triangle filter of the crate `image`, in `f32` and in one order on every machine).
//! Images have one channel if every file, training and test, is stored as grey, and three otherwise, equal ones for the
//! grey files. See [`decode`] for what becomes of transparency, orientation and colour profiles.
//!
//! Every file is decoded when the folder is loaded, so that a broken one is known before training begins. Images of at
//! most [`MOST_HELD`] bytes in all stay in memory, which is simpler and faster than reading them once an epoch:
//! CIFAR-10 has 176 MiB. Those of a larger folder are read and decoded again whenever they are needed, by
//! [`Feed`](super::Feed) ahead of the step; memory holds their names. The images are the same bytes either way.

mod files;
mod picture;

pub use files::FileSet;
pub use picture::{MOST_PIXELS, Picture, decode};

/// Bytes of the images, training and test, decoded, three channels a pixel, that are held in memory.
pub const MOST_HELD: u64 = 1 << 30;

use super::{DataError, Dataset, FormatError, Images, read};
use image::{ImageBuffer, Rgb, imageops};
use rayon::prelude::*;
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

/// Whether an entry of this name shows that its directory holds an image folder.
pub(super) fn has(name: &str) -> bool {
    ["train", "test", "val"].contains(&name)
}

fn refuse(path: &Path, why: impl Into<String>) -> DataError {
    DataError::Folder { path: path.to_owned(), why: why.into() }
}

/// Names of the folders, or of the images, in a directory, sorted; but for those that begin with a dot.
fn entries(path: &Path, folders: bool) -> Result<Vec<OsString>, DataError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(read::io(path))? {
        let entry = entry.map_err(read::io(path))?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") || !(folders || is_image(&name)) {
            continue;
        }
        let mut kind = entry.file_type().map_err(read::io(&entry.path()))?;
        if kind.is_symlink() {
            kind = fs::metadata(entry.path()).map_err(read::io(&entry.path()))?.file_type();
        }
        if (folders && kind.is_dir()) || (!folders && kind.is_file()) {
            found.push(name);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether a file's name is that of an image.
fn is_image(name: &OsString) -> bool {
    let end = Path::new(name).extension().unwrap_or_default();
    ["jpg", "jpeg", "png"].iter().any(|e| end.eq_ignore_ascii_case(e))
}

/// The training or the test half: its classes, and each file with its label.
pub(super) struct Half {
    pub path: PathBuf,
    pub classes: Vec<String>,
    pub files: Vec<(PathBuf, u32)>,
}

impl Half {
    fn list(path: PathBuf) -> Result<Half, DataError> {
        let mut half = Half { path, classes: Vec::new(), files: Vec::new() };
        for (label, name) in (0..).zip(entries(&half.path, true)?) {
            let class = half.path.join(&name);
            let files = entries(&class, false)?;
            if files.is_empty() {
                return Err(refuse(&class, "holds no image (*.jpg, *.jpeg, *.png)"));
            }
            half.files.extend(files.into_iter().map(|file| (class.join(file), label)));
            half.classes.push(name.into_string().map_err(|_| refuse(&class, "its name is not UTF-8"))?);
        }
        if half.classes.is_empty() {
            return Err(refuse(&half.path, "holds no folder of a class"));
        }
        Ok(half)
    }

    fn labels(&self) -> Vec<u32> {
        self.files.iter().map(|&(_, label)| label).collect()
    }

    /// Decodes the images, to three planes of the size each; and whether any of them is stored in colour.
    fn decode(&self, (h, w): (usize, usize)) -> Result<(Images, bool), DataError> {
        // At most MOST_PIXELS a plane.
        let image_len = 3 * h * w;
        let (mut pixels, colour) = (Vec::new(), AtomicBool::new(false));
        let bytes = self.files.len() as u64 * image_len as u64;
        read::reserve(&mut pixels, bytes, &self.path)?;
        pixels.resize(self.files.len() * image_len, 0);
        // The first failure in the order of the files, whichever thread is faster.
        let failed = pixels.par_chunks_exact_mut(image_len).zip(&self.files).find_map_first(|(out, (path, _))| {
            let picture = match fitted(path, (h, w)) {
                Ok(picture) => picture,
                Err(e) => return Some(e),
            };
            colour.fetch_or(!picture.grey, Ordering::Relaxed);
            planes(&picture, out);
            None
        });
        match failed {
            Some(e) => Err(e),
            None => Ok((Images { c: 3, h, w, pixels, labels: self.labels(), disk: None }, colour.into_inner())),
        }
    }
}

fn open(path: &Path) -> Result<Picture, DataError> {
    decode(&read::file(path)?, MOST_PIXELS).map_err(read::format(path))
}

/// A file's picture, of that size.
fn fitted(path: &Path, (h, w): (usize, usize)) -> Result<Picture, DataError> {
    open(path).and_then(|p| fit(p, h, w).map_err(read::format(path)))
}

/// The picture's channels one after the other, as many as `out` has room for.
fn planes(picture: &Picture, out: &mut [u8]) {
    for (channel, plane) in out.chunks_exact_mut(picture.h * picture.w).enumerate() {
        let values = picture.rgb.iter().skip(channel).step_by(3);
        plane.iter_mut().zip(values).for_each(|(out, &value)| *out = value);
    }
}

/// Stretches a picture to a size, unless it has that. Neither the result nor what is between may have more than
/// [`MOST_PIXELS`] pixels.
pub(super) fn fit(picture: Picture, h: usize, w: usize) -> Result<Picture, FormatError> {
    if (picture.h, picture.w) == (h, w) {
        return Ok(picture);
    }
    // The height changes first.
    let pixels = (picture.w as u64).max(w as u64).saturating_mul(h as u64);
    if pixels > MOST_PIXELS as u64 {
        return Err(FormatError::Large { what: "pixels", got: pixels, most: MOST_PIXELS as u64 });
    }
    let Picture { h: from_h, w: from_w, grey, rgb } = picture;
    let (got, want) = (rgb.len() as u64, 3 * from_h as u64 * from_w as u64);
    let image = ImageBuffer::<Rgb<u8>, _>::from_raw(from_w as u32, from_h as u32, rgb);
    let image = image.ok_or(FormatError::Size { got, want })?;
    let rgb = imageops::resize(&image, w as u32, h as u32, imageops::FilterType::Triangle).into_raw();
    Ok(Picture { h, w, grey, rgb })
}

/// Keeps the first of the three planes of every image.
fn to_grey(images: &mut Images) {
    let plane = images.h * images.w;
    for i in 0..images.len() {
        images.pixels.copy_within(i * 3 * plane..(i * 3 + 1) * plane, i * plane);
    }
    images.pixels.truncate(images.len() * plane);
    images.pixels.shrink_to_fit();
    images.c = 1;
}

/// The files of an image folder, training and test, with equal classes.
pub(super) fn halves(folder: &Path) -> Result<(Half, Half), DataError> {
    let [train, test, val] = ["train", "test", "val"].map(|name| folder.join(name));
    let there = |path: &Path| path.try_exists().map_err(read::io(path));
    if !there(&train)? {
        return Err(refuse(folder, "holds no folder `train`"));
    }
    let test = match (there(&test)?, there(&val)?) {
        (false, false) => return Err(refuse(folder, "holds neither a folder `test` nor `val`")),
        (false, true) => val,
        (true, _) => test,
    };
    let (train, test) = (Half::list(train)?, Half::list(test)?);
    for (has, lacks) in [(&train, &test), (&test, &train)] {
        if let Some(class) = has.classes.iter().find(|c| !lacks.classes.contains(c)) {
            return Err(refuse(&lacks.path, format!("holds no folder {class:?}, but {} does", has.path.display())));
        }
    }
    Ok((train, test))
}

/// Loads an image folder; the images are decoded by the threads of the current rayon pool, with the same result for any
/// number of them.
///
/// # Errors
/// [`DataError`], naming the file and what is wrong with it: of several, the first by order.
pub fn load(folder: &Path) -> Result<Dataset, DataError> {
    load_within(folder, MOST_HELD)
}

/// As [`load`], but holding images of at most so many bytes in memory, in place of [`MOST_HELD`].
///
/// # Errors
/// As [`load`].
pub fn load_within(folder: &Path, most_held: u64) -> Result<Dataset, DataError> {
    let (train, test) = halves(folder)?;
    // `list` leaves no half without a file.
    let Some((first, _)) = train.files.first() else { return Err(refuse(&train.path, "holds no image")) };
    let first = open(first)?;
    let size = (first.h, first.w);
    let (classes, count) = (train.classes.clone(), train.files.len() as u64 + test.files.len() as u64);
    if count.saturating_mul(3 * size.0 as u64 * size.1 as u64) > most_held {
        let (train, test) = files::images(train, test, size)?;
        return Ok(Dataset { name: read::name(folder), classes, train, test });
    }
    let ((mut train, colour), (mut test, test_colour)) = (train.decode(size)?, test.decode(size)?);
    if !(colour || test_colour) {
        to_grey(&mut train);
        to_grey(&mut test);
    }
    Ok(Dataset { name: read::name(folder), classes, train, test })
}

#[cfg(test)]
mod tests;
