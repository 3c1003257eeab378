//! Evaluation: loss and accuracy of a net on labelled images.

use super::TrainError;
use crate::data::{Images, Normalise, batch};
use crate::model::Model;
use crate::nn::{Mode, Net, Parameters};
use rectify_kernels::Isa;

/// Images in a batch of the evaluation. It changes no score, but the last bits of the loss, which is summed by batches.
const BATCH: usize = 100;

/// How well a net does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Mean cross-entropy.
    pub loss: f64,
    /// Images classified correctly.
    pub correct: usize,
    /// Images.
    pub images: usize,
}

impl Evaluation {
    /// Share of the images that is classified correctly; 0 without images.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.images.max(1) as f64
    }
}

/// A net planned for inference on any number of images.
pub struct Evaluator {
    model: Model,
    isa: Isa,
    full: Net,
    /// For what is left over after full batches: planned when first needed.
    rest: Option<Net>,
    pixels: Vec<f32>,
    labels: Vec<u32>,
}

impl Evaluator {
    /// Plans the net in the current rayon pool.
    ///
    /// # Errors
    /// A model that does not fit together.
    pub fn new(model: &Model, isa: Isa) -> Result<Evaluator, TrainError> {
        let full = Net::new(model, isa, BATCH, Mode::Inference)?;
        Ok(Evaluator { model: model.clone(), isa, full, rest: None, pixels: Vec::new(), labels: Vec::new() })
    }

    /// Loss and accuracy on all images.
    ///
    /// # Errors
    /// Images of another size than the net's, labels that are no class.
    pub fn run(
        &mut self,
        parameters: &Parameters,
        images: &Images,
        normalise: &Normalise,
    ) -> Result<Evaluation, TrainError> {
        super::fits(&self.model, images)?;
        let rest = images.len() % BATCH;
        if rest > 0 && self.rest.as_ref().is_none_or(|net| net.batch() != rest) {
            self.rest = Some(Net::new(&self.model, self.isa, rest, Mode::Inference)?);
        }
        for net in std::iter::once(&mut self.full).chain(&mut self.rest) {
            net.load(parameters)?;
        }
        let indices: Vec<u32> = (0..images.len() as u32).collect();
        let mut total = Evaluation { loss: 0.0, correct: 0, images: images.len() };
        for indices in indices.chunks(BATCH) {
            let net = if indices.len() == BATCH { Some(&mut self.full) } else { self.rest.as_mut() };
            let Some(net) = net else { continue };
            self.pixels.resize(indices.len() * images.image_len(), 0.0);
            self.labels.resize(indices.len(), 0);
            batch(images, indices, normalise, None, &mut self.pixels, &mut self.labels)?;
            net.forward(parameters, &self.pixels, 0)?;
            let sums = net.loss(&self.labels)?;
            total.loss += sums.loss;
            total.correct += sums.correct;
        }
        total.loss /= images.len().max(1) as f64;
        Ok(total)
    }
}
