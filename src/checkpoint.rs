//! Checkpoints: a net's parameters and all that is needed to go on training it, as a safetensors file.
//!
//! Tensors are little-endian f32 in NCHW or OIHW order: the parameters under the names that PyTorch would give them
//! (`features.0.weight`), their momentum under `momentum.` and that name. The metadata has one key, `rectify`: JSON
//! with the model, its training, the normalisation, the classes and how far training has got. The same state gives the
//! same bytes.

use crate::data::Normalise;
use crate::file::{self, FileError};
use crate::model::{Model, ModelError};
use crate::nn::Parameters;
use crate::schedule;
use rectify_kernels::Buffer;
use safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, path::Path};

const KEY: &str = "rectify";
const FORMAT: u32 = 1;

/// How far training has got.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Seed of the run.
    pub seed: u64,
    /// Epochs done.
    pub epoch: u32,
    /// Steps done in the epoch that has begun.
    pub step: u32,
    /// Steps done in all.
    pub steps: u64,
    /// Sum of the losses of the images of those steps of this epoch.
    pub loss: f64,
    /// How many of those images were classified correctly.
    pub correct: u64,
    /// What the schedule remembers.
    pub schedule: schedule::State,
}

/// A net in training, or after it.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The net, with its hyper-parameters.
    pub model: Model,
    /// Its weights, biases and slopes.
    pub parameters: Parameters,
    /// The momentum of each.
    pub velocity: Vec<Buffer>,
    /// How far training has got.
    pub progress: Progress,
    /// What was subtracted from pixels, and what they were divided by.
    pub normalise: Normalise,
    /// Name of the data set.
    pub dataset: String,
    /// Names of the classes.
    pub classes: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meta {
    format: u32,
    model: String,
    progress: Progress,
    normalise: Normalise,
    dataset: String,
    classes: Vec<String>,
}

