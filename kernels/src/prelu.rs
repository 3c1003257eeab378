//! PReLU (He et al. 2015): `f(y) = y` where `y > 0`, else `a·y` (Eq. 1), forward and backward, over blocked tensors.
//!
//! The slopes `a` are one per channel (channel-wise), or one for all channels (channel-shared). A slope of 0 is ReLU, a
//! fixed slope a leaky ReLU: backward without a slope gradient.
//!
//! Special values. The choice is `y > 0`, so zeros and NaN take the branch `a·y`: NaN goes through as NaN; −0.0 gives
//! −0.0 for a positive slope and for +0.0, and +0.0 for a negative one; with `a = 0` a negative number gives −0.0 and
//! −∞ gives NaN (0·∞).
//!
//! Order of the sums in [`backward`] and [`bias_gradient`]. Within an image each channel has four accumulators that
//! start from zero; pixel `p` (row by row) goes to accumulator `p mod 4`, and they are combined as (0+1)+(2+3).
//! Images are added in order, from zero, within groups of [`GROUP`]; the groups' sums are combined by
//! [`tree_sum`](crate::reference::conv::tree_sum), and so are the channels' sums where the slope is shared.

use crate::error::{check_at_least, check_len};
use crate::reference::conv::GROUP;
use crate::sum::{Lanes, add, tree};
use crate::task::{pixels, pixels_mut, plane_len, units};
use crate::{Dims, Error, Isa, Kernel, LANES, Simd, blocks};
use rayon::prelude::*;

#[doc(inline)]
pub use crate::reference::prelu::ACCUMULATORS;

/// Sums that backward keeps of each channel and image: of the slopes and of the biases.
const SUMS: usize = 2;

fn check_slopes(d: &Dims, slopes: &[f32]) -> Result<(), Error> {
    if slopes.len() == 1 { Ok(()) } else { check_len("slopes", slopes.len(), d.c) }
}

/// The slopes of the block that a plane holds; zero in the padding lanes, which therefore stay zero.
#[inline(always)]
fn slopes_of(d: &Dims, slopes: &[f32], plane: usize) -> Lanes {
    let first = plane % blocks(d.c) * LANES;
    if let Some(&whole) = slopes.get(first..).and_then(<[f32]>::first_chunk) {
        return whole;
    }
    std::array::from_fn(|i| match first + i {
        c if c >= d.c => 0.0,
        c => slopes[if slopes.len() == 1 { 0 } else { c }],
    })
}

/// `y` where `y > 0`, else `a·y`.
#[inline(always)]
fn prelu<S: Simd>(s: S, a: S::V, y: S::V) -> S::V {
    s.select(s.gt(y, s.zero()), y, s.mul(a, y))
}

struct Forward<'a> {
    dims: &'a Dims,
    slopes: &'a [f32],
    first: usize,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let len = plane_len(self.dims);
        for (i, (x, y)) in self.x.chunks(len).zip(self.y.chunks_mut(len)).enumerate() {
            let a = s.vector(&slopes_of(self.dims, self.slopes, self.first + i));
            for (x, y) in pixels(x).iter().zip(pixels_mut(y)) {
                s.write(y, prelu(s, a, s.vector(x)));
            }
        }
    }
}

struct ForwardInPlace<'a> {
    dims: &'a Dims,
    slopes: &'a [f32],
    first: usize,
    x: &'a mut [f32],
}

impl Kernel for ForwardInPlace<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (i, x) in self.x.chunks_mut(plane_len(self.dims)).enumerate() {
            let a = s.vector(&slopes_of(self.dims, self.slopes, self.first + i));
            for x in pixels_mut(x) {
                s.write(x, prelu(s, a, s.vector(x)));
            }
        }
    }
}

/// `y = f(x)` with one slope per channel, or one for all; blocked in and out.
///
/// # Errors
/// A length that does not fit `dims`.
pub fn forward(isa: Isa, dims: Dims, x: &[f32], slopes: &[f32], y: &mut [f32]) -> Result<(), Error> {
    dims.check()?;
    check_slopes(&dims, slopes)?;
    check_len("x", x.len(), dims.blocked_len())?;
    check_len("y", y.len(), dims.blocked_len())?;
    if y.is_empty() {
        return Ok(());
    }
    let per = units(plane_len(&dims));
    let len = per * plane_len(&dims);
    x.par_chunks(len).zip(y.par_chunks_mut(len)).enumerate().for_each(|(task, (x, y))| {
        isa.dispatch(Forward { dims: &dims, slopes, first: task * per, x, y });
    });
    Ok(())
}

