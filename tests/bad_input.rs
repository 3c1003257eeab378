//! Bad input through the command: one line of error that names the value or the file, the exit code that the kind of
//! mistake has (2: wrong usage, 1: a failure), and no file left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const MODEL: &str = r#"name = "tiny"
input = [3, 32, 32]
[training]
batch = 10
[[layer]]
name = "conv"
type = "conv"
channels = 4
kernel = 3
stride = 2
padding = 1
activation = "prelu"
[[layer]]
name = "pool"
type = "max-pool"
kernel = 4
[[layer]]
name = "fc"
type = "linear"
outputs = 12
"#;

/// A folder of its own, with a good model in it.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        let home = Home(tempfile::tempdir().unwrap());
        fs::write(home.at("good.toml"), MODEL).unwrap();
        home
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        let run = Command::new(env!("CARGO_BIN_EXE_rectify")).args(args).current_dir(self.0.path()).output();
        run.unwrap()
    }

    /// Every file and folder, with the bytes of the files.
    fn content(&self) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        fn walk(folder: &Path, all: &mut Vec<(PathBuf, Option<Vec<u8>>)>) {
            for path in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
                if path.is_dir() {
                    walk(&path, all);
                    all.push((path, None));
                } else {
                    let bytes = fs::read(&path).unwrap();
                    all.push((path, Some(bytes)));
                }
            }
        }
        let mut all = Vec::new();
        walk(self.0.path(), &mut all);
        all.sort();
        all
    }

    /// Fails unless the command ends with that code and one line that has that part, and leaves all files as they were.
    fn refuses(&self, args: &[&str], code: i32, part: &str) {
        let before = self.content();
        let out = self.run(args);
        let text = String::from_utf8(out.stderr).unwrap();
        assert!(text.lines().count() == 1 && text.starts_with("error: "), "{args:?}: {text}");
        assert!(text.contains(part), "{args:?}: {text}, not {part}");
        assert_eq!(out.status.code(), Some(code), "{args:?}: {text}");
        assert!(self.content() == before, "{args:?} left something behind");
    }

    /// Trains a few steps, so that there is a checkpoint; gives its bytes.
    fn checkpoint(&self) -> Vec<u8> {
        let out = self.run(&["train", "--model", "good.toml", "--steps", "3", "--out", "run", "--threads", "1"]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let names: Vec<_> = fs::read_dir(self.at("run")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["checkpoint.safetensors"]);
        fs::read(self.at("run/checkpoint.safetensors")).unwrap()
    }
}

#[test]
fn hyper_parameters_on_the_command_line() {
    let home = Home::new();
    for (option, value, part) in [
        ("--lr", "nan", "lr = NaN"),
        ("--lr", "inf", "lr = inf"),
        ("--lr", "-inf", "lr = -inf"),
        ("--lr", "1e39", "lr = inf"),
        ("--lr", "-0.1", "lr = -0.1"),
        ("--lr", "0", "lr = 0"),
        ("--lr", "fast", "'fast'"),
        ("--momentum", "nan", "momentum = NaN"),
        ("--momentum", "inf", "momentum = inf"),
        ("--momentum", "-0.9", "momentum = -0.9"),
        ("--momentum", "1", "momentum = 1"),
        ("--weight-decay", "nan", "weight_decay = NaN"),
        ("--weight-decay", "inf", "weight_decay = inf"),
        ("--weight-decay", "-1e-4", "weight_decay = -0.0001"),
        ("--batch", "0", "batch = 0"),
        ("--batch", "65537", "batch = 65537"),
        ("--batch", "-1", "-1"),
        ("--batch", "99999999999999999999", "99999999999999999999"),
        ("--epochs", "0", "epochs = 0"),
        ("--crop", "4097", "crop = 4097"),
        ("--schedule", "linear", "schedule = linear"),
        ("--schedule", "step:0:0.5", "epochs = 0"),
        ("--schedule", "step:3:nan", "factor = NaN"),
        ("--schedule", "plateau:3:-1", "factor = -1"),
        ("--init", "ones", "'ones'"),
        ("--flip", "maybe", "'maybe'"),
        ("--threads", "0", "threads = 0"),
        ("--threads", "1000000000000", "threads = 1000000000000"),
        ("--model", "resnet", "\"resnet\""),
    ] {
        home.refuses(&["train", "--out", "run", option, value], 2, part);
    }
    home.refuses(&["train", "--out", "run", "--batch", "7201"], 1, "batch = 7201");
    home.refuses(&["train", "--out", "run", "--model", "none.toml"], 1, "none.toml");
    home.refuses(&["train", "--out", "run", "--data", "nowhere"], 1, "nowhere");
    home.refuses(&["eval"], 2, "--checkpoint");
}

