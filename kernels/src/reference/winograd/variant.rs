//! The variants, their points and their one-dimensional transforms.

use crate::blocks;
use num_traits::Float;

/// The points ±11/8 and ±7/16 of two-tap kernels in tiles of four outputs. Their powers are exact in `f32`; errors are
/// half those that ±√2 and ±√2/2 give there.
pub(super) const P: f64 = 1.375;
pub(super) const Q: f64 = 0.4375;
/// Half the reciprocal difference of the squares of these points, and the scales of the points in `G`.
const HALF: f64 = 0.5 / (P * P - Q * Q);
pub(super) const SCALES: [f64; 2] = [HALF / P, HALF / Q];
/// The points ±7/4, ±7/8 and ±5/16 of the four-tap kernels of a stride. Their powers and the coefficients of their
/// transforms are exact in `f32`; of such points these round least but for a few hundredths.
pub(crate) const THREE: [f64; 3] = [1.75, 0.875, 0.3125];

/// A point's power, by multiplications, which are exact for these (`f64::powi` promises no precision).
fn raised(x: f64, power: i32) -> f64 {
    (0..power).fold(1.0, |y, _| y * x)
}

/// The scale in `G` of the first of three such points.
const fn scale([at, a, b]: [f64; 3]) -> f64 {
    0.5 / at / (at * at - a * a) / (at * at - b * b)
}

/// How the gradient of weights sums a position's products over the tiles: constants of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunks {
    /// Tiles in a chunk: one chain of FMAs from zero.
    pub tiles: usize,
    /// Chunks whose sums are added in order before they are added to those of others.
    pub group: usize,
}

impl Chunks {
    /// Of few channels: the second cache holds the transforms of so few tiles beside all sums. One sum of all chunks of
    /// what may be many tiles would round more than the products.
    pub(crate) const SHORT: Chunks = Chunks { tiles: 32, group: 64 };
    /// Of others, whose sums are read and written once a chunk.
    const LONG: Chunks = Chunks { tiles: 128, group: usize::MAX };
}

/// Pairs of a block of 16 input channels, of one phase, and one of output channels, up to which these are few: 96 × 96
/// channels with stride 1.
const FEW: usize = 36;

/// Which Winograd algorithm: the tile of outputs, the kernel, the stride.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// F(4×4, 3×3): 36 products where the direct sum takes 144.
    F4x3,
    /// F(2×2, 3×3): 16 products where the direct sum takes 36; rounds less than F(4×4, 3×3).
    F2x3,
    /// F(4×4, 2×2): 25 products where the direct sum takes 64.
    F4x2,
    /// F(3×3, 2×2): 16 products where the direct sum takes 36; rounds less than F(4×4, 2×2).
    F3x2,
    /// F(4×4, 3×3) with stride 2: 81 products where the direct sum takes 144.
    F4x3S2,
    /// F(3×3, 3×3) with stride 2: 49 products where the direct sum takes 81; rounds less than F(4×4, 3×3).
    F3x3S2,
    /// F(4×4, 4×4) with stride 2: 100 products where the direct sum takes 256.
    F4x4S2,
    /// F(4×4, 5×5) with stride 2: 121 products where the direct sum takes 400.
    F4x5S2,
    /// F(4×4, 7×7) with stride 2: 169 products where the direct sum takes 784. Its kernels are those of first layers:
    /// few channels of an NCHW image; the gradient of the input takes any.
    F4x7S2,
}

impl Variant {
    /// All of them.
    pub const ALL: [Variant; 9] = [
        Variant::F4x3,
        Variant::F2x3,
        Variant::F4x2,
        Variant::F3x2,
        Variant::F4x3S2,
        Variant::F3x3S2,
        Variant::F4x4S2,
        Variant::F4x5S2,
        Variant::F4x7S2,
    ];

    /// Rows and columns of the tile of outputs.
    pub const fn m(self) -> usize {
        match self {
            Variant::F4x3 | Variant::F4x2 => 4,
            Variant::F4x3S2 | Variant::F4x4S2 | Variant::F4x5S2 | Variant::F4x7S2 => 4,
            Variant::F2x3 => 2,
            Variant::F3x2 | Variant::F3x3S2 => 3,
        }
    }

    /// Rows and columns of the kernel.
    pub const fn r(self) -> usize {
        match self {
            Variant::F4x2 | Variant::F3x2 => 2,
            Variant::F4x3 | Variant::F2x3 | Variant::F4x3S2 | Variant::F3x3S2 => 3,
            Variant::F4x4S2 => 4,
            Variant::F4x5S2 => 5,
            Variant::F4x7S2 => 7,
        }
    }

