//! `rectify reproduce` as its users run it.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// 5 images make 12 steps an epoch of those of [`Home::new`].
const TINY: &str = r#"name = "tiny"
input = [3, 32, 32]
[training]
batch = 5
flip = true
crop = 3
[[layer]]
name = "conv1"
type = "conv"
channels = 9
kernel = 3
stride = 3
padding = 1
activation = "prelu"
[[layer]]
name = "pool"
type = "max-pool"
kernel = 2
[[layer]]
name = "drop"
type = "dropout"
rate = 0.25
[[layer]]
name = "fc1"
type = "linear"
outputs = 20
activation = "prelu"
[[layer]]
name = "fc2"
type = "linear"
outputs = 10
"#;

const VARIANTS: [&str; 5] = ["relu", "leaky", "leaky-0.25", "shared", "channel-wise"];

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        let home = Home(tempfile::tempdir().unwrap());
        fs::write(home.at("tiny.toml"), TINY).unwrap();
        // CIFAR-10 in binary: a label, then 3×32×32 pixels.
        fs::create_dir(home.at("data")).unwrap();
        let names = (1..=5).map(|i| format!("data_batch_{i}.bin")).chain(["test_batch.bin".to_owned()]);
        for (number, name) in names.enumerate() {
            let record =
                |i: usize| [i % 10].into_iter().chain((0..3072).map(move |p| (i * 41 + p * p * 7 + p / 9) % 253));
            let bytes: Vec<u8> = (12 * number..12 * number + 12).flat_map(record).map(|v| v as u8).collect();
            fs::write(home.at("data").join(name), bytes).unwrap();
        }
        home
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The arguments of a study with the small net, `extra` last.
    fn run(&self, name: &str, out: &str, extra: &[&str]) -> Output {
        let (model, out, data) = (self.at("tiny.toml"), self.at(out), self.at("data"));
        let common = ["--data", data.to_str().unwrap(), "--model", model.to_str().unwrap(), "--threads", "2"];
        let all = [&["reproduce", name, "--out", out.to_str().unwrap()], &common[..], extra].concat();
        Command::new(env!("CARGO_BIN_EXE_rectify")).args(all).output().unwrap()
    }

    fn success(&self, name: &str, out: &str, extra: &[&str]) -> String {
        let done = self.run(name, out, extra);
        assert!(done.status.success(), "{name} {extra:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    fn refusal(&self, name: &str, out: &str, extra: &[&str]) -> (i32, String) {
        refused(self.run(name, out, extra))
    }
}

/// Exit code and the one line of the error.
fn refused(done: Output) -> (i32, String) {
    let error = String::from_utf8(done.stderr).unwrap();
    assert!(error.starts_with("error: ") && error.lines().count() == 1, "{error}");
    (done.status.code().unwrap(), error)
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The lines of a file of JSON lines, without what took time.
fn lines(path: &Path) -> Vec<Value> {
    let parse = |line: &str| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        let object = value.as_object_mut().unwrap();
        assert!(object.remove("seconds").unwrap().as_f64().unwrap() > 0.0);
        object.remove("processor_seconds").unwrap();
        value
    };
    text(path).lines().map(parse).collect()
}

/// The rows of a table, without its columns of seconds.
fn rows(path: &Path) -> Vec<Vec<String>> {
    let cells = |line: &str| line.split('|').map(|c| c.trim().to_owned()).collect::<Vec<_>>();
    let all: Vec<_> = text(path).lines().filter(|l| l.starts_with('|')).map(cells).collect();
    let seconds: Vec<usize> = (0..all[0].len()).filter(|&i| all[0][i].contains("seconds")).collect();
    let keep = |row: Vec<String>| row.into_iter().enumerate().filter(|(i, _)| !seconds.contains(i)).map(|(_, c)| c);
    all.into_iter().map(|row| keep(row).collect()).collect()
}

/// Loss of the first step of a run.
fn first_loss(run: &Path) -> f64 {
    let line: Value = serde_json::from_str(text(&run.join("steps.jsonl")).lines().next().unwrap()).unwrap();
    line["loss"].as_f64().unwrap()
}

