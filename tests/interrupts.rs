//! Runs that end before their time: by Ctrl-C, or because nobody reads what they say.
#![cfg(unix)]

use rectify::checkpoint::Checkpoint;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// An image folder on which an epoch is two steps.
fn images(folder: &Path) {
    for (path, value) in [("train/cat", 10), ("train/dog", 200), ("test/cat", 20), ("test/dog", 180)] {
        std::fs::create_dir_all(folder.join(path)).unwrap();
        for i in 0..2u8 {
            let image = image::RgbImage::from_pixel(12, 12, image::Rgb([value, 3 * i, 90]));
            image.save(folder.join(path).join(format!("{i}.png"))).unwrap();
        }
    }
}

/// A run of far more epochs than pass before it is ended, with what it says once it has told of an epoch.
fn started(home: &Path) -> (Child, BufReader<ChildStdout>) {
    images(&home.join("set"));
    let args = ["train", "--data", "set", "--batch", "2", "--epochs", "20000", "--threads", "2", "--out", "run"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_rectify"));
    command.args(args).current_dir(home).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("epoch ") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "it has ended: {:?}", child.wait_with_output());
    }
    (child, said)
}

fn checkpoint(home: &Path) -> Checkpoint {
    Checkpoint::load(&home.join("run/checkpoint.safetensors")).unwrap()
}

#[test]
fn ctrl_c_ends_a_run_after_the_step_with_a_checkpoint_that_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let (mut child, mut said) = started(home.path());
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut text = String::new();
    said.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    let steps = checkpoint(home.path()).progress.steps;
    assert!(steps >= 2 && text.contains("go on with: rectify train --resume run/checkpoint.safetensors"), "{text}");
    assert!(text.trim_end().ends_with("written to run"), "{text}");
    // With the options that it names, one step more.
    let line = text.lines().find_map(|l| l.strip_prefix("go on with: rectify ")).unwrap();
    let more = (steps + 1).to_string();
    let args = line.split_whitespace().chain(["--steps", &more]);
    let done = Command::new(env!("CARGO_BIN_EXE_rectify")).args(args).current_dir(home.path()).output().unwrap();
    assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(checkpoint(home.path()).progress.steps, steps + 1);
}

#[test]
fn a_run_whose_output_nobody_reads_ends_with_1_and_a_checkpoint() {
    let home = tempfile::tempdir().unwrap();
    let (child, said) = started(home.path());
    drop(said);
    let end = child.wait_with_output().unwrap();
    let error = String::from_utf8(end.stderr).unwrap();
    assert_eq!(end.status.code(), Some(1), "{error}");
    assert!(error.lines().last().unwrap().starts_with("error: standard output: "), "{error}");
    assert!(checkpoint(home.path()).progress.steps >= 4);
}
