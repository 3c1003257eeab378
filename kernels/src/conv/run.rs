//! Runs a pass: bands of all images and groups as tasks.

use super::Layout;
use super::band::{Band, Finish};
use super::narrow::Narrow;
use super::pass::{Pass, Strides};
use super::planar::Planar;
use super::planes::{FromPixels, ToPixels, ToPlanes};
use crate::threads::{Shared, for_each_task};
use crate::{Isa, LANES, blocks, task};
use std::ops::Range;

/// What a pass is given: tensors that lie as its layouts say, weights packed for it, per-channel parameters.
pub(super) struct Call<'a> {
    pub x: &'a [f32],
    pub packed: &'a [f32],
    /// What padding reads, one value for each input channel; zeros if there are none.
    pub pads: &'a [f32],
    pub y: &'a mut [f32],
    pub bias: Option<&'a [f32]>,
    pub slopes: Option<&'a [f32]>,
    pub shortcut: Option<&'a [f32]>,
    pub pre: Option<&'a mut [f32]>,
}

impl<'a> Call<'a> {
    /// Zero padding and no epilogue.
    pub fn plain(x: &'a [f32], packed: &'a [f32], y: &'a mut [f32]) -> Call<'a> {
        Call { x, packed, pads: &[], y, bias: None, slopes: None, shortcut: None, pre: None }
    }
}

/// What all tasks of a pass share: a [`Call`] with its parameters spread over whole blocks.
pub(super) struct Tensors<'a> {
    pub x: &'a [f32],
    pub pads: &'a [f32],
    pub packed: &'a [f32],
    pub bias: Option<&'a [f32]>,
    pub slopes: Option<&'a [f32]>,
    pub shortcut: Option<&'a [f32]>,
    pub y: Shared,
    pub pre: Option<Shared>,
    /// Whether both are streamed.
    pub streams: bool,
}

/// Where a task's band lies.
struct Place {
    group: usize,
    images: Range<usize>,
    rows: Range<usize>,
    blocks: Range<usize>,
}

impl Pass {
    /// Elements of the workspace that all tasks share: bias and slopes, padded to whole blocks group by group.
    fn parameters_len(&self) -> usize {
        2 * self.groups * self.out_blocks() * LANES
    }

    /// Elements of a task's copy of the input.
    pub fn copy_len(&self) -> usize {
        if self.by_lanes.is_some() && !self.planar {
            return self.lane_lens().0;
        }
        if self.copy { self.band_images * self.in_strides().image } else { 0 }
    }

    /// Elements of a task's outputs computed apart.
    pub fn apart_len(&self) -> usize {
        if self.by_lanes.is_some() && !self.planar {
            return self.lane_lens().1;
        }
        if self.scatter { self.band_images * self.out_strides().image } else { 0 }
    }

    /// Elements of the workspace of one thread.
    pub fn scratch_len(&self) -> usize {
        (self.copy_len() + 2 * self.apart_len()).next_multiple_of(LANES).max(LANES)
    }

    /// Elements of the workspace with that many threads.
    pub fn workspace_len(&self, threads: usize) -> usize {
        task::workspace_len(self.parameters_len(), threads, self.scratch_len())
    }

    /// Runs the pass. All lengths have been checked: the tensors are those of the shape, the weights
    /// [`Pass::packed_len`], the workspace at least [`Pass::workspace_len`] of one thread.
    pub fn run(&self, isa: Isa, call: Call<'_>, workspace: &mut [f32]) {
        self.run_with(&[], isa, call, workspace);
    }

