//! Max, average, global and spatial pyramid pooling, forward and backward.

#[path = "common/mod.rs"]
mod common;

use common::random;
use criterion::{Criterion, Throughput};
use rectify_kernels::pool::{self, PoolShape, SppShape};
use rectify_kernels::{Buffer, Dims, Isa};

fn main() {
    common::run(benches);
}

fn benches(c: &mut Criterion) {
    let isa = Isa::best().expect("RECTIFY_ISA names an instruction set of this processor");
    let d = Dims { n: 8, c: 64, h: 32, w: 32 };
    let shapes =
        [("2x2", PoolShape::square(d, 2, 2)), ("3x3s2", PoolShape::square(d, 3, 2)), ("global", PoolShape::global(d))];
    for (name, shape) in shapes {
        let (input, output) = (shape.input(), shape.output());
        let x = random(0, input.blocked_len());
        let (mut y, mut dx) = (Buffer::zeroed(output.blocked_len()), Buffer::zeroed(input.blocked_len()));
        let mut index = vec![0; output.blocked_len()];
        let mut group = c.benchmark_group(format!("pool/{name}"));
        group.throughput(Throughput::Bytes((input.plain_len() * size_of::<f32>()) as u64));
        group.bench_function("max-forward", |b| {
            b.iter(|| pool::max_forward(isa, &shape, &x, &mut y, Some(&mut index)).unwrap())
        });
        group.bench_function("max-backward", |b| {
            b.iter(|| pool::max_backward(isa, &shape, &index, &y, &mut dx).unwrap())
        });
        group.bench_function("average-forward", |b| b.iter(|| pool::average_forward(isa, &shape, &x, &mut y).unwrap()));
        group.bench_function("average-backward", |b| {
            b.iter(|| pool::average_backward(isa, &shape, &y, &mut dx).unwrap())
        });
    }
    // Of model A.
    let shape = SppShape { n: 8, c: 512, h: 14, w: 14, bins: vec![7, 3, 2, 1] };
    let (x, mut y) = (random(0, shape.input().blocked_len()), Buffer::zeroed(shape.output().blocked_len()));
    let (mut index, mut dx) = (vec![0; y.len()], Buffer::zeroed(x.len()));
    let mut group = c.benchmark_group("pool/spp");
    group.throughput(Throughput::Bytes((x.len() * size_of::<f32>()) as u64));
    group.bench_function("forward", |b| {
        b.iter(|| pool::spp_forward(isa, &shape, &x, &mut y, Some(&mut index)).unwrap())
    });
    group.bench_function("backward", |b| b.iter(|| pool::spp_backward(isa, &shape, &index, &y, &mut dx).unwrap()));
}
