//! Pooling, window by window; see [`crate::pool`].

use crate::Error;
use crate::error::check_len;
use crate::pool::{PoolShape, SppShape};
use num_traits::Float;

/// Calls `f` for each output with its index, its plane's index and the positions in the plane that its window covers.
fn windows(s: &PoolShape, mut f: impl FnMut(usize, usize, &[usize])) {
    let out = s.output();
    for plane in 0..s.n * s.c {
        for r in 0..out.h {
            for c in 0..out.w {
                let mut covered = Vec::new();
                for kh in 0..s.kh {
                    for kw in 0..s.kw {
                        let row = (r * s.stride_h + kh).wrapping_sub(s.pad_top);
                        let column = (c * s.stride_w + kw).wrapping_sub(s.pad_left);
                        if row < s.h && column < s.w {
                            covered.push(row * s.w + column);
                        }
                    }
                }
                f((plane * out.h + r) * out.w + c, plane, &covered);
            }
        }
    }
}

/// The position and value of the first of the largest, of the last NaN if there is one.
fn largest<T: Float>(x: &[T], covered: &[usize]) -> (usize, T) {
    let best = covered.iter().fold(covered[0], |best, &i| if x[i] > x[best] || x[i].is_nan() { i } else { best });
    (best, x[best])
}

/// The maxima and their positions in the planes, both NCHW: the first of equals, the last NaN if there is one.
///
/// # Errors
/// A shape or length that does not fit.
pub fn max_forward<T: Float>(s: &PoolShape, x: &[T]) -> Result<(Vec<T>, Vec<u32>), Error> {
    s.check()?;
    check_len("x", x.len(), s.input().plain_len())?;
    let (mut y, mut index) = (Vec::new(), Vec::new());
    windows(s, |_, plane, covered| {
        let (best, v) = largest(&x[plane * s.h * s.w..], covered);
        y.push(v);
        index.push(best as u32);
    });
    Ok((y, index))
}

/// `dx` from the positions that [`max_forward`] gave.
///
/// # Errors
/// A shape or length that does not fit, a position outside the plane.
pub fn max_backward<T: Float>(s: &PoolShape, index: &[u32], dy: &[T]) -> Result<Vec<T>, Error> {
    s.check()?;
    check_len("dy", dy.len(), s.output().plain_len())?;
    check_len("index", index.len(), dy.len())?;
    let mut dx = vec![T::zero(); s.input().plain_len()];
    for (o, (&i, &g)) in index.iter().zip(dy).enumerate() {
        let i = i as usize;
        if i >= s.h * s.w {
            return Err(Error::Shape { what: "index", value: i, why: "lies outside the plane" });
        }
        let at = o / s.output().plane() * s.h * s.w + i;
        dx[at] = dx[at] + g;
    }
    Ok(dx)
}

fn count<T: Float>(covered: &[usize]) -> T {
    T::from(covered.len()).unwrap_or(T::nan())
}

/// The means of the windows, NCHW.
///
/// # Errors
/// A shape or length that does not fit.
pub fn average_forward<T: Float>(s: &PoolShape, x: &[T]) -> Result<Vec<T>, Error> {
    s.check()?;
    check_len("x", x.len(), s.input().plain_len())?;
    let mut y = Vec::new();
    windows(s, |_, plane, covered| {
        let sum = covered.iter().fold(T::zero(), |sum, i| sum + x[plane * s.h * s.w + i]);
        y.push(sum / count(covered));
    });
    Ok(y)
}

/// `dx` of the means.
///
/// # Errors
/// A shape or length that does not fit.
pub fn average_backward<T: Float>(s: &PoolShape, dy: &[T]) -> Result<Vec<T>, Error> {
    s.check()?;
    check_len("dy", dy.len(), s.output().plain_len())?;
    let mut dx = vec![T::zero(); s.input().plain_len()];
    windows(s, |o, plane, covered| {
        for i in covered {
            let at = plane * s.h * s.w + i;
            dx[at] = dx[at] + dy[o] / count(covered);
        }
    });
    Ok(dx)
}

/// Calls `f` for each output with its plane's index and the positions in the plane that its bin covers, in the order of
/// the flattened output.
fn bins(s: &SppShape, mut f: impl FnMut(usize, &[usize])) {
    for n in 0..s.n {
        for &b in &s.bins {
            for c in 0..s.c {
                for r in 0..b {
                    for col in 0..b {
                        let mut covered = Vec::new();
                        for row in r * s.h / b..((r + 1) * s.h).div_ceil(b) {
                            covered.extend((col * s.w / b..((col + 1) * s.w).div_ceil(b)).map(|c| row * s.w + c));
                        }
                        f(n * s.c + c, &covered);
                    }
                }
            }
        }
    }
}

/// The maxima of the pyramid's bins, `[n][level][c][bin]`, and their positions in the planes; which of equals and NaN
/// is taken is as in [`max_forward`].
///
/// # Errors
/// A shape or length that does not fit.
pub fn spp_forward<T: Float>(s: &SppShape, x: &[T]) -> Result<(Vec<T>, Vec<u32>), Error> {
    s.check()?;
    check_len("x", x.len(), s.input().plain_len())?;
    let (mut y, mut index) = (Vec::new(), Vec::new());
    bins(s, |plane, covered| {
        let (best, v) = largest(&x[plane * s.h * s.w..], covered);
        y.push(v);
        index.push(best as u32);
    });
    Ok((y, index))
}

/// `dx` from the positions that [`spp_forward`] gave.
///
/// # Errors
/// A shape or length that does not fit, a position outside the plane.
pub fn spp_backward<T: Float>(s: &SppShape, index: &[u32], dy: &[T]) -> Result<Vec<T>, Error> {
    s.check()?;
    check_len("dy", dy.len(), s.output().plain_len())?;
    check_len("index", index.len(), dy.len())?;
    let mut dx = vec![T::zero(); s.input().plain_len()];
    let mut outside = None;
    let mut pairs = index.iter().zip(dy);
    bins(s, |plane, _| {
        let Some((&i, &g)) = pairs.next() else { return };
        match dx[plane * s.h * s.w..][..s.h * s.w].get_mut(i as usize) {
            Some(d) => *d = *d + g,
            None => outside = Some(i as usize),
        }
    });
    match outside {
        None => Ok(dx),
        Some(value) => Err(Error::Shape { what: "index", value, why: "lies outside the plane" }),
    }
}
