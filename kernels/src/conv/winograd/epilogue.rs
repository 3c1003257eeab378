//! From the products of a tile to outputs: the transform, bias, shortcut, PReLU.

// Rows and columns of a tile are clearer as numbers.
#![allow(clippy::needless_range_loop)]

mod phases;

use super::edges::{Axis, Both, Grid, Room, Transform};
use super::spread::gather_tile;
use super::transform::Line;
use super::{Call, Place};
use crate::threads::Shared;
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

/// Where a tile of outputs lies: as many rows and columns as the image has of it, rows `row` elements apart in the
/// tensor, and the lanes that have a channel, all if it is whole.
struct Tile<M> {
    rows: usize,
    cols: usize,
    row: usize,
    valid: M,
    is_whole: bool,
}

/// Room for what comes between the products of a tile and its outputs, whatever it holds: two tiles.
pub(super) struct Rooms([Room; 2]);

impl Rooms {
    #[inline(always)]
    pub fn new() -> Rooms {
        Rooms([Room::new(), Room::new()])
    }
}

/// Where a tile's outputs are written, and its pre-activations if they are kept; rows are `row` elements apart.
#[derive(Clone, Copy)]
struct To {
    y: *mut f32,
    pre: Option<*mut f32>,
    row: usize,
    streams: bool,
}

impl To {
    /// From a lane on.
    #[inline(always)]
    fn lane(self, lane: usize) -> To {
        To { y: self.y.wrapping_add(lane), pre: self.pre.map(|p| p.wrapping_add(lane)), ..self }
    }
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

    /// Transforms the products of the tile at `place`, which are `position` apart from `from` on, and writes its
    /// outputs.
    ///
    /// # Safety
    /// 16 elements must be readable at each of `N²` positions. The call's tensors have images of the output's
    /// dimensions, of all groups, in which the place lies, and no other thread has it.
    #[inline(always)]
    pub unsafe fn tile<S: Simd, T: Line<N, M>, const N: usize, const M: usize>(
        &self,
        s: S,
        from: *const f32,
        position: usize,
        place: Place,
        Rooms(rooms): &mut Rooms,
    ) {
        let (at, r) = (self.at::<M>(place), s.register());
        let last = self.to::<S>(at);
        // A line of several registers is put together first, for it has to be streamed at once.
        let apart = last.streams && !S::Register::STREAMS;
        let to = if apart {
            To { y: rooms[0].ptr(), pre: last.pre.map(|_| rooms[1].ptr()), row: M * LANES, streams: false }
        } else {
            last
        };
        if !last.streams {
            // Where the next tile's outputs go, lest their stores wait.
            for i in 0..M {
                for c in M..2 * M {
                    s.prefetch_far(last.y.wrapping_add(i * last.row + c * LANES));
                }
            }
        }
        for part in 0..S::PARTS {
            let lane = part * S::Register::WIDTH;
            let tile = self.part::<S, M>(s, place, part);
            // SAFETY: the caller's promise.
            unsafe {
                let mut y = gather_tile::<S::Register, T, N, M>(r, from.add(lane), position);
                self.finish(r, &mut y, &tile, lane, at, to.lane(lane));
            }
        }
        if apart {
            let (rows, cols) = self.inside::<M>(place);
            // SAFETY: the caller's promise; the call's outputs are whole lines.
            unsafe {
                stream::<S, M>(s, &mut rooms[0], last.y, last.row, [rows, cols]);
                if let Some(pre) = last.pre {
                    stream::<S, M>(s, &mut rooms[1], pre, last.row, [rows, cols]);
                }
            }
        }
    }

    /// The same of a tile of so many outputs along each axis, all if 0, which has fewer positions than others. Whatever
    /// the room holds.
    ///
    /// # Safety
    /// As [`Epilogue::tile`].
    #[inline(always)]
    pub unsafe fn edge_tile<S: Simd, T: Axis, const M: usize>(
        &self,
        s: S,
        from: *const f32,
        position: usize,
        place: Place,
        k: [usize; 2],
        Rooms([half, outputs]): &mut Rooms,
    ) {
        let (at, r) = (self.at::<M>(place), s.register());
        let (from_grid, to_grid) = (Grid::positions(T::VARIANT, k, position), Grid::dense(M * LANES, LANES));
        let rows = 0..Transform::Output.sizes(T::VARIANT, k[0]).1;
        for part in 0..S::PARTS {
            let lane = part * S::Register::WIDTH;
            let tile = self.part::<S, M>(s, place, part);
            // SAFETY: the caller's promise.
            unsafe {
                let (from, outputs) = (from.add(lane), outputs.ptr());
                let (which, rows) = (Transform::Output, rows.clone());
                let both = Both { which, k, from, from_grid: &from_grid, to: outputs, to_grid: &to_grid, rows };
                both.run::<S::Register, T>(r, half);
                let mut y = [[r.zero(); M]; M];
                for (i, v) in y.as_flattened_mut().iter_mut().enumerate() {
                    *v = r.load(outputs.add(i * LANES));
                }
                self.finish(r, &mut y, &tile, lane, at, self.to::<S>(at).lane(lane));
            }
        }
    }

