use super::*;
use std::fmt::Write as _;

/// Convolutions of these kernels and channels, each with this activation.
fn net(input: [usize; 3], layers: &[(usize, usize)], padding: usize, activation: &str) -> Model {
    let mut text = format!("name = \"chain\"\ninput = {input:?}\n");
    for (i, (kernel, channels)) in layers.iter().enumerate() {
        let _ = write!(
            text,
            "[[layer]]\nname = \"conv{i}\"\ntype = \"conv\"\nkernel = {kernel}\nchannels = {channels}\n\
             padding = {padding}\nactivation = \"{activation}\"\n",
        );
    }
    // A description has one pixel in the end; what is studied is what stands before it.
    text += "[[layer]]\nname = \"pool\"\ntype = \"global-max-pool\"\n";
    let mut model = Model::parse(&text).unwrap();
    model.layers.pop();
    model
}

/// Which of the two directions, and of which layer.
type Place = (usize, usize);

/// The mean over draws of measured through derived mean squares, and its standard error.
fn ratios(model: &Model, init: Init, draws: u64, places: &[Place]) -> Vec<(f64, f64)> {
    let mut model = model.clone();
    model.training.init = init;
    let (derived, isa) = (derived(&model).unwrap(), Isa::best().unwrap());
    let draws: Vec<Vec<[f64; 2]>> = (1..=draws).map(|seed| squares(&model, isa, 1, seed).unwrap()).collect();
    let of_place = |&(layer, way): &Place| {
        let ratios: Vec<f64> = draws.iter().map(|d| d[layer][way] / derived[layer].squares[way]).collect();
        let n = ratios.len() as f64;
        let mean = ratios.iter().sum::<f64>() / n;
        let variance = ratios.iter().map(|r| (r - mean) * (r - mean)).sum::<f64>() / (n - 1.0);
        (mean, (variance / n).sqrt())
    };
    places.iter().map(of_place).collect()
}

/// The derived mean square is the expectation, so the mean over independent draws is within five of its standard
/// errors; a standard error above a tenth would prove little.
fn derived_is_measured(model: &Model, init: Init, draws: u64, places: &[Place]) {
    for ((mean, error), place) in ratios(model, init, draws, places).into_iter().zip(places) {
        assert!(error > 0.0 && error < 0.1, "{init} {place:?}: {mean} ± {error}");
        assert!((mean - 1.0).abs() < 5.0 * error, "{init} {place:?}: {mean} ± {error}");
    }
}

/// Rectifiers are homogeneous: weights of another deviation, from the same draws, scale everything by what is derived.
fn scales_alike(model: &Model, one: Init, other: Init, places: &[Place]) {
    for (a, b) in ratios(model, one, 2, places).into_iter().zip(ratios(model, other, 2, places)) {
        assert!((a.0 / b.0 - 1.0).abs() < 1e-3 && a.0 > 0.0, "{one}: {a:?}, {other}: {b:?}");
    }
}

/// Thirty layers of one tap: each pixel takes part in as many products as the paper counts, in both directions.
const DEPTH: usize = 30;
const ENDS: [Place; 4] = [(DEPTH - 1, 0), (DEPTH / 2, 0), (DEPTH / 2, 1), (0, 1)];

#[test]
fn thirty_layers_keep_the_scale_with_he_and_lose_half_a_layer_with_xavier() {
    let model = net([128, 6, 6], &[(1, 128); DEPTH], 0, "relu");
    let squares = |init| {
        let mut model = model.clone();
        model.training.init = init;
        let all = derived(&model).unwrap();
        [all[DEPTH - 1].squares[0], all[0].squares[1]]
    };
    let near = |got: [f64; 2], want: [f64; 2]| got.iter().zip(want).all(|(g, w)| (g / w - 1.0).abs() < 1e-5);
    // The image passes no rectifier, so that it is doubled by He; the gradient passes one a layer.
    assert!(near(squares(Init::He), [2.0, 1.0]) && near(squares(Init::HeBackward), [2.0, 1.0]));
    let half = |n: i32| 0.5f64.powi(n);
    assert!(near(squares(Init::Xavier), [half(29), half(30)]));
    // n = n̂ = 128: each layer's deviation is 0.01·√64 = 0.08 of the one's before it.
    let gaussian = squares(Init::Gaussian(0.01));
    assert!(near(gaussian, [2.0 * 0.0064f64.powi(30), 0.0064f64.powi(30)]), "{gaussian:?}");
    derived_is_measured(&model, Init::He, 48, &ENDS);
    for init in [Init::HeBackward, Init::Xavier, Init::Gaussian(0.01)] {
        scales_alike(&model, Init::He, init, &ENDS);
    }
}

