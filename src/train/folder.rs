//! The folder of a run: `checkpoint.safetensors`, `metrics.jsonl`, `curves.svg`, `slopes.svg`.

use super::{EpochRecord, TrainError, plot};
use crate::checkpoint::Checkpoint;
use crate::file::{self, FileError};
use std::path::{Path, PathBuf};

/// A picture of the records, as SVG.
type Draw = fn(&[EpochRecord]) -> Result<String, String>;

const PICTURES: [(&str, Draw); 2] = [("curves.svg", plot::curves), ("slopes.svg", plot::slopes)];

/// Where a run puts its files. Each file is written whole or not at all.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    records: Vec<EpochRecord>,
}

impl RunFolder {
    /// Name of the checkpoint in it.
    pub const CHECKPOINT: &str = "checkpoint.safetensors";

    /// A folder for a new run: makes it, and sees that files can be written there.
    ///
    /// # Errors
    /// A folder that cannot be written, or that holds a run already, or something else than a file in the place of one.
    pub fn create(path: &Path) -> Result<RunFolder, TrainError> {
        let folder = RunFolder { path: path.to_owned(), records: Vec::new() };
        for taken in [folder.metrics(), folder.checkpoint()] {
            if taken.exists() {
                let why = "is there already: resume that run, or choose another folder".into();
                return Err(TrainError::Folder { path: taken.display().to_string(), why });
            }
        }
        folder.probe()?;
        Ok(folder)
    }

    /// The folder of a run that goes on after `epochs` epochs; what is recorded of later ones is forgotten.
    ///
    /// # Errors
    /// A folder that cannot be written, or that holds something else than a file in the place of one; a `metrics.jsonl`
    /// that makes no sense.
    pub fn resume(path: &Path, epochs: u32) -> Result<RunFolder, TrainError> {
        let mut folder = RunFolder { path: path.to_owned(), records: Vec::new() };
        folder.probe()?;
        let metrics = folder.metrics();
        if metrics.exists() {
            let text = std::fs::read_to_string(&metrics).map_err(FileError::at(&metrics))?;
            for (number, line) in text.lines().enumerate() {
                let record: EpochRecord = serde_json::from_str(line).map_err(|e| {
                    let why = format!("line {}: {e}", number + 1);
                    TrainError::Folder { path: metrics.display().to_string(), why }
                })?;
                folder.records.push(record);
            }
        }
        folder.records.retain(|r| r.epoch <= epochs);
        Ok(folder)
    }

    /// Whether every file can be written there: better known now than after the first epoch.
    fn probe(&self) -> Result<(), TrainError> {
        std::fs::create_dir_all(&self.path).map_err(FileError::at(&self.path))?;
        let pictures = PICTURES.map(|(name, _)| self.path.join(name));
        for path in [self.metrics(), self.checkpoint()].into_iter().chain(pictures) {
            file::check_place(&path).map_err(FileError::at(&path))?;
        }
        Ok(file::probe(&self.path).map_err(FileError::at(&self.path))?)
    }

    fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// Where the checkpoint is.
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join(RunFolder::CHECKPOINT)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The epochs so far.
    pub fn records(&self) -> &[EpochRecord] {
        &self.records
    }

    /// Adds an epoch and writes metrics, plots and, last, the checkpoint.
    ///
    /// # Errors
    /// A file that cannot be written, by name.
    pub fn record(&mut self, record: &EpochRecord, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        self.records.push(record.clone());
        let mut text = String::new();
        for record in &self.records {
            let line = serde_json::to_string(record)
                .map_err(|e| TrainError::Folder { path: self.metrics().display().to_string(), why: e.to_string() })?;
            text += &line;
            text.push('\n');
        }
        file::write(&self.metrics(), text.as_bytes())?;
        for (name, draw) in PICTURES {
            let picture = draw(&self.records);
            let path = self.path.join(name);
            let fault = |why| TrainError::Folder { path: path.display().to_string(), why };
            file::write(&path, picture.map_err(fault)?.as_bytes())?;
        }
        self.save(checkpoint)
    }

    /// Writes the checkpoint.
    ///
    /// # Errors
    /// A file that cannot be written, by name.
    pub fn save(&self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        Ok(checkpoint.save(&self.checkpoint())?)
    }
}