    /// The stride, of rows and of columns.
    pub const fn stride(self) -> usize {
        match self {
            Variant::F4x3 | Variant::F2x3 | Variant::F4x2 | Variant::F3x2 => 1,
            Variant::F4x3S2 | Variant::F3x3S2 | Variant::F4x4S2 | Variant::F4x5S2 | Variant::F4x7S2 => 2,
        }
    }

    /// Rows and columns of the positions at which products are taken, and of the tile of inputs of one phase.
    pub const fn n(self) -> usize {
        self.m() + self.phase_taps(0) - 1
    }

    /// Rows and columns of the tile of inputs, of all phases.
    pub const fn side(self) -> usize {
        (self.m() - 1) * self.stride() + self.r()
    }

    /// Taps that a phase has along an axis: every `stride`-th, from `phase` on.
    pub const fn phase_taps(self, phase: usize) -> usize {
        (self.r() - phase).div_ceil(self.stride())
    }

    /// Positions along an axis that a phase takes part in, and the inputs that it reads there: a phase with a tap less
    /// than the first has a zero at the last point, ∞.
    pub const fn reach(self, phase: usize) -> usize {
        self.m() + self.phase_taps(phase) - 1
    }

    /// Phases along an axis that take part in position `i` of it: so many from the first on.
    pub(crate) const fn phases(self, i: usize) -> usize {
        if i < self.reach(self.stride() - 1) { self.stride() } else { 1 }
    }

    /// How the gradient of weights of so many channels, of a group, is summed over the tiles.
    pub const fn chunks(self, ic: usize, oc: usize) -> Chunks {
        let pairs = (self.stride() * self.stride() * blocks(ic)).saturating_mul(blocks(oc));
        match self {
            // Of at most four input channels.
            Variant::F4x7S2 => Chunks::SHORT,
            _ if pairs <= FEW => Chunks::SHORT,
            _ => Chunks::LONG,
        }
    }

    /// `G g`, one dimension: the taps of a phase to `n` positions. A tap that the phase lacks is zero.
    pub fn kernel<T: Float>(self, g: &[T]) -> Vec<T> {
        let c = |x: f64| T::from(x).unwrap_or_else(T::nan);
        match (self.n(), self.phase_taps(0)) {
            (4, 2) => {
                let half = c(0.5) * g[0];
                vec![g[0], c(0.5).mul_add(g[1], half), c(-0.5).mul_add(g[1], half), g[1]]
            }
            (4, _) => {
                let even = c(0.5) * (g[0] + g[2]);
                vec![g[0], c(0.5).mul_add(g[1], even), c(-0.5).mul_add(g[1], even), g[2]]
            }
            (5, _) => {
                let [scale, scale2] = SCALES;
                let (even, even2) = (c(scale) * g[0], c(scale2) * g[0]);
                vec![
                    c(P * scale).mul_add(g[1], even),
                    c(P * scale).mul_add(g[1], -even),
                    c(-Q * scale2).mul_add(g[1], -even2),
                    c(-Q * scale2).mul_add(g[1], even2),
                    g[1],
                ]
            }
            (7, _) => {
                // Of each pair of points what is even and what is odd in them.
                let line = |at: f64, [a, b]: [f64; 2]| {
                    let scale = scale([at, a, b]);
                    let even = c(at * at * scale).mul_add(g[2], c(scale) * g[0]);
                    let odd = c(at * at * at * scale).mul_add(g[3], c(at * scale) * g[1]);
                    [even + odd, odd - even]
                };
                let [p, q, r] = THREE;
                let mut y = [line(p, [q, r]), line(q, [p, r]), line(r, [p, q])].concat();
                y.push(g[3]);
                y
            }
            _ => {
                let (a, b) = (std::f64::consts::SQRT_2 / 6.0, 2.0 / 3.0 * std::f64::consts::FRAC_1_SQRT_2);
                let even = c(1.0 / 3.0).mul_add(g[2], c(1.0 / 6.0) * g[0]);
                let even2 = c(-1.0 / 3.0).mul_add(g[2], c(-2.0 / 3.0) * g[0]);
                vec![
                    g[0],
                    c(a).mul_add(g[1], even),
                    c(-a).mul_add(g[1], even),
                    c(-b).mul_add(g[1], even2),
                    c(b).mul_add(g[1], even2),
                    g[2],
                ]
            }
        }
    }

