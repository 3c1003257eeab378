//! The one-dimensional transforms, lane by lane: the operations of [`crate::reference::winograd`], in their order.

mod four;

use crate::Lanes;

/// One of a variant's transforms of `A` values to `B`. With `N` positions, `M` outputs and `R` taps the weights take
/// the one from `R` to `N` (`G g`), the inputs the one from `N` to `N` (`Bᵀ d`), the outputs that from `N` to `M`
/// (`Aᵀ m`), gradients of outputs that from `M` to `N` (`A d`), gradients of kernels that from `N` to `R` (`Gᵀ m`). The
/// inputs of a phase that has no part in the last position take the one from `N - 1` to `N - 1`.
pub(super) trait Line<const A: usize, const B: usize> {
    fn line<S: Lanes>(s: S, d: [S::V; A]) -> [S::V; B];
}

/// F(4×4, 3×3).
pub(super) struct F4x3;
/// F(2×2, 3×3).
pub(super) struct F2x3;
/// F(3×3, 2×2).
pub(super) struct F3x2;
/// F(4×4, 2×2), of the phases of a stride too.
pub(super) struct F4x2;

/// F(4×4, 4×4), of the phases of a stride.
pub(super) struct F4x4;

/// The same for the gradient of the weights: both take seven positions to four values.
pub(super) struct Adjoint;

/// The points ±√2 and ±√2/2, and their cubes.
const A: f32 = std::f64::consts::SQRT_2 as f32;
const B: f32 = std::f64::consts::FRAC_1_SQRT_2 as f32;
const A3: f32 = 2.0 * A;
const B3: f32 = 0.5 * B;
/// The points ±11/8 and ±7/16, and their powers, which are exact.
const P: f32 = 1.375;
const Q: f32 = 0.4375;
const P2: f32 = P * P;
const Q2: f32 = Q * Q;

/// The points ±7/4, ±7/8 and ±5/16, and their squares; all that is made of them is exact.
const THREE: [f32; 3] = [1.75, 0.875, 0.3125];
const SQUARES: [f32; 3] = [THREE[0] * THREE[0], THREE[1] * THREE[1], THREE[2] * THREE[2]];

/// `Bᵀ d` for the points 0, ±1, ∞.
#[inline(always)]
fn input4<S: Lanes>(s: S, d: [S::V; 4]) -> [S::V; 4] {
    [s.sub(d[0], d[2]), s.add(d[1], d[2]), s.sub(d[2], d[1]), s.sub(d[3], d[1])]
}

impl Line<6, 6> for F4x3 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, d: [S::V; 6]) -> [S::V; 6] {
        let [y0, y1, y2, y3, y4]: [S::V; 5] = Self::line(s, [d[0], d[1], d[2], d[3], d[4]]);
        [y0, y1, y2, y3, y4, s.fma(s.splat(-2.5), d[3], s.add(d[1], d[5]))]
    }
}

impl Line<5, 5> for F4x3 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, d: [S::V; 5]) -> [S::V; 5] {
        let half = s.splat(-0.5);
        let (even, odd) = (s.fma(half, d[2], d[4]), s.fma(half, d[1], d[3]));
        let two = s.splat(-2.0);
        let (even2, odd2) = (s.fma(two, d[2], d[4]), s.fma(two, d[1], d[3]));
        [
            s.fma(s.splat(-2.5), d[2], s.add(d[0], d[4])),
            s.fma(s.splat(A), odd, even),
            s.fma(s.splat(-A), odd, even),
            s.fma(s.splat(B), odd2, even2),
            s.fma(s.splat(-B), odd2, even2),
        ]
    }
}

impl Line<6, 4> for F4x3 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, m: [S::V; 6]) -> [S::V; 4] {
        let (sum, difference) = (s.add(m[1], m[2]), s.sub(m[1], m[2]));
        let (sum2, difference2) = (s.add(m[3], m[4]), s.sub(m[3], m[4]));
        [
            s.add(s.add(m[0], sum), sum2),
            s.fma(s.splat(B), difference2, s.mul(s.splat(A), difference)),
            s.fma(s.splat(0.5), sum2, s.mul(s.splat(2.0), sum)),
            s.fma(s.splat(A3), difference, s.fma(s.splat(B3), difference2, m[5])),
        ]
    }
}

