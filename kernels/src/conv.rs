//! Convolution: forward with the epilogue fused, backward-data and backward-weights.
//!
//! The orders of the sums are those of [`crate::reference::conv`] and [`crate::reference::winograd`]. A plan (`Forward`, `BackwardData`,
//! `BackwardWeights`) checks its shape once; `pack` lays out the weights once, the same way for every instruction set
//! and batch; `run` checks lengths and allocates nothing.

mod algorithm;
mod axis;
mod backward_data;
mod backward_weights;
mod band;
mod forward;
mod gather;
mod pass;
mod run;
mod tile;
mod tree;
mod weight_chunk;
mod winograd;

pub use algorithm::Algorithm;
pub use backward_data::BackwardData;
pub use backward_weights::BackwardWeights;
pub use forward::Forward;

use crate::Error;

/// What happens to the sums before they are stored.
#[derive(Debug)]
pub enum Epilogue<'a> {
    /// Nothing.
    None,
    /// Adds `bias` (one per output channel).
    Bias(&'a [f32]),
    /// Adds `bias`, then PReLU: `y` where `y > 0`, else `slope·y` (He et al. 2015, Eq. 1).
    BiasPrelu {
        /// One per output channel.
        bias: &'a [f32],
        /// One per output channel, or one for all.
        slopes: &'a [f32],
    },
    /// Adds `bias`, then another tensor: the sum that ends a residual block.
    BiasAdd {
        /// One per output channel.
        bias: &'a [f32],
        /// Blocked like the output.
        shortcut: &'a [f32],
    },
    /// As [`Epilogue::BiasPrelu`], and stores what PReLU was given, for the backward pass.
    BiasPreluKeep {
        /// One per output channel.
        bias: &'a [f32],
        /// One per output channel, or one for all.
        slopes: &'a [f32],
        /// The pre-activation, blocked like the output.
        pre: &'a mut [f32],
    },
}

/// Choices beside the shape. None but the algorithm changes a result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Block sizes in place of those derived from the shape.
    pub blocking: Option<Blocking>,
}

/// Sizes of the cache blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocking {
    /// Output rows in a band; for Winograd, tiles in a block.
    pub rows: usize,
    /// Virtual vectors of output channels that share a pass over the band.
    pub vectors: usize,
}

/// Checks the length of a per-channel parameter that may be shared by all channels.
pub(crate) fn check_channels(what: &'static str, got: usize, channels: usize) -> Result<(), Error> {
    if got == 1 { Ok(()) } else { crate::error::check_len(what, got, channels) }
}
