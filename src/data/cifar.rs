//! CIFAR-10 and CIFAR-100 ([Krizhevsky 2009](https://www.cs.toronto.edu/~kriz/cifar.html)) in their binary form.
//!
//! A file is a row of records: the label (CIFAR-100: the coarse label, which is not used, and the fine one), then 3072
//! bytes, the 32×32 red, green and blue values, row by row. CIFAR-10 is `data_batch_1.bin` to `data_batch_5.bin` and
//! `test_batch.bin`, CIFAR-100 `train.bin` and `test.bin`. A file may have any number of records but none.

use super::{DataError, Dataset, FormatError, Images, read};
use std::path::Path;

/// Height and width of an image.
pub const SIZE: usize = 32;
const PIXELS: usize = 3 * SIZE * SIZE;

/// Largest file of class names, in bytes.
const MOST_NAMES: usize = 1 << 16;
const NAMES_10: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// Which of the two sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cifar {
    /// 10 classes; a record has one label.
    Ten,
    /// 100 classes; a record has a coarse and a fine label.
    Hundred,
}

impl Cifar {
    /// Number of classes.
    pub fn classes(self) -> usize {
        match self {
            Cifar::Ten => 10,
            Cifar::Hundred => 100,
        }
    }

    /// Bytes before an image; the last of them is its label.
    fn label_bytes(self) -> usize {
        match self {
            Cifar::Ten => 1,
            Cifar::Hundred => 2,
        }
    }

    fn train(self) -> &'static [&'static str] {
        match self {
            Cifar::Ten => {
                &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"]
            }
            Cifar::Hundred => &["train.bin"],
        }
    }

    fn test(self) -> &'static str {
        match self {
            Cifar::Ten => "test_batch.bin",
            Cifar::Hundred => "test.bin",
        }
    }

    /// Whether a file of this name shows that its directory holds the set.
    pub(super) fn has(self, name: &str) -> bool {
        self.train().contains(&name) || self.test() == name
    }

    /// Names of the classes: a line each in `batches.meta.txt` or `fine_label_names.txt`; without that file CIFAR-10's
    /// usual names, and CIFAR-100's numbers.
    fn names(self, folder: &Path) -> Result<Vec<String>, DataError> {
        let path = folder.join(match self {
            Cifar::Ten => "batches.meta.txt",
            Cifar::Hundred => "fine_label_names.txt",
        });
        if path.try_exists().map_err(read::io(&path))? {
            return parse_names(&read::file(&path)?, self.classes()).map_err(read::format(&path));
        }
        Ok(match self {
            Cifar::Ten => NAMES_10.map(String::from).to_vec(),
            Cifar::Hundred => (0..self.classes()).map(|i| i.to_string()).collect(),
        })
    }
}

/// The images of one file.
///
/// ```
/// use rectify::data::cifar::{Cifar, parse};
/// let mut file = vec![7; 2 * 3073];
/// file[3073] = 9;
/// assert_eq!(parse(&file, Cifar::Ten)?.labels, [7, 9]);
/// assert!(parse(&file[1..], Cifar::Ten).is_err());
/// # Ok::<(), rectify::data::FormatError>(())
/// ```
///
/// # Errors
/// [`FormatError::Size`] unless the bytes are whole records, at least one; [`FormatError::Label`].
pub fn parse(bytes: &[u8], set: Cifar) -> Result<Images, FormatError> {
    let (head, classes) = (set.label_bytes(), set.classes());
    let record = head + PIXELS;
    if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
        let want = bytes.len().div_ceil(record).max(1) as u64 * record as u64;
        return Err(FormatError::Size { got: bytes.len() as u64, want });
    }
    let mut pixels = Vec::with_capacity(bytes.len() / record * PIXELS);
    let mut labels = Vec::with_capacity(bytes.len() / record);
    for (number, record) in bytes.chunks_exact(record).enumerate() {
        let label = u32::from(record[head - 1]);
        if label as usize >= classes {
            return Err(FormatError::Label { record: number, label, classes });
        }
        labels.push(label);
        pixels.extend_from_slice(&record[head..]);
    }
    Ok(Images { c: 3, h: SIZE, w: SIZE, pixels, labels, disk: None })
}

/// The names of the classes, a line each; empty lines do not count.
fn parse_names(bytes: &[u8], classes: usize) -> Result<Vec<String>, FormatError> {
    if bytes.len() > MOST_NAMES {
        return Err(FormatError::Large { what: "bytes", got: bytes.len() as u64, most: MOST_NAMES as u64 });
    }
    let text = std::str::from_utf8(bytes).map_err(|e| FormatError::Header(e.to_string()))?;
    let names: Vec<String> = text.lines().map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()).collect();
    if names.len() != classes {
        return Err(FormatError::Header(format!("{} names of classes, but there are {classes} classes", names.len())));
    }
    Ok(names)
}

/// Loads the set from its directory. All its files must be there; only the one with the names of the classes may lack.
///
/// # Errors
/// [`DataError`], naming the file and what is wrong with it.
pub fn load(folder: &Path, set: Cifar) -> Result<Dataset, DataError> {
    let part = |names: &[&str]| -> Result<Images, DataError> {
        let mut all = Images { c: 3, h: SIZE, w: SIZE, pixels: Vec::new(), labels: Vec::new(), disk: None };
        for name in names {
            let path = folder.join(name);
            let images = parse(&read::file(&path)?, set).map_err(read::format(&path))?;
            read::reserve(&mut all.pixels, images.pixels.len() as u64, &path)?;
            all.pixels.extend_from_slice(&images.pixels);
            all.labels.extend_from_slice(&images.labels);
        }
        Ok(all)
    };
    let (train, test) = (part(set.train())?, part(&[set.test()])?);
    Ok(Dataset { name: read::name(folder), classes: set.names(folder)?, train, test })
}

#[cfg(test)]
mod tests;
