//! Spatial pyramid pooling: the maxima of a few grids of bins, flattened.

use super::max::{check_index, largest_and_where};
use crate::error::check_len;
use crate::shape::product;
use crate::task::{pixels, pixels_mut, plane_len, units};
use crate::{Dims, Error, Isa, Kernel, LANES, Simd, blocks};
use rayon::prelude::*;
use std::ops::Range;

/// The shape of spatial pyramid pooling (He et al. 2015, Table 3: bins 7, 3, 2 and 1).
///
/// Each level of the pyramid cuts the image into `b × b` bins: bin `i` of an axis of length `len` runs from `⌊i·len/b⌋`
/// to `⌈(i+1)·len/b⌉`, as in PyTorch's `adaptive_max_pool2d`, so that any image serves any pyramid. The output is one
/// pixel whose channels are what a fully connected layer is given: level by level, within a level channel by channel,
/// within a channel the bins row by row, which is `torch.cat([adaptive_max_pool2d(x, b).flatten(1) for b in bins], 1)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SppShape {
    /// Images.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// Input rows.
    pub h: usize,
    /// Input columns.
    pub w: usize,
    /// Bins of an axis, level by level.
    pub bins: Vec<usize>,
}

/// The pixels of bin `i` of `bins` along an axis.
fn bin(i: usize, bins: usize, len: usize) -> Range<usize> {
    i * len / bins..((i + 1) * len).div_ceil(bins)
}

impl SppShape {
    /// Refuses a zero dimension, a pyramid without levels or with a level without bins, planes of 2³¹ pixels and more,
    /// and lengths that no slice can hold.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Overflow`], naming the dimension.
    pub fn check(&self) -> Result<(), Error> {
        let dims = [("n", self.n), ("c", self.c), ("h", self.h), ("w", self.w), ("levels of bins", self.bins.len())];
        for (what, value) in dims.into_iter().chain(self.bins.iter().map(|&b| ("bins", b))) {
            if value == 0 {
                return Err(Error::Shape { what, value, why: "must be at least 1" });
            }
        }
        self.input().check()?;
        product("pooling plane", &[self.h, self.w])?;
        if self.h * self.w > i32::MAX as usize {
            return Err(Error::Shape { what: "h·w", value: self.h * self.w, why: "exceeds 2³¹ − 1 pixels" });
        }
        let mut sum = 0usize;
        for &b in &self.bins {
            product("bins", &[b, b, self.c, self.h, self.w])?;
            sum = sum.saturating_add(b * b);
        }
        product("pyramid", &[self.n, self.c + LANES, sum])?;
        Ok(())
    }

    /// The input tensor.
    pub fn input(&self) -> Dims {
        Dims { n: self.n, c: self.c, h: self.h, w: self.w }
    }

    /// The output tensor of a shape that passes [`SppShape::check`]: one pixel, all bins of all channels.
    pub fn output(&self) -> Dims {
        Dims { n: self.n, c: self.c * self.bins.iter().map(|b| b * b).sum::<usize>(), h: 1, w: 1 }
    }

    /// The rows and columns of a level's bins, row by row.
    pub(crate) fn windows(&self, bins: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + '_ {
        let bin = move |i, len| bin(i, bins, len);
        (0..bins).flat_map(move |r| (0..bins).map(move |c| (bin(r, self.h), bin(c, self.w))))
    }

    /// The levels: their bins and where their outputs begin.
    pub(crate) fn levels(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.bins.iter().scan(0, |start, &b| {
            let first = *start;
            *start += self.c * b * b;
            Some((b, first))
        })
    }
}

/// One level of one block of channels: `y` and `index` hold `[channel][bin]`.
struct Forward<'a> {
    shape: &'a SppShape,
    bins: usize,
    x: &'a [f32],
    y: &'a mut [f32],
    index: Option<&'a mut [u32]>,
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Forward { shape, bins, x, y, mut index } = self;
        let (x, bins2) = (pixels(x), bins * bins);
        for (i, (rows, columns)) in shape.windows(bins).enumerate() {
            let (best, at) = largest_and_where(s, x, shape.w, rows, columns);
            for (y, v) in y.iter_mut().skip(i).step_by(bins2).zip(s.to_array(best)) {
                *y = v;
            }
            if let Some(index) = &mut index {
                for (index, v) in index.iter_mut().skip(i).step_by(bins2).zip(s.to_array(at)) {
                    *index = v.to_bits();
                }
            }
        }
    }
}

