//! Nets with a spatial pyramid on images of any size, with the same weights.

use rectify::model::Model;
use rectify::nn::{Mode, Net, Parameters, Role, reference};
use rectify::rng::Rng;
use rectify_kernels::{Isa, layout};

/// Convolutions of every sort of algorithm, pooling that rounds down, a pyramid.
fn net(bins: &str) -> Model {
    let text = format!(
        r#"name = "pyramid"
input = [3, 20, 20]
layer = [
    {{ name = "conv1", type = "conv", channels = 18, kernel = 5, stride = 2, padding = 2, activation = "prelu" }},
    {{ name = "conv2", type = "conv", channels = 20, kernel = 3, padding = 1, activation = "prelu" }},
    {{ name = "pool", type = "max-pool", kernel = 2 }},
    {{ name = "conv3", type = "conv", channels = 24, kernel = 2, activation = "leaky" }},
    {{ name = "spp", type = "spp", bins = {bins} }},
    {{ name = "fc1", type = "linear", outputs = 30, activation = "prelu" }},
    {{ name = "drop", type = "dropout", rate = 0.5 }},
    {{ name = "fc2", type = "linear", outputs = 5 }},
]"#
    );
    Model::parse(&text).unwrap()
}

fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = Rng::new(seed, 99);
    (0..len).map(|_| rng.between(-1.0, 1.0)).collect()
}

fn parameters(model: &Model) -> Parameters {
    let mut all = Parameters::initial(model, 3).unwrap();
    for (i, p) in all.iter_mut().enumerate().filter(|(_, p)| p.role == Role::Bias) {
        let values = numbers(i as u64, p.value.len());
        p.value.copy_from_slice(&values);
    }
    all
}

#[test]
fn scores_are_those_in_f64_at_any_size_and_pyramid() {
    // Images with fewer pixels than bins, long ones, ones that no stride divides; the pyramid 1 alone is global
    // pooling.
    for bins in ["[1]", "[6, 3, 2, 1]", "[4, 5]", "[9, 9]"] {
        let own = net(bins);
        let parameters = parameters(&own);
        for (h, w) in [(20, 20), (8, 8), (9, 41), (33, 14), (57, 58)] {
            let model = own.at_size(h, w).unwrap();
            let pixels = numbers(9, 2 * 3 * h * w);
            let want = reference::forward(&model, &parameters, 2, &pixels).unwrap();
            for isa in Isa::available() {
                let mut net = Net::new(&model, isa, 2, Mode::Inference).unwrap();
                net.load(&parameters).unwrap();
                net.forward(&parameters, &pixels, 0).unwrap();
                let mut got = vec![0.0; 10];
                layout::blocked_to_nchw(isa, net.output(), net.scores(), &mut got).unwrap();
                let largest = want.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
                assert!(largest > 0.0);
                for (got, want) in got.iter().zip(&want) {
                    // Each of the few layers is good to 5e-6 of its largest output.
                    assert!((f64::from(*got) - want).abs() < 2e-5 * largest, "{bins} {h}×{w} {isa}: {got}, not {want}");
                }
            }
        }
        assert!(own.at_size(3, 20).is_err());
    }
}

#[test]
fn gradients_through_the_pyramid_are_the_central_differences_at_any_size() {
    const STEP: f32 = 1.0 / (1 << 17) as f32;
    for (h, w) in [(9, 17), (30, 22)] {
        let mut model = net("[3, 2, 1]").at_size(h, w).unwrap();
        model.layers.retain(|l| l.name != "drop");
        let (mut parameters, labels) = (parameters(&model), [4, 1]);
        let pixels = numbers(9, 2 * 3 * h * w);
        let mut net = Net::new(&model, Isa::best().unwrap(), 2, Mode::Training).unwrap();
        let mut gradients = parameters.zeros_like();
        net.load(&parameters).unwrap();
        net.forward(&parameters, &pixels, 0).unwrap();
        net.backward(&parameters, &labels, &mut gradients).unwrap();
        let loss = |parameters: &Parameters| -> f64 {
            let scores = reference::forward(&model, parameters, 2, &pixels).unwrap();
            let image = |(z, &label): (&[f64], &u32)| z.iter().map(|z| z.exp()).sum::<f64>().ln() - z[label as usize];
            scores.chunks(5).zip(&labels).map(image).sum::<f64>() / 2.0
        };
        // The weights and slopes before the pyramid get their gradient through it.
        for p in 0..parameters.len() {
            let largest = gradients[p].iter().fold(0.0, |most: f32, v| most.max(v.abs()));
            assert!(largest > 0.0, "{}", parameters[p].name);
            let len = gradients[p].len();
            for i in (0..len).step_by(1 + len / 5) {
                let value = parameters[p].value[i];
                let (up, down) = (value + STEP, value - STEP);
                parameters[p].value[i] = up;
                let above = loss(&parameters);
                parameters[p].value[i] = down;
                let below = loss(&parameters);
                parameters[p].value[i] = value;
                let want = (above - below) / f64::from(up - down);
                let error = (f64::from(gradients[p][i]) - want).abs();
                let got = gradients[p][i];
                assert!(error < 1e-4 * f64::from(largest), "{h}×{w} {}[{i}]: {got}, not {want}", parameters[p].name);
            }
        }
    }
}