    /// Where a tile's outputs begin.
    #[inline(always)]
    fn at<const M: usize>(&self, place: Place) -> usize {
        let d = self.output;
        ((place.image * blocks(d.c) + self.block) * d.plane() + (place.row * d.w + place.col) * M) * LANES
    }

    /// Where the outputs from an element on are written.
    #[inline(always)]
    fn to<S: Simd>(&self, at: usize) -> To {
        let from = |tensor: Shared| tensor.ptr().wrapping_add(at);
        To {
            y: from(self.call.y),
            pre: self.call.pre.map(from),
            row: self.output.w * LANES,
            streams: S::STREAMS && self.call.streams,
        }
    }

    /// How many rows and columns of a tile lie in the image.
    #[inline(always)]
    fn inside<const M: usize>(&self, place: Place) -> (usize, usize) {
        (M.min(self.output.h - place.row * M), M.min(self.output.w - place.col * M))
    }

    /// A part of a tile's lanes.
    #[inline(always)]
    fn part<S: Simd, const M: usize>(&self, s: S, place: Place, part: usize) -> Tile<<S::Register as Lanes>::M> {
        let (rows, cols) = self.inside::<M>(place);
        Tile {
            rows,
            cols,
            row: self.output.w * LANES,
            valid: s.register().first(self.valid, part),
            is_whole: self.valid == LANES,
        }
    }

    /// Bias, shortcut and PReLU of a part of a tile's outputs: from a lane on; in the tensor the tile begins at element
    /// `at`.
    ///
    /// # Safety
    /// The tile lies in the call's tensors, no other thread has it, and it fits where `to` points.
    #[inline(always)]
    unsafe fn finish<S: Lanes, const M: usize>(
        &self,
        s: S,
        y: &mut [[S::V; M]; M],
        tile: &Tile<S::M>,
        lane: usize,
        at: usize,
        to: To,
    ) {
        // SAFETY: the caller's promise; a block's parameters have as many lanes as its parts.
        unsafe {
            let (bias, slopes) = (s.load(self.bias.as_ptr().add(lane)), s.load(self.slopes.as_ptr().add(lane)));
            for v in y.as_flattened_mut() {
                *v = s.add(*v, bias);
            }
            if let Some(pre) = to.pre {
                tile.store(s, y, pre, &to);
            }
            if let Some(shortcut) = self.call.shortcut {
                tile.add(s, y, shortcut.as_ptr().add(at + lane));
            }
            for v in y.as_flattened_mut() {
                *v = s.select(s.gt(*v, s.zero()), *v, s.mul(slopes, *v));
            }
            tile.store(s, y, to.y, &to);
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
    /// So many elements must be writable at each of the tile's pixels, the first of which is at `p`; rows are as far
    /// apart as `to` says, and whole lines if it streams.
    #[inline(always)]
    unsafe fn store<S: Lanes<M = K>, const M: usize>(&self, s: S, y: &[[S::V; M]; M], p: *mut f32, to: &To) {
        // SAFETY: the caller's promise.
        unsafe {
            if self.rows == M && self.cols == M && self.is_whole && !to.streams {
                for (r, line) in y.iter().enumerate() {
                    for (c, &v) in line.iter().enumerate() {
                        s.store(p.add(r * to.row + c * LANES), v);
                    }
                }
                return;
            }
            for (r, line) in y.iter().enumerate().take(self.rows) {
                for (c, &v) in line.iter().enumerate().take(self.cols) {
                    s.put(p.add(r * to.row + c * LANES), s.select(self.valid, v, s.zero()), to.streams);
                }
            }
        }
    }
}

/// Streams the pixels of a tile that lie in the image, so many rows and columns, from a room.
///
/// # Safety
/// 16 elements must be writable at each of them, rows `row` elements apart, and be a whole line.
#[inline(always)]
unsafe fn stream<S: Simd, const M: usize>(s: S, from: &mut Room, to: *mut f32, row: usize, [rows, cols]: [usize; 2]) {
    let from = from.ptr();
    for r in 0..rows {
        for c in 0..cols {
            // SAFETY: the caller's promise; a room has more pixels than a tile.
            unsafe { s.stream(to.add(r * row + c * LANES), s.load(from.add((r * M + c) * LANES))) };
        }
    }
}
