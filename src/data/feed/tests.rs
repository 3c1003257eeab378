use super::*;
use crate::data::folder::load_within;
use crate::data::photos::{Broken, Photos};
use crate::data::{Dataset, shapes};
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use std::path::Path;

/// Ten photos to train on, no two alike.
fn folder() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for i in 0..12u32 {
        let (w, h) = (20 + i % 5, 18 + i % 3);
        let pixels: Vec<u8> = (0..3 * w * h).map(|p| (p.wrapping_mul(p) / 7 + i * p + 20 * i) as u8).collect();
        let class = home.path().join(if i < 10 { "train" } else { "test" }).join(["a", "b"][i as usize % 2]);
        std::fs::create_dir_all(&class).unwrap();
        let file = std::fs::File::create(class.join(format!("{i}.png"))).unwrap();
        PngEncoder::new(file).write_image(&pixels, w, h, ExtendedColorType::Rgb8).unwrap();
    }
    home
}

fn photos(home: &Path) -> Dataset {
    Photos::open(home, Broken::Fatal).unwrap().dataset((12, 12), 16).unwrap()
}

fn with_threads<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}

/// The batch of a step, made on its own.
fn alone(images: &Images, normalise: &Normalise, augment: Augment, order: &Order, step: u64) -> (Vec<f32>, Vec<u32>) {
    let (per_epoch, len) = ((images.len() / order.batch) as u64, order.batch);
    let epoch = Epoch { seed: order.seed, number: step / per_epoch };
    let all = if order.shuffle { epoch.order(images.len() as u32) } else { (0..images.len() as u32).collect() };
    let (mut pixels, mut labels) = (vec![0.0; len * images.image_len()], vec![0; len]);
    let indices = &all[(step % per_epoch) as usize * len..][..len];
    batch(images, indices, normalise, Some((augment, epoch)), &mut pixels, &mut labels).unwrap();
    (pixels, labels)
}

#[test]
fn batches_depend_on_neither_the_threads_nor_what_was_made_ahead() {
    let home = folder();
    let (held, files) = (load_within(home.path(), u64::MAX).unwrap(), load_within(home.path(), 0).unwrap());
    let shifted = Augment { flip: true, pad_crop: 3, ..Augment::default() };
    let jittered = Augment { flip: true, scale: Some([14, 24]), colour: 0.2, ..Augment::default() };
    for (data, augment) in [(&held, shifted), (&files, shifted), (&photos(home.path()), jittered)] {
        let images = &data.train;
        let normalise = Normalise::of(images).unwrap();
        for (shuffle, batch) in [(true, 3), (false, 3), (true, 10), (true, 1)] {
            let order = Order { seed: 5, batch, shuffle, steps: 8 };
            let want = [0, 1, 2, 3, 4, 5, 6, 7, 8].map(|step| alone(images, &normalise, augment, &order, step));
            for (threads, ahead) in [(1, 0), (2, 0), (1, 3), (2, 1), (2, AHEAD), (5, 7)] {
                with_threads(threads, || {
                    let mut feed = Feed::new(images, normalise.clone(), augment, order).unwrap();
                    feed.ahead = ahead;
                    // In order over the ends of epochs; one twice, some left out, back again, past the last.
                    for step in [0, 1, 2, 3, 3, 4, 6, 7, 2, 0, 8] {
                        let same = feed.step(step, |p, l| (p, l) == (&want[step as usize].0, &want[step as usize].1));
                        assert!(same.unwrap(), "step {step}, {threads} threads, {ahead} ahead");
                        let last = feed.queue.back().unwrap().step;
                        assert!(feed.queue.len() <= ahead + 1 && last <= step.max(7), "{last}");
                    }
                    assert!(feed.waited() > Duration::ZERO && feed.waited() == Duration::ZERO);
                });
            }
        }
    }
}

#[test]
fn the_queue_is_filled_until_the_step_ends_and_never_grows() {
    let data = shapes::dataset(1).train;
    let order = Order { seed: 1, batch: 10, shuffle: true, steps: 100 };
    with_threads(2, || {
        let mut feed = Feed::new(&data, Normalise::of(&data).unwrap(), Augment::default(), order).unwrap();
        let made = |feed: &Feed<'_>| feed.queue.iter().map(|batch| batch.made).collect::<Vec<usize>>();
        feed.line_up(0);
        feed.source.ahead(feed.queue.iter_mut(), &AtomicBool::new(true));
        assert_eq!(made(&feed), [0; AHEAD + 1]);
        feed.source.ahead(feed.queue.iter_mut(), &AtomicBool::new(false));
        assert_eq!(made(&feed), [10; AHEAD + 1]);
        let buffers = |feed: &Feed<'_>| feed.queue.iter().map(|b| b.pixels.as_ptr()).collect::<Vec<_>>();
        let before = buffers(&feed);
        for step in 1..40 {
            feed.step(step, |_, _| ()).unwrap();
            assert_eq!(feed.queue.len(), AHEAD + 1);
            assert!(buffers(&feed).iter().all(|b| before.contains(b)), "buffers are used again");
        }
    });
}

#[test]
fn an_image_that_cannot_be_read_is_an_error_of_its_own_step() {
    let home = folder();
    let data = photos(home.path());
    let order = Order { seed: 1, batch: 1, shuffle: false, steps: 10 };
    with_threads(2, || {
        let mut feed = Feed::new(&data.train, Normalise::of(&data.train).unwrap(), Augment::default(), order).unwrap();
        let path = match &data.train.disk {
            Some(crate::data::Disk::Photos(set)) => set.photos[2].path.clone(),
            _ => panic!("no photos"),
        };
        let aside = home.path().join("aside");
        std::fs::rename(&path, &aside).unwrap();
        let nothing = |_: &[f32], _: &[u32]| ();
        feed.step(0, nothing).unwrap();
        feed.step(1, nothing).unwrap();
        let e = feed.step(2, nothing).unwrap_err().to_string();
        assert!(e.contains(path.to_str().unwrap()), "{e}");
        std::fs::rename(&aside, &path).unwrap();
        feed.step(2, nothing).unwrap();
    });
}

#[test]
fn batches_that_cannot_be_made_are_refused() {
    let data = shapes::dataset(1).train;
    for batch in [0, data.len() + 1, usize::MAX] {
        let order = Order { seed: 1, batch, shuffle: true, steps: 1 };
        let feed = Feed::new(&data, Normalise::of(&data).unwrap(), Augment::default(), order);
        assert!(matches!(feed, Err(DataError::Batch { .. })), "{batch}");
    }
    let order = Order { seed: 1, batch: 1, shuffle: true, steps: 0 };
    let mut feed = Feed::new(&data, Normalise::of(&data).unwrap(), Augment::default(), order).unwrap();
    feed.step(u64::MAX, |_, labels| assert_eq!(labels.len(), 1)).unwrap();
    let short = Images { labels: vec![0; 3], ..data.clone() };
    assert!(Feed::new(&short, Normalise::of(&data).unwrap(), Augment::default(), order).is_err());
}
