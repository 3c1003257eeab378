//! Matrix products, which is what 1×1 convolutions and fully connected layers are, with `matrixmultiply` beside ours.

#[path = "common/mod.rs"]
mod common;
#[path = "common/textbook.rs"]
mod textbook;

use common::random;
use criterion::{Criterion, Throughput};
use rectify_kernels::conv::{self, Epilogue};
use rectify_kernels::elementwise::Rates;
use rectify_kernels::linear::{self, LinearShape};
use rectify_kernels::{Buffer, ConvShape, Isa, layout};
use textbook::{Matrix, assert_close, gemm};

fn main() {
    common::run(|c| {
        let isa = Isa::best().expect("RECTIFY_ISA names an instruction set of this processor");
        pointwise(c, isa, &ConvShape::square(1, 256, 28, 512, 1, 1, 0));
        let linear = LinearShape { n: 64, c: 512, h: 1, w: 1, outputs: 512 };
        linear_forward(c, isa, &linear);
        linear_backward_data(c, isa, &linear);
        linear_backward_weights(c, isa, &linear);
        linear_backward_step(c, isa, &LinearShape { n: 16, c: 4096, h: 1, w: 1, outputs: 4096 });
    });
}

fn pointwise(c: &mut Criterion, isa: Isa, s: &ConvShape) {
    let plan = conv::Forward::new(isa, s, &conv::Options::default()).unwrap();
    let (x, w) = (random(0, s.input().plain_len()), random(1, s.weight_len()));
    let (mut blocked, mut packed) = (Buffer::zeroed(s.input().blocked_len()), Buffer::zeroed(plan.packed_len()));
    layout::nchw_to_blocked(isa, s.input(), &x, &mut blocked).unwrap();
    plan.pack(&w, &mut packed).unwrap();
    let mut workspace = Buffer::zeroed(plan.workspace_len(1));
    let mut y = Buffer::zeroed(s.output().blocked_len());
    let (mut plain, mut theirs) = (Buffer::zeroed(s.output().plain_len()), Buffer::zeroed(s.output().plain_len()));
    let product = |y: &mut [f32]| gemm(Matrix::new(&w, s.oc, s.ic), Matrix::new(&x, s.ic, s.ih * s.iw), 0.0, y);
    plan.run(&blocked, &packed, Epilogue::None, &mut y, &mut workspace).unwrap();
    layout::blocked_to_nchw(isa, s.output(), &y, &mut plain).unwrap();
    product(&mut theirs);
    assert_close(&plain, &theirs);

    let mut group = c.benchmark_group(format!("gemm/pointwise {}x{}x{}", s.oc, s.ih * s.iw, s.ic));
    group.throughput(Throughput::Elements(s.flops() as u64));
    group.bench_function("ours", |b| {
        b.iter(|| plan.run(&blocked, &packed, Epilogue::None, &mut y, &mut workspace).unwrap());
    });
    group.bench_function("matrixmultiply", |b| b.iter(|| product(&mut theirs)));
}

fn linear_forward(c: &mut Criterion, isa: Isa, s: &LinearShape) {
    let plan = linear::Forward::new(isa, s).unwrap();
    let (x, w) = (random(0, s.input().plain_len()), random(1, s.weight_len()));
    let mut blocked = Buffer::zeroed(s.input().blocked_len());
    layout::nchw_to_blocked(isa, s.input(), &x, &mut blocked).unwrap();
    let mut workspace = Buffer::zeroed(plan.workspace_len(1));
    let mut y = Buffer::zeroed(s.output().blocked_len());
    let (mut plain, mut theirs) = (Buffer::zeroed(s.output().plain_len()), Buffer::zeroed(s.output().plain_len()));
    let product = |y: &mut [f32]| gemm(Matrix::new(&x, s.n, s.c), Matrix::new(&w, s.outputs, s.c).t(), 0.0, y);
    plan.run(&blocked, &w, Epilogue::None, &mut y, &mut workspace).unwrap();
    layout::blocked_to_nchw(isa, s.output(), &y, &mut plain).unwrap();
    product(&mut theirs);
    assert_close(&plain, &theirs);

    let mut group = c.benchmark_group(format!("gemm/linear forward {}x{}x{}", s.n, s.outputs, s.c));
    group.throughput(Throughput::Elements(2 * (s.n * s.weight_len()) as u64));
    group.bench_function("ours", |b| {
        b.iter(|| plan.run(&blocked, &w, Epilogue::None, &mut y, &mut workspace).unwrap());
    });
    group.bench_function("matrixmultiply", |b| b.iter(|| product(&mut theirs)));
}

