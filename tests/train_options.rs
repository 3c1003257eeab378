//! `rectify train` from weights of one's own, in the data's own order, with a log of its steps.

use rectify::checkpoint::Checkpoint;
use rectify::data::{self, Normalise};
use rectify::model::Model;
use rectify::nn::Role;
use rectify::train::{StepRecord, Stepper};
use rectify_kernels::Isa;
use std::path::Path;
use std::process::{Command, Output};

fn train(out: &Path, args: &[&str]) -> Output {
    let out = out.to_str().unwrap();
    let all = [&["train", "--model", "shapes-small", "--batch", "20", "--threads", "2", "--out", out], args].concat();
    Command::new(env!("CARGO_BIN_EXE_rectify")).args(all).output().unwrap()
}

fn success(out: &Path, args: &[&str]) -> Checkpoint {
    let done = train(out, args);
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    Checkpoint::load(&out.join("checkpoint.safetensors")).unwrap()
}

fn steps(path: &Path) -> Vec<StepRecord> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What the options say is what a step of one's own gives, bit for bit.
#[test]
fn steps_are_those_of_the_weights_and_the_order_that_are_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let log = at("steps.jsonl");
    let log_arg = log.to_str().unwrap();
    // Weights that another seed gave and some steps have moved.
    let start = success(&at("first"), &["--seed", "9", "--steps", "3"]);
    let weights = at("first").join("checkpoint.safetensors");
    let plain = ["--weights", weights.to_str().unwrap(), "--shuffle", "false", "--flip", "false", "--crop", "0"];
    let more = ["--seed", "9", "--schedule", "constant", "--lr", "0.005", "--steps", "4", "--step-log", log_arg];
    let end = success(&at("second"), &[&plain[..], &more].concat());

    let dataset = data::load("shapes", 9).unwrap();
    let normalise = Normalise::of(&dataset.train).unwrap();
    let model = Model::built_in("shapes-small").unwrap();
    let mut stepper = Stepper::new(&model, Isa::best().unwrap(), 20, 9).unwrap();
    // The first three steps once more: the stepper has no other way to these weights.
    let order = rectify::data::Epoch { seed: 9, number: 0 }.order(dataset.train.len() as u32);
    let augment = model.training.augment();
    let again = success(&at("third"), &["--seed", "9", "--steps", "3", "--step-log", log_arg]);
    assert!(again.to_bytes().unwrap() == start.to_bytes().unwrap(), "the log changes nothing");
    let (mut pixels, mut labels) = (vec![0.0; 20 * dataset.train.image_len()], vec![0; 20]);
    for (step, record) in steps(&log).into_iter().enumerate() {
        let varied = Some((augment, rectify::data::Epoch { seed: 9, number: 0 }));
        data::batch(&dataset.train, &order[20 * step..][..20], &normalise, varied, &mut pixels, &mut labels).unwrap();
        stepper.lr = record.lr;
        let sums = stepper.step(&pixels, &labels).unwrap();
        assert_eq!(record.loss.to_bits(), (sums.loss / 20.0).to_bits(), "step {step}");
        assert_eq!((record.step, record.accuracy), (step as u64 + 1, sums.correct as f64 / 20.0));
    }
    assert_eq!(steps(&log).len(), 3);
    assert!(stepper.parameters().iter().zip(start.parameters.iter()).all(|(a, b)| a.value[..] == b.value[..]));

    // Now in order, as they are.
    let order: Vec<u32> = (0..20).collect();
    data::batch(&dataset.train, &order, &normalise, None, &mut pixels, &mut labels).unwrap();
    let first_loss = stepper.gradients(&pixels, &labels).unwrap().loss / 20.0;
    let end_again = success(&at("fourth"), &[&plain[..], &more].concat());
    assert!(end.to_bytes().unwrap() == end_again.to_bytes().unwrap());
    let found = steps(&log);
    assert_eq!((found.len(), found[0].loss.to_bits()), (4, first_loss.to_bits()));
    assert!(found.iter().all(|s| s.lr == 0.005));
    for (p, before) in end.parameters.iter().zip(start.parameters.iter()) {
        assert!(p.value[..] != before.value[..], "{} has not moved", p.name);
    }
}

