//! Principal components of the colours.

/// The principal components of red, green and blue over all pixels of a set, in units of the full scale: a pixel of 255
/// is 1 (Krizhevsky et al. 2012, section 4.1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Colours {
    /// Eigenvalues of the covariance, falling.
    pub variances: [f64; 3],
    /// Their eigenvectors, of length 1, red, green, blue; the largest component of each is positive.
    pub axes: [[f64; 3]; 3],
}

/// Sweeps of Jacobi's method: it doubles its digits with each, and has all of them after five.
const SWEEPS: usize = 12;

impl Colours {
    /// From the number of pixels, the sums of their levels (0 to 255) and the sums of the products of each two.
    pub(super) fn of(pixels: u128, levels: [u128; 3], products: [[u128; 3]; 3]) -> Colours {
        let count = pixels.max(1);
        // Times count²·255²: whole numbers, so that nothing is lost by the subtraction.
        let covariance = |i: usize, j: usize| -> f64 {
            let (a, b) = (count.saturating_mul(products[i][j]), levels[i].saturating_mul(levels[j]));
            let difference = if a >= b { (a - b) as f64 } else { -((b - a) as f64) };
            difference / (count as f64 * count as f64 * 255.0 * 255.0)
        };
        let matrix = [0, 1, 2].map(|i| [0, 1, 2].map(|j| covariance(i, j)));
        let (values, vectors) = jacobi(matrix);
        let mut order = [0, 1, 2];
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        let axis = |k: usize| {
            let axis = [0, 1, 2].map(|i| vectors[i][k]);
            let largest = axis.into_iter().fold(0.0, |most: f64, v| if v.abs() > most.abs() { v } else { most });
            if largest < 0.0 { axis.map(|v| -v) } else { axis }
        };
        Colours { variances: order.map(|k| values[k].max(0.0)), axes: order.map(axis) }
    }

    /// What is added to red, green and blue: `[p1, p2, p3]·[α1·λ1, α2·λ2, α3·λ3]ᵀ` with the components `p` and their
    /// variances `λ`.
    pub fn shift(&self, alphas: [f64; 3]) -> [f64; 3] {
        let mut shift = [0.0; 3];
        for ((axis, variance), alpha) in self.axes.iter().zip(self.variances).zip(alphas) {
            for (shift, component) in shift.iter_mut().zip(axis) {
                *shift += alpha * variance * component;
            }
        }
        shift
    }
}

/// Eigenvalues and, in the columns, eigenvectors of a symmetric matrix (Jacobi 1846; Golub and Van Loan, "Matrix
/// Computations", section 8.5): sums, products, quotients and square roots alone, so that every machine gives the same
/// bits.
fn jacobi(mut a: [[f64; 3]; 3]) -> ([f64; 3], [[f64; 3]; 3]) {
    let mut v = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    for _ in 0..SWEEPS {
        for (p, q) in [(0, 1), (0, 2), (1, 2)] {
            if a[p][q] == 0.0 {
                continue;
            }
            let tau = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
            let root = (1.0 + tau * tau).sqrt();
            let t = if tau >= 0.0 { 1.0 / (tau + root) } else { -1.0 / (root - tau) };
            let c = 1.0 / (1.0 + t * t).sqrt();
            let s = t * c;
            let turn = |x: f64, y: f64| (c * x - s * y, s * x + c * y);
            for row in &mut a {
                (row[p], row[q]) = turn(row[p], row[q]);
            }
            let (above, below) = (a[p], a[q]);
            for (k, (x, y)) in above.into_iter().zip(below).enumerate() {
                (a[p][k], a[q][k]) = turn(x, y);
            }
            for row in &mut v {
                (row[p], row[q]) = turn(row[p], row[q]);
            }
        }
    }
    ([a[0][0], a[1][1], a[2][2]], v)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(pixels: &[[u8; 3]]) -> Colours {
        let (mut levels, mut products) = ([0; 3], [[0; 3]; 3]);
        for p in pixels {
            for i in 0..3 {
                levels[i] += u128::from(p[i]);
                (0..3).for_each(|j| products[i][j] += u128::from(p[i]) * u128::from(p[j]));
            }
        }
        Colours::of(pixels.len() as u128, levels, products)
    }

    #[test]
    fn components_are_those_of_the_pixels() {
        // ±u, ±v, ±w around a grey: orthogonal directions of lengths 30·√2, 20·√2 and 10.
        let around = |d: [i16; 3]| [1, -1].map(|sign| d.map(|d| (100 + sign * d) as u8));
        let pixels = [around([30, 30, 0]), around([20, -20, 0]), around([0, 0, 10])].concat();
        let c = sums(&pixels);
        let unit = 255.0 * 255.0 * 3.0;
        for (got, want) in c.variances.into_iter().zip([1800.0, 800.0, 100.0]) {
            assert!((got - want / unit).abs() < 1e-15, "{got}");
        }
        let half = 0.5f64.sqrt();
        for (got, want) in c.axes.iter().zip([[half, half, 0.0], [half, -half, 0.0], [0.0, 0.0, 1.0]]) {
            // The sign of a component with two of equal size is the first one's.
            let near = |sign: f64| got.iter().zip(want).all(|(g, w)| (g - sign * w).abs() < 1e-12);
            assert!(near(1.0) || near(-1.0), "{got:?}");
        }
        let shift = c.shift([0.1, 0.0, -0.2]);
        let first = c.axes[0].map(|p| 0.1 * c.variances[0] * p);
        let want = [first[0], first[1], first[2] - 0.2 * 100.0 / unit];
        assert!(shift.iter().zip(want).all(|(s, w)| (s - w).abs() < 1e-15), "{shift:?}");
    }

    #[test]
    fn any_symmetric_matrix_is_taken_apart() {
        let mut rng = crate::rng::Rng::new(1, 99);
        for _ in 0..200 {
            let mut r = || f64::from(rng.between(-1.0, 1.0));
            let [a, b, c, d, e, f] = [r(), r(), r(), r(), r(), r()];
            let m = [[a, b, c], [b, d, e], [c, e, f]];
            let (values, v) = jacobi(m);
            for k in 0..3 {
                for (i, row) in m.iter().enumerate() {
                    let product: f64 = (0..3).map(|j| row[j] * v[j][k]).sum();
                    assert!((product - values[k] * v[i][k]).abs() < 1e-14, "{m:?}");
                }
                let length: f64 = (0..3).map(|i| v[i][k] * v[i][k]).sum();
                assert!((length - 1.0).abs() < 1e-14);
            }
        }
        let flat = sums(&[[7, 7, 7]; 4]);
        assert_eq!((flat.variances, flat.shift([1.0; 3])), ([0.0; 3], [0.0; 3]));
    }
}