impl Line<4, 6> for F4x3 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, d: [S::V; 4]) -> [S::V; 6] {
        let two = s.splat(2.0);
        let (even, odd) = (s.fma(two, d[2], d[0]), s.fma(two, d[3], d[1]));
        let half = s.splat(0.5);
        let (even2, odd2) = (s.fma(half, d[2], d[0]), s.fma(half, d[3], d[1]));
        [
            d[0],
            s.fma(s.splat(A), odd, even),
            s.fma(s.splat(-A), odd, even),
            s.fma(s.splat(B), odd2, even2),
            s.fma(s.splat(-B), odd2, even2),
            d[3],
        ]
    }
}

impl Line<6, 3> for F4x3 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, m: [S::V; 6]) -> [S::V; 3] {
        const POINT: f64 = std::f64::consts::SQRT_2;
        const POINT2: f64 = std::f64::consts::FRAC_1_SQRT_2;
        let c = |x: f64| s.splat(x as f32);
        let (sum, difference) = (s.add(m[1], m[2]), s.sub(m[1], m[2]));
        let (sum2, difference2) = (s.add(m[3], m[4]), s.sub(m[3], m[4]));
        [
            s.fma(c(1.0 / 6.0), sum, s.fma(c(-2.0 / 3.0), sum2, m[0])),
            s.fma(c(POINT / 6.0), difference, s.mul(c(-2.0 / 3.0 * POINT2), difference2)),
            s.fma(c(1.0 / 3.0), s.sub(sum, sum2), m[5]),
        ]
    }
}

impl Line<3, 6> for F4x3 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, g: [S::V; 3]) -> [S::V; 6] {
        const POINT: f64 = std::f64::consts::SQRT_2;
        const POINT2: f64 = std::f64::consts::FRAC_1_SQRT_2;
        let c = |x: f64| s.splat(x as f32);
        let even = s.fma(c(1.0 / 3.0), g[2], s.mul(c(1.0 / 6.0), g[0]));
        let even2 = s.fma(c(-1.0 / 3.0), g[2], s.mul(c(-2.0 / 3.0), g[0]));
        [
            g[0],
            s.fma(c(POINT / 6.0), g[1], even),
            s.fma(c(-POINT / 6.0), g[1], even),
            s.fma(c(-2.0 / 3.0 * POINT2), g[1], even2),
            s.fma(c(2.0 / 3.0 * POINT2), g[1], even2),
            g[2],
        ]
    }
}

impl Line<3, 4> for F2x3 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, g: [S::V; 3]) -> [S::V; 4] {
        let half = s.splat(0.5);
        let even = s.mul(half, s.add(g[0], g[2]));
        [g[0], s.fma(half, g[1], even), s.fma(s.splat(-0.5), g[1], even), g[2]]
    }
}

impl Line<4, 4> for F2x3 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, d: [S::V; 4]) -> [S::V; 4] {
        input4(s, d)
    }
}

impl Line<4, 2> for F2x3 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, m: [S::V; 4]) -> [S::V; 2] {
        [s.add(m[0], s.add(m[1], m[2])), s.add(s.sub(m[1], m[2]), m[3])]
    }
}

impl Line<2, 4> for F2x3 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, d: [S::V; 2]) -> [S::V; 4] {
        [d[0], s.add(d[0], d[1]), s.sub(d[0], d[1]), d[1]]
    }
}

impl Line<4, 3> for F2x3 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, m: [S::V; 4]) -> [S::V; 3] {
        let (half, sum) = (s.splat(0.5), s.add(m[1], m[2]));
        [s.fma(half, sum, m[0]), s.mul(half, s.sub(m[1], m[2])), s.fma(half, sum, m[3])]
    }
}

impl Line<2, 4> for F3x2 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, g: [S::V; 2]) -> [S::V; 4] {
        let half = s.mul(s.splat(0.5), g[0]);
        [g[0], s.fma(s.splat(0.5), g[1], half), s.fma(s.splat(-0.5), g[1], half), g[1]]
    }
}

impl Line<4, 4> for F3x2 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, d: [S::V; 4]) -> [S::V; 4] {
        input4(s, d)
    }
}

impl Line<4, 3> for F3x2 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, m: [S::V; 4]) -> [S::V; 3] {
        let sum = s.add(m[1], m[2]);
        [s.add(m[0], sum), s.sub(m[1], m[2]), s.add(sum, m[3])]
    }
}

impl Line<3, 4> for F3x2 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, d: [S::V; 3]) -> [S::V; 4] {
        let even = s.add(d[0], d[2]);
        [d[0], s.add(even, d[1]), s.sub(even, d[1]), d[2]]
    }
}