fn linear_backward_data(c: &mut Criterion, isa: Isa, s: &LinearShape) {
    let plan = linear::BackwardData::new(isa, s).unwrap();
    let (dy, w) = (random(2, s.output().plain_len()), random(1, s.weight_len()));
    let mut blocked = Buffer::zeroed(s.output().blocked_len());
    layout::nchw_to_blocked(isa, s.output(), &dy, &mut blocked).unwrap();
    let mut workspace = Buffer::zeroed(plan.workspace_len(1));
    let mut dx = Buffer::zeroed(s.input().blocked_len());
    let (mut plain, mut theirs) = (Buffer::zeroed(s.input().plain_len()), Buffer::zeroed(s.input().plain_len()));
    let product = |dx: &mut [f32]| gemm(Matrix::new(&dy, s.n, s.outputs), Matrix::new(&w, s.outputs, s.c), 0.0, dx);
    plan.run(&blocked, &w, &mut dx, &mut workspace).unwrap();
    layout::blocked_to_nchw(isa, s.input(), &dx, &mut plain).unwrap();
    product(&mut theirs);
    assert_close(&plain, &theirs);

    let mut group = c.benchmark_group(format!("gemm/linear backward-data {}x{}x{}", s.n, s.c, s.outputs));
    group.throughput(Throughput::Elements(2 * (s.n * s.weight_len()) as u64));
    group.bench_function("ours", |b| b.iter(|| plan.run(&blocked, &w, &mut dx, &mut workspace).unwrap()));
    group.bench_function("matrixmultiply", |b| b.iter(|| product(&mut theirs)));
}

fn linear_backward_weights(c: &mut Criterion, isa: Isa, s: &LinearShape) {
    let plan = linear::BackwardWeights::new(isa, s).unwrap();
    let (x, dy) = (random(0, s.input().plain_len()), random(2, s.output().plain_len()));
    let mut blocked_x = Buffer::zeroed(s.input().blocked_len());
    let mut blocked_dy = Buffer::zeroed(s.output().blocked_len());
    layout::nchw_to_blocked(isa, s.input(), &x, &mut blocked_x).unwrap();
    layout::nchw_to_blocked(isa, s.output(), &dy, &mut blocked_dy).unwrap();
    let mut workspace = Buffer::zeroed(plan.workspace_len(1));
    let (mut dw, mut theirs) = (Buffer::zeroed(s.weight_len()), Buffer::zeroed(s.weight_len()));
    let product = |dw: &mut [f32]| gemm(Matrix::new(&dy, s.n, s.outputs).t(), Matrix::new(&x, s.n, s.c), 0.0, dw);
    plan.run(&blocked_x, &blocked_dy, &mut dw, &mut workspace).unwrap();
    product(&mut theirs);
    assert_close(&dw, &theirs);

    let mut group = c.benchmark_group(format!("gemm/linear backward-weights {}x{}x{}", s.outputs, s.c, s.n));
    group.throughput(Throughput::Elements(2 * (s.n * s.weight_len()) as u64));
    group.bench_function("ours", |b| b.iter(|| plan.run(&blocked_x, &blocked_dy, &mut dw, &mut workspace).unwrap()));
    group.bench_function("matrixmultiply", |b| b.iter(|| product(&mut theirs)));
}

/// Both gradients and the step in one walk over the weights, beside one pass after the other.
fn linear_backward_step(c: &mut Criterion, isa: Isa, s: &LinearShape) {
    let data = linear::BackwardData::new(isa, s).unwrap();
    let weights = linear::BackwardWeights::new(isa, s).unwrap();
    let both = linear::BackwardStep::new(isa, s).unwrap();
    let (x, dy) = (random(0, s.input().blocked_len()), random(2, s.output().blocked_len()));
    let (mut w, mut velocity) = (random(1, s.weight_len()), Buffer::zeroed(s.weight_len()));
    let mut dx = Buffer::zeroed(s.input().blocked_len());
    let len = data.workspace_len(1).max(weights.workspace_len(1)).max(both.workspace_len(1));
    let mut workspace = Buffer::zeroed(len);
    let rates = Rates { lr: 1e-6, momentum: 0.9, weight_decay: 0.0 };

    let mut group = c.benchmark_group(format!("gemm/linear backward step {}x{}x{}", s.n, s.outputs, s.c));
    group.throughput(Throughput::Elements(4 * (s.n * s.weight_len()) as u64));
    group.bench_function("together", |b| {
        b.iter(|| both.run(&x, &dy, &mut w, &mut velocity, rates, &mut dx, &mut workspace).unwrap());
    });
    group.bench_function("one after the other", |b| {
        b.iter(|| {
            data.run(&dy, &w, &mut dx, &mut workspace).unwrap();
            weights.step(&x, &dy, &mut w, &mut velocity, rates, &mut workspace).unwrap();
        });
    });
}
