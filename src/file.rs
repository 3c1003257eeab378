//! Files that are written whole or not at all.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

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

/// Refuses a path that something else than a regular file stands at: a device or a pipe is not to be replaced by a
/// file, and a link not to be cut.
pub(crate) fn check_place(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(there) if !there.is_file() => Err(io::Error::other("exists and is not a regular file")),
        _ => Ok(()),
    }
}

/// A temporary file beside the one that it becomes once it is whole. If that does not happen, nothing is left.
#[derive(Debug)]
struct Draft {
    path: PathBuf,
    file: NamedTempFile,
}

impl Draft {
    fn new(path: &Path) -> io::Result<Draft> {
        check_place(path)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".rectify-");
        // What files have that are not temporary; the system takes from it what the user's mask says.
        #[cfg(unix)]
        builder.permissions(<fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666));
        let file = builder.tempfile_in(folder).map_err(of_system)?;
        Ok(Draft { path: path.to_owned(), file })
    }

    /// Puts the file under its name, in place of what was there.
    fn finish(self) -> io::Result<()> {
        let Draft { path, file } = self;
        file.as_file().sync_all()?;
        file.persist(path).map(drop).map_err(|e| e.error)
    }
}

/// Whether files can be written in a folder.
pub(crate) fn probe(folder: &Path) -> io::Result<()> {
    NamedTempFile::new_in(folder).map(drop).map_err(of_system)
}

/// The system's error alone, without the temporary file's name, which means nothing to whoever gave another.
fn of_system(e: io::Error) -> io::Error {
    let text = e.to_string();
    io::Error::new(e.kind(), text.split(" at path ").next().unwrap_or(&text).to_owned())
}

/// Reads a whole regular file. What is none is refused unopened: a pipe would never end, nor would a device.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let get = || match fs::metadata(path)?.is_file() {
        true => fs::read(path),
        false => Err(io::Error::other("is not a regular file")),
    };
    get().map_err(FileError::at(path))
}

/// Replaces a file by these bytes, through a temporary file in the same directory: whoever looks sees the old content
/// or the new.
///
/// # Errors
/// [`FileError`], naming the file; also where `path` is something else than a regular file, such as a device or a link.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let put = || {
        let mut draft = Draft::new(path)?;
        draft.file.as_file_mut().write_all(bytes)?;
        draft.finish()
    };
    put().map_err(FileError::at(path))
}

/// A file that gets one JSON object a line. It appears under its name when [`JsonFile::finish`] is called, never
/// before; if that does not happen, nothing is left.
#[derive(Debug)]
pub struct JsonFile(Draft);

impl JsonFile {
    /// Opens a temporary file beside `path`, so that a folder that cannot be written to is refused at once.
    ///
    /// # Errors
    /// As [`write()`].
    pub fn create(path: &Path) -> Result<JsonFile, FileError> {
        Draft::new(path).map(JsonFile).map_err(FileError::at(path))
    }

    /// Writes one line.
    ///
    /// # Errors
    /// [`FileError`], naming the file.
    pub fn line(&mut self, record: &impl serde::Serialize) -> Result<(), FileError> {
        let text = serde_json::to_string(record).map_err(io::Error::from);
        let put = text.and_then(|text| writeln!(self.0.file.as_file_mut(), "{text}"));
        put.map_err(FileError::at(&self.0.path))
    }

    /// Puts the file under its name, in place of what was there.
    ///
    /// # Errors
    /// [`FileError`], naming the file.
    pub fn finish(self) -> Result<(), FileError> {
        let path = self.0.path.clone();
        self.0.finish().map_err(FileError::at(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.json");
        let mut file = JsonFile::create(&path).unwrap();
        file.line(&[1, 2]).unwrap();
        assert!(!path.exists());
        drop(file);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
        write(&path, b"old").unwrap();
        let mut file = JsonFile::create(&path).unwrap();
        file.line(&[1, 2]).unwrap();
        file.line(&"x").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        file.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "[1,2]\n\"x\"\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().join("missing/out.json"), folder.path().to_owned()] {
            for error in [JsonFile::create(&path).unwrap_err(), write(&path, b"new").unwrap_err()] {
                let error = error.to_string();
                assert!(error.starts_with(&*path.to_string_lossy()), "{error}");
                assert!(!error.contains(".rectify-"), "{error}");
            }
        }
    }

    #[test]
    #[cfg(unix)]
    fn what_is_no_regular_file_stays_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let error = write(&link, b"new").unwrap_err().to_string();
        assert_eq!(error, format!("{}: exists and is not a regular file", link.display()));
        assert!(JsonFile::create(&link).is_err());
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&target).unwrap(), "old");
    }

    #[test]
    #[cfg(unix)]
    fn files_have_the_permissions_that_files_have() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        fs::File::create(folder.path().join("usual")).unwrap();
        write(&folder.path().join("ours"), b"x").unwrap();
        assert_eq!(mode("ours"), mode("usual"));
    }
}
