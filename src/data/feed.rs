//! Batches made ahead of the steps that train on them.

use super::{Augment, DataError, Epoch, Images, Normalise, batch};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Batches that are made ahead of the step that runs. One would do if all took equally long; a few even out photos of
/// different sizes, and the first batch of an epoch. Together with the step's own they bound the memory: `AHEAD + 1`
/// batches of `f32`, and one decoded picture a thread.
pub const AHEAD: usize = 3;

/// Which images the steps of a run take: step `i` the next `batch` in the order of epoch `i / steps_an_epoch`; what is
/// left over at the end of an epoch is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Seed of the run.
    pub seed: u64,
    /// Images a step.
    pub batch: usize,
    /// Whether each epoch has a random order of its own, see [`Epoch::order`]; else that of the data set.
    pub shuffle: bool,
    /// Steps of the whole run: no batch behind the last is made ahead.
    pub steps: u64,
}

/// Training images, batch by batch: normalised, augmented, ahead of the step.
///
/// While a step runs, idle threads of the current rayon pool read, decode, resize and vary the images of the next
/// [`AHEAD`] batches. When the step ends they finish the image, or the small batch, that they are at, no more. What a
/// batch holds depends on the number of its step alone: neither on the threads nor on what was made ahead.
///
/// ```
/// use rectify::data::{self, Augment, Feed, Normalise, Order};
/// let data = data::load("shapes", 1)?;
/// let augment = Augment { flip: true, pad_crop: 2, ..Augment::default() };
/// let order = Order { seed: 1, batch: 8, shuffle: true, steps: 2 };
/// let mut feed = Feed::new(&data.train, Normalise::of(&data.train)?, augment, order)?;
/// for step in 0..2 {
///     let lens = feed.step(step, |pixels, labels| (pixels.len(), labels.len()))?;
///     assert_eq!(lens, (8 * 3 * 32 * 32, 8));
/// }
/// # Ok::<(), data::DataError>(())
/// ```
#[derive(Debug)]
pub struct Feed<'d> {
    source: Source<'d>,
    order: Order,
    ahead: usize,
    /// The order of an epoch, of the one last asked for.
    epoch: Option<(u64, Vec<u32>)>,
    /// Batches of consecutive steps, the one that runs first.
    queue: VecDeque<Batch>,
    waited: Duration,
}

/// What batches are made of.
#[derive(Debug)]
struct Source<'d> {
    images: &'d Images,
    normalise: Normalise,
    augment: Option<Augment>,
}

/// A batch, of which the first `made` images are there.
#[derive(Debug)]
struct Batch {
    step: u64,
    epoch: Epoch,
    indices: Vec<u32>,
    pixels: Vec<f32>,
    labels: Vec<u32>,
    made: usize,
}

impl Source<'_> {
    /// Makes the next `count` images of a batch, at most those that lack.
    fn make(&self, to: &mut Batch, count: usize) -> Result<(), DataError> {
        let end = to.made.saturating_add(count).min(to.indices.len());
        if to.made == end {
            return Ok(());
        }
        let (part, len) = (to.made..end, self.images.image_len());
        let pixels = &mut to.pixels[part.start * len..part.end * len];
        let varied = self.augment.map(|augment| (augment, to.epoch));
        batch(self.images, &to.indices[part.clone()], &self.normalise, varied, pixels, &mut to.labels[part])?;
        to.made = end;
        Ok(())
    }

    /// Makes batches one after the other until the step has ended. One that cannot be made is left as it is: its own
    /// step tries again, and says why.
    fn ahead<'b>(&self, batches: impl Iterator<Item = &'b mut Batch>, ended: &AtomicBool) {
        // A step ends whenever it does: large images are made by as many as there are threads, which is soon done.
        let at_once = if self.images.in_memory() { usize::MAX } else { rayon::current_num_threads() };
        for batch in batches {
            while batch.made < batch.indices.len() {
                if ended.load(Ordering::Relaxed) || self.make(batch, at_once).is_err() {
                    return;
                }
            }
        }
    }
}

