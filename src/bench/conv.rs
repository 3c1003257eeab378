//! The three directions of a convolution. Weights are packed before the clock starts; activations are blocked, as they
//! are between layers, or NCHW with the conversions timed.

use super::check::{self, Epilogued};
use super::tensors::{Role, random, random_blocked};
use super::{BenchError, Measured, Options, timing};
use rectify_kernels::conv::{self, Layout};
use rectify_kernels::{Buffer, ConvShape, Error, layout};

/// The algorithm asked for, with the blocking that follows from the shape.
fn options(o: &Options) -> conv::Options {
    conv::Options { algorithm: o.algorithm, ..conv::Options::default() }
}

/// Forward, with bias and PReLU. A first layer reads NCHW.
pub(super) fn forward(s: &ConvShape, o: &Options) -> Result<Measured, BenchError> {
    let first = s.has_few_channels();
    let input = if first { Layout::Nchw } else { o.layout };
    let plan = conv::Forward::new(o.isa, s, &conv::Options { input, output: o.layout, ..options(o) })?;
    let (x, w) = (random_blocked(Role::Input, &s.input()), random(Role::Weights, s.weight_len()));
    let (bias, slopes) = (random(Role::Bias, s.oc), random(Role::Slopes, s.oc));
    let mut packed = Buffer::zeroed(plan.packed_len());
    plan.pack(&w, &mut packed)?;
    let mut workspace = Buffer::zeroed(plan.workspace_len(o.threads));
    let mut y = Buffer::zeroed(o.layout.len(&s.output()));
    let mut image = Buffer::zeroed(if input == Layout::Nchw { s.input().plain_len() } else { 0 });
    if input == Layout::Nchw {
        layout::blocked_to_nchw(o.isa, s.input(), &x, &mut image)?;
    }
    let from = if input == Layout::Nchw { &image } else { &x };
    let mut once = |y: &mut [f32]| {
        plan.run(from, &packed, conv::Epilogue::BiasPrelu { bias: &bias, slopes: &slopes }, y, &mut workspace)
    };
    once(&mut y)?;
    let verdict = match o.check {
        false => None,
        true => {
            let mut blocked = Buffer::zeroed(s.output().blocked_len());
            match o.layout {
                Layout::Blocked => blocked.copy_from_slice(&y),
                Layout::Nchw => layout::nchw_to_blocked(o.isa, s.output(), &y, &mut blocked)?,
            }
            let epilogue = Epilogued { bias: &bias, slopes: &slopes };
            Some(check::forward(s, plan.variant(), &x, &w, &epilogue, &blocked))
        }
    };
    finish(plan.kernel(), o, verdict, || once(&mut y))
}

/// The gradient with respect to the input.
pub(super) fn backward_data(s: &ConvShape, o: &Options) -> Result<Measured, BenchError> {
    let plan = conv::BackwardData::new(o.isa, s, &options(o))?;
    let (dy, w) = (random_blocked(Role::OutputGradient, &s.output()), random(Role::Weights, s.weight_len()));
    let mut packed = Buffer::zeroed(plan.packed_len());
    plan.pack(&w, &mut packed)?;
    let mut workspace = Buffer::zeroed(plan.workspace_len(o.threads));
    let mut dx = Buffer::zeroed(s.input().blocked_len());
    plan.run(&dy, &packed, &mut dx, &mut workspace)?;
    let verdict = o.check.then(|| check::backward_data(s, plan.variant(), &dy, &w, &dx));
    finish(plan.kernel(), o, verdict, || plan.run(&dy, &packed, &mut dx, &mut workspace))
}

/// The gradient with respect to the weights.
pub(super) fn backward_weights(s: &ConvShape, o: &Options) -> Result<Measured, BenchError> {
    let plan = conv::BackwardWeights::new(o.isa, s, &options(o))?;
    let x = random_blocked(Role::Input, &s.input());
    let dy = random_blocked(Role::OutputGradient, &s.output());
    let mut workspace = Buffer::zeroed(plan.workspace_len(o.threads));
    let mut dw = Buffer::zeroed(s.weight_len());
    plan.run(&x, &dy, &mut dw, &mut workspace)?;
    let verdict = o.check.then(|| check::backward_weights(s, plan.variant(), &x, &dy, &dw));
    finish(plan.kernel(), o, verdict, || plan.run(&x, &dy, &mut dw, &mut workspace))
}

/// Times what has been checked.
fn finish(
    kernel: String,
    o: &Options,
    verdict: Option<Result<check::Verdict, Error>>,
    once: impl FnMut() -> Result<(), Error>,
) -> Result<Measured, BenchError> {
    let verdict = verdict.transpose()?;
    let timing = timing::measure(o.isa, o.seconds, once)?;
    Ok(Measured {
        kernel,
        median_s: timing.median_s,
        plain_s: None,
        peak_gflops: Some(timing.peak_gflops),
        bytes: None,
        verdict,
    })
}
