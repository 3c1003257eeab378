//! Checkpoints, raw bytes or a good one with some bytes changed: what is read is written again as a checkpoint that
//! reads and writes as the same bytes; nothing panics.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rectify::checkpoint::{Checkpoint, Progress};
use rectify::{data::Normalise, model::Model, nn::Parameters, schedule};
use std::sync::OnceLock;

const MODEL: &str = r#"
name = "tiny"
input = [1, 2, 2]
layer = [
    { name = "conv", type = "conv", channels = 2, kernel = 1, activation = "prelu" },
    { name = "fc", type = "linear", outputs = 2 },
]
"#;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Raw(&'a [u8]),
    Edited { edits: Vec<(u16, u8)>, length: Option<u16> },
}

fn good() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let model = Model::parse(MODEL).expect("the model is good");
        let parameters = Parameters::initial(&model, 1).expect("the model is small");
        let schedule = schedule::State::default();
        let progress = Progress { seed: 1, epoch: 2, step: 3, steps: 4, loss: 0.5, correct: 6, schedule };
        let normalise = Normalise { mean: vec![0.5], std: vec![0.25] };
        let velocity = parameters.zeros_like();
        let classes = vec!["a".into(), "b".into()];
        let all = Checkpoint { model, parameters, velocity, progress, normalise, dataset: "none".into(), classes };
        all.to_bytes().expect("all of it can be written")
    })
}

fn check(bytes: &[u8]) {
    if let Ok(read) = Checkpoint::from_bytes(bytes) {
        let written = read.to_bytes().expect("what was read can be written");
        let again = Checkpoint::from_bytes(&written).expect("what was written can be read");
        assert_eq!(again.to_bytes().ok(), Some(written));
    }
}

fuzz_target!(|input: Input| match input {
    Input::Raw(bytes) => check(bytes),
    Input::Edited { edits, length } => {
        let mut bytes = good().to_vec();
        for (at, value) in edits {
            let at = usize::from(at) % bytes.len();
            bytes[at] = value;
        }
        bytes.truncate(length.map_or(usize::MAX, usize::from));
        check(&bytes);
    }
});
