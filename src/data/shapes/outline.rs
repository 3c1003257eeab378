//! The shapes, as signed distances: negative inside, positive outside, in units of the shape's radius.

/// A point, or a vector.
pub(super) type Point = [f32; 2];

/// A shape within the unit circle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outline {
    Disc,
    Square,
    Triangle,
    Cross,
    Ring,
    Star,
    Crescent,
    HalfDisc,
    Stripes,
    Frame,
    Arrow,
    Hourglass,
}

const SQUARE: [Point; 4] = [[-0.75, -0.75], [0.75, -0.75], [0.75, 0.75], [-0.75, 0.75]];
const TRIANGLE: [Point; 3] = [[0.0, -1.0], [0.866, 0.5], [-0.866, 0.5]];
const CROSS: [Point; 12] = [
    [-0.3, -0.95],
    [0.3, -0.95],
    [0.3, -0.3],
    [0.95, -0.3],
    [0.95, 0.3],
    [0.3, 0.3],
    [0.3, 0.95],
    [-0.3, 0.95],
    [-0.3, 0.3],
    [-0.95, 0.3],
    [-0.95, -0.3],
    [-0.3, -0.3],
];
/// Five tips on the unit circle, the corners between them at radius 0.4.
const STAR: [Point; 10] = [
    [0.0, -1.0],
    [0.235, -0.324],
    [0.951, -0.309],
    [0.38, 0.124],
    [0.588, 0.809],
    [0.0, 0.4],
    [-0.588, 0.809],
    [-0.38, 0.124],
    [-0.951, -0.309],
    [-0.235, -0.324],
];
const ARROW: [Point; 7] =
    [[0.0, -1.0], [0.8, -0.1], [0.28, -0.1], [0.28, 0.9], [-0.28, 0.9], [-0.28, -0.1], [-0.8, -0.1]];
const HOURGLASS: [Point; 6] = [[-0.7, -0.85], [0.7, -0.85], [0.1, 0.0], [0.7, 0.85], [-0.7, 0.85], [-0.1, 0.0]];

impl Outline {
    /// Every shape, in the order of the labels.
    pub(super) const ALL: [Outline; 12] = [
        Outline::Disc,
        Outline::Square,
        Outline::Triangle,
        Outline::Cross,
        Outline::Ring,
        Outline::Star,
        Outline::Crescent,
        Outline::HalfDisc,
        Outline::Stripes,
        Outline::Frame,
        Outline::Arrow,
        Outline::Hourglass,
    ];

    /// The name of the class.
    pub(super) fn name(self) -> &'static str {
        match self {
            Outline::Disc => "disc",
            Outline::Square => "square",
            Outline::Triangle => "triangle",
            Outline::Cross => "cross",
            Outline::Ring => "ring",
            Outline::Star => "star",
            Outline::Crescent => "crescent",
            Outline::HalfDisc => "half-disc",
            Outline::Stripes => "stripes",
            Outline::Frame => "frame",
            Outline::Arrow => "arrow",
            Outline::Hourglass => "hourglass",
        }
    }

    /// Signed distance of `p` from the outline.
    pub(super) fn distance(self, p: Point) -> f32 {
        match self {
            Outline::Disc => length(p) - 0.9,
            Outline::Square => polygon(&SQUARE, p),
            Outline::Triangle => polygon(&TRIANGLE, p),
            Outline::Cross => polygon(&CROSS, p),
            Outline::Ring => (length(p) - 0.7).abs() - 0.2,
            Outline::Star => polygon(&STAR, p),
            Outline::Crescent => (length(p) - 0.95).max(0.8 - length([p[0] - 0.5, p[1]])),
            Outline::HalfDisc => (length([p[0], p[1] - 0.4]) - 0.95).max(p[1] - 0.4),
            Outline::Stripes => bar(p, -0.65).min(bar(p, 0.0)).min(bar(p, 0.65)),
            Outline::Frame => (polygon(&SQUARE, p) + 0.15).abs() - 0.15,
            Outline::Arrow => polygon(&ARROW, p),
            Outline::Hourglass => polygon(&HOURGLASS, p),
        }
    }
}

/// Length of a vector.
pub(super) fn length([x, y]: Point) -> f32 {
    (x * x + y * y).sqrt()
}

/// Distance from a flat bar with its middle at height `y`.
fn bar([x, py]: Point, y: f32) -> f32 {
    (x.abs() - 0.85).max((py - y).abs() - 0.18)
}

/// Distance from the segment `a` to `b`.
pub(super) fn segment(a: Point, b: Point, p: Point) -> f32 {
    let (edge, to) = ([b[0] - a[0], b[1] - a[1]], [p[0] - a[0], p[1] - a[1]]);
    let along = (to[0] * edge[0] + to[1] * edge[1]) / (edge[0] * edge[0] + edge[1] * edge[1]);
    let along = along.clamp(0.0, 1.0);
    length([to[0] - edge[0] * along, to[1] - edge[1] * along])
}

/// Distance from a closed polygon, negative inside (where a ray crosses the outline an odd number of times).
fn polygon(corners: &[Point], p: Point) -> f32 {
    let mut nearest = f32::MAX;
    let mut inside = false;
    for (i, &b) in corners.iter().enumerate() {
        let a = corners[(i + corners.len() - 1) % corners.len()];
        nearest = nearest.min(segment(a, b, p));
        let crosses = (a[1] > p[1]) != (b[1] > p[1]);
        if crosses && p[0] < (b[0] - a[0]) * (p[1] - a[1]) / (b[1] - a[1]) + a[0] {
            inside = !inside;
        }
    }
    if inside { -nearest } else { nearest }
}
