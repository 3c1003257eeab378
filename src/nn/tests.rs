use super::*;
use crate::rng::Rng;
use proptest::prelude::*;

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

/// Batch norms and shortcuts wherever they may stand.
const GRAPH: &str = r#"name = "graph"
input = [3, 11, 9]
layer = [
    { name = "bn0", type = "batch-norm" },
    { name = "stem", type = "conv", channels = 20, kernel = 3, padding = 2, bias = false },
    { name = "bn1", type = "batch-norm", activation = "prelu" },
    { name = "bn2", type = "batch-norm" },
    { name = "conv1", type = "conv", channels = 20, kernel = 3, padding = 1, groups = 2, bias = false },
    { name = "bn3", type = "batch-norm", activation = "prelu-shared" },
    { name = "drop1", type = "dropout", rate = 0.5 },
    { name = "conv2", type = "conv", channels = 36, kernel = 2, stride = 2, padding = 1 },
    { name = "down", type = "conv", from = "bn1", channels = 36, kernel = 2, stride = 2, padding = 1, bias = false },
    { name = "down.bn", type = "batch-norm" },
    { name = "bn4", type = "batch-norm", from = "conv2", add = "down.bn", activation = "leaky" },
    { name = "wide", type = "conv", channels = 36, kernel = 3, padding = 1, groups = 36, add = "bn4", activation = "prelu" },
    { name = "bn5", type = "batch-norm", add = "bn4", activation = "prelu" },
    { name = "pool", type = "max-pool", kernel = 2, stride = 1 },
    { name = "bn6", type = "batch-norm" },
    { name = "tiled", type = "conv", channels = 36, kernel = 3, padding = 1, bias = false },
    { name = "bn6.behind", type = "batch-norm" },
    { name = "drop2", type = "dropout", rate = 0.5 },
    { name = "fc1", type = "linear", outputs = 19 },
    { name = "bn7", type = "batch-norm", activation = "relu" },
    { name = "bn8", type = "batch-norm" },
    { name = "fc2", type = "linear", outputs = 5 },
    { name = "bn9", type = "batch-norm" },
]
"#;

/// Numbers between −1 and 1.
fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = Rng::new(seed, 99);
    (0..len).map(|_| rng.between(-1.0, 1.0)).collect()
}

/// Initial parameters whose biases are not zero and whose batch norms change something.
fn parameters(model: &Model) -> Parameters {
    let mut all = Parameters::initial(model, 3).unwrap();
    for (i, p) in all.iter_mut().enumerate().filter(|(_, p)| !matches!(p.role, Role::Weight | Role::Slopes)) {
        let values = numbers(i as u64, p.value.len());
        p.value.copy_from_slice(&values);
        if p.role == Role::Variance {
            p.value.iter_mut().for_each(|v| *v = 1.0 + 0.9 * *v);
        }
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

/// Each layer is good to 5e-6 of its largest output; these nets have few.
fn close(got: &[f32], want: &[f64]) {
    within(1e-5, got, want);
}

fn within(bound: f64, got: &[f32], want: &[f64]) {
    let largest = want.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
    assert!(largest > 0.0 && got.len() == want.len());
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(got) - want).abs() < bound * largest, "score {i}: {got}, not {want}");
    }
}

