//! Files that are written whole or not at all.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file or directory that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl FileError {
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> FileError {
        let path = path.to_owned();
        move |source| FileError { path, source }
    }
}

/// Replaces a file by these bytes, through a temporary file in the same directory: whoever looks sees the old content
/// or the new.
///
/// # Errors
/// [`FileError`], naming the file.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let put = || -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        readable(file.as_file())?;
        file.persist(path).map(drop).map_err(|e| e.error)
    };
    put().map_err(FileError::at(path))
}

/// Gives a temporary file the permissions that files usually have.
#[cfg(unix)]
pub(crate) fn readable(file: &std::fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
pub(crate) fn readable(_: &std::fs::File) -> io::Result<()> {
    Ok(())
}
