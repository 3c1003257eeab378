//! The forward pass: each weight is read once.

use super::{LinearShape, Matrix, common};
use crate::conv::{Epilogue, Parts};
use crate::error::{check_at_least, check_len};
use crate::reference::linear::CHUNK;
use crate::threads::{Shared, for_each_task};
use crate::{Error, Isa, Kernel, LANES, Simd, blocks};

/// Images and outputs of the largest tile.
const IMAGES: usize = 6;
const OUTPUTS: usize = 4;
/// Inputs that a block walks at a time when there are several images: its weights stay in the second level.
const SPAN: usize = 4 * CHUNK;

/// Forward: `y = epilogue(W·x)`.
#[derive(Debug, Clone)]
pub struct Forward {
    isa: Isa,
    shape: LinearShape,
}
common!(Forward);

impl Forward {
    /// Elements that a thread sums in: `[image][output of the block][lane]`.
    fn scratch_len(&self) -> usize {
        self.shape.n * LANES * LANES
    }

    /// Elements of the workspace with that many threads; with less than [`Forward::run`] finds, it uses fewer.
    pub fn workspace_len(&self, threads: usize) -> usize {
        self.shape.flat_len() + threads.max(1) * self.scratch_len()
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
        let s = &self.shape;
        check_len("x", x.len(), s.input().blocked_len())?;
        check_len("weights", weights.len(), s.weight_len())?;
        check_len("y", y.len(), s.output().blocked_len())?;
        check_at_least("workspace", workspace.len(), self.workspace_len(1))?;
        let Parts { bias, slopes, shortcut, pre } = epilogue.parts(s.outputs, y.len())?;
        let (flat, scratch) = workspace.split_at_mut(s.flat_len());
        let x = s.flatten(self.isa, x, flat)?;
        let (y, pre) = (Shared::new(y), pre.map(Shared::new));
        for_each_task(blocks(s.outputs), scratch, self.scratch_len(), |block, sums| {
            self.isa.dispatch(Block { shape: s, x, weights, block, sums });
            let parameters = |of: Option<&[f32]>, neutral: f32| -> [f32; LANES] {
                std::array::from_fn(|lane| match of {
                    Some([shared]) if s.outputs > 1 => *shared,
                    Some(each) => each.get(block * LANES + lane).copied().unwrap_or(0.0),
                    None => neutral,
                })
            };
            let valid = LANES.min(s.outputs - block * LANES);
            // Where there are none, adding −0 and multiplying by 1 change no bit.
            let (bias, slopes) = (parameters(bias, -0.0), parameters(slopes, 1.0));
            self.isa.dispatch(Finish {
                at: block * LANES,
                stride: blocks(s.outputs) * LANES,
                sums,
                bias,
                slopes,
                valid,
                shortcut,
                y,
                pre,
            });
        });
        Ok(())
    }
}

/// A block of up to sixteen outputs of all images, summed lane by lane.
struct Block<'a> {
    shape: &'a LinearShape,
    x: Matrix<'a>,
    weights: &'a [f32],
    block: usize,
    /// `[image][output][lane]`.
    sums: &'a mut [f32],
}

impl Kernel for Block<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let LinearShape { n, outputs, .. } = *self.shape;
        let inputs = self.shape.inputs();
        let rows = LANES.min(outputs - self.block * LANES);
        if rows < LANES {
            self.sums.fill(0.0);
        }
        // The first image walks the rows as fast as memory gives them; the others find them in the cache.
        let span = if n == 1 { inputs.max(1) } else { SPAN };
        for first in (0..inputs).step_by(span) {
            let len = span.min(inputs - first);
            for row in (0..rows).step_by(OUTPUTS) {
                // SAFETY: rows, image and inputs of the tile are of the shape, whose lengths `run` has checked.
                unsafe {
                    match rows - row {
                        OUTPUTS.. => self.tile::<S, OUTPUTS, 1>(s, Tile { row, image: 0, first, len }),
                        left => (row..row + left).for_each(|row| {
                            self.tile::<S, 1, 1>(s, Tile { row, image: 0, first, len });
                        }),
                    }
                }
            }
            for chunk in (first..first + len).step_by(CHUNK) {
                self.others(s, rows, chunk, CHUNK.min(first + len - chunk));
            }
        }
    }
}

