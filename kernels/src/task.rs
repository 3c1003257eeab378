//! How work is cut into tasks for the current rayon pool. The cuts never change a result.

use crate::{Dims, LANES};

/// Elements that a task should have at least, so that starting it costs little beside running it.
pub(crate) const ELEMENTS: usize = 1 << 14;

/// Threads that a workspace is planned for: at least one, and no more than any machine runs.
pub(crate) fn counted(threads: usize) -> usize {
    threads.clamp(1, 1 << 16)
}

/// Elements of a workspace for that many threads: what they share, and what each needs. As many as there can be where
/// it would be more: no slice is that long.
pub(crate) fn workspace_len(shared: usize, threads: usize, each: usize) -> usize {
    counted(threads).saturating_mul(each).saturating_add(shared)
}

/// How many units of `len` elements make a task.
pub(crate) fn units(len: usize) -> usize {
    (ELEMENTS / len.max(1)).max(1)
}

/// Part `i` of `count` nearly equal ones of `0..total`.
pub(crate) fn part(total: usize, count: usize, i: usize) -> std::ops::Range<usize> {
    total * i / count..total * (i + 1) / count
}

/// Elements of a plane: one block of 16 channels of one image.
pub(crate) fn plane_len(d: &Dims) -> usize {
    d.plane() * LANES
}

/// The pixels of blocked data.
#[inline(always)]
pub(crate) fn pixels(x: &[f32]) -> &[[f32; LANES]] {
    x.as_chunks().0
}

/// The pixels of blocked data.
#[inline(always)]
pub(crate) fn pixels_mut(x: &mut [f32]) -> &mut [[f32; LANES]] {
    x.as_chunks_mut().0
}
