//! In which order the tiles of a block lie in its transforms and products.
//!
//! Tiles that have fewer positions than others (see [`Axis`](crate::reference::winograd::Axis)) lie where those that
//! have a given position are neighbours: first the tiles of a shorter last row, then those that lack nothing, then
//! those of a narrower last column, last those that lack both. Rows of positions that the last row lacks are then those
//! from the second kind to the third, columns that the last column lacks those of the first two kinds.

use super::Winograd;
use std::ops::Range;

/// Image, row and column of a tile, counted in tiles.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub image: usize,
    pub row: usize,
    pub col: usize,
}

/// One tile of a part of each image after the other, without a division for each.
#[derive(Debug, Clone)]
pub(super) struct Places {
    rows: Range<usize>,
    cols: Range<usize>,
    /// From an image to the next.
    step: usize,
    next: Place,
}

impl Iterator for Places {
    type Item = Place;

    #[inline(always)]
    fn next(&mut self) -> Option<Place> {
        Some(self.neighbours(1).0)
    }
}

impl Places {
    /// The next tile, and how many of a row it begins, so many at most, 1 at least: all these are taken.
    #[inline(always)]
    pub fn neighbours(&mut self, most: usize) -> (Place, usize) {
        let place = self.next;
        let count = most.min(self.cols.end - place.col);
        self.next.col += count;
        if self.next.col == self.cols.end {
            (self.next.row, self.next.col) = (place.row + 1, self.cols.start);
            if self.next.row == self.rows.end {
                (self.next.image, self.next.row) = (place.image + self.step, self.rows.start);
            }
        }
        (place, count)
    }
}

/// What the tiles of a kind lack: rows of positions, as the lowest of an image may, columns, as the rightmost may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    rows: bool,
    cols: bool,
}

/// The kinds in their order.
const KINDS: [Kind; 4] = [
    Kind { rows: true, cols: false },
    Kind { rows: false, cols: false },
    Kind { rows: false, cols: true },
    Kind { rows: true, cols: true },
];

/// The order of a block of tiles: where in it each kind begins, and its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    bounds: [usize; 5],
    /// Tiles of each kind before the block's.
    before: [usize; 4],
    /// Positions along each axis that the last row's and the last column's tiles lack.
    lacks: [(usize, usize); 2],
}

/// Some neighbouring tiles of a kind: outputs along each axis, 0 where these are all; where in the block they are,
/// where in their images.
#[derive(Debug, Clone)]
pub(super) struct Stretch {
    pub k: [usize; 2],
    pub tiles: Range<usize>,
    pub places: Places,
}

impl Order {
    /// Which tiles have a position.
    #[inline(always)]
    pub fn having(&self, position: [usize; 2]) -> Range<usize> {
        let is_lacked = |axis: usize| (self.lacks[axis].0..self.lacks[axis].1).contains(&position[axis]);
        let first = if is_lacked(0) { 1 } else { 0 };
        let end = match (is_lacked(0), is_lacked(1)) {
            (false, false) => 4,
            (true, false) => 3,
            (_, true) => 2,
        };
        self.bounds[first]..self.bounds[end]
    }
}

impl Stretch {
    /// Whether its tiles have all positions.
    pub fn is_whole(&self) -> bool {
        self.k == [0, 0]
    }
}

impl Winograd {
    /// Outputs along each axis that the last tile has, where these are fewer than others have and it lacks positions
    /// therefore; else 0.
    pub(super) fn edges(&self) -> [usize; 2] {
        let m = self.variant.m();
        [self.output.h, self.output.w].map(|size| if self.variant.has_edges() { size % m } else { 0 })
    }

    /// The rows and columns of an image's tiles that are of a kind.
    fn of_kind(&self, kind: Kind) -> [Range<usize>; 2] {
        let (edges, (rows, cols)) = (self.edges(), self.grid());
        let range = |count: usize, edge: usize, lacks: bool| {
            let whole = count - usize::from(edge > 0);
            if lacks { whole..count } else { 0..whole }
        };
        [range(rows, edges[0], kind.rows), range(cols, edges[1], kind.cols)]
    }

