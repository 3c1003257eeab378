//! What is written of a study: a table, the runs as lines of JSON, plots.

use super::{ReproduceError, Run, RunRecord, Study, plot, slopes};
use crate::file::{self, FileError};
use std::path::{Path, PathBuf};

/// The share of the loss of guessing, `ln(classes)`, below which a net is said to have begun to learn.
const LEARNS: f64 = 0.95;

/// Mean and spread of some values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Their mean.
    pub mean: f64,
    /// The sample standard deviation, with `n − 1` below; nothing of a single value.
    pub deviation: Option<f64>,
    /// The smallest.
    pub least: f64,
}

impl Spread {
    /// Of these values; nothing of none.
    ///
    /// ```
    /// use rectify::reproduce::Spread;
    /// let spread = Spread::of(&[1.0, 2.0, 6.0]).unwrap();
    /// assert_eq!((spread.mean, spread.deviation, spread.least), (3.0, Some(7f64.sqrt()), 1.0));
    /// ```
    pub fn of(values: &[f64]) -> Option<Spread> {
        let n = values.len() as f64;
        let least = values.iter().copied().reduce(f64::min)?;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
        let deviation = (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt());
        Some(Spread { mean, deviation, least })
    }

    /// A single value.
    pub(super) fn exact(mean: f64) -> Spread {
        Spread { mean, deviation: None, least: mean }
    }

    /// `mean ± deviation` with so many decimals.
    pub(super) fn text(self, decimals: usize) -> String {
        let deviation = self.deviation.map_or(String::new(), |d| format!(" ± {d:.decimals$}"));
        format!("{:.decimals$}{deviation}", self.mean)
    }
}

/// The mean and spread of what a few runs give, as text; a dash of none.
pub(super) fn cell(values: impl Iterator<Item = f64>, decimals: usize) -> String {
    Spread::of(&values.collect::<Vec<_>>()).map_or("–".into(), |s| s.text(decimals))
}

/// Writes `table.md`, `runs.jsonl` and a plot of a study's runs, as far as they have got, into the study's folder, each
/// file whole or not at all; gives the text of the table.
///
/// # Errors
/// A file that cannot be written, by name.
pub fn report(study: Study, runs: &[Run], records: &[RunRecord], out: &Path) -> Result<String, ReproduceError> {
    let folder = Folder::create(out, study.name())?;
    folder.lines(records)?;
    let text = heading(study, records)
        + &match study {
            Study::Slopes => {
                let layers = slopes::layers(records);
                folder.picture("slopes.svg", plot::slopes(&layers))?;
                slopes::table(&layers, records, runs)
            }
            Study::Prelu | Study::Depth => {
                folder.picture("curves.svg", plot::curves(study, records))?;
                table(study, runs, records)
            }
        };
    folder.text("table.md", &text)?;
    Ok(text)
}

/// Where a study's files go.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub fn create(out: &Path, study: &str) -> Result<Folder, ReproduceError> {
        let path = out.join(study);
        std::fs::create_dir_all(&path).map_err(FileError::at(&path))?;
        Ok(Folder(path))
    }

    pub fn text(&self, name: &str, text: &str) -> Result<(), ReproduceError> {
        Ok(file::write(&self.0.join(name), text.as_bytes())?)
    }

    pub fn picture(&self, name: &str, svg: Result<String, String>) -> Result<(), ReproduceError> {
        self.text(name, &svg.map_err(|why| self.fault(name, why))?)
    }

    /// Writes `runs.jsonl`.
    pub fn lines(&self, records: &[impl serde::Serialize]) -> Result<(), ReproduceError> {
        let mut text = String::new();
        for record in records {
            text += &serde_json::to_string(record).map_err(|e| self.fault("runs.jsonl", e.to_string()))?;
            text.push('\n');
        }
        self.text("runs.jsonl", &text)
    }

    fn fault(&self, name: &str, why: String) -> ReproduceError {
        ReproduceError::Report { path: self.0.join(name).display().to_string(), why }
    }
}