#[test]
fn a_study_that_was_stopped_ends_with_the_bits_of_one_that_was_not() {
    let home = Home::new();
    let some = ["--epochs", "2", "--seeds", "2"];
    let said = home.success("prelu", "whole", &some);
    assert!(said.contains("10 runs, 0 done") && said.contains("| channel-wise | 2 of 2 | "), "{said}");

    // Stopped in the first epoch and in the second; then killed between two files, so that the checkpoint is behind.
    let [first, second] = ["7", "17"].map(|steps| [&some[..], &["--steps", steps]].concat());
    let said = home.success("prelu", "parts", &first);
    assert!(said.contains("| relu | 0 of 2 | – |") && said.contains("0 of 10 runs done"), "{said}");
    let log = home.at("parts/prelu/leaky-seed2/steps.jsonl");
    let ahead = text(&log).lines().last().unwrap().replace("\"step\":7", "\"step\":8");
    fs::write(&log, format!("{}{ahead}\n", text(&log))).unwrap();
    home.success("prelu", "parts", &second);
    // A run that has not begun: killed before its first checkpoint.
    fs::remove_dir_all(home.at("parts/prelu/shared-seed2")).unwrap();
    fs::create_dir(home.at("parts/prelu/shared-seed2")).unwrap();
    home.success("prelu", "parts", &some);

    let both = |file: &str| [home.at("whole"), home.at("parts")].map(|out| out.join("prelu").join(file));
    let [whole, parts] = both("runs.jsonl").map(|path| lines(&path));
    assert_eq!(whole, parts);
    let [table, again] = both("table.md").map(|path| rows(&path));
    assert_eq!(table, again);
    let [picture, again] = both("curves.svg").map(|path| text(&path));
    assert!(picture == again && VARIANTS.iter().all(|v| picture.contains(v)));
    for variant in VARIANTS {
        for seed in ["1", "2"] {
            let [a, b] = both(&format!("{variant}-seed{seed}/checkpoint.safetensors")).map(|p| fs::read(p).unwrap());
            assert!(a == b, "{variant} {seed}");
        }
    }

    // What is in the files: all runs, in order; means of what the runs say.
    let named: Vec<_> = whole.iter().map(|r| (r["variant"].as_str().unwrap(), r["seed"].as_u64().unwrap())).collect();
    assert_eq!(named, [1, 2].map(|s| VARIANTS.map(|v| (v, s))).concat());
    for run in &whole {
        assert_eq!((run["steps"].as_u64(), run["finished"].as_bool()), (Some(24), Some(true)), "{run}");
        assert_eq!((run["losses"].as_array().unwrap().len(), run["epochs"].as_array().unwrap().len()), (24, 2));
    }
    let error = |variant: &str, seed: u64| {
        let run = whole.iter().find(|r| r["variant"] == variant && r["seed"] == seed).unwrap();
        100.0 * run["epochs"][1]["test_error"].as_f64().unwrap()
    };
    for (row, variant) in table[2..].iter().zip(VARIANTS) {
        let [a, b] = [1, 2].map(|seed| error(variant, seed));
        assert_eq!(row[3], format!("{:.2} ± {:.2}", (a + b) / 2.0, (a - b).abs() / 2f64.sqrt()), "{variant}");
        assert_eq!(row[5], format!("{:.2}", a.min(b)));
    }
    // Equal weights, images and masks: slopes of 0.25 give the same first loss, shared, fixed or not; others another.
    let loss = |variant: &str| first_loss(&home.at(&format!("whole/prelu/{variant}-seed1")));
    assert_eq!(["shared", "leaky-0.25"].map(|v| loss(v).to_bits()), [loss("channel-wise").to_bits(); 2]);
    assert!(loss("relu") != loss("leaky") && (loss("relu") - loss("leaky")).abs() < 0.02, "{}", loss("relu"));
}

#[test]
fn done_runs_are_not_done_again_and_slopes_are_taken_from_them() {
    let home = Home::new();
    let some = ["--epochs", "1", "--seeds", "2"];
    home.success("prelu", "out", &some);
    let runs = home.at("out/prelu/runs.jsonl");
    let before =
        (text(&runs), fs::metadata(home.at("out/prelu/relu-seed1/checkpoint.safetensors")).unwrap().modified());
    fs::remove_file(&runs).unwrap();
    let said = home.success("prelu", "out", &some);
    assert!(said.contains("10 runs, 10 done") && !said.contains("relu-seed1"), "{said}");
    let after = (text(&runs), fs::metadata(home.at("out/prelu/relu-seed1/checkpoint.safetensors")).unwrap().modified());
    assert_eq!((before.0, before.1.unwrap()), (after.0, after.1.unwrap()));

    let said = home.success("slopes", "out", &some);
    assert!(said.contains("4 runs, 4 done"), "{said}");
    let table = rows(&home.at("out/slopes/table.md"));
    assert_eq!(table[2][1..].iter().rev().skip(1).take(2).collect::<Vec<_>>(), ["0.596", "0.681"]);
    assert_eq!((table.len(), table[2][1].as_str(), table[3][1].as_str()), (4, "conv1", "fc1"));
    let mean = |variant: &str, seed: u32| {
        let run = home.at(&format!("out/prelu/{variant}-seed{seed}/metrics.jsonl"));
        let epoch: Value = serde_json::from_str(text(&run).lines().last().unwrap()).unwrap();
        epoch["slopes"][1]["mean"].as_f64().unwrap()
    };
    for (column, variant) in [(2, "shared"), (3, "channel-wise")] {
        let [a, b] = [1, 2].map(|seed| mean(variant, seed));
        assert_eq!(table[3][column], format!("{:.3} ± {:.3}", (a + b) / 2.0, (a - b).abs() / 2f64.sqrt()));
    }
    assert!(text(&home.at("out/slopes/slopes.svg")).contains("conv1"));

    // Without those runs it trains them: the same, and no others.
    let said = home.success("slopes", "alone", &some);
    assert!(said.contains("4 runs, 0 done"), "{said}");
    assert_eq!(table, rows(&home.at("alone/slopes/table.md")));
    assert!(home.at("alone/prelu/shared-seed2").is_dir() && !home.at("alone/prelu/relu-seed1").exists());
}