    /// `Bᵀ d`, one dimension: the inputs of a phase to as many positions. What the last position alone reads is not
    /// there for a phase that has no part in it.
    pub fn input<T: Float>(self, d: &[T]) -> Vec<T> {
        let c = |x: f64| T::from(x).unwrap_or_else(T::nan);
        let (a, b) = (c(std::f64::consts::SQRT_2), c(std::f64::consts::FRAC_1_SQRT_2));
        let (mut y, last) = match self.n() {
            4 => (vec![d[0] - d[2], d[1] + d[2], d[2] - d[1]], d.get(3).map(|&last| last - d[1])),
            5 => {
                let (even, odd) = (c(-Q * Q).mul_add(d[0], d[2]), c(-Q * Q).mul_add(d[1], d[3]));
                let (even2, odd2) = (c(-P * P).mul_add(d[0], d[2]), c(-P * P).mul_add(d[1], d[3]));
                let finite = vec![
                    c(P).mul_add(even, odd),
                    c(-P).mul_add(even, odd),
                    c(Q).mul_add(even2, odd2),
                    c(-Q).mul_add(even2, odd2),
                ];
                let last = |last: T| c(-P * P - Q * Q).mul_add(d[2], c(P * P * Q * Q).mul_add(d[0], last));
                (finite, d.get(4).map(|&d| last(d)))
            }
            7 => {
                let squares = THREE.map(|p| p * p);
                let mut finite = Vec::new();
                for (p, [a, b]) in THREE.into_iter().zip([[1, 2], [0, 2], [0, 1]].map(|pair| pair.map(|i| squares[i])))
                {
                    let half = |d0: T, d2: T, d4: T| c(a * b).mul_add(d0, c(-a - b).mul_add(d2, d4));
                    let (even, odd) = (half(d[0], d[2], d[4]), half(d[1], d[3], d[5]));
                    finite.extend([c(p).mul_add(even, odd), c(-p).mul_add(even, odd)]);
                }
                let [a, b, e] = squares;
                let last = |last: T| c(a * b + a * e + b * e).mul_add(d[2], c(-a * b * e).mul_add(d[0], last));
                (finite, d.get(6).map(|&d6| c(-a - b - e).mul_add(d[4], last(d6))))
            }
            _ => {
                let (even, odd) = (c(-0.5).mul_add(d[2], d[4]), c(-0.5).mul_add(d[1], d[3]));
                let (even2, odd2) = (c(-2.0).mul_add(d[2], d[4]), c(-2.0).mul_add(d[1], d[3]));
                let finite = vec![
                    c(-2.5).mul_add(d[2], d[0] + d[4]),
                    a.mul_add(odd, even),
                    (-a).mul_add(odd, even),
                    b.mul_add(odd2, even2),
                    (-b).mul_add(odd2, even2),
                ];
                (finite, d.get(5).map(|&last| c(-2.5).mul_add(d[3], d[1] + last)))
            }
        };
        y.extend(last);
        y
    }

    /// `Aᵀ m`, one dimension: `n` positions to `m` outputs.
    pub fn output<T: Float>(self, m: &[T]) -> Vec<T> {
        let c = |x: f64| T::from(x).unwrap_or_else(T::nan);
        if self.n() == 5 {
            let (sum, difference) = (m[0] + m[1], m[0] - m[1]);
            let (sum2, difference2) = (m[2] + m[3], m[2] - m[3]);
            return vec![
                sum + sum2,
                c(Q).mul_add(difference2, c(P) * difference),
                c(Q * Q).mul_add(sum2, c(P * P) * sum),
                c(P * P * P).mul_add(difference, c(Q * Q * Q).mul_add(difference2, m[4])),
            ];
        }
        if self.n() == 7 {
            let sums = [0, 2, 4].map(|i| m[i] + m[i + 1]);
            let differences = [0, 2, 4].map(|i| m[i] - m[i + 1]);
            // Of some powers of the points the largest first.
            let weighted = |power: i32, [a, b, e]: [T; 3]| {
                let [p, q, r] = THREE.map(|p| c(raised(p, power)));
                r.mul_add(e, q.mul_add(b, p * a))
            };
            let [p, q, r] = THREE.map(|p| c(p * p * p));
            let [a, b, e] = differences;
            return vec![
                (sums[0] + sums[1]) + sums[2],
                weighted(1, differences),
                weighted(2, sums),
                p.mul_add(a, q.mul_add(b, r.mul_add(e, m[6]))),
            ];
        }
        let (sum, difference) = (m[1] + m[2], m[1] - m[2]);
        match self.m() {
            2 => vec![m[0] + sum, difference + m[3]],
            3 => vec![m[0] + sum, difference, sum + m[3]],
            _ => {
                let (a, b) = (c(std::f64::consts::SQRT_2), c(std::f64::consts::FRAC_1_SQRT_2));
                let (a3, b3) = (c(2.0 * std::f64::consts::SQRT_2), c(0.5 * std::f64::consts::FRAC_1_SQRT_2));
                let (sum2, difference2) = (m[3] + m[4], m[3] - m[4]);
                vec![
                    (m[0] + sum) + sum2,
                    b.mul_add(difference2, a * difference),
                    c(0.5).mul_add(sum2, c(2.0) * sum),
                    a3.mul_add(difference, b3.mul_add(difference2, m[5])),
                ]
            }
        }
    }

