//! Copies a padded window of a group's channels, so that kernels read pixels at even distances and zeros outside.

use super::Layout;
use crate::{Dims, LANES, blocks};
use std::ops::Range;

/// Channels `channels` of a tensor, a window of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// The tensor.
    pub dims: Dims,
    /// How it lies.
    pub layout: Layout,
    /// First channel and how many.
    pub channel: usize,
    pub channels: usize,
    /// First row (may lie above the image) and how many.
    pub row: isize,
    pub rows: usize,
    /// First column (may lie left of the image) and how many.
    pub col: isize,
    pub cols: usize,
    /// Elements a pixel of the copy has, at most 16; fewer only if there are fewer channels than that.
    pub lanes: usize,
}

/// The part of `0..size` that `first..first + count` covers, as positions in the window.
pub(super) fn inside(first: isize, count: usize, size: usize) -> Range<usize> {
    let start = (-first).max(0) as usize;
    let end = (size as isize - first).clamp(0, count as isize) as usize;
    start.min(end)..end
}

impl Window {
    /// Copies image `n` as `[block][row][col][lanes]`; outside the image each channel's value of `pads`, or zeros if
    /// there are none; zeros in lanes without a channel.
    pub fn copy(&self, x: &[f32], n: usize, pads: &[f32], to: &mut [f32]) {
        let pads = if pads.iter().all(|p| p.to_bits() == 0) { &[] } else { pads };
        let lanes = self.lanes;
        let row_len = self.cols * lanes;
        let rows = inside(self.row, self.rows, self.dims.h);
        let cols = inside(self.col, self.cols, self.dims.w);
        for block in 0..blocks(self.channels) {
            let channel = self.channel + block * LANES;
            let valid = lanes.min(self.channels - block * LANES);
            let block_out = &mut to[block * self.rows * row_len..][..self.rows * row_len];
            for (r, out) in block_out.chunks_exact_mut(row_len).enumerate() {
                let pad = |out: &mut [f32]| {
                    out.fill(0.0);
                    if let Some(pads) = pads.get(channel..channel + valid) {
                        out.chunks_exact_mut(lanes).for_each(|pixel| pixel[..valid].copy_from_slice(pads));
                    }
                };
                if !rows.contains(&r) || cols.is_empty() {
                    pad(out);
                    continue;
                }
                pad(&mut out[..cols.start * lanes]);
                pad(&mut out[cols.end * lanes..]);
                let pixel = (self.row + r as isize) as usize * self.dims.w + (self.col + cols.start as isize) as usize;
                let source = |channel: usize| match self.layout {
                    Layout::Blocked => {
                        let plane = n * blocks(self.dims.c) + channel / LANES;
                        (plane * self.dims.plane() + pixel) * LANES + channel % LANES
                    }
                    Layout::Nchw => (n * self.dims.c + channel) * self.dims.plane() + pixel,
                };
                let out = &mut out[cols.start * lanes..cols.end * lanes];
                if valid < lanes {
                    out.fill(0.0);
                }
                if self.layout == Layout::Nchw {
                    let planes = |lane: usize| x[source(channel + lane)..].iter();
                    if valid == 3 && lanes == 3 {
                        // The planes of a colour image.
                        let from = planes(0).zip(planes(1)).zip(planes(2));
                        for (to, ((&r, &g), &b)) in out.as_chunks_mut::<3>().0.iter_mut().zip(from) {
                            *to = [r, g, b];
                        }
                    } else {
                        for lane in 0..valid {
                            let to = out.chunks_exact_mut(lanes);
                            to.zip(planes(lane)).for_each(|(to, &from)| to[lane] = from);
                        }
                    }
                } else if channel.is_multiple_of(LANES) && lanes == LANES {
                    out.copy_from_slice(&x[source(channel)..][..out.len()]);
                } else if channel.is_multiple_of(LANES) && valid == lanes {
                    copy_first(lanes, &x[source(channel)..], out);
                } else {
                    for lane in 0..valid {
                        let from = &x[source(channel + lane)..];
                        for (to, from) in out.chunks_exact_mut(lanes).zip(from.chunks(LANES)) {
                            to[lane] = from[0];
                        }
                    }
                }
            }
        }
    }
}

/// Copies the first so many lanes of each pixel of a block, fewer than all: as many at once as the compiler knows of.
fn copy_first(lanes: usize, from: &[f32], to: &mut [f32]) {
    fn copy<const N: usize>(from: &[f32], to: &mut [f32]) {
        for (to, from) in to.as_chunks_mut::<N>().0.iter_mut().zip(from.as_chunks::<LANES>().0) {
            to.copy_from_slice(&from[..N]);
        }
    }
    match lanes {
        1 => copy::<1>(from, to),
        2 => copy::<2>(from, to),
        3 => copy::<3>(from, to),
        4 => copy::<4>(from, to),
        5 => copy::<5>(from, to),
        6 => copy::<6>(from, to),
        7 => copy::<7>(from, to),
        8 => copy::<8>(from, to),
        9 => copy::<9>(from, to),
        10 => copy::<10>(from, to),
        11 => copy::<11>(from, to),
        12 => copy::<12>(from, to),
        13 => copy::<13>(from, to),
        14 => copy::<14>(from, to),
        15 => copy::<15>(from, to),
        _ => unreachable!("all lanes are copied at once"),
    }
}
