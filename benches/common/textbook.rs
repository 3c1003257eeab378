//! The textbook path: a buffer of columns, the matrix product of `matrixmultiply`, then bias and PReLU in a pass of
//! their own. It sums as `matrixmultiply` likes, so its results are close to ours, not equal.

#![allow(dead_code)] // Not every bench runs all of it.

use rectify_kernels::{ConvShape, im2col};

/// A row-major matrix, or the transpose of one.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    strides: [isize; 2],
}

impl<'a> Matrix<'a> {
    /// `rows × columns`, row by row.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Matrix<'a> {
        assert_eq!(data.len(), rows * columns);
        Matrix { data, rows, columns, strides: [columns as isize, 1] }
    }
    /// Its transpose.
    pub fn t(self) -> Matrix<'a> {
        Matrix { rows: self.columns, columns: self.rows, strides: [self.strides[1], self.strides[0]], ..self }
    }
}

/// `c = a·b + beta·c`, `c` row by row.
pub fn gemm(a: Matrix<'_>, b: Matrix<'_>, beta: f32, c: &mut [f32]) {
    assert_eq!(a.columns, b.rows);
    assert_eq!(c.len(), a.rows * b.columns);
    let ([ra, ca], [rb, cb]) = (a.strides, b.strides);
    // SAFETY: the lengths of all three agree with their dimensions and strides, as asserted here and in
    // `Matrix::new`, and `c` is borrowed mutably.
    unsafe {
        matrixmultiply::sgemm(
            a.rows,
            a.columns,
            b.columns,
            1.0,
            a.data.as_ptr(),
            ra,
            ca,
            b.data.as_ptr(),
            rb,
            cb,
            beta,
            c.as_mut_ptr(),
            b.columns as isize,
            1,
        );
    }
}

/// A convolution with its buffer of columns, for one image at a time. Tensors are NCHW and OIHW.
pub struct Textbook {
    shape: ConvShape,
    image: ConvShape,
    columns: Vec<f32>,
}

/// Dimensions of one group's product: outputs, inner length, pixels.
struct Product {
    m: usize,
    k: usize,
    n: usize,
}

impl Textbook {
    /// For this shape.
    pub fn new(shape: &ConvShape) -> Textbook {
        let image = ConvShape { n: 1, ..*shape };
        let columns = vec![0.0; im2col::columns_len(&image).expect("a shape that fits")];
        Textbook { shape: *shape, image, columns }
    }

    fn product(&self) -> Product {
        let s = &self.shape;
        Product { m: s.group_oc(), k: s.group_ic() * s.kh * s.kw, n: s.oh() * s.ow() }
    }

    /// `y = prelu(conv(x, w) + bias)`.
    pub fn forward(&mut self, x: &[f32], w: &[f32], bias: &[f32], slopes: &[f32], y: &mut [f32]) {
        let Product { m, k, n } = self.product();
        let images = x.chunks(self.image.input().plain_len()).zip(y.chunks_mut(self.image.output().plain_len()));
        for (x, y) in images {
            im2col::im2col(&self.image, x, &mut self.columns).expect("lengths that fit");
            for ((w, columns), y) in w.chunks(m * k).zip(self.columns.chunks(k * n)).zip(y.chunks_mut(m * n)) {
                gemm(Matrix::new(w, m, k), Matrix::new(columns, k, n), 0.0, y);
            }
        }
        for (c, y) in y.chunks_mut(n).enumerate() {
            let (bias, slope) = (bias[c % bias.len()], slopes[c % slopes.len()]);
            for y in y {
                let v = *y + bias;
                *y = if v > 0.0 { v } else { slope * v };
            }
        }
    }

    /// `dx` from `dy`.
    pub fn backward_data(&mut self, dy: &[f32], w: &[f32], dx: &mut [f32]) {
        let Product { m, k, n } = self.product();
        let images = dy.chunks(self.image.output().plain_len()).zip(dx.chunks_mut(self.image.input().plain_len()));
        for (dy, dx) in images {
            for ((w, columns), dy) in w.chunks(m * k).zip(self.columns.chunks_mut(k * n)).zip(dy.chunks(m * n)) {
                gemm(Matrix::new(w, m, k).t(), Matrix::new(dy, m, n), 0.0, columns);
            }
            im2col::col2im(&self.image, &self.columns, dx).expect("lengths that fit");
        }
    }

    /// `dw` from `x` and `dy`.
    pub fn backward_weights(&mut self, x: &[f32], dy: &[f32], dw: &mut [f32]) {
        let Product { m, k, n } = self.product();
        dw.fill(0.0);
        let images = x.chunks(self.image.input().plain_len()).zip(dy.chunks(self.image.output().plain_len()));
        for (x, dy) in images {
            im2col::im2col(&self.image, x, &mut self.columns).expect("lengths that fit");
            for ((dw, columns), dy) in dw.chunks_mut(m * k).zip(self.columns.chunks(k * n)).zip(dy.chunks(m * n)) {
                gemm(Matrix::new(dy, m, n), Matrix::new(columns, k, n).t(), 1.0, dw);
            }
        }
    }
}

/// Refuses to time results that differ: a wrong one may well be faster.
pub fn assert_close(ours: &[f32], textbook: &[f32]) {
    assert_eq!(ours.len(), textbook.len());
    let largest = textbook.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    let error = ours.iter().zip(textbook).fold(0.0f32, |e, (a, b)| e.max((a - b).abs()));
    assert!(largest > 0.0 && error <= 1e-4 * largest, "an error of {error} at outputs up to {largest}");
}
