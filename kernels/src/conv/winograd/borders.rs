//! Winograd between tensors of which one is NCHW: a band of rows of tiles at a time is converted, computed as a
//! convolution of its own, and converted back while it is in cache. A tile's bits do not depend on where it stands.

use super::{Call, TILES, Winograd};
use crate::conv::Layout;
use crate::conv::gather::Window;
use crate::conv::planes::{FromPixels, ToPixels};
use crate::threads::{Shared, for_each_task, most_threads};
use crate::{Dims, Isa, LANES};
use rayon::prelude::*;
use std::ops::Range;

/// A band: the convolution that it is, its image, its first input and output row.
struct Band {
    plan: Winograd,
    image: usize,
    input_row: usize,
    output_row: usize,
}

/// Calls `f` for each part of `len` elements, one after the other or on all threads.
fn each(shared: bool, x: &mut [f32], len: usize, f: impl Fn(usize, &mut [f32]) + Sync + Send) {
    let len = len.max(1);
    match shared {
        true => x.par_chunks_mut(len).enumerate().for_each(|(block, x)| f(block, x)),
        false => x.chunks_mut(len).enumerate().for_each(|(block, x)| f(block, x)),
    }
}

impl Winograd {
    /// Rows of tiles in a band where so many threads take bands of their own; `None` where they share an image. A band
    /// has as many tiles as any block has at most, so that weights are read no more often than else.
    pub(super) fn schedule(&self, threads: usize) -> Option<usize> {
        let (rows, cols) = self.grid();
        let mut bands = rows.div_ceil(TILES.end.div_ceil(cols.max(1)));
        if self.images * bands < super::EVEN * threads {
            bands = (self.images * bands).next_multiple_of(threads).div_ceil(self.images.max(1)).min(rows);
        }
        let shared = self.images * bands < threads || self.is_uncached() && self.images < 2 * threads;
        (threads == 1 || !shared).then(|| rows.div_ceil(bands.max(1)).max(1))
    }

    /// Elements of the inputs, the outputs, and the shortcuts or pre-activations of bands, all blocked, with that many
    /// threads.
    pub(super) fn borders_len(&self, threads: usize) -> usize {
        if self.layouts == (Layout::Blocked, Layout::Blocked) {
            return 0;
        }
        let (rows, bands) = self.schedule(threads).map_or((self.grid().0, 1), |rows| (rows, threads));
        let (x, y) = self.band_lens(rows);
        bands * (x + 2 * y)
    }

    /// Elements of a band of so many rows of tiles: of its input and of its output.
    fn band_lens(&self, rows: usize) -> (usize, usize) {
        let m = self.variant.m();
        let x = Dims { h: self.input.h.min(self.reach(rows)), ..self.input };
        let y = Dims { h: self.output.h.min(rows * m), ..self.output };
        (x.blocked_len(), y.blocked_len())
    }

    /// Rows of the padded input up to the last that so many rows of tiles read.
    fn reach(&self, rows: usize) -> usize {
        let (step, r) = (self.variant.stride(), self.variant.r());
        rows * self.variant.m() * step + r - step
    }

    /// The band of the rows of tiles `rows` of an image.
    fn band(&self, image: usize, rows: Range<usize>) -> Band {
        let m = self.variant.m();
        let (first, end) = (rows.start * m, self.output.h.min(rows.end * m));
        let from = first * self.variant.stride();
        let top = from.saturating_sub(self.pad_top).min(self.input.h);
        let bottom = self.reach(rows.end).saturating_sub(self.pad_top).min(self.input.h);
        let plan = Winograd {
            input: Dims { h: bottom.max(top) - top, ..self.input },
            output: Dims { h: end - first, ..self.output },
            layouts: (Layout::Blocked, Layout::Blocked),
            images: 1,
            groups: 1,
            group: 0,
            // What a band computes is read at once.
            streamed_from: usize::MAX,
            // Below the image nothing is read, whatever the padding.
            pad_top: (self.pad_top + top).saturating_sub(from),
            ..*self
        };
        Band { plan, image, input_row: top, output_row: first }
    }

