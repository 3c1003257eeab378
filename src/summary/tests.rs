use super::svg::short;
use super::*;

fn of(name: &str) -> Summary {
    Summary::of(&Model::built_in(name).unwrap(), Isa::best().unwrap(), 1).unwrap()
}

#[test]
fn figures_are_those_counted_by_hand() {
    let e14 = of("e14");
    assert_eq!((e14.input, e14.layers.len()), (Dims { n: 1, c: 3, h: 224, w: 224 }, 19));
    let conv1 = &e14.layers[0];
    assert_eq!((conv1.what.as_str(), conv1.activation), ("conv 7×7, stride 2, padding 3", "prelu"));
    assert_eq!(conv1.output, Dims { n: 1, c: 64, h: 112, w: 112 });
    // Weights, biases, slopes.
    assert_eq!((conv1.parameters, conv1.multiplications), (64 * 147 + 64 + 64, 64.0 * 147.0 * 112.0 * 112.0));
    assert_eq!(conv1.bytes(), 4 * 64 * 112 * 112);
    let spp = e14.layers.iter().find(|l| l.kind == "spp").unwrap();
    assert_eq!((spp.what.as_str(), spp.output.c, &spp.kernels), ("spp 6 3 2 1", 256 * 50, &None));
    let fc1 = e14.layers.iter().find(|l| l.name == "fc1").unwrap();
    assert_eq!(fc1.parameters, 256 * 50 * 4096 + 4096 + 4096);
    assert!(fc1.kernels.as_ref().unwrap().backward.is_some());
    assert_eq!(e14.parameters(), e14.layers.iter().map(|l| l.parameters).sum::<usize>());
    assert_eq!(e14.multiplications(), Model::built_in("e14").unwrap().multiplications().unwrap());
    // 37×37×64 floats of pool1 among them: nothing is padded to blocks here but fc3's 1000 classes.
    let floats: usize = e14.layers.iter().map(|l| l.output.plain_len()).sum();
    assert_eq!(e14.activation_bytes(), 4 * (floats + 8));
}

#[test]
fn the_picture_is_well_formed_and_has_every_layer_and_jump() {
    for name in ["e14", "e30", "iresnet18"] {
        let (summary, svg) = (of(name), of(name).svg());
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        let open = svg.matches('<').count();
        assert_eq!(open, svg.matches("/>").count() + 2 * svg.matches("</").count(), "{name}");
        for layer in &summary.layers {
            assert!(svg.contains(&format!(">{}</text>", layer.name)), "{name}: {}", layer.name);
        }
        let adds = summary.layers.iter().filter(|l| l.add.is_some()).count();
        let froms = summary.layers.iter().enumerate().filter(|(i, l)| l.from != *i).count();
        assert_eq!(svg.matches("<path ").count(), adds + froms, "{name}");
    }
    let mut summary = of("e14");
    summary.name = "a<b & \"c\"\u{1}".into();
    assert!(summary.svg().contains("a&lt;b &amp; &quot;c&quot;\u{fffd}"));
    assert_eq!([0.0, 999.0, 1000.0, 99_949.0, 1.9e10].map(short), ["0", "999", "1.0 k", "99.9 k", "19.0 G"]);
}
