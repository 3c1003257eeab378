use super::*;
use crate::model::Op;
use crate::nn::Role;
use crate::rng::Rng;
use rectify_kernels::conv::Algorithm;

/// Without padding a window of the maps is the map of a window. Total stride 4; these kernels are served by the direct
/// algorithm alone, whose sums do not know where in the image they are.
const BARE: &str = r#"name = "bare"
input = [3, 29, 29]
layer = [
    { name = "conv1", type = "conv", channels = 18, kernel = 5, stride = 2, activation = "prelu" },
    { name = "pool", type = "max-pool", kernel = 2 },
    { name = "conv2", type = "conv", channels = 20, kernel = 3, dilation = 2, activation = "prelu-shared" },
    { name = "spp", type = "spp", bins = [2, 1] },
    { name = "fc1", type = "linear", outputs = 30, activation = "prelu" },
    { name = "drop", type = "dropout", rate = 0.5 },
    { name = "fc2", type = "linear", outputs = 7 },
]
"#;

fn picture(h: usize, w: usize) -> Picture {
    let mut rng = Rng::new(5, 99);
    Picture { h, w, grey: false, rgb: (0..3 * h * w).map(|_| rng.below(256) as u8).collect() }
}

fn normalise() -> Normalise {
    Normalise { mean: vec![0.4, 0.5, 0.6], std: vec![0.2, 0.3, 0.25] }
}

fn parameters(model: &Model) -> Parameters {
    let mut all = Parameters::initial(model, 3).unwrap();
    let mut rng = Rng::new(1, 99);
    all.iter_mut().filter(|p| p.role == Role::Bias).for_each(|p| p.value.iter_mut().for_each(|b| *b = rng.normal()));
    all
}

fn tester(model: &Model, views: Views) -> Tester {
    Tester::new(model, parameters(model), &normalise(), views, Isa::best().unwrap()).unwrap()
}

fn see(model: &Model, views: Views, picture: &Picture) -> (Vec<f64>, Cost) {
    tester(model, views).probabilities(picture).unwrap()
}

fn assert_probabilities(p: &[f64]) {
    assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12 && p.iter().all(|&p| p > 0.0), "{p:?}");
    assert!(p.iter().any(|a| p.iter().any(|b| (a - b).abs() > 1e-3)), "{p:?}");
}

/// The mean over the crops that begin at these places, image and mirror image, each seen alone.
fn by_crops(model: &Model, picture: &Picture, places: &[(usize, usize)]) -> Vec<f64> {
    let [_, h, w] = model.input;
    let (mut single, mut mean) = (tester(model, Views::Single), vec![0.0; model.classes()]);
    for flip in [false, true] {
        for &(top, left) in places {
            let x = |x: usize| if flip { picture.w - 1 - x } else { x };
            let pixel = |y: usize, c: usize| &picture.rgb[3 * ((top + y) * picture.w + x(left + c))..][..3];
            let rgb =
                (0..h).flat_map(|y| (0..w).map(move |c| (y, c))).flat_map(|(y, c)| pixel(y, c).to_vec()).collect();
            let (p, _) = single.probabilities(&Picture { h, w, grey: false, rgb }).unwrap();
            mean.iter_mut().zip(p).for_each(|(mean, p)| *mean += p);
        }
    }
    mean.iter().map(|p| p / (2 * places.len()) as f64).collect()
}

#[test]
fn windows_of_the_maps_are_crops_where_they_align() {
    let model = Model::parse(BARE).unwrap();
    // 29 + 4·2·k: corners and middle lie on multiples of the total stride.
    for (h, w) in [(29, 29), (29, 45), (53, 37)] {
        let picture = picture(h, w);
        let (maps, cost) = see(&model, Views::Maps, &picture);
        let (ten, of_ten) = see(&model, Views::Ten, &picture);
        assert_probabilities(&maps);
        assert_eq!(maps, ten, "{h}×{w}");
        assert_eq!((cost.views, of_ten.views), (10, 10));
        assert_eq!(of_ten.multiplications, 10.0 * model.multiplications().unwrap());
        // Every window, each fourth pixel.
        let places: Vec<(usize, usize)> =
            (0..=h - 29).step_by(4).flat_map(|y| (0..=w - 29).step_by(4).map(move |x| (y, x))).collect();
        let (dense, cost) = see(&model, Views::Dense, &picture);
        assert_eq!(cost.views, 2 * places.len());
        // The views are summed in the same order, so that the bits of the mean are equal too.
        assert_eq!(dense, by_crops(&model, &picture, &places), "{h}×{w}");
    }
    // Elsewhere they do not.
    let picture = picture(31, 30);
    assert_ne!(see(&model, Views::Maps, &picture).0, see(&model, Views::Ten, &picture).0);
}

