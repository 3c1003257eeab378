//! Which algorithm a convolution takes.

use super::{Layout, planar};
use crate::reference::winograd::{self, Interleaved, Variant};
use crate::{ConvShape, Error, LANES, blocks};

/// How a convolution is computed: with the instruction set, the threads and the batch the same bits come out; with
/// another algorithm, others.
///
/// Errors are relative to the largest output, with standard-normal inputs and He-initialised weights of up to 512
/// channels; for the gradient of the weights, to the largest of them, with standard-normal inputs and output gradients.
/// Only [`Algorithm::Direct`] keeps an infinite or NaN input to the outputs that read it: Winograd spreads it
/// over the tile. Winograd's transformed inputs are up to 22 times as large as the inputs, in tiles of three rows and columns of
/// outputs at an edge 33 times, those of 7×7 kernels up to 90 times: within a factor of some
/// hundred of the largest `f32` its sums overflow before the direct ones do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Algorithm {
    /// The fastest for the shape whose error stays below 5e-6: a function of kernel, stride, dilation, groups, channels
    /// and image, and of how the tensors lie, never of batch, threads or machine. A forward pass from NCHW to fewer than 16
    /// channels is direct.
    #[default]
    Auto,
    /// Implicit GEMM, chains of FMAs in the order of [`crate::reference::conv`]; any shape; error below 2e-6.
    Direct,
    /// F(4×4, 3×3) or, for 2×2 kernels, F(4×4, 2×2), or its adjoint for the gradient of the weights, in the order of
    /// [`crate::reference::winograd`]; stride 1, no dilation, one group or groups of multiples of 16 channels; error below 5e-6.
    /// A forward pass and the gradient of its input take stride 2 in both directions too, with kernels of 3×3, 4×4, 5×5 and 7×7, the
    /// last forward from NCHW with at most four channels alone: F(4×4, …) of its phases. The gradient's sums over more than 128
    /// channels at 7×7 have errors below 1.5e-5.
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

    /// The Winograd variant that serves a shape from a blocked tensor, `None` for the direct algorithm
    /// ([`Algorithm::variant_from`] others). Never depends on
    /// `shape.n`.
    ///
    /// # Errors
    /// A shape that is none ([`ConvShape::check`]); [`Error::Shape`] if a Winograd algorithm was asked for that cannot serve it, with
    /// the reason.
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

    /// The Winograd variant of a forward pass from a tensor that lies so: as [`Algorithm::variant`], but from NCHW first layers
    /// have one of their own.
    ///
    /// # Errors
    /// As [`Algorithm::variant`].
    pub fn variant_from(self, s: &ConvShape, input: Layout) -> Result<Option<Variant>, Error> {
        s.check()?;
        let first = Variant::F4x7S2;
        let serves = input == Layout::Nchw && s.ic <= Layout::MOST_CHANNELS && winograd::check(first, s).is_ok();
        let wanted = match self {
            Algorithm::Auto => s.oc >= LANES && first_cost(s) < direct_cost(s) * (s.ic * blocks(s.oc)) as f64,
            _ => self == Algorithm::Winograd,
        };
        if serves && wanted { Ok(Some(first)) } else { self.variant(s) }
    }

    /// The Winograd variant that serves the gradient of a shape's input, `None` for the direct algorithm. Never depends on
    /// `shape.n`.
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
        let variant = match (self, s.stride_h, s.kh) {
            (Algorithm::Winograd, 2, 7) => Some(Variant::F4x7S2),
            // The forward's check comes first, for errors that name its dimensions.
            _ => self.variant(s)?,
        };
        if let Some(variant) = variant {
            winograd::check_data(variant, s)?;
        }
        Ok(variant)
    }

    /// The Winograd variant that serves the gradient of a shape's weights from a blocked tensor, `None` for the direct
    /// algorithm, which alone takes NCHW. Never depends on `shape.n`.
    ///
    /// # Errors
    /// As [`Algorithm::variant`]; a stride.
    pub fn weights_variant(self, shape: &ConvShape) -> Result<Option<Variant>, Error> {
        shape.check()?;
        match self {
            Algorithm::Auto => Ok(weights_auto(shape)),
            _ => match self.variant(shape)? {
                Some(variant) => winograd::check_weights(variant, shape).map(|()| Some(variant)),
                None => Ok(None),
            },
        }
    }
}

/// Input channels from which on [`Algorithm::Auto`] considers Winograd between blocked tensors; below, first layers read
/// NCHW directly, forward, and the gradient of the weights would transform blocks of channels that are nearly empty: of three
/// channels the direct one takes 0.4 (Granite Rapids), 0.8 (Zen 5) and 1.2 times (Zen 4, where an audit says so) as long, of
/// four 0.65, of six 0.9, of eight 1.1 times (Granite Rapids). From NCHW it is direct in any case.
const LEAST_CHANNELS: usize = Layout::MOST_CHANNELS + 1;

