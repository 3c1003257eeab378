//! Training gives the same bytes on every instruction set, on any number of threads, stopped in the middle or not:
//! through the library, and through the command as its users run it.

use rectify::checkpoint::Checkpoint;
use rectify::data::{Dataset, Images};
use rectify::model::{Model, Op};
use rectify::nn::Parameters;
use rectify::rng::Rng;
use rectify::train::{Event, TrainError, Trainer};
use rectify_kernels::{ConvShape, Isa, conv};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

/// Every kind of layer but global average pooling and fully connected layers over more than a pixel: those are in
/// [`OTHER`] and [`spatial`]. 19 images make two groups of 8 and a rest; no count of channels is a multiple of 16.
const EVERY: &str = r#"name = "every"
input = [3, 13, 11]
[training]
epochs = 4
batch = 19
lr = 0.02
schedule = "plateau:1:0.5"
flip = true
crop = 2
[[layer]]
name = "padded"
type = "conv"
channels = 20
kernel = 3
padding = 1
activation = "prelu"
[[layer]]
name = "strided"
type = "conv"
channels = 36
kernel = 3
stride = 2
padding = 1
groups = 4
activation = "prelu-shared"
[[layer]]
name = "max"
type = "max-pool"
kernel = 3
stride = 1
padding = 1
[[layer]]
name = "dilated"
type = "conv"
channels = 33
kernel = 3
dilation = 2
padding = 2
groups = 3
activation = "leaky"
[[layer]]
name = "average"
type = "average-pool"
kernel = 3
stride = 2
padding = 1
[[layer]]
name = "depthwise"
type = "conv"
channels = 33
kernel = 2
groups = 33
activation = "prelu"
[[layer]]
name = "drop1"
type = "dropout"
rate = 0.25
[[layer]]
name = "global"
type = "global-max-pool"
[[layer]]
name = "fc1"
type = "linear"
outputs = 21
activation = "prelu"
[[layer]]
name = "drop2"
type = "dropout"
rate = 0.5
[[layer]]
name = "fc2"
type = "linear"
outputs = 5
"#;

const OTHER: &str = r#"name = "other"
input = [3, 13, 11]
[training]
epochs = 4
batch = 11
lr = 0.02
schedule = "cosine"
init = "he-slope"
[[layer]]
name = "drop0"
type = "dropout"
rate = 0.1
[[layer]]
name = "conv"
type = "conv"
channels = 17
kernel = 4
stride = 3
padding = 2
activation = "relu"
[[layer]]
name = "average"
type = "global-average-pool"
[[layer]]
name = "fc0"
type = "linear"
outputs = 50
activation = "prelu-shared"
[[layer]]
name = "fc1"
type = "linear"
outputs = 5
"#;

/// Winograd convolutions in all passes, of both kernels, with more tiles than a chunk of the weight gradient's sums
/// holds.
const TILED: &str = r#"name = "tiled"
input = [3, 13, 11]
[training]
epochs = 4
batch = 19
lr = 0.02
[[layer]]
name = "first"
type = "conv"
channels = 16
kernel = 3
padding = 1
activation = "prelu"
[[layer]]
name = "three"
type = "conv"
channels = 48
kernel = 3
padding = 1
activation = "prelu"
[[layer]]
name = "max"
type = "max-pool"
kernel = 2
stride = 1
[[layer]]
name = "two"
type = "conv"
channels = 64
kernel = 2
activation = "prelu-shared"
[[layer]]
name = "small"
type = "conv"
channels = 20
kernel = 3
activation = "relu"
[[layer]]
name = "fc"
type = "linear"
outputs = 5
"#;

/// Strided Winograd convolutions in all passes that training takes: that of a first layer, from planes, and two between
/// blocks.
const STRIDED: &str = r#"name = "strided"
input = [3, 48, 44]
[training]
epochs = 4
batch = 5
lr = 0.02
[[layer]]
name = "seven"
type = "conv"
channels = 32
kernel = 7
stride = 2
padding = 3
activation = "prelu"
[[layer]]
name = "three"
type = "conv"
channels = 64
kernel = 3
stride = 2
padding = 1
activation = "prelu"
[[layer]]
name = "five"
type = "conv"
channels = 32
kernel = 5
stride = 2
padding = 2
activation = "prelu-shared"
[[layer]]
name = "fc"
type = "linear"
outputs = 5
"#;

