//! Reading whole files, within bounds.

use super::{DataError, FormatError};
use std::{fs, io::Read, path::Path};

/// Bytes of the largest file that is read.
pub(super) const MOST_BYTES: u64 = 1 << 32;

/// An error of the system, with the path that it is about.
pub(super) fn io(path: &Path) -> impl Fn(std::io::Error) -> DataError {
    move |source| DataError::Io { path: path.to_owned(), source }
}

/// What is wrong with the content of a file, with the path of the file.
pub(super) fn format(path: &Path) -> impl Fn(FormatError) -> DataError {
    move |source| DataError::File { path: path.to_owned(), source }
}

/// Reads a file of at most [`MOST_BYTES`]. What is no file is refused unopened: a pipe would never end.
pub(super) fn file(path: &Path) -> Result<Vec<u8>, DataError> {
    let about = fs::metadata(path).map_err(io(path))?;
    if !about.is_file() {
        return Err(DataError::Folder { path: path.to_owned(), why: "is not a file".into() });
    }
    if about.len() > MOST_BYTES {
        return Err(format(path)(FormatError::Large { what: "bytes", got: about.len(), most: MOST_BYTES }));
    }
    let mut bytes = Vec::new();
    reserve(&mut bytes, about.len(), path)?;
    fs::File::open(path).and_then(|f| f.take(MOST_BYTES).read_to_end(&mut bytes)).map_err(io(path))?;
    Ok(bytes)
}

/// Makes room for `more` bytes, or says that there is none.
pub(super) fn reserve(bytes: &mut Vec<u8>, more: u64, path: &Path) -> Result<(), DataError> {
    let none = || DataError::Memory { path: path.to_owned(), bytes: more };
    bytes.try_reserve_exact(usize::try_from(more).map_err(|_| none())?).map_err(|_| none())
}

/// The last part of a path.
pub(super) fn name(path: &Path) -> String {
    // `.` and `..` have no last part of their own.
    let whole = if path.file_name().is_some() { None } else { path.canonicalize().ok() };
    let path = whole.as_deref().unwrap_or(path);
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
