//! A training step of two built-in nets: forward, loss, both backward passes and the update.

#[path = "common/mod.rs"]
mod common;

use common::random;
use criterion::{Criterion, Throughput};
use rectify::{model::Model, train::Stepper};
use rectify_kernels::Isa;

/// The nets, with the images of a step.
const NETS: [(&str, usize); 2] = [("shapes-small", 8), ("cifar13", 4)];

fn main() {
    common::run(benches);
}

fn benches(c: &mut Criterion) {
    let isa = Isa::best().expect("RECTIFY_ISA names an instruction set of this processor");
    let mut group = c.benchmark_group("train");
    for (name, batch) in NETS {
        let model = Model::built_in(name).expect("a built-in net");
        let mut stepper = Stepper::new(&model, isa, batch, 1).expect("a net that fits together");
        // The same images over and over: a tiny rate keeps the net from learning them by heart.
        stepper.lr = 1e-6;
        let pixels = random(0, batch * model.input.iter().product::<usize>());
        let labels: Vec<u32> = (0..batch as u32).collect();
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(format!("{name} batch {batch}"), |b| b.iter(|| stepper.step(&pixels, &labels).unwrap()));
    }
}
