//! `rectify bench` and `rectify info` as their users run them.

use rectify_kernels::Isa;
use serde_json::Value;
use std::{
    path::Path,
    process::{Command, Output},
};

const KEYS: [&str; 16] = [
    "add_gbytes_per_s",
    "name",
    "problem",
    "direction",
    "algorithm",
    "layout",
    "kernel",
    "isa",
    "threads",
    "median_s",
    "gflops",
    "peak_gflops",
    "ratio_to_peak",
    "gbytes_per_s",
    "max_rel_err",
    "exact",
];
const SMALL: &str = r#"g2mb2ic6ih9oc34oh5kh3sh2ph1n"small""#;

fn rectify(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rectify")).args(args).output().unwrap()
}

fn stdout(out: &Output) -> String {
    String::from_utf8(out.stdout.clone()).unwrap()
}

/// Exit code and the one line of the error.
fn refusal(args: &[&str]) -> (i32, String) {
    let out = rectify(args);
    let text = String::from_utf8(out.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
    assert!(text.starts_with("error: "), "{args:?}: {text}");
    (out.status.code().unwrap(), text)
}

/// Runs `bench` with `--json` and gives the lines back.
fn records(args: &[&str]) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let all = [&["bench", "--seconds", "0", "--json", path.to_str().unwrap()], args].concat();
    let out = rectify(&all);
    assert!(out.status.success(), "{all:?}: {}", String::from_utf8_lossy(&out.stderr));
    let text = std::fs::read_to_string(&path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_direction_on_every_instruction_set_is_checked_and_recorded() {
    for isa in Isa::available() {
        for direction in ["forward", "backward-data", "backward-weights", "prelu-forward", "prelu-backward"] {
            let args = ["--problem", SMALL, "--isa", isa.name(), "--direction", direction, "--check", "--threads", "2"];
            let found = records(&args);
            assert_eq!(found.len(), 1);
            let r = found[0].as_object().unwrap();
            let mut keys: Vec<&str> = r.keys().map(String::as_str).collect();
            let mut want = KEYS.to_vec();
            keys.sort_unstable();
            want.sort_unstable();
            assert_eq!(keys, want);
            assert_eq!(r["name"], "small");
            assert_eq!(r["problem"], r#"g2mb2ic6ih9iw9oc34oh5ow5kh3kw3sh2sw2ph1pw1dh0dw0n"small""#);
            assert_eq!((&r["direction"], &r["isa"], &r["threads"]), (&direction.into(), &isa.name().into(), &2.into()));
            assert_eq!(r["exact"], true, "{isa} {direction}");
            assert!(r["max_rel_err"].as_f64().unwrap() < 1e-5, "{isa} {direction}");
            assert_eq!(r["layout"].as_str(), (direction == "forward").then_some("blocked"));
            assert!(!r["kernel"].as_str().unwrap().is_empty());
            let median = r["median_s"].as_f64().unwrap();
            assert!(median > 0.0);
            let number = |key: &str| r[key].as_f64().unwrap_or_else(|| panic!("{direction}: {key} is {}", r[key]));
            let near = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-9;
            if direction.starts_with("prelu") {
                let passes = if direction == "prelu-forward" { 2.0 } else { 3.0 };
                assert!(near(number("gbytes_per_s"), passes * 4.0 * (2 * 34 * 25) as f64 / median / 1e9));
                assert_eq!(r["add_gbytes_per_s"].as_f64().is_some_and(|x| x > 0.0), direction == "prelu-backward");
                for key in ["algorithm", "gflops", "peak_gflops", "ratio_to_peak"] {
                    assert!(r[key].is_null(), "{direction}: {key}");
                }
            } else {
                assert!(near(number("gflops"), 2.0 * (2 * 34 * 25 * 3 * 9) as f64 / median / 1e9));
                assert!(near(number("ratio_to_peak"), number("gflops") / number("peak_gflops")));
                assert_eq!(r["algorithm"], "auto");
                assert!(r["gbytes_per_s"].is_null());
            }
        }
    }
}

#[test]
fn without_a_check_nothing_is_said_about_errors() {
    let found = records(&["--problem", "ic1iw9oc1kw3", "--threads", "1", "--algorithm", "direct"]);
    assert!(found[0]["max_rel_err"].is_null() && found[0]["exact"].is_null());
    assert_eq!(found[0]["algorithm"], "direct");
    assert_eq!(found[0]["name"], found[0]["problem"], "without a name the descriptor stands for it");
}

#[test]
fn a_layout_is_measured_checked_and_recorded() {
    // Between blocks of 16 channels a vector holds channels, between planes pixels.
    let args = ["--problem", "mb2ic32ih9oc12oh9kh3ph1", "--threads", "2", "--check"];
    let kernels = ["blocked", "nchw"].map(|layout| {
        let found = &records(&[&args[..], &["--layout", layout]].concat())[0];
        assert_eq!((&found["layout"], &found["exact"]), (&layout.into(), &true.into()));
        found["kernel"].as_str().unwrap().to_owned()
    });
    assert!(!kernels[0].starts_with("planar-") && kernels[1].starts_with("planar-"), "{kernels:?}");
    let text = stdout(&rectify(&[&["bench", "--seconds", "0", "--layout", "nchw"], &args[..]].concat()));
    assert!(text.lines().next().unwrap().ends_with(", 2 threads, NCHW"), "{text}");
}

#[test]
fn files_and_names_of_the_built_in_list_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("list.txt");
    std::fs::write(&file, "# two\nic3ih5oc4kh3n\"first\"\n\nic3iw7oc4kw3n\"second\"\n").unwrap();
    let found = records(&[file.to_str().unwrap(), "--problem", "mobileface.dw", "--threads", "1"]);
    let names: Vec<&str> = found.iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["first", "second", "mobileface.dw"]);
    assert!(found[2]["problem"].as_str().unwrap().starts_with("g128mb1ic128ih56"), "{}", found[2]);
}

#[test]
fn the_table_is_aligned() {
    let args = ["bench", "--problem", SMALL, "--problem", "ic3ih5oc4kh3", "--check", "--seconds", "0"];
    let text = stdout(&rectify(&args));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    let kernel = lines[1].find("kernel").unwrap();
    for line in &lines[2..] {
        assert!(!line[kernel..].starts_with(' ') && line[..kernel].ends_with("yes  "), "{text}");
    }
}

#[test]
fn wrong_usage_ends_with_2_and_names_the_value() {
    let unsupported = Isa::ALL.into_iter().find(|isa| !isa.is_available()).unwrap();
    for (args, part) in [
        (["--direction", "sideways"], "\"sideways\""),
        (["--algorithm", "magic"], "\"magic\""),
        (["--isa", "sse9"], "\"sse9\""),
        (["--isa", unsupported.name()], unsupported.name()),
        (["--problem", "ic3id8ih8oc4kh3"], "id8: 3-D"),
        (["--problem", "A.conv9"], "\"A.conv9\""),
        (["--threads", "0"], "threads = 0"),
        (["--threads", "1000000000000"], "threads = 1000000000000"),
        (["--seconds", "-1"], "-1"),
        (["--seconds=nan", "--check"], "NaN"),
        (["--sideways", "1"], "--sideways"),
    ] {
        let (code, text) = refusal(&["bench", args[0], args[1]]);
        assert!(code == 2 && text.contains(part), "{args:?}: {code} {text}");
    }
    for (direction, option, value) in [
        ("backward-data", "--layout", "nchw"),
        ("prelu-forward", "--layout", "nchw"),
        ("prelu-backward", "--algorithm", "direct"),
    ] {
        let (code, text) = refusal(&["bench", "--direction", direction, option, value]);
        let part = format!("{value}: {direction} has no such choice");
        assert!(code == 2 && text.contains(&part), "{code} {text}");
    }
}

#[test]
fn failures_end_with_1_and_leave_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let in_folder = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (bad, empty, json) = (in_folder("bad.txt"), in_folder("empty.txt"), in_folder("out.json"));
    std::fs::write(&bad, "ic3ih8oc4kh3\nic3id8ih8oc4kh3\n").unwrap();
    std::fs::write(&empty, "# nothing\n").unwrap();
    let huge = "mb100000ic100000ih10000oc1kh1n\"huge\"";
    for (args, part) in [
        (vec![in_folder("none.txt").as_str()], "none.txt"),
        (vec![&bad], "bad.txt: line 2: id8: 3-D"),
        (vec![&empty], "empty.txt: holds no problem"),
        (vec!["--problem", SMALL, "--json", &in_folder("none/out.json")], "none/out.json"),
        (vec!["--problem", SMALL, "--problem", huge, "--seconds", "0", "--json", &json], "huge: the tensors need"),
    ] {
        let (code, text) = refusal(&[&["bench"], &*args].concat());
        assert!(code == 1 && text.contains(part), "{args:?}: {code} {text}");
    }
    assert!(!Path::new(&json).exists());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn the_environment_chooses_and_is_checked() {
    let run = |isa: &str| {
        let args = ["bench", "--problem", SMALL, "--seconds", "0"];
        Command::new(env!("CARGO_BIN_EXE_rectify")).args(args).env("RECTIFY_ISA", isa).output().unwrap()
    };
    assert!(stdout(&run("portable")).starts_with("forward, portable, "));
    let out = run("sse9");
    assert_eq!((out.status.code(), stdout(&out).as_str()), (Some(2), ""));
    assert!(String::from_utf8_lossy(&out.stderr).contains("\"sse9\""));
}

#[test]
fn info_describes_the_machine() {
    let out = rectify(&["info", "--threads", "1"]);
    assert!(out.status.success());
    let text = stdout(&out);
    let has = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    for isa in Isa::ALL {
        assert_eq!(has(isa.name()), 1, "{isa}: {text}");
    }
    assert_eq!((has("processor "), has("threads "), has("FMA peak "), has("memory ")), (1, 1, 1, 1), "{text}");
    // Each cache beyond the first with its size, then with its bandwidth.
    let caches = text.lines().filter(|line| line.starts_with('L') && !line.starts_with("L1"));
    let (speeds, sizes): (Vec<_>, Vec<_>) = caches.partition(|line| line.contains(" GB/s read, "));
    assert_eq!(speeds.len(), sizes.len(), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains(" chosen")).count(), 1 + text.matches("not chosen").count());
    assert_eq!(refusal(&["info", "--threads", "0"]).0, 2);
}

#[test]
fn an_audit_is_of_algorithms() {
    let small = ["bench", "--audit", "--problem", "mb1ic16ih8oc16oh8kh3ph1", "--seconds", "0", "--threads", "1"];
    let (code, error) = refusal(&[&small[..], &["--direction", "prelu-backward"]].concat());
    assert!(code == 2 && error.contains("--audit: prelu-backward has no algorithms"), "{error}");
    let (code, error) = refusal(&[&small[..], &["--algorithm", "direct"]].concat());
    assert!(code == 2 && error.contains("--algorithm"), "{error}");
    // Of a single algorithm it cannot fail.
    let alone = ["--audit", "--problem", "ic32ih4oc16kh1n\"pointwise\"", "--seconds", "0", "--threads", "1"];
    let out = rectify(&[&["bench"], &alone[..]].concat());
    let text = stdout(&out);
    let cells: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
    assert!(out.status.success() && cells.len() == 5 && cells[0] == "pointwise" && cells[3..] == ["-", "-"], "{text}");
    assert!(cells[1..3].iter().all(|ratio| ratio.parse::<f64>().unwrap() > 0.0), "{text}");
}