/// The test error after the last epoch, in percent; nothing of a run that is not finished.
fn error(record: &RunRecord) -> Option<f64> {
    record.epochs.last().filter(|_| record.finished).map(|e| 100.0 * e.test_error)
}

fn table(study: Study, runs: &[Run], records: &[RunRecord]) -> String {
    let variants = study.variants();
    let first = variants.first().map_or("", |v| v.name);
    let mut text = format!(
        "| variant | seeds | test error, % | against {first} | best, % | training loss | begins at step | seconds | \
         processor seconds |\n|---|---|---|---|---|---|---|---|---|\n"
    );
    for variant in variants {
        let of = |name: &str| records.iter().filter(move |r| r.variant == name && r.finished).collect::<Vec<_>>();
        let (done, others) = (of(variant.name), of(first));
        let asked = runs.iter().filter(|r| r.variant == variant.name).count();
        let errors: Vec<f64> = done.iter().copied().filter_map(error).collect();
        // Seed by seed: the two runs had the same weights and images.
        let against = done.iter().filter_map(|r| {
            let other = others.iter().find(|o| o.seed == r.seed && variant.name != first)?;
            Some(error(r)? - error(other)?)
        });
        let begins: Vec<String> = done.iter().map(|r| begins(r).map_or("never".into(), |s| s.to_string())).collect();
        let columns = [
            variant.name.to_owned(),
            format!("{} of {asked}", done.len()),
            cell(errors.iter().copied(), 2),
            cell(against, 2),
            Spread::of(&errors).map_or("–".into(), |s| format!("{:.2}", s.least)),
            cell(done.iter().filter_map(|r| r.epochs.last()).map(|e| e.train_loss), 3),
            if begins.is_empty() { "–".into() } else { begins.join(", ") },
            cell(done.iter().map(|r| r.seconds), 0),
            cell(done.iter().filter_map(|r| r.processor_seconds), 0),
        ];
        text += &format!("| {} |\n", columns.join(" | "));
    }
    text += &format!(
        "\nMean ± sample standard deviation over the seeds whose runs are finished. Test error: after the last epoch; best: \
         of the best seed. Against {first}: the difference in percentage points, seed by seed. Training loss: of the last \
         epoch. Begins: the first point of the curve with a loss below {LEARNS}·ln(classes), seed by seed. Seconds: of a \
         run's steps, without evaluation; processor seconds: of all threads in them.\n"
    );
    text
}

/// What was done, in a few words.
fn heading(study: Study, records: &[RunRecord]) -> String {
    let Some(r) = records.first() else { return format!("# {study}\n\n") };
    let t = &r.training;
    let net = r.model.strip_suffix(r.variant).map_or(&*r.model, |m| m.trim_end_matches('-'));
    format!(
        "# {study}\n\n{net} on {}: epochs {}, batch {}, learning rate {} ({}), momentum {}, weight decay {}.\n\n",
        r.dataset, t.epochs, t.batch, t.lr, t.schedule, t.momentum, t.weight_decay
    )
}

/// The first step at which the net has begun to learn.
fn begins(record: &RunRecord) -> Option<u64> {
    let bound = LEARNS * libm::log(record.classes as f64);
    record.losses.iter().find(|p| p.loss < bound).map(|p| p.step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_deviations() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[2.5]), Some(Spread { mean: 2.5, deviation: None, least: 2.5 }));
        let spread = Spread::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert_eq!((spread.mean, spread.least), (5.0, 2.0));
        assert!((spread.deviation.unwrap() - (32f64 / 7.0).sqrt()).abs() < 1e-15);
        assert_eq!(Spread::of(&[1.0, 2.0, 6.0]).unwrap().text(2), "3.00 ± 2.65");
        assert_eq!((cell([1.0].into_iter(), 1), cell([].into_iter(), 1)), ("1.0".into(), "–".into()));
    }
}
