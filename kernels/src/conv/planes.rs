//! Between planes (NCHW) and pixels of 16 lanes, a window of a tensor at a time, while it is in cache.

use super::Layout;
use super::gather::{Window, inside};
use crate::layout::{pixels_to_planes, planes_to_pixels};
use crate::{Kernel, LANES, Simd, blocks};

/// How planes lie in the copy of a window. The columns of a row stand apart by their remainder modulo the stride, its
/// phase, so that neighbouring outputs read neighbouring elements: column `c` is element `c / phases` of phase
/// `c % phases`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Planes {
    pub phases: usize,
    /// Elements of a phase, a row and a channel.
    pub phase: usize,
    pub row: usize,
    pub channel: usize,
    /// Phases that are read, of which alone a row consists, and the distance of the rows that are: a single tap leaves
    /// the others out.
    pub read_phases: usize,
    pub read_step: usize,
}

/// How far ahead to ask for what is copied: elements.
const AHEAD: usize = 32 * LANES;

/// Copies a window of image `n` as planes; outside the image each channel's value of `pads`, or zeros if there are
/// none.
pub(super) struct ToPlanes<'a> {
    pub window: Window,
    pub planes: Planes,
    pub x: &'a [f32],
    pub n: usize,
    pub pads: &'a [f32],
    pub to: &'a mut [f32],
}

impl Kernel for ToPlanes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let (w, p) = (self.window, self.planes);
        let rows = inside(w.row, w.rows, w.dims.h);
        for (channel, plane) in self.to.chunks_exact_mut(p.channel).enumerate().take(w.channels) {
            let pad = self.pads.get(w.channel + channel).copied().unwrap_or(0.0);
            for phase in 0..p.read_phases {
                let (cols, from) = columns(&w, &p, phase);
                for (r, line) in plane.chunks_exact_mut(p.row).enumerate().take(w.rows).step_by(p.read_step) {
                    let line = &mut line[phase * p.phase..][..p.phase];
                    if !rows.contains(&r) || cols.len() < p.phase {
                        fill(s, line, pad);
                    }
                    if !rows.contains(&r) {
                        continue;
                    }
                    let line = &mut line[cols.clone()];
                    let row = (w.row + r as isize) as usize * w.dims.w;
                    match w.layout {
                        Layout::Nchw => {
                            let plane = (self.n * w.dims.c + w.channel + channel) * w.dims.plane();
                            let from = &self.x[plane + row..][..w.dims.w].get(from..).unwrap_or_default();
                            match p.phases {
                                1 => copy(s, &from[..line.len()], line),
                                2 => {
                                    // Not `step_by`, which compilers do not make vectors of.
                                    let (pairs, rest) = from.as_chunks::<2>();
                                    let n = line.len().min(pairs.len());
                                    line.iter_mut().zip(pairs).for_each(|(to, pair)| *to = pair[0]);
                                    line[n..].iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
                                }
                                _ => line
                                    .iter_mut()
                                    .zip(from.iter().step_by(p.phases))
                                    .for_each(|(to, from)| *to = *from),
                            }
                        }
                        Layout::Blocked if p.phases > 1 => {
                            let (c, pixels) = (w.channel + channel, blocks(w.dims.c) * w.dims.plane());
                            let plane = self.n * pixels + c / LANES * w.dims.plane();
                            let pixels = self.x.as_chunks::<LANES>().0[plane + row..][..w.dims.w].get(from..);
                            let from = pixels.unwrap_or_default().iter().step_by(p.phases);
                            line.iter_mut().zip(from).for_each(|(to, from)| *to = from[c % LANES]);
                        }
                        Layout::Blocked => {}
                    }
                }
            }
        }
        if w.layout == Layout::Blocked && p.phases == 1 {
            self.transpose(s);
        }
    }
}

impl ToPlanes<'_> {
    /// Blocked pixels that are neighbours in planes too. The window begins with a block.
    #[inline(always)]
    fn transpose<S: Simd>(&mut self, s: S) {
        let (w, p) = (self.window, self.planes);
        let (cols, from) = columns(&w, &p, 0);
        if cols.is_empty() {
            return;
        }
        for block in 0..blocks(w.channels) {
            let valid = LANES.min(w.channels - block * LANES);
            let plane = (self.n * blocks(w.dims.c) + w.channel / LANES + block) * w.dims.plane();
            for r in inside(w.row, w.rows, w.dims.h).filter(|r| r % p.read_step == 0) {
                let first = plane + (w.row + r as isize) as usize * w.dims.w + from;
                let pixels = &self.x.as_chunks::<LANES>().0[first..][..cols.len()];
                let to = block * LANES * p.channel + r * p.row + cols.start;
                let to = &mut self.to[to..][..(valid - 1) * p.channel + cols.len()];
                for (i, pixels) in pixels.chunks(LANES).enumerate() {
                    let to = to[i * LANES..].as_mut_ptr();
                    // SAFETY: the pixels' columns of as many rows, `channel` apart, as the slice has been cut for.
                    unsafe { pixels_to_planes(s, pixels.as_ptr().cast(), pixels.len(), to, p.channel, valid) };
                }
            }
        }
    }
}

