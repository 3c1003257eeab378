//! Tasks on the current rayon pool.

use crate::isa::order_streams;
use rayon::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs `f(task, scratch)` once for each task below `tasks`, on at most as many threads as the pool has and as the
/// workspace has room for; each thread keeps its own scratch of `per_thread` ≥ 1 elements. Allocates nothing.
pub(crate) fn for_each_task(
    tasks: usize,
    workspace: &mut [f32],
    per_thread: usize,
    f: impl Fn(usize, &mut [f32]) + Sync,
) {
    for_each_stage(1, |_| tasks, workspace, per_thread, |_, task, scratch| f(task, scratch));
}

/// The most threads, up to `most`, that a workspace of `len` elements serves, one at least: `needed` says how many
/// elements so many threads need.
pub(crate) fn most_threads(most: usize, len: usize, needed: impl Fn(usize) -> usize) -> usize {
    (1..=most).rev().find(|&threads| needed(threads) <= len).unwrap_or(1)
}

/// Runs `f(stage, task, scratch)` once for each of `tasks(stage)` tasks of each of so many stages, a stage's once all
/// of the one before are done; else as [`for_each_task`]. Where threads wait for each other, they do not sleep: to be
/// woken takes longer than a short stage, and the first thread would do all the work alone.
///
/// What tasks have streamed ([`crate::stream`]) may be read once all are done, not by a later stage.
///
/// With several stages `f` must not call rayon: a thread that waited there for another could take up this very work,
/// and wait for itself. `tasks` must not panic.
pub(crate) fn for_each_stage(
    stages: usize,
    tasks: impl Fn(usize) -> usize + Sync,
    workspace: &mut [f32],
    per_thread: usize,
    f: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    let total: usize = (0..stages).map(&tasks).sum();
    let most = (0..stages).map(&tasks).max().unwrap_or(0);
    let threads = rayon::current_num_threads().min(most).min(workspace.len() / per_thread);
    if threads <= 1 {
        let _ordered = Ordered;
        for stage in 0..stages {
            (0..tasks(stage)).for_each(|task| f(stage, task, &mut workspace[..per_thread]));
        }
        return;
    }
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    workspace[..threads * per_thread].par_chunks_mut(per_thread).with_max_len(1).for_each(|scratch| {
        let _ordered = Ordered;
        // The stage, and the tasks of those before it.
        let (mut stage, mut before) = (0, 0);
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= total {
                break;
            }
            while task - before >= tasks(stage) {
                before += tasks(stage);
                stage += 1;
            }
            // All of these have been taken, by threads that run. A stage's tasks begin after all before it, so that
            // counting is enough.
            wait(|| done.load(Ordering::Acquire) >= before);
            let _count = Count(&done);
            f(stage, task - before, scratch);
        }
    });
}

/// Once dropped, what this thread has streamed may be read by others.
struct Ordered;

impl Drop for Ordered {
    fn drop(&mut self) {
        order_streams();
    }
}

/// Counts a task as done, also one that has panicked: the others must not wait for it.
struct Count<'a>(&'a AtomicUsize);

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// Waits, at first without giving the core away.
fn wait(is_over: impl Fn() -> bool) {
    let mut turns = 0;
    while !is_over() {
        turns += 1;
        if turns < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
    }
}

/// Turns for which to wait without giving the core away: some microseconds.
const SPINS: usize = 1 << 8;

/// A pointer that tasks share; each writes elements that no other touches.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32);

// SAFETY: whoever dereferences the pointer (an unsafe act) guarantees that no two threads touch the same element.
unsafe impl Send for Shared {}
// SAFETY: as for `Send`.
unsafe impl Sync for Shared {}

impl Shared {
    pub(crate) fn new(x: &mut [f32]) -> Shared {
        Shared(x.as_mut_ptr())
    }
    pub(crate) fn ptr(self) -> *mut f32 {
        self.0
    }
    /// From an element on.
    pub(crate) fn from(self, element: usize) -> Shared {
        Shared(self.0.wrapping_add(element))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stage reads what the one before has written: with any number of threads it finds all of it.
    #[test]
    fn a_stage_begins_when_the_one_before_is_done() {
        let tasks = |stage: usize| [7, 0, 40, 1, 13][stage];
        for threads in 1..6 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let counts: Vec<AtomicUsize> = (0..5).map(|_| AtomicUsize::new(0)).collect();
            pool.install(|| {
                for_each_stage(5, tasks, &mut vec![0.0; 3 * threads], 3, |stage, task, scratch| {
                    assert!(task < tasks(stage) && scratch.len() == 3);
                    for (before, count) in counts.iter().enumerate().take(stage) {
                        assert_eq!(count.load(Ordering::Relaxed), tasks(before), "stage {before} before {stage}");
                    }
                    std::thread::yield_now();
                    counts[stage].fetch_add(1, Ordering::Relaxed);
                });
            });
            assert!((0..5).all(|stage| counts[stage].load(Ordering::Relaxed) == tasks(stage)), "{threads} threads");
        }
    }

    #[test]
    fn a_task_that_panics_keeps_no_thread_waiting() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let run = || {
            for_each_stage(2, |_| 4, &mut [0.0; 2], 1, |stage, task, _| assert_ne!((stage, task), (0, 2)));
        };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pool.install(run)));
        assert!(result.is_err());
    }
}
