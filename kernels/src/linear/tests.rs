use super::forward::HEIGHT;
use super::*;
use crate::conv::Epilogue;
use crate::elementwise::{Rates, sgd_step};
use crate::reference;
use crate::testing::{everywhere, numbers, same_bits, to_blocked};
use proptest::prelude::*;

/// The bits of all passes are the reference's, the step's those of gradient and update one after the other; padding
/// lanes are zero.
fn check_bits(s: &LinearShape, seed: u64, special: bool) -> Result<(), String> {
    let (input, output) = (s.input(), s.output());
    let x = numbers(seed, input.plain_len(), special);
    let (w, dy) = (numbers(seed + 1, s.weight_len(), special), numbers(seed + 2, output.plain_len(), special));
    let (bias, slopes) = (numbers(seed + 3, s.outputs, false), numbers(seed + 4, s.outputs, false));
    let sums = reference::linear::forward(s, &x, &w).unwrap();
    let pre: Vec<f32> = sums.iter().enumerate().map(|(i, y)| y + bias[i % s.outputs]).collect();
    let want = |slopes: &[f32]| to_blocked(&output, &reference::prelu::forward(&output, &pre, slopes).unwrap(), 0.0);
    let dx = to_blocked(&input, &reference::linear::backward_data(s, &dy, &w).unwrap(), 0.0);
    let dw = reference::linear::backward_weights(s, &x, &dy).unwrap();
    let (sums, pre) = (to_blocked(&output, &sums, 0.0), to_blocked(&output, &pre, 0.0));
    let with = |shortcut: &[f32]| sums_with(&pre, shortcut);
    let (x, dy) = (to_blocked(&input, &x, 0.0), to_blocked(&output, &dy, 0.0));
    everywhere(|isa| {
        let threads = rayon::current_num_threads();
        let plan = Forward::new(isa, s).unwrap();
        let mut workspace = vec![f32::NAN; plan.workspace_len(threads)];
        let (mut y, mut kept) = (vec![f32::NAN; sums.len()], vec![f32::NAN; sums.len()]);
        // Several blocks a task, as where the inputs are more than the second cache holds, and one.
        for most in if s.n == 1 { vec![1] } else { vec![1, HEIGHT] } {
            y.fill(f32::NAN);
            plan.run_by(most, &x, &w, Epilogue::None, &mut y, &mut workspace).unwrap();
            same_bits(&y, &sums)?;
        }
        let mut run = |epilogue: Epilogue<'_>, want: &[f32]| {
            plan.run(&x, &w, epilogue, &mut y, &mut workspace).unwrap();
            same_bits(&y, want)
        };
        run(Epilogue::None, &sums)?;
        run(Epilogue::Bias(&bias), &pre)?;
        run(Epilogue::BiasPrelu { bias: &bias, slopes: &slopes }, &want(&slopes))?;
        run(Epilogue::BiasPrelu { bias: &bias, slopes: &slopes[..1] }, &want(&slopes[..1]))?;
        run(Epilogue::BiasAdd { bias: &bias, shortcut: &dy }, &with(&dy))?;
        run(Epilogue::BiasPreluKeep { bias: &bias, slopes: &slopes, pre: &mut kept }, &want(&slopes))?;
        same_bits(&kept, &pre)?;

        let plan = BackwardData::new(isa, s).unwrap();
        let mut workspace = vec![f32::NAN; plan.workspace_len(threads)];
        let mut got = vec![f32::NAN; x.len()];
        plan.run(&dy, &w, &mut got, &mut workspace).unwrap();
        same_bits(&got, &dx)?;

        let plan = BackwardWeights::new(isa, s).unwrap();
        let mut workspace = vec![f32::NAN; plan.workspace_len(threads)];
        let mut got = vec![f32::NAN; w.len()];
        plan.run(&x, &dy, &mut got, &mut workspace).unwrap();
        same_bits(&got, &dw)?;

        let rates = Rates { lr: 0.1, momentum: 0.9, weight_decay: 0.01 };
        let (mut want_w, mut want_v) = (w.clone(), numbers(seed + 5, w.len(), special));
        let (mut got_w, mut got_v) = (want_w.clone(), want_v.clone());
        sgd_step(isa, &mut want_w, &dw, &mut want_v, rates).unwrap();
        plan.step(&x, &dy, &mut got_w, &mut got_v, rates, &mut workspace).unwrap();
        same_bits(&got_v, &want_v)?;
        same_bits(&got_w, &want_w)?;

        let plan = BackwardStep::new(isa, s).unwrap();
        for served in [1, threads] {
            let mut workspace = vec![f32::NAN; plan.workspace_len(served)];
            let (mut got_w, mut got_v) = (w.clone(), numbers(seed + 5, w.len(), special));
            let mut got = vec![f32::NAN; x.len()];
            plan.run(&x, &dy, &mut got_w, &mut got_v, rates, &mut got, &mut workspace).unwrap();
            same_bits(&got, &dx)?;
            same_bits(&got_v, &want_v)?;
            same_bits(&got_w, &want_w)?;
        }
        Ok(())
    })
}