/// A run with hyper-parameters of the command line is the run of a model that says them, bit for bit, and each of them
/// changes it.
#[test]
fn hyper_parameters_are_those_of_the_command_line() {
    let home = tempfile::tempdir().unwrap();
    let dataset = data::load("shapes", 9).unwrap();
    let normalise = Normalise::of(&dataset.train).unwrap();
    let epoch = rectify::data::Epoch { seed: 9, number: 0 };
    let order = epoch.order(dataset.train.len() as u32);
    let (mut pixels, mut labels) = (vec![0.0; 20 * dataset.train.image_len()], vec![0; 20]);
    let mut ends = Vec::new();
    for (number, said) in [
        ["0.9", "0.001", "he", "0"],
        ["0.5", "0.001", "he", "0"],
        ["0.9", "0.25", "he", "0"],
        ["0.9", "0.001", "xavier", "0"],
        ["0.9", "0.001", "he", "3"],
    ]
    .into_iter()
    .enumerate()
    {
        let [momentum, weight_decay, init, crop] = said;
        let hyper = ["--momentum", momentum, "--weight-decay", weight_decay, "--init", init, "--crop", crop];
        let plain = ["--seed", "9", "--steps", "3", "--schedule", "constant", "--lr", "0.01", "--flip", "false"];
        let end = success(&home.path().join(number.to_string()), &[&plain[..], &hyper].concat());

        let mut model = Model::built_in("shapes-small").unwrap();
        model.training.momentum = momentum.parse().unwrap();
        model.training.weight_decay = weight_decay.parse().unwrap();
        model.training.init = init.parse().unwrap();
        model.training.lr = 0.01;
        (model.training.crop, model.training.flip) = (crop.parse().unwrap(), false);
        let mut stepper = Stepper::new(&model, Isa::best().unwrap(), 20, 9).unwrap();
        for chosen in order.chunks(20).take(3) {
            let varied = Some((model.training.augment(), epoch));
            data::batch(&dataset.train, chosen, &normalise, varied, &mut pixels, &mut labels).unwrap();
            stepper.step(&pixels, &labels).unwrap();
        }
        for (got, want) in end.parameters.iter().zip(stepper.parameters().iter()) {
            assert!(bits(&got.value).eq(bits(&want.value)), "{said:?}: {}", got.name);
        }
        ends.push(bits(&end.parameters[0].value).collect::<Vec<_>>());
    }
    assert!(ends[1..].iter().all(|end| end != &ends[0]), "an option that changes nothing");
}

fn bits(values: &[f32]) -> impl Iterator<Item = u32> {
    values.iter().map(|v| v.to_bits())
}

/// The factor is part of a run: slopes of factor 0 stay, in a run that goes on, too; 1 is as if nothing was said.
#[test]
fn slopes_learn_at_a_rate_of_their_own() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let plain = success(&at("plain"), &["--steps", "3"]);
    let one = success(&at("one"), &["--steps", "3", "--slope-lr", "1"]);
    assert!(plain.to_bytes().unwrap() == one.to_bytes().unwrap());
    let slopes = |c: &Checkpoint| -> Vec<f32> {
        c.parameters.iter().filter(|p| p.role == Role::Slopes).flat_map(|p| p.value.to_vec()).collect()
    };
    let still = success(&at("still"), &["--steps", "3", "--slope-lr", "0"]);
    let file = at("still").join("checkpoint.safetensors");
    let args = ["train", "--resume", file.to_str().unwrap(), "--steps", "5"];
    let done = Command::new(env!("CARGO_BIN_EXE_rectify")).args(args).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let on = Checkpoint::load(&file).unwrap();
    assert_eq!((on.progress.steps, on.model.training.slope_lr), (5, 0.0));
    for checkpoint in [&still, &on] {
        assert!(slopes(checkpoint).iter().all(|&a| a == 0.25));
        assert!(checkpoint.parameters[0].value[..] != plain.parameters[0].value[..]);
    }
    assert!(slopes(&plain).iter().any(|&a| a != 0.25));
    let refused = train(&at("wrong"), &["--slope-lr", "-1"]);
    let error = String::from_utf8(refused.stderr).unwrap();
    assert_eq!((refused.status.code(), error.contains("slope_lr = -1: it must be finite")), (Some(2), true), "{error}");
}

#[test]
fn weights_that_do_not_fit_are_refused_and_leave_nothing() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    std::fs::write(at("text.safetensors"), "no tensors").unwrap();
    success(&at("run"), &["--steps", "1"]);
    let good = at("run").join("checkpoint.safetensors");
    let (good, text) = (good.to_str().unwrap(), at("text.safetensors"));
    let mut bytes = std::fs::read(good).unwrap();
    let name = b"features.0.weight";
    let place = bytes.windows(name.len()).position(|w| w == name).unwrap();
    bytes[place] = b'F';
    std::fs::write(at("named.safetensors"), bytes).unwrap();
    for (args, code, part) in [
        (vec!["--weights", "none.safetensors"], 1, "none.safetensors"),
        (vec!["--weights", text.to_str().unwrap()], 1, "text.safetensors: damaged"),
        (vec!["--weights", at("named.safetensors").to_str().unwrap()], 1, "features.0.weight"),
        (vec!["--weights", good, "--init", "he"], 2, "--init"),
        (vec!["--weights", good, "--resume", good], 2, "--resume"),
        (vec!["--shuffle", "perhaps"], 2, "perhaps"),
        (vec!["--shuffle", "false", "--resume", good], 2, "--resume"),
        (vec!["--step-log", at("no/such/log").to_str().unwrap()], 1, "no/such/log"),
    ] {
        // The common options clash with --resume: only what the case is about may be said.
        let args = [&["train"], &args[..]].concat();
        let done = Command::new(env!("CARGO_BIN_EXE_rectify")).args(&args).current_dir(home.path()).output().unwrap();
        let error = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(code), "{args:?}: {error}");
        assert!(
            error.starts_with("error: ") && error.lines().count() == 1 && error.contains(part),
            "{args:?}: {error}"
        );
        assert!(!at("runs").join("shapes-small").join("checkpoint.safetensors").exists(), "{args:?}");
    }
}
