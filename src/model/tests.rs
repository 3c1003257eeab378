use super::*;
use crate::nn::Parameters;
use rectify_kernels::Buffer;

const TINY: &str = r#"name = "tiny"
input = [3, 8, 8]

[[layer]]
name = "conv1"
type = "conv"
channels = 4
kernel = 3
activation = "prelu"

[[layer]]
name = "fc"
type = "linear"
outputs = 2
"#;

fn refused(text: &str) -> String {
    Model::parse(text).unwrap_err().to_string()
}

#[test]
fn built_in_nets_are_what_they_say_and_round_trip() {
    for (name, _) in BUILT_IN {
        let model = Model::built_in(name).unwrap();
        assert_eq!(model.name, name);
        assert_eq!(Model::parse(&model.to_toml().unwrap()).unwrap(), model);
    }
    let macs = |name| Model::built_in(name).unwrap().multiplications().unwrap() / 1e6;
    assert!((5.0..8.0).contains(&macs("shapes-small")), "{}", macs("shapes-small"));
    assert!((25.0..35.0).contains(&macs("cifar-small")), "{}", macs("cifar-small"));
    let cifar13 = Model::built_in("cifar13").unwrap();
    assert_eq!(cifar13.layers.iter().filter(|l| matches!(l.op, Op::Conv(..))).count(), 11);
}

#[test]
fn the_papers_nets_have_its_multiplications_and_pytorchs_parameters() {
    // He et al. 2015, Table 3; ours by hand, convolutions and fully connected layers. The largest difference, model C's
    // 0.9 %, is about twice that model's fully connected layers.
    for (name, paper, convolutions, fully_connected) in [
        ("a19", 1.90e10, 18_905_112_576u64, 152_993_792u64),
        ("b22", 2.32e10, 18_905_112_576 + 9 * (256 * 256 * 3136 + 512 * 512 * (784 + 196)), 152_993_792),
        ("c22", 5.30e10, 53_211_045_888, 252_084_224),
        ("vgg19", 1.96e10, 19_508_428_800, 123_633_664),
    ] {
        let multiplications = Model::built_in(name).unwrap().multiplications().unwrap();
        assert_eq!(multiplications, (convolutions + fully_connected) as f64, "{name}");
        assert!((multiplications / paper - 1.0).abs() < 0.01, "{name}: {multiplications:e}, {paper:e} in the paper");
    }
    let shapes = |name: &str| -> Vec<(String, Vec<usize>)> {
        let all = Parameters::build::<ModelError>(&Model::built_in(name).unwrap(), |_, _, _| Ok(Buffer::zeroed(0)));
        all.unwrap().iter().map(|p| (p.name.clone(), p.shape.clone())).collect()
    };
    let (a19, e14) = (shapes("a19"), shapes("e14"));
    let named = |all: &[(String, Vec<usize>)], name: &str| all.iter().find(|p| p.0 == name).unwrap().1.clone();
    // (convolutions + fully connected layers) × (weight, bias) + slopes of all but the last.
    assert_eq!((a19.len(), e14.len()), (19 * 2 + 18, 14 * 2 + 13));
    assert_eq!(named(&a19, "features.0.weight"), [96, 3, 7, 7]);
    assert_eq!(named(&a19, "features.3.weight"), [256, 96, 3, 3]);
    assert_eq!(named(&a19, "features.33.weight"), [512, 512, 3, 3]);
    assert_eq!(named(&a19, "features.34.weight"), [512]);
    assert_eq!(named(&a19, "classifier.0.weight"), [4096, 512 * (49 + 9 + 4 + 1)]);
    assert_eq!(named(&a19, "classifier.3.weight"), [4096, 4096]);
    assert_eq!(named(&a19, "classifier.6.bias"), [1000]);
    assert_eq!(named(&e14, "features.0.weight"), [64, 3, 7, 7]);
    assert_eq!(named(&e14, "features.3.weight"), [128, 64, 2, 2]);
    assert_eq!(named(&e14, "features.12.weight"), [256, 128, 2, 2]);
    assert_eq!(named(&e14, "features.22.weight"), [256, 256, 2, 2]);
    assert_eq!(named(&e14, "classifier.0.weight"), [4096, 256 * (36 + 9 + 4 + 1)]);
    assert_eq!(named(&e14, "classifier.6.weight"), [1000, 4096]);
    let sides: Vec<usize> = Model::built_in("e14").unwrap().dims(1).unwrap().iter().map(|d| d.h).collect();
    assert_eq!(sides[..14], [224, 112, 37, 36, 35, 34, 33, 16, 15, 14, 13, 12, 11, 10]);
}

