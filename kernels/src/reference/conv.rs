//! Convolution, forward and backward, one fused multiply-add at a time.
//!
//! Order of the sums. A *segment* is up to 16 channels of one block (of the group's own channels) at one kernel tap;
//! segments run block by block, within a block by `kh`, then `kw`. A *chunk* is 32 segments (512 products where
//! blocks are full). Each chunk is one chain of FMAs from zero; the chunks' sums are added in order. Padding reads
//! zeros that are multiplied like any other input.

use crate::Error;
use crate::error::check_len;
use crate::shape::{ConvShape, LANES};
use num_traits::Float;

/// Segments in a chunk, a constant of the format.
pub const CHUNK: usize = 32;

/// Chains of FMAs, cut into chunks whose sums are added in order.
struct Chain<T> {
    total: Option<T>,
    chain: T,
    units: usize,
    limit: usize,
}

impl<T: Float> Chain<T> {
    fn new(limit: usize) -> Self {
        Chain { total: None, chain: T::zero(), units: 0, limit }
    }
    /// Ends a segment (or a row): every `limit` of them a chunk is done.
    fn end_unit(&mut self) {
        self.units += 1;
        if self.units == self.limit {
            self.flush();
        }
    }
    fn flush(&mut self) {
        if self.units > 0 {
            self.total = Some(self.total.map_or(self.chain, |t| t + self.chain));
            (self.chain, self.units) = (T::zero(), 0);
        }
    }
    fn finish(mut self) -> T {
        self.flush();
        self.total.unwrap_or(T::zero())
    }
}

/// `y = conv(x, w)` without bias. `x` NCHW, `w` OIHW, result NCHW.
///
/// # Errors
/// A shape or length that does not fit.
pub fn forward<T: Float>(s: &ConvShape, x: &[T], w: &[T]) -> Result<Vec<T>, Error> {
    s.check()?;
    forward_padded(s, x, w, &vec![T::zero(); s.ic])
}

/// As [`forward`], but outside the image channel `c` reads `pads[c]`.
///
/// # Errors
/// A shape or length that does not fit.
pub fn forward_padded<T: Float>(s: &ConvShape, x: &[T], w: &[T], pads: &[T]) -> Result<Vec<T>, Error> {
    s.check()?;
    check_len("pads", pads.len(), s.ic)?;
    check_len("x", x.len(), s.input().plain_len())?;
    check_len("w", w.len(), s.weight_len())?;
    let (icg, ocg, oh, ow) = (s.group_ic(), s.group_oc(), s.oh(), s.ow());
    let mut y = Vec::with_capacity(s.output().plain_len());
    for n in 0..s.n {
        for oc in 0..s.oc {
            for r in 0..oh {
                for c in 0..ow {
                    let mut sum = Chain::new(CHUNK);
                    for block in (0..icg).step_by(LANES) {
                        for kh in 0..s.kh {
                            for kw in 0..s.kw {
                                let ih = (r * s.stride_h + kh * s.dilation_h).wrapping_sub(s.pad_top);
                                let iw = (c * s.stride_w + kw * s.dilation_w).wrapping_sub(s.pad_left);
                                for i in block..icg.min(block + LANES) {
                                    let ic = oc / ocg * icg + i;
                                    let v = if ih < s.ih && iw < s.iw {
                                        x[((n * s.ic + ic) * s.ih + ih) * s.iw + iw]
                                    } else {
                                        pads[ic]
                                    };
                                    sum.chain = v.mul_add(w[((oc * icg + i) * s.kh + kh) * s.kw + kw], sum.chain);
                                }
                                sum.end_unit();
                            }
                        }
                    }
                    y.push(sum.finish());
                }
            }
        }
    }
    Ok(y)
}

/// `dx`, the gradient with respect to the input: the forward sum of `dy` with the rotated weights.
///
/// For the input pixel `(ih, iw)` the taps are those `kh` for which `ih + pad_top − kh·dilation_h` is a multiple of the
/// stride; segments run over blocks of the group's output channels, then those `kh` from the last to the first, then
/// `kw` likewise; `dy` outside its image reads zero.
///
/// # Errors
/// A shape or length that does not fit.
pub fn backward_data<T: Float>(s: &ConvShape, dy: &[T], w: &[T]) -> Result<Vec<T>, Error> {
    s.check()?;
    check_len("dy", dy.len(), s.output().plain_len())?;
    check_len("w", w.len(), s.weight_len())?;
    let (icg, ocg, oh, ow) = (s.group_ic(), s.group_oc(), s.oh(), s.ow());
    let taps = |at: usize, k: usize, dilation: usize, stride: usize| {
        let stride = stride.min(isize::MAX as usize);
        (0..k).rev().filter_map(move |t| {
            let i = at as isize - (t * dilation) as isize;
            (i.rem_euclid(stride as isize) == 0).then_some((t, i.div_euclid(stride as isize)))
        })
    };
    let mut dx = Vec::with_capacity(s.input().plain_len());
    for n in 0..s.n {
        for ic in 0..s.ic {
            let g = ic / icg;
            for r in 0..s.ih {
                for c in 0..s.iw {
                    let mut sum = Chain::new(CHUNK);
                    for block in (0..ocg).step_by(LANES) {
                        for (kh, i) in taps(r + s.pad_top, s.kh, s.dilation_h, s.stride_h) {
                            for (kw, j) in taps(c + s.pad_left, s.kw, s.dilation_w, s.stride_w) {
                                for o in block..ocg.min(block + LANES) {
                                    let oc = g * ocg + o;
                                    let inside = i >= 0 && j >= 0 && (i as usize) < oh && (j as usize) < ow;
                                    let v = if inside {
                                        dy[((n * s.oc + oc) * oh + i as usize) * ow + j as usize]
                                    } else {
                                        T::zero()
                                    };
                                    let k = ((oc * icg + ic % icg) * s.kh + kh) * s.kw + kw;
                                    sum.chain = v.mul_add(w[k], sum.chain);
                                }
                                sum.end_unit();
                            }
                        }
                    }
                    dx.push(sum.finish());
                }
            }
        }
    }
    Ok(dx)
}