/// The largest pixel of each bin; `x` blocked, `y` blocked like [`SppShape::output`].
///
/// Which pixel is taken is the rule of [`max_forward`](super::max_forward). `index`, as long as `y`, becomes its
/// position, `row·w + column` in its plane, for [`spp_backward`].
///
/// # Errors
/// A shape that [`SppShape::check`] refuses, a length that does not fit it.
pub fn spp_forward(
    isa: Isa,
    shape: &SppShape,
    x: &[f32],
    y: &mut [f32],
    index: Option<&mut [u32]>,
) -> Result<(), Error> {
    shape.check()?;
    let (input, output) = (shape.input(), shape.output());
    check_len("x", x.len(), input.blocked_len())?;
    check_len("y", y.len(), output.blocked_len())?;
    check_len("index", index.as_ref().map_or(y.len(), |i| i.len()), y.len())?;
    let (plane, of_image) = (plane_len(&input), output.blocked_len() / shape.n);
    let images = x.par_chunks(blocks(shape.c) * plane).zip(y.par_chunks_mut(of_image));
    match index {
        None => images.for_each(|(x, y)| forward_image(isa, shape, x, y, None)),
        Some(index) => images.zip(index.par_chunks_mut(of_image)).for_each(|((x, y), index)| {
            forward_image(isa, shape, x, y, Some(index));
        }),
    }
    Ok(())
}

/// One image, level by level.
fn forward_image(isa: Isa, shape: &SppShape, x: &[f32], y: &mut [f32], mut index: Option<&mut [u32]>) {
    let (plane, channels) = (plane_len(&shape.input()), shape.output().c);
    y[channels..].fill(0.0);
    if let Some(index) = &mut index {
        index[channels..].fill(0);
    }
    for (bins, first) in shape.levels() {
        let (level, block) = (first..first + shape.c * bins * bins, LANES * bins * bins);
        let tasks = x.par_chunks(plane).zip(y[level.clone()].par_chunks_mut(block)).with_min_len(units(plane));
        match &mut index {
            None => tasks.for_each(|(x, y)| isa.dispatch(Forward { shape, bins, x, y, index: None })),
            Some(index) => tasks.zip(index[level].par_chunks_mut(block)).for_each(|((x, y), index)| {
                isa.dispatch(Forward { shape, bins, x, y, index: Some(index) });
            }),
        }
    }
}

/// `dx`, overwritten: each `dy` is added to the pixel that its bin's maximum came from, level by level and bin by bin.
///
/// `index` is what [`spp_forward`] stored.
///
/// # Errors
/// A shape that [`SppShape::check`] refuses, a length that does not fit it, an index outside the plane.
pub fn spp_backward(_isa: Isa, shape: &SppShape, index: &[u32], dy: &[f32], dx: &mut [f32]) -> Result<(), Error> {
    shape.check()?;
    let (input, output) = (shape.input(), shape.output());
    check_len("dy", dy.len(), output.blocked_len())?;
    check_len("index", index.len(), output.blocked_len())?;
    check_len("dx", dx.len(), input.blocked_len())?;
    let (len, of_image) = (plane_len(&input), output.blocked_len() / shape.n);
    dx.par_chunks_mut(len).with_min_len(units(len)).enumerate().try_for_each(|(plane, dx)| {
        dx.fill(0.0);
        let (image, channel) = (plane / blocks(shape.c), plane % blocks(shape.c) * LANES);
        let dx = pixels_mut(dx);
        for (bins, first) in shape.levels() {
            for lane in 0..LANES.min(shape.c - channel) {
                let start = image * of_image + first + (channel + lane) * bins * bins;
                let range = start..start + bins * bins;
                for (&dy, &index) in dy[range.clone()].iter().zip(&index[range]) {
                    check_index(dx, index)?[lane] += dy;
                }
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests;
