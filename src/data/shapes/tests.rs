use super::*;

/// FNV-1a, 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

#[test]
fn seed_1_draws_the_same_bytes_everywhere() {
    assert_eq!(checksum(&draw(1, 0, 240).pixels), 2802055900990105690);
    assert_eq!(checksum(&draw(1, 1, 240).pixels), 11308343693006585441);
}

#[test]
fn pictures_do_not_depend_on_threads_or_on_each_other() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(5).build().unwrap();
    let all = pool.install(|| draw(3, 0, 100));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let some = pool.install(|| draw(3, 0, 37));
    assert_eq!(all.pixels[..some.pixels.len()], some.pixels);
    assert_ne!(all.image(0), draw(4, 0, 1).image(0));
    assert_ne!(all.image(0), draw(3, 1, 1).image(0));
}

#[test]
fn classes_are_balanced() {
    let data = dataset(1);
    let classes = data.classes.len();
    assert!(classes >= 10);
    for images in [&data.train, &data.test] {
        images.check().unwrap();
        for class in 0..classes as u32 {
            assert_eq!(images.labels.iter().filter(|&&l| l == class).count(), images.len() / classes);
        }
    }
}

/// Training and test accuracy of softmax regression on the pixels, by plain SGD.
fn linear_accuracy(data: &Dataset) -> (f64, f64) {
    let (classes, len) = (data.classes.len(), data.train.image_len());
    let values = |image: &[u8]| image.iter().map(|&p| f32::from(p) / 127.5 - 1.0).collect::<Vec<_>>();
    let mut weights = vec![0.0f32; classes * (len + 1)];
    let scores = |weights: &[f32], x: &[f32]| -> Vec<f32> {
        let row = |row: &[f32]| row[len] + row[..len].iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
        weights.chunks_exact(len + 1).map(row).collect()
    };
    for epoch in 0..12 {
        let rate = 0.002 / (1.0 + epoch as f32);
        for i in (crate::data::Epoch { seed: 1, number: epoch }).order(data.train.len() as u32) {
            let x = values(data.train.image(i as usize).unwrap());
            let mut p = scores(&weights, &x);
            let top = p.iter().copied().fold(f32::MIN, f32::max);
            p.iter_mut().for_each(|s| *s = libm::expf(*s - top));
            let total: f32 = p.iter().sum();
            for (class, row) in weights.chunks_exact_mut(len + 1).enumerate() {
                let target = f32::from(class as u32 == data.train.labels[i as usize]);
                let step = rate * (target - p[class] / total);
                row[len] += step;
                row[..len].iter_mut().zip(&x).for_each(|(w, x)| *w += step * x);
            }
        }
    }
    let accuracy = |images: &Images| {
        let right = |i: &usize| {
            let scores = scores(&weights, &values(images.image(*i).unwrap()));
            let best = (0..classes).max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
            best == Some(images.labels[*i] as usize)
        };
        (0..images.len()).filter(right).count() as f64 / images.len() as f64
    };
    (accuracy(&data.train), accuracy(&data.test))
}

#[test]
fn a_linear_classifier_fails() {
    let (train, test) = linear_accuracy(&dataset(1));
    assert!(test < 0.6, "{test}");
    // It did learn what it can: the training pictures, in part by heart.
    assert!(train > 0.25, "{train}");
}