    /// `A d`, one dimension: `m` gradients of outputs to `n` positions.
    pub fn gradient<T: Float>(self, d: &[T]) -> Vec<T> {
        let c = |x: f64| T::from(x).unwrap_or_else(T::nan);
        match self {
            Variant::F4x3 | Variant::F4x5S2 => {
                let (a, b) = (c(std::f64::consts::SQRT_2), c(std::f64::consts::FRAC_1_SQRT_2));
                let (even, odd) = (c(2.0).mul_add(d[2], d[0]), c(2.0).mul_add(d[3], d[1]));
                let (even2, odd2) = (c(0.5).mul_add(d[2], d[0]), c(0.5).mul_add(d[3], d[1]));
                vec![
                    d[0],
                    a.mul_add(odd, even),
                    (-a).mul_add(odd, even),
                    b.mul_add(odd2, even2),
                    (-b).mul_add(odd2, even2),
                    d[3],
                ]
            }
            Variant::F2x3 => vec![d[0], d[0] + d[1], d[0] - d[1], d[1]],
            Variant::F4x2 | Variant::F4x3S2 | Variant::F4x4S2 => {
                let (even, odd) = (c(P * P).mul_add(d[2], d[0]), c(P * P).mul_add(d[3], d[1]));
                let (even2, odd2) = (c(Q * Q).mul_add(d[2], d[0]), c(Q * Q).mul_add(d[3], d[1]));
                vec![
                    c(P).mul_add(odd, even),
                    c(-P).mul_add(odd, even),
                    c(Q).mul_add(odd2, even2),
                    c(-Q).mul_add(odd2, even2),
                    d[3],
                ]
            }
            Variant::F3x2 | Variant::F3x3S2 => vec![d[0], (d[0] + d[2]) + d[1], (d[0] + d[2]) - d[1], d[2]],
            Variant::F4x7S2 => {
                let pair = |p: f64| {
                    let (even, odd) = (c(p * p).mul_add(d[2], d[0]), c(p * p).mul_add(d[3], d[1]));
                    [c(p).mul_add(odd, even), c(-p).mul_add(odd, even)]
                };
                let mut y = THREE.map(pair).concat();
                y.push(d[3]);
                y
            }
        }
    }

    /// `Gᵀ m`, one dimension: `n` positions to the taps of a phase; the last of them is none where the phase has one
    /// less.
    pub fn taps<T: Float>(self, m: &[T]) -> Vec<T> {
        let c = |x: f64| T::from(x).unwrap_or_else(T::nan);
        let (sum, difference) = (m[1] + m[2], m[1] - m[2]);
        let half = c(0.5);
        match self {
            Variant::F4x3 | Variant::F4x5S2 => {
                let (sum2, difference2) = (m[3] + m[4], m[3] - m[4]);
                let (a, b) = (std::f64::consts::SQRT_2 / 6.0, -2.0 / 3.0 * std::f64::consts::FRAC_1_SQRT_2);
                vec![
                    c(1.0 / 6.0).mul_add(sum, c(-2.0 / 3.0).mul_add(sum2, m[0])),
                    c(a).mul_add(difference, c(b) * difference2),
                    c(1.0 / 3.0).mul_add(sum - sum2, m[5]),
                ]
            }
            Variant::F2x3 => vec![half.mul_add(sum, m[0]), half * difference, half.mul_add(sum, m[3])],
            Variant::F4x2 | Variant::F4x3S2 | Variant::F4x4S2 => {
                let (sum, difference) = (m[0] + m[1], m[0] - m[1]);
                let (sum2, difference2) = (m[2] + m[3], m[2] - m[3]);
                let [scale, scale2] = SCALES;
                vec![c(scale).mul_add(difference, c(-scale2) * difference2), c(HALF).mul_add(sum - sum2, m[4])]
            }
            Variant::F3x2 | Variant::F3x3S2 => vec![half.mul_add(sum, m[0]), half.mul_add(difference, m[3])],
            Variant::F4x7S2 => {
                let scales = [[0, 1, 2], [1, 0, 2], [2, 0, 1]].map(|[at, a, b]| scale([at, a, b].map(|i| THREE[i])));
                let weighted = |power: i32, [x, y, z]: [T; 3], last: Option<T>| {
                    let [p, q, r]: [f64; 3] = std::array::from_fn(|i| raised(THREE[i], power) * scales[i]);
                    let z = last.map_or(c(r) * z, |last| c(r).mul_add(z, last));
                    c(p).mul_add(x, c(q).mul_add(y, z))
                };
                let sums = [0, 2, 4].map(|i| m[i] + m[i + 1]);
                let differences = [0, 2, 4].map(|i| m[i] - m[i + 1]);
                vec![
                    weighted(0, differences, None),
                    weighted(1, sums, None),
                    weighted(2, differences, None),
                    weighted(3, sums, Some(m[6])),
                ]
            }
        }
    }
}
