//! The gradient of the weights of a convolution with stride 2: each phase of the input gives the taps that meet it, all
//! from the same transforms of the output's gradient.
//!
//! A phase is a block of inputs of its own, four neighbouring ones a block of channels. Of up to four channels all
//! phases lie in the lanes of one block, those of even columns first, of them those of even rows.

use super::Geometry;
use super::order::Places;
use super::spread::{Source, Spread, WIDEST, spread_parts};
use super::transform::Line;
use super::weights::Weights;
use crate::conv::Layout;
use crate::reference::winograd::Variant;
use crate::{ConvShape, Dims, LANES, Simd, blocks};
use std::ops::Range;

/// Phases of a stride of 2.
const PHASES: usize = 4;
/// Pixels from one of a phase's to the next.
const STEP: usize = 2;

/// What the blocks of the input are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inputs {
    /// Of channels: there is one phase.
    Channels,
    /// Of channels at a phase.
    Phases,
    /// One, of channels at all phases.
    Lanes,
}

impl Inputs {
    pub fn new(variant: Variant, s: &ConvShape) -> Inputs {
        match variant.stride() {
            1 => Inputs::Channels,
            _ if s.has_few_channels() => Inputs::Lanes,
            _ => Inputs::Phases,
        }
    }

    /// Blocks of inputs for each block of channels.
    #[inline(always)]
    pub fn phases(self) -> usize {
        if self == Inputs::Phases { PHASES } else { 1 }
    }
}

impl Weights {
    /// Blocks of inputs.
    pub(super) fn ins(&self) -> usize {
        self.forward.in_blocks() * self.inputs.phases()
    }

    /// Blocks of inputs in a unit at most: all phases, whose taps are neighbours in the weights.
    pub(super) fn unit_ins(&self) -> usize {
        if self.inputs == Inputs::Phases { PHASES } else { self.unit }
    }

    /// Lanes that a block of inputs has.
    #[inline(always)]
    pub(super) fn lanes(&self, block: usize) -> usize {
        let channels = self.forward.input.c;
        match self.inputs {
            Inputs::Lanes => PHASES * channels,
            _ => LANES.min(channels - block / self.inputs.phases() * LANES),
        }
    }

    /// Whether a block of inputs takes part in a position.
    #[inline(always)]
    pub(super) fn takes_part(&self, block: usize, [i, j]: [usize; 2]) -> bool {
        let [row, col] = phase(block % PHASES);
        let variant = self.variant();
        self.inputs != Inputs::Phases || i < variant.reach(row) && j < variant.reach(col)
    }
}

/// The phase of rows and that of columns.
#[inline(always)]
pub(super) fn phase(number: usize) -> [usize; 2] {
    [number / STEP, number % STEP]
}

/// Where a phase's first of a tile's rows (columns) lies, and which of so many lie in the image.
#[inline(always)]
fn inside(first: usize, phase: usize, pad: usize, n: usize, size: usize) -> (isize, Range<usize>) {
    let start = (first + phase) as isize - pad as isize;
    let end = ((size as isize - start + 1).max(0) as usize / STEP).min(n);
    (start, ((1 - start).max(0) as usize / STEP).min(end)..end)
}