/// Why a checkpoint is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file holds something that is refused.
    #[error("{path}: {source}")]
    In {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: Box<CheckpointError>,
    },
    /// The bytes are no safetensors file, or a damaged one.
    #[error("damaged checkpoint: {0}")]
    Format(#[from] SafeTensorError),
    /// The metadata is missing or makes no sense.
    #[error("damaged checkpoint: {0}")]
    Meta(String),
    /// The model in the metadata is refused.
    #[error("damaged checkpoint: model: {0}")]
    Model(#[from] ModelError),
    /// A tensor is missing, or is not what the model asks for.
    #[error("damaged checkpoint: tensor {name:?} {why}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
}

/// What stands before the name of a parameter in that of its momentum.
const MOMENTUM: &str = "momentum.";

fn momentum(name: &str) -> String {
    format!("{MOMENTUM}{name}")
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// One tensor of the shape that the model asks for. What is allocated is no larger than the file.
fn tensor(file: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Result<Buffer, CheckpointError> {
    let wrong = |why: String| CheckpointError::Tensor { name: name.to_owned(), why };
    let view = file.tensor(name).map_err(|_| wrong("is missing".into()))?;
    if view.dtype() != Dtype::F32 || view.shape() != shape {
        return Err(wrong(format!("is {:?} {:?}, not F32 {shape:?}", view.dtype(), view.shape())));
    }
    let values: Vec<f32> = view.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    Ok(Buffer::from_slice(&values))
}

impl Checkpoint {
    /// The bytes of the file.
    ///
    /// # Errors
    /// [`CheckpointError`] if a name or a number cannot be written.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CheckpointError> {
        let meta = Meta {
            format: FORMAT,
            model: self.model.to_toml()?,
            progress: self.progress.clone(),
            normalise: self.normalise.clone(),
            dataset: self.dataset.clone(),
            classes: self.classes.clone(),
        };
        let meta = serde_json::to_string(&meta).map_err(|e| CheckpointError::Meta(e.to_string()))?;
        let mut data: Vec<(String, &[usize], Vec<u8>)> = Vec::new();
        for (p, velocity) in self.parameters.iter().zip(&self.velocity) {
            data.push((p.name.clone(), &p.shape, bytes(&p.value)));
            data.push((momentum(&p.name), &p.shape, bytes(velocity)));
        }
        let views: Result<Vec<_>, SafeTensorError> = data
            .iter()
            .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.to_vec(), bytes)?)))
            .collect();
        // One key alone: a map of several would be written in any order.
        Ok(safetensors::serialize(views?, Some(HashMap::from([(KEY.to_owned(), meta)])))?)
    }

    /// Reads what [`Checkpoint::to_bytes`] has written.
    ///
    /// # Errors
    /// [`CheckpointError`] for anything else; never a panic, whatever the bytes are.
    pub fn from_bytes(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        let meta = header.metadata().as_ref().and_then(|m| m.get(KEY));
        let meta = meta.ok_or_else(|| CheckpointError::Meta(format!("no `{KEY}` in its metadata")))?;
        let meta: Meta = serde_json::from_str(meta).map_err(|e| CheckpointError::Meta(e.to_string()))?;
        if meta.format != FORMAT {
            return Err(CheckpointError::Meta(format!("format {}, but this version reads {FORMAT}", meta.format)));
        }
        let model = Model::parse(&meta.model)?;
        let Normalise { mean, std } = &meta.normalise;
        if model.classes() != meta.classes.len() || [mean.len(), std.len()] != [model.input[0]; 2] {
            return Err(CheckpointError::Meta("classes or channels do not fit the model".into()));
        }
        if !mean.iter().all(|m| m.is_finite()) || !std.iter().all(|&s| s.is_finite() && s > 0.0) {
            return Err(CheckpointError::Meta(format!("nothing can be normalised by mean {mean:?} and std {std:?}")));
        }
        let file = SafeTensors::deserialize(bytes)?;
        let mut velocity = Vec::new();
        let parameters = Parameters::build(&model, |_, name, shape| {
            velocity.push(tensor(&file, &momentum(name), shape)?);
            tensor(&file, name, shape)
        })?;
        if file.len() != 2 * parameters.len() {
            return Err(CheckpointError::Meta(format!(
                "{} tensors, but the model has {}",
                file.len(),
                2 * parameters.len()
            )));
        }
        let Meta { progress, normalise, dataset, classes, .. } = meta;
        Ok(Checkpoint { model, parameters, velocity, progress, normalise, dataset, classes })
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// [`CheckpointError`], naming the file.
    pub fn save(&self, path: &Path) -> Result<(), CheckpointError> {
        Ok(file::write(path, &self.to_bytes()?)?)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`CheckpointError`], naming the file.
    pub fn load(path: &Path) -> Result<Checkpoint, CheckpointError> {
        let bytes = file::read(path)?;
        Checkpoint::from_bytes(&bytes)
            .map_err(|e| CheckpointError::In { path: path.display().to_string(), source: Box::new(e) })
    }
}

/// Reads a model's parameters from a safetensors file: under PyTorch's names (`features.0.weight`), `f32`, in PyTorch's
/// shapes. The momenta of a checkpoint may be there too; nothing else.
///
/// # Errors
/// [`CheckpointError`], naming the file and the tensor that is missing, has another shape, or is none of the model's.
pub fn load_parameters(model: &Model, path: &Path) -> Result<Parameters, CheckpointError> {
    let bytes = file::read(path)?;
    parameters_from(model, &bytes)
        .map_err(|e| CheckpointError::In { path: path.display().to_string(), source: Box::new(e) })
}

