//! Small fully connected layers, pools, pyramids of pools and rectifiers, forward and backward, on every instruction
//! set of the machine, by up to three threads: the bits are those of the naive loops.
#![no_main]

mod common;

use arbitrary::Arbitrary;
use common::{blocked, plain, pool, same};
use libfuzzer_sys::fuzz_target;
use rectify_kernels::conv::Epilogue;
use rectify_kernels::elementwise::{Rates, sgd_step};
use rectify_kernels::linear::{self, LinearShape};
use rectify_kernels::pool::{self as pools, PoolShape, SppShape};
use rectify_kernels::{Dims, Error, Isa, prelu, reference};

/// What the fuzzer draws; every number is folded into its range.
#[derive(Arbitrary, Debug)]
struct Draw {
    kind: u8,
    n: u8,
    c: u16,
    image: [u8; 2],
    flat: bool,
    outputs: u8,
    window: [u8; 2],
    stride: [u8; 2],
    pad: [u8; 4],
    bins: Vec<u8>,
    shared: bool,
    epilogue: u8,
    threads: u8,
    seed: u32,
    specials: Vec<(u8, u16)>,
}

/// A layer, and what it is given.
struct Case<'a> {
    draw: &'a Draw,
    pool: &'static rayon::ThreadPool,
}

