use super::*;
use proptest::prelude::*;

fn shape(text: &str) -> ConvShape {
    Problem::parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).shape
}

#[test]
fn what_is_left_out_follows_from_the_rest() {
    let square = ConvShape::square(2, 96, 56, 256, 3, 1, 1);
    assert_eq!(shape("ic96ih56oc256oh56kh3ph1"), square);
    assert_eq!(shape("ic96ih56oc256oh56kh3"), square, "padding from the output");
    assert_eq!(shape("ic96ih56oc256kh3ph1"), square, "output from the padding");
    assert_eq!(shape("g1mb2_ic96ih56iw56_oc256_kh3kw3_sh1sw1_ph1pw1_dh0dw0"), square);
    assert_eq!(shape("ic96ih56oc256kh3").oh(), 54, "neither: no padding");
    let first = shape("mb1ic3ih224oc96oh112kh7sh2ph3");
    assert_eq!((first.pad_top, first.pad_bottom, first.pad_right, first.ow()), (3, 2, 2, 112));
    let even = shape("mb8ic128ih36oc128oh35kh2ph0");
    assert_eq!((even.pad_bottom, even.oh()), (0, 35));
    let skip = shape("mb1ic64ih56oc128oh28kh1sh2ph0");
    assert_eq!((skip.pad_bottom, skip.oh()), (0, 28), "the last row stays unread");
    let dilated = shape("ic4ih20oc4kh3dh1ph2");
    assert_eq!((dilated.dilation_w, dilated.ow()), (2, 20));
}

#[test]
fn one_dimensional_and_unequal_sides() {
    let line = shape("ic8iw100oc4kw5pw2sw2");
    assert_eq!((line.ih, line.kh, line.pad_top, line.iw, line.ow()), (1, 1, 0, 100, 50));
    let wide = shape("mb1ic12ih360iw640oc12oh360ow640kh3ph1");
    assert_eq!((wide.iw, wide.kw, wide.pad_right, wide.ow()), (640, 3, 1, 640));
    let oblong = shape("ic1ih9iw7oc1kh3kw1ph1pw0");
    assert_eq!((oblong.oh(), oblong.ow()), (9, 7));
}

#[test]
fn refusals_name_the_value() {
    for (text, part) in [
        ("ic3id8ih8oc4kh3", "id8: 3-D"),
        ("ic3ih8oc4kh3kd3", "kd3: 3-D"),
        ("ic3ih8oc4kh3sd2", "sd2: 3-D"),
        ("ic3ih8oc4kh3xy9", "\"xy9\""),
        ("ic3ih8oc4khx", "\"khx\""),
        ("ic3ih8oc4kh", "\"kh\""),
        ("ic3ih8oc4kh3ih9", "\"ih\" is given twice"),
        ("ih8oc4kh3", "\"ic\""),
        ("ic3ih8oc4", "\"kh\""),
        ("ic3iw8oc4kh3", "\"ih\""),
        ("ic3oc4", "\"iw\""),
        ("ic3ih8oc4kh3sh0", "\"sh\""),
        ("g0ic3ih8oc4kh3", "\"g\""),
        ("g2ic3ih8oc4kh3", "ic = 3"),
        ("ic3ih8oc4kh9", "input 8, kernel 9"),
        ("ic3ih8oc4oh20kh3ph1", "output 20"),
        ("ic3ih56oc4oh10kh3ph1", "output 10"),
        ("ic3ih8oc4oh2kh3", "output 2"),
        ("ic99999999999999999999ih8oc4kh3", "ic99999999999999999999"),
        ("mb2000000000ic2000000000ih2000000oc4kh3", "overflows"),
        ("ic3ih8oc4kh3n\"open", "closing quote"),
    ] {
        let error = Problem::parse(text).expect_err(text).to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn files_have_comments_and_line_numbers() {
    let text = "# head\n\nic3ih8oc4kh3n\"a#b\" # tail\n  ic3ih8oc4kh1nplain\n";
    let names: Vec<String> = Problem::parse_file(text).unwrap().into_iter().map(|p| p.name).collect();
    assert_eq!(names, ["a#b", "plain"]);
    let error = Problem::parse_file("ic3ih8oc4kh3\n# x\nic3ih8oc4kh3zz1\n").unwrap_err();
    assert!(matches!(error, ProblemError::Line { line: 3, .. }), "{error}");
}

#[test]
fn every_problem_file_parses() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/problems");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let problems = Problem::parse_file(&std::fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(problems.len() >= 3, "{}", path.display());
        let mut names: Vec<&str> = problems.iter().map(|p| p.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), problems.len(), "{}: a name is missing or stands twice", path.display());
        for problem in &problems {
            assert_eq!(&problem.to_string().parse::<Problem>().unwrap(), problem);
        }
        files += 1;
    }
    assert_eq!(files, 10);
}

prop_compose! {
    /// One dimension: input, kernel, stride, padding before, dilation, output.
    fn side()(k in 1usize..6, s in 1usize..4, d in 1usize..4, p in 0usize..7, o in 1usize..9, slack in 0usize..3,
              behind in 0usize..3)
        -> Option<(usize, usize, usize, usize, usize, usize)> {
        let extent = (k - 1) * d + 1;
        let behind = behind.min(extent - 1);
        // Padding behind and unread pixels exclude each other.
        let slack = if behind > 0 { 0 } else { slack.min(s - 1) };
        let input = ((o - 1) * s + extent + slack).checked_sub(p + behind)?;
        (input > 0).then_some((input, k, s, p, behind, d))
    }
}

proptest! {
    #[test]
    fn display_and_parse_are_inverse(
        (h, w) in (side().prop_filter_map("empty", |s| s), side().prop_filter_map("empty", |s| s)),
        g in 1usize..4, ic in 1usize..5, oc in 1usize..5, n in 1usize..5, name in "[^\n\r]{0,12}",
    ) {
        let shape = ConvShape {
            n, groups: g, ic: ic * g, oc: oc * g, ih: h.0, iw: w.0, kh: h.1, kw: w.1, stride_h: h.2, stride_w: w.2,
            pad_top: h.3, pad_bottom: h.4, pad_left: w.3, pad_right: w.4, dilation_h: h.5, dilation_w: w.5,
        };
        let problem = Problem { name, shape };
        prop_assert_eq!(problem.to_string().parse::<Problem>(), Ok(problem));
    }

    #[test]
    fn parsing_never_panics(text in "([gmionkspd][bcdhw]?[0-9]{0,4}){0,14}.{0,4}") {
        if let Ok(problem) = Problem::parse(&text) {
            prop_assert_eq!(problem.to_string().parse::<Problem>(), Ok(problem));
        }
    }
}
