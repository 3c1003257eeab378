//! The stages of a block of tiles of the weight gradient: transform, multiply at each position, transform the sums.

use super::Geometry;
use super::spread::{Source, Spread, gather_tile};
use super::transform::{F2x3, F3x2, F4x3, Line};
use super::weights::{Share, Weights};
use crate::conv::backward_weights::add_lines;
use crate::conv::tile::{ROWS, Run, accumulate, parts};
use crate::reference::winograd::{TILES, Variant};
use crate::{Kernel, LANES, Lanes, Simd};
use std::ops::Range;

/// Taps of the largest kernel.
const TAPS: usize = 9;

/// Blocks of input and of output channels.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    pub ins: Range<usize>,
    pub outs: Range<usize>,
}

impl Unit {
    /// Elements between positions of its sums, `[position][oc block][ic][16]`: an odd number of vectors, so that positions
    /// do not share a cache set.
    pub fn plane(&self) -> usize {
        ((self.outs.len() * self.ins.len() * LANES) | 1) * LANES
    }

    /// Elements between blocks of output channels.
    fn stream(&self) -> usize {
        self.ins.len() * LANES * LANES
    }
}

/// What to do with a block of tiles.
#[derive(Debug, Clone)]
pub(super) enum Stage {
    /// Transform the channels of a share, at its rows of positions.
    Spread(Share),
    /// Sum the products of a unit of a share, at these of the share's positions.
    Multiply(Share, Unit, Range<usize>),
    /// Transform a unit's sums to weights.
    Gather(Unit),
}

/// A stage of one block of tiles.
pub(super) struct Body<'a> {
    pub plan: &'a Weights,
    pub x: &'a [f32],
    pub dy: &'a [f32],
    pub geometry: Geometry,
    pub stage: Stage,
    /// The share's transformed inputs, then output gradients, `[block][position][tile][16]`, as `geometry` says.
    pub v: *mut f32,
    /// The unit's sums.
    pub m: *mut f32,
    pub dw: *mut f32,
}

impl Kernel for Body<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: `Weights::run` has made the pointers: `v` has room for the transforms of the geometry's tiles, `m` for a
        // unit's sums, `dw` for the weights; no two tasks have a unit's sums at the same position, or its weights.
        unsafe {
            match self.stage.clone() {
                Stage::Spread(share) => match self.plan.variant() {
                    Variant::F4x3 => self.spread::<S, F4x3, 6, 4>(s, &share),
                    Variant::F2x3 => self.spread::<S, F2x3, 4, 2>(s, &share),
                    Variant::F3x2 => self.spread::<S, F3x2, 4, 3>(s, &share),
                    _ => {} // `check_gradient`: no plan has a stride.
                },
                Stage::Multiply(share, unit, positions) => self.multiply(s, &share, &unit, positions),
                Stage::Gather(unit) => match self.plan.variant() {
                    Variant::F4x3 => self.gather::<S, F4x3, 6, 3>(s, &unit),
                    Variant::F2x3 => self.gather::<S, F2x3, 4, 3>(s, &unit),
                    Variant::F3x2 => self.gather::<S, F3x2, 4, 2>(s, &unit),
                    _ => {}
                },
            }
        }
    }
}

