//! Border conversions between NCHW or NHWC and the blocked layout nChw16c.
//!
//! They move bits and compute nothing: NaN payloads and signs of zero survive.

// Rows of a transposition are clearer as numbers.
#![allow(clippy::needless_range_loop)]

use crate::error::check_len;
pub use crate::shape::{Dims, LANES, blocks};
use crate::task::{pixels, pixels_mut, plane_len, units};
use crate::{Error, Isa, Kernel, Simd};
use rayon::prelude::*;

/// Checks a conversion's lengths; says whether there is anything to convert.
fn check(d: &Dims, plain: usize, blocked: usize) -> Result<bool, Error> {
    d.check()?;
    check_len("plain tensor", plain, d.plain_len())?;
    check_len("blocked tensor", blocked, d.blocked_len())?;
    Ok(blocked > 0)
}

/// The image, the first channel and how many of them a plane of blocked data holds.
fn channels(d: &Dims, plane: usize) -> (usize, usize, usize) {
    let (image, first) = (plane / blocks(d.c), plane % blocks(d.c) * LANES);
    (image, first, LANES.min(d.c - first))
}

/// `n` ≤ 16 neighbours of each of `lanes` ≤ 16 planes, `plane` apart, to `n` pixels of 16 lanes; zeros in the lanes
/// beyond.
///
/// # Safety
/// `from` must be valid for reading them, `to` for writing `16·n` elements.
#[inline(always)]
pub(crate) unsafe fn planes_to_pixels<S: Simd>(
    s: S,
    from: *const f32,
    plane: usize,
    lanes: usize,
    to: *mut f32,
    n: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if lanes == LANES && n == LANES {
            s.transpose_between(from, plane, to, LANES);
        } else {
            let mut rows = [s.zero(); LANES];
            for i in 0..LANES {
                rows[i] = if i < lanes { s.load_first(from.add(i * plane), n) } else { s.zero() };
            }
            s.transpose(&mut rows);
            for i in 0..LANES {
                if i < n {
                    s.store(to.add(i * LANES), rows[i]);
                }
            }
        }
    }
}

/// The reverse of [`planes_to_pixels`]; lanes beyond `lanes` are dropped.
///
/// # Safety
/// `from` must be valid for reading `16·n` elements, `to` for writing `n` neighbours of each plane.
#[inline(always)]
pub(crate) unsafe fn pixels_to_planes<S: Simd>(
    s: S,
    from: *const f32,
    n: usize,
    to: *mut f32,
    plane: usize,
    lanes: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if lanes == LANES && n == LANES {
            s.transpose_between(from, LANES, to, plane);
        } else {
            let mut rows = [s.zero(); LANES];
            for i in 0..LANES {
                rows[i] = if i < n { s.load(from.add(i * LANES)) } else { s.zero() };
            }
            s.transpose(&mut rows);
            for i in 0..LANES {
                if i < lanes {
                    s.store_first(to.add(i * plane), rows[i], n);
                }
            }
        }
    }
}

/// Planes of up to 16 channels to pixels of 16 lanes.
struct Block<'a> {
    planes: &'a [f32],
    pixels: &'a mut [[f32; LANES]],
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let plane = self.pixels.len();
        let lanes = self.planes.len() / plane.max(1);
        for (i, pixels) in self.pixels.chunks_mut(LANES).enumerate() {
            let from = self.planes[i * LANES..].as_ptr();
            // SAFETY: as many planes as lanes, each with as many pixels from here on.
            unsafe { planes_to_pixels(s, from, plane, lanes, pixels.as_mut_ptr().cast(), pixels.len()) };
        }
    }
}

/// The reverse.
struct Unblock<'a> {
    pixels: &'a [[f32; LANES]],
    planes: &'a mut [f32],
}

impl Kernel for Unblock<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let plane = self.pixels.len();
        let lanes = self.planes.len() / plane.max(1);
        for (i, pixels) in self.pixels.chunks(LANES).enumerate() {
            let to = self.planes[i * LANES..].as_mut_ptr();
            // SAFETY: as many planes as lanes, each with as many pixels from here on.
            unsafe { pixels_to_planes(s, pixels.as_ptr().cast(), pixels.len(), to, plane, lanes) };
        }
    }
}

/// NCHW to blocked; the padding lanes become zero.
///
/// # Errors
/// A length that does not fit `d`.
pub fn nchw_to_blocked(isa: Isa, d: Dims, src: &[f32], dst: &mut [f32]) -> Result<(), Error> {
    if !check(&d, src.len(), dst.len())? {
        return Ok(());
    }
    let (len, per) = (plane_len(&d), units(plane_len(&d)));
    dst.par_chunks_mut(len).with_min_len(per).enumerate().for_each(|(plane, dst)| {
        let (image, first, count) = channels(&d, plane);
        let planes = &src[(image * d.c + first) * d.plane()..][..count * d.plane()];
        isa.dispatch(Block { planes, pixels: pixels_mut(dst) });
    });
    Ok(())
}

