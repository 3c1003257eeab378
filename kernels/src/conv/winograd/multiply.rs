//! The products of a block of tiles: at each position a small matrix product, of the tiles that have it.

use super::body::{Body, Part};
use crate::conv::tile::{Ahead, ROWS, Run, accumulate, parts};
use crate::reference::conv::CHUNK;
use crate::{Kernel, LANES, Simd};
use std::ops::Range;

/// Tiles and vectors of the register tile for a single block of outputs, and for weights that come from farthest: fewer
/// streams and fewer turns over each of them than with [`ROWS`] by four, so that they can be asked for just ahead of
/// time.
pub(super) const TALL: usize = 14;
const FEW: usize = 2;
/// Tiles from which on that pays: with less to do for each weight the processor's own guesses are the fastest.
const BUSY: usize = 9;

/// The products of a position: transformed inputs, weights, sums.
#[derive(Clone, Copy)]
struct Products {
    x: *const f32,
    w: *const f32,
    m: *mut f32,
    /// Distance of the weights of blocks of output channels.
    stream: usize,
    /// Two to this power phases take part.
    shift: u32,
    /// Where the weights that are read after these lie.
    next: *const f32,
}

/// Multiplies for a panel of output channels of some tiles.
pub(super) struct Multiply(pub Range<usize>, pub Range<usize>);

impl Kernel for Part<'_, Multiply> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part(body, Multiply(panel, tiles)) = self;
        // SAFETY: `run_apart` and `run_together` (see `blocks.rs`) have made `v` and `m` as [`Body`] says, and
        // `Winograd::run` has checked the weights' length; panel and tiles are the stage's.
        unsafe { body.multiply(s, panel, tiles) }
    }
}

