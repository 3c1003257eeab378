//! Rounds: a batch whose first tensors are larger than the caches goes through the first layers a few images at a time.
//!
//! Layer by layer the whole batch would send every such tensor to memory and fetch it again. No bit depends on it, for
//! none depends on the batch.

use super::plan::Step;
use crate::model::Model;
use rectify_kernels::Dims;

/// Bytes of what a step reads and writes that stay in the third cache until the next step.
pub(super) const NEAR: usize = 16 << 20;

/// The first `steps` steps run on `images` images at a time, which divide the batch; the others run on all at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rounds {
    pub steps: usize,
    pub images: usize,
}

impl Rounds {
    /// A single round of everything.
    pub fn one(steps: &[Step], batch: usize) -> Rounds {
        Rounds { steps: steps.len(), images: batch }
    }

    /// As many images a round as keep the largest tensors within `near` bytes. The rounds end with the last step that
    /// would not keep within them with the whole batch, but before one whose weights, which every round reads, are more
    /// than its tensors. `dims` are those of the batch.
    pub fn new(model: &Model, steps: &[Step], dims: &[Dims], near: usize) -> Rounds {
        let batch = dims[0].n;
        // Of one image.
        let bytes = |s: &Step| {
            let tensors = [Some(s.from), s.add, Some(s.to)].into_iter().flatten();
            let len = tensors.map(|t| Dims { n: 1, ..dims[t] }.blocked_len()).fold(0, usize::saturating_add);
            len.saturating_mul(size_of::<f32>())
        };
        let most = steps.iter().map(bytes).max().unwrap_or(0);
        // Whoever asks for a batch beyond all memory must be refused soon.
        let images = (1..=batch.min(near / most.max(1))).rev().find(|&n| batch.is_multiple_of(n)).unwrap_or(1);
        // Winograd packs into four times as many.
        let weights = |s: &Step| {
            let dims = model.layers[s.layer].op.weights(dims[s.from]);
            dims.into_iter().fold(4 * size_of::<f32>(), usize::saturating_mul)
        };
        let is_heavy = |s: &Step| weights(s) > bytes(s).saturating_mul(images);
        let light = steps.iter().position(is_heavy).unwrap_or(steps.len());
        match steps[..light].iter().rposition(|s| batch.saturating_mul(bytes(s)) > near) {
            Some(last) => Rounds { steps: last + 1, images },
            None => Rounds::one(steps, batch),
        }
    }

    /// Which tensors are there for the whole batch: those that a step behind the rounds reads or writes, and the
    /// scores.
    pub fn whole(&self, steps: &[Step], dims: &[Dims]) -> Vec<bool> {
        let mut whole = vec![false; dims.len()];
        for step in &steps[self.steps..] {
            [Some(step.from), step.add, Some(step.to)].into_iter().flatten().for_each(|tensor| whole[tensor] = true);
        }
        steps.last().into_iter().for_each(|last| whole[last.to] = true);
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::folded;
    use super::*;

    /// Steps, and images a round, of a built-in net.
    fn rounds(name: &str, batch: usize, near: usize) -> (Rounds, Vec<String>) {
        let model = Model::built_in(name).unwrap();
        let steps = folded(&model).unwrap();
        let found = Rounds::new(&model, &steps, &model.dims(batch).unwrap(), near);
        let names = steps[..found.steps].iter().map(|s| model.layers[s.layer].name.clone());
        (found, names.collect())
    }

    #[test]
    fn rounds_keep_within_the_cache_and_end_where_weights_are_more_than_tensors() {
        let image = 2 * 64 * 112 * 112 * 4;
        for (batch, near, images, last) in [
            (16, NEAR, 2, "layer2.0.conv2"),
            (16, 4 * image, 4, "layer2.0.conv2"),
            (6, 4 * image, 3, "layer1.0.conv2"),
            (5, 4 * image, 1, "layer1.0.conv1"),
        ] {
            let (found, names) = rounds("iresnet18", batch, near);
            assert_eq!((found.images, names.last().unwrap().as_str()), (images, last));
        }
        // Not even one image does.
        assert_eq!(rounds("iresnet18", 4, image - 1).0.images, 1);
        // As soon as of any other batch.
        assert_eq!(rounds("iresnet18", 1 << 36, NEAR).0.images, 2);
        // What the batch keeps there needs no rounds.
        for (batch, near) in [(1, NEAR), (4, 4 * image)] {
            let (found, names) = rounds("iresnet18", batch, near);
            assert_eq!((found.images, names.len()), (batch, 22));
        }
    }
}