    /// The order of some tiles, counted over all images.
    pub(super) fn order(&self, tiles: Range<usize>) -> Order {
        let (n, edges, (rows, cols)) = (self.variant.n(), self.edges(), self.grid());
        let lacks = edges.map(|k| if k > 0 { (self.variant.finite(k), n - 1) } else { (n, n) });
        if edges == [0, 0] {
            let bounds = [0, 0, tiles.len(), tiles.len(), tiles.len()];
            return Order { bounds, before: [0, tiles.start, 0, 0], lacks };
        }
        let split = |tile: usize| (tile / (rows * cols), tile % (rows * cols) / cols, tile % cols);
        let (start, end) = (split(tiles.start), split(tiles.end));
        let (mut bounds, mut before) = ([0; 5], [0; 4]);
        for (i, kind) in KINDS.into_iter().enumerate() {
            let [of_rows, of_cols] = self.of_kind(kind);
            // Tiles of the kind before a tile.
            let count = |(image, row, col): (usize, usize, usize)| {
                let above = row.clamp(of_rows.start, of_rows.end) - of_rows.start;
                let left =
                    if of_rows.contains(&row) { col.clamp(of_cols.start, of_cols.end) - of_cols.start } else { 0 };
                (image * of_rows.len() + above) * of_cols.len() + left
            };
            before[i] = count(start);
            bounds[i + 1] = bounds[i] + count(end) - before[i];
        }
        Order { bounds, before, lacks }
    }

    /// Kind by kind those of a block's tiles that lie there in its order.
    pub(super) fn stretches(&self, order: Order, tiles: Range<usize>) -> impl Iterator<Item = Stretch> {
        let (of_kind, edges) = (KINDS.map(|kind| self.of_kind(kind)), self.edges());
        (0..KINDS.len()).filter_map(move |i| {
            let tiles = order.bounds[i].max(tiles.start)..order.bounds[i + 1].min(tiles.end);
            let [rows, cols] = of_kind[i].clone();
            if tiles.is_empty() {
                return None;
            }
            let number = order.before[i] + tiles.start - order.bounds[i];
            let (row, col) = (number / cols.len() % rows.len(), number % cols.len());
            let image = number / (rows.len() * cols.len());
            let (image, step) = (image * self.groups + self.group, self.groups);
            let next = Place { image, row: rows.start + row, col: cols.start + col };
            let Kind { rows: lacks_rows, cols: lacks_cols } = KINDS[i];
            let k = [if lacks_rows { edges[0] } else { 0 }, if lacks_cols { edges[1] } else { 0 }];
            Some(Stretch { k, tiles, places: Places { rows, cols, step, next } })
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::ConvShape;
    use crate::conv::Options;
    use crate::conv::winograd::Winograd;
    use crate::reference::winograd::Variant;

    /// Every tile of a block has one place, and those with a position are neighbours.
    #[test]
    fn tiles_with_a_position_are_neighbours() {
        for (variant, [ih, iw]) in [
            (Variant::F4x3, [14, 9]),
            (Variant::F4x3, [8, 3]),
            (Variant::F3x2, [3, 9]),
            (Variant::F4x2, [6, 8]),
            (Variant::F4x3S2, [14, 14]),
        ] {
            let s = ConvShape { iw, ..ConvShape::square(3, 16, ih, 16, variant.r(), variant.stride(), 1) };
            let plan = Winograd::new(variant, &s, &Options::default());
            let ((rows, cols), total) = (plan.grid(), plan.total());
            for block in (0..total).flat_map(|start| (start + 1..=total).map(move |end| start..end)) {
                let order = plan.order(block.clone());
                let mut found = Vec::new();
                for stretch in plan.stretches(order, 0..block.len()) {
                    for (tile, place) in stretch.tiles.zip(stretch.places) {
                        assert_eq!(tile, found.len());
                        found.push((place.image * rows + place.row) * cols + place.col);
                        let axes = [
                            variant.axis(place.row * variant.m(), s.oh()),
                            variant.axis(place.col * variant.m(), s.ow()),
                        ];
                        for (i, j) in (0..variant.n()).flat_map(|i| (0..variant.n()).map(move |j| (i, j))) {
                            let has = axes[0].positions().contains(&i) && axes[1].positions().contains(&j);
                            assert_eq!(order.having([i, j]).contains(&tile), has, "{variant:?} {tile} {i} {j}");
                        }
                    }
                }
                found.sort_unstable();
                assert!(found.into_iter().eq(block));
            }
        }
    }
}
