//! Tiles at the lower and the right edge, of which fewer than `m` rows or columns of outputs lie in the image.
//!
//! Along such an axis `k` outputs take F(k, r), whose `k + r − 1` positions are some of the variant's: its first finite
//! points, and ∞. The transformed weights are the same as elsewhere, for a point keeps its scale there; so inputs and
//! outputs are transformed by the matrices that follow from the points (Toom and Cook's), and fewer products are taken.
//! Row by row such a matrix is applied as a chain: the first coefficient that is not zero times its value, one fused
//! multiply-add for each of the others that are not.

use super::Variant;
use super::variant::{P, Q, SCALES};
use num_traits::Float;

/// Positions along an axis of the largest edge.
pub(crate) const MOST: usize = 5;

/// A matrix, as large as the edge that it belongs to; zeros fill it up.
pub(crate) type Matrix = [[f64; MOST]; MOST];

/// The matrices of an edge.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edge {
    /// `Bᵀ`, positions by inputs.
    pub input: Matrix,
    /// `Aᵀ`, outputs by positions.
    pub output: Matrix,
    /// `A`, positions by gradients of outputs.
    pub gradient: Matrix,
}

impl Variant {
    /// Whether tiles at the edges have fewer positions: with stride 1.
    pub const fn has_edges(self) -> bool {
        self.stride() == 1
    }

    /// The finite points of the positions that an edge may have, and their scale in `G`: position 0 first.
    const fn points(self) -> [(f64, f64); 4] {
        const A: f64 = std::f64::consts::SQRT_2;
        match self {
            Variant::F4x3 => [(0.0, 1.0), (A, 1.0 / 6.0), (-A, 1.0 / 6.0), (1.0 / A, -2.0 / 3.0)],
            Variant::F4x2 => [(P, SCALES[0]), (-P, -SCALES[0]), (Q, -SCALES[1]), (-Q, SCALES[1])],
            _ => [(0.0, 1.0), (1.0, 0.5), (-1.0, 0.5), (0.0, 0.0)],
        }
    }

    /// Finite points of an edge of `k` outputs.
    pub(crate) const fn finite(self, k: usize) -> usize {
        k + self.r() - 2
    }

    /// The matrices of an edge of `k` outputs, fewer than `m`: for the finite points `p` the coefficients of the
    /// polynomial with the others as zeros, over its value at `p` and the scale of `p`; for ∞ those of the one with all
    /// of them.
    pub(crate) const fn edge(self, k: usize) -> Edge {
        let (finite, points) = (self.finite(k), self.points());
        let mut edge = Edge { input: [[0.0; MOST]; MOST], output: [[0.0; MOST]; MOST], gradient: [[0.0; MOST]; MOST] };
        let mut i = 0;
        while i <= finite {
            let (mut row, mut divisor) = ([0.0; MOST], 1.0);
            row[0] = 1.0;
            if i < finite {
                divisor = points[i].1;
            }
            let mut j = 0;
            while j < finite {
                if j != i {
                    let zero = points[j].0;
                    let mut c = MOST;
                    while c > 0 {
                        c -= 1;
                        row[c] = if c > 0 { row[c - 1] } else { 0.0 } - zero * row[c];
                    }
                    if i < finite {
                        divisor *= points[i].0 - zero;
                    }
                }
                j += 1;
            }
            let mut c = 0;
            while c <= finite {
                edge.input[i][c] = row[c] / divisor;
                c += 1;
            }
            let (mut power, mut o) = (1.0, 0);
            while o < k {
                edge.output[o][i] = if i < finite { power } else { (o + 1 == k) as u8 as f64 };
                edge.gradient[i][o] = edge.output[o][i];
                power *= points[i % 4].0;
                o += 1;
            }
            i += 1;
        }
        edge
    }

    /// The axis of a tile whose first output is number `first` of `size`.
    pub fn axis(self, first: usize, size: usize) -> Axis {
        let outputs = if self.has_edges() { self.m().min(size - first) } else { self.m() };
        Axis { variant: self, outputs }
    }
}

/// The transforms along one axis of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    variant: Variant,
    outputs: usize,
}

impl Axis {
    /// Outputs that are computed: those in the image, or `m` with a stride.
    pub fn outputs(self) -> usize {
        self.outputs
    }

    /// Those of the variant's positions that products are taken at.
    pub fn positions(self) -> Vec<usize> {
        let n = self.variant.n();
        if self.is_edge() { (0..self.variant.finite(self.outputs)).chain([n - 1]).collect() } else { (0..n).collect() }
    }

    fn is_edge(self) -> bool {
        self.outputs < self.variant.m()
    }

    fn edge(self) -> Option<Edge> {
        self.is_edge().then(|| self.variant.edge(self.outputs))
    }

    /// `Bᵀ d`: the inputs, of a phase, to as many positions.
    pub fn input<T: Float>(self, d: &[T]) -> Vec<T> {
        self.edge().map_or_else(|| self.variant.input(d), |e| product(&e.input[..d.len()], d))
    }

    /// `Aᵀ m`: products to outputs.
    pub fn output<T: Float>(self, m: &[T]) -> Vec<T> {
        self.edge().map_or_else(|| self.variant.output(m), |e| product(&e.output[..self.outputs], m))
    }

    /// `A d`: gradients of outputs to positions.
    pub fn gradient<T: Float>(self, d: &[T]) -> Vec<T> {
        let positions = self.positions().len();
        self.edge().map_or_else(|| self.variant.gradient(d), |e| product(&e.gradient[..positions], d))
    }
}

/// A matrix times a column.
fn product<T: Float>(matrix: &[[f64; MOST]], d: &[T]) -> Vec<T> {
    let row = |row: &[f64; MOST]| {
        let terms = row.iter().zip(d).filter(|(c, _)| **c != 0.0);
        let mut terms = terms.map(|(&c, &d)| (T::from(c).unwrap_or_else(T::nan), d));
        let first = terms.next().map_or(T::zero(), |(c, d)| c * d);
        terms.fold(first, |sum, (c, d)| c.mul_add(d, sum))
    };
    matrix.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The matrices of edges whose numbers are easily checked by hand.
    #[test]
    fn edges_follow_from_the_points() {
        let rows = |m: &Matrix, rows: usize, cols: usize| -> Vec<Vec<f64>> {
            m[..rows].iter().map(|row| row[..cols].to_vec()).collect()
        };
        let e = Variant::F3x2.edge(2);
        assert_eq!(rows(&e.input, 3, 3), [[1., -1., 0.], [0., 2., 0.], [0., -1., 1.]]);
        assert_eq!(rows(&e.output, 2, 3), [[1., 1., 0.], [0., 1., 1.]]);
        assert_eq!(rows(&e.gradient, 3, 2), [[1., 0.], [1., 1.], [0., 1.]]);
        let e = Variant::F3x2.edge(1);
        assert_eq!(rows(&e.input, 2, 2), [[1., 0.], [0., 1.]]);
        assert_eq!(rows(&e.output, 1, 2), [[1., 1.]]);
        let axis = Variant::F4x3.axis(12, 14);
        assert_eq!((axis.positions(), axis.outputs()), (vec![0, 1, 2, 5], 2));
        assert_eq!(Variant::F4x3S2.axis(12, 14).outputs(), 4);
    }
}