impl Body<'_> {
    /// `Bᵀ d B` of the share's input channels, `A dY Aᵀ` of its output channels.
    #[inline(always)]
    unsafe fn spread<S: Simd, T: Line<N, N> + Line<M, N>, const N: usize, const M: usize>(&self, s: S, share: &Share) {
        let (f, g) = (&self.plan.forward, &self.geometry);
        let (pad_top, pad_left) = (f.pad_top, f.pad_left);
        let x = Source { x: self.x, dims: f.input, pads: &[], pad_top, pad_left };
        let dy = Source { x: self.dy, dims: f.output, pads: &[], pad_top: 0, pad_left: 0 };
        // SAFETY: the caller's promise.
        unsafe {
            for (i, block) in share.ins.clone().enumerate() {
                let to = Spread { rows: share.rows.clone(), v: self.v.wrapping_add(i * g.block), tiles: 0..g.tiles };
                x.spread::<S, T, N, N>(s, g, M, f.places(g.first), block, to);
            }
            for (i, block) in (share.ins.len()..).zip(share.outs.clone()) {
                let to = Spread { rows: share.rows.clone(), v: self.v.wrapping_add(i * g.block), tiles: 0..g.tiles };
                dy.spread::<S, T, M, N>(s, g, M, f.places(g.first), block, to);
            }
        }
    }

    /// The products of a unit's channels, summed over the block's tiles.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(&self, s: S, share: &Share, unit: &Unit, positions: Range<usize>) {
        let n = self.plan.variant().n();
        for position in positions {
            let m = self.m.wrapping_add((share.rows.start * n + position) * unit.plane());
            let at =
                |block: usize| self.v.wrapping_add(block * self.geometry.block + position * self.geometry.position);
            let x = at(unit.ins.start - share.ins.start).cast_const();
            let dy = at(share.ins.len() + unit.outs.start - share.outs.start).cast_const();
            for (start, vectors) in parts(unit.outs.len(), unit.outs.len().div_ceil(S::TILE_VECTORS)) {
                // SAFETY: the caller's promise.
                unsafe {
                    match vectors {
                        4 if S::TILE_VECTORS >= 4 => self.panel::<S, 4>(
                            s,
                            unit,
                            x,
                            dy.wrapping_add(start * self.geometry.block),
                            m.wrapping_add(start * unit.stream()),
                        ),
                        3 if S::TILE_VECTORS >= 3 => self.panel::<S, 3>(
                            s,
                            unit,
                            x,
                            dy.wrapping_add(start * self.geometry.block),
                            m.wrapping_add(start * unit.stream()),
                        ),
                        2 if S::TILE_VECTORS >= 2 => self.panel::<S, 2>(
                            s,
                            unit,
                            x,
                            dy.wrapping_add(start * self.geometry.block),
                            m.wrapping_add(start * unit.stream()),
                        ),
                        _ => self.panel::<S, 1>(
                            s,
                            unit,
                            x,
                            dy.wrapping_add(start * self.geometry.block),
                            m.wrapping_add(start * unit.stream()),
                        ),
                    }
                }
            }
        }
    }

    /// One position, `J` vectors of output channels: the transforms of the unit's inputs from `x` on, of its output
    /// gradients from `dy` on.
    #[inline(always)]
    unsafe fn panel<S: Simd, const J: usize>(&self, s: S, unit: &Unit, x: *const f32, dy: *const f32, m: *mut f32) {
        let (f, g) = (&self.plan.forward, &self.geometry);
        for first in (0..g.tiles).step_by(TILES) {
            let len = TILES.min(g.tiles - first);
            let dy = dy.wrapping_add(first * LANES);
            for (i, block) in unit.ins.clone().enumerate() {
                let x = x.wrapping_add(i * g.block + first * LANES);
                let lanes = LANES.min(f.input.c - block * LANES);
                for (row, rows) in parts(lanes, lanes.div_ceil(ROWS)) {
                    let tile = Tile {
                        x: x.wrapping_add(row),
                        dy,
                        len,
                        stream: g.block,
                        m: m.wrapping_add((i * LANES + row) * LANES),
                        m_stream: unit.stream(),
                        first: g.first + first == 0,
                    };
                    // SAFETY: the caller's promise.
                    unsafe {
                        match rows {
                            1 => tile.run::<S, 1, J>(s),
                            2 => tile.run::<S, 2, J>(s),
                            3 => tile.run::<S, 3, J>(s),
                            4 => tile.run::<S, 4, J>(s),
                            5 => tile.run::<S, 5, J>(s),
                            _ => tile.run::<S, ROWS, J>(s),
                        }
                    }
                }
            }
        }
    }

    /// `Gᵀ m G` of each pair of channels, written where it belongs in OIHW: for an output channel one contiguous stretch.
    #[inline(always)]
    unsafe fn gather<S: Simd, T: Line<N, R>, const N: usize, const R: usize>(&self, s: S, unit: &Unit) {
        let (ic, oc) = (self.plan.forward.input.c, self.plan.forward.output.c);
        let mut lines = [[0.0f32; LANES]; LANES * TAPS];
        for (j, out) in unit.outs.clone().enumerate() {
            for (i, block) in unit.ins.clone().enumerate() {
                let lanes = LANES.min(ic - block * LANES);
                let from = self.m.wrapping_add(j * unit.stream() + i * LANES * LANES).cast_const();
                for (lane, lines) in lines.chunks_exact_mut(R * R).enumerate().take(lanes) {
                    for part in 0..S::PARTS {
                        let (r, at) = (s.register(), part * S::Register::WIDTH);
                        let from = from.wrapping_add(lane * LANES + at);
                        // SAFETY: the caller's promise.
                        let taps = unsafe { gather_tile::<S::Register, T, N, R>(r, from, unit.plane()) };
                        for (line, &v) in lines.iter_mut().zip(taps.as_flattened()) {
                            // SAFETY: a line has as many lanes as all parts.
                            unsafe { r.store(line.as_mut_ptr().add(at), v) };
                        }
                    }
                }
                let len = lanes * R * R;
                for (first, lines) in (0..len).step_by(LANES).zip(lines.chunks_exact(LANES)) {
                    let mut rows = [s.zero(); LANES];
                    for (row, line) in rows.iter_mut().zip(lines) {
                        *row = s.vector(line);
                    }
                    s.transpose(&mut rows);
                    for (lane, &row) in rows.iter().enumerate().take(oc - out * LANES) {
                        let at = ((out * LANES + lane) * ic + block * LANES) * R * R + first;
                        // SAFETY: an index into OIHW of channels below the shape's; each pair belongs to one unit.
                        unsafe {
                            let to = self.dw.add(at);
                            if len - first >= LANES {
                                s.store(to, row);
                            } else {
                                s.store_first(to, row, len - first);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// One register tile: a chunk of one position's products of some input channels.
struct Tile {
    x: *const f32,
    dy: *const f32,
    /// Tiles of the chunk.
    len: usize,
    /// Distances between blocks of output channels: of the gradients, of the sums.
    stream: usize,
    m: *mut f32,
    m_stream: usize,
    /// Whether to set the sums in place of adding to them.
    first: bool,
}

impl Tile {
    #[inline(always)]
    unsafe fn run<S: Simd, const I: usize, const J: usize>(&self, s: S) {
        let mut x = [self.x; I];
        for (i, x) in x.iter_mut().enumerate() {
            *x = x.wrapping_add(i);
        }
        if !self.first {
            for i in 0..I {
                (0..J).for_each(|j| s.prefetch(self.m.wrapping_add(j * self.m_stream + i * LANES)));
            }
        }
        // SAFETY: the caller's promise.
        unsafe {
            let run = Run { x: 0, w: 0, len: self.len };
            let acc = accumulate::<S, I, J>(s, &x, LANES, [run], self.dy, self.stream);
            add_lines::<S, I, J>(s, &acc, self.m, self.m_stream, self.first);
        }
    }
}
