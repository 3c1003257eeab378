//! Photos through the command: `rectify eval --views`, and training at random scales.

use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use rectify::checkpoint::Checkpoint;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const NET: &str = r#"name = "NAME"
input = [3, 20, 20]
[training]
batch = 4
init = "INIT"
[[layer]]
name = "conv"
type = "conv"
channels = 8
kernel = 5
stride = 2
activation = "prelu"
[[layer]]
name = "spp"
type = "spp"
bins = [2, 1]
[[layer]]
name = "fc"
type = "linear"
outputs = 6
"#;

fn rectify(home: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rectify")).args(args).current_dir(home).output().unwrap()
}

fn success(home: &Path, args: &[&str]) -> String {
    let out = rectify(home, args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn refusal(home: &Path, args: &[&str], code: i32, part: &str) {
    let out = rectify(home, args);
    let text = String::from_utf8(out.stderr).unwrap();
    let last = text.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: ") && last.contains(part), "{args:?}: {text}, not {part}");
    assert_eq!(out.status.code(), Some(code), "{args:?}: {text}");
}

fn put(home: &Path, name: &str, bytes: &[u8]) {
    let path = home.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn png(seed: u32, w: u32, h: u32) -> Vec<u8> {
    let pixels: Vec<u8> = (0..3 * w * h).map(|i| (i.wrapping_mul(i) * 31 / 7 + i * seed + seed) as u8).collect();
    let mut out = Vec::new();
    PngEncoder::new(&mut out).write_image(&pixels, w, h, ExtendedColorType::Rgb8).unwrap();
    out
}

/// Six classes of photos, and two nets that are trained for a step on them.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for class in 0..6 {
        put(home.path(), &format!("set/train/n{class}/1.png"), &png(class, 20, 20));
        put(home.path(), &format!("set/val/n{class}/1.png"), &png(class + 9, 20 + class, 26 - class));
    }
    for (name, init) in [("one", "he"), ("two", "xavier")] {
        fs::write(home.path().join("net.toml"), NET.replace("NAME", name).replace("INIT", init)).unwrap();
        success(home.path(), &["train", "--model", "net.toml", "--data", "set", "--steps", "1", "--out", name]);
    }
    home
}

const ONE: &str = "one/checkpoint.safetensors";
const TWO: &str = "two/checkpoint.safetensors";

#[test]
fn views_scales_and_nets_are_told_with_their_cost() {
    let home = home();
    let home = home.path();
    let args = ["eval", "--checkpoint", ONE, "--data", "set", "--views", "single,ten,maps,dense", "--scale", "28"];
    let text = success(home, &args);
    assert!(text.starts_with("one on set: 6 images, shorter side 28\n"), "{text}");
    let row = |text: &str, views: &str| -> Vec<f64> {
        let line = text.lines().find(|l| l.split_whitespace().next() == Some(views)).unwrap();
        line.split_whitespace().skip(1).map(|word| word.parse().unwrap()).collect()
    };
    // 8·75 multiplications at 8×8 places, 6·8·5 behind them.
    let one = 600.0 * 64.0 + 240.0;
    assert_eq!(row(&text, "single")[2..4], [1.0, 3.864e4]);
    assert!((row(&text, "ten")[3] / (10.0 * one) - 1.0).abs() < 1e-3 && row(&text, "ten")[2] == 10.0);
    assert_eq!(row(&text, "maps")[2], 10.0);
    // The maps cost less than ten crops, and dense windows are more.
    assert!(row(&text, "maps")[3] < row(&text, "ten")[3] && row(&text, "dense")[2] > 30.0, "{text}");
    for views in ["single", "ten", "maps", "dense"] {
        let [top1, top5] = [row(&text, views)[0], row(&text, views)[1]];
        assert!(top5 <= top1 && [top1, top5].iter().all(|e| (0.0..=100.0).contains(e)), "{text}");
    }
    // But for the time, the threads do not show.
    let timeless = |threads: &str| {
        let text = success(home, &[&args[..], &["--threads", threads]].concat());
        text.lines().map(|l| l[..l.len().min(55)].to_owned()).collect::<Vec<String>>()
    };
    assert_eq!(timeless("1"), timeless("3"));
    let both =
        ["eval", "--checkpoint", ONE, "--checkpoint", TWO, "--data", "set", "--views", "maps", "--scale", "24,32"];
    let text = success(home, &both);
    assert!(text.starts_with("one + two on set: 6 images, shorter side 24, 32\n"), "{text}");
    assert_eq!(row(&text, "maps")[2], 40.0);
    let text = success(home, &[&both[..], &["--images", "2"]].concat());
    assert!(text.contains(": 2 images, "), "{text}");
}

#[test]
fn broken_photos_are_fatal_or_left_out() {
    let home = home();
    let home = home.path();
    put(home, "set/val/n3/0.jpg", b"not a picture");
    let args = ["eval", "--checkpoint", ONE, "--data", "set", "--views", "single"];
    refusal(home, &args, 1, "0.jpg: neither a JPEG nor a PNG");
    let text = success(home, &[&args[..], &["--skip-broken"]].concat());
    assert!(
        text.contains("left out: set/val/n3/0.jpg: neither") && text.contains("\n1 broken files left out\n"),
        "{text}"
    );
    assert!(text.contains("one on set: 6 images, shorter side 20\n"), "{text}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let home = home();
    let home = home.path();
    let with = |rest: &[&str], code, part| {
        refusal(home, &[&["eval", "--checkpoint", ONE, "--data", "set"], rest].concat(), code, part);
    };
    with(&["--views", "eleven"], 2, "single, ten, maps or dense");
    with(&["--scale", "28"], 2, "--views");
    with(&["--views", "ten", "--scale", "19"], 1, "smaller than the window, 20×20");
    with(&["--views", "ten", "--scale", "0"], 2, "--scale");
    with(&["--checkpoint", TWO], 2, "without --views one is evaluated");
    refusal(home, &["eval", "--checkpoint", ONE, "--views", "ten"], 1, "has other classes than the checkpoint's");
    refusal(home, &["eval", "--views", "ten"], 2, "--checkpoint");
    with(&["--views", "single", "--images", "0"], 2, "'0' for '--images <N>'");
    with(&["--views", "single", "--scale", "65536"], 1, "but at most 67108864 are read");
}

#[test]
fn photos_are_trained_on_at_random_scales_and_a_run_goes_on_where_it_stopped() {
    let home = home();
    let home = home.path();
    // Steps on photos are timed alike.
    let text = fs::read_to_string(home.join("net.toml")).unwrap();
    fs::write(home.join("scaled.toml"), text.replace("[training]", "[training]\nscale = [22, 30]")).unwrap();
    let timed = ["bench-train", "--model", "scaled.toml", "--data", "set", "--steps", "1"];
    assert!(success(home, &timed).starts_with("two on set, "));
    put(home, "set/train/n3/0.jpg", b"not a picture");
    let train = |out: &str, rest: &[&str]| {
        let photos = ["--scale", "22,30", "--colour", "0.1", "--flip", "true"];
        [&["train", "--model", "net.toml", "--data", "set", "--epochs", "5", "--out", out][..], &photos, rest]
            .concat()
            .iter()
            .map(|s| s.to_string())
            .collect::<Vec<String>>()
    };
    let run = |args: &[String]| success(home, &args.iter().map(String::as_str).collect::<Vec<&str>>());
    let refuse = |args: &[String], code, part| {
        refusal(home, &args.iter().map(String::as_str).collect::<Vec<&str>>(), code, part);
    };
    refuse(&train("a", &[]), 1, "n3/0.jpg: neither a JPEG nor a PNG");
    let text = run(&train("a", &["--skip-broken", "--threads", "1"]));
    assert!(text.starts_with("left out: set/train/n3/0.jpg: neither") && text.contains("\n1 broken files left out\n"));
    assert!(text.contains("two on set: 6 training and 6 test images of 6 classes"), "{text}");
    let bytes = |run: &str| fs::read(home.join(run).join("checkpoint.safetensors")).unwrap();
    // Neither the threads nor an interruption shows; the variation does.
    let text = run(&train("b", &["--skip-broken", "--threads", "3", "--steps", "2"]));
    let on = text.lines().find_map(|line| line.strip_prefix("go on with: rectify ")).unwrap();
    assert_eq!(on, "train --resume b/checkpoint.safetensors --data set --skip-broken --threads 3");
    success(home, &on.split(' ').collect::<Vec<&str>>());
    assert!(bytes("a") == bytes("b"));
    let mut other = train("d", &["--skip-broken"]);
    other[10] = "22,29".into();
    run(&other);
    assert!(bytes("a") != bytes("d"));
    // Evaluation cuts the middle out, at the smaller scale.
    let args = ["eval", "--checkpoint", "a/checkpoint.safetensors", "--data", "set", "--skip-broken"];
    let text = success(home, &args);
    assert!(text.starts_with("left out: ") && text.contains("\ntwo on set: test loss "), "{text}");
    let percent =
        |text: &str| text.split("accuracy ").nth(1).unwrap().split(' ').next().unwrap().parse::<f64>().unwrap();
    let single = success(home, &[&args[..], &["--views", "single", "--scale", "22"]].concat());
    let top1 = single.lines().last().unwrap().split_whitespace().nth(1).unwrap().parse::<f64>().unwrap();
    assert!((percent(&text) + top1 - 100.0).abs() < 0.02, "{text} {single}");

    // Shifts are of images in memory: what the net says of them is left aside, what is asked for is refused.
    let text = fs::read_to_string(home.join("net.toml")).unwrap();
    fs::write(home.join("net.toml"), text.replace("[training]", "[training]\ncrop = 3")).unwrap();
    run(&train("c", &["--skip-broken"]));
    let weights = |run: &str| -> Vec<Vec<f32>> {
        let checkpoint = Checkpoint::load(&home.join(run).join("checkpoint.safetensors")).unwrap();
        checkpoint.parameters.iter().map(|p| p.value.to_vec()).collect()
    };
    assert!(weights("a") == weights("c"));
    refuse(&train("e", &["--crop", "2"]), 2, "--crop 2: photos of scale 22,30 are cut at a random place already");
    let mut wrong = train("e", &["--skip-broken"]);
    wrong[10] = "19,30".into();
    refuse(&wrong, 2, "scale 19,30: the 20×20 pixels that model");
    for text in ["22", "22,30,40", "a,b", "22,-1"] {
        wrong[10] = text.into();
        refuse(&wrong, 2, "expected two lengths");
    }
    refusal(
        home,
        &["train", "--data", "shapes", "--scale", "22,30", "--crop", "0"],
        2,
        "--scale and --colour are for photos",
    );
}
