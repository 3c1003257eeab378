use super::*;

/// Twelve images of 2 channels, 5×4 pixels, all pixels different enough to be told apart.
fn images() -> Images {
    let pixels = (0..12 * 2 * 5 * 4).map(|i| (i * 37 % 251) as u8).collect();
    Images { c: 2, h: 5, w: 4, pixels, labels: (0..12).map(|i| i % 3).collect(), disk: None }
}

fn plain() -> Normalise {
    Normalise { mean: vec![0.0; 2], std: vec![1.0 / 255.0; 2] }
}

fn run(indices: &[u32], augment: Option<(Augment, Epoch)>) -> (Vec<f32>, Vec<u32>) {
    let (mut out, mut labels) = (vec![f32::NAN; indices.len() * 40], vec![9; indices.len()]);
    batch(&images(), indices, &plain(), augment, &mut out, &mut labels).unwrap();
    (out, labels)
}

#[test]
fn a_plain_batch_is_the_images() {
    let (out, labels) = run(&[3, 0, 3, 11], None);
    let images = images();
    for (i, index) in [3, 0, 3, 11].into_iter().enumerate() {
        let want: Vec<f32> = images.image(index).unwrap().iter().map(|&p| f32::from(p)).collect();
        let close = out[i * 40..][..40].iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-4);
        assert!(close, "image {index}");
        assert_eq!(labels[i], images.labels[index]);
    }
}

#[test]
fn normalised_images_have_mean_0_and_deviation_1() {
    let images = images();
    let norm = Normalise::of(&images).unwrap();
    let (mut out, mut labels) = (vec![0.0; 480], vec![0; 12]);
    let all: Vec<u32> = (0..12).collect();
    batch(&images, &all, &norm, None, &mut out, &mut labels).unwrap();
    for channel in 0..2 {
        let values: Vec<f64> =
            out.chunks(20).skip(channel).step_by(2).flatten().map(|&v| f64::from(v)).collect::<Vec<_>>();
        assert_eq!(values.len(), 240);
        let mean = values.iter().sum::<f64>() / 240.0;
        let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / 240.0;
        assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-6, "{mean} {variance}");
    }
}

#[test]
fn moments_of_known_pixels() {
    let pixels = vec![0, 255, 0, 255, 7, 7, 7, 7];
    let images = Images { c: 2, h: 2, w: 2, pixels, labels: vec![0], disk: None };
    let norm = Normalise::of(&images).unwrap();
    assert_eq!((norm.mean[0], norm.std[0]), (0.5, 0.5));
    assert_eq!((norm.mean[1], norm.std[1]), (7.0 / 255.0, 1.0));
    let none = Images { c: 3, h: 2, w: 2, pixels: vec![], labels: vec![], disk: None };
    assert_eq!(Normalise::of(&none).unwrap(), Normalise { mean: vec![0.0; 3], std: vec![1.0; 3] });
}

/// The image as augmentation with this flip and shift shows it.
fn view(image: &[u8], flip: bool, down: isize, right: isize) -> Vec<f32> {
    let pixel = |c: isize, y: isize, x: isize| {
        let x = if flip { 3 - x } else { x } + right;
        let inside = (0..5).contains(&(y + down)) && (0..4).contains(&x);
        if inside { f32::from(image[(c * 20 + (y + down) * 4 + x) as usize]) } else { 0.0 }
    };
    (0..40).map(|i| pixel(i / 20, i / 4 % 5, i % 4)).collect()
}

#[test]
fn augmentation_flips_and_shifts_within_bounds() {
    let images = images();
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..60 {
        let epoch = Epoch { seed: 5, number };
        let (out, _) = run(&[2], Some((Augment { flip: true, pad_crop: 1, ..Augment::default() }, epoch)));
        let out: Vec<f32> = out.iter().map(|v| v.round()).collect();
        let views =
            [false, true].into_iter().flat_map(|f| (-1..=1).flat_map(move |d| (-1..=1).map(move |r| (f, d, r))));
        let found: Vec<_> = views.filter(|&(f, d, r)| view(images.image(2).unwrap(), f, d, r) == out).collect();
        assert_eq!(found.len(), 1, "epoch {number}");
        seen.insert(found[0]);
    }
    assert_eq!(seen.len(), 18, "every view occurs");
}