impl Body<'_> {
    /// The products of each position, summed over the input channels.
    ///
    /// # Safety
    /// As [`Body`] says of `v`, `m` and the weights; panel and tiles are the stage's.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(&self, s: S, panel: Range<usize>, tiles: Range<usize>) {
        let (n, depth, stream) = (self.plan.variant.n(), self.plan.depth(), self.plan.block_len);
        let mut before = 0;
        for position in 0..n * n {
            let phases = depth.phases([position / n, position % n]);
            let lines = phases * depth.lines_of_phase() + depth.gap();
            let having = self.order.having([position / n, position % n]);
            let tiles = tiles.start.max(having.start)..tiles.end.min(having.end);
            if !self.plan.takes_part(panel.start, [position / n, position % n]) {
                // SAFETY: the caller's promise.
                unsafe { self.clear(s, position, panel.len(), tiles) };
                before += lines;
                continue;
            }
            let is_tall = S::TILE_VECTORS >= 4 && self.plan.is_farthest() && self.asks(&tiles);
            let most = if is_tall { FEW } else { S::TILE_VECTORS };
            for (start, vectors) in parts(panel.len(), panel.len().div_ceil(most)) {
                let w = (panel.start + start) * stream + before * LANES;
                let next = match start + vectors == panel.len() {
                    true => panel.start * stream + (before + lines) * LANES,
                    false => w + vectors * stream,
                };
                let products = Products {
                    x: self.v.wrapping_add(position * self.geometry.position).cast_const(),
                    w: self.call.packed[w..].as_ptr(),
                    m: self.m.wrapping_add(start * self.products.block + position * self.products.position),
                    stream,
                    shift: phases.trailing_zeros(),
                    next: self.call.packed.as_ptr().wrapping_add(next),
                };
                let tiles = tiles.clone();
                // SAFETY: the caller's promise.
                unsafe {
                    match vectors {
                        4 if const { S::TILE_VECTORS >= 4 } => self.panel::<S, 4>(s, &products, tiles, ROWS),
                        3 if const { S::TILE_VECTORS >= 3 } => self.panel::<S, 3>(s, &products, tiles, ROWS),
                        2 if const { S::TILE_VECTORS >= 2 } => {
                            self.panel::<S, 2>(s, &products, tiles, if is_tall { TALL } else { ROWS });
                        }
                        // A single chain a tile: six would wait for each other.
                        _ => self.panel::<S, 1>(s, &products, tiles, if S::TILE_VECTORS >= 4 { TALL } else { ROWS }),
                    }
                }
            }
            before += lines;
        }
    }

    /// Products of zero at a position.
    ///
    /// # Safety
    /// As [`Body`] says of `m`; a panel has so many blocks, and the tiles are the stage's.
    #[inline(always)]
    unsafe fn clear<S: Simd>(&self, s: S, position: usize, blocks: usize, tiles: Range<usize>) {
        for block in 0..blocks {
            let m = self.m.wrapping_add(block * self.products.block + position * self.products.position);
            for tile in tiles.clone() {
                // SAFETY: the caller's promise.
                unsafe { s.store(m.add(tile * LANES), s.zero()) };
            }
        }
    }

    /// Whether to ask for weights ahead of time.
    fn asks(&self, tiles: &Range<usize>) -> bool {
        self.plan.is_far() && tiles.len() >= BUSY
    }

    /// One position, `J` vectors of output channels, `most` tiles at a time.
    ///
    /// # Safety
    /// For each of the tiles 16 elements must be readable in each of the position's segments from `p.x` on, and
    /// accessible in each of `J` blocks from `p.m` on, where no other thread touches them; at `p.w` and `p.stream`
    /// elements on for each block must lie the weights of all segments.
    #[inline(always)]
    unsafe fn panel<S: Simd, const J: usize>(&self, s: S, p: &Products, tiles: Range<usize>, most: usize) {
        let (groups, asks) = (tiles.len().div_ceil(most), self.asks(&tiles));
        let segments = self.plan.in_blocks() << p.shift;
        for first in (0..segments).step_by(CHUNK) {
            let segments = first..segments.min(first + CHUNK);
            for (i, (start, len)) in parts(tiles.len(), groups).enumerate() {
                let tile = (tiles.start + start) * LANES;
                let (p, segments) =
                    (Products { x: p.x.wrapping_add(tile), m: p.m.wrapping_add(tile), ..*p }, segments.clone());
                let steps = if asks { LANES * i / groups..LANES * (i + 1) / groups } else { 0..0 };
                let ahead = Ahead { next: p.next, steps };
                // SAFETY: the caller's promise.
                unsafe {
                    match len {
                        1 => self.rows::<S, 1, J>(s, segments, ahead, p),
                        2 => self.rows::<S, 2, J>(s, segments, ahead, p),
                        3 => self.rows::<S, 3, J>(s, segments, ahead, p),
                        4 => self.rows::<S, 4, J>(s, segments, ahead, p),
                        5 => self.rows::<S, 5, J>(s, segments, ahead, p),
                        6 => self.rows::<S, 6, J>(s, segments, ahead, p),
                        _ if const { J > FEW || S::TILE_VECTORS < 4 } => unreachable!(),
                        7 => self.rows::<S, 7, J>(s, segments, ahead, p),
                        8 => self.rows::<S, 8, J>(s, segments, ahead, p),
                        9 => self.rows::<S, 9, J>(s, segments, ahead, p),
                        10 => self.rows::<S, 10, J>(s, segments, ahead, p),
                        11 => self.rows::<S, 11, J>(s, segments, ahead, p),
                        12 => self.rows::<S, 12, J>(s, segments, ahead, p),
                        13 => self.rows::<S, 13, J>(s, segments, ahead, p),
                        _ => self.rows::<S, TALL, J>(s, segments, ahead, p),
                    }
                }
            }
        }
    }

    /// One register tile: `I` tiles, `J` vectors, one chunk of the segments.
    ///
    /// # Safety
    /// As [`Body::panel`], of the first `I` tiles.
    #[inline(always)]
    unsafe fn rows<S: Simd, const I: usize, const J: usize>(
        &self,
        s: S,
        segments: Range<usize>,
        ahead: Ahead,
        Products { x, w, m, stream, shift, .. }: Products,
    ) {
        let (first, block, channels) = (segments.start == 0, self.geometry.block, self.plan.input.c);
        let x: [*const f32; I] = std::array::from_fn(|i| x.wrapping_add(i * LANES));
        let runs = segments.map(|q| {
            // The segments that come lie too far away for the processor to guess; one ahead would still be waited for.
            (0..I).for_each(|i| s.prefetch(x[i].wrapping_add((q + 2) * block)));
            let len = LANES.min(channels - (q >> shift) * LANES);
            Run { x: q * block, w: q * LANES * LANES, len }
        });
        // SAFETY: the caller's promise.
        unsafe {
            let acc = accumulate::<S, I, J>(s, &x, 1, runs, w, stream, ahead);
            for (i, row) in acc.iter().enumerate() {
                for (j, &sum) in row.iter().enumerate() {
                    let to = m.add(j * self.products.block + i * LANES);
                    s.store(to, if first { sum } else { s.add(s.load(to), sum) });
                }
            }
        }
    }
}
