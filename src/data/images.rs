//! Labelled images in memory.

use super::DataError;
use super::photos::PhotoSet;
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

/// Images of one size, with a label each: in memory, or cut from photos on the disk whenever they are needed.
#[derive(Debug, Clone, PartialEq)]
pub struct Images {
    /// Channels: 3 (red, green, blue) or 1.
    pub c: usize,
    /// Height in pixels.
    pub h: usize,
    /// Width in pixels.
    pub w: usize,
    /// NCHW: `len() * c * h * w` values from 0 to 255; none of photos.
    pub pixels: Vec<u8>,
    /// One label an image, below the number of classes.
    pub labels: Vec<u32>,
    /// The photos that they are cut from.
    pub photos: Option<Arc<PhotoSet>>,
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

    /// The values of image `i`, CHW; nothing if there is no such image, or it is cut from a photo.
    pub fn image(&self, i: usize) -> Option<&[u8]> {
        let start = i.checked_mul(self.image_len())?;
        self.pixels.get(start..start.checked_add(self.image_len())?)
    }

    /// Checks that there are as many pixels, or photos, as the size and the labels ask for.
    ///
    /// # Errors
    /// [`DataError::Length`].
    pub fn check(&self) -> Result<(), DataError> {
        if let Some(set) = &self.photos {
            let (got, want) = (set.photos.len(), self.len());
            return if got == want { Ok(()) } else { Err(DataError::Length { what: "photos", got, want }) };
        }
        let (got, want) = (self.pixels.len(), self.image_len().saturating_mul(self.len()));
        if got == want { Ok(()) } else { Err(DataError::Length { what: "pixels", got, want }) }
    }
}