fn sums_with(pre: &[f32], shortcut: &[f32]) -> Vec<f32> {
    pre.iter().zip(shortcut).map(|(a, b)| a + b).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn bits_are_the_reference_s(
        n in prop::sample::select(vec![1usize, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16, 17, 19, 25, 40]),
        c in prop::sample::select(vec![1usize, 3, 15, 16, 17, 33, 64, 65]),
        (h, w) in prop::sample::select(vec![(1usize, 1usize), (1, 1), (2, 3), (1, 5), (4, 4)]),
        outputs in prop::sample::select(vec![1usize, 2, 5, 15, 16, 17, 31, 40, 64]),
        seed: u64, special: bool,
    ) {
        let s = LinearShape { n, c, h, w, outputs };
        check_bits(&s, seed / 2, special).map_err(|e| TestCaseError::fail(format!("{s:?}: {e}")))?;
    }
}

#[test]
fn chunks_of_the_format_and_blocks_of_the_passes_end_anywhere() {
    for (n, c, outputs) in
        [(3, 511, 20), (3, 512, 20), (3, 513, 20), (2, 1100, 7), (9, 40, 511), (9, 40, 513), (2, 20, 1100)]
    {
        let s = LinearShape { n, c, h: 1, w: 1, outputs };
        check_bits(&s, 1, false).unwrap_or_else(|e| panic!("{s:?}: {e}"));
    }
    // The forward pass takes four or two outputs and up to six images a tile, as many images together as the first
    // cache holds a chunk of, and 64 outputs a task.
    for (n, c, outputs) in [
        (1, 4700, 19),
        (3, 2047, 18),
        (8, 2049, 17),
        (12, 700, 70),
        (15, 4608, 5),
        (7, 530, 300),
        (16, 1040, 147),
        (14, 512, 33),
        (35, 545, 130),
        // Each tile.
        (4, 530, 20),
        (5, 530, 20),
        (6, 530, 20),
        (25, 530, 20),
        // Several strips a thread, of the fewest vectors too; several parts of a strip, with more outputs than a chain
        // has.
        (128, 1100, 18),
        (300, 600, 20),
        (3, 700, 530),
    ] {
        let s = LinearShape { n, c, h: 1, w: 1, outputs };
        check_bits(&s, 1, false).unwrap_or_else(|e| panic!("{s:?}: {e}"));
    }
    let s = LinearShape { n: 3, c: 45, h: 4, w: 4, outputs: 520 };
    check_bits(&s, 1, false).unwrap_or_else(|e| panic!("{s:?}: {e}"));
    // Trees of groups of images: 1 to 5 groups and 16.
    for n in [8, 16, 24, 32, 40, 41, 128] {
        let s = LinearShape { n, c: 70, h: 1, w: 1, outputs: 6 };
        check_bits(&s, 2, false).unwrap_or_else(|e| panic!("{s:?}: {e}"));
    }
}

