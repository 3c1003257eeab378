//! Batches made while the step before runs.

use super::{Augment, DataError, Epoch, Images, Normalise, batch};
use std::time::{Duration, Instant};

/// Which images, in which order, of which epoch: what a batch depends on beside the seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Indices<'a> {
    /// The pass through the images.
    pub epoch: Epoch,
    /// Their numbers.
    pub images: &'a [u32],
}

/// Training images, batch by batch: normalised, augmented, one batch ahead of the step.
///
/// While a step runs, an idle thread of the current rayon pool makes the next batch, and no more than that one: memory
/// is bounded. What a batch holds depends on neither.
///
/// ```
/// use rectify::data::{self, Augment, Epoch, Feed, Indices, Normalise};
/// let data = data::load("shapes", 1)?;
/// let augment = Augment { flip: true, pad_crop: 2, ..Augment::default() };
/// let mut feed = Feed::new(&data.train, Normalise::of(&data.train)?, augment);
/// let epoch = Epoch { seed: 1, number: 0 };
/// let order = epoch.order(16);
/// let batch = |i: usize| Indices { epoch, images: &order[8 * i..8 * i + 8] };
/// let first = feed.step(batch(0), Some(batch(1)), |pixels, labels| (pixels.len(), labels.len()))?;
/// assert_eq!(first, (8 * 3 * 32 * 32, 8));
/// # Ok::<(), data::DataError>(())
/// ```
#[derive(Debug)]
pub struct Feed<'d> {
    images: &'d Images,
    normalise: Normalise,
    augment: Option<Augment>,
    now: Batch,
    next: Batch,
    waited: Duration,
}

/// A batch and what it was made of; nothing at first.
#[derive(Debug, Default)]
struct Batch {
    of: Option<(Epoch, Vec<u32>)>,
    pixels: Vec<f32>,
    labels: Vec<u32>,
}

impl Batch {
    fn is_of(&self, want: &Indices<'_>) -> bool {
        self.of.as_ref().is_some_and(|(epoch, images)| *epoch == want.epoch && images == want.images)
    }

    fn fill(
        &mut self,
        images: &Images,
        normalise: &Normalise,
        augment: Option<Augment>,
        want: &Indices<'_>,
    ) -> Result<(), DataError> {
        self.of = None;
        self.pixels.resize(want.images.len().saturating_mul(images.image_len()), 0.0);
        self.labels.resize(want.images.len(), 0);
        let augment = augment.map(|augment| (augment, want.epoch));
        batch(images, want.images, normalise, augment, &mut self.pixels, &mut self.labels)?;
        self.of = Some((want.epoch, want.images.to_vec()));
        Ok(())
    }
}

impl<'d> Feed<'d> {
    /// Nothing is made yet.
    pub fn new(images: &'d Images, normalise: Normalise, augment: Augment) -> Feed<'d> {
        let augment = (augment != Augment::default()).then_some(augment);
        Feed { images, normalise, augment, now: Batch::default(), next: Batch::default(), waited: Duration::ZERO }
    }

    /// Gives the pixels (NCHW) and labels of `now` to `step`, and has `then` made meanwhile, for the next call.
    ///
    /// # Errors
    /// As [`batch`]; of the next batch, too.
    pub fn step<R: Send>(
        &mut self,
        now: Indices<'_>,
        then: Option<Indices<'_>>,
        step: impl FnOnce(&[f32], &[u32]) -> R + Send,
    ) -> Result<R, DataError> {
        let start = Instant::now();
        std::mem::swap(&mut self.now, &mut self.next);
        let Feed { images, normalise, augment, now: current, next, .. } = self;
        if !current.is_of(&now) {
            current.fill(images, normalise, *augment, &now)?;
        }
        self.waited += start.elapsed();
        let ((result, end), made) = rayon::join(
            || (step(&current.pixels, &current.labels), Instant::now()),
            || then.map_or(Ok(()), |then| next.fill(images, normalise, *augment, &then)),
        );
        self.waited += end.elapsed();
        made.map(|()| result)
    }

    /// How long steps have waited for their batches since the last call.
    pub fn waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_those_that_are_asked_for_whatever_was_made_ahead() {
        let data = super::super::shapes::dataset(1).train;
        let normalise = Normalise::of(&data).unwrap();
        let augment = Augment { flip: true, pad_crop: 3, ..Augment::default() };
        let epochs = [0, 1].map(|number| Epoch { seed: 5, number });
        let order = epochs[0].order(40);
        let of = |i: usize| Indices { epoch: epochs[i / 4], images: &order[i % 4 * 10..][..10] };
        for threads in [1, 2, 5] {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                let mut feed = Feed::new(&data, normalise.clone(), augment);
                // What was announced, nothing, something else, the same batch twice.
                for (now, then) in [(0, Some(1)), (1, None), (2, Some(3)), (4, Some(4)), (4, Some(5)), (5, Some(1))] {
                    let (mut pixels, mut labels) = (vec![0.0; 10 * data.image_len()], vec![0; 10]);
                    let (epoch, indices) = (of(now).epoch, of(now).images);
                    batch(&data, indices, &normalise, Some((augment, epoch)), &mut pixels, &mut labels).unwrap();
                    let same = feed.step(of(now), then.map(of), |p, l| p == pixels && l == labels).unwrap();
                    assert!(same, "batch {now}");
                }
                assert!(feed.waited() > Duration::ZERO && feed.waited() == Duration::ZERO);
                let wrong = Indices { epoch: epochs[0], images: &[u32::MAX] };
                assert!(feed.step(of(0), Some(wrong), |_, _| ()).is_err());
                assert!(feed.step(of(0), None, |_, _| ()).is_ok());
            });
        }
    }
}
