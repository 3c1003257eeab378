//! Data sets on the disk, as the users of `rectify train` and `rectify eval` meet them.

use flate2::{Compression, write::GzEncoder};
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use rectify::checkpoint::Checkpoint;
use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Output},
};

/// 20×18 pixels.
const JPEG: &[u8] = include_bytes!("../src/data/folder/picture/colour.jpg");

fn rectify(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rectify")).args(args).output().unwrap()
}

/// What a command that succeeds prints.
fn success(args: &[&str]) -> String {
    let out = rectify(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Exit code and the one line of the error; nothing else is printed.
fn refusal(args: &[&str]) -> (i32, String) {
    let out = rectify(args);
    let text = String::from_utf8(out.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
    assert!(text.starts_with("error: ") && out.stdout.is_empty(), "{args:?}: {text}");
    (out.status.code().unwrap(), text)
}

fn put(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Bytes that differ from each other.
fn noise(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i * i * 31 + i * seed * 7 + seed) as u8).collect()
}

/// A record of CIFAR.
fn record(head: &[u8], seed: usize) -> Vec<u8> {
    [head, &noise(3072, seed)].concat()
}

fn cifar10(folder: &Path) {
    for batch in 1..=5u8 {
        let two = [record(&[batch], batch.into()), record(&[batch + 4], 9)].concat();
        put(folder, &format!("data_batch_{batch}.bin"), &two);
    }
    put(folder, "test_batch.bin", &record(&[3], 1));
    put(folder, "batches.meta.txt", b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n");
}

fn cifar100(folder: &Path) {
    put(folder, "train.bin", &[record(&[1, 99], 1), record(&[0, 0], 2), record(&[19, 50], 3)].concat());
    put(folder, "test.bin", &record(&[0, 7], 4));
}

fn png(seed: usize, w: u32, h: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let pixels = noise((3 * w * h) as usize, seed);
    PngEncoder::new(&mut out).write_image(&pixels, w, h, ExtendedColorType::Rgb8).unwrap();
    out
}

fn images(folder: &Path) {
    put(folder, "train/cat/1.jpg", JPEG);
    put(folder, "train/cat/2.png", &png(1, 20, 18));
    put(folder, "train/dog/1.PNG", &png(2, 25, 30));
    put(folder, "test/cat/1.jpeg", JPEG);
    put(folder, "test/dog/notes.txt", b"not an image");
    put(folder, "test/dog/1.png", &png(3, 7, 9));
}

fn idx(dims: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|d| bytes.extend(d.to_be_bytes()));
    bytes.extend(values);
    bytes
}

fn idx_files() -> [(&'static str, Vec<u8>); 4] {
    [
        ("train-images-idx3-ubyte", idx(&[4, 28, 28], &noise(4 * 784, 1))),
        ("train-labels-idx1-ubyte", idx(&[4], &[9, 0, 4, 1])),
        ("t10k-images-idx3-ubyte", idx(&[2, 28, 28], &noise(2 * 784, 2))),
        ("t10k-labels-idx1-ubyte", idx(&[2], &[7, 9])),
    ]
}

fn mnist(folder: &Path) {
    idx_files().iter().for_each(|(name, bytes)| put(folder, name, bytes));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut stream = GzEncoder::new(Vec::new(), Compression::default());
    stream.write_all(bytes).unwrap();
    stream.finish().unwrap()
}

fn mnist_packed(folder: &Path) {
    idx_files().iter().for_each(|(name, bytes)| put(folder, &format!("{name}.gz"), &gzip(bytes)));
}

/// How a data set gets onto the disk, and what is said of it.
type Form = (fn(&Path), &'static str);

const FORMS: [Form; 5] = [
    (cifar10, "10 training and 1 test images of 10 classes"),
    (cifar100, "3 training and 1 test images of 100 classes"),
    (images, "3 training and 2 test images of 2 classes"),
    (mnist, "4 training and 2 test images of 10 classes"),
    (mnist_packed, "4 training and 2 test images of 10 classes"),
];

#[test]
fn every_form_is_trained_on_and_evaluated() {
    for (make, said) in FORMS {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
        let (data, run, other) = (path("set"), path("run"), path("other"));
        make(Path::new(&data));
        let train = |out: &str, threads: &str| {
            success(&["train", "--data", &data, "--batch", "2", "--steps", "1", "--out", out, "--threads", threads])
        };
        let text = train(&run, "1");
        assert!(text.starts_with(&format!("shapes-small on set: {said}, ")), "{text}");
        train(&other, "3");
        let checkpoint = format!("{run}/checkpoint.safetensors");
        let bytes = |folder: &str| fs::read(format!("{folder}/checkpoint.safetensors")).unwrap();
        assert!(bytes(&run) == bytes(&other), "{said}: the number of threads shows");
        let read = Checkpoint::from_bytes(&bytes(&run)).unwrap();
        assert_eq!((read.progress.steps, read.classes.len()), (1, read.model.classes()));
        let text = success(&["eval", "--checkpoint", &checkpoint, "--data", &data]);
        assert!(text.starts_with("shapes-small on set: test loss "), "{text}");
        success(&["train", "--resume", &checkpoint, "--data", &data, "--steps", "2"]);
        let (code, text) = refusal(&["eval", "--checkpoint", &checkpoint]);
        assert!(code == 1 && text.contains("\"shapes\" has other classes than the checkpoint's"), "{text}");
    }
}

#[test]
fn the_sizes_of_a_net_of_ones_own_must_be_those_of_the_images() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    mnist(Path::new(&path("set")));
    let net = |channels: usize, classes: usize| {
        let text = format!(
            "name = \"own\"\ninput = [{channels}, 28, 28]\n[training]\nbatch = 2\n[[layer]]\nname = \"fc\"\n\
             type = \"linear\"\noutputs = {classes}\n"
        );
        fs::write(path("own.toml"), text).unwrap();
    };
    let (own, set, run) = (path("own.toml"), path("set"), path("run"));
    let args = ["train", "--model", &own, "--data", &set, "--steps", "1", "--out", &run];
    for (channels, classes, part) in [(3, 10, "images are 1×28×28"), (1, 9, "has 10 classes")] {
        net(channels, classes);
        let (code, text) = refusal(&args);
        assert!(code == 1 && text.contains(part), "{code} {text}");
        assert!(!Path::new(&run).exists());
    }
    net(1, 10);
    assert!(success(&args).starts_with("own on set: "));
}

/// A good data set, what is done to it, and what the error must name.
type Damage = (fn(&Path), fn(&Path), &'static str);

fn cut(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
}

const DAMAGED: [Damage; 19] = [
    (cifar10, |d| cut(&d.join("data_batch_2.bin")), "set/data_batch_2.bin: 6145 bytes, but 6146 are expected"),
    (cifar10, |d| put(d, "test_batch.bin", b""), "set/test_batch.bin: 0 bytes, but 3073 are expected"),
    (
        cifar10,
        |d| put(d, "test_batch.bin", &record(&[10], 1)),
        "set/test_batch.bin: record 0: label 10 is not below 10",
    ),
    (cifar10, |d| fs::remove_file(d.join("data_batch_5.bin")).unwrap(), "cannot read "),
    (cifar10, |d| put(d, "batches.meta.txt", b"cat\ndog\n"), "set/batches.meta.txt: 2 names of classes"),
    (cifar10, images, "set: holds CIFAR-10 and an image folder: which is meant?"),
    (cifar100, |d| cut(&d.join("train.bin")), "set/train.bin: 9221 bytes, but 9222 are expected"),
    (cifar100, |d| put(d, "test.bin", &record(&[0, 100], 1)), "set/test.bin: record 0: label 100 is not below 100"),
    (images, |d| cut(&d.join("train/cat/1.jpg")), "set/train/cat/1.jpg: cannot decode: it ends before the end"),
    (images, |d| cut(&d.join("test/dog/1.png")), "set/test/dog/1.png: cannot decode: it ends before the end"),
    (images, |d| put(d, "train/dog/2.jpg", b""), "set/train/dog/2.jpg: neither a JPEG nor a PNG"),
    (images, |d| fs::remove_dir_all(d.join("test")).unwrap(), "set: holds neither a folder `test` nor `val`"),
    (images, |d| put(d, "test/fox/1.jpg", JPEG), "set/train: holds no folder \"fox\""),
    (images, |d| fs::create_dir(d.join("train/empty")).unwrap(), "set/train/empty: holds no image"),
    (mnist, |d| cut(&d.join("train-images-idx3-ubyte")), "set/train-images-idx3-ubyte: 3151 bytes, but 3152 are"),
    (
        mnist,
        |d| put(d, "t10k-labels-idx1-ubyte", &idx(&[2], &[0, 10])),
        "set/t10k-labels-idx1-ubyte: record 1: label 10",
    ),
    (mnist_packed, |d| cut(&d.join("t10k-images-idx3-ubyte.gz")), "set/t10k-images-idx3-ubyte.gz: cannot decode: "),
    (mnist, |d| fs::remove_file(d.join("t10k-images-idx3-ubyte")).unwrap(), "set: holds no t10k-images-idx3-ubyte"),
    // A net that shrinks images of 28×28 eightfold has nothing left of 4×4.
    (
        |d| ["train", "test"].iter().for_each(|half| put(d, &format!("{half}/one/1.png"), &png(1, 4, 4))),
        |d| ["train", "test"].iter().for_each(|half| put(d, &format!("{half}/two/1.png"), &png(2, 4, 4))),
        "layer \"pool3\": ",
    ),
];

#[test]
fn a_damaged_set_ends_with_1_and_leaves_nothing() {
    for (make, damage, part) in DAMAGED {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("set");
        make(&data);
        damage(&data);
        let run = home.path().join("run");
        let (data, out) = (data.to_str().unwrap(), run.to_str().unwrap());
        let (code, text) = refusal(&["train", "--data", data, "--batch", "2", "--steps", "1", "--out", out]);
        assert!(code == 1 && text.contains(part), "{code} {text}, not {part}");
        let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["set"], "{part}");
    }
}

#[test]
fn what_is_no_set_at_all_ends_with_1_too() {
    let home = tempfile::tempdir().unwrap();
    put(home.path(), "file", b"");
    fs::create_dir(home.path().join("empty")).unwrap();
    let run = home.path().join("run");
    for name in ["none", "file", "empty"] {
        let data = home.path().join(name);
        let args = ["train", "--data", data.to_str().unwrap(), "--steps", "1", "--out", run.to_str().unwrap()];
        let (code, text) = refusal(&args);
        let part = format!("{}: no data set: expected `shapes`, or a directory", data.display());
        assert!(code == 1 && text.contains(&part), "{code} {text}");
        assert!(!run.exists());
    }
    for args in
        [&["train", "--data"][..], &["eval", "--data", "shapes"], &["train", "--data", "shapes", "--batch", "0"]]
    {
        assert_eq!(refusal(args).0, 2, "{args:?}");
    }
}

/// A link that leads to itself is read by nobody, whatever the permissions.
#[cfg(unix)]
#[test]
fn a_file_that_cannot_be_read_is_named() {
    for (make, name) in [
        (cifar10 as fn(&Path), "data_batch_3.bin"),
        (images, "train/cat/2.png"),
        (images, "test/dog"),
        (mnist, "train-labels-idx1-ubyte"),
    ] {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("set");
        make(&data);
        let path = data.join(name);
        if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.unwrap();
        std::os::unix::fs::symlink(&path, &path).unwrap();
        let run = home.path().join("run");
        let args = ["train", "--data", data.to_str().unwrap(), "--steps", "1", "--out", run.to_str().unwrap()];
        let (code, text) = refusal(&args);
        assert!(code == 1 && text.contains(&format!("cannot read {}: ", path.display())), "{code} {text}");
        assert!(!run.exists());
    }
}

/// Options that would change nothing are refused.
#[test]
fn what_is_for_photos_alone_is_refused_elsewhere() {
    let home = tempfile::tempdir().unwrap();
    let (data, run) = (home.path().join("set"), home.path().join("run"));
    images(&data);
    let (data, run) = (data.to_str().unwrap(), run.to_str().unwrap());
    let checkpoint = format!("{run}/checkpoint.safetensors");
    // Three images: an epoch is a step.
    success(&["train", "--data", data, "--batch", "2", "--steps", "3", "--out", run]);
    let other = home.path().join("other");
    let train = ["train", "--data", data, "--out", other.to_str().unwrap()];
    let eval = ["eval", "--checkpoint", &checkpoint, "--data", data, "--skip-broken"];
    let resume = ["train", "--resume", &checkpoint, "--data", data, "--epochs", "2"];
    for (args, part) in [
        ([&train[..], &["--colour", "0.1"]].concat(), "colour 0.1: it alters photos"),
        ([&train[..], &["--skip-broken"]].concat(), "--skip-broken is for an image folder's photos"),
        ([&train[..], &["--scale", "10,30"]].concat(), "scale 10,30: the 32×32 pixels that model \"shapes-small\""),
        ([&eval[..3], &["--data", "shapes", "--views", "single", "--skip-broken"]].concat(), "shapes: --skip-broken"),
        (eval.to_vec(), "--skip-broken is for an image folder's photos"),
        (resume.to_vec(), "--epochs 2: 3 epochs and 0 steps are done already"),
    ] {
        let (code, text) = refusal(&args);
        assert!(code == 2 && text.contains(part), "{args:?}: {code} {text}");
    }
    assert!(!other.exists());
}

/// A device would never end.
#[cfg(unix)]
#[test]
fn checkpoints_are_regular_files() {
    let (code, text) = refusal(&["eval", "--checkpoint", "/dev/zero", "--data", "shapes"]);
    assert!(code == 1 && text.contains("/dev/zero: is not a regular file"), "{code} {text}");
    let (code, text) = refusal(&["train", "--weights", "/dev/zero"]);
    assert!(code == 1 && text.contains("/dev/zero: is not a regular file"), "{code} {text}");
}