#[test]
fn variants_differ_in_what_their_names_say_alone() {
    let get = |name: &str| Model::built_in(name).unwrap();
    let convs = |model: &Model| model.layers.iter().filter(|l| matches!(l.op, Op::Conv(..))).count();
    let with = |name: &str, activation: Activation| {
        let mut model = Model { name: name.into(), ..get("e14") };
        for layer in &mut model.layers {
            match &mut layer.op {
                Op::Conv(_, a) | Op::Linear { activation: a, .. } if *a != Activation::None => *a = activation,
                _ => {}
            }
        }
        model
    };
    assert_eq!(get("e14-relu"), with("e14-relu", Activation::Relu));
    assert_eq!(get("e14-shared"), with("e14-shared", Activation::Prelu { slope: 0.25, shared: true }));
    // He et al. 2015, section 2.2 and Figure 3: sixteen more convolutions of 256 channels.
    let (short, long) = (get("e14-relu"), get("e30"));
    assert_eq!((convs(&short), convs(&long), get("e14").layers.len()), (11, 27, 19));
    let same = |l: &&Layer| long.layers.contains(l);
    assert_eq!(short.layers.iter().filter(same).count(), short.layers.len());
    for (e14, e30) in [("e14", "e30"), ("e14-32", "e30-32")] {
        let (e14, e30) = (get(e14), get(e30));
        assert_eq!((convs(&e14), convs(&e30)), (11, 27));
        for model in [&e14, &e30] {
            // Every map that a pyramid reads has a pixel for each bin.
            let at = model.layers.iter().position(|l| l.name == "spp").unwrap();
            let Op::Spp { bins } = &model.layers[at].op else { panic!() };
            assert!(model.dims(1).unwrap()[at].h >= bins[0], "{}", model.name);
        }
    }
    for (name, layers) in [("a19", 19), ("b22", 22), ("c22", 22), ("vgg19", 19), ("e14", 14), ("e30", 30)] {
        let weights = |l: &&Layer| matches!(l.op, Op::Conv(..) | Op::Linear { .. });
        assert_eq!(get(name).layers.iter().filter(weights).count(), layers, "{name}");
    }
}

#[test]
fn nets_with_a_pyramid_take_images_of_any_size() {
    let a19 = Model::built_in("a19").unwrap();
    let large = a19.at_size(384, 640).unwrap();
    let names = |m: &Model| -> Vec<(String, Vec<usize>)> {
        let all = Parameters::build::<ModelError>(m, |_, _, _| Ok(Buffer::zeroed(0))).unwrap();
        all.iter().map(|p| (p.name.clone(), p.shape.clone())).collect()
    };
    assert_eq!(names(&large), names(&a19));
    let map = |m: &Model| m.dims(1).unwrap().into_iter().rfind(|d| d.h > 1).unwrap();
    assert_eq!((map(&large), map(&a19).h), (Dims { n: 1, c: 512, h: 24, w: 40 }, 14));
    assert!(Model::built_in("cifar13").unwrap().at_size(57, 40).is_ok());
    let e = Model::built_in("vgg19").unwrap().at_size(256, 224).unwrap_err();
    assert!(matches!(&e, ModelError::Size { layer, got: 28672, want: 25088, .. } if layer == "fc1"), "{e}");
    assert!(matches!(a19.at_size(3, 224), Err(ModelError::Layer { .. })));
    assert!(a19.at_size(0, 224).is_err());
}

#[test]
fn a_pyramid_is_checked_and_its_output_is_flat() {
    let with = |bins: &str| {
        let spp = format!("name = \"spp\"\ntype = \"spp\"\n{bins}\n\n[[layer]]\nname = \"fc\"");
        TINY.replacen("name = \"fc\"", &spp, 1)
    };
    let model = Model::parse(&with("bins = [9, 2]")).unwrap();
    assert_eq!(model.dims(2).unwrap()[2], Dims { n: 2, c: 4 * 85, h: 1, w: 1 });
    assert_eq!(Model::parse(&model.to_toml().unwrap()).unwrap(), model);
    assert!(refused(&with("bins = []")).starts_with("line 11: layer \"spp\": levels of bins = 0"));
    assert!(refused(&with("bins = [2, 0]")).starts_with("line 11: layer \"spp\": bins = 0"));
    assert!(refused(&with("bins = [-1]")).starts_with("line 14: "));
    assert!(refused(&with("")).starts_with("line 11: missing field `bins`"));
    assert!(refused(&TINY.replacen("kernel = 3", "kernel = 3\nbins = [1]", 1)).contains("has no key `bins`"));
}