impl Line<4, 2> for F3x2 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, m: [S::V; 4]) -> [S::V; 2] {
        let half = s.splat(0.5);
        [s.fma(half, s.add(m[1], m[2]), m[0]), s.fma(half, s.sub(m[1], m[2]), m[3])]
    }
}

impl Line<3, 3> for F3x2 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, d: [S::V; 3]) -> [S::V; 3] {
        [s.sub(d[0], d[2]), s.add(d[1], d[2]), s.sub(d[2], d[1])]
    }
}

impl F4x2 {
    /// Half the reciprocal difference of the squares of its points, and the scales of the points in `G`.
    const HALF: f64 = 0.5 / (P2 as f64 - Q2 as f64);
    const SCALE: f64 = Self::HALF / P as f64;
    const SCALE2: f64 = Self::HALF / Q as f64;
}

impl Line<2, 5> for F4x2 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, g: [S::V; 2]) -> [S::V; 5] {
        let c = |x: f64| s.splat(x as f32);
        let (even, even2) = (s.mul(c(Self::SCALE), g[0]), s.mul(c(Self::SCALE2), g[0]));
        let (minus, minus2) = (s.mul(c(-Self::SCALE), g[0]), s.mul(c(-Self::SCALE2), g[0]));
        [
            s.fma(c(P as f64 * Self::SCALE), g[1], even),
            s.fma(c(P as f64 * Self::SCALE), g[1], minus),
            s.fma(c(-Q as f64 * Self::SCALE2), g[1], minus2),
            s.fma(c(-Q as f64 * Self::SCALE2), g[1], even2),
            g[1],
        ]
    }
}

impl Line<5, 5> for F4x2 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, d: [S::V; 5]) -> [S::V; 5] {
        let [y0, y1, y2, y3]: [S::V; 4] = Self::line(s, [d[0], d[1], d[2], d[3]]);
        [y0, y1, y2, y3, s.fma(s.splat(-P2 - Q2), d[2], s.fma(s.splat(P2 * Q2), d[0], d[4]))]
    }
}

impl Line<4, 4> for F4x2 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, d: [S::V; 4]) -> [S::V; 4] {
        let (p2, q2) = (s.splat(-P2), s.splat(-Q2));
        let (even, odd) = (s.fma(q2, d[0], d[2]), s.fma(q2, d[1], d[3]));
        let (even2, odd2) = (s.fma(p2, d[0], d[2]), s.fma(p2, d[1], d[3]));
        [
            s.fma(s.splat(P), even, odd),
            s.fma(s.splat(-P), even, odd),
            s.fma(s.splat(Q), even2, odd2),
            s.fma(s.splat(-Q), even2, odd2),
        ]
    }
}

impl Line<5, 4> for F4x2 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, m: [S::V; 5]) -> [S::V; 4] {
        let (sum, difference) = (s.add(m[0], m[1]), s.sub(m[0], m[1]));
        let (sum2, difference2) = (s.add(m[2], m[3]), s.sub(m[2], m[3]));
        [
            s.add(sum, sum2),
            s.fma(s.splat(Q), difference2, s.mul(s.splat(P), difference)),
            s.fma(s.splat(Q2), sum2, s.mul(s.splat(P2), sum)),
            s.fma(s.splat(P2 * P), difference, s.fma(s.splat(Q2 * Q), difference2, m[4])),
        ]
    }
}

impl Line<4, 5> for F4x2 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, d: [S::V; 4]) -> [S::V; 5] {
        let (p2, q2) = (s.splat(P2), s.splat(Q2));
        let (even, odd) = (s.fma(p2, d[2], d[0]), s.fma(p2, d[3], d[1]));
        let (even2, odd2) = (s.fma(q2, d[2], d[0]), s.fma(q2, d[3], d[1]));
        [
            s.fma(s.splat(P), odd, even),
            s.fma(s.splat(-P), odd, even),
            s.fma(s.splat(Q), odd2, even2),
            s.fma(s.splat(-Q), odd2, even2),
            d[3],
        ]
    }
}

impl Line<5, 2> for F4x2 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, m: [S::V; 5]) -> [S::V; 2] {
        let c = |x: f64| s.splat(x as f32);
        let (sum, difference) = (s.add(m[0], m[1]), s.sub(m[0], m[1]));
        let (sum2, difference2) = (s.add(m[2], m[3]), s.sub(m[2], m[3]));
        [
            s.fma(c(Self::SCALE), difference, s.mul(c(-Self::SCALE2), difference2)),
            s.fma(c(Self::HALF), s.sub(sum, sum2), m[4]),
        ]
    }
}
