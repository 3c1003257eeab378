//! `run` allocates nothing: a workspace and packed weights are all that a plan needs, on any number of threads.
//!
//! What counts is what the pool's threads ask for while a kernel runs inside `ThreadPool::install`. Rayon allocates on
//! the way into a pool (its queue of jobs from outside), and a thread registers with the reclamation of the queues'
//! memory when it first steals; both lie before that, see [`warm_up`]. Inside the pool its jobs lie on the stack, and
//! its queues grow only when dozens of jobs wait.

mod common;

use common::{noise, to_blocked};
use rayon::prelude::*;
use rectify_kernels::conv::{self, Epilogue, Options};
use rectify_kernels::elementwise::Rates;
use rectify_kernels::linear::{self, LinearShape};
use rectify_kernels::pool::{self, PoolShape};
use rectify_kernels::{Buffer, ConvShape, Dims, Isa, loss, prelu};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counting what the threads of the pools ask of it.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Whether this thread belongs to a pool of this test.
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    // A thread that ends has no such variable any more.
    if COUNTED.try_with(Cell::get).unwrap_or(false) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every request goes to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`; the block came from `System`.
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as for `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: as for `dealloc`, and the caller keeps the contract of `realloc`.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls that are counted.
const CALLS: usize = 3;

/// How often they are counted.
const ROUNDS: usize = 4;