#[test]
fn what_was_seen_before_does_not_show() {
    let model = Model::parse(BARE).unwrap();
    let mut tester = tester(&model, Views::Maps);
    // More sizes than plans are kept for, some of them again.
    for side in [29, 33, 37, 33, 41, 45, 49, 29, 45, 33, 53] {
        let picture = picture(side, 40);
        assert_eq!(tester.probabilities(&picture).unwrap(), see(&model, Views::Maps, &picture), "{side}");
    }
}

#[test]
fn winograds_tiles_move_the_last_bits_alone() {
    let text = BARE.replace(", dilation = 2", "").replace("channels = 20", "channels = 64");
    let model = Model::parse(&text).unwrap();
    let dims = model.dims(1).unwrap()[2];
    let Op::Conv(conv, _) = &model.layers[2].op else { panic!() };
    assert!(Algorithm::Auto.variant(&Op::conv_shape(conv, dims)).unwrap().is_some());
    let picture = picture(53, 37);
    let (maps, ten) = (see(&model, Views::Maps, &picture).0, see(&model, Views::Ten, &picture).0);
    assert_probabilities(&maps);
    for (a, b) in maps.iter().zip(&ten) {
        // Scores of a few units, each layer good to 5e-6 of its largest output.
        assert!((a - b).abs() < 1e-4 * a, "{a} {b}");
    }
}

#[test]
fn padding_makes_crops_and_maps_differ() {
    // A crop's border is padded with zeros where a map has the pixels beyond.
    let model = Model::parse(&BARE.replace("kernel = 5, stride = 2", "kernel = 5, stride = 2, padding = 2")).unwrap();
    let picture = picture(53, 37);
    let (maps, ten) = (see(&model, Views::Maps, &picture).0, see(&model, Views::Ten, &picture).0);
    assert!(maps.iter().zip(&ten).any(|(a, b)| (a - b).abs() > 1e-4), "{maps:?} {ten:?}");
    // One crop, the whole image: no pixel is beyond.
    let whole = picture_of_input(&model);
    assert_eq!(see(&model, Views::Maps, &whole).0, see(&model, Views::Ten, &whole).0);
}

fn picture_of_input(model: &Model) -> Picture {
    picture(model.input[1], model.input[2])
}

#[test]
fn a_single_view_is_the_net_and_mirror_images_are_seen_alike() {
    let model = Model::parse(BARE).unwrap();
    let image = picture(41, 45);
    let mut mirrored = image.clone();
    for y in 0..41 {
        for x in 0..45 {
            let from = 3 * (y * 45 + 44 - x);
            mirrored.rgb[3 * (y * 45 + x)..][..3].copy_from_slice(&image.rgb[from..from + 3]);
        }
    }
    for views in [Views::Ten, Views::Maps, Views::Dense] {
        let (a, b) = (see(&model, views, &image).0, see(&model, views, &mirrored).0);
        // The same views in another order.
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-12), "{views:?}: {a:?} {b:?}");
    }
    let p = see(&model, Views::Single, &image).0;
    let pixels: Vec<f32> = (0..3 * 29 * 29)
        .map(|i| {
            let (c, y, x) = (i / 841, i % 841 / 29 + 6, i % 29 + 8);
            let level = f64::from(image.rgb[3 * (y * 45 + x) + c]) / 255.0;
            ((level - f64::from(normalise().mean[c])) / f64::from(normalise().std[c])) as f32
        })
        .collect();
    let scores = crate::nn::reference::forward(&model, &parameters(&model), 1, &pixels).unwrap();
    let total: f64 = scores.iter().map(|z| z.exp()).sum();
    for (p, z) in p.iter().zip(&scores) {
        assert!((p - z.exp() / total).abs() < 1e-5, "{p}");
    }
}

