use super::*;
use crate::rng::Rng;

/// Layers of every type that a sequential net has, with a pyramid.
const SEQUENTIAL: &str = r#"name = "sequential"
input = [3, 11, 9]
layer = [
    { name = "conv1", type = "conv", channels = 18, kernel = 3, padding = 1, stride = 2, activation = "prelu" },
    { name = "pool1", type = "max-pool", kernel = 2, stride = 1 },
    { name = "conv2", type = "conv", channels = 20, kernel = 2, groups = 2, activation = "leaky" },
    { name = "pool2", type = "average-pool", kernel = 2, stride = 1, padding = 1 },
    { name = "spp", type = "spp", bins = [4, 2, 1] },
    { name = "fc1", type = "linear", outputs = 33, activation = "prelu-shared" },
    { name = "drop", type = "dropout", rate = 0.5 },
    { name = "fc2", type = "linear", outputs = 5 },
]
"#;

/// Numbers between −1 and 1.
fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = Rng::new(seed, 99);
    (0..len).map(|_| rng.between(-1.0, 1.0)).collect()
}

/// Initial parameters whose biases are not zero.
fn parameters(model: &Model) -> Parameters {
    let mut all = Parameters::initial(model, 3).unwrap();
    for (i, p) in all.iter_mut().enumerate().filter(|(_, p)| p.role == Role::Bias) {
        let values = numbers(i as u64, p.value.len());
        p.value.copy_from_slice(&values);
    }
    all
}

fn scores(model: &Model, parameters: &Parameters, isa: Isa, n: usize, pixels: &[f32]) -> Vec<f32> {
    let mut net = Net::new(model, isa, n, Mode::Inference).unwrap();
    net.load(parameters).unwrap();
    net.forward(parameters, pixels, 0).unwrap();
    let mut y = vec![0.0; net.output().plain_len()];
    layout::blocked_to_nchw(isa, net.output(), net.scores(), &mut y).unwrap();
    y
}

/// Sums of so few terms are good to this, relative to the largest score.
fn close(got: &[f32], want: &[f64]) {
    let largest = want.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
    assert!(largest > 0.0 && got.len() == want.len());
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(got) - want).abs() < 2e-6 * largest, "score {i}: {got}, not {want}");
    }
}

#[test]
fn scores_are_those_in_f64_on_every_instruction_set_and_batch() {
    let model = Model::parse(SEQUENTIAL).unwrap();
    let (parameters, n) = (parameters(&model), 3);
    let pixels = numbers(9, n * 3 * 11 * 9);
    let want = reference::forward(&model, &parameters, n, &pixels).unwrap();
    let got = scores(&model, &parameters, Isa::Portable, n, &pixels);
    close(&got, &want);
    for isa in Isa::available() {
        assert_eq!(scores(&model, &parameters, isa, n, &pixels), got, "{isa}");
        let each = pixels.chunks(pixels.len() / n).flat_map(|image| scores(&model, &parameters, isa, 1, image));
        assert_eq!(each.collect::<Vec<f32>>(), got, "{isa}");
    }
}

#[test]
fn gradients_are_the_central_differences() {
    const STEP: f32 = 1.0 / (1 << 17) as f32;
    // Without dropout, whose masks the oracle does not know.
    let mut model = Model::parse(SEQUENTIAL).unwrap();
    model.layers.retain(|l| l.name != "drop");
    let (mut parameters, n, labels) = (parameters(&model), 2, [4, 1]);
    let pixels = numbers(9, n * 3 * 11 * 9);
    let mut net = Net::new(&model, Isa::best().unwrap(), n, Mode::Training).unwrap();
    let mut gradients = parameters.zeros_like();
    net.load(&parameters).unwrap();
    net.forward(&parameters, &pixels, 0).unwrap();
    net.backward(&parameters, &labels, &mut gradients).unwrap();
    let loss = |parameters: &Parameters| -> f64 {
        let scores = reference::forward(&model, parameters, n, &pixels).unwrap();
        let image = |(z, &label): (&[f64], &u32)| z.iter().map(|z| z.exp()).sum::<f64>().ln() - z[label as usize];
        scores.chunks(5).zip(&labels).map(image).sum::<f64>() / n as f64
    };
    for p in 0..parameters.len() {
        let largest = gradients[p].iter().fold(0.0, |most: f32, v| most.max(v.abs()));
        assert!(largest > 0.0, "{}", parameters[p].name);
        let len = gradients[p].len();
        for i in (0..len).step_by(1 + len / 7) {
            // What f32 makes of ±2⁻¹⁷: so little that no maximum and no rectifier changes hands.
            let value = parameters[p].value[i];
            let (up, down) = (value + STEP, value - STEP);
            parameters[p].value[i] = up;
            let above = loss(&parameters);
            parameters[p].value[i] = down;
            let below = loss(&parameters);
            parameters[p].value[i] = value;
            let want = (above - below) / f64::from(up - down);
            let got = gradients[p][i];
            let error = (f64::from(got) - want).abs();
            assert!(error < 1e-4 * f64::from(largest), "{}[{i}]: {got}, not {want}", parameters[p].name);
        }
    }
}
