//! Tasks on the current rayon pool.

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
    let threads = rayon::current_num_threads().min(tasks).min(workspace.len() / per_thread);
    if threads <= 1 {
        (0..tasks).for_each(|task| f(task, &mut workspace[..per_thread]));
        return;
    }
    let next = AtomicUsize::new(0);
    workspace[..threads * per_thread].par_chunks_mut(per_thread).with_max_len(1).for_each(|scratch| {
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                break;
            }
            f(task, scratch);
        }
    });
}

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
}
