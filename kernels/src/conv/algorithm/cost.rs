//! What an algorithm costs: models of one image on one thread.

use crate::conv::planar;
use crate::conv::winograd::{FAR, UNCACHED};
use crate::reference::winograd::{self, Interleaved, Variant};
use crate::{ConvShape, LANES, blocks};

/// Input channels from which on `Auto` considers Winograd with stride 1 between blocked tensors; below, first layers
/// read NCHW directly, forward, and the gradient of the weights would transform blocks of channels that are nearly
/// empty: of three channels the direct one takes 0.4 (Granite Rapids), 0.8 (Zen 5) and 1.2 times (Zen 4, where an audit
/// says so) as long, of four 0.65, of six 0.9, of eight 1.1 times (Granite Rapids). From NCHW it is direct with stride
/// 1.
const LEAST_CHANNELS: usize = ConvShape::FEW_CHANNELS + 1;

/// What `Auto` takes: the algorithm of least cost, by a model of one image on one thread that `rectify bench --audit`
/// holds against measurements (benches/record/). Winograd must be cheaper by a tenth, but may be a twentieth dearer
/// where either side has few channels; of its variants that is taken which is cheapest but for reading the weights,
/// which the images of a batch share.
pub(super) fn auto(s: &ConvShape) -> Option<Variant> {
    if s.group_ic() < LEAST_CHANNELS {
        return None;
    }
    let (cost, variant) = cheapest(s, winograd_cost)?;
    let whole = whole(variant) * whole(variant);
    let cost = cost + whole as f64 * weights_cost(whole * s.group_ic() * s.oc);
    // The model knows nothing of vectors of pixels, with which few outputs have no wide tile, nor of windows that are
    // read channel by channel. Where it has them a twentieth ahead they take up to 1.7 times as long, of images of 8×8
    // with few outputs two to three times; of five inputs to more outputs, or of smaller images, it is even (Granite
    // Rapids).
    let bound = match s.group_ic() {
        _ if s.stride_h > 1 => 0.9,
        _ if s.groups == 1 && s.oc <= planar::CHANNELS => 1.05,
        6..LANES if s.oh() * s.ow() >= 400 => 1.05,
        _ => 0.9,
    };
    (cost < bound * direct_cost(s)).then_some(variant)
}

/// The same for the gradient of the input of a convolution with a stride, in products of a vector for an image of a
/// group. It is taken mostly in training: of the weights, which beyond the second cache take as long as three products,
/// from memory six, an image bears what it does in a batch of four. Of four tiles such a batch takes as long either
/// way, one image up to three times as long by Winograd, sixteen up to two thirds.
pub(super) fn strided_auto(s: &ConvShape) -> Option<Variant> {
    const BATCH: f64 = 4.0;
    // Of 7×7 kernels sums of more channels round more than it promises.
    let is_accurate = |v: &Variant| *v != Variant::F4x7S2 || s.group_oc() <= 128;
    let serves = |v: &Variant| v.stride() == 2 && is_accurate(v) && winograd::check_data(*v, s).is_ok();
    let cost = |variant| {
        let products = whole(variant) * whole(variant) * s.group_oc() * blocks(s.group_ic());
        let each = match products * LANES {
            _ if s.has_few_channels() => 0.0,
            0..FAR => 0.0,
            FAR..UNCACHED => 3.0,
            _ => 6.0,
        };
        interleaved_cost(variant, s) + each / BATCH * products as f64
    };
    let costs = Variant::ALL.into_iter().filter(serves).map(|variant| (cost(variant), variant));
    let (cost, variant) = costs.min_by(|a, b| a.0.total_cmp(&b.0))?;
    (cost < 0.95 * strided_direct_cost(s)).then_some(variant)
}

/// Cost of the direct gradient of the input. With vectors of pixels planes are made of the output's gradient, each
/// vector is read for each tap anew, and blocks with few channels are stored. One block of channels has no tall tile of
/// vectors.
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
    let each = match s.has_few_channels() {
        // Small matrix products, and pixels put together from their lanes.
        true => 1.3 * (positions * oc + TRANSFORM * (positions * (ins + 1.0) + 4.0)),
        false => whole * outs * oc + TRANSFORM * positions * (ins + 4.0 * outs),
    };
    tiles[0] * tiles[1] * each
}

/// The same for the gradient of the weights, in products of a channel by a block of channels.
pub(super) fn weights_auto(s: &ConvShape) -> Option<Variant> {
    if (s.stride_h, s.stride_w) != (1, 1) {
        return strided_weights_auto(s);
    }
    if s.group_ic() < LEAST_CHANNELS {
        return None;
    }
    let direct = (s.kh * s.kw) as f64 * (s.oh() as f64 * s.ow() as f64) * (s.group_ic() * blocks(s.group_oc())) as f64;
    let (cost, variant) = cheapest(s, winograd_weights_cost)?;
    (cost < 0.9 * direct).then_some(variant)
}