#[test]
fn initial_weights_are_compared_and_steps_are_timed() {
    let home = Home::new();
    let said = home.success("depth", "out", &["--seeds", "1", "--epochs", "2", "--lr", "0.05"]);
    let table = rows(&home.at("out/depth/table.md"));
    assert_eq!((table[2][1].as_str(), table[3][1].as_str(), table.len()), ("he", "xavier", 4), "{said}");
    let init = |variant: &str| {
        let run = lines(&home.at("out/depth/runs.jsonl")).into_iter().find(|r| r["variant"] == variant).unwrap();
        run["training"]["init"].as_str().unwrap().to_owned()
    };
    assert_eq!((init("he"), init("xavier")), ("he".to_owned(), "xavier".to_owned()));

    let (model, out) = (home.at("tiny.toml"), home.at("out"));
    let args = ["reproduce", "cost", "--steps", "2", "--threads", "1", "--model", model.to_str().unwrap(), "--out"];
    let done = Command::new(env!("CARGO_BIN_EXE_rectify")).args(args).arg(&out).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let found: Value = serde_json::from_str(&text(&out.join("cost/runs.jsonl"))).unwrap();
    let rectifiers = found["rectifiers"].as_array().unwrap();
    assert_eq!(rectifiers.iter().map(|r| r["variant"].as_str().unwrap()).collect::<Vec<_>>(), VARIANTS);
    assert!(rectifiers.iter().all(|r| r["s_per_step"].as_f64() > Some(0.0) && r["against"].as_f64() > Some(0.0)));
    assert_eq!((found["batch"].as_u64(), found["rounds"].as_u64()), (Some(5), Some(2)));
    let stdout = String::from_utf8(done.stdout).unwrap();
    assert!(stdout.contains("| tiny | 5 | 1 | relu | ") && stdout.contains("| +0.0 % |"), "{stdout}");
    assert!(text(&out.join("cost/cost.svg")).contains("tiny, batch 5"));
}

