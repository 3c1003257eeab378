//! `rectify bench-train` as its users run it.

use rectify_kernels::Isa;
use serde_json::Value;
use std::process::{Command, Output};

const KEYS: [&str; 10] =
    ["batch", "data", "images_per_s", "isa", "model", "peak_mib", "s_per_step", "steps", "threads", "wait_share"];

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
name = "drop"
type = "dropout"
rate = 0.5
[[layer]]
name = "fc"
type = "linear"
outputs = 3
[training]
batch = 6
"#;

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rectify"));
    command.arg("bench-train").args(args);
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
    let all = [&["--json", path.to_str().unwrap()], args].concat();
    let out = command(&all).env("RECTIFY_ISA", isa.name()).output().unwrap();
    assert!(out.status.success(), "{all:?}: {}", String::from_utf8_lossy(&out.stderr));
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!((text.lines().count(), std::fs::read_dir(folder.path()).unwrap().count()), (1, 1));
    (serde_json::from_str(&text).unwrap(), stdout(&out))
}

#[test]
fn a_step_is_timed_and_recorded_on_every_instruction_set() {
    for isa in Isa::available() {
        let args = ["--model", "shapes-small", "--batch", "9", "--threads", "2", "--steps", "3", "--seed", "4"];
        let (r, text) = record(isa, &args);
        let keys: Vec<&str> = r.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, KEYS);
        assert_eq!((&r["model"], &r["isa"]), (&"shapes-small".into(), &isa.name().into()));
        assert_eq!((&r["batch"], &r["threads"], &r["steps"]), (&9.into(), &2.into(), &3.into()));
        let number = |key: &str| r[key].as_f64().unwrap_or_else(|| panic!("{key} is {}", r[key]));
        assert!(number("s_per_step") > 0.0);
        assert!((number("images_per_s") * number("s_per_step") / 9.0 - 1.0).abs() < 1e-9);
        if cfg!(target_os = "linux") {
            // More than the images and the weights alone.
            assert!(number("peak_mib") > (4 * (9 * 3 * 32 * 32 + 50_000)) as f64 / f64::from(1 << 20), "{r}");
        } else {
            assert!(r["peak_mib"].is_null());
        }
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], format!("shapes-small, {isa}, 2 threads"), "{text}");
        assert!(lines.len() == 3 && lines[1].contains("images/s") && lines[1].len() == lines[2].len(), "{text}");
    }
}

#[test]
fn a_model_of_ones_own_says_its_batch_and_five_steps_are_timed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tiny.toml");
    std::fs::write(&file, TINY).unwrap();
    let (r, _) = record(Isa::Portable, &["--model", file.to_str().unwrap(), "--threads", "1"]);
    assert_eq!((&r["model"], &r["batch"], &r["steps"]), (&"tiny".into(), &6.into(), &5.into()));
}

#[test]
fn a_data_set_is_fed_and_the_profile_adds_up() {
    let args = ["--model", "cifar-small", "--batch", "30", "--threads", "2", "--steps", "2"];
    let (r, text) = record(Isa::best().unwrap(), &[&args[..], &["--data", "shapes", "--profile"]].concat());
    let wait = r["wait_share"].as_f64().unwrap();
    assert!(r["data"] == "shapes" && (0.0..1.0).contains(&wait), "{r}");
    assert!(text.contains("on shapes") && text.contains("waiting for images"), "{text}");
    let row = |name: &str| -> Vec<String> {
        let line = text.lines().find(|l| l.split_whitespace().next() == Some(name));
        line.unwrap_or_else(|| panic!("no {name}: {text}")).split_whitespace().map(String::from).collect()
    };
    let number = |cell: &str| if cell == "-" { 0.0 } else { cell.parse::<f64>().unwrap() };
    // Name, six passes, their sum, the share.
    let rows = ["images", "loss", "wait", "other"].map(row).to_vec();
    let model = rectify::model::Model::built_in("cifar-small").unwrap();
    let rows: Vec<_> = model.layers.iter().map(|l| row(&l.name)).chain(rows).collect();
    let (sum, step) = (rows.iter().map(|r| number(&r[7])).sum::<f64>(), row("step"));
    // Each of them is rounded to a hundredth.
    let slack = 0.005 * (rows.len() + 1) as f64 + 1e-9;
    assert!((sum - number(&step[7])).abs() <= slack, "{sum}: {text}");
    for r in &rows[..model.layers.len()] {
        assert!((r[1..7].iter().map(|c| number(c)).sum::<f64>() - number(&r[7])).abs() <= 0.04, "{r:?}");
    }
    let mib = |kind: &str| {
        let line = text.lines().rfind(|l| l.starts_with(kind)).unwrap_or_else(|| panic!("no {kind}: {text}"));
        number(line.split_whitespace().nth(1).unwrap())
    };
    // Rounded to a tenth.
    let near = |got: f64, floats: usize| (got - (4 * floats) as f64 / f64::from(1 << 20)).abs() < 0.0501;
    let parameters = rectify::nn::Parameters::initial(&model, 1).unwrap();
    let parameters: usize = parameters.iter().map(|p| p.value.len()).sum();
    assert!(near(mib("weights"), parameters) && near(mib("momentum"), parameters), "{parameters}: {text}");
    // At least every layer's output but dropout's, of 30 images.
    let kept = 30 * (32 * 32 * 32 + 2 * 64 * 16 * 16 + 2 * 128 * 8 * 8);
    assert!(mib("activations") > (4 * kept) as f64 / f64::from(1 << 20), "{text}");
    assert!(["gradients", "workspace", "packed"].into_iter().all(|kind| mib(kind) > 0.0), "{text}");
    if cfg!(target_os = "linux") {
        let kinds = ["weights", "momentum", "activations", "gradients", "workspace", "packed"];
        assert!(kinds.into_iter().map(mib).sum::<f64>() <= mib("peak") + 0.4, "{text}");
    }
    let (plain, text) = record(Isa::best().unwrap(), &args);
    assert!(plain["data"].is_null() && plain["wait_share"].is_null() && !text.contains("momentum"), "{text}");
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
        (["--steps", "0"], "steps = 0"),
        (["--seed", "-1"], "-1"),
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
    std::fs::write(&steep, TINY.replace("\"prelu\"", "\"prelu\"\nslope = 3e38")).unwrap();
    for (args, part) in [
        (vec!["--model", &in_folder("none.toml")], "none.toml"),
        (vec!["--model", "shapes-small", "--batch", "1", "--json", &in_folder("none/out.json")], "none/out.json"),
        (vec!["--model", "shapes-small", "--batch", "1", "--json", folder.path().to_str().unwrap()], "regular file"),
        (vec!["--model", &wide, "--json", &json], "MiB, more than there is"),
        (vec!["--model", "shapes-small", "--data", &in_folder("nowhere"), "--json", &json], "nowhere"),
        (vec!["--model", "shapes-small", "--data", "shapes", "--batch", "65536", "--json", &json], "fewer than 65536"),
        (vec!["--model", &steep, "--json", &json], "the loss became NaN"),
    ] {
        let (code, text) = refusal(&args);
        assert!(code == 1 && text.contains(part), "{args:?}: {code} {text}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "the models alone");
}