/// Blocked to NCHW.
///
/// # Errors
/// A length that does not fit `d`.
pub fn blocked_to_nchw(isa: Isa, d: Dims, src: &[f32], dst: &mut [f32]) -> Result<(), Error> {
    if !check(&d, dst.len(), src.len())? {
        return Ok(());
    }
    let (image_len, len) = (blocks(d.c) * plane_len(&d), plane_len(&d));
    let images = src.par_chunks_exact(image_len).zip(dst.par_chunks_exact_mut(d.c * d.plane()));
    images.for_each(|(src, dst)| {
        let blocks = src.par_chunks_exact(len).zip(dst.par_chunks_mut(LANES * d.plane()));
        blocks.with_min_len(units(len)).for_each(|(src, planes)| {
            isa.dispatch(Unblock { pixels: pixels(src), planes });
        });
    });
    Ok(())
}

/// NHWC to blocked; the padding lanes become zero.
///
/// # Errors
/// A length that does not fit `d`.
pub fn nhwc_to_blocked(_isa: Isa, d: Dims, src: &[f32], dst: &mut [f32]) -> Result<(), Error> {
    if !check(&d, src.len(), dst.len())? {
        return Ok(());
    }
    let (len, per) = (plane_len(&d), units(plane_len(&d)));
    dst.par_chunks_mut(len).with_min_len(per).enumerate().for_each(|(plane, dst)| {
        let (image, first, count) = channels(&d, plane);
        let src = src[image * d.plane() * d.c..].chunks_exact(d.c);
        for (pixel, src) in pixels_mut(dst).iter_mut().zip(src) {
            pixel[..count].copy_from_slice(&src[first..first + count]);
            pixel[count..].fill(0.0);
        }
    });
    Ok(())
}

/// Blocked to NHWC.
///
/// # Errors
/// A length that does not fit `d`.
pub fn blocked_to_nhwc(_isa: Isa, d: Dims, src: &[f32], dst: &mut [f32]) -> Result<(), Error> {
    if !check(&d, dst.len(), src.len())? {
        return Ok(());
    }
    dst.par_chunks_mut(d.c).with_min_len(units(d.c)).enumerate().for_each(|(at, dst)| {
        let (image, p) = (at / d.plane(), at % d.plane());
        for (block, to) in dst.chunks_mut(LANES).enumerate() {
            let from = ((image * blocks(d.c) + block) * d.plane() + p) * LANES;
            to.copy_from_slice(&src[from..from + to.len()]);
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_put_each_number_where_it_belongs() {
        for (n, c, h, w) in [(2, 3, 2, 3), (1, 16, 4, 4), (3, 17, 5, 7), (2, 40, 1, 1), (1, 1, 1, 5), (1, 33, 0, 4)] {
            let d = Dims { n, c, h, w };
            let value = |i: usize, c: usize, p: usize| (i * 10_000 + c * 100 + p) as f32 + 1.0;
            let (mut nchw, mut nhwc) = (vec![0.0; d.plain_len()], vec![0.0; d.plain_len()]);
            let mut want = vec![0.0; d.blocked_len()];
            for i in 0..n {
                for k in 0..c {
                    for p in 0..d.plane() {
                        nchw[(i * c + k) * d.plane() + p] = value(i, k, p);
                        nhwc[(i * d.plane() + p) * c + k] = value(i, k, p);
                        want[((i * blocks(c) + k / LANES) * d.plane() + p) * LANES + k % LANES] = value(i, k, p);
                    }
                }
            }
            for isa in Isa::available() {
                let mut y = vec![f32::NAN; want.len()];
                nchw_to_blocked(isa, d, &nchw, &mut y).unwrap();
                assert_eq!(y, want, "{d:?}");
                y.fill(f32::NAN);
                nhwc_to_blocked(isa, d, &nhwc, &mut y).unwrap();
                assert_eq!(y, want, "{d:?}");
                let mut x = vec![f32::NAN; nchw.len()];
                blocked_to_nchw(isa, d, &want, &mut x).unwrap();
                assert_eq!(x, nchw, "{d:?}");
                x.fill(f32::NAN);
                blocked_to_nhwc(isa, d, &want, &mut x).unwrap();
                assert_eq!(x, nhwc, "{d:?}");
            }
        }
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let d = Dims { n: 1, c: 3, h: 2, w: 2 };
        let e = nchw_to_blocked(Isa::Portable, d, &[0.0; 11], &mut [0.0; 64]);
        assert_eq!(e, Err(Error::Length { what: "plain tensor", got: 11, want: 12 }));
        let e = blocked_to_nhwc(Isa::Portable, d, &[0.0; 12], &mut [0.0; 12]);
        assert_eq!(e, Err(Error::Length { what: "blocked tensor", got: 12, want: 64 }));
        let huge = Dims { n: usize::MAX, c: 3, h: 2, w: 2 };
        assert!(matches!(blocked_to_nchw(Isa::Portable, huge, &[], &mut []), Err(Error::Overflow { .. })));
        // Without elements, too.
        let huge = Dims { n: 0, c: 3, h: usize::MAX, w: 2 };
        assert!(matches!(blocked_to_nchw(Isa::Portable, huge, &[], &mut []), Err(Error::Overflow { .. })));
        assert!(blocked_to_nchw(Isa::Portable, Dims { h: 3, ..huge }, &[], &mut []).is_ok());
    }
}
