//! What the integration tests share.
#![allow(dead_code)]

pub mod forward;
pub mod passes;

use proptest::prelude::ProptestConfig;
use rayon::{ThreadPool, ThreadPoolBuilder};
use rectify_kernels::{Buffer, Dims, LANES, blocks};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// So many cases of a property, or fewer where `PROPTEST_CASES` says so.
pub fn cases(most: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: most.min(config.cases), ..config }
}

/// Where channel `c` of pixel `p` of image `n` stands in the blocked layout.
fn at(d: &Dims, n: usize, c: usize, p: usize) -> usize {
    ((n * blocks(d.c) + c / LANES) * d.plane() + p) * LANES + c % LANES
}

/// NCHW to blocked, padding lanes zero.
pub fn to_blocked(d: &Dims, x: &[f32]) -> Buffer {
    let mut y = Buffer::zeroed(d.blocked_len());
    for (i, &v) in x.iter().enumerate() {
        let (n, c, p) = (i / d.plane() / d.c, i / d.plane() % d.c, i % d.plane());
        y[at(d, n, c, p)] = v;
    }
    y
}

/// Blocked to NCHW; fails if a padding lane is not zero.
pub fn from_blocked(d: &Dims, x: &[f32]) -> Vec<f32> {
    for n in 0..d.n {
        for c in d.c..blocks(d.c) * LANES {
            assert!((0..d.plane()).all(|p| x[at(d, n, c, p)].to_bits() == 0), "padding lane {c} is not zero");
        }
    }
    (0..d.plain_len()).map(|i| x[at(d, i / d.plane() / d.c, i / d.plane() % d.c, i % d.plane())]).collect()
}

/// Numbers in −1..1 that differ in all their bits, from a seed.
pub fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Fails unless the bits are equal (any NaN equals any NaN) and enough of the numbers are not zero to prove something.
pub fn assert_bits(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(g.to_bits() == w.to_bits() || g.is_nan() && w.is_nan(), "{what}: element {i} is {g:e}, not {w:e}");
    }
}

/// Fails if a number is zero where `ones` (the same sum over ones) is not: comparing zeros proves nothing.
pub fn assert_not_trivial(what: &str, x: &[f32], ones: &[f32]) {
    let idle = x.iter().zip(ones).filter(|(x, n)| **x == 0.0 && **n != 0.0).count();
    assert_eq!(idle, 0, "{what}: sums of products that are zero");
}

/// Runs `f` in a pool of that many threads, which a test keeps: to make one for each call took most of the time, and
/// memory without end, where qemu runs the tests.
pub fn with_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    thread_local!(static POOLS: RefCell<BTreeMap<usize, Rc<ThreadPool>>> = RefCell::default());
    let new = || Rc::new(ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    let pool = POOLS.with_borrow_mut(|pools| pools.entry(threads).or_insert_with(new).clone());
    pool.install(f)
}