#[test]
fn what_cannot_be_seen_is_refused() {
    let model = Model::parse(BARE).unwrap();
    let refusal = |model: &Model, views| {
        let all = parameters(model);
        Tester::new(model, all, &normalise(), views, Isa::best().unwrap()).err().map(|e| e.to_string())
    };
    let vgg = BARE.replace(r#"{ name = "spp", type = "spp", bins = [2, 1] },"#, "");
    let no_pyramid = Model::parse(&vgg).unwrap();
    assert_eq!(refusal(&no_pyramid, Views::Ten), None);
    assert!(refusal(&no_pyramid, Views::Maps).unwrap().contains("neither a pyramid nor a global pooling layer"));
    let four = Model::parse(&BARE.replace("input = [3,", "input = [4,")).unwrap();
    assert!(refusal(&four, Views::Ten).unwrap().contains("takes 4 channels"));
    for views in Views::ALL {
        let e = tester(&model, views).probabilities(&picture(28, 60)).unwrap_err();
        assert!(matches!(e, ViewError::Small { .. }), "{e}");
        assert_eq!(views.name().parse(), Ok(views));
    }
    assert!("eleven".parse::<Views>().is_err());
    let images = Images { c: 3, h: 29, w: 29, pixels: Vec::new(), labels: Vec::new(), disk: None };
    let none = |testers: &mut [Tester], scales: &[u32]| {
        evaluate(testers, scales, Pictures::Images(&images), &mut |_| true).unwrap_err().to_string()
    };
    assert_eq!(none(&mut [], &[29]), "there is no net");
    let mut one = [tester(&model, Views::Single)];
    assert_eq!([none(&mut one, &[]), none(&mut one, &[29])], ["there is no scale", "there is no image"]);
}

#[test]
fn ranks_scales_and_models_are_averaged() {
    assert_eq!([0, 1, 2, 3].map(|label| rank(&[0.1, 0.4, 0.4, 0.1], label)), [2, 0, 1, 3]);
    // Of two classes, too, the label is not among the first five then.
    assert_eq!((rank(&[0.5, f64::NAN], 0), rank(&[0.5], 3)), (usize::MAX, usize::MAX));
    let model = Model::parse(BARE).unwrap();
    let other = Model::parse(&BARE.replace("outputs = 30", "outputs = 25")).unwrap();
    let source = picture(33, 40);
    let plane = |c: usize| source.rgb.iter().skip(c).step_by(3).copied().collect::<Vec<u8>>();
    let of_label = |label| Images {
        c: 3,
        h: 33,
        w: 40,
        pixels: [plane(0), plane(1), plane(2)].concat(),
        labels: vec![label],
        disk: None,
    };
    let mut sum = vec![0.0; 7];
    for scale in [33, 45] {
        let scaled = scaled(source.clone(), scale, Path::new("x")).unwrap();
        for model in [&model, &other] {
            let (p, _) = see(model, Views::Maps, &scaled);
            sum.iter_mut().zip(p).for_each(|(sum, p)| *sum += p);
        }
    }
    let mut testers = [tester(&model, Views::Maps), tester(&other, Views::Maps)];
    for label in 0..7u32 {
        let images = of_label(label);
        let seen = evaluate(&mut testers, &[33, 45], Pictures::Images(&images), &mut |_| true).unwrap();
        let rank = rank(&sum, label as usize);
        assert_eq!((seen.images, seen.views), (1, 40));
        assert_eq!((seen.top1 == 1, seen.top5 == 1), (rank == 0, rank < 5), "{label}");
        assert_eq!(seen.errors()[0], if rank == 0 { 0.0 } else { 100.0 });
    }
}

#[test]
fn a_net_for_grey_images_refuses_colours() {
    let model = Model::parse(&BARE.replace("input = [3,", "input = [1,")).unwrap();
    let normalise = Normalise { mean: vec![0.4], std: vec![0.2] };
    let mut tester = Tester::new(&model, parameters(&model), &normalise, Views::Single, Isa::Portable).unwrap();
    let coloured = picture(30, 30);
    assert!(matches!(tester.probabilities(&coloured), Err(ViewError::Colour { model }) if model == "bare"));
    let grey = Picture { grey: true, rgb: coloured.rgb.chunks(3).flat_map(|p| [p[0]; 3]).collect(), ..coloured };
    assert_probabilities(&tester.probabilities(&grey).unwrap().0);
}
