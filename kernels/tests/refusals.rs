//! What plans of convolutions refuse, before a kernel sees it: slices of another length, layouts, instruction sets that
//! the processor lacks.

use rectify_kernels::conv::{Algorithm, BackwardData, BackwardWeights, Epilogue, Forward, Layout, Options};
use rectify_kernels::linear::{self, LinearShape};
use rectify_kernels::{ConvShape, Error, Isa};

/// A shape for each kind of kernel: direct and by Winograd, strided, of few channels, depthwise, in groups.
fn shapes() -> [ConvShape; 8] {
    let square = ConvShape::square;
    [
        square(2, 18, 6, 20, 1, 1, 0),
        ConvShape { dilation_h: 2, ..square(1, 7, 9, 5, 3, 1, 1) },
        square(2, 16, 8, 32, 3, 1, 1),
        square(1, 16, 9, 16, 3, 2, 1),
        square(1, 3, 12, 20, 7, 2, 3),
        ConvShape { groups: 18, ..square(1, 18, 6, 18, 3, 1, 1) },
        ConvShape { groups: 4, ..square(1, 16, 6, 16, 3, 1, 1) },
        ConvShape { groups: 2, ..square(1, 32, 6, 32, 3, 1, 1) },
    ]
}

/// Calls `run` with slices of these lengths, then with each of them one element shorter or longer: an error that names
/// it and both lengths, and nothing is written. Only a workspace may be longer.
fn check_lengths<const N: usize>(
    names: [&str; N],
    lens: [usize; N],
    run: impl Fn(&mut [Vec<f32>; N]) -> Result<(), Error>,
) {
    let filled = |lens: [usize; N]| lens.map(|len| vec![1.0; len]);
    assert_eq!(run(&mut filled(lens)), Ok(()));
    for (i, &name) in names.iter().enumerate() {
        // A plan may need no workspace.
        let shorter = lens[i].checked_sub(1);
        let longer = (name != "workspace").then_some(lens[i] + 1);
        for got in shorter.into_iter().chain(longer) {
            let mut bad = lens;
            bad[i] = got;
            let mut slices = filled(bad);
            match run(&mut slices) {
                Err(Error::Length { what, got: found, want }) => {
                    assert_eq!((what, found, want), (name, got, lens[i]));
                }
                other => panic!("{name} of {got} in place of {}: {other:?}", lens[i]),
            }
            assert!(slices.iter().flatten().all(|&v| v == 1.0), "{name} of {got}: something was written");
        }
    }
}

#[test]
fn lengths_that_do_not_fit() {
    let options = Options::default();
    for isa in Isa::available() {
        for s in &shapes() {
            let (x, y, w) = (s.input().blocked_len(), s.output().blocked_len(), s.weight_len());
            let plan = Forward::new(isa, s, &options).unwrap();
            let packed = plan.packed_len();
            check_lengths(["weights", "packed weights"], [w, packed], |[w, packed]| plan.pack(w, packed));
            check_lengths(["pads", "weights", "packed weights"], [s.ic, w, packed], |[pads, w, packed]| {
                plan.pack_padded(w, pads, packed)
            });
            let names = ["x", "packed weights", "bias", "slopes", "pre-activation", "y", "workspace"];
            let lens = [x, packed, s.oc, s.oc, y, y, plan.workspace_len(1)];
            check_lengths(names, lens, |[x, packed, bias, slopes, pre, y, workspace]| {
                plan.run(x, packed, Epilogue::BiasPreluKeep { bias, slopes, pre }, y, workspace)
            });
            let names = ["x", "packed weights", "bias", "shortcut", "y", "workspace"];
            check_lengths(
                names,
                [x, packed, s.oc, y, y, plan.workspace_len(1)],
                |[x, packed, bias, shortcut, y, v]| plan.run(x, packed, Epilogue::BiasAdd { bias, shortcut }, y, v),
            );

            let plan = BackwardData::new(isa, s, &options).unwrap();
            let packed = plan.packed_len();
            check_lengths(["weights", "packed weights"], [w, packed], |[w, packed]| plan.pack(w, packed));
            let lens = [y, packed, x, plan.workspace_len(1)];
            check_lengths(["dy", "packed weights", "dx", "workspace"], lens, |[dy, packed, dx, workspace]| {
                plan.run(dy, packed, dx, workspace)
            });

            let plan = BackwardWeights::new(isa, s, &options).unwrap();
            let lens = [x, y, w, plan.workspace_len(1)];
            check_lengths(["x", "dy", "dw", "workspace"], lens, |[x, dy, dw, workspace]| {
                plan.run(x, dy, dw, workspace)
            });
        }
    }
}

#[test]
fn layouts_that_weights_gradients_cannot_read() {
    let square = ConvShape::square;
    let grouped = ConvShape { groups: 2, ..square(1, 4, 9, 6, 3, 2, 1) };
    for (s, algorithm, what) in [
        (grouped, Algorithm::Auto, "groups"),
        (square(1, 5, 9, 6, 3, 2, 1), Algorithm::Auto, "ic"),
        (square(1, 3, 9, 6, 3, 1, 1), Algorithm::Winograd, "stride_h"),
        (square(1, 3, 9, 6, 3, 1, 1), Algorithm::WinogradAccurate, "stride_h"),
    ] {
        let options = Options { algorithm, input: Layout::Nchw, ..Options::default() };
        match BackwardWeights::new(Isa::Portable, &s, &options) {
            Err(Error::Shape { what: found, .. }) => assert_eq!(found, what, "{s:?}"),
            other => panic!("{s:?}: {other:?}"),
        }
    }
}

