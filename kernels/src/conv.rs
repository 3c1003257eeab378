//! Convolution: forward with the epilogue fused, backward-data and backward-weights.
//!
//! The orders of the sums are those of [`crate::reference::conv`] and [`crate::reference::winograd`]. A plan
//! (`Forward`, `BackwardData`, `BackwardWeights`) checks its shape once; `pack` lays out the weights once, the same way
//! for every instruction set and batch; `run` checks lengths and allocates nothing.

mod algorithm;
mod axis;
mod backward_data;
mod backward_weights;
mod band;
mod depthwise;
mod forward;
mod gather;
mod lanes;
mod narrow;
mod pack;
mod pass;
mod planar;
mod planes;
mod run;
mod tile;
mod winograd;

pub use algorithm::Algorithm;
pub use backward_data::BackwardData;
pub use backward_weights::BackwardWeights;
pub use forward::Forward;

use crate::error::check_len;
use crate::{ConvShape, Dims, Error};

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
        /// Of the output's dimensions, and as it lies.
        shortcut: &'a [f32],
    },
    /// As [`Epilogue::BiasPrelu`], and stores what PReLU was given, for the backward pass.
    BiasPreluKeep {
        /// One per output channel.
        bias: &'a [f32],
        /// One per output channel, or one for all.
        slopes: &'a [f32],
        /// The pre-activation, of the output's dimensions and as it lies.
        pre: &'a mut [f32],
    },
}

/// What an [`Epilogue`] is made of.
pub(crate) struct Parts<'a> {
    pub bias: Option<&'a [f32]>,
    pub slopes: Option<&'a [f32]>,
    pub shortcut: Option<&'a [f32]>,
    pub pre: Option<&'a mut [f32]>,
}

impl<'a> Epilogue<'a> {
    /// Its parts, for an output of `channels` channels and `len` elements.
    ///
    /// # Errors
    /// [`Error::Length`] of a part that does not fit.
    pub(crate) fn parts(self, channels: usize, len: usize) -> Result<Parts<'a>, Error> {
        let none = Parts { bias: None, slopes: None, shortcut: None, pre: None };
        let parts = match self {
            Epilogue::None => none,
            Epilogue::Bias(bias) => Parts { bias: Some(bias), ..none },
            Epilogue::BiasPrelu { bias, slopes } => Parts { bias: Some(bias), slopes: Some(slopes), ..none },
            Epilogue::BiasPreluKeep { bias, slopes, pre } => {
                Parts { bias: Some(bias), slopes: Some(slopes), pre: Some(pre), ..none }
            }
            Epilogue::BiasAdd { bias, shortcut } => Parts { bias: Some(bias), shortcut: Some(shortcut), ..none },
        };
        let fits = |what, part: Option<usize>, want| part.map_or(Ok(()), |got| check_len(what, got, want));
        fits("bias", parts.bias.map(<[f32]>::len), channels)?;
        parts.slopes.map_or(Ok(()), |slopes| check_channels("slopes", slopes.len(), channels))?;
        fits("pre-activation", parts.pre.as_ref().map(|pre| pre.len()), len)?;
        fits("shortcut", parts.shortcut.map(<[f32]>::len), len)?;
        Ok(parts)
    }
}

/// Choices beside the shape. None changes a result but the algorithm and, under [`Algorithm::Auto`], how the input
/// lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// How the input of the forward pass lies, which the gradient of the weights reads too. The gradient of the input
    /// is blocked.
    pub input: Layout,
    /// How the output of the forward pass lies, and with it a shortcut and the pre-activation. Its gradient is blocked.
    pub output: Layout,
    /// Block sizes in place of those derived from the shape, for tests: outputs are then written as large ones are.
    pub blocking: Option<Blocking>,
}

/// How an input or output of a convolution lies in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// nChw16c ([`crate::Dims`]), as between layers.
    #[default]
    Blocked,
    /// NCHW, as users have their images, at the borders of a net. It is converted a band of rows or a small plane at a
    /// time, in cache, or read and written as it is.
    Nchw,
}

impl Layout {
    /// Channels of an image that the gradient of the weights reads from NCHW, at most, and that count as few: blocks
    /// would blow them up.
    pub const MOST_CHANNELS: usize = ConvShape::FEW_CHANNELS;

    /// The name on the command line and in records.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Blocked => "blocked",
            Layout::Nchw => "nchw",
        }
    }

    /// Elements of the tensor.
    pub fn len(self, dims: &Dims) -> usize {
        match self {
            Layout::Blocked => dims.blocked_len(),
            Layout::Nchw => dims.plain_len(),
        }
    }

    /// Refuses a shape whose weights' gradient cannot be read in this layout.
    fn check(self, s: &ConvShape, algorithm: Algorithm) -> Result<(), Error> {
        let refuse = |what, value, why| Err(Error::Shape { what, value, why });
        match self {
            Layout::Blocked => Ok(()),
            Layout::Nchw if s.groups > 1 => {
                refuse("groups", s.groups, "cannot be served from NCHW: it takes one group")
            }
            Layout::Nchw if s.ic > Layout::MOST_CHANNELS => {
                refuse("ic", s.ic, "cannot be served from NCHW: it takes at most 4 channels")
            }
            Layout::Nchw
                if matches!(algorithm, Algorithm::Winograd | Algorithm::WinogradAccurate)
                    && (s.stride_h, s.stride_w) == (1, 1) =>
            {
                refuse("stride_h", s.stride_h, "cannot be served from NCHW by Winograd, only by the direct algorithm")
            }
            Layout::Nchw => Ok(()),
        }
    }
}

/// Sizes of the cache blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocking {
    /// Output rows in a band. Winograd: tiles in a block or, for the gradient of the weights, chunks of tiles; that by
    /// the direct algorithm has nothing of the kind.
    pub rows: usize,
    /// Virtual vectors of output channels that share a pass over the band. Winograd's gradient of the weights: blocks
    /// of channels in a unit, where more than one also has it walk position by position.
    pub vectors: usize,
}

/// Checks the length of a per-channel parameter that may be shared by all channels.
fn check_channels(what: &'static str, got: usize, channels: usize) -> Result<(), Error> {
    if got == 1 { Ok(()) } else { check_len(what, got, channels) }
}