impl<'d> Feed<'d> {
    /// Nothing is made yet.
    ///
    /// # Errors
    /// [`DataError::Batch`]: no image a batch, more than there are, or more than 2³² − 1 in all; as [`Images::check`].
    pub fn new(
        images: &'d Images,
        normalise: Normalise,
        augment: Augment,
        order: Order,
    ) -> Result<Feed<'d>, DataError> {
        images.check()?;
        if !(1..=images.len()).contains(&order.batch) || u32::try_from(images.len()).is_err() {
            return Err(DataError::Batch { batch: order.batch, images: images.len() });
        }
        let augment = (augment != Augment::default()).then_some(augment);
        let source = Source { images, normalise, augment };
        let (queue, waited) = (VecDeque::new(), Duration::ZERO);
        Ok(Feed { source, order, ahead: AHEAD, epoch: None, queue, waited })
    }

    /// Steps in an epoch: full batches alone.
    pub fn steps_per_epoch(&self) -> usize {
        self.source.images.len() / self.order.batch
    }

    /// Which images a step takes.
    fn indices(&mut self, step: u64) -> (Epoch, Vec<u32>) {
        let (per_epoch, len) = (self.steps_per_epoch() as u64, self.source.images.len() as u32);
        let epoch = Epoch { seed: self.order.seed, number: step / per_epoch };
        if self.epoch.as_ref().is_none_or(|(number, _)| *number != epoch.number) {
            let order = if self.order.shuffle { epoch.order(len) } else { (0..len).collect() };
            self.epoch = Some((epoch.number, order));
        }
        let start = (step % per_epoch) as usize * self.order.batch;
        let order = self.epoch.iter().flat_map(|(_, order)| &order[start..][..self.order.batch]);
        (epoch, order.copied().collect())
    }

    /// Has the queue begin with this step and go on with those behind it.
    fn line_up(&mut self, step: u64) {
        let mut free = Vec::new();
        while self.queue.front().is_some_and(|batch| batch.step != step) {
            free.extend(self.queue.pop_front());
        }
        let last = step.saturating_add(self.ahead as u64).min(self.order.steps.saturating_sub(1)).max(step);
        for step in step + self.queue.len() as u64..=last {
            let (epoch, indices) = self.indices(step);
            let (mut pixels, mut labels) = free.pop().map_or_else(Default::default, |b: Batch| (b.pixels, b.labels));
            pixels.resize(indices.len().saturating_mul(self.source.images.image_len()), 0.0);
            labels.resize(indices.len(), 0);
            self.queue.push_back(Batch { step, epoch, indices, pixels, labels, made: 0 });
        }
    }

    /// Gives the pixels (NCHW) and labels of step number `number`, from 0, to `step`, and has the next batches made
    /// meanwhile.
    ///
    /// # Errors
    /// As [`batch`]; of this step's batch alone.
    pub fn step<R: Send>(
        &mut self,
        number: u64,
        step: impl FnOnce(&[f32], &[u32]) -> R + Send,
    ) -> Result<R, DataError> {
        let start = Instant::now();
        self.line_up(number);
        let Feed { source, queue, waited, .. } = self;
        let mut batches = queue.iter_mut();
        let Some(now) = batches.next() else { return Err(DataError::Batch { batch: 0, images: source.images.len() }) };
        source.make(now, usize::MAX)?;
        *waited += start.elapsed();
        let ended = AtomicBool::new(false);
        let ((result, end), ()) = rayon::join(
            || {
                let result = step(&now.pixels, &now.labels);
                ended.store(true, Ordering::Relaxed);
                (result, Instant::now())
            },
            || source.ahead(batches, &ended),
        );
        *waited += end.elapsed();
        Ok(result)
    }

    /// How long steps have waited for their batches since the last call.
    pub fn waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }
}

#[cfg(test)]
mod tests;
