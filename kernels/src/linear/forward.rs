//! The forward pass: each weight is read once from memory.
//!
//! One image walks its rows of weights as fast as memory gives them. More walk them chunk by chunk, and while products
//! are taken, weights a few rows further on are fetched: memory and arithmetic then take little more than the slower of
//! the two, not the sum.

mod products;

use super::{LinearShape, common};
use crate::conv::{Epilogue, Parts};
use crate::error::{check_at_least, check_len};
use crate::threads::{Shared, for_each_task};
use crate::{Error, Isa, Kernel, LANES, Simd, blocks, task};
use products::Task;

/// Blocks of sixteen outputs that a task has at most, so that an image's chunk, once near, serves many outputs. One,
/// where the second cache holds all inputs ([`LinearShape::inputs_are_near`]): then the first holds the sums, a sixth
/// less time for 12 images, a ninth for 16 (Granite Rapids, tiles of two outputs).
pub(super) const HEIGHT: usize = 4;

/// Forward: `y = epilogue(W·x)`.
#[derive(Debug, Clone)]
pub struct Forward {
    isa: Isa,
    shape: LinearShape,
}
common!(Forward);

impl Forward {
    /// Elements that a thread sums in: `[output of the task][image][lane]`.
    fn scratch_len(&self) -> usize {
        self.shape.n.saturating_mul(LANES * LANES * if self.shape.n == 1 { 1 } else { HEIGHT })
    }

    /// Elements of the workspace with that many threads; with less than [`Forward::run`] finds, it uses fewer.
    pub fn workspace_len(&self, threads: usize) -> usize {
        task::workspace_len(self.shape.flat_len() + self.shape.packed_len(), threads, self.scratch_len())
    }

    /// Computes `y` (blocked, `n × outputs × 1 × 1`) from `x` (blocked, `n × c × h × w`) and `weights`,
    /// `[outputs][c·h·w]`.
    ///
    /// # Errors
    /// A length that does not fit.
    pub fn run(
        &self,
        x: &[f32],
        weights: &[f32],
        epilogue: Epilogue<'_>,
        y: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let most = if self.shape.n == 1 || self.shape.inputs_are_near() { 1 } else { HEIGHT };
        self.run_by(most, x, weights, epilogue, y, workspace)
    }

    /// The same with so many blocks a task at most, up to [`HEIGHT`].
    pub(super) fn run_by(
        &self,
        most: usize,
        x: &[f32],
        weights: &[f32],
        epilogue: Epilogue<'_>,
        y: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let s = &self.shape;
        check_len("x", x.len(), s.input().blocked_len())?;
        check_len("weights", weights.len(), s.weight_len())?;
        check_len("y", y.len(), s.output().blocked_len())?;
        check_at_least("workspace", workspace.len(), self.workspace_len(1))?;
        let Parts { bias, slopes, shortcut, pre } = epilogue.parts(s.outputs, y.len())?;
        let (flat, workspace) = workspace.split_at_mut(s.flat_len());
        let (packed, scratch) = workspace.split_at_mut(s.packed_len());
        s.pack(self.isa, x, flat, packed)?;
        let x = &*packed;
        let all = blocks(s.outputs);
        let most = most.min(self.scratch_len() / (s.n * LANES * LANES));
        // Several tasks a thread, so that none waits long for the last.
        let height = (all / (4 * rayon::current_num_threads())).clamp(1, most);
        let (y, pre) = (Shared::new(y), pre.map(Shared::new));
        for_each_task(all.div_ceil(height), scratch, self.scratch_len(), |task, sums| {
            let block = task * height;
            let rows = (height * LANES).min(s.outputs - block * LANES);
            self.isa.dispatch(Task { shape: s, x, weights, top: block * LANES, rows, sums });
            for (block, sums) in (block..all.min(block + height)).zip(sums.chunks_mut(s.n * LANES * LANES)) {
                let parameters = |of: Option<&[f32]>, neutral: f32| -> [f32; LANES] {
                    std::array::from_fn(|lane| match of {
                        Some([shared]) if s.outputs > 1 => *shared,
                        Some(each) => each.get(block * LANES + lane).copied().unwrap_or(0.0),
                        None => neutral,
                    })
                };
                let valid = LANES.min(s.outputs - block * LANES);
                sums[valid * s.n * LANES..].fill(0.0);
                // Where there are none, adding −0 and multiplying by 1 change no bit.
                let (bias, slopes) = (parameters(bias, -0.0), parameters(slopes, 1.0));
                self.isa.dispatch(Finish {
                    at: block * LANES,
                    stride: all * LANES,
                    sums,
                    bias,
                    slopes,
                    valid,
                    shortcut,
                    y,
                    pre,
                });
            }
        });
        Ok(())
    }
}

/// The lanes of a block's sums, combined, and the epilogue.
struct Finish<'a> {
    /// Where the block's outputs stand in an image, and the distance of images.
    at: usize,
    stride: usize,
    /// `[output][image][lane]`.
    sums: &'a [f32],
    bias: [f32; LANES],
    slopes: [f32; LANES],
    /// Outputs that the block has.
    valid: usize,
    shortcut: Option<&'a [f32]>,
    y: Shared,
    pre: Option<Shared>,
}

impl Kernel for Finish<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (bias, slopes) = (s.vector(&self.bias), s.vector(&self.slopes));
        let (sums, _) = self.sums.as_chunks::<LANES>();
        let n = sums.len() / LANES;
        for image in 0..n {
            let mut v: [S::V; LANES] = std::array::from_fn(|i| s.vector(&sums[i * n + image]));
            // Lane by lane becomes output by output; then neighbours are added.
            s.transpose(&mut v);
            for half in [8, 4, 2, 1] {
                for i in 0..half {
                    v[i] = s.add(v[2 * i], v[2 * i + 1]);
                }
            }
            let at = image * self.stride + self.at;
            // SAFETY: a block of one image, in tensors whose lengths `run_by` has checked; this task alone writes it.
            unsafe {
                let put = |to: Shared, v: S::V| {
                    s.store(to.ptr().add(at), v);
                    (self.valid..LANES).for_each(|lane| to.ptr().add(at + lane).write(0.0));
                };
                let mut v = s.add(v[0], bias);
                if let Some(pre) = self.pre {
                    put(pre, v);
                }
                if let Some(shortcut) = self.shortcut {
                    v = s.add(v, s.load(shortcut.as_ptr().add(at)));
                }
                put(self.y, s.select(s.gt(v, s.zero()), v, s.mul(slopes, v)));
            }
        }
    }
}
