//! How the units' work is shared out: by spans of images, by blocks of output channels, by rows.

use super::Direct;
use crate::conv::tile::ROWS;
use crate::reference::conv::GROUP;
use crate::{blocks, task};
use std::ops::Range;

/// Register tiles that a part of a unit has at least.
const FEWEST: usize = 4;
/// The same where something is copied.
const FEWEST_COPIED: usize = 2;

/// What a part takes to copy its inputs, in products of one vector for a row.
const COPIES: usize = 8;
/// What it takes to read the gradients of a block of output channels, in the same.
const READ: usize = 6;

/// Into how many parts each unit is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts {
    /// Of its blocks of output channels, and of its rows.
    pub panels: usize,
    pub rows: usize,
}

impl Parts {
    /// Parts of a unit.
    pub fn count(self) -> usize {
        self.panels * self.rows
    }
}

/// A part of a unit: its group of channels, blocks of input and of output channels, and which of its rows.
pub(super) struct Part {
    pub group: usize,
    pub inputs: Range<usize>,
    pub panel: Range<usize>,
    pub rows: Range<usize>,
}

impl Direct {
    /// Whether inputs or output gradients are copied. Each part copies the inputs again, and parts of rows both.
    fn copies(&self) -> bool {
        self.copy_x || self.copy_dy
    }

    /// Rows of a unit's blocks of input channels.
    fn rows_of(&self, inputs: usize) -> usize {
        self.offsets.len() / self.inputs * inputs
    }

    /// Into how many parts the rows of a unit may be cut, so that each has some tiles. Small groups have no parts.
    fn most_row_parts(&self) -> usize {
        let fewest = if self.copies() { FEWEST_COPIED } else { FEWEST };
        let rows = self.rows_of(blocks(self.gic) / self.input_parts());
        if self.by_lanes.is_some_and(|group| group > 1) { 1 } else { (rows / (fewest * ROWS)).max(1) }
    }

    /// Into how many parts units are cut where they and spans are few for the threads: if something is copied, so that
    /// the last thread ends as early as may be; if not, by rows alone, and threads may as well have several tasks each.
    pub(super) fn parts(&self, threads: usize) -> Parts {
        let tasks = (self.units() * self.spans(threads).0).max(1);
        let most = self.most_row_parts();
        let whole = Parts { panels: 1, rows: 1 };
        if threads == 1 || tasks >= 4 * threads {
            return whole;
        }
        if !self.copies() {
            return Parts { rows: (4 * threads).div_ceil(tasks).min(most), ..whole };
        }
        let is_wide = self.isa.tile_vectors() > 1;
        let time = |parts: &Parts| {
            let rows = self.offsets.len().div_ceil(parts.rows);
            let vectors = self.panel.div_ceil(parts.panels);
            // Of vectors that are one register a tile of a single one has too few chains: a third more time.
            let waits = if vectors == 1 && is_wide { rows / 3 } else { 0 };
            let products = rows * vectors + waits;
            (tasks * parts.count()).div_ceil(threads) * (products + READ * vectors + COPIES)
        };
        let fewest_blocks = blocks(self.goc) / self.panels();
        // More than a few tasks a thread are never wanted.
        let most = most.min(4 * threads);
        (1..=fewest_blocks)
            .flat_map(|panels| (1..=most).map(move |rows| Parts { panels, rows }))
            .min_by_key(time)
            .unwrap_or(whole)
    }

    /// Part `i` of those of all units.
    pub(super) fn part(&self, parts: Parts, i: usize) -> Part {
        let (unit, i) = (i / parts.count(), i % parts.count());
        let (unit, panel) = (unit / self.panels(), unit % self.panels());
        let (group, input) = (unit / self.input_parts(), unit % self.input_parts());
        let inputs = task::part(blocks(self.gic), self.input_parts(), input);
        let panel = task::part(blocks(self.goc), self.panels(), panel);
        let of = task::part(panel.len(), parts.panels, i / parts.rows);
        let rows = task::part(self.rows_of(inputs.len()), parts.rows, i % parts.rows);
        Part { group, inputs, panel: panel.start + of.start..panel.start + of.end, rows }
    }

    /// Into how many aligned spans (of `2^j` groups of images) the images are cut so that all threads have work.
    pub(super) fn spans(&self, threads: usize) -> (usize, usize) {
        let groups = self.shape.n.div_ceil(GROUP);
        let mut span = groups.next_power_of_two();
        // Parts of rows that copy nothing cost less than sums of each span.
        let units = self.units() * if self.copies() { 1 } else { self.most_row_parts() };
        while threads > 1 && span > 1 && units * groups.div_ceil(span) < 2 * threads {
            span /= 2;
        }
        (groups.div_ceil(span), span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::Options;
    use crate::{ConvShape, Isa};

    fn plan(s: &ConvShape) -> Direct {
        Direct::new(Isa::Portable, s, &Options::default())
    }

    /// First layers and others of a single unit, of one image and of a few.
    #[test]
    fn two_threads_have_as_much_to_do() {
        for (images, ic, side, oc, kernel, stride) in [
            (1, 3, 32, 64, 3, 1),
            (4, 3, 112, 64, 3, 2),
            (4, 8, 56, 32, 3, 2),
            (4, 12, 64, 12, 3, 1),
            (1, 1, 28, 32, 5, 1),
        ] {
            let s = ConvShape::square(images, ic, side, oc, kernel, stride, kernel / 2);
            let plan = plan(&s);
            let (parts, mut work) = (plan.parts(2), [0; 2]);
            assert_eq!((plan.units(), plan.spans(2).0), (1, 1), "{s:?}");
            for i in 0..parts.count() {
                let part = plan.part(parts, i);
                work[i % 2] += part.panel.len() * part.rows.len();
            }
            assert!(work[0].abs_diff(work[1]) * 10 <= work[0] + work[1], "{s:?}: {parts:?} {work:?}");
        }
    }

    /// Each row of each block of output channels of each unit belongs to one part.
    #[test]
    fn parts_are_all_of_the_units() {
        for (ic, oc, groups, kernel) in [
            (3, 64, 1, 3),
            (40, 80, 1, 3),
            (12, 150, 1, 3),
            (64, 96, 2, 3),
            (24, 24, 24, 3),
            (8, 8, 2, 3),
            // Nothing is copied, and units have several blocks of input channels.
            (300, 40, 1, 1),
            (600, 64, 1, 1),
        ] {
            let s = ConvShape { groups, ..ConvShape::square(2, ic, 9, oc, kernel, 1, kernel / 2) };
            let plan = plan(&s);
            for threads in 1..20 {
                let parts = plan.parts(threads);
                let mut seen = std::collections::BTreeSet::new();
                for part in (0..plan.units() * parts.count()).map(|i| plan.part(parts, i)) {
                    assert!(!part.panel.is_empty() && !part.rows.is_empty(), "{s:?} {threads}");
                    let places = part.panel.clone().flat_map(|out| part.rows.clone().map(move |row| (out, row)));
                    for (out, row) in places {
                        assert!(seen.insert((part.group, part.inputs.start, out, row)), "{s:?} {threads}");
                    }
                }
                let rows: usize = blocks(plan.gic) * plan.rows_of(1);
                assert_eq!(seen.len(), plan.groups * rows * blocks(plan.goc), "{s:?} {threads}");
            }
        }
    }
}