/// Fills a line, which is too short for a call of the C library.
#[inline(always)]
fn fill<S: Simd>(s: S, line: &mut [f32], value: f32) {
    let (whole, rest) = line.as_chunks_mut::<LANES>();
    whole.iter_mut().for_each(|to| s.write(to, s.splat(value)));
    // SAFETY: as many elements as the slice has, fewer than 16.
    unsafe { s.store_first(rest.as_mut_ptr(), s.splat(value), rest.len()) };
}

/// Copies a line of the same length.
#[inline(always)]
fn copy<S: Simd>(s: S, from: &[f32], to: &mut [f32]) {
    let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<LANES>(), to.as_chunks_mut::<LANES>());
    for (from, to) in from.iter().zip(to) {
        s.prefetch(from.as_ptr().wrapping_add(AHEAD));
        s.write(to, s.vector(from));
    }
    let n = from_rest.len().min(to_rest.len());
    // SAFETY: as many elements as both slices have, fewer than 16.
    unsafe { s.store_first(to_rest.as_mut_ptr(), s.load_first(from_rest.as_ptr(), n), n) };
}

/// The elements of a phase whose columns lie in the image, and the first of these columns.
#[inline(always)]
fn columns(w: &Window, p: &Planes, phase: usize) -> (std::ops::Range<usize>, usize) {
    let first = w.col + phase as isize;
    let start = ((-first).max(0) as usize).div_ceil(p.phases).min(p.phase);
    let end = ((w.dims.w as isize - first).max(0) as usize).div_ceil(p.phases).min(p.phase);
    (start..end.max(start), (first + (start * p.phases) as isize).max(0) as usize)
}

/// Copies a window of NCHW as `[block][row][col][16]`; outside the image each channel's value of `pads`, or zeros if
/// there are none; zeros in lanes without a channel.
pub(super) struct ToPixels<'a> {
    pub window: Window,
    pub x: &'a [f32],
    pub n: usize,
    pub pads: &'a [f32],
    pub to: &'a mut [f32],
}

impl Kernel for ToPixels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (w, plane) = (self.window, self.window.dims.plane());
        let (rows, cols) = (inside(w.row, w.rows, w.dims.h), inside(w.col, w.cols, w.dims.w));
        let lines = self.to.as_chunks_mut::<LANES>().0.chunks_exact_mut(w.cols);
        for (line, to) in lines.enumerate().take(blocks(w.channels) * w.rows) {
            let (block, r) = (line / w.rows, line % w.rows);
            let channel = w.channel + block * LANES;
            let valid = LANES.min(w.channels - block * LANES);
            let mut pad = [0.0; LANES];
            if let Some(pads) = self.pads.get(channel..channel + valid) {
                pad[..valid].copy_from_slice(pads);
            }
            if !rows.contains(&r) || cols.is_empty() {
                to.fill(pad);
                continue;
            }
            to[..cols.start].fill(pad);
            to[cols.end..].fill(pad);
            let first = (self.n * w.dims.c + channel) * plane
                + (w.row + r as isize) as usize * w.dims.w
                + (w.col + cols.start as isize) as usize;
            let from = &self.x[first..][..(valid - 1) * plane + cols.len()];
            for (i, pixels) in to[cols.clone()].chunks_mut(LANES).enumerate() {
                let from = from[i * LANES..].as_ptr();
                // SAFETY: the pixels' columns of as many planes as the slice has been cut for.
                unsafe { planes_to_pixels(s, from, plane, valid, pixels.as_mut_ptr().cast(), pixels.len()) };
            }
        }
    }
}

/// Writes neighbouring pixels of a block to planes, and adds a shortcut that lies as they do.
pub(super) struct FromPixels<'a> {
    pub pixels: &'a [f32],
    /// The first channel's elements for the pixels, the others `plane` apart.
    pub y: *mut f32,
    /// Likewise what is added; null where there is no shortcut.
    pub shortcut: *const f32,
    pub plane: usize,
    /// Channels of the block.
    pub valid: usize,
}

impl Kernel for FromPixels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (i, pixels) in self.pixels.as_chunks::<LANES>().0.chunks(LANES).enumerate() {
            let (n, at) = (pixels.len(), i * LANES);
            // SAFETY: whoever made the kernel promises as many elements as there are pixels in each plane of the
            // block's channels.
            unsafe {
                pixels_to_planes(s, pixels.as_ptr().cast(), n, self.y.add(at), self.plane, self.valid);
                if !self.shortcut.is_null() {
                    for at in (0..self.valid).map(|lane| lane * self.plane + at) {
                        let sum = s.add(s.load_first(self.y.add(at), n), s.load_first(self.shortcut.add(at), n));
                        s.store_first(self.y.add(at), sum, n);
                    }
                }
            }
        }
    }
}