#[test]
fn layers_name_what_they_read_and_add() {
    let with = |layers: &str| {
        format!(
            r#"name = "x"
input = [3, 8, 8]
layer = [
    {{ name = "a", type = "conv", channels = 4, kernel = 1, bias = false }},
    {{ name = "b", type = "conv", channels = 4, kernel = 3, padding = 1 }},
    {layers}
    {{ name = "pool", type = "global-max-pool" }},
    {{ name = "fc", type = "linear", outputs = 2 }},
]"#
        )
    };
    let good = with(r#"{ name = "c", type = "batch-norm", from = "a", add = "b", activation = "prelu" },"#);
    let model = Model::parse(&good).unwrap();
    assert_eq!(Model::parse(&model.to_toml().unwrap()).unwrap(), model);
    assert_eq!((model.sources().unwrap()[2], model.classes()), (Source { from: 1, add: Some(2) }, 2));
    let names: Vec<String> = Parameters::initial(&model, 1).unwrap().iter().map(|p| p.name.clone()).collect();
    let of_c = ["c.weight", "c.bias", "c.running_mean", "c.running_var", "c.slopes"];
    assert_eq!(names, [&["a.weight", "b.weight", "b.bias"][..], &of_c, &["fc.weight", "fc.bias"]].concat());

    let wrong = |from: &str, to: &str| refused(&good.replacen(from, to, 1));
    assert_eq!(wrong("from = \"a\"", "from = \"pool\""), r#"line 6: layer "c": from = "pool" is no layer before it"#);
    assert_eq!(wrong("add = \"b\"", "add = \"c\""), r#"line 6: layer "c": add = "c" is no layer before it"#);
    assert!(wrong("add = \"b\"", "add = 1").starts_with("line 6: invalid type: integer `1`"));
    assert!(wrong(", padding = 1", "").starts_with("line 6: layer \"c\": rows = 6 of the layer that it adds"));
    assert!(wrong("from = \"a\", add = \"b\",", "from = \"a\",").contains("nothing reads layer \"b\""));
    assert!(wrong("\"global-max-pool\"", "\"global-max-pool\", add = \"c\"").contains("has no key `add`"));
    assert!(wrong("outputs = 2", "outputs = 2, bias = false").contains("has no key `bias`"));
    let mut other = model.clone();
    other.layers[3].add = Some("c".into());
    assert!(other.dims(1).unwrap_err().to_string().contains("layer \"pool\": add"));
}

#[test]
fn unknown_keys_and_values_are_refused_with_their_line() {
    assert!(Model::parse(TINY).is_ok());
    let wrong = |from: &str, to: &str| refused(&TINY.replacen(from, to, 1));
    assert!(wrong("kernel = 3", "kernal = 3").starts_with("line 8: unknown field `kernal`"));
    assert!(wrong("kernel = 3", "rate = 0.5").starts_with("line 4: missing field `kernel`"));
    assert!(wrong("outputs = 2", "outputs = 2\nkernel = 1").starts_with("line 15: layer \"fc\""));
    assert!(wrong("\"prelu\"", "\"swish\"").starts_with("line 9: unknown activation \"swish\""));
    assert!(wrong("\"conv\"", "\"convolution\"").contains("unknown type \"convolution\""));
    assert!(wrong("kernel = 3", "kernel = 9").starts_with("line 4: layer \"conv1\": kh = 9"));
    assert!(wrong("kernel = 3", "kernel = 3\nstride = 0").starts_with("line 4: layer \"conv1\": stride_h = 0"));
    assert!(wrong("kernel = 3", "kernel = -3").starts_with("line 8: "));
    assert!(wrong("\"fc\"", "\"conv1\"").contains("line 11: layer \"conv1\" is there twice"));
    assert!(wrong("\n[[layer]]", "[training]\nlr = nan\n[[layer]]").starts_with("line 3: training: lr = NaN"));
    assert!(wrong("name = \"tiny\"", "name = 1").starts_with("line 1: "));
    assert!(wrong("activation = \"prelu\"", "activation = \"prelu\"\nslope = inf").starts_with("line 10: slope = inf"));
    assert!(refused("name = \"x\"\ninput = [1, 2, 2]").contains("no layer has weights"));
    assert!(refused("name = \"x\"\ninput = [0, 2, 2]").contains("input"));
    assert!(refused("name = ").starts_with("line 1: "));
}

#[test]
fn a_net_fits_other_images() {
    let model = Model::built_in("shapes-small").unwrap().fit([1, 28, 28], 7).unwrap();
    assert_eq!((model.classes(), model.dims(2).unwrap()[0].h), (7, 28));
    assert!(matches!(model.fit([1, 3, 3], 7), Err(ModelError::Layer { layer, .. }) if layer == "pool2"));
    assert!(matches!(Model::load("no-such"), Err(ModelError::Unknown(name)) if name == "no-such"));
    assert!(matches!(Model::load("no-such.toml"), Err(ModelError::Read { .. })));
}
