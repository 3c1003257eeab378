//! The phases of a stride: with stride 2 in either direction the input is four images, of even or odd rows and columns,
//! each of which meets its own taps of the kernel by a convolution of stride 1. Their products are summed at the same
//! positions. Where a phase has a tap less than the first it has no part in the last position, ∞.

// Rows and columns of a tile are clearer as numbers.
#![allow(clippy::needless_range_loop)]

use super::Geometry;
use super::order::Places;
use super::spread::{Source, ZEROS, inside};
use super::transform::Line;
use crate::processor::processor;
use crate::reference::winograd::Variant;
use crate::{LANES, Lanes, Simd, blocks};
use std::ops::Range;

/// How the sums of the positions are laid out in packed weights and transformed inputs: block by block of input
/// channels, in a block phase by phase. Such a *segment* has 16 lines of packed weights, with stride 1 as many as there
/// are channels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Depth {
    variant: Variant,
    /// Phases of the input along an axis: the stride's; one where they are of the output.
    step: usize,
    /// Lines of packed weights of a phase: whole blocks, but of first layers, all of whose phases are one segment.
    lines: usize,
    is_padded: bool,
    /// Lines between positions: with one, where it makes their distance odd, they do not share a cache set. In the
    /// first cache lines that share one drive each other out before they are written.
    gap: usize,
}

impl Depth {
    pub fn new(variant: Variant, channels: usize) -> Depth {
        let (step, is_first) = (variant.stride(), variant == Variant::F4x7S2);
        let lines = if step > 1 && !is_first { blocks(channels) * LANES } else { channels };
        let gap = usize::from(!is_first && lines.is_multiple_of(2));
        Depth { variant, step, lines, is_padded: lines > channels, gap }
    }

    /// Where the phases are of the output.
    pub fn interleaved(variant: Variant, channels: usize) -> Depth {
        let gap = usize::from(channels.is_multiple_of(2));
        Depth { variant, step: 1, lines: channels, is_padded: false, gap }
    }

    /// Phases along an axis that take part in position `i` of it.
    #[inline(always)]
    fn phases_of(&self, i: usize) -> usize {
        self.step.min(self.variant.phases(i))
    }

    /// Lines of packed weights of a phase at a position.
    pub fn lines_of_phase(&self) -> usize {
        self.lines
    }

    /// Whether packed weights have lines without a channel.
    pub fn is_padded(&self) -> bool {
        self.is_padded
    }

    /// Phases that take part in a position.
    #[inline(always)]
    pub fn phases(&self, [i, j]: [usize; 2]) -> usize {
        self.phases_of(i) * self.phases_of(j)
    }

    /// Which of a position's phases this is.
    #[inline(always)]
    fn rank(&self, [_, j]: [usize; 2], [row, col]: [usize; 2]) -> usize {
        row * self.phases_of(j) + col
    }

    /// Lines of packed weights of the positions before this one.
    #[inline(always)]
    pub fn before(&self, [i, j]: [usize; 2]) -> usize {
        let n = self.variant.n();
        let phases = |to: usize| (0..to).fold(0, |sum, i| sum + self.phases_of(i));
        (phases(i) * phases(n) + self.phases_of(i) * phases(j)) * self.lines + (i * n + j) * self.gap
    }

    /// Lines between the packed weights of positions.
    pub fn gap(&self) -> usize {
        self.gap
    }

    /// Lines of packed weights of all positions.
    pub fn lines(&self) -> usize {
        self.before([self.variant.n(), 0])
    }

    /// The line of a channel at a position and phase.
    #[inline(always)]
    pub fn line(&self, at: [usize; 2], phase: [usize; 2], channel: usize) -> usize {
        let segment = channel / LANES * self.phases(at) + self.rank(at, phase);
        self.before(at) + segment * self.lines.min(LANES) + channel % LANES
    }
}

/// The transformed inputs of some tiles of a block of channels: where they go.
#[derive(Debug, Clone)]
pub(super) struct Spread {
    pub variant: Variant,
    pub block: usize,
    /// `[segment][position][tile][16]`.
    pub v: *mut f32,
    pub tiles: Range<usize>,
}

/// Where a tile of one phase goes.
struct To {
    /// Inside, at the last column of positions, at the last row, at both.
    v: [*mut f32; 4],
    position: usize,
}

