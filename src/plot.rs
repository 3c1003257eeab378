//! What the pictures of runs and studies have in common.

use plotters::coord::Shift;
use plotters::prelude::*;

pub(crate) const BLUE: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
pub(crate) const RED: RGBColor = RGBColor(0xd6, 0x27, 0x28);
pub(crate) const GREEN: RGBColor = RGBColor(0x2c, 0xa0, 0x2c);
pub(crate) const ORANGE: RGBColor = RGBColor(0xff, 0x7f, 0x0e);
pub(crate) const PURPLE: RGBColor = RGBColor(0x94, 0x67, 0xbd);
pub(crate) const BROWN: RGBColor = RGBColor(0x8c, 0x56, 0x4b);

/// Where is drawn.
pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// What the drawing library says, as an error.
pub(crate) fn fault(e: impl std::fmt::Display) -> String {
    format!("cannot be drawn: {e}")
}

/// A picture of that many pixels, as SVG.
pub(crate) fn svg(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Result<(), String>) -> Result<String, String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE).map_err(fault)?;
        draw(&root)?;
        root.present().map_err(fault)?;
    }
    Ok(svg)
}

/// The range of some values, a little wider.
pub(crate) fn range(values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if low > high {
        return 0.0..1.0;
    }
    let room = ((high - low) * 0.05).max(1e-3);
    low - room..high + room
}

/// Names under the whole numbers of an axis, from 0.
pub(crate) fn names<'n>(names: &'n [String]) -> impl Fn(&f64) -> String + 'n {
    |x: &f64| {
        let whole = (x - x.round()).abs() < 0.01 && *x > -0.1;
        names.get(x.round() as usize).filter(|_| whole).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_room_and_is_never_empty() {
        assert_eq!(range([].into_iter()), 0.0..1.0);
        assert_eq!(range([2.0, f64::NAN, 2.0].into_iter()), 2.0 - 1e-3..2.0 + 1e-3);
        assert_eq!(range([0.0, 20.0, 10.0].into_iter()), -1.0..21.0);
    }

    #[test]
    fn names_stand_under_whole_numbers() {
        let layers = ["a", "b"].map(String::from);
        let at = names(&layers);
        assert_eq!([-1.0, -0.5, 0.0, 0.5, 1.0, 2.0].map(|x| at(&x)), ["", "", "a", "", "b", ""]);
    }
}
