//! Register tiles: a few pixels (or input channels) by a few virtual vectors of output channels.
//!
//! Six rows because six rows of one virtual vector fill twelve of AVX2's sixteen registers, and six of four vectors
//! 24 of AVX-512's 32: enough chains to hide the latency of FMA and few enough row pointers for the general registers.

use crate::{LANES, Simd};
use std::ops::Range;

/// Rows of the largest tile.
pub(super) const ROWS: usize = 6;

/// A stretch of the reduction: `len` steps; the rows are read from `x` on, the vectors from `w` on (16 a step).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub x: usize,
    pub w: usize,
    pub len: usize,
}

/// Vectors that are asked for beside the products, those of one step at each of these steps of a run, as far from
/// `next` as the step's own are from `w`. Asked for all at once they held the products up: A.conv4 took a quarter
/// longer on Zen 5.
#[derive(Debug, Clone)]
pub(super) struct Ahead {
    pub next: *const f32,
    pub steps: Range<usize>,
}

impl Ahead {
    /// None are.
    pub const NONE: Ahead = Ahead { next: std::ptr::null(), steps: 0..0 };
}

/// `acc[i][j] = Σ x[i][k] · w[j][k]`: a chain of FMAs from zero along the runs, one for each row, vector and lane.
///
/// # Safety
/// For each run and each `k` below its length `x[i] + run.x + k·step` must be readable, and 16 elements at
/// `w + j·stream + run.w + 16·k`.
#[inline(always)]
pub(super) unsafe fn accumulate<S: Simd, const I: usize, const J: usize>(
    s: S,
    x: &[*const f32; I],
    step: usize,
    runs: impl IntoIterator<Item = Run>,
    w: *const f32,
    stream: usize,
    ahead: Ahead,
) -> [[S::V; J]; I] {
    let mut acc = [[s.zero(); J]; I];
    for run in runs {
        let mut k = 0;
        // With two steps a turn each load of weights reads every other line, and what the first cache reads ahead for
        // it lies twice as far: a twentieth less time on Granite Rapids, where a panel's weights come from the second
        // cache.
        while const { S::UNROLLS } && k + 2 <= run.len {
            // SAFETY: the caller's promise; both steps are the run's.
            unsafe {
                one_step(s, &mut acc, x, step, run, k, w, stream, &ahead);
                one_step(s, &mut acc, x, step, run, k + 1, w, stream, &ahead);
            }
            k += 2;
        }
        while k < run.len {
            // SAFETY: the caller's promise; the step is the run's.
            unsafe { one_step(s, &mut acc, x, step, run, k, w, stream, &ahead) };
            k += 1;
        }
    }
    acc
}

/// Step `k` of a run.
///
/// # Safety
/// As [`accumulate`], for this run and this `k`, which is below its length.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn one_step<S: Simd, const I: usize, const J: usize>(
    s: S,
    acc: &mut [[S::V; J]; I],
    x: &[*const f32; I],
    step: usize,
    run: Run,
    k: usize,
    w: *const f32,
    stream: usize,
    ahead: &Ahead,
) {
    let q = run.w + k * LANES;
    if ahead.steps.contains(&k) {
        (0..J).for_each(|j| s.prefetch_far(ahead.next.wrapping_add(j * stream + q)));
    }
    let mut vectors = [s.zero(); J];
    for (j, v) in vectors.iter_mut().enumerate() {
        // SAFETY: the caller's promise for `w`.
        *v = unsafe { s.load(w.add(j * stream + q)) };
    }
    // SAFETY: the caller's promise for `x`.
    unsafe { s.rank1(acc, x, run.x + k * step, &vectors) };
}

/// The depthwise counterpart: `acc[i] = Σ x[i][k] · w[k]`, lane by lane.
///
/// # Safety
/// For each run and each `k` below its length 16 elements must be readable at `x[i] + run.x + k·step` and at
/// `w + run.w + 16·k`.
#[inline(always)]
pub(super) unsafe fn accumulate_lanes<S: Simd, const I: usize>(
    s: S,
    x: &[*const f32; I],
    step: usize,
    runs: &[Run],
    w: *const f32,
) -> [[S::V; 1]; I] {
    let mut acc = [[s.zero(); 1]; I];
    for run in runs {
        for k in 0..run.len {
            // SAFETY: the caller's promise.
            let v = unsafe { s.load(w.add(run.w + 16 * k)) };
            for i in 0..I {
                // SAFETY: the caller's promise.
                acc[i][0] = s.fma(unsafe { s.load(x[i].add(run.x + k * step)) }, v, acc[i][0]);
            }
        }
    }
    acc
}

/// Start and length of each part when `total` is split into `count` parts, as even as can be: part `i` begins at
/// `total · i / count`, but a division costs more than the start of a tile should.
#[inline(always)]
pub(super) fn parts(total: usize, count: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let (len, rest) = (total / count.max(1), total % count.max(1));
    let (mut start, mut sum) = (0, 0);
    (0..count).map(move |_| {
        sum += rest;
        let extra = usize::from(sum >= count);
        sum -= extra * count;
        let part = (start, len + extra);
        start += part.1;
        part
    })
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn parts_are_even_and_whole() {
        for total in 0..40 {
            for count in 1..12 {
                let want = (0..count).map(|i| (total * i / count, total * (i + 1) / count - total * i / count));
                assert!(parts(total, count).eq(want), "{total} in {count}");
            }
        }
    }
}
