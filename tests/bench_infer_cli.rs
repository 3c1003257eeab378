//! `rectify bench-infer` as its users run it.

use rectify_kernels::Isa;
use serde_json::Value;
use std::process::{Command, Output};

const KEYS: [&str; 8] = ["batch", "gflops", "images_per_s", "isa", "max_rel_err", "model", "s_per_batch", "threads"];

/// Nothing of it is built in.
const TINY: &str = r#"name = "tiny"
input = [2, 9, 7]
[[layer]]
name = "conv"
type = "conv"
channels = 5
kernel = 3
activation = "prelu"
[[layer]]
name = "spp"
type = "spp"
bins = [3, 1]
[[layer]]
name = "fc"
type = "linear"
outputs = 3
"#;

/// Large images of which the first layer leaves little.
const MANY: &str = r#"name = "many"
input = [3, 4096, 4096]
[[layer]]
name = "conv"
type = "conv"
channels = 4
kernel = 7
stride = 16
[[layer]]
name = "pool"
type = "global-max-pool"
[[layer]]
name = "fc"
type = "linear"
outputs = 12
"#;

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rectify"));
    command.arg("bench-infer").args(args);
    command
}

fn stdout(out: &Output) -> String {
    String::from_utf8(out.stdout.clone()).unwrap()
}

/// Exit code and the one line of the error.
fn refusal(args: &[&str]) -> (i32, String) {
    let out = command(args).output().unwrap();
    let text = String::from_utf8(out.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
    assert!(text.starts_with("error: "), "{args:?}: {text}");
    (out.status.code().unwrap(), text)
}

/// Runs it with `--json` and an instruction set, and gives the record back with what was printed.
fn record(isa: Isa, args: &[&str]) -> (Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.json");
    let all = [&["--seconds", "0", "--json", path.to_str().unwrap()], args].concat();
    let out = command(&all).env("RECTIFY_ISA", isa.name()).output().unwrap();
    assert!(out.status.success(), "{all:?}: {}", String::from_utf8_lossy(&out.stderr));
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!((text.lines().count(), std::fs::read_dir(folder.path()).unwrap().count()), (1, 1));
    (serde_json::from_str(&text).unwrap(), stdout(&out))
}

#[test]
fn a_pass_is_timed_checked_and_recorded_on_every_instruction_set() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tiny.toml");
    std::fs::write(&file, TINY).unwrap();
    let mut errors = Vec::new();
    for isa in Isa::available() {
        let args = ["--model", file.to_str().unwrap(), "--batch", "4", "--threads", "2", "--check"];
        let (r, text) = record(isa, &args);
        let keys: Vec<&str> = r.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, KEYS);
        assert_eq!((&r["model"], &r["isa"]), (&"tiny".into(), &isa.name().into()));
        assert_eq!((&r["batch"], &r["threads"]), (&4.into(), &2.into()));
        let number = |key: &str| r[key].as_f64().unwrap_or_else(|| panic!("{key} is {}", r[key]));
        assert!(number("s_per_batch") > 0.0);
        assert!((number("images_per_s") * number("s_per_batch") / 4.0 - 1.0).abs() < 1e-9);
        // 7×5 pixels of 5 channels of 2×3×3 weights, then 3 times 5 channels of 3×3 + 1 bins.
        let flops = 2.0 * 4.0 * f64::from(7 * 5 * 5 * 18 + 3 * 50);
        assert!((number("gflops") * number("s_per_batch") / flops * 1e9 - 1.0).abs() < 1e-9, "{r}");
        assert!(number("max_rel_err") < 1e-5);
        errors.push(number("max_rel_err"));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], format!("tiny, {isa}, 2 threads"), "{text}");
        assert!(lines.len() == 3 && lines[1].contains("images/s") && lines[1].len() == lines[2].len(), "{text}");
    }
    assert!(errors.iter().all(|&e| e == errors[0]), "the same bits give the same error: {errors:?}");
}

#[test]
fn without_a_check_nothing_is_said_about_errors() {
    let (r, text) = record(Isa::Portable, &["--model", "shapes-small", "--threads", "1"]);
    assert!(r["max_rel_err"].is_null() && !text.contains("error"), "{text}");
    assert_eq!((&r["model"], &r["batch"]), (&"shapes-small".into(), &1.into()));
}