/// As [`OTHER`], but with a fully connected layer over an image in place of the global pooling.
fn spatial() -> String {
    let pooling = "[[layer]]\nname = \"average\"\ntype = \"global-average-pool\"\n";
    assert!(OTHER.contains(pooling));
    OTHER.replace(pooling, "").replace("\"other\"", "\"spatial\"")
}

/// Noise with a spot whose place is the class, so that there is something to learn.
fn images([c, h, w]: [usize; 3], count: usize, seed: u64) -> Images {
    let mut rng = Rng::new(seed, 99);
    let mut pixels: Vec<u8> = (0..count * c * h * w).map(|_| rng.below(256) as u8).collect();
    let labels: Vec<u32> = (0..count as u32).map(|i| i * 7 % 5).collect();
    for (image, label) in pixels.chunks_mut(c * h * w).zip(&labels) {
        image[(2 * *label as usize + 1) * w..][..w].fill(255);
    }
    Images { c, h, w, pixels, labels, disk: None }
}

fn dataset(size: [usize; 3]) -> Dataset {
    let classes = ["a", "b", "c", "d", "e"].map(String::from).to_vec();
    Dataset { name: "spots".into(), classes, train: images(size, 19 * 6 + 3, 1), test: images(size, 23, 2) }
}

/// The checkpoint after so many steps with so many threads.
fn train(text: &str, data: &Dataset, isa: Isa, threads: usize, steps: u64) -> Checkpoint {
    let run = || {
        let mut trainer = Trainer::new(Model::parse(text).unwrap(), data, 3, isa).unwrap();
        let mut quiet = |_: &Trainer<'_>, _: Event<'_>| -> Result<(), TrainError> { Ok(()) };
        trainer.run(Some(steps), &AtomicBool::new(false), &mut quiet).unwrap();
        assert_eq!(trainer.progress().steps, steps);
        trainer.checkpoint()
    };
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run)
}

/// Fails unless training has moved every tensor to numbers that are finite: equal bytes of an idle net prove nothing.
fn assert_moved(checkpoint: &Checkpoint) {
    let before = Parameters::initial(&checkpoint.model, checkpoint.progress.seed).unwrap();
    for ((old, new), velocity) in before.iter().zip(checkpoint.parameters.iter()).zip(&checkpoint.velocity) {
        let name = &checkpoint.model.layers[new.layer].name;
        assert!(new.value.iter().chain(velocity.iter()).all(|v| v.is_finite()), "{name} {:?}", new.role);
        let moved = old.value.iter().zip(new.value.iter()).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        assert!(2 * moved > new.value.len(), "{name} {:?}: {moved} of {} moved", new.role, new.value.len());
    }
}

#[test]
fn these_nets_take_winograd_in_all_passes() {
    for (text, want) in [(TILED, [3, 3, 3]), (STRIDED, [3, 2, 3])] {
        let model = Model::parse(text).unwrap();
        let mut count = [0; 3];
        for (i, (layer, d)) in model.layers.iter().zip(model.dims(19).unwrap()).enumerate() {
            let Op::Conv(c, _) = layer.op else { continue };
            let square = ConvShape::square(d.n, d.c, d.h, c.channels, c.kernel, c.stride, c.padding);
            let (s, isa) = (ConvShape { iw: d.w, ..square }, Isa::Portable);
            let input = if i == 0 { conv::Layout::Nchw } else { conv::Layout::Blocked };
            let (from, blocked) = (conv::Options { input, ..Default::default() }, conv::Options::default());
            let forward = conv::Forward::new(isa, &s, &from).unwrap().variant();
            let data = conv::BackwardData::new(isa, &s, &blocked).unwrap().variant();
            let weights = conv::BackwardWeights::new(isa, &s, &from).unwrap().variant();
            // Of a first layer nobody asks for the gradient of the images.
            let data = data.filter(|_| i > 0);
            for (variant, count) in [forward, data, weights].into_iter().zip(&mut count) {
                *count += usize::from(variant.is_some());
            }
        }
        assert_eq!(count, want, "{}", model.name);
    }
}