#[test]
fn no_augmentation_is_the_plain_image() {
    let epoch = Epoch { seed: 1, number: 2 };
    let all: Vec<u32> = (0..12).collect();
    assert_eq!(run(&all, Some((Augment::default(), epoch))), run(&all, None));
}

#[test]
fn a_varied_image_depends_on_seed_epoch_and_index_alone() {
    let augment = Augment { flip: true, pad_crop: 3, ..Augment::default() };
    let at = |seed, number| Some((augment, Epoch { seed, number }));
    let all: Vec<u32> = (0..12).collect();
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let (out, _) = pool(5).install(|| run(&all, at(1, 0)));
    assert_eq!(pool(1).install(|| run(&all, at(1, 0))).0, out);
    let (two, _) = run(&[7, 4], at(1, 0));
    assert_eq!(two[..40], out[7 * 40..8 * 40]);
    assert_eq!(two[40..], out[4 * 40..5 * 40]);
    assert_ne!(run(&all, at(2, 0)).0, out);
    assert_ne!(run(&all, at(1, 1)).0, out);
}

#[test]
fn a_padding_wider_than_the_image_can_leave_nothing_of_it() {
    let epoch = Epoch { seed: 1, number: 0 };
    let (out, _) = run(&[1], Some((Augment { pad_crop: usize::MAX, ..Augment::default() }, epoch)));
    assert!(out.iter().all(|&v| v == 0.0));
}

#[test]
fn an_order_holds_every_sample_once() {
    let order = Epoch { seed: 1, number: 3 }.order(1000);
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..1000).collect::<Vec<u32>>());
    assert_ne!(order, sorted);
    assert_ne!(order, Epoch { seed: 1, number: 4 }.order(1000));
    assert_eq!(order, Epoch { seed: 1, number: 3 }.order(1000));
}

#[test]
fn what_does_not_fit_is_refused() {
    let refuse = |images: &Images, indices: &[u32], norm: &Normalise, out: usize, labels: usize| {
        batch(images, indices, norm, None, &mut vec![0.0; out], &mut vec![0; labels]).unwrap_err().to_string()
    };
    let (good, norm) = (images(), plain());
    assert_eq!(refuse(&good, &[1], &norm, 39, 1), "out has 39 elements, but 40 are needed");
    assert_eq!(refuse(&good, &[1], &norm, 40, 2), "labels has 2 elements, but 1 are needed");
    assert_eq!(refuse(&good, &[12], &norm, 40, 1), "sample 12 does not exist: there are 12");
    let short = Images { pixels: vec![0; 479], ..good.clone() };
    assert_eq!(refuse(&short, &[1], &norm, 40, 1), "pixels has 479 elements, but 480 are needed");
    let three = Normalise { mean: vec![0.0; 3], std: vec![1.0; 3] };
    assert_eq!(refuse(&good, &[1], &three, 40, 1), "mean has 3 elements, but 2 are needed");
    for (mean, std, want) in [
        (f32::NAN, 1.0, "mean of channel 1 is NaN: it must be finite"),
        (0.0, 0.0, "std of channel 1 is 0: it must be finite and positive"),
        (0.0, f32::INFINITY, "std of channel 1 is inf: it must be finite and positive"),
    ] {
        let norm = Normalise { mean: vec![0.0, mean], std: vec![1.0, std] };
        assert_eq!(refuse(&good, &[1], &norm, 40, 1), want);
    }
    let huge = Images { c: usize::MAX, h: usize::MAX, w: 2, pixels: vec![], labels: vec![0], disk: None };
    assert!(huge.check().is_err() && huge.image(1).is_none() && Normalise::of(&huge).is_err());
}
