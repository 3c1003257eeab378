//! The textbook lowering of convolution to a matrix product, over plain NCHW tensors: `im2col` and its transpose.
//!
//! Columns are `[n][ic·kh·kw][oh·ow]`, so that for one group an image's output is `weights[oc][ic·kh·kw] × columns`;
//! with groups the rows of a group lie together.

use crate::error::check_len;
use crate::shape::product;
use crate::{ConvShape, Error};
use num_traits::Float;
use rayon::prelude::*;

/// Elements of the columns of a batch.
///
/// # Errors
/// A shape that [`ConvShape::check`] refuses, columns that no slice can hold.
pub fn columns_len(s: &ConvShape) -> Result<usize, Error> {
    s.check()?;
    product("column length", &[s.n, s.ic, s.kh, s.kw, s.oh(), s.ow()])
}

/// The input pixel that a kernel tap reads for an output pixel along one axis; nothing outside the image.
fn source(out: usize, stride: usize, tap: usize, dilation: usize, pad: usize, len: usize) -> Option<usize> {
    (out * stride + tap * dilation).checked_sub(pad).filter(|&i| i < len)
}

/// Copies the pixels under each kernel tap into rows of `columns`; padding gives zero. `x` is NCHW.
///
/// # Errors
/// A shape or length that does not fit.
pub fn im2col<T: Float + Send + Sync>(s: &ConvShape, x: &[T], columns: &mut [T]) -> Result<(), Error> {
    let len = columns_len(s)?;
    check_len("x", x.len(), s.input().plain_len())?;
    check_len("columns", columns.len(), len)?;
    let (taps, outputs) = (s.kh * s.kw, s.oh() * s.ow());
    let channels = columns.par_chunks_mut(taps * outputs).zip(x.par_chunks(s.ih * s.iw));
    channels.for_each(|(columns, x)| {
        for (tap, row) in columns.chunks_mut(outputs).enumerate() {
            for (oh, row) in row.chunks_mut(s.ow()).enumerate() {
                let line = source(oh, s.stride_h, tap / s.kw, s.dilation_h, s.pad_top, s.ih);
                for (ow, to) in row.iter_mut().enumerate() {
                    let column = source(ow, s.stride_w, tap % s.kw, s.dilation_w, s.pad_left, s.iw);
                    *to = line.zip(column).map_or(T::zero(), |(i, j)| x[i * s.iw + j]);
                }
            }
        }
    });
    Ok(())
}

/// The transpose of [`im2col`]: `x`, overwritten, becomes for each pixel the sum of all column elements that were
/// copied from it, added from zero in the order of the columns (kernel row, kernel column, output row, output column).
///
/// # Errors
/// A shape or length that does not fit.
pub fn col2im<T: Float + Send + Sync>(s: &ConvShape, columns: &[T], x: &mut [T]) -> Result<(), Error> {
    let len = columns_len(s)?;
    check_len("x", x.len(), s.input().plain_len())?;
    check_len("columns", columns.len(), len)?;
    let (taps, outputs) = (s.kh * s.kw, s.oh() * s.ow());
    let channels = columns.par_chunks(taps * outputs).zip(x.par_chunks_mut(s.ih * s.iw));
    channels.for_each(|(columns, x)| {
        x.fill(T::zero());
        for (tap, row) in columns.chunks(outputs).enumerate() {
            for (oh, row) in row.chunks(s.ow()).enumerate() {
                let Some(i) = source(oh, s.stride_h, tap / s.kw, s.dilation_h, s.pad_top, s.ih) else { continue };
                for (ow, &from) in row.iter().enumerate() {
                    if let Some(j) = source(ow, s.stride_w, tap % s.kw, s.dilation_w, s.pad_left, s.iw) {
                        x[i * s.iw + j] = x[i * s.iw + j] + from;
                    }
                }
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;
    use crate::testing::{conv_shape, numbers};
    use proptest::prelude::*;

    fn wide(seed: u64, len: usize) -> Vec<f64> {
        numbers(seed, len, false).into_iter().map(f64::from).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn columns_times_weights_are_the_convolution(s in conv_shape(), seed: u64) {
            let (x, w) = (wide(seed, s.input().plain_len()), wide(!seed, s.weight_len()));
            let mut columns = vec![f64::NAN; columns_len(&s).unwrap()];
            im2col(&s, &x, &mut columns).unwrap();
            let want = reference::conv::forward(&s, &x, &w).unwrap();
            let (depth, outputs) = (s.group_ic() * s.kh * s.kw, s.oh() * s.ow());
            for (at, want) in want.iter().enumerate() {
                let (n, oc, o) = (at / outputs / s.oc, at / outputs % s.oc, at % outputs);
                let row = (n * s.groups + oc / s.group_oc()) * depth;
                let got: f64 = (0..depth).map(|k| w[oc * depth + k] * columns[(row + k) * outputs + o]).sum();
                prop_assert!((got - want).abs() < 1e-10);
            }
            // <im2col(x), c> = <x, col2im(c)>.
            let c = wide(seed ^ 5, columns.len());
            let mut back = vec![f64::NAN; x.len()];
            col2im(&s, &c, &mut back).unwrap();
            let left: f64 = columns.iter().zip(&c).map(|(a, b)| a * b).sum();
            let right: f64 = x.iter().zip(&back).map(|(a, b)| a * b).sum();
            prop_assert!((left - right).abs() < 1e-8, "{} {}", left, right);
        }
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let s = ConvShape::square(1, 1, 3, 1, 2, 1, 0);
        let e = im2col(&s, &[0.0f32; 9], &mut [0.0; 15]);
        assert_eq!(e, Err(Error::Length { what: "columns", got: 15, want: 16 }));
    }
}
