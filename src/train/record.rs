//! What is told of a run: its epochs, its steps, its slopes.

use crate::model::Model;
use crate::nn::{Parameters, Role};
use serde::{Deserialize, Serialize};

/// What is known of an epoch after its end: a line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochRecord {
    /// Number of the epoch, from 1.
    pub epoch: u32,
    /// Steps done in all.
    pub steps: u64,
    /// Learning rate of the last step.
    pub lr: f32,
    /// Mean loss of the training images, each before the step that it was part of.
    pub train_loss: f64,
    /// Share of the training images classified correctly, likewise.
    pub train_accuracy: f64,
    /// Mean loss of the test images after the epoch.
    pub test_loss: f64,
    /// Share of the test images classified correctly.
    pub test_accuracy: f64,
    /// Training images a second, without evaluation.
    pub images_per_s: f64,
    /// The slopes of each layer that learns them.
    pub slopes: Vec<Slopes>,
}

/// What is known of a step after its end: a line of what `--step-log` writes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepRecord {
    /// Number of the step, from 1, over all epochs.
    pub step: u64,
    /// Learning rate.
    pub lr: f32,
    /// Mean loss of the batch before the update.
    pub loss: f64,
    /// Share of the batch classified correctly before the update.
    pub accuracy: f64,
}

/// The learned slopes of a layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slopes {
    /// Name of the layer.
    pub layer: String,
    /// Their mean.
    pub mean: f64,
    /// The smallest.
    pub min: f32,
    /// The largest.
    pub max: f32,
}

/// What happens while training runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step is done.
    Step {
        /// Number of its epoch, from 1.
        epoch: u32,
        /// Its number in the epoch, from 1.
        step: u32,
        /// Steps in an epoch.
        of: u32,
        /// Mean loss of the epoch so far.
        loss: f64,
        /// What this step alone did.
        done: StepRecord,
    },
    /// An epoch is done.
    Epoch(&'a EpochRecord),
}

/// The learned slopes of a net, layer by layer.
pub fn slopes(model: &Model, parameters: &Parameters) -> Vec<Slopes> {
    let learned = parameters.iter().filter(|p| p.role == Role::Slopes);
    learned
        .map(|p| Slopes {
            layer: model.layers[p.layer].name.clone(),
            mean: p.value.iter().map(|&a| f64::from(a)).sum::<f64>() / p.value.len().max(1) as f64,
            min: p.value.iter().copied().fold(f32::INFINITY, f32::min),
            max: p.value.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        })
        .collect()
}
