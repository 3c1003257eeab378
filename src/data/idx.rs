//! IDX files ([LeCun et al.](http://yann.lecun.com/exdb/mnist/)), in which MNIST and its successors are published.
//!
//! Two zero bytes, the type of the values (8: unsigned bytes), the number of dimensions, each dimension as a big-endian
//! `u32`, the values. A directory has `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte`
//! and `t10k-labels-idx1-ubyte`, or the same with a dot before `idx`, each plain or, with `.gz` behind its name,
//! gzipped; where several of these are there, the first of this order is read. Images have one channel. The classes are
//! the numbers from 0 to the largest label of the training images: `0` to `9` for MNIST.

use super::{DataError, Dataset, FormatError, Images, read};
use flate2::read::MultiGzDecoder;
use std::{
    io::Read,
    path::{Path, PathBuf},
};

/// What the files of a directory begin with.
const ROLES: [&str; 4] = ["train-images", "train-labels", "t10k-images", "t10k-labels"];

/// The names that a file may have.
fn names(role: &str) -> [String; 4] {
    let dims = if role.ends_with("images") { 3 } else { 1 };
    [("-", ""), (".", ""), ("-", ".gz"), (".", ".gz")].map(|(dot, gz)| format!("{role}{dot}idx{dims}-ubyte{gz}"))
}

/// Whether a file of this name shows that its directory holds such a set.
pub(super) fn has(name: &str) -> bool {
    ROLES.iter().any(|role| names(role).iter().any(|n| n == name))
}

/// Bytes of a header in `D` dimensions.
const fn head<const D: usize>() -> usize {
    4 + 4 * D
}

/// Dimensions and length of the file that begins with these bytes.
fn header<const D: usize>(bytes: &[u8]) -> Result<([usize; D], u64), FormatError> {
    let Some((magic, sizes)) = bytes.get(..head::<D>()).and_then(|head| head.split_first_chunk::<4>()) else {
        return Err(FormatError::Size { got: bytes.len() as u64, want: head::<D>() as u64 });
    };
    let (magic, want) = (u32::from_be_bytes(*magic), 0x800 + D as u32);
    if magic != want {
        let why = format!("it begins with {magic:08x}, not with {want:08x}: unsigned bytes in {D} dimensions");
        return Err(FormatError::Header(why));
    }
    let mut dims = [0; D];
    for (dim, size) in dims.iter_mut().zip(sizes.as_chunks::<4>().0) {
        *dim = u32::from_be_bytes(*size) as usize;
    }
    if dims.contains(&0) {
        return Err(FormatError::Header(format!("no dimension of {dims:?} may be 0")));
    }
    let values = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64));
    match values.and_then(|n| n.checked_add(head::<D>() as u64)) {
        Some(length) if length <= read::MOST_BYTES => Ok((dims, length)),
        length => Err(FormatError::Large { what: "bytes", got: length.unwrap_or(u64::MAX), most: read::MOST_BYTES }),
    }
}

/// Dimensions and values of a file of unsigned bytes in `D` dimensions.
///
/// ```
/// use rectify::data::idx::parse;
/// let file = [0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 4];
/// assert_eq!(parse::<1>(&file)?, ([3], &[5, 0, 4][..]));
/// assert!(parse::<1>(&file[..10]).is_err());
/// # Ok::<(), rectify::data::FormatError>(())
/// ```
///
/// # Errors
/// [`FormatError`] unless the header is that of such a file, no dimension is 0, and the values are as many as the
/// dimensions say.
pub fn parse<const D: usize>(bytes: &[u8]) -> Result<([usize; D], &[u8]), FormatError> {
    let (dims, want) = header::<D>(bytes)?;
    let got = bytes.len() as u64;
    if got == want { Ok((dims, &bytes[head::<D>()..])) } else { Err(FormatError::Size { got, want }) }
}

/// Unpacks a gzipped file of unsigned bytes in `D` dimensions. Of a stream that goes on longer than its header says,
/// one byte too many is unpacked, so that [`parse`] refuses the result.
///
/// # Errors
/// [`FormatError`] if the stream is damaged, or its header is refused.
pub fn gunzip<const D: usize>(bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    let damaged = |e: std::io::Error| FormatError::Decode(e.to_string());
    let (mut stream, mut out) = (MultiGzDecoder::new(bytes), Vec::new());
    stream.by_ref().take(head::<D>() as u64).read_to_end(&mut out).map_err(damaged)?;
    let (_, length) = header::<D>(&out)?;
    stream.take(length - out.len() as u64 + 1).read_to_end(&mut out).map_err(damaged)?;
    Ok(out)
}

/// Reads the file of a role; its path, dimensions and values.
fn file<const D: usize>(folder: &Path, role: &str) -> Result<(PathBuf, [usize; D], Vec<u8>), DataError> {
    for name in names(role) {
        let path = folder.join(&name);
        if !path.try_exists().map_err(read::io(&path))? {
            continue;
        }
        let mut bytes = read::file(&path)?;
        if name.ends_with(".gz") {
            bytes = gunzip::<D>(&bytes).map_err(read::format(&path))?;
        }
        let (dims, _) = parse::<D>(&bytes).map_err(read::format(&path))?;
        bytes.drain(..head::<D>());
        return Ok((path, dims, bytes));
    }
    Err(DataError::Folder { path: folder.to_owned(), why: format!("holds no {}[.gz]", names(role)[0]) })
}

/// Reads the images and labels of a part of the set; and the path of each file.
fn part(folder: &Path, images: &str, labels: &str) -> Result<(Images, PathBuf, PathBuf), DataError> {
    let (image_path, [count, h, w], pixels) = file::<3>(folder, images)?;
    let (label_path, [labelled], labels) = file::<1>(folder, labels)?;
    if labelled != count {
        let why = format!("{labelled} labels, but there are {count} images in {}", image_path.display());
        return Err(read::format(&label_path)(FormatError::Header(why)));
    }
    let labels = labels.into_iter().map(u32::from).collect();
    Ok((Images { c: 1, h, w, pixels, labels, disk: None }, image_path, label_path))
}

/// Loads a set from its directory.
///
/// # Errors
/// [`DataError`], naming the file and what is wrong with it.
pub fn load(folder: &Path) -> Result<Dataset, DataError> {
    let [images, labels, test_images, test_labels] = ROLES;
    let (train, ..) = part(folder, images, labels)?;
    let (test, image_path, label_path) = part(folder, test_images, test_labels)?;
    if (test.h, test.w) != (train.h, train.w) {
        let why = format!("images of {}×{}, but those to train on are {}×{}", test.h, test.w, train.h, train.w);
        return Err(read::format(&image_path)(FormatError::Header(why)));
    }
    let classes = train.labels.iter().max().map_or(0, |&l| l as usize + 1);
    if let Some((record, &label)) = test.labels.iter().enumerate().find(|(_, l)| **l as usize >= classes) {
        return Err(read::format(&label_path)(FormatError::Label { record, label, classes }));
    }
    let names = (0..classes).map(|i| i.to_string()).collect();
    Ok(Dataset { name: read::name(folder), classes: names, train, test })
}

#[cfg(test)]
mod tests;
