//! Which algorithm a convolution takes.

mod cost;

use super::Layout;
use crate::reference::winograd::{self, Variant};
use crate::{ConvShape, Error, LANES, blocks};
use cost::{auto, direct_cost, first_cost, strided_auto, weights_auto};

/// How a convolution is computed: with the instruction set, the threads and the batch the same bits come out; with
/// another algorithm, others.
///
/// Errors are relative to the largest output, with standard-normal inputs and He-initialised weights of up to 512
/// channels; for the gradient of the weights, to the largest of them, with standard-normal inputs and output gradients.
/// Only [`Algorithm::Direct`] keeps an infinite or NaN input to the outputs that read it: Winograd spreads it over the
/// tile. Winograd's transformed inputs are up to 22 times as large as the inputs, in tiles of three rows and columns of
/// outputs at an edge 33 times, those of 7×7 kernels up to 90 times: within a factor of some hundred of the largest
/// `f32` its sums overflow before the direct ones do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Algorithm {
    /// The fastest for the shape whose error stays below 5e-6: a function of kernel, stride, dilation, groups, channels
    /// and image, and of how the tensors lie, never of batch, threads or machine. A forward pass from NCHW to fewer
    /// than 16 channels is direct.
    #[default]
    Auto,
    /// Implicit GEMM, chains of FMAs in the order of [`crate::reference::conv`]; any shape that [`ConvShape::check`]
    /// accepts (of the input's gradient with strides up to some hundreds); error below 2e-6.
    Direct,
    /// F(4×4, 3×3) or, for 2×2 kernels, F(4×4, 2×2), or its adjoint for the gradient of the weights, in the order of
    /// [`crate::reference::winograd`]; stride 1, no dilation, one group or groups of multiples of 16 channels; error
    /// below 5e-6. All passes take stride 2 in both directions too, with kernels of 3×3, 4×4, 5×5 and 7×7: F(4×4, …) of
    /// the phases. Those of 7×7 have one group, and but for the gradient of the input at most four channels, forward
    /// from NCHW; that gradient's sums over more than 128 channels have errors below 1.5e-5.
    Winograd,
    /// F(2×2, 3×3) or F(3×3, 2×2), with stride 2 F(3×3, 3×3): slower, error below 2e-6.
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

    /// The Winograd variant that serves a shape from a blocked tensor, `None` for the direct algorithm; from other
    /// tensors see [`Algorithm::variant_from`]. Never depends on `shape.n`.
    ///
    /// # Errors
    /// A shape that is none ([`ConvShape::check`]); [`Error::Shape`] if a Winograd algorithm was asked for that cannot
    /// serve it, with the reason.
    pub fn variant(self, shape: &ConvShape) -> Result<Option<Variant>, Error> {
        shape.check()?;
        let accurate = match self {
            Algorithm::Direct => return Ok(None),
            Algorithm::Auto => return Ok(auto(shape)),
            Algorithm::Winograd => false,
            Algorithm::WinogradAccurate => true,
        };
        let variant = match (shape.stride_h, shape.kh) {
            (2, _) if accurate => Variant::F3x3S2,
            (2, 4) => Variant::F4x4S2,
            (2, 5) => Variant::F4x5S2,
            (2, _) => Variant::F4x3S2,
            (_, 2) if accurate => Variant::F3x2,
            (_, 2) => Variant::F4x2,
            _ if accurate => Variant::F2x3,
            _ => Variant::F4x3,
        };
        winograd::check(variant, shape).map(|()| Some(variant))
    }

    /// The Winograd variant of a forward pass from a tensor that lies so: as [`Algorithm::variant`], but from NCHW
    /// first layers have one of their own, and [`Algorithm::Auto`] is direct to fewer than 16 channels of one group.
    ///
    /// # Errors
    /// As [`Algorithm::variant`].
    pub fn variant_from(self, s: &ConvShape, input: Layout) -> Result<Option<Variant>, Error> {
        s.check()?;
        let first = Variant::F4x7S2;
        // Few output channels from planes: what Winograd saves in products it loses in lanes that are empty.
        if self == Algorithm::Auto && input == Layout::Nchw && s.groups == 1 && s.oc < LANES {
            return Ok(None);
        }
        let serves = input == Layout::Nchw && s.has_few_channels() && winograd::check(first, s).is_ok();
        let is_wanted = || match self {
            Algorithm::Auto => first_cost(s) < direct_cost(s) * (s.ic * blocks(s.oc)) as f64,
            _ => self == Algorithm::Winograd,
        };
        if serves && is_wanted() { Ok(Some(first)) } else { self.variant(s) }
    }

    /// The Winograd variant that serves the gradient of a shape's input, `None` for the direct algorithm. Never depends
    /// on `shape.n`.
    ///
    /// # Errors
    /// As [`Algorithm::variant`]; more padding than the kernel reaches.
    pub fn data_variant(self, s: &ConvShape) -> Result<Option<Variant>, Error> {
        s.check()?;
        if self == Algorithm::Auto {
            return Ok(match (s.stride_h, s.stride_w) {
                (1, 1) => winograd::reversed(s).and_then(|back| auto(&back)),
                _ => strided_auto(s),
            });
        }
        let variant = self.gradient_variant(s)?;
        variant.map_or(Ok(()), |variant| winograd::check_data(variant, s)).map(|()| variant)
    }

    /// The variant of a gradient, but for [`Algorithm::Auto`]: that of 7×7 does not depend on how tensors lie.
    fn gradient_variant(self, s: &ConvShape) -> Result<Option<Variant>, Error> {
        match (self, s.stride_h, s.kh) {
            (Algorithm::Winograd, 2, 7) => Ok(Some(Variant::F4x7S2)),
            // The forward's check comes first, for errors that name its dimensions.
            _ => self.variant(s),
        }
    }

    /// The Winograd variant that serves the gradient of a shape's weights from a blocked tensor, `None` for the direct
    /// algorithm, which alone takes NCHW with stride 1. Never depends on `shape.n`.
    ///
    /// # Errors
    /// As [`Algorithm::variant`]; of kernels of 7×7 more channels than a first layer has.
    pub fn weights_variant(self, s: &ConvShape) -> Result<Option<Variant>, Error> {
        s.check()?;
        if self == Algorithm::Auto {
            return Ok(weights_auto(s));
        }
        let variant = self.gradient_variant(s)?;
        variant.map_or(Ok(()), |variant| winograd::check_weights(variant, s)).map(|()| variant)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_shape_is_too_bad_to_be_refused() {
        let s = ConvShape::square(1, 32, 8, 32, 3, 1, 1);
        for s in [ConvShape { groups: 0, ..s }, ConvShape { stride_h: 0, ..s }, ConvShape { kh: 11, ..s }] {
            for algorithm in Algorithm::ALL {
                assert!(algorithm.variant(&s).is_err() && algorithm.weights_variant(&s).is_err(), "{s:?}");
                assert!(algorithm.data_variant(&s).is_err(), "{s:?}");
                assert!(algorithm.variant_from(&s, Layout::Nchw).is_err(), "{s:?}");
            }
        }
    }

    /// Groups as single convolutions, forward and backward.
    #[test]
    fn auto_takes_winograd_for_groups_of_whole_blocks() {
        for (channels, groups, want) in
            [(384, 2, Some(Variant::F4x3)), (512, 32, Some(Variant::F4x3)), (512, 64, None), (256, 256, None)]
        {
            let s = ConvShape { groups, ..ConvShape::square(1, channels, 14, channels, 3, 1, 1) };
            assert_eq!([auto(&s), weights_auto(&s)], [want; 2], "{channels} channels in {groups} groups");
        }
    }

    /// Of few channels a block is nearly empty, and to transform it does not pay.
    #[test]
    fn auto_takes_no_winograd_for_few_channels() {
        for (channels, want) in [(1, None), (3, None), (4, None), (5, Some(Variant::F4x3))] {
            let s = ConvShape::square(64, channels, 32, 64, 3, 1, 1);
            assert_eq!([auto(&s), weights_auto(&s)], [want; 2], "{channels} channels");
        }
    }

    /// Where Winograd begins to pay, and where a smaller tile does: for one image and for many ([`weights_cost`],
    /// [`image`]).
    #[test]
    fn auto_takes_what_was_measured_to_be_fastest() {
        let auto =
            |channels, side, kernel| auto(&ConvShape::square(1, channels, side + kernel - 1, channels, kernel, 1, 0));
        for (channels, side, kernel, want) in [
            (256, 3, 3, Some(Variant::F4x3)),
            (512, 7, 3, Some(Variant::F4x3)),
            (16, 2, 3, None),
            (256, 14, 3, Some(Variant::F4x3)),
            (64, 6, 2, Some(Variant::F3x2)),
            (256, 9, 2, Some(Variant::F3x2)),
            (256, 17, 2, Some(Variant::F4x2)),
            (128, 35, 2, Some(Variant::F4x2)),
            (256, 14, 1, None),
        ] {
            assert_eq!(auto(channels, side, kernel), want, "{channels} channels, {side}×{side}, {kernel}×{kernel}");
        }
    }

    /// The same where either side has few channels.
    #[test]
    fn auto_takes_what_was_measured_to_be_fastest_for_few_channels() {
        for (ic, oc, side, is_winograd) in [
            (5, 16, 28, false),
            (6, 16, 28, true),
            (6, 16, 14, false),
            (8, 10, 56, true),
            (12, 6, 28, true),
            (32, 5, 8, true),
            (32, 5, 7, false),
            (5, 8, 28, false),
            (6, 8, 28, false),
            (12, 5, 28, false),
            (16, 5, 28, true),
            (64, 4, 28, true),
            (64, 3, 28, false),
        ] {
            let s = ConvShape::square(1, ic, side, oc, 3, 1, 1);
            assert_eq!(auto(&s), is_winograd.then_some(Variant::F4x3), "{ic} to {oc}, {side}×{side}");
        }
    }

    /// The same for the gradient of a strided convolution's weights.
    #[test]
    fn auto_takes_what_was_measured_to_be_fastest_for_strided_weights() {
        for (ic, oc, side, kernel, want) in [
            (3, 96, 224, 7, Some(Variant::F4x7S2)),
            (1, 64, 224, 7, None),
            (3, 64, 64, 3, None),
            (16, 64, 64, 3, Some(Variant::F4x3S2)),
            (64, 64, 112, 3, Some(Variant::F4x3S2)),
            (64, 128, 64, 5, Some(Variant::F4x5S2)),
            (128, 128, 28, 3, Some(Variant::F3x3S2)),
            (64, 64, 4, 3, None),
            (64, 64, 56, 1, None),
        ] {
            let s = ConvShape::square(1, ic, side, oc, kernel, 2, (kernel - 1) / 2);
            assert_eq!(Algorithm::Auto.weights_variant(&s), Ok(want), "{ic} to {oc}, {side}×{side}, {kernel}×{kernel}");
        }
    }

    /// The same for the gradient of a strided convolution's input: of first layers, of blocks, of small images, whose
    /// weights a batch of four shares ([`strided_auto`]).
    #[test]
    fn auto_takes_what_was_measured_to_be_fastest_for_strided_gradients() {
        for (ic, oc, side, kernel, want) in [
            (3, 96, 224, 7, Some(Variant::F4x7S2)),
            (3, 256, 224, 7, None),
            (1, 16, 28, 3, Some(Variant::F4x3S2)),
            (3, 64, 64, 4, Some(Variant::F4x4S2)),
            (8, 64, 64, 3, None),
            (16, 16, 64, 3, None),
            (16, 64, 64, 3, Some(Variant::F4x3S2)),
            (64, 64, 112, 3, Some(Variant::F4x3S2)),
            (64, 128, 64, 5, Some(Variant::F4x5S2)),
            (128, 128, 28, 3, Some(Variant::F3x3S2)),
            (64, 64, 4, 3, None),
            (512, 512, 14, 3, None),
            (64, 64, 56, 1, None),
        ] {
            let s = ConvShape::square(1, ic, side, oc, kernel, 2, (kernel - 1) / 2);
            assert_eq!(Algorithm::Auto.data_variant(&s), Ok(want), "{ic} to {oc}, {side}×{side}, {kernel}×{kernel}");
        }
    }
}
