//! Labelled images, in memory or on the disk.

use super::folder::FileSet;
use super::photos::PhotoSet;
use super::{DataError, Normalise};
use std::borrow::Cow;
use std::sync::Arc;

/// A data set for classification: what to train on and what to test with.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Its name: `shapes`, or the last part of its path.
    pub name: String,
    /// Names of the classes; a label is an index into them.
    pub classes: Vec<String>,
    /// Images to train on.
    pub train: Images,
    /// Images to test with, of the same size.
    pub test: Images,
}

/// Images of one size, with a label each: in memory, or read from the disk whenever they are needed.
#[derive(Debug, Clone, PartialEq)]
pub struct Images {
    /// Channels: 3 (red, green, blue) or 1.
    pub c: usize,
    /// Height in pixels.
    pub h: usize,
    /// Width in pixels.
    pub w: usize,
    /// NCHW: `len() * c * h * w` values from 0 to 255; none of images on the disk.
    pub pixels: Vec<u8>,
    /// One label an image, below the number of classes.
    pub labels: Vec<u32>,
    /// What is on the disk; nothing if the pixels are here.
    pub disk: Option<Disk>,
}

/// Images that are read, decoded and brought to their size whenever they are needed.
#[derive(Debug, Clone, PartialEq)]
pub enum Disk {
    /// Of an image folder that is too large for memory, each stretched to the size of all.
    Files(Arc<FileSet>),
    /// Photos, each of its own size, that the images are cut from.
    Photos(Arc<PhotoSet>),
}

impl Disk {
    /// Number of images.
    pub fn len(&self) -> usize {
        match self {
            Disk::Files(set) => set.files.len(),
            Disk::Photos(set) => set.photos.len(),
        }
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Mean and standard deviation of the pixels: of files their own, of photos those of all training photos.
    pub fn normalise(&self) -> &Normalise {
        match self {
            Disk::Files(set) => &set.normalise,
            Disk::Photos(set) => &set.normalise,
        }
    }
}

impl Images {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Values of one image: `c * h * w`.
    pub fn image_len(&self) -> usize {
        self.c.saturating_mul(self.h).saturating_mul(self.w)
    }

    /// Whether the pixels are in memory, not on the disk.
    pub fn in_memory(&self) -> bool {
        self.disk.is_none()
    }

    /// The values of image `i`, CHW; nothing if there is no such image, or it is not in memory.
    pub fn image(&self, i: usize) -> Option<&[u8]> {
        let start = i.checked_mul(self.image_len())?;
        self.pixels.get(start..start.checked_add(self.image_len())?)
    }

    /// The values of image `i`, CHW, from memory or from its file. Photos have no values before they are cut.
    ///
    /// # Errors
    /// [`DataError`]: no such image, a file that can no longer be decoded, a photo.
    pub fn read(&self, i: usize) -> Result<Cow<'_, [u8]>, DataError> {
        let none = DataError::Index { index: u32::try_from(i).unwrap_or(u32::MAX), samples: self.len() };
        match &self.disk {
            Some(Disk::Files(set)) => set.read(i, (self.h, self.w)).map(Cow::Owned),
            Some(Disk::Photos(_)) => Err(DataError::Photos { why: "a photo must be cut before it is read".into() }),
            None => self.image(i).map(Cow::Borrowed).ok_or(none),
        }
    }

    /// Checks that there are as many pixels, or files, as the size and the labels ask for.
    ///
    /// # Errors
    /// [`DataError::Length`].
    pub fn check(&self) -> Result<(), DataError> {
        if let Some(disk) = &self.disk {
            let (got, want) = (disk.len(), self.len());
            return if got == want { Ok(()) } else { Err(DataError::Length { what: "files", got, want }) };
        }
        let (got, want) = (self.pixels.len(), self.image_len().saturating_mul(self.len()));
        if got == want { Ok(()) } else { Err(DataError::Length { what: "pixels", got, want }) }
    }
}