/// What [`Algorithm::Auto`] takes: the algorithm of least cost, by a model of one image on one thread that
/// `rectify bench --audit` holds against measurements (benches/record/). Winograd must be cheaper by a tenth; of its variants that
/// is taken which is cheapest but for reading the weights, which the images of a batch share.
fn auto(s: &ConvShape) -> Option<Variant> {
    if s.group_ic() < LEAST_CHANNELS {
        return None;
    }
    let (cost, variant) = cheapest(s, winograd_cost)?;
    let whole = whole(variant) * whole(variant);
    let cost = cost + whole as f64 * weights_cost(whole * s.group_ic() * s.oc);
    (cost < 0.9 * direct_cost(s)).then_some(variant)
}

/// The same for the gradient of the input of a convolution with a stride, in products of a vector for an image of a group. It is
/// taken mostly in training: of the weights, which beyond the second cache take as long as three products, from memory six, an
/// image bears what it does in a batch of four. Of four tiles such a batch takes as long either way, one image up to three
/// times as long by Winograd, sixteen up to two thirds.
fn strided_auto(s: &ConvShape) -> Option<Variant> {
    const BATCH: f64 = 4.0;
    const UNCACHED: usize = 1 << 23;
    // Of 7×7 kernels sums of more channels round more than it promises.
    let is_accurate = |v: &Variant| *v != Variant::F4x7S2 || s.group_oc() <= 128;
    let serves = |v: &Variant| v.stride() == 2 && is_accurate(v) && winograd::check_data(*v, s).is_ok();
    let cost = |variant| {
        let products = whole(variant) * whole(variant) * s.group_oc() * blocks(s.group_ic());
        let each = match products * LANES {
            _ if is_first(s) => 0.0,
            0..0x4_0000 => 0.0,
            0x4_0000..UNCACHED => 3.0,
            _ => 6.0,
        };
        interleaved_cost(variant, s) + each / BATCH * products as f64
    };
    let costs = Variant::ALL.into_iter().filter(serves).map(|variant| (cost(variant), variant));
    let (cost, variant) = costs.min_by(|a, b| a.0.total_cmp(&b.0))?;
    (cost < 0.95 * strided_direct_cost(s)).then_some(variant)
}

/// Whether all phases of the input's gradient are lanes of one block.
fn is_first(s: &ConvShape) -> bool {
    s.groups == 1 && s.ic <= Layout::MOST_CHANNELS
}

/// Cost of the direct gradient of the input. With vectors of pixels planes are made of the output's gradient, each vector is read
/// for each tap anew, and blocks with few channels are stored. One block of channels has no tall tile of vectors.
fn strided_direct_cost(s: &ConvShape) -> f64 {
    let (ic, oc, taps, pixels) = (s.group_ic(), s.group_oc() as f64, (s.kh * s.kw) as f64, (s.oh() * s.ow()) as f64);
    if s.groups == 1 && ic <= planar::CHANNELS {
        return 0.8 * pixels * (oc / LANES as f64 * (25.0 + taps * (ic as f64 + 4.0)) + 90.0);
    }
    let narrow = if blocks(ic) == 1 { 1.25 } else { 1.0 };
    narrow * taps * pixels * oc * blocks(ic) as f64
}

/// Cost of the same by Winograd: products, transforms of the output's gradient once, of the input's once a phase.
fn interleaved_cost(variant: Variant, s: &ConvShape) -> f64 {
    const TRANSFORM: f64 = 12.0;
    let axes = [(s.ih, s.kh, s.pad_top), (s.iw, s.kw, s.pad_left)];
    let tiles = axes.map(|(size, k, pad)| Interleaved::new(size, k, pad).len.div_ceil(variant.m()) as f64);
    let (positions, whole) = ((variant.n() * variant.n()) as f64, (whole(variant) * whole(variant)) as f64);
    let (ins, outs, oc) = (blocks(s.group_oc()) as f64, blocks(s.group_ic()) as f64, s.group_oc() as f64);
    let each = match is_first(s) {
        // Small matrix products, and pixels put together from their lanes.
        true => 1.3 * (positions * oc + TRANSFORM * (positions * (ins + 1.0) + 4.0)),
        false => whole * outs * oc + TRANSFORM * positions * (ins + 4.0 * outs),
    };
    tiles[0] * tiles[1] * each
}

