//! Training steps: forward, loss, backward, update.

use crate::model::Model;
use crate::nn::{LayerTime, MemoryUse, Mode, Net, NetError, Parameters};
use crate::optim::Sgd;
use crate::rng::{self, Rng};
use rectify_kernels::{Buffer, Isa, loss::LossSums};

/// A net in training: what a step needs and changes.
///
/// ```
/// use rectify::{model::Model, train::Stepper};
/// let model = Model::built_in("shapes-small")?;
/// let mut stepper = Stepper::new(&model, rectify_kernels::Isa::best()?, 2, 1)?;
/// let pixels = vec![0.5; 2 * 3 * 32 * 32]; // NCHW
/// let before = stepper.step(&pixels, &[0, 1])?.loss;
/// let after = stepper.step(&pixels, &[0, 1])?.loss;
/// assert!(after < before);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Stepper {
    net: Net,
    parameters: Parameters,
    gradients: Vec<Buffer>,
    sgd: Sgd,
    seed: u64,
    steps: u64,
    /// Learning rate of the next step; at first that of the model.
    pub lr: f32,
}

impl Stepper {
    /// Initial weights from the seed, with the model's hyper-parameters, for batches of `batch` images, in the current
    /// rayon pool.
    ///
    /// # Errors
    /// A model that does not fit together.
    pub fn new(model: &Model, isa: Isa, batch: usize, seed: u64) -> Result<Stepper, NetError> {
        let parameters = Parameters::initial(model, seed)?;
        let sgd = Sgd::new(&model.training, &parameters);
        Stepper::resume(model, isa, batch, seed, (parameters, sgd, 0))
    }

    /// Goes on with these parameters and momentum after `steps` steps.
    pub(super) fn resume(
        model: &Model,
        isa: Isa,
        batch: usize,
        seed: u64,
        (parameters, sgd, steps): (Parameters, Sgd, u64),
    ) -> Result<Stepper, NetError> {
        let net = Net::new(model, isa, batch, Mode::Training)?;
        Ok(Stepper { net, parameters, gradients: Vec::new(), sgd, seed, steps, lr: model.training.lr })
    }

    /// One step on `batch` images (NCHW, normalised) and their labels; gives the sums over the batch before the update.
    ///
    /// # Errors
    /// Lengths that do not fit, a label that is no class.
    pub fn step(&mut self, pixels: &[f32], labels: &[u32]) -> Result<LossSums, NetError> {
        self.net.forward(&self.parameters, pixels, self.dropout())?;
        let sums = self.net.descend(self.sgd.descent(&mut self.parameters, self.lr), labels)?;
        self.steps += 1;
        Ok(sums)
    }

    /// The seed of this step's masks.
    fn dropout(&self) -> u64 {
        Rng::at(self.seed, rng::DROPOUT, self.steps, 0).next_u64()
    }

    /// As [`Stepper::step`], but changes no parameter: leaves the gradients of the mean loss, which a step applies one
    /// by one, in [`Stepper::last_gradients`].
    ///
    /// # Errors
    /// As [`Stepper::step`].
    pub fn gradients(&mut self, pixels: &[f32], labels: &[u32]) -> Result<LossSums, NetError> {
        if self.gradients.is_empty() {
            self.gradients = self.parameters.zeros_like();
        }
        self.net.forward(&self.parameters, pixels, self.dropout())?;
        self.net.backward(&self.parameters, labels, &mut self.gradients)
    }

    /// Where the time since the last call went, layer by layer: see [`Net::profile`].
    pub fn profile(&mut self) -> Vec<LayerTime> {
        self.net.profile()
    }

    /// What the memory is for.
    pub fn memory(&self) -> Vec<MemoryUse> {
        let bytes = |buffers: &mut dyn Iterator<Item = &Buffer>| buffers.map(|b| size_of_val(&b[..])).sum();
        let weights = bytes(&mut self.parameters.iter().map(|p| &p.value));
        let momentum = bytes(&mut self.sgd.velocity().iter());
        let own = [("weights", weights), ("momentum", momentum)].map(|(kind, bytes)| MemoryUse { kind, bytes });
        let mut all = own.to_vec();
        all.extend(self.net.memory());
        all
    }

    /// What [`Stepper::gradients`] left, one buffer a parameter; none before.
    pub fn last_gradients(&self) -> &[Buffer] {
        &self.gradients
    }

    /// The parameters as they are now.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The optimiser, with its momentum.
    pub fn sgd(&self) -> &Sgd {
        &self.sgd
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.steps
    }
}
