//! Data sets of images: the embedded one, drawn from the seed, and readers of the formats that image classification is
//! published in.

mod batch;
pub mod cifar;
mod error;
mod feed;
pub mod folder;
pub mod idx;
mod images;
pub mod photos;
mod read;
pub mod shapes;

pub(crate) use batch::LEVELS;
pub use batch::{Augment, Epoch, Normalise, batch};
pub use error::{DataError, FormatError};
pub use feed::{AHEAD, Feed, Order};
pub use images::{Dataset, Disk, Images};

use std::{io::ErrorKind, path::Path};

/// A published form of data sets: its name, which names of files show it, and its reader.
type Format = (&'static str, fn(&str) -> bool, fn(&Path) -> Result<Dataset, DataError>);

const FORMATS: [Format; 4] = [
    ("CIFAR-10", |name| cifar::Cifar::Ten.has(name), |folder| cifar::load(folder, cifar::Cifar::Ten)),
    ("CIFAR-100", |name| cifar::Cifar::Hundred.has(name), |folder| cifar::load(folder, cifar::Cifar::Hundred)),
    ("an image folder", folder::has, folder::load),
    ("IDX files", idx::has, idx::load),
];

/// Loads a data set: `shapes`, the embedded one (see [`shapes`]), drawn from the seed, or the path of a directory,
/// whose form is told by the names in it: [`cifar`], [`folder`] or [`idx`].
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
    let path = Path::new(text);
    let unknown = || DataError::Unknown { path: path.to_owned() };
    let entries = match path.read_dir() {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Err(unknown()),
        Err(e) => return Err(read::io(path)(e)),
    };
    let mut found = [false; FORMATS.len()];
    for entry in entries {
        let name = entry.map_err(read::io(path))?.file_name();
        let Some(name) = name.to_str() else { continue };
        found.iter_mut().zip(FORMATS).for_each(|(found, (_, has, _))| *found |= has(name));
    }
    let mut found = FORMATS.into_iter().zip(found).filter_map(|(format, found)| found.then_some(format));
    match (found.next(), found.next()) {
        (Some((.., load)), None) => load(path),
        (Some((one, ..)), Some((other, ..))) => {
            Err(DataError::Folder { path: path.to_owned(), why: format!("holds {one} and {other}: which is meant?") })
        }
        (None, _) => Err(unknown()),
    }
}

#[cfg(test)]
mod tests;
