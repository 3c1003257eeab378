use super::*;
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use std::fs;

fn put(home: &Path, name: &str, bytes: &[u8]) {
    let path = home.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn png(pixel: impl Fn(u32, u32) -> [u8; 3], w: u32, h: u32) -> Vec<u8> {
    let pixels: Vec<u8> = (0..h).flat_map(|y| (0..w).map(move |x| (y, x))).flat_map(|(y, x)| pixel(y, x)).collect();
    let mut out = Vec::new();
    PngEncoder::new(&mut out).write_image(&pixels, w, h, ExtendedColorType::Rgb8).unwrap();
    out
}

/// Two classes; each photo of its own size, and no pixel like another.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for (i, (name, w, h)) in (0..).zip([
        ("train/n01/n01_1.JPEG.png", 30, 20),
        ("train/n01/n01_2.png", 16, 40),
        ("train/n02/n02_1.png", 25, 25),
        ("val/n01/1.png", 20, 21),
        ("val/n02/1.png", 33, 17),
    ]) {
        put(home.path(), name, &png(|y, x| [7 * x as u8, 6 * y as u8, (3 * (x + y) + 40 * i) as u8], w, h));
    }
    home
}

fn jitter() -> Jitter {
    Jitter { scale: [16, 30], flip: true, colour: 0.1 }
}

const SIZE: (usize, usize) = (14, 12);
const LEN: usize = 3 * 14 * 12;

fn batch(photos: &Photos, indices: &[u32], sight: Sight<'_>) -> Vec<f32> {
    let (mut out, mut labels) = (vec![f32::NAN; indices.len() * LEN], vec![9; indices.len()]);
    photo_batch(&photos.train, indices, SIZE, &photos.normalise, sight, &mut out, &mut labels).unwrap();
    assert!(labels.iter().zip(indices).all(|(&label, &i)| label == photos.train[i as usize].label));
    out
}

#[test]
fn a_set_is_listed_and_its_moments_are_those_of_all_training_pixels() {
    let home = home();
    let photos = Photos::open(home.path(), Broken::Fatal).unwrap();
    assert_eq!((photos.train.len(), photos.test.len(), photos.skipped.len()), (3, 2, 0));
    assert_eq!((&photos.classes[..], photos.train[2].label), (&["n01".to_string(), "n02".into()][..], 1));
    let pictures: Vec<Picture> = photos.train.iter().map(|p| p.open().unwrap()).collect();
    let pixels: Vec<[f64; 3]> = pictures
        .iter()
        .flat_map(|p| p.rgb.as_chunks::<3>().0.iter().map(|p| p.map(|v| f64::from(v) / 255.0)))
        .collect();
    let n = pixels.len() as f64;
    assert_eq!(pixels.len(), 600 + 640 + 625);
    let mean = [0, 1, 2].map(|i| pixels.iter().map(|p| p[i]).sum::<f64>() / n);
    let covariance = |i: usize, j: usize| pixels.iter().map(|p| (p[i] - mean[i]) * (p[j] - mean[j])).sum::<f64>() / n;
    for (i, mean) in mean.iter().enumerate() {
        assert!((f64::from(photos.normalise.mean[i]) - mean).abs() < 1e-7);
        assert!((f64::from(photos.normalise.std[i]) - covariance(i, i).sqrt()).abs() < 1e-7);
    }
    // The components put the covariance together again.
    let c = photos.colours;
    for (i, j) in [(0, 0), (0, 1), (1, 2), (2, 2)] {
        let again: f64 = (0..3).map(|k| c.variances[k] * c.axes[k][i] * c.axes[k][j]).sum();
        assert!((again - covariance(i, j)).abs() < 1e-12, "{i}, {j}");
    }
}

