use super::picture::tests::png;
use super::*;
use image::ExtendedColorType::{L8, La8, Rgb8};

const JPEG: &[u8] = include_bytes!("picture/colour.jpg");

/// A folder with `train/a`, `train/b`, `test/a`, `test/b`, each with an image `1.png` of 3×2 grey pixels of one value.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for (value, class) in (1..).zip(["train/a", "train/b", "test/a", "test/b"]) {
        put(home.path(), &format!("{class}/1.png"), &flat(value));
    }
    home
}

/// A grey picture, 3 wide and 2 high, of one value.
fn flat(value: u8) -> Vec<u8> {
    png(&[value; 6], 3, 2, L8)
}

/// Bytes that differ from each other.
fn noise(len: u32) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(i) >> 3) as u8).collect()
}

fn put(home: &Path, name: &str, bytes: &[u8]) {
    let path = home.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn refusal(home: &Path) -> String {
    load(home).unwrap_err().to_string()
}

#[test]
fn classes_and_files_are_sorted_and_other_files_passed_over() {
    let home = home();
    for (name, value) in [("B/2.PNG", 20), ("B/10.pNg", 10), ("a/0.Png", 30), ("a/ä.png", 40)] {
        put(home.path(), &format!("train/{name}"), &flat(value));
    }
    put(home.path(), "test/B/x.png", &flat(50));
    for name in ["train/list.txt", "train/a/labels.csv", "train/a/1.png.txt", "train/a/.2.png", "train/.c/1.png"] {
        put(home.path(), name, b"not an image");
    }
    put(home.path(), "train/a/deep.png/1.png", b"not an image");
    put(home.path(), "test/.hidden/1.png", b"not an image");
    put(home.path(), "val/other/1.png", b"not an image");
    let data = load(home.path()).unwrap();
    assert_eq!(data.classes, ["B", "a", "b"]);
    assert_eq!((data.train.c, data.train.h, data.train.w), (1, 2, 3));
    let firsts = |images: &Images| images.pixels.iter().step_by(6).copied().collect::<Vec<u8>>();
    assert_eq!((firsts(&data.train), &data.train.labels[..]), (vec![10, 20, 30, 1, 40, 2], &[0, 0, 1, 1, 1, 2][..]));
    assert_eq!((firsts(&data.test), &data.test.labels[..]), (vec![50, 3, 4], &[0, 1, 2][..]));
}

#[test]
fn val_takes_the_place_of_test() {
    let home = home();
    fs::rename(home.path().join("test"), home.path().join("val")).unwrap();
    assert_eq!(load(home.path()).unwrap().test.pixels, [[3; 6], [4; 6]].concat());
}

#[test]
fn one_coloured_file_makes_three_channels() {
    let home = home();
    // Grey with transparency is grey.
    put(home.path(), "test/b/1.png", &png(&[9; 12], 3, 2, La8));
    assert_eq!(load(home.path()).unwrap().train.c, 1);
    let colour: Vec<u8> = (0..18).collect();
    put(home.path(), "test/b/1.png", &png(&colour, 3, 2, Rgb8));
    let data = load(home.path()).unwrap();
    assert_eq!((data.train.c, data.test.c), (3, 3));
    assert_eq!(data.train.pixels, [[1; 18], [2; 18]].concat());
    let planes = [0, 3, 6, 9, 12, 15, 1, 4, 7, 10, 13, 16, 2, 5, 8, 11, 14, 17];
    assert_eq!(data.test.pixels, [[3; 18], planes].concat());
}

#[test]
fn a_jpeg_is_planes_too() {
    let home = home();
    put(home.path(), "train/a/0.JPEG", JPEG);
    let data = load(home.path()).unwrap();
    assert_eq!((data.train.c, data.train.h, data.train.w), (3, 18, 20));
    let rgb = include_bytes!("picture/colour.rgb");
    let planes: Vec<u8> = (0..3).flat_map(|c| rgb.iter().skip(c).step_by(3).copied()).collect();
    assert_eq!(data.train.image(0), Some(&planes[..]));
}

#[test]
fn another_size_is_stretched_to_the_first_images() {
    let home = home();
    // Two columns: the left 0, the right 240.
    put(home.path(), "train/b/1.png", &png(&[0, 240, 0, 240], 2, 2, L8));
    // 6×4 in blocks of 2×2.
    let blocks: Vec<u8> = (0..24).map(|i| [10, 20, 30, 40, 50, 60][i / 12 * 3 + i % 6 / 2]).collect();
    put(home.path(), "test/b/1.png", &png(&blocks, 6, 4, L8));
    let data = load(home.path()).unwrap();
    assert_eq!(data.train.image(1), Some(&[0, 120, 240, 0, 120, 240][..]));
    // Along a line a pixel takes its two with the weight 3/4 and those beside them with 1/4, but for what is outside:
    // at the corner (6·10 + 40)/7 = 14.3 and (6·20 + 50)/7 = 24.3 from the columns, from them (6·14.3 + 24.3)/7 = 15.7.
    assert_eq!(data.test.image(1), Some(&[16, 24, 33, 37, 46, 54][..]));
}

#[test]
fn the_threads_do_not_show() {
    let home = home();
    for i in 0..40 {
        let w = 5 + i % 3;
        put(home.path(), &format!("train/a/{i:02}.png"), &png(&noise(15 * w + i)[i as usize..], w, 5, Rgb8));
    }
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| load(home.path()))
    };
    let one = with(1).unwrap();
    assert_eq!(one.train.len(), 42);
    assert_eq!(with(5).unwrap(), one);
    // Nor in the failure, the first by name: while a thread is busy before it, another is in the second half at once.
    put(home.path(), "train/a/01.png", &png(&noise(1 << 18), 256, 1024, L8));
    for i in 19..40 {
        put(home.path(), &format!("train/a/{i}.png"), b"broken");
    }
    for threads in [1, 2, 2, 2, 5] {
        let error = with(threads).unwrap_err().to_string();
        assert!(error.ends_with("19.png: neither a JPEG nor a PNG"), "{error}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let refused = |change: &dyn Fn(&Path), part: &str| {
        let home = home();
        change(home.path());
        let error = refusal(home.path());
        let inside = error.strip_prefix(home.path().to_str().unwrap()).unwrap_or(&error);
        assert!(inside.starts_with(part), "{inside}, not {part}");
    };
    let remove = |name: &'static str| move |home: &Path| fs::remove_dir_all(home.join(name)).unwrap();
    refused(&remove("test"), ": holds neither a folder `test` nor `val`");
    refused(&remove("train"), ": holds no folder `train`");
    refused(&remove("test/b"), "/test: holds no folder \"b\", but ");
    refused(&remove("train/a"), "/train: holds no folder \"a\", but ");
    refused(&|home| fs::remove_file(home.join("train/b/1.png")).unwrap(), "/train/b: holds no image (*.jpg, ");
    let empty = |home: &Path| {
        fs::remove_dir_all(home.join("train")).unwrap();
        fs::create_dir(home.join("train")).unwrap();
    };
    refused(&empty, "/train: holds no folder of a class");
    let home = home();
    fs::remove_dir_all(home.path().join("train")).unwrap();
    fs::write(home.path().join("train"), "").unwrap();
    let error = refusal(home.path());
    assert!(error.starts_with("cannot read ") && error.contains("/train: "), "{error}");
}