impl Source<'_> {
    /// Transforms tiles of one block of channels at all phases: `N` positions along an axis, of which odd phases take
    /// part in `O`; `step` pixels apart.
    ///
    /// # Safety
    /// `x` has images as `dims` says, of all groups, in which the places lie, and `to.v` has room for the geometry's
    /// tiles.
    #[inline(always)]
    pub unsafe fn spread_phases<S: Simd, T: Line<N, N> + Line<O, O>, const N: usize, const O: usize>(
        &self,
        s: S,
        g: &Geometry,
        step: usize,
        places: Places,
        to: &Spread,
    ) {
        // The larger of what even and odd phases read.
        let side = if O == N { 2 * N } else { 2 * N - 1 };
        let d = &self.dims;
        let pads = self.pads.get(to.block * LANES..(to.block + 1) * LANES).map_or(ZEROS.as_ptr(), <[f32]>::as_ptr);
        let row = d.w * LANES;
        let mut edge = [[0.0f32; LANES]; 121];
        let depth = Depth::new(to.variant, d.c);
        let bases = [[0, 0], [0, 1], [1, 0], [1, 1]].map(|phase| {
            [[0, 0], [0, N - 1], [N - 1, 0], [N - 1, N - 1]].map(|at| {
                let segment = to.block * depth.phases(at) + depth.rank(at, phase);
                to.v.wrapping_add(segment * g.block)
            })
        });
        // Rows of the next row of tiles to ask for: a line a tile for each pixel that is new there. With 64 to 64
        // channels of 112×112 it took Granite Rapids a twelfth longer.
        let asked = if processor().asks_dearly { 0..0 } else { side - step..side };
        for (tile, place) in to.tiles.clone().zip(places) {
            let plane = (place.image * blocks(d.c) + to.block) * d.plane() * LANES;
            let x = self.x.as_ptr().wrapping_add(plane);
            let (top, rows) = inside(place.row * step, self.pad_top, side, d.h);
            let (left, cols) = inside(place.col * step, self.pad_left, side, d.w);
            let mut corner = x.wrapping_offset((top * d.w as isize + left) * LANES as isize);
            for r in asked.clone() {
                (side - step..side).for_each(|c| s.prefetch_far(corner.wrapping_add((r + step) * row + c * LANES)));
            }
            let mut line = row;
            // SAFETY: only pixels that `inside` finds in the image are read, in planes of which the input has as many.
            unsafe {
                if rows.len() < side || cols.len() < side {
                    let pad = s.load(pads);
                    for (r, line) in edge.chunks_exact_mut(side).enumerate().take(side) {
                        for (c, pixel) in line.iter_mut().enumerate() {
                            let inside = rows.contains(&r) && cols.contains(&c);
                            let from = corner.wrapping_add(r * row + c * LANES);
                            s.write(pixel, if inside { s.load(from) } else { pad });
                        }
                    }
                    (corner, line) = (edge.as_ptr().cast(), side * LANES);
                }
                for part in 0..S::PARTS {
                    let (r, at) = (s.register(), part * S::Register::WIDTH);
                    let from = |p: usize| corner.wrapping_add(p / 2 * line + p % 2 * LANES + at);
                    let to =
                        |p: usize| To { v: bases[p].map(|v| v.wrapping_add(tile * LANES + at)), position: g.position };
                    spread_phase::<S::Register, T, N, N, N>(r, from(0), line, &to(0));
                    spread_phase::<S::Register, T, N, O, N>(r, from(1), line, &to(1));
                    spread_phase::<S::Register, T, O, N, N>(r, from(2), line, &to(2));
                    spread_phase::<S::Register, T, O, O, N>(r, from(3), line, &to(3));
                }
            }
        }
    }
}

/// Transforms so many channels of every other pixel of a tile, `R × C` of them, whose first is at `from` and whose rows
/// are `row` elements apart.
///
/// # Safety
/// [`Lanes::WIDTH`] elements must be readable at each of the pixels, and writable at each of the positions.
#[inline(always)]
unsafe fn spread_phase<S: Lanes, T: Line<R, R> + Line<C, C>, const R: usize, const C: usize, const N: usize>(
    s: S,
    from: *const f32,
    row: usize,
    to: &To,
) {
    let mut half = [[s.zero(); C]; R];
    for c in 0..C {
        let mut column = [s.zero(); R];
        for r in 0..R {
            // SAFETY: the caller's promise.
            column[r] = unsafe { s.load(from.add(2 * (r * row + c * LANES))) };
        }
        let column = <T as Line<R, R>>::line(s, column);
        for r in 0..R {
            half[r][c] = column[r];
        }
    }
    for r in 0..R {
        let line = <T as Line<C, C>>::line(s, half[r]);
        for c in 0..C {
            let v = to.v[usize::from(r == N - 1) * 2 + usize::from(c == N - 1)];
            // SAFETY: the caller's promise.
            unsafe { s.store(v.add((r * N + c) * to.position), line[c]) };
        }
    }
}
