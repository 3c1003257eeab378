//! Files of JSON lines, written whole or not at all.

use super::BenchError;
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A file that gets one JSON object a line. It appears under its name when [`JsonFile::finish`] is called, never
/// before; if that does not happen, nothing is left.
#[derive(Debug)]
pub struct JsonFile {
    path: PathBuf,
    file: tempfile::NamedTempFile,
}

impl JsonFile {
    /// Opens a temporary file beside `path`, so that a folder that cannot be written to is refused at once.
    ///
    /// # Errors
    /// [`BenchError::File`]; also where `path` is something else than a regular file, such as a device.
    pub fn create(path: &Path) -> Result<JsonFile, BenchError> {
        let open = || {
            if fs::symlink_metadata(path).is_ok_and(|m| !m.is_file()) {
                return Err(io::Error::other("exists and is not a regular file"));
            }
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            tempfile::Builder::new().prefix(".rectify-").tempfile_in(folder)
        };
        let file = open().map_err(|e| refusal(path, e))?;
        Ok(JsonFile { path: path.to_owned(), file })
    }

    /// Writes one line.
    ///
    /// # Errors
    /// [`BenchError::File`].
    pub fn line(&mut self, record: &impl serde::Serialize) -> Result<(), BenchError> {
        let text = serde_json::to_string(record).map_err(|e| refusal(&self.path, e.into()))?;
        writeln!(self.file, "{text}").map_err(|e| refusal(&self.path, e))
    }

    /// Puts the file under its name, in place of what was there.
    ///
    /// # Errors
    /// [`BenchError::File`].
    pub fn finish(self) -> Result<(), BenchError> {
        let JsonFile { path, file } = self;
        file.as_file().sync_all().map_err(|e| refusal(&path, e))?;
        crate::file::readable(file.as_file()).map_err(|e| refusal(&path, e))?;
        file.persist(&path).map(drop).map_err(|e| refusal(&path, e.error))
    }
}

fn refusal(path: &Path, source: io::Error) -> BenchError {
    BenchError::File { path: path.to_owned(), source }
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
        fs::write(&path, "old").unwrap();
        let mut file = JsonFile::create(&path).unwrap();
        file.line(&[1, 2]).unwrap();
        file.line(&"x").unwrap();
        file.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "[1,2]\n\"x\"\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().join("missing/out.json"), folder.path().to_owned()] {
            let error = JsonFile::create(&path).unwrap_err().to_string();
            assert!(error.contains(&*path.to_string_lossy()), "{error}");
        }
    }
}