#[test]
fn a_damaged_image_is_named() {
    for name in ["train/a/1.png", "train/b/1.png", "test/b/1.png"] {
        let home = home();
        put(home.path(), name, &JPEG[..JPEG.len() - 1]);
        assert!(
            refusal(home.path()).ends_with(&format!("{name}: cannot decode: it ends before the end of its picture"))
        );
    }
}

#[cfg(unix)]
#[test]
fn links_are_followed() {
    use std::os::unix::fs::symlink;
    let home = home();
    symlink(home.path().join("train/a"), home.path().join("train/c")).unwrap();
    symlink(home.path().join("train/b"), home.path().join("test/c")).unwrap();
    symlink(home.path().join("train/b/1.png"), home.path().join("train/a/2.png")).unwrap();
    let data = load(home.path()).unwrap();
    assert_eq!((data.classes.len(), &data.train.labels[..]), (3, &[0, 0, 1, 2, 2][..]));
    symlink(home.path().join("none"), home.path().join("train/a/3.png")).unwrap();
    let error = refusal(home.path());
    assert!(error.starts_with("cannot read ") && error.contains("train/a/3.png: "), "{error}");
}

#[cfg(unix)]
#[test]
fn a_class_must_have_a_readable_name() {
    use std::os::unix::ffi::OsStringExt;
    let home = home();
    let name = OsString::from_vec(b"train/\xff".to_vec());
    fs::create_dir(home.path().join(&name)).unwrap();
    fs::write(home.path().join(&name).join("1.png"), flat(1)).unwrap();
    assert!(refusal(home.path()).ends_with("its name is not UTF-8"));
}

