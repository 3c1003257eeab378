//! Max and average pooling over blocked tensors; global pooling is a window as large as the image, spatial pyramid
//! pooling ([`SppShape`]) takes the maxima of a few grids of bins.
//!
//! Windows may overlap. Padding lies outside every window's choice and mean: a maximum is one of the image, a mean
//! divides by the pixels of the image that the window covers (PyTorch's `count_include_pad=False`). Window pixels are
//! visited row by row.

mod average;
mod max;
mod spp;

pub use average::{average_backward, average_forward};
pub use max::{max_backward, max_forward};
pub use spp::{SppShape, spp_backward, spp_forward};

use crate::shape::product;
use crate::{Dims, Error};
use std::ops::Range;

/// The shape of a pooling operation.
///
/// Output pixel `(r, c)` covers input rows `r·stride_h − pad_top` and the `kh − 1` below it, columns likewise. What is
/// left over at the bottom and on the right is not covered (rounding down); more padding there covers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolShape {
    /// Images.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// Input rows.
    pub h: usize,
    /// Input columns.
    pub w: usize,
    /// Window rows.
    pub kh: usize,
    /// Window columns.
    pub kw: usize,
    /// Row stride.
    pub stride_h: usize,
    /// Column stride.
    pub stride_w: usize,
    /// Rows of padding above.
    pub pad_top: usize,
    /// Rows of padding below.
    pub pad_bottom: usize,
    /// Columns of padding on the left.
    pub pad_left: usize,
    /// Columns of padding on the right.
    pub pad_right: usize,
}

/// The part of a window inside the image, along one axis.
fn inside(at: usize, k: usize, stride: usize, pad: usize, len: usize) -> Range<usize> {
    let first = at * stride;
    first.saturating_sub(pad)..(first + k).saturating_sub(pad).min(len)
}

impl PoolShape {
    /// A square window without padding.
    pub fn square(dims: Dims, k: usize, stride: usize) -> PoolShape {
        let Dims { n, c, h, w } = dims;
        PoolShape {
            n,
            c,
            h,
            w,
            kh: k,
            kw: k,
            stride_h: stride,
            stride_w: stride,
            pad_top: 0,
            pad_bottom: 0,
            pad_left: 0,
            pad_right: 0,
        }
    }

    /// One window as large as the image.
    pub fn global(dims: Dims) -> PoolShape {
        PoolShape { kh: dims.h, kw: dims.w, ..PoolShape::square(dims, 1, 1) }
    }

    /// Refuses a zero dimension, a window larger than the padded image, padding not smaller than the
    /// window (which could then miss the image), planes of 2³¹ pixels and more, and lengths that no slice can hold.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Overflow`], naming the dimension.
    pub fn check(&self) -> Result<(), Error> {
        for (what, value) in [
            ("n", self.n),
            ("c", self.c),
            ("h", self.h),
            ("w", self.w),
            ("kh", self.kh),
            ("kw", self.kw),
            ("stride_h", self.stride_h),
            ("stride_w", self.stride_w),
        ] {
            if value == 0 {
                return Err(Error::Shape { what, value, why: "must be at least 1" });
            }
        }
        self.input().check()?;
        product("pooling plane", &[self.h, self.w])?;
        if self.h * self.w > i32::MAX as usize {
            return Err(Error::Shape { what: "h·w", value: self.h * self.w, why: "exceeds 2³¹ − 1 pixels" });
        }
        // Padding narrower than the window leaves each window at least a pixel of the image.
        for (name, first, last, len, k) in [
            (["kh", "pad_top", "pad_bottom"], self.pad_top, self.pad_bottom, self.h, self.kh),
            (["kw", "pad_left", "pad_right"], self.pad_left, self.pad_right, self.w, self.kw),
        ] {
            if first >= k {
                return Err(Error::Shape { what: name[1], value: first, why: "is not smaller than the window" });
            }
            if last >= k {
                return Err(Error::Shape { what: name[2], value: last, why: "is not smaller than the window" });
            }
            let Some(padded) = len.checked_add(first).and_then(|x| x.checked_add(last)) else {
                return Err(Error::Overflow { what: name[0], detail: format!("{len} + {first} + {last}") });
            };
            if k > padded {
                return Err(Error::Shape { what: name[0], value: k, why: "exceeds the padded image" });
            }
        }
        self.output().check()
    }

    /// The input tensor.
    pub fn input(&self) -> Dims {
        Dims { n: self.n, c: self.c, h: self.h, w: self.w }
    }

    /// The output tensor of a shape that passes [`PoolShape::check`].
    pub fn output(&self) -> Dims {
        Dims {
            n: self.n,
            c: self.c,
            h: (self.h + self.pad_top + self.pad_bottom - self.kh) / self.stride_h + 1,
            w: (self.w + self.pad_left + self.pad_right - self.kw) / self.stride_w + 1,
        }
    }

    /// The input rows that output row `r` covers.
    pub(crate) fn rows(&self, r: usize) -> Range<usize> {
        inside(r, self.kh, self.stride_h, self.pad_top, self.h)
    }

    /// The input columns that output column `c` covers.
    pub(crate) fn columns(&self, c: usize) -> Range<usize> {
        inside(c, self.kw, self.stride_w, self.pad_left, self.w)
    }
}

#[cfg(test)]
mod tests;
