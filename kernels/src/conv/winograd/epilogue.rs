//! From the products of a tile to outputs: the transform, bias, shortcut, PReLU.

// Rows and columns of a tile are clearer as numbers.
#![allow(clippy::needless_range_loop)]

use super::spread::gather_tile;
use super::transform::Line;
use super::{Call, Place};
use crate::{Dims, LANES, Lanes, Simd, blocks};

/// The epilogue of one block of output channels.
pub(super) struct Epilogue<'a> {
    call: &'a Call<'a>,
    output: &'a Dims,
    block: usize,
    /// Channels that the block has.
    valid: usize,
    bias: [f32; LANES],
    slopes: [f32; LANES],
}

/// Where a tile of outputs lies: as many rows and columns as the image has of it, `row` elements apart, and the lanes
/// that have a channel, all if it is whole.
struct Tile<M> {
    rows: usize,
    cols: usize,
    row: usize,
    valid: M,
    is_whole: bool,
}

impl<'a> Epilogue<'a> {
    #[inline(always)]
    pub fn new<S: Simd>(s: S, call: &'a Call<'a>, output: &'a Dims, block: usize) -> Epilogue<'a> {
        let valid = LANES.min(output.c - block * LANES);
        let parameter = |p: Option<&[f32]>, neutral: f32| match p {
            None => [neutral; LANES],
            Some([one]) => [*one; LANES],
            // SAFETY: the slice has `valid` elements.
            Some(p) => s.to_array(unsafe { s.load_first(p[block * LANES..][..valid].as_ptr(), valid) }),
        };
        // Adding −0 and multiplying by 1 change no bit.
        let (bias, slopes) = (parameter(call.bias, -0.0), parameter(call.slopes, 1.0));
        Epilogue { call, output, block, valid, bias, slopes }
    }

    /// Transforms the products of the tile at `place`, which are `position` apart from `from` on, and writes its outputs.
    ///
    /// # Safety
    /// 16 elements must be readable at each of `N²` positions. The call's tensors have the output's dimensions, in which the
    /// place lies, and no other thread has it.
    #[inline(always)]
    pub unsafe fn tile<S: Simd, T: Line<N, M>, const N: usize, const M: usize>(
        &self,
        s: S,
        from: *const f32,
        position: usize,
        place: Place,
    ) {
        let d = self.output;
        let (top, left) = (place.row * M, place.col * M);
        let at = ((place.image * blocks(d.c) + self.block) * d.plane() + top * d.w + left) * LANES;
        let r = s.register();
        // Where the next tile's outputs go, lest their stores wait.
        for i in 0..M {
            for c in M..2 * M {
                s.prefetch_far(self.call.y.ptr().wrapping_add(at + i * d.w * LANES + c * LANES));
            }
        }
        for part in 0..S::PARTS {
            let lane = part * S::Register::WIDTH;
            let at = at + lane;
            let to = Tile {
                rows: M.min(d.h - top),
                cols: M.min(d.w - left),
                row: d.w * LANES,
                valid: r.first(self.valid, part),
                is_whole: self.valid == LANES,
            };
            // SAFETY: the caller's promise; the tile's pixels lie inside the output, the parts in its blocks.
            unsafe {
                let (bias, slopes) = (r.load(self.bias.as_ptr().add(lane)), r.load(self.slopes.as_ptr().add(lane)));
                let mut y = gather_tile::<S::Register, T, N, M>(r, from.add(lane), position);
                for v in y.as_flattened_mut() {
                    *v = r.add(*v, bias);
                }
                if let Some(shortcut) = self.call.shortcut {
                    to.add(r, &mut y, shortcut.as_ptr().add(at));
                }
                if let Some(pre) = self.call.pre {
                    to.store(r, &y, pre.ptr().add(at));
                }
                for v in y.as_flattened_mut() {
                    *v = r.select(r.gt(*v, r.zero()), *v, r.mul(slopes, *v));
                }
                to.store(r, &y, self.call.y.ptr().add(at));
            }
        }
    }
}

impl<K: Copy> Tile<K> {
    /// Adds another tensor's tile.
    ///
    /// # Safety
    /// So many elements must be readable at each of the tile's pixels, the first of which is at `from`.
    #[inline(always)]
    unsafe fn add<S: Lanes<M = K>, const M: usize>(&self, s: S, y: &mut [[S::V; M]; M], from: *const f32) {
        for (r, line) in y.iter_mut().enumerate().take(self.rows) {
            for (c, v) in line.iter_mut().enumerate().take(self.cols) {
                // SAFETY: the caller's promise.
                *v = s.add(*v, unsafe { s.load(from.add(r * self.row + c * LANES)) });
            }
        }
    }

    /// Stores the tile. Lanes without a channel become zero: infinities in the input may have made NaN of them.
    ///
    /// # Safety
    /// So many elements must be writable at each of the tile's pixels, the first of which is at `to`.
    #[inline(always)]
    unsafe fn store<S: Lanes<M = K>, const M: usize>(&self, s: S, y: &[[S::V; M]; M], to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            if self.rows == M && self.cols == M && self.is_whole {
                for (r, line) in y.iter().enumerate() {
                    for (c, &v) in line.iter().enumerate() {
                        s.store(to.add(r * self.row + c * LANES), v);
                    }
                }
                return;
            }
            for (r, line) in y.iter().enumerate().take(self.rows) {
                for (c, &v) in line.iter().enumerate().take(self.cols) {
                    s.store(to.add(r * self.row + c * LANES), s.select(self.valid, v, s.zero()));
                }
            }
        }
    }
}