#[test]
fn slopes_count_as_in_equation_15() {
    let model = net([128, 6, 6], &[(1, 128); DEPTH], 0, "prelu\"\nslope = 0.5\n#");
    // Without the slope in it, the scale grows by 1 + a² a layer.
    for (init, want) in [(Init::HeSlope, 2.0 / 1.25), (Init::He, 2.0 * 1.25f64.powi(29))] {
        let mut model = model.clone();
        model.training.init = init;
        assert!((derived(&model).unwrap()[DEPTH - 1].squares[0] / want - 1.0).abs() < 1e-5);
    }
    derived_is_measured(&model, Init::HeSlope, 48, &ENDS);
    scales_alike(&model, Init::HeSlope, Init::He, &ENDS);
}

/// conv2 to conv10 of the ten-convolution model B of Simonyan and Zisserman 2014, which is the one that the paper's
/// section 2.2 takes for its example; wide padding, so that each pixel reaches as many outputs as the paper counts.
const B: [(usize, usize); 9] =
    [(3, 64), (3, 128), (3, 128), (3, 256), (3, 256), (3, 512), (3, 512), (3, 512), (3, 512)];

#[test]
fn deviation_a_hundredth_shrinks_the_gradient_as_section_2_2_says() {
    let mut model = net([64, 3, 3], &B, 2, "relu");
    model.training.init = Init::Gaussian(0.01);
    let all = derived(&model).unwrap();
    let by: Vec<f64> =
        (0..9).map(|l| (all.get(l + 1).map_or(1.0, |d| d.squares[1]) / all[l].squares[1]).sqrt()).collect();
    // "5.9 × 4.2² × 2.9² × 2.1⁴", from conv2 to conv10: by how much √(2/n̂) exceeds 0.01.
    for (l, (by, paper)) in by.iter().zip([5.9, 4.2, 4.2, 2.9, 2.9, 2.1, 2.1, 2.1, 2.1]).enumerate() {
        assert!((by - paper).abs() < 0.05, "conv{}: {by}, {paper} in the paper", l + 2);
    }
    let factor = all[0].squares[1].sqrt().recip();
    assert!((1.65e4..1.75e4).contains(&factor), "{factor:e}, 1.7e4 in the paper");
    derived_is_measured(&model, Init::Gaussian(0.01), 6, &[(0, 1), (4, 1)]);
    scales_alike(&model, Init::Gaussian(0.01), Init::HeBackward, &[(0, 1), (4, 1)]);
}

#[test]
fn kernels_of_several_taps_count_forward() {
    // No padding: every output takes as many products as the paper counts.
    let model = net([3, 21, 21], &[(3, 48), (2, 96), (3, 64), (2, 128), (3, 80), (2, 64), (3, 96), (3, 64)], 0, "relu");
    derived_is_measured(&model, Init::He, 48, &[(0, 0), (4, 0), (7, 0)]);
    scales_alike(&model, Init::He, Init::Xavier, &[(7, 0)]);
}

#[test]
fn every_sort_of_layer_is_passed_and_a_net_that_cannot_be_trained_is_refused() {
    let (isa, options) = (Isa::best().unwrap(), Options { batch: 2, draws: 2, seed: 5 });
    for name in ["shapes-small", "cifar-small", "e14-32"] {
        let model = Model::built_in(name).unwrap();
        let layers = study(&model, Init::He, isa, options).unwrap();
        for l in &layers {
            let all = [l.forward, l.backward];
            assert!(all.iter().all(|s| s.measured > 0.0 && s.derived > 0.0 && s.measured.is_finite()), "{name}: {l:?}");
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(pool.install(|| study(&model, Init::He, Isa::Portable, options)).unwrap(), layers);
        let svg = draw(name, &[("he".into(), layers)]).unwrap();
        assert!(svg.contains("<svg") && svg.matches("<circle").count() > 2);
    }
    let e = study(&Model::built_in("iresnet18").unwrap(), Init::He, isa, options).unwrap_err();
    assert!(matches!(e, NetError::Untrainable { .. }));
}
