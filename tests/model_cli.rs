//! `rectify model` and `rectify init-study`: what they print and draw.

use std::process::{Command, Output};

fn rectify(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rectify")).args(args).output().unwrap()
}

fn success(args: &[&str]) -> String {
    let out = rectify(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn refusal(args: &[&str], code: i32, part: &str) {
    let out = rectify(args);
    let text = String::from_utf8(out.stderr).unwrap();
    assert!(text.lines().count() == 1 && text.starts_with("error: ") && out.stdout.is_empty(), "{args:?}: {text}");
    assert!(text.contains(part) && out.status.code() == Some(code), "{args:?}: {text}");
}

/// The words of the line of a layer.
fn row<'a>(text: &'a str, layer: &str) -> Vec<&'a str> {
    let line = text.lines().find(|l| l.split_whitespace().next() == Some(layer));
    line.unwrap_or_else(|| panic!("{layer}: {text}")).split_whitespace().collect()
}

#[test]
fn layers_are_printed_with_their_figures() {
    let text = success(&["model", "a19"]);
    assert!(text.starts_with("a19, images of 3×224×224\n"));
    let row1 = row(&text, "conv1");
    assert_eq!(row1[..8], ["conv1", "conv", "7×7,", "stride", "2,", "padding", "3", "+"]);
    // 96×(147 + 1 + 1) parameters, 96·147·112² multiplications.
    assert_eq!(row1[8..13], ["prelu", "96×112×112", "4704", "14304", "1.770e8"]);
    assert!(row1[13].starts_with("winograd-f4x7s2-"), "{row1:?}");
    assert!(row(&text, "conv3_2").last().unwrap().starts_with("winograd-f4x3-"));
    assert_eq!(row(&text, "spp")[1..], ["spp", "7", "3", "2", "1", "32256", "126"]);
    assert!(text.contains("\n178032072 parameters, 679.1 MiB\n1.906e10 multiplications an image\n"));
    let kernels = |args: &[&str]| row(&success(args), "conv2_1").iter().filter(|w| w.contains("-f4x2-")).count();
    assert_eq!((kernels(&["model", "e14"]), kernels(&["model", "e14", "--backward"])), (1, 2));
}

#[test]
fn other_sizes_are_planned_where_the_net_takes_them() {
    let text = success(&["model", "a19", "--size", "384,512"]);
    assert!(text.starts_with("a19, images of 3×384×512\n") && row(&text, "conv4_5").contains(&"512×24×32"));
    assert!(text.contains("\n178032072 parameters"));
    refusal(&["model", "a19", "--size", "1,2,3"], 2, "--size: 3 numbers");
    refusal(&["model", "vgg19", "--size", "256"], 2, "layer \"fc1\" would read 32768 values of an image of 256×256");
    refusal(&["model", "vgg20"], 2, "unknown model \"vgg20\": expected shapes-small, ");
    refusal(&["model", "a19", "--batch", "0"], 2, "no dimension may be 0");
    refusal(&["model", "none.toml"], 1, "none.toml: ");
}

#[test]
fn a_picture_is_written_whole_or_not_at_all() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("net.svg");
    success(&["model", "e30", "--svg", path.to_str().unwrap()]);
    let svg = std::fs::read_to_string(&path).unwrap();
    assert!(svg.ends_with("</svg>\n") && svg.contains(">conv3_22</text>"));
    let nowhere = home.path().join("none").join("net.svg");
    refusal(&["model", "e30", "--svg", nowhere.to_str().unwrap()], 1, "net.svg");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
}

#[test]
fn a_study_of_initialisations_is_printed_and_drawn() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("study.svg");
    let study = |threads: &str| {
        let args =
            ["init-study", "--model", "cifar-small", "--init", "xavier", "--init", "gaussian:0.01", "--draws", "2"];
        success(&[&args[..], &["--batch", "1", "--threads", threads, "--svg", path.to_str().unwrap()]].concat())
    };
    let text = study("1");
    assert_eq!(study("3"), text);
    assert!(text.starts_with("cifar-small: root mean squares of 2 draws of 1 images\n"));
    for head in ["\nxavier ", "\ngaussian:0.01 "] {
        assert_eq!(text.matches(head).count(), 1, "{text}");
    }
    assert_eq!(row(&text, "conv1").len(), 5);
    let svg = std::fs::read_to_string(&path).unwrap();
    assert!(svg.contains("xavier") && svg.contains("gaussian:0.01") && svg.contains("<polyline"));
    refusal(&["init-study", "--init", "gaussian:0"], 2, "gaussian:0");
    refusal(
        &["init-study", "--model", "iresnet18"],
        1,
        "layer \"conv1\" has no bias: such a net can be run, but not trained",
    );
    refusal(&["init-study", "--draws", "0"], 2, "--draws");
}