impl Source<'_> {
    /// Transforms tiles of `A × A` pixels of one phase of a block of channels; of a phase `m` pixels apart.
    ///
    /// # Safety
    /// `x` has images as `dims` says, of all groups, in which the places lie, and `to.v` has room for the geometry's
    /// tiles.
    #[inline(always)]
    pub unsafe fn spread_phase<S: Simd, T: Line<A, A>, const A: usize>(
        &self,
        s: S,
        g: &Geometry,
        m: usize,
        places: Places,
        (block, phase): (usize, [usize; 2]),
        Spread { rows: wanted, v, tiles }: Spread,
    ) {
        let (d, step) = (&self.dims, STEP * m);
        let row = STEP * d.w * LANES;
        let mut edge = [[0.0f32; LANES]; WIDEST * WIDEST];
        for (tile, place) in tiles.zip(places) {
            let plane = (place.image * blocks(d.c) + block) * d.plane() * LANES;
            let (top, rows) = inside(place.row * step, phase[0], self.pad_top, A, d.h);
            let (left, cols) = inside(place.col * step, phase[1], self.pad_left, A, d.w);
            let corner = self.x.as_ptr().wrapping_add(plane);
            let corner = corner.wrapping_offset((top * d.w as isize + left) * LANES as isize);
            let to = v.wrapping_add(tile * LANES);
            // What the next tile reads that this one does not.
            for r in 0..A {
                (A..A + m).for_each(|c| s.prefetch_far(corner.wrapping_add(r * row + c * STEP * LANES)));
            }
            // SAFETY: only pixels that `inside` finds in the image are read, in planes of which the input has as many.
            unsafe {
                if rows.len() == A && cols.len() == A {
                    spread_parts::<S, T, A, A, STEP>(s, corner, row, to, g.position, wanted.clone());
                    continue;
                }
                for (r, line) in edge.chunks_exact_mut(A).enumerate().take(A) {
                    for (c, pixel) in line.iter_mut().enumerate() {
                        let inside = rows.contains(&r) && cols.contains(&c);
                        let from = corner.wrapping_add(r * row + c * STEP * LANES);
                        s.write(pixel, if inside { s.load(from) } else { s.zero() });
                    }
                }
                spread_parts::<S, T, A, A, 1>(s, edge.as_ptr().cast(), A * LANES, to, g.position, wanted.clone());
            }
        }
    }

    /// The same of all phases of up to four channels, which are brought together in the lanes: pixels of several
    /// neighbouring tiles at a time, most of which they share.
    ///
    /// # Safety
    /// As [`Source::spread_phase`].
    #[inline(always)]
    pub unsafe fn spread_lanes<S: Simd, T: Line<A, A>, const A: usize>(
        &self,
        s: S,
        g: &Geometry,
        m: usize,
        mut places: Places,
        Spread { rows: wanted, v, tiles }: Spread,
    ) {
        let (d, blocked) = (&self.dims, self.layout == Layout::Blocked);
        let image = self.layout.len(&Dims { n: 1, ..*d });
        // What is stored last of a pixel reaches into the next one.
        let mut lanes = [[0.0f32; LANES]; WIDEST * LANES + 1];
        let mut tile = tiles.start;
        while tile < tiles.end {
            let (place, count) = places.neighbours((tiles.end - tile).min((LANES - A) / m + 1));
            let x = &self.x[place.image * image..][..image];
            let (top, left) = (place.row * STEP * m, (place.col * STEP * m) as isize - self.pad_left as isize);
            for r in 0..A {
                let rows = [0, 1].map(|phase| (top + STEP * r + phase).checked_sub(self.pad_top).filter(|&y| y < d.h));
                let line = &mut lanes[r * LANES..=(r + 1) * LANES];
                match blocked {
                    true => self.bring_pixels(s, x, rows, left, &mut line[..=(count - 1) * m + A]),
                    false => self.bring_planes(s, x, rows, left, line),
                }
            }
            for i in 0..count {
                let (from, to) = (lanes[i * m..].as_ptr().cast(), v.wrapping_add((tile + i) * LANES));
                // SAFETY: the caller's promise; `A` pixels of each row from the tile's first on.
                unsafe { spread_parts::<S, T, A, A, 1>(s, from, LANES * LANES, to, g.position, wanted.clone()) };
            }
            tile += count;
        }
    }

    /// Two rows of an image of blocks, those that there are, phase by phase of columns, of rows, one pixel less than
    /// the line has room for: the lanes that a pixel has beyond its channels are zero and give way to the next phase.
    #[inline(always)]
    fn bring_pixels<S: Simd>(
        &self,
        s: S,
        x: &[f32],
        rows: [Option<usize>; STEP],
        left: isize,
        line: &mut [[f32; LANES]],
    ) {
        let (d, x) = (&self.dims, x.as_chunks::<LANES>().0);
        let rows = rows.map(|row| row.map_or(&[][..], |row| &x[row * d.w..][..d.w]));
        let pixels = line.len() - 1;
        let line = line.as_flattened_mut();
        for (i, col) in (left..).take(STEP * pixels).enumerate() {
            for (phase, row) in rows.iter().enumerate() {
                // None has a column before the first, which as a number is beyond the last.
                let v = match row.get(col as usize) {
                    Some(pixel) => s.vector(pixel),
                    None => s.zero(),
                };
                let to = &mut line[i / STEP * LANES + (i % STEP * STEP + phase) * d.c..][..LANES];
                // SAFETY: as many elements as the slice has.
                unsafe { s.store(to.as_mut_ptr(), v) };
            }
        }
    }

    /// The same of an image of planes, 16 pixels: rows of all channels at a phase of columns are exchanged with
    /// columns. Of 32 columns a phase's first eight lie where a row's even ones are, its others at the odd ones.
    #[inline(always)]
    fn bring_planes<S: Simd>(
        &self,
        s: S,
        x: &[f32],
        rows: [Option<usize>; STEP],
        left: isize,
        line: &mut [[f32; LANES]],
    ) {
        const ODD: [f32; LANES] = [0., 1., 0., 1., 0., 1., 0., 1., 0., 1., 0., 1., 0., 1., 0., 1.];
        let (d, is_odd) = (&self.dims, s.gt(s.vector(&ODD), s.zero()));
        let mut edge = [0.0; STEP * LANES];
        let mut lines = [s.zero(); LANES];
        for (phase, row) in rows.iter().enumerate() {
            let Some(row) = row else { continue };
            for c in 0..d.c {
                let from = window(&x[c * d.plane() + row * d.w..][..d.w], left, &mut edge);
                for col in 0..STEP {
                    // SAFETY: the last element that is read is the window's last but one, or its last.
                    let [even, odd] = [col, col + LANES - 1].map(|at| unsafe { s.load(from.as_ptr().add(at)) });
                    lines[(col * STEP + phase) * d.c + c] = s.select(is_odd, odd, even);
                }
            }
        }
        s.transpose(&mut lines);
        for (i, &pixel) in lines.iter().enumerate() {
            s.write(&mut line[i % STEP * LANES / STEP + i / STEP], pixel);
        }
    }
}

/// 32 neighbours of a line from an element on, which may lie outside; zeros there, and room for them.
#[inline(always)]
fn window<'a>(line: &'a [f32], start: isize, edge: &'a mut [f32; STEP * LANES]) -> &'a [f32; STEP * LANES] {
    let inside = usize::try_from(start).ok().and_then(|start| line.get(start..)?.first_chunk());
    if let Some(inside) = inside {
        return inside;
    }
    *edge = [0.0; STEP * LANES];
    let skipped = usize::try_from(-start).unwrap_or(0).min(edge.len());
    let inside = line.get(usize::try_from(start).unwrap_or(0)..).unwrap_or_default();
    for (to, from) in edge[skipped..].iter_mut().zip(inside) {
        *to = *from;
    }
    edge
}