#[test]
fn instruction_sets_that_the_processor_lacks() {
    let (s, options) = (ConvShape::square(1, 16, 6, 16, 3, 1, 1), Options::default());
    let line = LinearShape { n: 1, c: 3, h: 1, w: 1, outputs: 2 };
    // No processor has those of two architectures.
    let lacking = Isa::ALL.into_iter().filter(|isa| !isa.is_available()).collect::<Vec<_>>();
    assert!(!lacking.is_empty());
    for isa in lacking {
        let refused = Err(Error::UnsupportedIsa(isa.name()));
        assert_eq!(Forward::new(isa, &s, &options).map(drop), refused);
        assert_eq!(BackwardData::new(isa, &s, &options).map(drop), refused);
        assert_eq!(BackwardWeights::new(isa, &s, &options).map(drop), refused);
        assert_eq!(linear::Forward::new(isa, &line).map(drop), refused);
        assert_eq!(linear::BackwardData::new(isa, &line).map(drop), refused);
        assert_eq!(linear::BackwardWeights::new(isa, &line).map(drop), refused);
        assert_eq!(linear::BackwardStep::new(isa, &line).map(drop), refused);
    }
}

/// Shapes that [`ConvShape::check`] lets pass, near its bounds: nothing wraps round, and no plan takes long.
#[test]
fn shapes_near_the_bounds_are_planned_at_once_and_need_no_less_for_more_threads() {
    let square = ConvShape::square;
    let far = 1 << 23;
    let dilated =
        ConvShape { dilation_h: far, dilation_w: far, pad_top: far, pad_left: far, ..square(256, 16, 1, 16, 2, 1, 0) };
    let wide = ConvShape { groups: 1 << 34, ..square(1, 1 << 34, 1, 1 << 34, 1, 1, 0) };
    let tall = ConvShape { ih: 1 << 20, kh: 1 << 20, stride_h: 1 << 16, ..square(1, 1, 1, 1, 1, 1, 0) };
    let options = Options { algorithm: Algorithm::Direct, ..Options::default() };
    for s in [dilated, tall] {
        assert_eq!(s.check(), Ok(()), "{s:?}");
        let forward = Forward::new(Isa::Portable, &s, &options).unwrap();
        let data = BackwardData::new(Isa::Portable, &s, &options).unwrap();
        let lens = |threads| [forward.workspace_len(threads), data.workspace_len(threads)];
        for [fewer, more] in [[1, 2], [2, 86], [86, 1 << 16]] {
            assert!(lens(fewer).iter().zip(lens(more)).all(|(&few, many)| few <= many), "{s:?}: {fewer} and {more}");
        }
    }
    assert_eq!(wide.check(), Ok(()));
    assert_eq!(Algorithm::Auto.variant_from(&wide, Layout::Nchw), Ok(None));
    let s = LinearShape { n: 1 << 46, c: 1, h: 1, w: 1, outputs: 1 };
    let (forward, data) = (linear::Forward::new(Isa::Portable, &s), linear::BackwardData::new(Isa::Portable, &s));
    let (forward, data) = (forward.unwrap(), data.unwrap());
    let weights = linear::BackwardWeights::new(Isa::Portable, &s).unwrap();
    let step = linear::BackwardStep::new(Isa::Portable, &s).unwrap();
    let lens = |t| [forward.workspace_len(t), data.workspace_len(t), weights.workspace_len(t), step.workspace_len(t)];
    assert!(lens(1).iter().zip(lens(256)).all(|(&one, many)| one <= many && one >= 1 << 46));
}

/// The oracles refuse what the kernels refuse, by its own name.
#[test]
fn references_refuse_bad_shapes_and_lengths() {
    use rectify_kernels::{Dims, reference};
    let s = ConvShape::square(1, usize::MAX, 1, 1, 1, 1, 0);
    assert!(matches!(reference::conv::forward::<f32>(&s, &[], &[]), Err(Error::Overflow { .. } | Error::Shape { .. })));
    let found = reference::loss::softmax_cross_entropy::<f32>(1 << 63, &[], &[0, 0]).unwrap_err();
    assert!(matches!(found, Error::Overflow { what: "logits length", .. }), "{found}");
    let d = Dims { n: 1, c: 2, h: 1, w: 3 };
    let found = reference::prelu::backward::<f32>(&d, &[0.0; 5], &[0.25; 2], &[0.0; 6]).unwrap_err();
    assert_eq!(found, Error::Length { what: "pre", got: 5, want: 6 });
    for (padded, s) in [
        ("padded height", ConvShape { pad_top: usize::MAX, ..ConvShape::square(1, 1, 5, 1, 3, 1, 0) }),
        ("padded width", ConvShape { pad_right: 1 << 63, ..ConvShape::square(1, 1, 5, 1, 3, 1, 0) }),
    ] {
        match s.check() {
            Err(Error::Overflow { what, .. }) => assert_eq!(what, padded),
            other => panic!("{other:?}"),
        }
    }
}