/// The same for the gradient of the weights, in products of a channel by a block of channels.
fn weights_auto(s: &ConvShape) -> Option<Variant> {
    if (s.stride_h, s.stride_w) != (1, 1) || s.group_ic() < LEAST_CHANNELS {
        return None;
    }
    let direct = (s.kh * s.kw) as f64 * (s.oh() as f64 * s.ow() as f64) * (s.group_ic() * blocks(s.group_oc())) as f64;
    let (cost, variant) = cheapest(s, winograd_weights_cost)?;
    (cost < 0.9 * direct).then_some(variant)
}

/// The variant of least cost of those that serve a shape between blocked tensors.
fn cheapest(s: &ConvShape, cost: impl Fn(Variant, &ConvShape) -> f64) -> Option<(f64, Variant)> {
    let between_blocks = |v: &Variant| *v != Variant::F4x7S2 && winograd::check(*v, s).is_ok();
    let costs = Variant::ALL.into_iter().filter(between_blocks).map(|variant| (cost(variant, s), variant));
    costs.min_by(|a, b| a.0.total_cmp(&b.0))
}

/// Products of a tile along an axis. With a stride the sums of a position go over phases too, so that there are more products
/// than positions.
fn whole(variant: Variant) -> usize {
    (0..variant.n()).map(|i| variant.phases(i)).sum()
}

/// What it costs to read the weights, in products of each of them: something beyond the second cache. A single small image
/// waits longer for them, but few images hide it: of images of 3×3 with 256 channels F(4×4, 3×3) is an eighth behind the
/// best for one, and nearly twice as fast as the next for four.
fn weights_cost(weights: usize) -> f64 {
    if weights < 0x4_0000 { 0.0 } else { 1.5 }
}

/// Cost for each pair of channels of a group: products, and reading the weights.
fn direct_cost(s: &ConvShape) -> f64 {
    let taps = s.kh * s.kw;
    taps as f64 * ((s.oh() * s.ow()) as f64 + weights_cost(s.weight_len()))
}

/// The same with fewer products, but a transform for each block of input and of output channels; without reading the weights.
fn winograd_cost(variant: Variant, s: &ConvShape) -> f64 {
    let (products, positions) = (image(variant, s, whole(variant)), image(variant, s, variant.n()));
    // The phases of a stride are read from the same lines.
    let transform = if variant.stride() > 1 { 11.0 } else { 12.0 };
    let (input, output) = (products * transform / s.group_oc() as f64, positions * transform / s.group_ic() as f64);
    products + input + output
}

/// Cost of a first layer, in products of a channel by a block of channels: beside them a transform for each block of output
/// channels, and for each row of tiles of a channel one that fills its vectors only where the image is wide.
fn first_cost(s: &ConvShape) -> f64 {
    const PRODUCTS: usize = 169;
    const OUTPUT: usize = 250;
    let (rows, cols) = (s.oh().div_ceil(4), s.ow().div_ceil(4));
    let products = (PRODUCTS * s.ic + OUTPUT) as f64 * (rows * cols * blocks(s.oc)) as f64;
    let inputs = (s.ic * rows) as f64 * (2500.0 * cols.div_ceil(30) as f64 + 60.0 * cols as f64);
    products + inputs
}

/// The gradient of the weights has fewer products too, but a transform for each block of channels of either side; and sums
/// to be stored and transformed once for all images, as whose number that of a usual batch is taken.
fn winograd_weights_cost(variant: Variant, s: &ConvShape) -> f64 {
    const BATCH: f64 = 32.0;
    let (ins, outs) = (blocks(s.group_ic()), blocks(s.group_oc()));
    let products = (s.group_ic() * outs) as f64;
    let transforms = 5.0 * (ins + outs) as f64;
    let whole = (variant.n() * variant.n()) as f64;
    image(variant, s, variant.n()) * (products + transforms) + whole * 10.0 * products / BATCH
}

/// What the tiles of an image have together, if a tile has `each` squared: fewer where it lacks positions. Its transforms take
/// longer, though, as if it had a part of one more along the axis: images of 9×9 are a tenth to a third faster in whole tiles of
/// F(3×3, 2×2) than in as many positions of F(4×4, 2×2) (Zen 4, one thread, 64 and 256 channels).
fn image(variant: Variant, s: &ConvShape, each: usize) -> f64 {
    const EDGE: f64 = 0.25;
    let axis = |size: usize| {
        let last = match size % variant.m() {
            0 => 0.0,
            k if variant.has_edges() => (variant.finite(k) + 1) as f64 + EDGE,
            _ => each as f64,
        };
        (size / variant.m() * each) as f64 + last
    };
    axis(s.oh()) * axis(s.ow())
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

    /// Where Winograd begins to pay, and where a smaller tile does: for one image and for many ([`weights_cost`], [`image`]).
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
    /// The same for the gradient of a strided convolution's input: of first layers, of blocks, of small images, whose weights a
    /// batch of four shares ([`strided_auto`]).
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
