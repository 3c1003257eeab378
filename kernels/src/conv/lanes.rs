//! Runs depthwise passes, of single channels and of small groups: bands of rows of a block of channels as tasks. Where
//! one of the tensors is NCHW, a band is made into blocks, or of them, in a thread's own scratch.

use super::band::Finish;
use super::depthwise::Depthwise;
use super::gather::{Window, inside};
use super::pass::Pass;
use super::planes::{FromPixels, ToPixels};
use super::run::Tensors;
use super::{Layout, planar};
use crate::threads::{Shared, for_each_task};
use crate::{Isa, LANES};
use std::ops::Range;

impl Pass {
    /// Output rows of a task.
    fn lane_rows(&self) -> usize {
        let row = self.input.w.max(self.output.w) * LANES;
        if (self.layout, self.out_layout) == (Layout::Blocked, Layout::Blocked) {
            return self.rows.count.min((crate::task::ELEMENTS / (self.cols.count * LANES)).max(1));
        }
        if self.input.h.max(self.output.h) * row <= planar::SMALL {
            return self.rows.count;
        }
        let most = (planar::SMALL / row).saturating_sub(self.rows.extent(1)) / self.rows.in_step + 1;
        most.min(self.rows.count)
    }

    /// Elements of a band's inputs and outputs where they are copied.
    pub fn lane_lens(&self) -> (usize, usize) {
        let rows = self.lane_rows();
        let copied = |layout: Layout, rows: usize, cols: usize| match layout {
            Layout::Nchw => rows * cols * LANES,
            Layout::Blocked => 0,
        };
        let inputs = self.rows.extent(rows).min(self.input.h);
        (copied(self.layout, inputs, self.input.w), copied(self.out_layout, rows, self.output.w))
    }

    /// The window of a block of channels of the input that some output rows read: without what lies outside.
    fn lane_window(&self, block: usize, rows: &Range<usize>) -> Window {
        let (dims, layout, channel) = (self.input, self.layout, block * LANES);
        let first = (rows.start * self.rows.in_step) as isize + self.rows.low();
        let read = inside(first, self.rows.extent(rows.len()), dims.h);
        let (row, channels) = (first + read.start as isize, LANES.min(dims.c - channel));
        Window { dims, layout, channel, channels, row, rows: read.len(), col: 0, cols: dims.w, lanes: LANES }
    }

    /// Runs the pass.
    pub fn run_lanes(&self, isa: Isa, shared: &Tensors<'_>, scratch: &mut [f32]) {
        let (from, to) = (self.input.plane() * LANES, self.output.plane() * LANES);
        let (copies, scatters) = (self.layout == Layout::Nchw, self.out_layout == Layout::Nchw);
        let rows = self.lane_rows();
        let bands = self.rows.count.div_ceil(rows);
        let planes = self.input.n * self.groups;
        for_each_task(planes * bands, scratch, self.scratch_len(), |task, scratch| {
            let (plane, band) = (task / bands, task % bands);
            let (image, block) = (plane / self.groups, plane % self.groups);
            let rows = band * rows..self.rows.count.min((band + 1) * rows);
            let (copy, apart) = scratch.split_at_mut(self.copy_len());
            let (apart_y, apart_pre) = apart.split_at_mut(self.apart_len());
            let channels = block * LANES..(block + 1) * LANES;
            let valid = LANES.min(self.output.c - block * LANES);
            let parameter = |p: Option<&[f32]>| p.map_or(std::ptr::null(), |p| p[channels.clone()].as_ptr());
            // From where the plane's first row is, or would be before the band's.
            let x = if copies {
                let window = self.lane_window(block, &rows);
                let (above, len) = (window.row.max(0) as usize * window.cols, window.rows * window.cols);
                let to = &mut copy[..len * LANES];
                isa.dispatch(ToPixels { window, x: shared.x, n: image, pads: &[], to });
                copy.as_ptr().wrapping_sub(above * LANES)
            } else {
                shared.x[plane * from..][..from].as_ptr()
            };
            let (y, shortcut, pre) = if scatters {
                let pre = shared.pre.map_or(std::ptr::null_mut(), |_| apart_pre.as_mut_ptr());
                (apart_y.as_mut_ptr(), std::ptr::null(), pre)
            } else {
                let shortcut = shared.shortcut.map_or(std::ptr::null(), |s| s[plane * to..].as_ptr());
                let pre = shared.pre.map_or(std::ptr::null_mut(), |p| p.ptr().wrapping_add(plane * to));
                (shared.y.ptr().wrapping_add(plane * to), shortcut, pre)
            };
            let pads = shared.pads.get(channels.clone()).and_then(|p| p.first_chunk());
            let (bias, slopes) = (parameter(shared.bias), parameter(shared.slopes));
            Depthwise {
                pass: self,
                x,
                pads: pads.unwrap_or(&[0.0; LANES]),
                y,
                w: &shared.packed[block * self.k * LANES..][..self.k * LANES],
                finish: Finish { bias, slopes, shortcut, pre, streams: shared.streams },
                first: if scatters { rows.start } else { 0 },
                rows: rows.clone(),
                valid,
            }
            .run(isa);
            if scatters {
                let at = (image * self.output.c + block * LANES) * self.output.plane() + rows.start * self.output.w;
                let planes = |pixels: &[f32], to: Shared, shortcut: Option<&[f32]>| {
                    isa.dispatch(FromPixels {
                        pixels: &pixels[..rows.len() * self.output.w * LANES],
                        y: to.ptr().wrapping_add(at),
                        shortcut: shortcut.map_or(std::ptr::null(), |s| s[at..].as_ptr()),
                        plane: self.output.plane(),
                        valid,
                    });
                };
                planes(apart_y, shared.y, shared.shortcut);
                if let Some(pre) = shared.pre {
                    planes(apart_pre, pre, None);
                }
            }
        });
    }
}
