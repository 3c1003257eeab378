//! The three directions of convolution, with the textbook path beside ours.

#[path = "common/mod.rs"]
mod common;
#[path = "common/textbook.rs"]
mod textbook;

use common::random;
use criterion::{Criterion, Throughput};
use rectify::{bench, problem::Problem};
use rectify_kernels::{Buffer, Isa, conv, layout};
use textbook::{Textbook, assert_close};

/// A first layer, one with a stride, a 1×1 one, a depthwise one.
const LAYERS: [&str; 4] = ["A.conv1", "face.64s2", "pointwise", "mobileface.dw"];

fn layers() -> Vec<Problem> {
    let all = bench::layers().expect("the list compiled in is well formed");
    all.into_iter().filter(|p| LAYERS.contains(&p.name.as_str())).collect()
}

fn main() {
    common::run(|c| {
        for problem in layers() {
            forward(c, &problem);
            backward_data(c, &problem);
            backward_weights(c, &problem);
        }
    });
}

fn isa() -> Isa {
    Isa::best().expect("RECTIFY_ISA names an instruction set of this processor")
}

fn forward(c: &mut Criterion, p: &Problem) {
    let s = p.shape;
    let plan = conv::Forward::new(isa(), &s, &conv::Options::default()).unwrap();
    let (x, w) = (random(0, s.input().plain_len()), random(1, s.weight_len()));
    let (bias, slopes) = (random(2, s.oc), random(3, s.oc));
    let (mut blocked, mut packed) = (Buffer::zeroed(s.input().blocked_len()), Buffer::zeroed(plan.packed_len()));
    layout::nchw_to_blocked(isa(), s.input(), &x, &mut blocked).unwrap();
    plan.pack(&w, &mut packed).unwrap();
    let mut workspace = Buffer::zeroed(plan.workspace_len(1));
    let mut y = Buffer::zeroed(s.output().blocked_len());
    let mut ours = |y: &mut [f32]| {
        let epilogue = conv::Epilogue::BiasPrelu { bias: &bias, slopes: &slopes };
        plan.run(&blocked, &packed, epilogue, y, &mut workspace).unwrap();
    };
    let (mut textbook, mut theirs) = (Textbook::new(&s), Buffer::zeroed(s.output().plain_len()));
    ours(&mut y);
    textbook.forward(&x, &w, &bias, &slopes, &mut theirs);
    let mut plain = Buffer::zeroed(theirs.len());
    layout::blocked_to_nchw(isa(), s.output(), &y, &mut plain).unwrap();
    assert_close(&plain, &theirs);

    let mut group = c.benchmark_group(format!("forward/{}", p.name));
    group.throughput(Throughput::Elements(s.flops() as u64));
    group.bench_function("ours", |b| b.iter(|| ours(&mut y)));
    group.bench_function("textbook", |b| b.iter(|| textbook.forward(&x, &w, &bias, &slopes, &mut theirs)));
}

fn backward_data(c: &mut Criterion, p: &Problem) {
    let s = p.shape;
    let plan = conv::BackwardData::new(isa(), &s, &conv::Options::default()).unwrap();
    let (dy, w) = (random(4, s.output().plain_len()), random(1, s.weight_len()));
    let (mut blocked, mut packed) = (Buffer::zeroed(s.output().blocked_len()), Buffer::zeroed(plan.packed_len()));
    layout::nchw_to_blocked(isa(), s.output(), &dy, &mut blocked).unwrap();
    plan.pack(&w, &mut packed).unwrap();
    let mut workspace = Buffer::zeroed(plan.workspace_len(1));
    let mut dx = Buffer::zeroed(s.input().blocked_len());
    let (mut textbook, mut theirs) = (Textbook::new(&s), Buffer::zeroed(s.input().plain_len()));
    plan.run(&blocked, &packed, &mut dx, &mut workspace).unwrap();
    textbook.backward_data(&dy, &w, &mut theirs);
    let mut plain = Buffer::zeroed(theirs.len());
    layout::blocked_to_nchw(isa(), s.input(), &dx, &mut plain).unwrap();
    assert_close(&plain, &theirs);

    let mut group = c.benchmark_group(format!("backward-data/{}", p.name));
    group.throughput(Throughput::Elements(s.flops() as u64));
    group.bench_function("ours", |b| b.iter(|| plan.run(&blocked, &packed, &mut dx, &mut workspace).unwrap()));
    group.bench_function("textbook", |b| b.iter(|| textbook.backward_data(&dy, &w, &mut theirs)));
}

fn backward_weights(c: &mut Criterion, p: &Problem) {
    let s = p.shape;
    let plan = conv::BackwardWeights::new(isa(), &s, &conv::Options::default()).unwrap();
    let (x, dy) = (random(0, s.input().plain_len()), random(4, s.output().plain_len()));
    let mut blocked_x = Buffer::zeroed(s.input().blocked_len());
    let mut blocked_dy = Buffer::zeroed(s.output().blocked_len());
    layout::nchw_to_blocked(isa(), s.input(), &x, &mut blocked_x).unwrap();
    layout::nchw_to_blocked(isa(), s.output(), &dy, &mut blocked_dy).unwrap();
    let mut workspace = Buffer::zeroed(plan.workspace_len(1));
    let (mut dw, mut theirs) = (Buffer::zeroed(s.weight_len()), Buffer::zeroed(s.weight_len()));
    let mut textbook = Textbook::new(&s);
    plan.run(&blocked_x, &blocked_dy, &mut dw, &mut workspace).unwrap();
    textbook.backward_weights(&x, &dy, &mut theirs);
    assert_close(&dw, &theirs);

    let mut group = c.benchmark_group(format!("backward-weights/{}", p.name));
    group.throughput(Throughput::Elements(s.flops() as u64));
    group.bench_function("ours", |b| b.iter(|| plan.run(&blocked_x, &blocked_dy, &mut dw, &mut workspace).unwrap()));
    group.bench_function("textbook", |b| b.iter(|| textbook.backward_weights(&x, &dy, &mut theirs)));
}
