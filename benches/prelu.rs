//! PReLU forward, and backward with slope and bias gradient, in cache and out of it.

#[path = "common/mod.rs"]
mod common;

use common::random;
use criterion::{BenchmarkId, Criterion, Throughput};
use rectify_kernels::{Buffer, Dims, Isa, prelu};

/// 0.5 MiB and 64 MiB.
const SIZES: [Dims; 2] = [Dims { n: 1, c: 128, h: 32, w: 32 }, Dims { n: 8, c: 512, h: 64, w: 64 }];

fn main() {
    common::run(benches);
}

fn benches(c: &mut Criterion) {
    let isa = Isa::best().expect("RECTIFY_ISA names an instruction set of this processor");
    for d in SIZES {
        let bytes = (d.plain_len() * size_of::<f32>()) as u64;
        let id = |name| BenchmarkId::new(name, format!("{} KiB", bytes >> 10));
        let (x, slopes) = (random(0, d.blocked_len()), random(1, d.c));
        let mut y = Buffer::zeroed(d.blocked_len());
        let mut group = c.benchmark_group("prelu");
        group.throughput(Throughput::Bytes(2 * bytes));
        group.bench_function(id("forward"), |b| b.iter(|| prelu::forward(isa, d, &x, &slopes, &mut y).unwrap()));

        let (mut dslopes, mut dbias) = (vec![0.0; d.c], vec![0.0; d.c]);
        let mut workspace = Buffer::zeroed(prelu::workspace_len(d));
        // Slopes of one keep the gradient, worked on in place over and over, from shrinking into subnormals.
        let ones = vec![1.0; d.c];
        group.throughput(Throughput::Bytes(3 * bytes));
        group.bench_function(id("backward"), |b| {
            b.iter(|| {
                let (dslopes, dbias) = (Some(&mut dslopes[..]), Some(&mut dbias[..]));
                prelu::backward(isa, d, &x, &ones, &mut y, dslopes, dbias, &mut workspace).unwrap();
            })
        });
    }
}
