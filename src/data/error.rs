//! What the readers refuse.

use std::{io, path::PathBuf};

/// Why a data set cannot be loaded, or a batch cannot be assembled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or directory cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The content of a file is refused.
    #[error("{}: {source}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        source: FormatError,
    },
    /// A path holds none of the known formats.
    #[error(
        "{}: no data set: expected `shapes`, or a directory with train/CLASS/*.jpg|jpeg|png and test or val/CLASS/…, \
         with CIFAR's data_batch_1.bin or train.bin, or with IDX files such as train-images-idx3-ubyte[.gz]",
        path.display()
    )]
    Unknown {
        /// The path.
        path: PathBuf,
    },
    /// A directory lacks something, or holds what does not fit together.
    #[error("{}: {why}", path.display())]
    Folder {
        /// The directory, or the part of it.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is not enough memory.
    #[error("{}: not enough memory for {bytes} bytes", path.display())]
    Memory {
        /// What was to be read.
        path: PathBuf,
        /// Bytes that could not be had.
        bytes: u64,
    },
    /// A slice has another length than the images and the batch ask for.
    #[error("{what} has {got} elements, but {want} are needed")]
    Length {
        /// Which slice.
        what: &'static str,
        /// Its length.
        got: usize,
        /// The length that is needed.
        want: usize,
    },
    /// A sample's index is not below their number.
    #[error("sample {index} does not exist: there are {samples}")]
    Index {
        /// The index.
        index: u32,
        /// The number of samples.
        samples: usize,
    },
    /// No batches can be made of the images.
    #[error(
        "batch = {batch} of {images} images: it must be at least 1 and at most their number, which must be below 2³²"
    )]
    Batch {
        /// Images a batch.
        batch: usize,
        /// The number of images.
        images: usize,
    },
    /// Photos cannot be seen as was asked.
    #[error("{why}")]
    Photos {
        /// Why not.
        why: String,
    },
    /// A mean is not finite, or a standard deviation is not finite and positive.
    #[error("{what} of channel {channel} is {value}: it must be {must}")]
    Normalise {
        /// `mean` or `std`.
        what: &'static str,
        /// The channel.
        channel: usize,
        /// The number.
        value: f32,
        /// What it must be.
        must: &'static str,
    },
}

/// What is wrong with the content of a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The file ends too early, or goes on too long.
    #[error("{got} bytes, but {want} are expected")]
    Size {
        /// Bytes that are there.
        got: u64,
        /// Bytes that its header or format asks for.
        want: u64,
    },
    /// A record's label is not below the number of classes.
    #[error("record {record}: label {label} is not below {classes}")]
    Label {
        /// Number of the record, from 0.
        record: usize,
        /// Its label.
        label: u32,
        /// The number of classes.
        classes: usize,
    },
    /// A file, or the picture that its header announces, is larger than what is read.
    #[error("{what}: {got}, but at most {most} are read")]
    Large {
        /// `bytes` or `pixels`.
        what: &'static str,
        /// How many there are, or would be.
        got: u64,
        /// The bound.
        most: u64,
    },
    /// The header is none that this reader knows.
    #[error("{0}")]
    Header(String),
    /// A picture or a compressed stream cannot be decoded.
    #[error("cannot decode: {0}")]
    Decode(String),
}