#[test]
fn broken_files_are_fatal_or_named_counted_and_left_out() {
    let home = home();
    let good = Photos::open(home.path(), Broken::Fatal).unwrap();
    put(home.path(), "train/n01/n01_0.jpg", b"not a picture");
    put(home.path(), "train/n02/n02_9.png", &png(|_, _| [0; 3], 9, 9)[..50]);
    put(home.path(), "val/n02/0.JPEG", b"");
    let error = Photos::open(home.path(), Broken::Fatal).unwrap_err().to_string();
    assert!(error.contains("n01_0.jpg: neither a JPEG nor a PNG"), "{error}");
    let photos = Photos::open(home.path(), Broken::Skip).unwrap();
    assert_eq!((photos.train.clone(), photos.test.clone()), (good.train, good.test));
    assert_eq!((&photos.normalise, photos.colours), (&good.normalise, good.colours));
    let names: Vec<String> = photos.skipped.iter().map(|e| e.to_string()).collect();
    for (error, part) in names.iter().zip(["n01_0.jpg: neither", "n02_9.png: cannot decode", "0.JPEG: neither"]) {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(names.len(), 3);
    fs::remove_file(home.path().join("val/n02/1.png")).unwrap();
    let error = Photos::open(home.path(), Broken::Skip).unwrap_err().to_string();
    assert!(error.contains("n02: holds no image that can be decoded"), "{error}");
}

#[test]
fn the_middle_is_the_middle_of_the_scaled_photo() {
    let home = home();
    let photos = Photos::open(home.path(), Broken::Fatal).unwrap();
    // At its own scale nothing is stretched.
    let out = batch(&photos, &[0], Sight::Middle(20));
    let (tables, picture) = (photos.normalise.tables(3, [0.0; 3]).unwrap(), photos.train[0].open().unwrap());
    for (at, got) in out.iter().enumerate() {
        let (channel, y, x) = (at / 168, at % 168 / 12, at % 12);
        let level = picture.rgb[3 * ((3 + y) * 30 + 9 + x) + channel];
        assert_eq!(*got, tables[channel][usize::from(level)], "{channel} {y} {x}");
    }
    let sizes = |shorter| -> Vec<(usize, usize)> {
        let scaled = |p: &Photo| scaled(p.open().unwrap(), shorter, &p.path).unwrap();
        photos.train.iter().map(scaled).map(|p| (p.h, p.w)).collect()
    };
    assert_eq!(sizes(40), [(40, 60), (100, 40), (40, 40)]);
    // 30·17/20 = 25.5, 40·17/16 = 42.5.
    assert_eq!(sizes(17), [(17, 26), (43, 17), (17, 17)]);
}

#[test]
fn variations_cover_what_they_may_and_depend_on_neither_batch_nor_threads() {
    let home = home();
    let photos = Photos::open(home.path(), Broken::Fatal).unwrap();
    let varied = |jitter, number| Sight::Varied(jitter, &photos.colours, Epoch { seed: 3, number });
    let whole = batch(&photos, &[2, 0, 1, 0], varied(jitter(), 7));
    for (i, &index) in [2, 0, 1, 0].iter().enumerate() {
        assert_eq!(batch(&photos, &[index], varied(jitter(), 7)), whole[i * LEN..(i + 1) * LEN]);
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    assert_eq!(pool.install(|| batch(&photos, &[2, 0, 1, 0], varied(jitter(), 7))), whole);
    assert_ne!(batch(&photos, &[2, 0, 1, 0], varied(jitter(), 8)), whole);

    let draws: Vec<Draw> =
        (0..4000).map(|number| Draw::new(&jitter(), &photos.colours, Epoch { seed: 1, number }, 5)).collect();
    let (low, high) = (draws.iter().map(|d| d.shorter).min(), draws.iter().map(|d| d.shorter).max());
    assert_eq!((low, high), (Some(16), Some(30)));
    for length in 16..=30 {
        // 4000/15 draws each, give or take five deviations.
        let count = draws.iter().filter(|d| d.shorter == length).count();
        assert!((190..345).contains(&count), "{length}: {count}");
    }
    let flips = draws.iter().filter(|d| d.flip).count();
    assert!((1840..2160).contains(&flips), "{flips}");
    // α of the first component: its shift along the axis, through λ; mean 0 and deviation 0.1.
    let c = photos.colours;
    let along = |d: &Draw| (0..3).map(|i| d.shift[i] * c.axes[0][i]).sum::<f64>() / c.variances[0];
    let square = draws.iter().map(along).map(|a| a * a).sum::<f64>() / 4000.0;
    assert!((square / 0.01 - 1.0).abs() < 5.0 * (2.0f64 / 4000.0).sqrt(), "{square}");

    // Without colours, flips and scales a variation is a crop: each place of 7×19 comes up, here, and no other.
    let plain = Jitter { scale: [20, 20], flip: false, colour: 0.0 };
    let (tables, picture) = (photos.normalise.tables(3, [0.0; 3]).unwrap(), photos.train[0].open().unwrap());
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..1200 {
        let out = batch(&photos, &[0], varied(plain, number));
        let place = (0..7).flat_map(|top| (0..19).map(move |left| (top, left))).find(|&(top, left)| {
            let mut want = vec![0.0; LEN];
            Window { picture: &picture, top, left, flip: false, tables: &tables }.copy(SIZE, &mut want);
            want == out
        });
        seen.insert(place.unwrap_or_else(|| panic!("{number}: no crop")));
    }
    assert_eq!(seen.len(), 7 * 19);
    let mirrored = batch(&photos, &[0], varied(Jitter { flip: true, ..plain }, 2));
    let straight = batch(&photos, &[0], varied(plain, 2));
    let back: Vec<f32> = mirrored.chunks(12).flat_map(|row| row.iter().rev().copied()).collect();
    assert!(mirrored == straight || back == straight);
}

#[test]
fn colours_are_shifted_before_they_are_normalised() {
    let home = home();
    let photos = Photos::open(home.path(), Broken::Fatal).unwrap();
    let epoch = Epoch { seed: 3, number: 0 };
    let plain = Jitter { scale: [20, 20], flip: false, colour: 0.0 };
    let coloured = Jitter { colour: 1.0, ..plain };
    let shift = Draw::new(&coloured, &photos.colours, epoch, 1).shift;
    let before = batch(&photos, &[1], Sight::Varied(plain, &photos.colours, epoch));
    let after = batch(&photos, &[1], Sight::Varied(coloured, &photos.colours, epoch));
    for (i, (before, after)) in before.iter().zip(&after).enumerate() {
        let want = shift[i / 168] / f64::from(photos.normalise.std[i / 168]);
        assert!((f64::from(after - before) - want).abs() < 1e-5 && want.abs() > 1e-3, "{i}");
    }
}

#[test]
fn a_data_set_of_photos_gives_batches_like_any_other() {
    use crate::data::{Augment, batch as any};
    let home = home();
    let photos = Photos::open(home.path(), Broken::Fatal).unwrap();
    let epoch = Epoch { seed: 3, number: 7 };
    let varied = batch(&photos, &[2, 0], Sight::Varied(jitter(), &photos.colours, epoch));
    let middle = batch(&photos, &[2, 0], Sight::Middle(17));
    let small = Photos::open(home.path(), Broken::Fatal).unwrap().dataset((20, 3), 19).unwrap_err().to_string();
    assert!(small.contains("scale = 19 to 19: it must be rising, and at least the crop's 20"), "{small}");
    let data = photos.dataset(SIZE, 17).unwrap();
    assert_eq!((data.train.len(), data.test.len(), data.train.image_len()), (3, 2, LEN));
    assert_eq!((data.train.check().is_ok(), data.train.image(0)), (true, None));
    let norm = Normalise::of(&data.train).unwrap();
    let get = |augment| {
        let (mut out, mut labels) = (vec![f32::NAN; 2 * LEN], vec![9; 2]);
        any(&data.train, &[2, 0], &norm, augment, &mut out, &mut labels).unwrap();
        assert_eq!(labels, [1, 0]);
        out
    };
    let augment = Augment { flip: true, scale: Some([16, 30]), colour: 0.1, ..Augment::default() };
    assert_eq!(get(Some((augment, epoch))), varied);
    assert_eq!(get(None), middle);
    let short = Images { labels: vec![0], ..data.train };
    assert!(short.check().is_err());
}

#[test]
fn what_does_not_fit_is_refused() {
    let home = home();
    let photos = Photos::open(home.path(), Broken::Fatal).unwrap();
    let refusal = |indices: &[u32], scale, len| {
        let sight = Sight::Varied(Jitter { scale, ..jitter() }, &photos.colours, Epoch { seed: 1, number: 1 });
        let (mut out, mut labels) = (vec![0.0; len], vec![0; 1]);
        let done = photo_batch(&photos.train, indices, SIZE, &photos.normalise, sight, &mut out, &mut labels);
        done.unwrap_err().to_string()
    };
    assert!(refusal(&[3], [16, 30], LEN).contains("sample 3 does not exist"));
    assert!(refusal(&[0], [16, 30], LEN - 1).contains("out has 503 elements"));
    assert!(refusal(&[0], [13, 30], LEN).contains("scale = 13 to 30"));
    assert!(refusal(&[0], [30, 16], LEN).contains("scale = 30 to 16"));
    fs::write(&photos.train[0].path, b"").unwrap();
    assert!(refusal(&[0], [16, 30], LEN).contains("n01_1.JPEG.png: neither"));
}