#[test]
fn scores_are_those_in_f64_on_every_instruction_set_and_batch() {
    for text in [SEQUENTIAL, GRAPH] {
        let model = Model::parse(text).unwrap();
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
}

/// A net of layers that all give 3×5×5: the type of each, what it reads and what it adds, counted backwards. What
/// nothing reads is added behind them, layer by layer.
fn graph(layers: &[(u8, usize, Option<usize>)]) -> String {
    let mut text = String::from("name = \"drawn\"\ninput = [3, 5, 5]\n");
    let mut unread: Vec<String> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let mut push = |rest: &str, from: Option<String>, add: Option<String>, unread: &mut Vec<String>| {
        let name = format!("l{}", names.len());
        text += &format!("[[layer]]\nname = \"{name}\"\n{rest}\n");
        for (key, other) in [("from", from), ("add", add)] {
            if let Some(other) = other {
                text += &format!("{key} = \"{other}\"\n");
                unread.retain(|n| *n != other);
            }
        }
        unread.push(name.clone());
        names.push(name);
        names.clone()
    };
    let mut all: Vec<String> = Vec::new();
    for &(kind, from, add) in layers {
        let (rest, adds) = match kind {
            0 => ("type = \"conv\"\nchannels = 3\nkernel = 3\npadding = 1", true),
            1 => ("type = \"conv\"\nchannels = 3\nkernel = 1\nbias = false\nactivation = \"prelu\"", true),
            2 => ("type = \"conv\"\nchannels = 3\nkernel = 1\ngroups = 3", true),
            3 | 4 => ("type = \"batch-norm\"", true),
            5 => ("type = \"batch-norm\"\nactivation = \"leaky\"", true),
            6 => ("type = \"dropout\"\nrate = 0.5", false),
            _ => ("type = \"max-pool\"\nkernel = 3\nstride = 1\npadding = 1", false),
        };
        let back = |by: usize| all.len().checked_sub(1 + by).map(|i| all[i].clone());
        let from = back(from).or(back(0));
        all = push(rest, from, add.filter(|_| adds).and_then(back), &mut unread);
    }
    while unread.len() > 1 {
        let (from, add) = (unread[unread.len() - 1].clone(), unread[0].clone());
        push("type = \"batch-norm\"", Some(from), Some(add), &mut unread);
    }
    for rest in ["type = \"global-average-pool\"", "type = \"linear\"\noutputs = 4", "type = \"batch-norm\""] {
        let last = unread[0].clone();
        push(rest, Some(last), None, &mut unread);
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_graph_gives_the_scores_in_f64(
        layers in prop::collection::vec((0u8..8, prop_oneof![3 => Just(0usize), 1 => 0usize..4], prop::option::weighted(0.3, 0usize..6)), 1..12),
    ) {
        let model = Model::parse(&graph(&layers)).unwrap();
        let (parameters, pixels) = (parameters(&model), numbers(9, 2 * 75));
        let want = reference::forward(&model, &parameters, 2, &pixels).unwrap();
        within(1e-4, &scores(&model, &parameters, Isa::best().unwrap(), 2, &pixels), &want);
    }
}

#[test]
fn inference_gives_the_bits_of_training() {
    let mut model = Model::parse(SEQUENTIAL).unwrap();
    model.layers.retain(|l| l.name != "drop");
    let (parameters, pixels, isa) = (parameters(&model), numbers(9, 2 * 3 * 11 * 9), Isa::best().unwrap());
    let [training, inference] = [Mode::Training, Mode::Inference].map(|mode| {
        let mut net = Net::new(&model, isa, 2, mode).unwrap();
        net.load(&parameters).unwrap();
        net.forward(&parameters, &pixels, 0).unwrap().iter().map(|y| y.to_bits()).collect::<Vec<u32>>()
    });
    assert_eq!(training, inference);
}

/// Wherever the rounds end and however many images they have: shortcuts, pyramids and what is behind read the same
/// bits.
#[test]
fn no_bit_depends_on_the_rounds() {
    let isa = Isa::best().unwrap();
    for text in [GRAPH, SEQUENTIAL] {
        let model = Model::parse(text).unwrap();
        let (parameters, batch) = (parameters(&model), 6);
        let pixels = numbers(9, batch * model.input.iter().product::<usize>());
        let run = |rounds: Rounds| -> Vec<u32> {
            let mut net = Net::in_rounds(&model, isa, batch, Mode::Inference, |_, _| rounds).unwrap();
            net.load(&parameters).unwrap();
            // What the pass before has left must not matter.
            net.forward(&parameters, &numbers(10, pixels.len()), 0).unwrap();
            net.forward(&parameters, &pixels, 0).unwrap().iter().map(|y| y.to_bits()).collect()
        };
        let steps = plan::folded(&model).unwrap();
        let want = run(Rounds::one(&steps, batch));
        for images in [1, 2, 3, 6] {
            for steps in 0..=steps.len() {
                assert_eq!(run(Rounds { steps, images }), want, "{steps} steps, {images} images at a time");
            }
        }
    }
}

#[test]
fn all_foldable_norms_are_folded_and_buffers_reused() {
    let model = Model::parse(GRAPH).unwrap();
    let net = Net::new(&model, Isa::Portable, 2, Mode::Inference).unwrap();
    let names = |apart: bool| -> Vec<&str> {
        let nodes = net.nodes.iter().filter(|n| matches!(n.kind, Kind::Norm(_)) == apart);
        nodes.map(|n| n.name.as_str()).collect()
    };
    assert_eq!(names(true), ["bn5"]);
    assert_eq!(names(false), ["stem", "conv1", "down", "conv2", "wide", "pool", "tiled", "fc1", "fc2"]);
    assert_eq!(net.activations.len(), 3);
    // Padding that a batch norm before it maps to zero is tested with both algorithms.
    let kernel = |name: &str| match net.nodes.iter().find(|n| n.name == name).map(|n| &n.kind) {
        Some(Kind::Affine(a)) => a.kernel(),
        _ => String::new(),
    };
    assert!(kernel("tiled").contains("winograd") && kernel("conv1").contains("direct"), "{}", kernel("tiled"));
}

#[test]
fn iresnet18_is_run_with_few_buffers_and_without_a_pass_for_batch_norm() {
    let model = Model::built_in("iresnet18").unwrap();
    let all = Parameters::build::<ModelError>(&model, |_, _, _| Ok(Buffer::zeroed(0))).unwrap();
    let count: usize = all.iter().map(|p| p.shape.iter().product::<usize>()).sum();
    // 21 convolutions, 31 batch norms of four parameters, 9 PReLUs, a fully connected layer; PyTorch's has as many
    // numbers.
    assert_eq!((all.len(), count), (21 + 31 * 4 + 9 + 2, 24_040_320));
    let net = Net::new(&model, Isa::Portable, 1, Mode::Inference).unwrap();
    assert!(net.nodes.iter().all(|n| matches!(n.kind, Kind::Affine(_))));
    let lens: usize = net.activations.iter().map(|a| a.len()).sum();
    assert_eq!((net.nodes.len(), net.activations.len()), (22, 3));
    // What the first block reads and its first convolution gives, and its shortcut.
    assert_eq!(lens, 2 * 64 * 112 * 112 + 64 * 56 * 56);
}

#[test]
fn what_cannot_be_folded_or_trained_is_refused() {
    let model = Model::parse(GRAPH).unwrap();
    let mut parameters = parameters(&model);
    let mut net = Net::new(&model, Isa::Portable, 1, Mode::Inference).unwrap();
    let at = |parameters: &Parameters, name: &str| parameters.iter().position(|p| p.name == name).unwrap();
    let (scale, shift) = (at(&parameters, "bn2.weight"), at(&parameters, "bn2.bias"));
    parameters[scale].value[7] = 0.0;
    let error = net.load(&parameters).unwrap_err().to_string();
    assert!(error.contains("conv1") && error.contains("in channel 7"), "{error}");
    // A channel that is always 0 can be folded: a mean that is not 0 does not matter then.
    parameters[shift].value[7] = 0.0;
    net.load(&parameters).unwrap();
    let pixels = numbers(9, 3 * 11 * 9);
    let want = reference::forward(&model, &parameters, 1, &pixels).unwrap();
    close(&scores(&model, &parameters, Isa::best().unwrap(), 1, &pixels), &want);
    let variance = at(&parameters, "bn9.running_var");
    parameters[variance].value[2] = -1.0;
    let error = net.load(&parameters).unwrap_err().to_string();
    assert!(error.contains("fc2") && error.contains("variance = -1 in channel 2"), "{error}");

    // Nor are weights read as they are where a batch norm belongs in them.
    for layer in [r#"type = "conv", channels = 2, kernel = 3"#, r#"type = "linear", outputs = 2"#] {
        let layers = format!(r#"[{{ name = "a", {layer} }}, {{ name = "bn", type = "batch-norm" }}]"#);
        let small = Model::parse(&format!("name = \"x\"\ninput = [3, 3, 3]\nlayer = {layers}")).unwrap();
        let parameters = Parameters::initial(&small, 1).unwrap();
        let mut net = Net::new(&small, Isa::Portable, 1, Mode::Inference).unwrap();
        assert!(net.forward(&parameters, &pixels[..27], 0).is_err(), "{layer}");
        net.load(&parameters).unwrap();
        net.forward(&parameters, &pixels[..27], 0).unwrap();
    }

    let other = Parameters::initial(&Model::parse(SEQUENTIAL).unwrap(), 1).unwrap();
    assert!(net.load(&other).is_err() && net.forward(&other, &pixels, 0).is_err());
    for (layers, why) in [
        ("", "batch norm"),
        (r#"{ name = "a", type = "conv", channels = 3, kernel = 1, bias = false },"#, "no bias"),
        (
            r#"{ name = "a", type = "conv", channels = 3, kernel = 1 },
            { name = "b", type = "conv", channels = 3, kernel = 1, add = "a" },"#,
            "adds",
        ),
        (
            r#"{ name = "a", type = "conv", channels = 3, kernel = 1 },
            { name = "b", type = "conv", channels = 3, kernel = 1, from = "a" },"#,
            "names what it reads",
        ),
    ] {
        let text = format!(
            r#"{}layer = [{layers} {{ name = "fc", type = "linear", outputs = 2 }}]"#,
            SEQUENTIAL.split("layer").next().unwrap()
        );
        let model = Model::parse(if layers.is_empty() { GRAPH } else { &text }).unwrap();
        match Net::new(&model, Isa::Portable, 1, Mode::Training) {
            Err(NetError::Untrainable { why: found, .. }) => assert!(found.contains(why), "{found}"),
            _ => panic!("{why}: not refused"),
        }
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

/// Parameters as many as the net's, of another width.
#[test]
fn parameters_of_another_net_are_an_error() {
    let model = |outputs: u32| {
        let text = format!(
            "name = \"line\"\ninput = [3, 2, 2]\nlayer = [{{ name = \"fc\", type = \"linear\", outputs = {outputs}, activation = \"prelu\" }}]"
        );
        Model::parse(&text).unwrap()
    };
    let (ours, other) = (parameters(&model(10)), parameters(&model(100)));
    let mut net = Net::new(&model(10), Isa::Portable, 2, Mode::Training).unwrap();
    net.forward(&ours, &[0.5; 24], 0).unwrap();
    let found = net.backward(&other, &[0, 1], &mut other.zeros_like()).unwrap_err().to_string();
    assert!(found.contains("100") && found.contains("10"), "{found}");
}
