//! Which algorithm a convolution takes.

use crate::reference::winograd::{self, Variant};
use crate::{ConvShape, Error};

/// How a convolution is computed: with the instruction set, the threads and the batch the same bits come out; with
/// another algorithm, others.
///
/// Errors are relative to the largest output, with standard-normal inputs and He-initialised weights of up to 512
/// channels. Only [`Algorithm::Direct`] keeps an infinite or NaN input to the outputs that read it: Winograd spreads it
/// over the tile. Winograd's transformed inputs are up to 20 times as large as the inputs: within a factor of some hundred
/// of the largest `f32` its sums overflow before the direct ones do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Algorithm {
    /// The fastest for the shape whose error stays below 5e-6: a function of kernel, stride, dilation, groups, channels
    /// and image, never of batch, threads or machine.
    #[default]
    Auto,
    /// Implicit GEMM, chains of FMAs in the order of [`crate::reference::conv`]; any shape; error below 2e-6.
    Direct,
    /// F(4×4, 3×3) or, for 2×2 kernels, F(3×3, 2×2), in the order of [`crate::reference::winograd`]; stride 1, no dilation,
    /// one group; error below 5e-6.
    Winograd,
    /// F(2×2, 3×3) or F(3×3, 2×2): slower, error below 2e-6.
    WinogradAccurate,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Algorithm; 4] =
        [Algorithm::Auto, Algorithm::Direct, Algorithm::Winograd, Algorithm::WinogradAccurate];

    /// The name on the command line and in records.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Auto => "auto",
            Algorithm::Direct => "direct",
            Algorithm::Winograd => "winograd",
            Algorithm::WinogradAccurate => "winograd-accurate",
        }
    }

    /// The Winograd variant that serves a shape, `None` for the direct algorithm. Never depends on `shape.n`.
    ///
    /// # Errors
    /// [`Error::Shape`] if a Winograd algorithm was asked for that cannot serve the shape, with the reason.
    pub fn variant(self, shape: &ConvShape) -> Result<Option<Variant>, Error> {
        let variant = match self {
            Algorithm::Direct => return Ok(None),
            Algorithm::Auto => return Ok(auto(shape)),
            _ if shape.kh == 2 => Variant::F3x2,
            Algorithm::Winograd => Variant::F4x3,
            Algorithm::WinogradAccurate => Variant::F2x3,
        };
        winograd::check(variant, shape).map(|()| Some(variant))
    }
}

/// What [`Algorithm::Auto`] takes.
///
/// Winograd pays where its transforms, one for each block of input and of output channels, are small beside the products
/// that they save, and where its tiles cover the image without much waste.
fn auto(s: &ConvShape) -> Option<Variant> {
    let variant = if s.kh == 2 { Variant::F3x2 } else { Variant::F4x3 };
    let (rows, cols) = (s.oh(), s.ow());
    let tiles = rows.div_ceil(variant.m()) * cols.div_ceil(variant.m());
    let products = tiles * variant.n() * variant.n();
    let wasteful = products * 5 > rows * cols * s.kh * s.kw * 4;
    let enough = s.ic >= 32 && s.oc >= 32;
    (winograd::check(variant, s).is_ok() && enough && !wasteful).then_some(variant)
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Algorithm {
    type Err = Error;
    fn from_str(text: &str) -> Result<Algorithm, Error> {
        Algorithm::ALL.into_iter().find(|a| a.name() == text).ok_or_else(|| Error::UnknownAlgorithm(text.to_owned()))
    }
}
