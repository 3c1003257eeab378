//! Image folders that are too large for memory.

use super::{Half, fitted, planes};
use crate::data::photos::{AT_ONCE, Sums};
use crate::data::{DataError, Disk, Images, Normalise};
use rayon::prelude::*;
use std::path::PathBuf;
use std::sync::Arc;

/// The files of images that are decoded, and stretched to one size, whenever they are needed.
#[derive(Debug, PartialEq)]
pub struct FileSet {
    /// The files.
    pub files: Vec<PathBuf>,
    /// Whether one channel is kept of them, else three.
    pub grey: bool,
    /// Mean and standard deviation of their pixels.
    pub normalise: Normalise,
}

impl FileSet {
    /// The values of image `i`, CHW, of that size.
    ///
    /// # Errors
    /// [`DataError`]: no such image; naming the file, what is wrong with it.
    pub fn read(&self, i: usize, (h, w): (usize, usize)) -> Result<Vec<u8>, DataError> {
        let none = || DataError::Index { index: u32::try_from(i).unwrap_or(u32::MAX), samples: self.files.len() };
        let picture = fitted(self.files.get(i).ok_or_else(none)?, (h, w))?;
        let mut out = vec![0; if self.grey { 1 } else { 3 } * picture.h * picture.w];
        planes(&picture, &mut out);
        Ok(out)
    }
}

/// Decodes every file of a half: the sums of the pixels, and whether any is stored in colour.
fn scan(half: &Half, size: (usize, usize)) -> Result<(Sums, bool), DataError> {
    let (mut sums, mut colour) = (Sums::default(), false);
    for files in half.files.chunks(AT_ONCE) {
        let see = |(path, _): &(PathBuf, u32)| fitted(path, size).map(|picture| (Sums::of(&picture), !picture.grey));
        for seen in files.par_iter().map(see).collect::<Vec<Result<(Sums, bool), DataError>>>() {
            let (of_file, coloured) = seen?;
            sums.add(&of_file);
            colour |= coloured;
        }
    }
    Ok((sums, colour))
}

/// The images of both halves, as they are in memory but for their pixels.
pub(super) fn images(train: Half, test: Half, size: (usize, usize)) -> Result<(Images, Images), DataError> {
    let ((train_sums, train_colour), (test_sums, test_colour)) = (scan(&train, size)?, scan(&test, size)?);
    let grey = !(train_colour || test_colour);
    let (c, (h, w)) = (if grey { 1 } else { 3 }, size);
    let images = |half: Half, sums: Sums| {
        let labels = half.labels();
        let files = half.files.into_iter().map(|(path, _)| path).collect();
        let set = FileSet { files, grey, normalise: sums.normalise(c) };
        Images { c, h, w, pixels: Vec::new(), labels, disk: Some(Disk::Files(Arc::new(set))) }
    };
    Ok((images(train, train_sums), images(test, test_sums)))
}
