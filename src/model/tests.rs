use super::*;

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