#[test]
fn models_in_toml() {
    let home = Home::new();
    for (from, to, code, part) in [
        ("kernel = 3", "kernal = 3", 2, "line 9: unknown field `kernal`"),
        ("batch = 10", "batches = 10", 2, "line 4: unknown field `batches`"),
        ("kernel = 3", "kernel = 35", 2, "line 5: layer \"conv\": kh = 35"),
        ("padding = 1", "dilation = 16", 2, "line 5: layer \"conv\": kh = 3 with its dilation exceeds"),
        ("kernel = 4", "kernel = 17", 2, "line 13: layer \"pool\": kh = 17"),
        ("kernel = 4", "kernel = 4\npadding = 4", 2, "line 13: layer \"pool\": pad_top = 4"),
        ("stride = 2", "stride = 0", 2, "line 5: layer \"conv\": stride_h = 0"),
        (
            "padding = 1",
            "padding = 9223372036854775807",
            2,
            "line 5: layer \"conv\": padded height overflows: 92233720368",
        ),
        ("padding = 1", "padding = 1000000000", 2, "line 5: layer \"conv\": input length overflows"),
        ("channels = 4", "channels = 9223372036854775807", 2, "line 5: layer \"conv\": output length overflows"),
        ("outputs = 12", "outputs = 9223372036854775807", 2, "line 17: layer \"fc\": tensor length overflows"),
        ("channels = 4", "channels = 4\ngroups = 2", 2, "line 5: layer \"conv\": ic = 3"),
        ("channels = 4", "channels = -4", 2, "line 8: "),
        ("batch = 10", "batch = 0", 2, "line 3: training: batch = 0"),
        ("batch = 10", "lr = nan", 2, "line 3: training: lr = NaN"),
        ("batch = 10", "momentum = -inf", 2, "line 3: training: momentum = -inf"),
        ("batch = 10", "weight_decay = -0.1", 2, "line 3: training: weight_decay = -0.1"),
        ("batch = 10", "schedule = \"linear\"", 2, "line 4: schedule = linear"),
        ("\"prelu\"", "\"prelu\"\nslope = nan", 2, "line 13: slope = NaN"),
        ("\"tiny\"", "", 2, "line 1: "),
        ("input = [3, 32, 32]", "input = [3, 0, 32]", 2, "input = 1×3×0×32"),
        // More than an address space has, and less than what no slice could hold.
        ("outputs = 12", "outputs = 100000000000000", 1, "MiB, more than there is"),
        // What fits together, but not with the data.
        ("outputs = 12", "outputs = 11", 1, "\"tiny\" has 11"),
        ("input = [3, 32, 32]", "input = [3, 30, 32]", 1, "\"tiny\" takes 3×30×32"),
    ] {
        assert!(MODEL.contains(from));
        fs::write(home.at("bad.toml"), MODEL.replacen(from, to, 1)).unwrap();
        let part = if code == 2 { format!("bad.toml: {part}") } else { part.into() };
        home.refuses(&["train", "--model", "bad.toml", "--steps", "1", "--out", "run"], code, &part);
    }
    fs::write(home.at("bad.toml"), [0xff, 0xfe, 0]).unwrap();
    home.refuses(&["train", "--model", "bad.toml", "--out", "run"], 1, "bad.toml: ");
}

/// Both commands that read checkpoints refuse these bytes.
fn refused(home: &Home, bytes: &[u8], part: &str) {
    fs::write(home.at("bad.safetensors"), bytes).unwrap();
    let part = format!("bad.safetensors: {part}");
    home.refuses(&["eval", "--checkpoint", "bad.safetensors"], 1, &part);
    home.refuses(&["train", "--resume", "bad.safetensors", "--out", "other"], 1, &part);
}

/// The bytes with a text replaced by another, and the length of the header corrected.
fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap_or_else(|| panic!("no {from}"));
    let mut header = [&bytes[8..at], to.as_bytes(), &bytes[at + from.len()..]].concat();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) + to.len() as u64 - from.len() as u64;
    header.splice(..0, len.to_le_bytes());
    header
}

