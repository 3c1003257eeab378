//! Where the time and the memory of a net go.

use std::time::{Duration, Instant};

/// A part of a layer's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Laying out weights for a convolution's passes; in training, in every step.
    Pack,
    /// The forward pass, bias and activation with it.
    Forward,
    /// The activation's backward pass with the gradients of slopes and biases; or an input that is computed again.
    Rectifier,
    /// The gradient with respect to the input.
    Data,
    /// The gradient with respect to the weights; of a fully connected layer whose gradient is
    /// applied at once, the update with it and the gradient with respect to the input too.
    Weights,
    /// The update of the parameters.
    Update,
}

impl Pass {
    /// All of them, with their names for people.
    pub const ALL: [(Pass, &'static str); 6] = [
        (Pass::Pack, "pack"),
        (Pass::Forward, "forward"),
        (Pass::Rectifier, "rectifier"),
        (Pass::Data, "data"),
        (Pass::Weights, "weights"),
        (Pass::Update, "update"),
    ];
}

/// Where the time went.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerTime {
    /// The layer.
    pub layer: String,
    /// The kernel of a convolution or fully connected layer; else what the layer does.
    pub kernel: String,
    /// Seconds of everything.
    pub seconds: f64,
    /// Seconds of each pass, in the order of [`Pass::ALL`].
    pub passes: [f64; Pass::ALL.len()],
}

/// What memory is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryUse {
    /// `weights`, `momentum`, `activations`, `gradients`, `workspace` or `packed`.
    pub kind: &'static str,
    /// Bytes that are held for it, without what is left of a last huge page.
    pub bytes: usize,
}

/// Durations of the passes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spent([Duration; Pass::ALL.len()]);

impl Spent {
    /// Runs `f` on the clock of a pass.
    pub fn time<R>(&mut self, pass: Pass, f: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = f();
        self.0[pass as usize] += start.elapsed();
        result
    }

    /// What has been spent since the last call.
    pub fn take(&mut self, layer: &str, kernel: String) -> LayerTime {
        let passes = std::mem::take(&mut self.0).map(|d| d.as_secs_f64());
        LayerTime { layer: layer.to_owned(), kernel, seconds: passes.iter().sum(), passes }
    }
}