impl Block<'_> {
    /// All rows and all images but the first, for one chunk.
    #[inline(always)]
    fn others<S: Simd>(&mut self, s: S, rows: usize, first: usize, len: usize) {
        let n = self.shape.n;
        let wide = S::TILE_VECTORS >= OUTPUTS;
        let (most_rows, most_images) = if wide { (OUTPUTS, IMAGES) } else { (2, 3) };
        let mut row = 0;
        while row < rows {
            let height = if rows - row >= most_rows { most_rows } else { 1 };
            for image in (1..n).step_by(most_images) {
                let images = most_images.min(n - image);
                let tile = Tile { row, image, first, len };
                // SAFETY: rows, images and inputs of the tile are of the shape, whose lengths `run` has checked.
                unsafe {
                    match (height, images) {
                        (OUTPUTS, 6) if wide => self.tile::<S, OUTPUTS, 6>(s, tile),
                        (OUTPUTS, 5) if wide => self.tile::<S, OUTPUTS, 5>(s, tile),
                        (OUTPUTS, 4) if wide => self.tile::<S, OUTPUTS, 4>(s, tile),
                        (OUTPUTS, 3) if wide => self.tile::<S, OUTPUTS, 3>(s, tile),
                        (OUTPUTS, 2) if wide => self.tile::<S, OUTPUTS, 2>(s, tile),
                        (OUTPUTS, _) => self.tile::<S, OUTPUTS, 1>(s, tile),
                        (2, 3) => self.tile::<S, 2, 3>(s, tile),
                        (2, 2) => self.tile::<S, 2, 2>(s, tile),
                        (2, _) => self.tile::<S, 2, 1>(s, tile),
                        _ => (image..image + images).for_each(|image| {
                            self.tile::<S, 1, 1>(s, Tile { image, ..tile });
                        }),
                    }
                }
            }
            row += height;
        }
    }
}

/// Where a tile stands: its first output of the block, its first image, its inputs.
#[derive(Clone, Copy)]
struct Tile {
    row: usize,
    image: usize,
    first: usize,
    len: usize,
}

impl Block<'_> {
    /// The chains of the tile's chunks for `I` outputs and `J` images, added to what the chunks before have left.
    ///
    /// # Safety
    /// The tile must lie within the block, the images and the inputs, and begin with a chunk.
    #[inline(always)]
    unsafe fn tile<S: Simd, const I: usize, const J: usize>(&mut self, s: S, tile: Tile) {
        let (inputs, Tile { row, image, first, len }) = (self.shape.inputs(), tile);
        let (w, x) = (self.weights.as_ptr(), self.x.values.as_ptr());
        let (sums, _) = self.sums.as_chunks_mut::<LANES>();
        let mut sum = [[s.zero(); J]; I];
        if first > 0 {
            for i in 0..I {
                for j in 0..J {
                    sum[i][j] = s.vector(&sums[(image + j) * LANES + row + i]);
                }
            }
        }
        for start in (first..first + len).step_by(CHUNK) {
            let len = CHUNK.min(first + len - start);
            let mut acc = [[s.zero(); J]; I];
            // SAFETY: rows of the weights and of the inputs, from `start` on `len` long, by the caller's promise.
            unsafe {
                let w: [*const f32; I] =
                    std::array::from_fn(|i| w.add((self.block * LANES + row + i) * inputs + start));
                let x: [*const f32; J] = std::array::from_fn(|j| x.add((image + j) * self.x.stride + start));
                let whole = len / LANES * LANES;
                for k in (0..whole).step_by(LANES) {
                    let mut v = [s.zero(); J];
                    for j in 0..J {
                        v[j] = s.load(x[j].add(k));
                    }
                    for i in 0..I {
                        let w = s.load(w[i].add(k));
                        for j in 0..J {
                            acc[i][j] = s.fma(v[j], w, acc[i][j]);
                        }
                    }
                }
                if whole < len {
                    for j in 0..J {
                        let v = s.load_first(x[j].add(whole), len - whole);
                        for i in 0..I {
                            acc[i][j] = s.fma(v, s.load_first(w[i].add(whole), len - whole), acc[i][j]);
                        }
                    }
                }
            }
            for i in 0..I {
                for j in 0..J {
                    sum[i][j] = if start == 0 { acc[i][j] } else { s.add(sum[i][j], acc[i][j]) };
                }
            }
        }
        for i in 0..I {
            for j in 0..J {
                s.write(&mut sums[(image + j) * LANES + row + i], sum[i][j]);
            }
        }
    }
}

/// The lanes of a block's sums, combined, and the epilogue.
struct Finish<'a> {
    /// Where the block's outputs stand in an image, and the distance of images.
    at: usize,
    stride: usize,
    sums: &'a mut [f32],
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
        for (image, sums) in sums.as_chunks::<LANES>().0.iter().enumerate() {
            let mut v: [S::V; LANES] = std::array::from_fn(|i| s.vector(&sums[i]));
            // Lane by lane becomes output by output; then neighbours are added.
            s.transpose(&mut v);
            for half in [8, 4, 2, 1] {
                for i in 0..half {
                    v[i] = s.add(v[2 * i], v[2 * i + 1]);
                }
            }
            let at = image * self.stride + self.at;
            // SAFETY: a block of one image, in tensors whose lengths `run` has checked; this task alone writes it.
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