#[test]
fn checkpoints() {
    let home = Home::new();
    let good = home.checkpoint();
    for len in [0, 7, 8, 100, good.len() / 2, good.len() - 1] {
        refused(&home, &good[..len], "damaged checkpoint: ");
    }
    refused(&home, &[&good[..], b"\n"].concat(), "damaged checkpoint: ");
    refused(&home, MODEL.as_bytes(), "damaged checkpoint: ");
    refused(&home, &[&(1u64 << 62).to_le_bytes()[..], b"{}"].concat(), "damaged checkpoint: ");
    // Well-formed files of others.
    refused(&home, b"\x02\0\0\0\0\0\0\0{}", "damaged checkpoint: no `rectify`");
    for (from, to, part) in [
        ("\\\"format\\\":1", "\\\"format\\\":20", "damaged checkpoint: format 20"),
        ("kernel = 3", "kernal = 3", "damaged checkpoint: model: line 20: unknown field `kernal`"),
        ("channels = 4", "channels = 100000000000", "damaged checkpoint: tensor \"momentum.features.0.weight\""),
        ("lr = 0.01", "lr = nan", "damaged checkpoint: model: line 4: training: lr = NaN"),
        ("features.0.bias", "features.9.bias", "damaged checkpoint: tensor \"features.0.bias\" is missing"),
        ("\\\"std\\\":[", "\\\"std\\\":[0.0,", "damaged checkpoint: classes or channels"),
        ("\\\"disc\\\",", "", "damaged checkpoint: classes or channels"),
        ("\\\"seed\\\":1", "\\\"seed\\\":-1", "damaged checkpoint: "),
    ] {
        refused(&home, &replaced(&good, from, to), part);
    }

    // What only training has to do with.
    fs::write(home.at("bad.safetensors"), replaced(&good, "\\\"steps\\\":3", "\\\"steps\\\":18446744073709551615"))
        .unwrap();
    home.refuses(&["train", "--resume", "bad.safetensors", "--out", "other"], 1, "18446744073709551615 steps");

    home.refuses(&["eval", "--checkpoint", "none.safetensors"], 1, "none.safetensors: ");
    home.refuses(&["eval", "--checkpoint", "run"], 1, "run: ");
    let checkpoint = "run/checkpoint.safetensors";
    for option in [["--lr", "0.1"], ["--batch", "10"], ["--model", "good.toml"], ["--seed", "2"], ["--momentum", "0"]] {
        home.refuses(&[&["train", "--resume", checkpoint][..], &option].concat(), 2, option[0]);
    }
    home.refuses(&["train", "--resume", checkpoint, "--epochs", "0"], 2, "epochs = 0");
    assert!(fs::read(home.at(checkpoint)).unwrap() == good);
}

#[test]
fn folders_that_cannot_be_written() {
    let home = Home::new();
    let good = home.checkpoint();
    let new = ["train", "--model", "good.toml", "--steps", "1", "--out"];
    let on = ["train", "--resume", "run/checkpoint.safetensors", "--steps", "4", "--out"];
    let mut places = vec!["good.toml", "good.toml/run"];
    if cfg!(target_os = "linux") {
        // Not even root makes a folder there.
        places.push("/proc/run");
    }
    for place in places {
        home.refuses(&[&new[..], &[place]].concat(), 1, place);
        home.refuses(&[&on[..], &[place]].concat(), 1, place);
    }
    home.refuses(&[&new[..], &["run"]].concat(), 1, "run/checkpoint.safetensors: is there already");
    fs::write(home.at("run/metrics.jsonl"), "{}\n").unwrap();
    home.refuses(&[&on[..], &["run"]].concat(), 1, "run/metrics.jsonl: line 1: ");
    assert!(fs::read(home.at("run/checkpoint.safetensors")).unwrap() == good);
}

#[test]
fn a_run_that_diverges_leaves_no_checkpoint() {
    let home = Home::new();
    fs::create_dir(home.at("run")).unwrap();
    home.refuses(&["train", "--model", "good.toml", "--lr", "1e30", "--out", "run"], 1, "the loss became ");
}

/// The steps that led there are what one wants to see then.
#[test]
fn a_run_that_diverges_leaves_its_step_log() {
    let home = Home::new();
    fs::create_dir(home.at("run")).unwrap();
    let args = ["train", "--model", "good.toml", "--lr", "1e30", "--out", "run", "--step-log", "steps.jsonl"];
    assert_eq!(home.run(&args).status.code(), Some(1));
    let log = fs::read_to_string(home.at("steps.jsonl")).unwrap();
    assert!(log.starts_with("{\"step\":1,"), "{log}");
    assert!(fs::read_dir(home.at("run")).unwrap().next().is_none());
}

/// A run goes on in its own folder, or in a new one.
#[test]
fn another_run_is_not_overwritten_by_one_that_goes_on() {
    let home = Home::new();
    home.checkpoint();
    let other = ["train", "--model", "good.toml", "--steps", "1", "--seed", "2", "--out", "other", "--threads", "1"];
    assert!(home.run(&other).status.success());
    let on = ["train", "--resume", "run/checkpoint.safetensors", "--steps", "4", "--out"];
    home.refuses(&[&on[..], &["other"]].concat(), 1, "other/checkpoint.safetensors: is there already");
    assert!(home.run(&[&on[..], &["new"]].concat()).status.success());
    // Its own folder by another name.
    assert!(home.run(&[&on[..], &["new/../run/"]].concat()).status.success());
    assert!(
        fs::read(home.at("run/checkpoint.safetensors")).unwrap()
            == fs::read(home.at("new/checkpoint.safetensors")).unwrap()
    );
}

/// What cannot be allocated is refused before anything is.
#[test]
fn tensors_beyond_all_memory() {
    let home = Home::new();
    // 65536 images of 65536 × 65536 pixels: more than an address has bits for.
    let large = MODEL.replace("[3, 32, 32]", "[3, 65536, 65536]").replace("stride = 2", "stride = 4");
    let large = large.replace("\nkernel = 4", "\nkernel = 4096");
    fs::write(home.at("large.toml"), large).unwrap();
    for command in ["init-study", "bench-train", "bench-infer"] {
        home.refuses(&[command, "--model", "large.toml", "--batch", "65536"], 1, "MiB, more than there is");
    }
}