/// The same of a convolution with a stride. Of phases that lie in the lanes of a block the transforms take the more
/// time the fewer they are, and they have to be brought together.
fn strided_weights_auto(s: &ConvShape) -> Option<Variant> {
    const BATCH: f64 = 32.0;
    const TRANSFORM: f64 = 5.0;
    let (ic, ins, outs) = (s.group_ic() as f64, blocks(s.group_ic()) as f64, blocks(s.group_oc()) as f64);
    let cost = |variant: Variant| {
        let (positions, whole) = ((variant.n() * variant.n()) as f64, (whole(variant) * whole(variant)) as f64);
        let tiles = s.oh().div_ceil(variant.m()) as f64 * s.ow().div_ceil(variant.m()) as f64;
        match s.has_few_channels() {
            true => tiles * positions * (4.0 * ic * outs + TRANSFORM * (1.0 + outs) + 26.0),
            false => {
                let each = whole * ic * outs + TRANSFORM * positions * (4.0 * ins + outs);
                tiles * each + 40.0 * positions * ic * outs / BATCH
            }
        }
    };
    let serves = |v: &Variant| v.stride() == 2 && winograd::check_weights(*v, s).is_ok();
    let costs = Variant::ALL.into_iter().filter(serves).map(|variant| (cost(variant), variant));
    let (cost, variant) = costs.min_by(|a, b| a.0.total_cmp(&b.0))?;
    let direct = (s.kh * s.kw * s.oh()) as f64 * s.ow() as f64 * ic * outs;
    (cost < if s.has_few_channels() { 0.8 } else { 0.85 } * direct).then_some(variant)
}

/// The variant of least cost of those that serve a shape between blocked tensors.
fn cheapest(s: &ConvShape, cost: impl Fn(Variant, &ConvShape) -> f64) -> Option<(f64, Variant)> {
    let between_blocks = |v: &Variant| *v != Variant::F4x7S2 && winograd::check(*v, s).is_ok();
    let costs = Variant::ALL.into_iter().filter(between_blocks).map(|variant| (cost(variant, s), variant));
    costs.min_by(|a, b| a.0.total_cmp(&b.0))
}

/// Products of a tile along an axis. With a stride the sums of a position go over phases too, so that there are more
/// products than positions.
fn whole(variant: Variant) -> usize {
    (0..variant.n()).map(|i| variant.phases(i)).sum()
}

/// What it costs to read the weights, in products of each of them: something beyond the second cache. A single small
/// image waits longer for them, but few images hide it: of images of 3×3 with 256 channels F(4×4, 3×3) is an eighth
/// behind the best for one, and nearly twice as fast as the next for four.
fn weights_cost(weights: usize) -> f64 {
    if weights < FAR { 0.0 } else { 1.5 }
}

/// Cost for each pair of channels of a group: products, and reading the weights.
pub(super) fn direct_cost(s: &ConvShape) -> f64 {
    let taps = s.kh * s.kw;
    taps as f64 * ((s.oh() * s.ow()) as f64 + weights_cost(s.weight_len()))
}

/// The same with fewer products, but a transform for each block of input and of output channels; without reading the
/// weights.
fn winograd_cost(variant: Variant, s: &ConvShape) -> f64 {
    let (products, positions) = (image(variant, s, whole(variant)), image(variant, s, variant.n()));
    // The phases of a stride are read from the same lines.
    let transform = if variant.stride() > 1 { 11.0 } else { 12.0 };
    let (input, output) = (products * transform / s.group_oc() as f64, positions * transform / s.group_ic() as f64);
    products + input + output
}

/// Cost of a first layer, in products of a channel by a block of channels: beside them a transform for each block of
/// output channels, and for each row of tiles of a channel one that fills its vectors only where the image is wide.
pub(super) fn first_cost(s: &ConvShape) -> f64 {
    const PRODUCTS: usize = 169;
    const OUTPUT: usize = 250;
    let (rows, cols) = (s.oh().div_ceil(4), s.ow().div_ceil(4));
    let products = (PRODUCTS * s.ic + OUTPUT) as f64 * (rows * cols * blocks(s.oc)) as f64;
    let inputs = (s.ic * rows) as f64 * (2500.0 * cols.div_ceil(30) as f64 + 60.0 * cols as f64);
    products + inputs
}

/// The gradient of the weights has fewer products too, but a transform for each block of channels of either side; and
/// sums to be stored and transformed once for all images, as whose number that of a usual batch is taken.
fn winograd_weights_cost(variant: Variant, s: &ConvShape) -> f64 {
    const BATCH: f64 = 32.0;
    let (ins, outs) = (blocks(s.group_ic()), blocks(s.group_oc()));
    let products = (s.group_ic() * outs) as f64;
    let transforms = 5.0 * (ins + outs) as f64;
    let whole = (variant.n() * variant.n()) as f64;
    image(variant, s, variant.n()) * (products + transforms) + whole * 10.0 * products / BATCH
}

/// What the tiles of an image have together, if a tile has `each` squared: fewer where it lacks positions. Its
/// transforms take longer, though, as if it had a part of one more along the axis: images of 9×9 are a tenth to a third
/// faster in whole tiles of F(3×3, 2×2) than in as many positions of F(4×4, 2×2) (Zen 4, one thread, 64 and 256
/// channels).
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