    /// Runs band by band on so many threads at most: each thread its own where there are enough of them, else all
    /// threads share an image.
    pub(super) fn run_borders(&self, isa: Isa, call: &Call<'_>, threads: usize, workspace: &mut [f32]) {
        let rows = self.grid().0;
        let image = |i: usize| i * self.groups + self.group;
        let threads = most_threads(threads, workspace.len(), |threads| self.group_len(threads));
        let Some(band_rows) = self.schedule(threads) else {
            return (0..self.images)
                .for_each(|i| self.run_band(isa, call, &self.band(image(i), 0..rows), threads, workspace));
        };
        let (bands, len) = (rows.div_ceil(band_rows), self.group_len(threads) / threads);
        for_each_task(self.images * bands, &mut workspace[..threads * len], len, |task, workspace| {
            let first = task % bands * band_rows;
            let band = self.band(image(task / bands), first..rows.min(first + band_rows));
            self.run_band(isa, call, &band, 1, workspace);
        });
    }

    /// Runs a band on so many threads.
    fn run_band(&self, isa: Isa, call: &Call<'_>, band: &Band, threads: usize, workspace: &mut [f32]) {
        let shared = threads > 1;
        let (input, output) = (band.plan.input, band.plan.output);
        let (x, workspace) = workspace.split_at_mut(input.blocked_len());
        let (y, workspace) = workspace.split_at_mut(output.blocked_len());
        let (extra, workspace) = workspace.split_at_mut(output.blocked_len());
        self.load(isa, self.layouts.0, (&self.input, call.x), (band.image, band.input_row, input.h), x, shared);
        if let Some(shortcut) = call.shortcut {
            let rows = (band.image, band.output_row, output.h);
            self.load(isa, self.layouts.1, (&self.output, shortcut), rows, extra, shared);
        }
        band.plan.run_blocked(isa, &Call { x, ..call.apart(y, extra) }, threads, workspace);
        self.store(isa, band, y, call.y, shared);
        if let Some(pre) = call.pre {
            self.store(isa, band, extra, pre, shared);
        }
    }

    /// Copies rows (image, first, how many) of a tensor to blocks.
    fn load(
        &self,
        isa: Isa,
        layout: Layout,
        (d, x): (&Dims, &[f32]),
        (image, row, rows): (usize, usize, usize),
        to: &mut [f32],
        shared: bool,
    ) {
        let dims = Dims { n: self.images * self.groups, ..*d };
        each(shared, to, rows * d.w * LANES, |block, to| {
            let channel = block * LANES;
            let channels = LANES.min(d.c - channel);
            let (row, cols) = (row as isize, d.w);
            let window = Window { dims, layout, channel, channels, row, rows, col: 0, cols, lanes: LANES };
            match layout {
                Layout::Blocked => window.copy(x, image, &[], to),
                Layout::Nchw => isa.dispatch(ToPixels { window, x, n: image, pads: &[], to }),
            }
        });
    }

    /// Copies a band's blocks to where its output lies.
    fn store(&self, isa: Isa, band: &Band, from: &mut [f32], y: Shared, shared: bool) {
        let (d, rows) = (&self.output, band.plan.output.h);
        each(shared, from, rows * d.w * LANES, |block, from| match self.layouts.1 {
            Layout::Nchw => {
                let (channel, plane) = (block * LANES, d.plane());
                let at = (band.image * d.c + channel) * plane + band.output_row * d.w;
                let (y, shortcut, valid) = (y.ptr().wrapping_add(at), std::ptr::null(), LANES.min(d.c - channel));
                isa.dispatch(FromPixels { pixels: from, y, shortcut, plane, valid });
            }
            Layout::Blocked => {
                let plane = (band.image * self.out_blocks() + block) * d.plane();
                let to = y.ptr().wrapping_add((plane + band.output_row * d.w) * LANES);
                // SAFETY: the band's rows of the block lie in the tensor, whose length `Winograd::run` has checked; no
                // other task has them.
                unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
            }
        });
    }
}