#[test]
fn runs_made_with_other_settings_are_refused_and_stay_as_they_are() {
    let home = Home::new();
    let some = ["--epochs", "1", "--seeds", "1"];
    home.success("depth", "out", &[&some[..], &["--steps", "2"]].concat());
    let file = home.at("out/depth/he-seed1/checkpoint.safetensors");
    let before = fs::read(&file).unwrap();
    let wide = home.at("wide.toml");
    fs::write(&wide, TINY.replace("outputs = 20", "outputs = 21")).unwrap();
    let (named, data) = ("out/depth/he-seed1", home.at("data"));
    for (extra, part) in [
        (["--lr", "0.002"], "settings"),
        (["--epochs", "2"], "settings"),
        (["--schedule", "cosine"], "settings"),
        (["--model", wide.to_str().unwrap()], "another net"),
    ] {
        // An option cannot be given twice.
        let kept: Vec<&str> = some.chunks(2).filter(|o| o[0] != extra[0]).flatten().copied().collect();
        let (code, error) = if extra[0] == "--model" {
            let args = ["reproduce", "depth", "--data", data.to_str().unwrap(), "--epochs", "1", "--out"];
            let out = home.at("out");
            refused(Command::new(env!("CARGO_BIN_EXE_rectify")).args(args).arg(out).args(extra).output().unwrap())
        } else {
            home.refusal("depth", "out", &[&kept[..], &extra].concat())
        };
        assert_eq!(code, 1, "{error}");
        assert!(error.contains(named) && error.contains(part), "{extra:?}: {error}");
    }
    // Another seed's, another variant's, another data set's, and a run that `train` has made.
    let other = home.at("other/depth/he-seed1");
    let copy = |from: &str| {
        let _ = fs::remove_dir_all(&other);
        fs::create_dir_all(&other).unwrap();
        for name in ["checkpoint.safetensors", "steps.jsonl"] {
            fs::copy(home.at(from).join(name), other.join(name)).unwrap();
        }
    };
    copy("out/depth/xavier-seed1");
    assert!(home.refusal("depth", "other", &some).1.contains("\"xavier\""));
    home.success("depth", "more", &["--epochs", "1", "--seeds", "2", "--steps", "1"]);
    copy("more/depth/he-seed2");
    assert!(home.refusal("depth", "other", &some).1.contains("seed 2, not 1"));
    copy("out/depth/he-seed1");
    fs::remove_file(other.join("steps.jsonl")).unwrap();
    assert!(home.refusal("depth", "other", &some).1.contains("steps.jsonl"));
    fs::write(other.join("steps.jsonl"), "{}\n").unwrap();
    assert!(home.refusal("depth", "other", &some).1.contains("steps.jsonl: line 1"));
    fs::write(other.join("checkpoint.safetensors"), "no tensors").unwrap();
    assert!(home.refusal("depth", "other", &some).1.contains("damaged"));
    let batch = home.at("data/data_batch_3.bin");
    let mut pixels = fs::read(&batch).unwrap();
    pixels[1] ^= 1;
    fs::write(&batch, &pixels).unwrap();
    let error = home.refusal("depth", "out", &some).1;
    assert!(error.contains(named) && error.contains("data set"), "{error}");
    pixels[1] ^= 1;
    fs::write(&batch, &pixels).unwrap();
    assert!(fs::read(&file).unwrap() == before, "the run is as it was");
    home.success("depth", "out", &some);
}

/// A finding like any other: the rest of the study is made, and the exit code tells.
#[test]
fn a_run_that_diverges_keeps_no_other_from_its_end() {
    let home = Home::new();
    let some = ["--epochs", "1", "--seeds", "1", "--lr", "1e25"];
    let (code, error) = home.refusal("prelu", "out", &some);
    assert_eq!(code, 1);
    for variant in VARIANTS {
        let run = format!("{variant}-seed1: the loss became ");
        assert!(error.contains(&run), "{error}");
    }
    let table = text(&home.at("out/prelu/table.md"));
    assert!(table.contains("| relu | 0 of 1 |"), "{table}");
}

#[test]
fn bad_input_is_refused_by_name() {
    let home = Home::new();
    fs::write(home.at("file"), "").unwrap();
    for (extra, code, part) in [
        (vec!["--seeds", "0"], 2, "seeds = 0"),
        (vec!["--epochs", "0"], 2, "epochs = 0"),
        (vec!["--lr", "NaN"], 2, "lr = NaN"),
        (vec!["--lr", "-1"], 2, "lr = -1"),
        (vec!["--schedule", "sometimes"], 2, "sometimes"),
    ] {
        let (got, error) = home.refusal("prelu", "out", &extra);
        assert!(got == code && error.contains(part), "{extra:?}: {error}");
    }
    for (args, code, part) in [
        (vec!["everything"], 2, "prelu, slopes, depth, cost"),
        (vec!["prelu"], 2, "prelu needs --data"),
        (vec!["prelu", "--data", "no/such/folder"], 1, "no/such/folder"),
        (vec!["depth", "--data", "shapes", "--model", "e99"], 2, "unknown model \"e99\""),
        (vec!["depth", "--data", "data", "--model", "tiny.toml", "--threads", "0"], 2, "threads = 0"),
        (vec!["depth", "--data", "data", "--model", "tiny.toml", "--steps", "1", "--out", "file"], 1, "file"),
        (vec!["cost", "--data", "shapes"], 2, "--data"),
        (vec!["cost", "--lr", "1"], 2, "--lr"),
        (vec!["cost", "--steps", "0"], 2, "rounds = 0"),
        (vec!["cost", "--model", "iresnet18"], 1, "iresnet18"),
    ] {
        let run =
            Command::new(env!("CARGO_BIN_EXE_rectify")).arg("reproduce").args(&args).current_dir(home.at("")).output();
        let (got, error) = refused(run.unwrap());
        assert!(got == code && error.contains(part), "{args:?}: {error}");
    }
    assert!(!home.at("out").exists() && !home.at("runs").exists(), "nothing is left");
}