/// `x = f(x)` with one slope per channel, or one for all.
///
/// # Errors
/// A length that does not fit `dims`.
pub fn forward_in_place(isa: Isa, dims: Dims, x: &mut [f32], slopes: &[f32]) -> Result<(), Error> {
    dims.check()?;
    check_slopes(&dims, slopes)?;
    check_len("x", x.len(), dims.blocked_len())?;
    if x.is_empty() {
        return Ok(());
    }
    let per = units(plane_len(&dims));
    x.par_chunks_mut(per * plane_len(&dims)).enumerate().for_each(|(task, x)| {
        isa.dispatch(ForwardInPlace { dims: &dims, slopes, first: task * per, x });
    });
    Ok(())
}

/// Elements of the workspace of [`backward`] and [`bias_gradient`].
///
/// # Panics
/// It may, or wrap round, where [`Dims::check`] refuses the dimensions.
pub fn workspace_len(dims: Dims) -> usize {
    dims.n * blocks(dims.c) * SUMS * LANES
}

/// Combines the accumulators.
#[inline(always)]
fn combine<S: Simd>(s: S, [a, b, c, d]: [S::V; ACCUMULATORS]) -> S::V {
    s.add(s.add(a, b), s.add(c, d))
}

struct Backward<'a> {
    dims: &'a Dims,
    slopes: &'a [f32],
    first: usize,
    pre: &'a [f32],
    grad: &'a mut [f32],
    sums: &'a mut [f32],
}

/// One pixel: `dx` in place of `dy`; the sums of `dy·min(0, y)` and of `dx` take it up.
///
/// `dy·1` has the bits of `dy`. Selected from `dy` and `a·dy`, `dx` would become a masked store, which is slow; and by
/// the condition that the sum takes the pixel up, not by its opposite, so that it is one masked FMA.
#[inline(always)]
fn backward_pixel<S: Simd>(s: S, a: S::V, pre: &Lanes, grad: &mut Lanes, slope: &mut S::V, bias: &mut S::V) {
    let (y, dy) = (s.vector(pre), s.vector(grad));
    let scaled = s.not_gt(y, s.zero());
    let dx = s.mul(s.select(scaled, a, s.splat(1.0)), dy);
    *slope = s.select(scaled, s.fma(dy, y, *slope), *slope);
    *bias = s.add(*bias, dx);
    s.write(grad, dx);
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let len = plane_len(self.dims);
        // Whole planes; that they are of one length is told, so that little is done before each.
        let planes = self.pre.chunks_exact(len).zip(self.grad.chunks_exact_mut(len));
        let planes = planes.zip(self.sums.as_chunks_mut::<{ SUMS * LANES }>().0);
        for (i, ((pre, grad), sums)) in planes.enumerate() {
            let a = s.vector(&slopes_of(self.dims, self.slopes, self.first + i));
            let (mut slope, mut bias) = ([s.zero(); ACCUMULATORS], [s.zero(); ACCUMULATORS]);
            let (pre, pre_rest) = pixels(pre).as_chunks::<ACCUMULATORS>();
            let (grad, grad_rest) = pixels_mut(grad).as_chunks_mut::<ACCUMULATORS>();
            for (pre, grad) in pre.iter().zip(grad) {
                for k in 0..ACCUMULATORS {
                    backward_pixel(s, a, &pre[k], &mut grad[k], &mut slope[k], &mut bias[k]);
                }
            }
            for (k, (pre, grad)) in pre_rest.iter().zip(grad_rest).enumerate() {
                backward_pixel(s, a, pre, grad, &mut slope[k], &mut bias[k]);
            }
            let sums = pixels_mut(sums);
            s.write(&mut sums[0], combine(s, slope));
            s.write(&mut sums[1], combine(s, bias));
        }
    }
}

struct BiasGradient<'a> {
    dims: &'a Dims,
    dy: &'a [f32],
    sums: &'a mut [f32],
}

impl Kernel for BiasGradient<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (dy, sums) in self.dy.chunks(plane_len(self.dims)).zip(self.sums.chunks_mut(SUMS * LANES)) {
            let mut bias = [s.zero(); ACCUMULATORS];
            let (dy, rest) = pixels(dy).as_chunks::<ACCUMULATORS>();
            for dy in dy {
                for k in 0..ACCUMULATORS {
                    bias[k] = s.add(bias[k], s.vector(&dy[k]));
                }
            }
            for (k, dy) in rest.iter().enumerate() {
                bias[k] = s.add(bias[k], s.vector(dy));
            }
            s.write(&mut pixels_mut(sums)[1], combine(s, bias));
        }
    }
}