    /// The same with others that share its copies, whose weights follow its own.
    pub fn run_with(&self, others: &[Pass], isa: Isa, call: Call<'_>, workspace: &mut [f32]) {
        let Call { x, packed, pads, y, bias, slopes, shortcut, pre } = call;
        assert!(x.len() == self.layout.len(&self.input) && y.len() == self.out_layout.len(&self.output));
        let weights = self.packed_len() + others.iter().map(Pass::packed_len).sum::<usize>();
        assert!(pre.as_ref().is_none_or(|p| p.len() == y.len()) && packed.len() == weights);
        assert!(others.iter().all(|o| (o.planes, o.band_rows) == (self.planes, self.band_rows)));
        assert!(shortcut.is_none_or(|s| s.len() == y.len()));
        let (parameters, scratch) = workspace.split_at_mut(self.parameters_len());
        let (bias_blocks, slope_blocks) = parameters.split_at_mut(self.parameters_len() / 2);
        let parameters = [bias.map(|b| self.spread(b, bias_blocks)), slopes.map(|a| self.spread(a, slope_blocks))];
        let streams = self.streams_output(y, pre.as_deref());
        let (y, pre) = (Shared::new(y), pre.map(Shared::new));
        if self.by_lanes.is_some() && !self.planar {
            let shared =
                Tensors { x, pads, packed, bias: parameters[0], slopes: parameters[1], shortcut, y, pre, streams };
            return self.run_lanes(isa, &shared, scratch);
        }
        let oc_parts = self.oc_parts(rayon::current_num_threads());
        let (image_bands, row_bands) = self.bands();
        let tasks = image_bands * row_bands * self.groups * oc_parts;
        for_each_task(tasks, scratch, self.scratch_len(), |task, scratch| {
            let (task, oc_part) = (task / oc_parts, task % oc_parts);
            let (task, row_band) = (task / row_bands, task % row_bands);
            let (group, image_band) = (task % self.groups, task / self.groups);
            let (image, row) = (image_band * self.band_images, row_band * self.band_rows);
            let block = |part: usize| self.out_blocks() * part / oc_parts;
            let place = Place {
                group,
                images: image..self.input.n.min(image + self.band_images),
                rows: row..self.rows.count.min(row + self.band_rows),
                blocks: block(oc_part)..block(oc_part + 1),
            };
            let shared =
                Tensors { x, pads, packed, bias: parameters[0], slopes: parameters[1], shortcut, y, pre, streams };
            self.task(others, isa, place, &shared, scratch);
        });
    }