#[test]
fn bad_input_is_refused() {
    let s = LinearShape { n: 2, c: 3, h: 2, w: 2, outputs: 5 };
    assert!(s.check().is_ok());
    for (name, bad) in [
        ("n", LinearShape { n: 0, ..s }),
        ("c", LinearShape { c: 0, ..s }),
        ("h", LinearShape { h: 0, ..s }),
        ("w", LinearShape { w: 0, ..s }),
        ("outputs", LinearShape { outputs: 0, ..s }),
    ] {
        assert!(matches!(bad.check(), Err(Error::Shape { what, .. }) if what == name));
    }
    assert!(matches!(LinearShape { outputs: usize::MAX / 64, ..s }.check(), Err(Error::Overflow { .. })));
    let (x, w, dy) = (vec![0.0; s.input().blocked_len()], vec![0.0; s.weight_len()], vec![0.0; 2 * 16]);
    let plan = Forward::new(Isa::Portable, &s).unwrap();
    let (mut y, mut workspace) = (vec![0.0; 32], vec![0.0; plan.workspace_len(1)]);
    let mut run = |x: &[f32], w: &[f32], e: Epilogue<'_>| plan.run(x, w, e, &mut y, &mut workspace);
    assert_eq!(run(&x, &w[1..], Epilogue::None), Err(Error::Length { what: "weights", got: 59, want: 60 }));
    assert!(run(&x[1..], &w, Epilogue::None).is_err());
    assert!(run(&x, &w, Epilogue::Bias(&[0.0; 4])).is_err());
    assert!(run(&x, &w, Epilogue::BiasPrelu { bias: &[0.0; 5], slopes: &[0.0; 2] }).is_err());
    assert!(run(&x, &w, Epilogue::BiasAdd { bias: &[0.0; 5], shortcut: &[0.0; 5] }).is_err());
    assert!(run(&x, &w, Epilogue::BiasPreluKeep { bias: &[0.0; 5], slopes: &[0.0], pre: &mut [] }).is_err());
    assert!(plan.run(&x, &w, Epilogue::None, &mut y, &mut []).is_err());
    let plan = BackwardData::new(Isa::Portable, &s).unwrap();
    let mut workspace = vec![0.0; plan.workspace_len(1)];
    assert!(plan.run(&dy, &w, &mut [0.0; 3], &mut workspace).is_err());
    assert!(plan.run(&dy[1..], &w, &mut x.clone(), &mut workspace).is_err());
    let plan = BackwardWeights::new(Isa::Portable, &s).unwrap();
    let mut workspace = vec![0.0; plan.workspace_len(1)];
    assert!(plan.run(&x, &dy, &mut [0.0; 3], &mut workspace).is_err());
    let good = Rates { lr: 0.1, momentum: 0.9, weight_decay: 0.0 };
    let mut step = |w: &mut [f32], v: &mut [f32], rates| plan.step(&x, &dy, w, v, rates, &mut workspace);
    assert!(step(&mut w.clone(), &mut [0.0; 3], good).is_err());
    let e = step(&mut w.clone(), &mut w.clone(), Rates { momentum: f32::INFINITY, ..good });
    assert!(matches!(e, Err(Error::Value { what: "momentum", .. })));
    let plan = BackwardStep::new(Isa::Portable, &s).unwrap();
    let len = plan.workspace_len(1);
    let step = |lens: [usize; 6], rates| {
        let [x, dy, mut w, mut v, mut dx, mut workspace] = lens.map(|len| vec![1.0; len]);
        let done = plan.run(&x, &dy, &mut w, &mut v, rates, &mut dx, &mut workspace);
        (done, w.iter().chain(&dx).all(|&v| v == 1.0))
    };
    let lens = [x.len(), 32, 60, 60, x.len(), len];
    assert!(matches!(step(lens, good), (Ok(()), false)));
    for (i, what) in ["x", "dy", "weights", "velocity", "dx", "workspace"].into_iter().enumerate() {
        let mut bad = lens;
        bad[i] -= 1;
        assert!(matches!(step(bad, good), (Err(Error::Length { what: found, .. }), true) if found == what), "{what}");
    }
    let e = step(lens, Rates { lr: f32::NAN, ..good });
    assert!(matches!(e, (Err(Error::Value { what: "learning rate", .. }), true)), "{e:?}");
}