/// The sums over the images of the channels of a block: `which` 0 for slopes, 1 for biases.
#[inline]
fn over_images(d: &Dims, sums: &[f32], block: usize, which: usize) -> Lanes {
    let sums = pixels(sums);
    let group = |group: usize| {
        let images = group * GROUP..d.n.min((group + 1) * GROUP);
        images.map(|n| sums[(n * blocks(d.c) + block) * SUMS + which]).fold([0.0; LANES], add)
    };
    tree(d.n.div_ceil(GROUP), &group, &add).unwrap_or([0.0; LANES])
}

/// The sums over the images, channel by channel.
fn per_channel(d: &Dims, sums: &[f32], which: usize, to: &mut [f32]) {
    let (whole, rest) = to.as_chunks_mut();
    let blocks = whole.len();
    whole.iter_mut().enumerate().for_each(|(block, to)| *to = over_images(d, sums, block, which));
    if !rest.is_empty() {
        rest.copy_from_slice(&over_images(d, sums, blocks, which)[..rest.len()]);
    }
}

/// `dx`, the slope gradient and the bias gradient in one pass.
///
/// `pre` is the pre-activation `y`. `grad` holds `∂E/∂f` on entry and `∂E/∂y` on return: itself where `y > 0`, else
/// times the slope. `dslopes`, as long as `slopes`, becomes `Σ ∂E/∂f·min(0, y)` over images and pixels (Eq. 2 and 3),
/// over channels too where the slope is shared; terms with `y > 0` are left out, so that an infinite gradient there
/// adds nothing. `dbias`, one per channel, becomes `Σ ∂E/∂y`: the gradient of a bias added before the activation. The
/// workspace has at least [`workspace_len`] elements. See the module for the order of the sums.
///
/// # Errors
/// A length that does not fit `dims`.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    isa: Isa,
    dims: Dims,
    pre: &[f32],
    slopes: &[f32],
    grad: &mut [f32],
    dslopes: Option<&mut [f32]>,
    dbias: Option<&mut [f32]>,
    workspace: &mut [f32],
) -> Result<(), Error> {
    dims.check()?;
    check_slopes(&dims, slopes)?;
    check_len("pre-activation", pre.len(), dims.blocked_len())?;
    check_len("gradient", grad.len(), dims.blocked_len())?;
    check_len("slope gradient", dslopes.as_ref().map_or(slopes.len(), |d| d.len()), slopes.len())?;
    check_len("bias gradient", dbias.as_ref().map_or(dims.c, |d| d.len()), dims.c)?;
    check_at_least("workspace", workspace.len(), workspace_len(dims))?;
    let sums = &mut workspace[..workspace_len(dims)];
    if grad.is_empty() {
        sums.fill(0.0);
    } else {
        let per = units(plane_len(&dims));
        let len = per * plane_len(&dims);
        let tensors = pre.par_chunks(len).zip(grad.par_chunks_mut(len));
        tensors.zip(sums.par_chunks_mut(per * SUMS * LANES)).enumerate().for_each(|(task, ((pre, grad), sums))| {
            isa.dispatch(Backward { dims: &dims, slopes, first: task * per, pre, grad, sums });
        });
    }
    match dslopes {
        Some([shared]) => {
            // Sixteen channels at a time: blocks of the tree.
            let block = |block: usize| {
                let lanes = over_images(&dims, sums, block, 0);
                tree(LANES.min(dims.c - block * LANES), &|lane| lanes[lane], &|a, b| a + b).unwrap_or(0.0)
            };
            *shared = tree(blocks(dims.c), &block, &|a, b| a + b).unwrap_or(0.0);
        }
        Some(each) => per_channel(&dims, sums, 0, each),
        None => {}
    }
    if let Some(dbias) = dbias {
        per_channel(&dims, sums, 1, dbias);
    }
    Ok(())
}

/// The bias gradient of a layer without activation: `Σ dy` over images and pixels, one per channel, in the order that
/// [`backward`] has. The workspace has at least [`workspace_len`] elements.
///
/// # Errors
/// A length that does not fit `dims`.
pub fn bias_gradient(isa: Isa, dims: Dims, dy: &[f32], dbias: &mut [f32], workspace: &mut [f32]) -> Result<(), Error> {
    dims.check()?;
    check_len("dy", dy.len(), dims.blocked_len())?;
    check_len("bias gradient", dbias.len(), dims.c)?;
    check_at_least("workspace", workspace.len(), workspace_len(dims))?;
    let sums = &mut workspace[..workspace_len(dims)];
    if dy.is_empty() {
        sums.fill(0.0);
    } else {
        let per = units(plane_len(&dims));
        let tasks = dy.par_chunks(per * plane_len(&dims)).zip(sums.par_chunks_mut(per * SUMS * LANES));
        tasks.for_each(|(dy, sums)| isa.dispatch(BiasGradient { dims: &dims, dy, sums }));
    }
    per_channel(&dims, sums, 1, dbias);
    Ok(())
}

#[cfg(test)]
mod tests;