impl Case<'_> {
    fn numbers(&self, stream: u32, len: usize) -> Vec<f32> {
        common::numbers(self.draw.seed, &self.draw.specials, stream, len)
    }

    /// As many elements as the plan asks for, none of which may be read before it is written.
    fn workspace(&self, len: impl Fn(usize) -> usize) -> Vec<f32> {
        vec![f32::NAN; len(self.pool.current_num_threads())]
    }

    /// Few channels, or more of a single pixel: those of a chunk and of several.
    fn dims(&self) -> Dims {
        let fold = |x: u8, most: u8| 1 + usize::from(x % most);
        let [h, w] = self.draw.image.map(|x| if self.draw.flat { 1 } else { fold(x, 9) });
        let most = if h * w == 1 { 1100 } else { 40 };
        Dims { n: fold(self.draw.n, 40), c: 1 + usize::from(self.draw.c) % most, h, w }
    }

    fn linear(&self) -> Result<(), Error> {
        let Dims { n, c, h, w } = self.dims();
        // Few outputs, or several blocks a task, or more than a chunk.
        let outputs = match self.draw.outputs {
            few @ 0..200 => 1 + usize::from(few) % 70,
            many => [113, 130, 512, 513, 600][usize::from(many) % 5],
        };
        let s = LinearShape { n, c, h, w, outputs };
        if s.n * s.weight_len() > 130_000 {
            return Ok(());
        }
        let (input, output) = (s.input(), s.output());
        let (x, weights) = (self.numbers(0, input.plain_len()), self.numbers(1, s.weight_len()));
        let (dy, momentum) = (self.numbers(2, output.plain_len()), self.numbers(3, s.weight_len()));
        let (bias, slopes) =
            (self.numbers(4, s.outputs), self.numbers(5, if self.draw.shared { 1 } else { s.outputs }));
        let sums = reference::linear::forward(&s, &x, &weights)?;
        let pre: Vec<f32> = sums.iter().enumerate().map(|(i, y)| y + bias[i % s.outputs]).collect();
        let want = reference::prelu::forward(&output, &pre, &slopes)?;
        let dx = reference::linear::backward_data(&s, &dy, &weights)?;
        let dw = reference::linear::backward_weights(&s, &x, &dy)?;
        let rates = Rates { lr: 0.1, momentum: 0.9, weight_decay: 0.01 };
        let (mut next, mut next_momentum) = (weights.clone(), momentum.clone());
        sgd_step(Isa::Portable, &mut next, &dw, &mut next_momentum, rates)?;
        let (x, dy) = (blocked(input, &x)?, blocked(output, &dy)?);
        for isa in Isa::available() {
            let plan = linear::Forward::new(isa, &s)?;
            let [mut y, mut kept] = [(); 2].map(|()| vec![f32::NAN; output.blocked_len()]);
            let mut workspace = self.workspace(|threads| plan.workspace_len(threads));
            let (bias, slopes) = (&bias[..], &slopes[..]);
            let kind = self.draw.epilogue % 4;
            let (epilogue, want) = match kind {
                0 => (Epilogue::None, &sums),
                1 => (Epilogue::Bias(bias), &pre),
                2 => (Epilogue::BiasPrelu { bias, slopes }, &want),
                _ => (Epilogue::BiasPreluKeep { bias, slopes, pre: &mut kept }, &want),
            };
            self.pool.install(|| plan.run(&x, &weights, epilogue, &mut y, &mut workspace))?;
            same("forward", isa, &plain(output, &y)?, want);
            if kind == 3 {
                same("pre-activation", isa, &plain(output, &kept)?, &pre);
            }

            let plan = linear::BackwardData::new(isa, &s)?;
            let mut got = vec![f32::NAN; input.blocked_len()];
            let mut workspace = self.workspace(|threads| plan.workspace_len(threads));
            self.pool.install(|| plan.run(&dy, &weights, &mut got, &mut workspace))?;
            same("backward-data", isa, &plain(input, &got)?, &dx);

            let plan = linear::BackwardWeights::new(isa, &s)?;
            let mut got = vec![f32::NAN; weights.len()];
            let mut workspace = self.workspace(|threads| plan.workspace_len(threads));
            self.pool.install(|| plan.run(&x, &dy, &mut got, &mut workspace))?;
            same("backward-weights", isa, &got, &dw);
            let (mut w, mut v) = (weights.clone(), momentum.clone());
            self.pool.install(|| plan.step(&x, &dy, &mut w, &mut v, rates, &mut workspace))?;
            same("momentum of weights alone", isa, &v, &next_momentum);
            same("weights alone", isa, &w, &next);

            let plan = linear::BackwardStep::new(isa, &s)?;
            let (mut w, mut v, mut got) = (weights.clone(), momentum.clone(), vec![f32::NAN; input.blocked_len()]);
            let mut workspace = self.workspace(|threads| plan.workspace_len(threads));
            self.pool.install(|| plan.run(&x, &dy, &mut w, &mut v, rates, &mut got, &mut workspace))?;
            same("backward-data of a step", isa, &plain(input, &got)?, &dx);
            same("momentum", isa, &v, &next_momentum);
            same("weights", isa, &w, &next);
        }
        Ok(())
    }

    fn pools(&self) -> Result<(), Error> {
        let Dims { n, c, h, w } = self.dims();
        let [[kh, kw], [stride_h, stride_w]] =
            [self.draw.window, self.draw.stride].map(|of| of.map(|x| 1 + usize::from(x % 5)));
        let [pad_top, pad_bottom, pad_left, pad_right] = self.draw.pad.map(|x| usize::from(x % 3));
        let s = PoolShape { n, c, h, w, kh, kw, stride_h, stride_w, pad_top, pad_bottom, pad_left, pad_right };
        if s.check().is_err() {
            return Ok(());
        }
        let (input, output) = (s.input(), s.output());
        let (x, dy) = (self.numbers(0, input.plain_len()), self.numbers(1, output.plain_len()));
        let (max, index) = reference::pool::max_forward(&s, &x)?;
        let dmax = reference::pool::max_backward(&s, &index, &dy)?;
        let mean = reference::pool::average_forward(&s, &x)?;
        let dmean = reference::pool::average_backward(&s, &dy)?;
        let (x, dy) = (blocked(input, &x)?, blocked(output, &dy)?);
        for isa in Isa::available() {
            let [mut y, mut dx] = [output, input].map(|of| vec![f32::NAN; of.blocked_len()]);
            let mut at = vec![u32::MAX; y.len()];
            self.pool.install(|| pools::max_forward(isa, &s, &x, &mut y, Some(&mut at)))?;
            same("max forward", isa, &plain(output, &y)?, &max);
            self.pool.install(|| pools::max_backward(isa, &s, &at, &dy, &mut dx))?;
            same("max backward", isa, &plain(input, &dx)?, &dmax);
            self.pool.install(|| pools::max_forward(isa, &s, &x, &mut y, None))?;
            same("max forward without index", isa, &plain(output, &y)?, &max);
            self.pool.install(|| pools::average_forward(isa, &s, &x, &mut y))?;
            same("average forward", isa, &plain(output, &y)?, &mean);
            self.pool.install(|| pools::average_backward(isa, &s, &dy, &mut dx))?;
            same("average backward", isa, &plain(input, &dx)?, &dmean);
        }
        Ok(())
    }

    fn pyramid(&self) -> Result<(), Error> {
        let Dims { n, c, h, w } = self.dims();
        let bins = self.draw.bins.iter().take(4).map(|&b| 1 + usize::from(b % 7)).collect();
        let s = SppShape { n, c: c.min(70), h, w, bins };
        if s.check().is_err() {
            return Ok(());
        }
        let (input, output) = (s.input(), s.output());
        let (x, dy) = (self.numbers(0, input.plain_len()), self.numbers(1, output.plain_len()));
        let (max, index) = reference::pool::spp_forward(&s, &x)?;
        let dmax = reference::pool::spp_backward(&s, &index, &dy)?;
        let (x, dy) = (blocked(input, &x)?, blocked(output, &dy)?);
        for isa in Isa::available() {
            let [mut y, mut dx] = [output, input].map(|of| vec![f32::NAN; of.blocked_len()]);
            let mut at = vec![u32::MAX; y.len()];
            self.pool.install(|| pools::spp_forward(isa, &s, &x, &mut y, Some(&mut at)))?;
            same("pyramid forward", isa, &plain(output, &y)?, &max);
            self.pool.install(|| pools::spp_backward(isa, &s, &at, &dy, &mut dx))?;
            same("pyramid backward", isa, &plain(input, &dx)?, &dmax);
            self.pool.install(|| pools::spp_forward(isa, &s, &x, &mut y, None))?;
            same("pyramid forward without index", isa, &plain(output, &y)?, &max);
        }
        Ok(())
    }

    fn rectifier(&self) -> Result<(), Error> {
        let d = self.dims();
        let (pre, dy) = (self.numbers(0, d.plain_len()), self.numbers(1, d.plain_len()));
        let slopes = self.numbers(2, if self.draw.shared { 1 } else { d.c });
        let y = reference::prelu::forward(&d, &pre, &slopes)?;
        let want = reference::prelu::backward(&d, &pre, &slopes, &dy)?;
        let (pre, dy) = (blocked(d, &pre)?, blocked(d, &dy)?);
        for isa in Isa::available() {
            let mut out = vec![f32::NAN; d.blocked_len()];
            self.pool.install(|| prelu::forward(isa, d, &pre, &slopes, &mut out))?;
            same("rectifier forward", isa, &plain(d, &out)?, &y);
            out.copy_from_slice(&pre);
            self.pool.install(|| prelu::forward_in_place(isa, d, &mut out, &slopes))?;
            same("rectifier in place", isa, &plain(d, &out)?, &y);
            out.copy_from_slice(&dy);
            let (mut ds, mut db) = (vec![f32::NAN; slopes.len()], vec![f32::NAN; d.c]);
            let mut workspace = vec![f32::NAN; prelu::workspace_len(d)];
            let (slopes_gradient, bias_gradient) = (Some(&mut ds[..]), Some(&mut db[..]));
            self.pool.install(|| {
                prelu::backward(isa, d, &pre, &slopes, &mut out, slopes_gradient, bias_gradient, &mut workspace)
            })?;
            same("rectifier backward", isa, &plain(d, &out)?, &want.dx);
            same("gradient of slopes", isa, &ds, &want.dslopes);
            same("gradient of the bias", isa, &db, &want.dbias);
        }
        Ok(())
    }
}

fuzz_target!(|draw: Draw| {
    let Some(pool) = pool(draw.threads) else { return };
    let case = Case { draw: &draw, pool };
    let done = match draw.kind % 4 {
        0 => case.linear(),
        1 => case.pools(),
        2 => case.pyramid(),
        _ => case.rectifier(),
    };
    if let Err(error) = done {
        panic!("{draw:?}: {error}");
    }
});
