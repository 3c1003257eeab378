//! Those of kernels of four taps, and of as many values.

// Points are clearer as numbers.
#![allow(clippy::needless_range_loop)]

use super::{Adjoint, F4x4, Line, SQUARES, THREE};
use crate::Lanes;

impl Line<4, 7> for F4x4 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, g: [S::V; 4]) -> [S::V; 7] {
        let mut y = [g[3]; 7];
        for (i, others) in [[1, 2], [0, 2], [0, 1]].into_iter().enumerate() {
            let (at, [a, b]) = (f64::from(THREE[i]), others.map(|k| f64::from(THREE[k])));
            let scale = 0.5 / at / (at * at - a * a) / (at * at - b * b);
            let c = |x: f64| s.splat(x as f32);
            let even = s.fma(c(at * at * scale), g[2], s.mul(c(scale), g[0]));
            let odd = s.fma(c(at * at * at * scale), g[3], s.mul(c(at * scale), g[1]));
            (y[2 * i], y[2 * i + 1]) = (s.add(even, odd), s.sub(odd, even));
        }
        y
    }
}

impl Line<7, 7> for F4x4 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, d: [S::V; 7]) -> [S::V; 7] {
        const E: [f32; 3] = SQUARES;
        let [y0, y1, y2, y3, y4, y5]: [S::V; 6] = Self::line(s, [d[0], d[1], d[2], d[3], d[4], d[5]]);
        let last = s.fma(s.splat(-E[0] * E[1] * E[2]), d[0], d[6]);
        let last = s.fma(s.splat(E[0] * E[1] + E[0] * E[2] + E[1] * E[2]), d[2], last);
        [y0, y1, y2, y3, y4, y5, s.fma(s.splat(-E[0] - E[1] - E[2]), d[4], last)]
    }
}

impl Line<6, 6> for F4x4 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, d: [S::V; 6]) -> [S::V; 6] {
        let mut y = [s.zero(); 6];
        for (i, [a, b]) in [[1, 2], [0, 2], [0, 1]].into_iter().enumerate() {
            let (product, sum) = (s.splat(SQUARES[a] * SQUARES[b]), s.splat(-SQUARES[a] - SQUARES[b]));
            let even = s.fma(product, d[0], s.fma(sum, d[2], d[4]));
            let odd = s.fma(product, d[1], s.fma(sum, d[3], d[5]));
            y[2 * i] = s.fma(s.splat(THREE[i]), even, odd);
            y[2 * i + 1] = s.fma(s.splat(-THREE[i]), even, odd);
        }
        y
    }
}

impl Line<7, 4> for F4x4 {
    #[inline(always)]
    fn line<S: Lanes>(s: S, m: [S::V; 7]) -> [S::V; 4] {
        const P: [f32; 3] = THREE;
        let (a, b, c) = (s.add(m[0], m[1]), s.add(m[2], m[3]), s.add(m[4], m[5]));
        let (d, e, f) = (s.sub(m[0], m[1]), s.sub(m[2], m[3]), s.sub(m[4], m[5]));
        let square = s.fma(s.splat(SQUARES[1]), b, s.mul(s.splat(SQUARES[0]), a));
        let cube = s.fma(s.splat(SQUARES[1] * P[1]), e, s.fma(s.splat(SQUARES[2] * P[2]), f, m[6]));
        [
            s.add(s.add(a, b), c),
            s.fma(s.splat(P[2]), f, s.fma(s.splat(P[1]), e, s.mul(s.splat(P[0]), d))),
            s.fma(s.splat(SQUARES[2]), c, square),
            s.fma(s.splat(SQUARES[0] * P[0]), d, cube),
        ]
    }
}

impl Line<4, 7> for Adjoint {
    #[inline(always)]
    fn line<S: Lanes>(s: S, d: [S::V; 4]) -> [S::V; 7] {
        let mut y = [d[3]; 7];
        for i in 0..3 {
            let square = s.splat(SQUARES[i]);
            let (even, odd) = (s.fma(square, d[2], d[0]), s.fma(square, d[3], d[1]));
            y[2 * i] = s.fma(s.splat(THREE[i]), odd, even);
            y[2 * i + 1] = s.fma(s.splat(-THREE[i]), odd, even);
        }
        y
    }
}

impl Line<7, 7> for Adjoint {
    #[inline(always)]
    fn line<S: Lanes>(s: S, d: [S::V; 7]) -> [S::V; 7] {
        F4x4::line(s, d)
    }
}

impl Line<7, 4> for Adjoint {
    #[inline(always)]
    fn line<S: Lanes>(s: S, m: [S::V; 7]) -> [S::V; 4] {
        const SCALES: [f64; 3] = {
            let p = [THREE[0] as f64, THREE[1] as f64, THREE[2] as f64];
            let [a, b, c] = [p[0] * p[0], p[1] * p[1], p[2] * p[2]];
            [0.5 / p[0] / (a - b) / (a - c), 0.5 / p[1] / (b - a) / (b - c), 0.5 / p[2] / (c - a) / (c - b)]
        };
        let (a, b, c) = (s.add(m[0], m[1]), s.add(m[2], m[3]), s.add(m[4], m[5]));
        let (d, e, f) = (s.sub(m[0], m[1]), s.sub(m[2], m[3]), s.sub(m[4], m[5]));
        /// The points' powers times their scales.
        const WEIGHTS: [[f32; 4]; 3] = {
            let mut weights = [[0.0; 4]; 3];
            let mut i = 0;
            while i < 3 {
                let (p, scale) = (THREE[i] as f64, SCALES[i]);
                weights[i] = [scale as f32, (p * scale) as f32, (p * p * scale) as f32, (p * p * p * scale) as f32];
                i += 1;
            }
            weights
        };
        let w = |i: usize, power: usize| s.splat(WEIGHTS[i][power]);
        [
            s.fma(w(0, 0), d, s.fma(w(1, 0), e, s.mul(w(2, 0), f))),
            s.fma(w(0, 1), a, s.fma(w(1, 1), b, s.mul(w(2, 1), c))),
            s.fma(w(0, 2), d, s.fma(w(1, 2), e, s.mul(w(2, 2), f))),
            s.fma(w(0, 3), a, s.fma(w(1, 3), b, s.fma(w(2, 3), c, m[6]))),
        ]
    }
}