fn parameters_from(model: &Model, bytes: &[u8]) -> Result<Parameters, CheckpointError> {
    let file = SafeTensors::deserialize(bytes)?;
    let parameters = Parameters::build(model, |_, name, shape| tensor(&file, name, shape))?;
    let known = |name: &str| parameters.iter().any(|p| p.name == name);
    let mut names = file.names();
    names.sort_unstable();
    match names.into_iter().find(|name| !known(name.strip_prefix(MOMENTUM).unwrap_or(name))) {
        None => Ok(parameters),
        Some(name) => Err(CheckpointError::Tensor { name: name.to_owned(), why: "is none of the model's".into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Checkpoint {
        let model = Model::built_in("shapes-small").unwrap();
        let parameters = Parameters::initial(&model, 1).unwrap();
        let mut velocity = parameters.zeros_like();
        velocity.iter_mut().for_each(|v| v.fill(-0.0));
        let schedule = schedule::State { factor: 0.1, best: Some(0.1 + 0.2), waited: 3 };
        Checkpoint {
            progress: Progress { seed: u64::MAX, epoch: 3, step: 5, steps: 50, loss: 1.0 / 3.0, correct: 9, schedule },
            normalise: Normalise { mean: vec![0.1, 0.2, 0.3], std: vec![1.0, 0.7, 0.3] },
            dataset: "shapes".into(),
            classes: (0..model.classes()).map(|i| i.to_string()).collect(),
            model,
            parameters,
            velocity,
        }
    }

    #[test]
    fn bytes_round_trip_and_names_are_pytorchs() {
        let before = example();
        let bytes = before.to_bytes().unwrap();
        assert_eq!(bytes, before.clone().to_bytes().unwrap());
        let after = Checkpoint::from_bytes(&bytes).unwrap();
        assert_eq!(
            (&after.progress, &after.model, &after.normalise),
            (&before.progress, &before.model, &before.normalise)
        );
        assert_eq!(after.to_bytes().unwrap(), bytes);
        let names: Vec<&str> = after.parameters.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names[..4], ["features.0.weight", "features.0.bias", "features.1.weight", "features.3.weight"]);
        assert_eq!(names[names.len() - 2..], ["classifier.2.weight", "classifier.2.bias"]);
        assert_eq!(after.parameters[0].shape, [16, 3, 5, 5]);
    }

    #[test]
    fn damage_is_refused() {
        let bytes = example().to_bytes().unwrap();
        for len in [0, 7, 8, 100, 3000, bytes.len() - 1] {
            assert!(Checkpoint::from_bytes(&bytes[..len]).is_err(), "{len}");
        }
        let replaced = |from: &str, to: &str| {
            assert_eq!(from.len(), to.len());
            let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
            let mut wrong = bytes.clone();
            wrong[at..at + to.len()].copy_from_slice(to.as_bytes());
            Checkpoint::from_bytes(&wrong).unwrap_err().to_string()
        };
        assert!(replaced("features.0.bias", "features.0.bios").contains("features.0.bias"));
        assert!(replaced("shapes-small", "shapes\u{1}small").contains("damaged"));
        assert!(replaced("\\\"format\\\":1", "\\\"format\\\":2").contains("format 2"));
        assert!(replaced("\"rectify\"", "\"rectifx\"").contains("no `rectify`"));
        assert!(replaced("channels = 16", "channels = 17").contains("tensor"));
    }

    #[test]
    fn parameters_alone_are_read_and_what_does_not_fit_is_refused() {
        let example = example();
        let bytes = example.to_bytes().unwrap();
        let read = parameters_from(&example.model, &bytes).unwrap();
        assert!(read.iter().zip(example.parameters.iter()).all(|(a, b)| a.value[..] == b.value[..]));
        let one = |name: &'static str, shape: Vec<usize>| {
            let data = vec![0; 4 * shape.iter().product::<usize>()];
            let view = TensorView::new(Dtype::F32, shape, &data).unwrap();
            safetensors::serialize([(name, view)], None).unwrap()
        };
        let tiny = "name = \"t\"\ninput = [1, 1, 1]\n[[layer]]\nname = \"fc\"\ntype = \"linear\"\noutputs = 2";
        let why = |model: &Model, bytes: &[u8]| parameters_from(model, bytes).map(drop).unwrap_err().to_string();
        let model = Model::parse(tiny).unwrap();
        assert!(why(&model, &one("classifier.0.weight", vec![2, 2])).contains("not F32 [2, 1]"));
        assert!(why(&model, &one("classifier.0.weight", vec![2, 1])).contains("\"classifier.0.bias\" is missing"));
        assert!(why(&model, b"nothing").contains("damaged"));
        let mut narrow = example.model.clone();
        narrow.layers.truncate(0);
        narrow.layers.push(model.layers[0].clone());
        assert!(parameters_from(&narrow, &bytes).is_err());
    }
}
