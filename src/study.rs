//! How initial weights keep, or lose, the scale of the signal and of the gradient (He et al. 2015, section 2.2).
//!
//! An image of independent standard normal numbers goes forward through a net with fresh weights, then a gradient of
//! such numbers goes back from its output. For each layer with weights the study gives the standard deviations (about
//! zero) of `y`, its output before the activation, and of `Δx`, the gradient of its input, beside those that the paper
//! derives:
//!
//! - forward (Eq. 8, 9): `Var[y_1] = n_1·Var[w_1]`, then `Var[y_l] = ½(1 + a²)·n_l·Var[w_l]·Var[y_{l−1}]` with the
//!   slope `a` of the activation before the layer,
//! - backward (Eq. 12, 13): `Var[Δx_l] = ½(1 + a²)·n̂_l·Var[w_l]·Var[Δx_{l+1}]` with the slope of the one behind it;
//!
//! where there is no activation, 1 takes the place of `½(1 + a²)`. `n = k²·c_in` and `n̂ = k²·c_out`.
//!
//! What the paper leaves out shows as a difference: padding and strides change how many products a pixel takes part in,
//! a maximum is larger than what it is taken from, and its gradient goes to one pixel of many. Without padding, strides
//! and pooling the forward derivation is exact for the mean over all draws of the weights: the weights of an output are
//! as likely as their negatives, so that half of its square passes the rectifier whatever the input is. So is the
//! backward one, where each pixel reaches `k²` outputs, because the gradient at the top is independent of the net: by
//! the same symmetry two gradients that meet are uncorrelated given the input, and half of each square passes.
//! Dropout is left out.

mod chain;
mod plot;

use crate::init::Init;
use crate::model::{Model, ModelError, Op};
use crate::nn::NetError;
use rectify_kernels::Isa;

pub use plot::draw;

/// The scales of a layer with weights, measured and derived: root mean squares.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerScale {
    /// Name of the layer.
    pub layer: String,
    /// Of its output before the activation.
    pub forward: Scale,
    /// Of the gradient of its input.
    pub backward: Scale,
}

/// A root mean square over all elements and draws.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// As measured.
    pub measured: f64,
    /// As the paper derives.
    pub derived: f64,
}

/// What to study.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Images of a draw.
    pub batch: usize,
    /// Draws of weights, images and gradients.
    pub draws: u32,
    /// Seed of the first draw; the others follow it.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { batch: 4, draws: 4, seed: 1 }
    }
}

/// Studies an initialisation in a net, in the current rayon pool; the same numbers for any number of threads.
///
/// ```
/// use rectify::{init::Init, model::Model, study};
/// let model = Model::built_in("shapes-small")?;
/// let layers = study::study(&model, Init::He, rectify_kernels::Isa::best()?, study::Options::default())?;
/// assert_eq!(layers[0].layer, "conv1");
/// assert!(layers.iter().all(|l| (0.1..10.0).contains(&l.forward.measured)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// A model that does not fit together, or is no chain of layers that can be trained.
pub fn study(model: &Model, init: Init, isa: Isa, options: Options) -> Result<Vec<LayerScale>, NetError> {
    let mut model = model.clone();
    model.training.init = init;
    let mut sums: Vec<[f64; 2]> = Vec::new();
    for draw in 0..options.draws.max(1) {
        let squares = squares(&model, isa, options.batch, options.seed.wrapping_add(u64::from(draw)))?;
        sums.resize(squares.len(), [0.0; 2]);
        for (sum, square) in sums.iter_mut().zip(squares) {
            *sum = [sum[0] + square[0], sum[1] + square[1]];
        }
    }
    let draws = f64::from(options.draws.max(1));
    let layers = derived(&model)?.into_iter().zip(sums).map(|(derived, sum)| {
        let scale = |i: usize| Scale { measured: (sum[i] / draws).sqrt(), derived: derived.squares[i].sqrt() };
        LayerScale { layer: derived.layer, forward: scale(0), backward: scale(1) }
    });
    Ok(layers.collect())
}

/// Mean squares of `y` and `Δx` in one draw, layer by layer.
pub(crate) fn squares(model: &Model, isa: Isa, batch: usize, seed: u64) -> Result<Vec<[f64; 2]>, NetError> {
    chain::squares(model, isa, batch, seed)
}

/// What the paper derives for a layer.
#[derive(Debug)]
pub(crate) struct Derived {
    pub layer: String,
    /// Mean squares of `y` and of `Δx`.
    pub squares: [f64; 2],
}

/// The mean squares that follow from the shapes alone.
pub(crate) fn derived(model: &Model) -> Result<Vec<Derived>, ModelError> {
    struct Layer {
        name: String,
        fans: [f64; 2],
        variance: f64,
        slope: Option<f32>,
    }
    let dims = model.tensors(1)?;
    let layers = model.layers.iter().enumerate().filter_map(|(i, layer)| {
        let (fan_in, fan_out) = match &layer.op {
            Op::Conv(c, _) => {
                let taps = c.kernel * c.kernel;
                (taps * (dims[i].c / c.groups), taps * (c.channels / c.groups))
            }
            Op::Linear { outputs, .. } => (dims[i].plain_len(), *outputs),
            _ => return None,
        };
        let slope = layer.op.activation().slope();
        let std = f64::from(model.training.init.std(fan_in, fan_out, slope.unwrap_or(0.0)));
        Some(Layer { name: layer.name.clone(), fans: [fan_in as f64, fan_out as f64], variance: std * std, slope })
    });
    let layers: Vec<Layer> = layers.collect();
    let pass = |slope: Option<f32>| slope.map_or(1.0, |a| 0.5 * (1.0 + f64::from(a) * f64::from(a)));
    let (mut square, mut before) = (1.0, None);
    let mut all: Vec<Derived> = Vec::new();
    for layer in &layers {
        square *= pass(before) * layer.fans[0] * layer.variance;
        before = layer.slope;
        all.push(Derived { layer: layer.name.clone(), squares: [square, 0.0] });
    }
    square = 1.0;
    for (layer, derived) in layers.iter().zip(&mut all).rev() {
        square *= pass(layer.slope) * layer.fans[1] * layer.variance;
        derived.squares[1] = square;
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