/// Allocations in [`CALLS`] calls after a first one: the fewest of some rounds. What a kernel allocates it allocates in
/// every call; rayon's queues now and then allocate when they hand memory back, whatever runs.
fn allocations(mut run: impl FnMut()) -> usize {
    run();
    let round = |_| {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        (0..CALLS).for_each(|_| run());
        ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    (0..ROUNDS).map(round).min().unwrap_or(0)
}

/// Makes each thread steal from another: a barrier opens only if all its sides run at once.
fn warm_up() {
    let barrier = Barrier::new(rayon::current_num_threads());
    let meet = || {
        barrier.wait();
    };
    if rayon::current_num_threads() <= 2 {
        rayon::join(meet, || {
            meet();
            rayon::join(meet, meet);
        });
    } else {
        // Of more threads each steals once in a while.
        (0..100).for_each(|_| on_each_thread(meet));
    }
}

/// Runs `f`, which must wait for the others, on each thread.
fn on_each_thread(f: impl Fn() + Sync) {
    (0..rayon::current_num_threads()).into_par_iter().with_max_len(1).for_each(|_| f());
}

fn check(what: &str, isa: Isa, run: impl FnMut()) {
    let threads = rayon::current_num_threads();
    assert_eq!(allocations(run), 0, "{what} on {isa}, {threads} threads");
}

/// Every direction of a convolution with every epilogue.
fn convolution(isa: Isa, s: &ConvShape) {
    let threads = rayon::current_num_threads();
    let (input, output) = (s.input(), s.output());
    let (x, w, dy) = (noise(input.plain_len(), 1), noise(s.weight_len(), 2), noise(output.plain_len(), 3));
    let (x, dy, bias, slopes) = (to_blocked(&input, &x), to_blocked(&output, &dy), noise(s.oc, 4), noise(s.oc, 5));
    let mut y = Buffer::zeroed(output.blocked_len());
    let mut kept = y.clone();

    let plan = conv::Forward::new(isa, s, &Options::default()).unwrap();
    let (mut packed, mut workspace) = (Buffer::zeroed(plan.packed_len()), Buffer::zeroed(plan.workspace_len(threads)));
    plan.pack(&w, &mut packed).unwrap();
    check(&format!("forward {s:?}"), isa, || {
        let (bias, slopes) = (&bias[..], &slopes[..]);
        let keep = Epilogue::BiasPreluKeep { bias, slopes, pre: &mut kept };
        for epilogue in [Epilogue::None, Epilogue::Bias(bias), Epilogue::BiasPrelu { bias, slopes }, keep] {
            plan.run(&x, &packed, epilogue, &mut y, &mut workspace).unwrap();
        }
    });

    let nchw = Options { input: conv::Layout::Nchw, output: conv::Layout::Nchw, ..Options::default() };
    let plan = conv::Forward::new(isa, s, &nchw).unwrap();
    let mut workspace = Buffer::zeroed(plan.workspace_len(threads));
    let packed_nchw = Buffer::zeroed(plan.packed_len());
    let (image, mut planes) = (vec![1.0; input.plain_len()], vec![0.0; output.plain_len()]);
    check(&format!("forward of NCHW {s:?}"), isa, || {
        plan.run(&image, &packed_nchw, Epilogue::Bias(&bias), &mut planes, &mut workspace).unwrap();
    });

    let plan = conv::BackwardData::new(isa, s, &Options::default()).unwrap();
    let (mut packed, mut workspace) = (Buffer::zeroed(plan.packed_len()), Buffer::zeroed(plan.workspace_len(threads)));
    plan.pack(&w, &mut packed).unwrap();
    let mut dx = Buffer::zeroed(input.blocked_len());
    check(&format!("backward-data {s:?}"), isa, || plan.run(&dy, &packed, &mut dx, &mut workspace).unwrap());

    let plan = conv::BackwardWeights::new(isa, s, &Options::default()).unwrap();
    let mut workspace = Buffer::zeroed(plan.workspace_len(threads));
    let mut dw = Buffer::zeroed(s.weight_len());
    check(&format!("backward-weights {s:?}"), isa, || plan.run(&x, &dy, &mut dw, &mut workspace).unwrap());
}

fn fully_connected(isa: Isa, s: &LinearShape) {
    let threads = rayon::current_num_threads();
    let (input, output) = (s.input(), s.output());
    let (x, w, dy) = (noise(input.plain_len(), 1), noise(s.weight_len(), 2), noise(output.plain_len(), 3));
    let (x, dy, bias) = (to_blocked(&input, &x), to_blocked(&output, &dy), noise(s.outputs, 4));

    let plan = linear::Forward::new(isa, s).unwrap();
    let mut workspace = Buffer::zeroed(plan.workspace_len(threads));
    let mut y = Buffer::zeroed(output.blocked_len());
    check("linear forward", isa, || {
        let epilogue = Epilogue::BiasPrelu { bias: &bias, slopes: &[0.25] };
        plan.run(&x, &w, epilogue, &mut y, &mut workspace).unwrap();
    });

    let plan = linear::BackwardData::new(isa, s).unwrap();
    let mut workspace = Buffer::zeroed(plan.workspace_len(threads));
    let mut dx = Buffer::zeroed(input.blocked_len());
    check("linear backward-data", isa, || plan.run(&dy, &w, &mut dx, &mut workspace).unwrap());

    let plan = linear::BackwardWeights::new(isa, s).unwrap();
    let mut workspace = Buffer::zeroed(plan.workspace_len(threads));
    let mut dw = Buffer::zeroed(s.weight_len());
    check("linear backward-weights", isa, || plan.run(&x, &dy, &mut dw, &mut workspace).unwrap());
    let (mut w, mut velocity) = (w, dw.clone());
    let rates = Rates { lr: 0.1, momentum: 0.9, weight_decay: 1e-3 };
    check("linear step", isa, || plan.step(&x, &dy, &mut w, &mut velocity, rates, &mut workspace).unwrap());

    let plan = linear::BackwardStep::new(isa, s).unwrap();
    let mut workspace = vec![0.0; plan.workspace_len(threads)];
    check("linear backward step", isa, || {
        plan.run(&x, &dy, &mut w, &mut velocity, rates, &mut dx, &mut workspace).unwrap();
    });
}

fn rectifier(isa: Isa, d: Dims) {
    let pre = to_blocked(&d, &noise(d.plain_len(), 1));
    let (mut y, mut workspace) = (pre.clone(), Buffer::zeroed(prelu::workspace_len(d)));
    let (slopes, mut dslopes, mut dbias) = (noise(d.c, 2), vec![0.0; d.c], vec![0.0; d.c]);
    check("prelu", isa, || {
        prelu::forward(isa, d, &pre, &[0.5], &mut y).unwrap();
        prelu::forward_in_place(isa, d, &mut y, &slopes).unwrap();
        for slopes in [&[0.5][..], &slopes] {
            let (dslopes, dbias) = (Some(&mut dslopes[..slopes.len()]), Some(&mut dbias[..]));
            prelu::backward(isa, d, &pre, slopes, &mut y, dslopes, dbias, &mut workspace).unwrap();
        }
        prelu::bias_gradient(isa, d, &y, &mut dbias, &mut workspace).unwrap();
    });
}

fn pooling(isa: Isa, s: &PoolShape) {
    let (input, output) = (s.input(), s.output());
    let x = to_blocked(&input, &noise(input.plain_len(), 1));
    let (mut y, mut dx) = (Buffer::zeroed(output.blocked_len()), Buffer::zeroed(input.blocked_len()));
    let mut index = vec![0; output.blocked_len()];
    check("pooling", isa, || {
        pool::max_forward(isa, s, &x, &mut y, None).unwrap();
        pool::max_forward(isa, s, &x, &mut y, Some(&mut index)).unwrap();
        pool::max_backward(isa, s, &index, &y, &mut dx).unwrap();
        pool::average_forward(isa, s, &x, &mut y).unwrap();
        pool::average_backward(isa, s, &y, &mut dx).unwrap();
    });
}

fn cross_entropy(isa: Isa, n: usize, classes: usize) {
    let d = Dims { n, c: classes, h: 1, w: 1 };
    let scores = to_blocked(&d, &noise(d.plain_len(), 1));
    let (labels, mut gradient) = (vec![1; n], scores.clone());
    check("cross-entropy", isa, || {
        loss::softmax_cross_entropy(d, &scores, &labels, None).unwrap();
        loss::softmax_cross_entropy(d, &scores, &labels, Some(&mut gradient)).unwrap();
    });
}

#[test]
fn no_run_allocates() {
    let square = ConvShape::square;
    let shapes = [
        square(9, 20, 13, 36, 3, 1, 1),
        square(2, 3, 31, 40, 7, 2, 3),
        square(2, 36, 24, 40, 3, 2, 1),
        square(2, 64, 12, 70, 1, 1, 0),
        ConvShape { groups: 4, ..square(3, 20, 12, 36, 3, 2, 1) },
        ConvShape { groups: 3, ..square(3, 48, 12, 96, 3, 1, 1) },
        ConvShape { groups: 5, ..square(2, 20, 12, 20, 3, 1, 1) },
        ConvShape { groups: 33, dilation_h: 2, ..square(17, 33, 12, 33, 3, 1, 2) },
    ];
    let d = Dims { n: 9, c: 40, h: 31, w: 30 };
    for threads in [1, 2, 4] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).start_handler(|_| COUNTED.set(true));
        pool.build().unwrap().install(|| {
            warm_up();
            let barrier = Barrier::new(threads);
            let allocate = || {
                drop(black_box(Box::new(1)));
                barrier.wait();
            };
            let counted = allocations(|| on_each_thread(allocate));
            assert_eq!(counted, threads * CALLS, "each thread's allocations count, and rayon has none");
            for isa in Isa::available() {
                shapes.iter().for_each(|s| convolution(isa, s));
                fully_connected(isa, &LinearShape { n: 9, c: 20, h: 5, w: 3, outputs: 70 });
                rectifier(isa, d);
                pooling(isa, &PoolShape { pad_top: 1, ..PoolShape::square(d, 3, 2) });
                pooling(isa, &PoolShape::global(d));
                cross_entropy(isa, 300, 40);
            }
        });
    }
}