#[test]
fn the_same_bytes_on_every_instruction_set_and_any_number_of_threads() {
    for (text, steps) in [(EVERY, 20), (OTHER, 20), (TILED, 20), (&spatial(), 20), (STRIDED, 6)] {
        let data = &dataset(Model::parse(text).unwrap().input);
        let want = train(text, data, Isa::Portable, 1, steps);
        assert_moved(&want);
        let bytes = want.to_bytes().unwrap();
        for isa in Isa::available() {
            for threads in [1, 2, 5] {
                let got = train(text, data, isa, threads, steps).to_bytes().unwrap();
                assert!(got == bytes, "{}: {isa}, {threads} threads", want.model.name);
            }
        }
    }
}

/// For the drawn shapes: 600 images make 12 steps an epoch, so that 20 steps go beyond the first.
const SHAPES: &str = r#"name = "narrow"
input = [3, 32, 32]
[training]
epochs = 2
batch = 600
lr = 0.05
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
name = "pool1"
type = "max-pool"
kernel = 2
[[layer]]
name = "conv2"
type = "conv"
channels = 18
kernel = 3
groups = 3
activation = "prelu-shared"
[[layer]]
name = "drop"
type = "dropout"
rate = 0.25
[[layer]]
name = "fc"
type = "linear"
outputs = 12
"#;

/// Runs `rectify train` and gives the bytes of the checkpoint in `out`.
fn command(isa: Isa, threads: usize, out: &Path, args: &[&str]) -> Vec<u8> {
    let run = Command::new(env!("CARGO_BIN_EXE_rectify"))
        .args(["train", "--threads", &threads.to_string(), "--out", out.to_str().unwrap()])
        .args(args)
        .env("RECTIFY_ISA", isa.name())
        .output()
        .unwrap();
    assert!(run.status.success(), "{args:?}: {}", String::from_utf8_lossy(&run.stderr));
    std::fs::read(out.join("checkpoint.safetensors")).unwrap()
}

#[test]
fn the_command_gives_the_same_bytes_and_going_on_gives_those_of_not_stopping() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let model = at("narrow.toml");
    std::fs::write(&model, SHAPES).unwrap();
    // What RECTIFY_ISA asks this test for is still a cap.
    let best = Isa::best().unwrap();
    let from_start = |steps: &'static str| {
        let model = model.to_str().unwrap();
        ["--model", model, "--data", "shapes", "--seed", "5", "--steps", steps].map(String::from)
    };
    let run = |isa, threads, out: &str, args: &[String]| {
        command(isa, threads, &at(out), &args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let want = run(Isa::Portable, 1, "plain", &from_start("20"));
    let whole = Checkpoint::from_bytes(&want).unwrap();
    assert_eq!((whole.progress.epoch, whole.progress.step, whole.progress.steps), (1, 8, 20));
    assert_moved(&whole);
    assert!(run(best, 2, "best", &from_start("20")) == want, "{best}, 2 threads");

    // Stopped in the middle of the first epoch on one instruction set, gone on with on another into the second.
    let half = run(best, 2, "stopped", &from_start("7"));
    assert_eq!(Checkpoint::from_bytes(&half).unwrap().progress.steps, 7);
    let checkpoint = at("stopped").join("checkpoint.safetensors");
    let on = ["--resume", checkpoint.to_str().unwrap(), "--steps", "20"].map(String::from);
    assert!(run(Isa::Portable, 1, "elsewhere", &on) == want, "into another folder");
    assert!(std::fs::read(&checkpoint).unwrap() == half, "the checkpoint that was gone on from is as it was");
    assert!(run(best, 2, "stopped", &on) == want, "in the same folder");
    assert_eq!(std::fs::read_to_string(at("stopped").join("metrics.jsonl")).unwrap().lines().count(), 1);
}
