//! The paper's findings once more, with small nets: which runs show each of them, and what is written of them.
//!
//! A study is a few variants of one net (He et al. 2015): the variant's own is put into the net's description, the rest
//! stays. The runs of a seed start with the same weights and see the same images in the same order, whatever the
//! variant. Every run has a folder of its own, `OUT/STUDY/VARIANT-seedN`, and goes on where it was stopped; a folder
//! whose run was made with other settings is refused.

mod cost;
mod plot;
mod report;
mod run;
mod slopes;
mod variant;

pub use cost::{CostOptions, CostRecord, RectifierCost, cost, cost_report};
pub use report::{Spread, report};
pub use run::{EpochLine, LossPoint, Run, RunRecord};
pub use variant::{Variant, initial};

use crate::bench::BenchError;
use crate::checkpoint::CheckpointError;
use crate::file::FileError;
use crate::hyper::{HyperError, require};
use crate::model::{Model, ModelError};
use crate::schedule::Schedule;
use crate::train::TrainError;
use std::fmt;

/// A finding of the paper that trained nets show. ([`cost`] is of another kind.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Study {
    /// Table 2: the test error with ReLU, leaky ReLU of two slopes, shared and channel-wise PReLU.
    Prelu,
    /// Table 1: the slopes that were learned, layer by layer. Its runs are those of [`Study::Prelu`], in its folder.
    Slopes,
    /// Figure 3: a deep net with ReLU learns from He's initial weights and stalls with Xavier's; with a net of fewer
    /// layers, Figure 2: it learns from both.
    Depth,
}

impl Study {
    /// All of them.
    pub const ALL: [Study; 3] = [Study::Prelu, Study::Slopes, Study::Depth];

    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Study::Prelu => "prelu",
            Study::Slopes => "slopes",
            Study::Depth => "depth",
        }
    }

    /// The study in whose folder its runs are.
    pub fn home(self) -> Study {
        if self == Study::Slopes { Study::Prelu } else { self }
    }

    /// The variants that it compares, in the order of its table.
    pub fn variants(self) -> &'static [Variant] {
        match self {
            Study::Prelu => &variant::RECTIFIERS,
            Study::Slopes => &variant::RECTIFIERS[3..],
            Study::Depth => &variant::INITS,
        }
    }

    /// What it does unless somebody says otherwise. On CIFAR-10 a net with PReLU diverged at a rate of 0.03, and at a
    /// constant 0.01 the deep one fell back to guessing soon after it had begun to learn.
    pub fn defaults(self) -> Defaults {
        match self {
            Study::Prelu | Study::Slopes => {
                Defaults { model: "e14-32", epochs: 8, lr: 0.01, schedule: Schedule::Cosine }
            }
            Study::Depth => Defaults { model: "e30-32", epochs: 3, lr: 0.003, schedule: Schedule::Constant },
        }
    }

    /// Its runs with this net, made to fit the data and with the hyper-parameters of the study: all variants with seed
    /// 1, then all with seed 2 and so on.
    ///
    /// # Errors
    /// No seed, or more than 1000; hyper-parameters out of bounds.
    pub fn runs(self, model: &Model, seeds: u32) -> Result<Vec<Run>, HyperError> {
        require("seeds", seeds, |s| (1..=1000).contains(s), "between 1 and 1000")?;
        model.training.check()?;
        let of = |seed: u32| self.variants().iter().map(move |v| Run::new(self.home(), v, model, u64::from(seed)));
        Ok((1..=seeds).flat_map(of).collect())
    }
}

impl fmt::Display for Study {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a study does unless somebody says otherwise: for two cores and CIFAR-10.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Defaults {
    /// The net that all variants are made of.
    pub model: &'static str,
    /// Passes through the training images.
    pub epochs: u32,
    /// Base learning rate.
    pub lr: f32,
    /// How it falls.
    pub schedule: Schedule,
}

/// Why a finding cannot be reproduced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReproduceError {
    /// A folder holds a run that was made with other settings.
    #[error("{path}: that run has {what} {found}, not {asked}: choose another folder, or the same settings")]
    Foreign {
        /// The folder.
        path: String,
        /// What differs.
        what: &'static str,
        /// What the run was made with.
        found: String,
        /// What is asked for.
        asked: String,
    },
    /// A file of a run's folder makes no sense.
    #[error("{path}: {why}")]
    Folder {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A run ended with an error.
    #[error("{path}: {source}")]
    Run {
        /// Its folder.
        path: String,
        /// Why.
        source: TrainError,
    },
    /// A number that somebody chose makes no sense.
    #[error(transparent)]
    Hyper(#[from] HyperError),
    /// A model is refused.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A net's steps cannot be timed.
    #[error("model {model:?}: {source}")]
    Cost {
        /// The net.
        model: String,
        /// Why.
        source: BenchError,
    },
    /// A plot cannot be drawn, or a line not written.
    #[error("{path}: {why}")]
    Report {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
    /// A checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}