    /// Spreads a parameter (one per channel, or one for all) over whole blocks, group by group.
    fn spread<'a>(&self, from: &[f32], to: &'a mut [f32]) -> &'a [f32] {
        to.fill(0.0);
        let width = self.out_blocks() * LANES;
        for channel in 0..self.output.c {
            to[channel / self.goc * width + channel % self.goc] = from[if from.len() == 1 { 0 } else { channel }];
        }
        to
    }

    /// Copies the inputs of a band, where they are to be copied, and computes its outputs, and those that others have
    /// of it.
    fn task(&self, others: &[Pass], isa: Isa, mut place: Place, shared: &Tensors<'_>, scratch: &mut [f32]) {
        let &Tensors { x, pads, .. } = shared;
        let (copy, apart) = scratch.split_at_mut(self.copy_len());
        let in_strides = self.in_strides();
        let from = if self.copy {
            let window = self.window(place.group, place.rows.start);
            for (n, to) in place.images.clone().zip(copy.chunks_exact_mut(in_strides.image)) {
                if self.planar {
                    isa.dispatch(ToPlanes { window, planes: self.planes, x, n, pads, to });
                } else if self.layout == Layout::Nchw && window.lanes == LANES {
                    isa.dispatch(ToPixels { window, x, n, pads, to });
                } else {
                    window.copy(x, n, pads, to);
                }
            }
            copy.as_ptr()
        } else if self.k == 0 {
            // Nothing is read: these pixels lie under no tap.
            x.as_ptr()
        } else {
            let first_block = place.group * self.gic / LANES * in_strides.block;
            let row = place.rows.start * self.rows.in_step * in_strides.row;
            x[place.images.start * in_strides.image + first_block + row..].as_ptr()
        };
        let mut packed = shared.packed;
        for pass in std::iter::once(self).chain(others) {
            let (weights, rest) = packed.split_at(pass.packed_len());
            packed = rest;
            place.rows.end = pass.rows.count.min(place.rows.start + pass.band_rows);
            pass.compute(isa, &place, from, weights, shared, apart);
        }
    }

    /// Computes the outputs of a band whose first pixel reads at `from`.
    fn compute(
        &self,
        isa: Isa,
        place: &Place,
        from: *const f32,
        packed: &[f32],
        shared: &Tensors<'_>,
        apart: &mut [f32],
    ) {
        let &Tensors { bias, slopes, shortcut, y, pre, streams, .. } = shared;
        let (apart_y, apart_pre) = apart.split_at_mut(self.apart_len());
        let in_strides = self.in_strides();
        let tensor = if self.planar { self.out_strides() } else { Strides::of(&self.output) };
        let width = self.out_blocks() * LANES;
        let parameter = |p: Option<&[f32]>| p.map_or(std::ptr::null(), |p| p[place.group * width..].as_ptr());
        let (to, to_shortcut, to_pre, out_strides) = if self.scatter {
            (apart_y.as_mut_ptr(), std::ptr::null(), pre.map(|_| apart_pre.as_mut_ptr()), self.out_strides())
        } else {
            let row = (self.rows.first + place.rows.start * self.rows.step) * tensor.row;
            let block = place.group * self.out_blocks() * tensor.block;
            let at = place.images.start * tensor.image + block + row + self.cols.first * tensor.col;
            let strides = Strides { row: tensor.row * self.rows.step, col: tensor.col * self.cols.step, ..tensor };
            let to_shortcut = shortcut.map_or(std::ptr::null(), |s| s[at..].as_ptr());
            (y.ptr().wrapping_add(at), to_shortcut, pre.map(|p| p.ptr().wrapping_add(at)), strides)
        };
        let valid = match self.by_lanes {
            Some(_) => LANES.min(self.output.c - place.group * LANES),
            None => self.goc - (self.out_blocks() - 1) * LANES,
        };
        let (x, w) = (from, packed[place.group * self.out_blocks() * self.k * LANES..].as_ptr());
        let finish = Finish {
            bias: parameter(bias),
            slopes: parameter(slopes),
            shortcut: to_shortcut,
            pre: to_pre.unwrap_or(std::ptr::null_mut()),
            streams,
        };
        let (images, rows, blocks) = (place.images.len(), place.rows.len(), place.blocks.clone());
        if self.planar {
            isa.dispatch(Planar {
                pass: self,
                x,
                in_strides,
                y: to,
                out_strides,
                w,
                finish,
                images,
                rows,
                blocks,
                valid,
            });
        } else if self.narrow {
            isa.dispatch(Narrow { pass: self, x, in_strides, y: to, out_strides, w, finish, images, rows, valid });
        } else {
            isa.dispatch(Band {
                pass: self,
                x,
                in_strides,
                y: to,
                out_strides,
                w,
                finish,
                images,
                rows,
                blocks,
                valid,
            });
        }
        if self.scatter {
            self.scatter(isa, place, apart_y, shortcut, y);
            if let Some(pre) = pre {
                self.scatter(isa, place, apart_pre, None, pre);
            }
        }
    }

    /// Copies a group's outputs, lane by lane, to channels that are not whole blocks, and adds the shortcut's.
    fn scatter(&self, isa: Isa, place: &Place, apart: &[f32], shortcut: Option<&[f32]>, to: Shared) {
        if self.out_layout == Layout::Nchw {
            return self.scatter_planes(isa, place, apart, shortcut, to);
        }
        let (from, tensor) = (self.out_strides(), Strides::of(&self.output));
        for (i, image) in place.images.clone().enumerate() {
            for local in place.blocks.start * LANES..self.goc.min(place.blocks.end * LANES) {
                let channel = place.group * self.goc + local;
                for (r, row) in place.rows.clone().enumerate() {
                    for col in 0..self.cols.count {
                        let at = i * from.image + local / LANES * from.block + r * from.row + col * from.col;
                        let pixel = image * tensor.image
                            + channel / LANES * tensor.block
                            + (self.rows.first + row * self.rows.step) * tensor.row
                            + (self.cols.first + col * self.cols.step) * tensor.col;
                        let last =
                            if channel + 1 == self.output.c { blocks(self.output.c) * LANES } else { channel + 1 };
                        for lane in channel..last {
                            let v = match shortcut {
                                _ if lane > channel => 0.0,
                                Some(shortcut) => apart[at + local % LANES] + shortcut[pixel + lane % LANES],
                                None => apart[at + local % LANES],
                            };
                            // SAFETY: the pixel lies in the output, whose length `run_with` has checked, and this task
                            // alone computes this channel of it; lanes without a channel belong to the last channel.
                            unsafe { to.ptr().add(pixel + lane % LANES).write(v) };
                        }
                    }
                }
            }
        }
    }

    /// Writes a group's outputs to planes, and adds the shortcut's.
    fn scatter_planes(&self, isa: Isa, place: &Place, apart: &[f32], shortcut: Option<&[f32]>, to: Shared) {
        let (from, plane) = (self.out_strides(), self.output.plane());
        for (i, image) in place.images.clone().enumerate() {
            for block in place.blocks.clone() {
                let channel = place.group * self.goc + block * LANES;
                let at = (image * self.output.c + channel) * plane + place.rows.start * self.output.w;
                let pixels = place.rows.len() * self.output.w * LANES;
                isa.dispatch(FromPixels {
                    pixels: &apart[i * from.image + block * from.block..][..pixels],
                    y: to.ptr().wrapping_add(at),
                    shortcut: shortcut.map_or(std::ptr::null(), |s| s[at..].as_ptr()),
                    plane,
                    valid: LANES.min(self.goc - block * LANES),
                });
            }
        }
    }
}