#[test]
fn a_profile_has_a_line_a_layer_and_their_shares_are_the_whole() {
    let args = ["--model", "cifar-small", "--batch", "2", "--threads", "2"];
    let (_, plain) = record(Isa::best().unwrap(), &args);
    let (_, text) = record(Isa::best().unwrap(), &[&args[..], &["--profile"]].concat());
    let rows: Vec<Vec<&str>> = text.lines().skip(3).map(|line| line.split_whitespace().collect()).collect();
    let model = rectify::model::Model::built_in("cifar-small").unwrap();
    // Dropout does nothing here.
    let names = model.layers.iter().map(|l| l.name.as_str()).filter(|name| !name.starts_with("drop"));
    assert!(rows.iter().map(|row| row[0]).eq(names) && plain.lines().count() == 3, "{text}");
    let number = |cell: &str| cell.parse::<f64>().unwrap();
    let (sum, shares) =
        (rows.iter().map(|r| number(r[1])).sum::<f64>(), rows.iter().map(|r| number(r[3])).sum::<f64>());
    // Shares are rounded to a tenth, times to a thousandth.
    assert!((shares - 100.0).abs() <= 0.05 * rows.len() as f64 + 1e-9, "{text}");
    for row in &rows {
        let slack = 0.05 + 100.0 * 0.0005 * (1.0 + number(row[3]) / 100.0 * rows.len() as f64) / sum;
        assert!((number(row[1]) / sum * 100.0 - number(row[3])).abs() <= slack + 1e-9, "{row:?} of {sum}: {text}");
        assert!(row[2] == "ms" && row[4] == "%" && row.len() == 6, "{row:?}");
    }
}

#[test]
fn wrong_usage_ends_with_2_and_names_the_value() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("odd.toml");
    std::fs::write(&file, TINY.replace("kernel = 3", "kernel = 10")).unwrap();
    for (args, part) in [
        (["--batch", "0"], "batch = 0"),
        (["--batch", "65537"], "batch = 65537"),
        (["--batch", "many"], "'many'"),
        (["--threads", "0"], "threads = 0"),
        (["--threads", "1000000000000"], "threads = 1000000000000"),
        (["--seconds", "-1"], "-1"),
        (["--seconds=inf", "--check"], "inf"),
        (["--sideways", "1"], "--sideways"),
        (["--model", "resnet"], "\"resnet\""),
        (["--model", file.to_str().unwrap()], "odd.toml: line 3: layer \"conv\": kh = 10"),
    ] {
        let model = if args[0] == "--model" { [].as_slice() } else { &["--model", "shapes-small"] };
        let (code, text) = refusal(&[&args, model].concat());
        assert!(code == 2 && text.contains(part), "{args:?}: {code} {text}");
    }
    assert_eq!(refusal(&["--batch", "1"]).0, 2, "without a model");
    let out = command(&["--model", "shapes-small"]).env("RECTIFY_ISA", "sse9").output().unwrap();
    assert_eq!((out.status.code(), stdout(&out).as_str()), (Some(2), ""));
}

#[test]
fn failures_end_with_1_and_leave_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let in_folder = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (wide, steep, json) = (in_folder("wide.toml"), in_folder("steep.toml"), in_folder("out.json"));
    std::fs::write(&wide, TINY.replace("channels = 5", "channels = 100000000000000")).unwrap();
    // Scores that overflow to infinity have no error.
    std::fs::write(&steep, TINY.replace("\"prelu\"", "\"prelu\"\nslope = -3e38")).unwrap();
    // A net that itself needs little, for its images pass one by one, and whose images need more than there is.
    let many = in_folder("many.toml");
    std::fs::write(&many, MANY).unwrap();
    for (args, part) in [
        (vec!["--model", &many, "--batch", "65536", "--json", &json], "MiB, more than there is"),
        (vec!["--model", &in_folder("none.toml")], "none.toml"),
        (vec!["--model", "shapes-small", "--json", &in_folder("none/out.json")], "none/out.json"),
        (vec!["--model", "shapes-small", "--json", folder.path().to_str().unwrap()], "regular file"),
        (vec!["--model", &wide, "--json", &json], "MiB, more than there is"),
    ] {
        let (code, text) = refusal(&args);
        assert!(code == 1 && text.contains(part), "{args:?}: {code} {text}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "the models alone");
    let (code, text) = refusal(&["--model", &steep, "--check", "--seconds", "0"]);
    assert!(code == 1 && text.contains("of the largest"), "{code} {text}");
}