#[test]
fn stretching_stays_within_bounds() {
    let long = Picture { h: 1, w: MOST_PIXELS / 2, grey: true, rgb: vec![0; 3 * MOST_PIXELS / 2] };
    let want = FormatError::Large { what: "pixels", got: 3 * (MOST_PIXELS / 2) as u64, most: MOST_PIXELS as u64 };
    assert_eq!(fit(long, 3, 1).unwrap_err(), want);
    // The result alone may be too large, too.
    let dot = Picture { h: 1, w: 1, grey: true, rgb: vec![0; 3] };
    let want = FormatError::Large { what: "pixels", got: 1 << 40, most: MOST_PIXELS as u64 };
    assert_eq!(fit(dot, 1 << 20, 1 << 20).unwrap_err(), want);
    let wrong = Picture { h: 2, w: 2, grey: true, rgb: vec![0; 11] };
    assert_eq!(fit(wrong, 1, 1).unwrap_err(), FormatError::Size { got: 11, want: 12 });
}

#[test]
fn a_folder_too_large_for_memory_gives_the_same_images_from_its_files() {
    use crate::data::Normalise;
    for coloured in [false, true] {
        let home = home();
        put(home.path(), "train/a/2.png", &png(&noise(20), 5, 4, L8));
        if coloured {
            put(home.path(), "test/b/3.png", &png(&noise(18), 3, 2, Rgb8));
            put(home.path(), "train/b/3.jpg", JPEG);
        }
        let (held, again) = (load(home.path()).unwrap(), load_within(home.path(), 0).unwrap());
        assert_eq!((&held.name, &held.classes), (&again.name, &again.classes));
        for (held, again) in [(&held.train, &again.train), (&held.test, &again.test)] {
            again.check().unwrap();
            assert_eq!((held.c, held.h, held.w, &held.labels), (again.c, again.h, again.w, &again.labels));
            assert!(held.in_memory() && !again.in_memory() && again.pixels.is_empty());
            for i in 0..held.len() {
                assert_eq!(again.read(i).unwrap(), held.image(i).unwrap());
            }
            assert_eq!(Normalise::of(held).unwrap(), Normalise::of(again).unwrap());
            assert!(held.read(held.len()).is_err() && again.read(held.len()).is_err());
        }
        // The bound itself is still held.
        let bytes = 18 * (held.train.len() + held.test.len()) as u64;
        assert!(load_within(home.path(), bytes).unwrap().train.in_memory());
        assert!(!load_within(home.path(), bytes - 1).unwrap().train.in_memory());
        put(home.path(), "test/a/0.png", b"no picture");
        let refusal = load_within(home.path(), 0).unwrap_err().to_string();
        assert_eq!(refusal, load(home.path()).unwrap_err().to_string());
    }
}
