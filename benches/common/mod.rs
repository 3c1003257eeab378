//! What the benches share. They run on one thread, so that engines are compared, not schedulers.

use criterion::Criterion;
use rectify::rng::{self, Rng};
use rectify_kernels::Buffer;
use std::time::Duration;

/// Runs `benches` on a pool of one thread with short settings; criterion's command line overrides them.
pub fn run(benches: fn(&mut Criterion)) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    pool.install(|| {
        let (warm_up, measure) = (Duration::from_millis(200), Duration::from_secs(1));
        let criterion = Criterion::default().sample_size(10).warm_up_time(warm_up).measurement_time(measure);
        let mut criterion = criterion.configure_from_args();
        benches(&mut criterion);
        criterion.final_summary();
    });
}

/// `len` numbers between −1 and 1; each `what` draws others.
pub fn random(what: u64, len: usize) -> Buffer {
    let (mut rng, mut x) = (Rng::at(1, rng::BENCH, what, 0), Buffer::zeroed(len));
    x.iter_mut().for_each(|x| *x = rng.between(-1.0, 1.0));
    x
}