/// Pixels that a chunk of the weight gradient holds at most (one row of the output may exceed it), a constant of the
/// format.
pub const PIXELS: usize = 128;

/// How the weight gradient's sums are cut: images and output rows in a chunk.
///
/// A chunk is as many whole rows of one image as hold at most [`PIXELS`] pixels, at least one; where the images of a
/// whole group hold no more than that, it is the group.
pub fn weight_chunk(oh: usize, ow: usize) -> (usize, usize) {
    if GROUP * oh * ow <= PIXELS { (GROUP, oh) } else { (1, (PIXELS / ow).clamp(1, oh)) }
}

/// Images in a group of the weight gradient, a constant of the format.
pub const GROUP: usize = 8;

/// Adds the elements as a balanced binary tree over their indices: equal-sized neighbours are added as soon as both
/// are whole, what is left over from the last to the first.
pub fn tree_sum<T: Copy>(items: impl IntoIterator<Item = T>, add: impl Fn(T, T) -> T) -> Option<T> {
    let mut stack: Vec<(usize, T)> = Vec::new();
    for item in items {
        let mut top = (1, item);
        while let Some(&(size, left)) = stack.last().filter(|&&(size, _)| size == top.0) {
            stack.pop();
            top = (2 * size, add(left, top.1));
        }
        stack.push(top);
    }
    let mut rest = stack.into_iter().rev().map(|(_, x)| x);
    let last = rest.next()?;
    Some(rest.fold(last, |right, left| add(left, right)))
}

/// `dw`, the gradient with respect to the weights, OIHW.
///
/// For each weight: chains of FMAs over the output pixels, image by image and row by row, cut into chunks
/// ([`weight_chunk`]); the chunks' sums are added in order within a group of [`GROUP`] images; the groups' sums are
/// combined by [`tree_sum`]. Padding reads zeros that are multiplied like any other input.
///
/// # Errors
/// A shape or length that does not fit.
pub fn backward_weights<T: Float>(s: &ConvShape, x: &[T], dy: &[T]) -> Result<Vec<T>, Error> {
    s.check()?;
    check_len("x", x.len(), s.input().plain_len())?;
    check_len("dy", dy.len(), s.output().plain_len())?;
    let (icg, ocg, oh, ow) = (s.group_ic(), s.group_oc(), s.oh(), s.ow());
    let (images, rows) = weight_chunk(oh, ow);
    let mut dw = Vec::with_capacity(s.weight_len());
    for oc in 0..s.oc {
        for i in 0..icg {
            let ic = oc / ocg * icg + i;
            for kh in 0..s.kh {
                for kw in 0..s.kw {
                    let group = |first: usize| {
                        let mut sum = Chain::new(usize::MAX);
                        for n in first..s.n.min(first + GROUP) {
                            for r in 0..oh {
                                let ih = (r * s.stride_h + kh * s.dilation_h).wrapping_sub(s.pad_top);
                                for c in 0..ow {
                                    let iw = (c * s.stride_w + kw * s.dilation_w).wrapping_sub(s.pad_left);
                                    let inside = ih < s.ih && iw < s.iw;
                                    let a =
                                        if inside { x[((n * s.ic + ic) * s.ih + ih) * s.iw + iw] } else { T::zero() };
                                    sum.chain = a.mul_add(dy[((n * s.oc + oc) * oh + r) * ow + c], sum.chain);
                                }
                                sum.units += 1;
                                if images == 1 && ((r + 1) % rows == 0 || r + 1 == oh) {
                                    sum.flush();
                                }
                            }
                        }
                        sum.finish()
                    };
                    let sums = (0..s.n).step_by(GROUP).map(group);
                    dw.push(tree_sum(sums, |a, b| a + b).unwrap_or(T::zero()));
                }
            }
        }
    }
    Ok(dw)
}
