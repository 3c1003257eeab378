//! The pictures of a study.

use super::{RunRecord, Study};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

const SIZE: (u32, u32) = (1040, 440);
const COLOURS: [RGBColor; 4] =
    [RGBColor(0x1f, 0x77, 0xb4), RGBColor(0xff, 0x7f, 0x0e), RGBColor(0x2c, 0xa0, 0x2c), RGBColor(0xd6, 0x27, 0x28)];

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// A curve of a run.
type Points = Vec<(f64, f64)>;

fn text(e: impl std::fmt::Display) -> String {
    format!("cannot be drawn: {e}")
}

/// The mean of curves at the places that all of them have.
fn mean(curves: &[Points]) -> Points {
    let len = curves.iter().map(Vec::len).min().unwrap_or(0);
    let at = |i: usize| {
        let values: f64 = curves.iter().map(|c| c[i].1).sum();
        (curves[0][i].0, values / curves.len() as f64)
    };
    (0..len).map(at).collect()
}

/// Training loss by step and test error by epoch: a thin line for each run, a thick one for the mean of a variant.
pub(super) fn curves(study: Study, records: &[RunRecord]) -> Result<String, String> {
    let loss = |r: &RunRecord| r.losses.iter().map(|p| (p.step as f64, p.loss)).collect();
    let error = |r: &RunRecord| r.epochs.iter().map(|e| (f64::from(e.epoch), 100.0 * e.test_error)).collect();
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(text)?;
        let (left, right) = root.split_horizontally(SIZE.0 / 2);
        panel(&left, "training loss", "step", study, records, &loss)?;
        panel(&right, "test error in %", "epoch", study, records, &error)?;
        root.present().map_err(text)?;
    }
    Ok(svg)
}

fn panel(
    area: &Area<'_>,
    title: &str,
    x: &str,
    study: Study,
    records: &[RunRecord],
    points: &dyn Fn(&RunRecord) -> Points,
) -> Result<(), String> {
    let all: Vec<(&str, Vec<Points>)> = study
        .variants()
        .iter()
        .map(|v| (v.name, records.iter().filter(|r| r.variant == v.name).map(points).collect()))
        .collect();
    let ends = || all.iter().flat_map(|(_, curves)| curves.iter().flatten());
    let far = ends().map(|p| p.0).fold(1.0, f64::max);
    let (low, high) = ends().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), p| (l.min(p.1), h.max(p.1)));
    let room = ((high - low) * 0.05).max(1e-3);
    let range = if low <= high { low - room..high + room } else { 0.0..1.0 };
    let mut chart: Chart<'_, '_> = ChartBuilder::on(area)
        .caption(format!("{study}: {title}"), ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..far, range)
        .map_err(text)?;
    let label = |x: &f64| if x.fract() == 0.0 { format!("{x:.0}") } else { String::new() };
    chart.configure_mesh().x_desc(x).x_label_formatter(&label).light_line_style(WHITE).draw().map_err(text)?;
    for (colour, (name, curves)) in COLOURS.iter().cycle().zip(&all) {
        for curve in curves {
            chart.draw_series(LineSeries::new(curve.clone(), colour.mix(0.35).stroke_width(1))).map_err(text)?;
        }
        chart
            .draw_series(LineSeries::new(mean(curves), colour.stroke_width(2)))
            .map_err(text)?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .border_style(BLACK.mix(0.3))
        .background_style(WHITE.mix(0.8))
        .draw()
        .map_err(text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_of_what_all_curves_have() {
        assert_eq!(mean(&[]), []);
        assert_eq!(mean(&[vec![(1.0, 2.0), (2.0, 3.0)], vec![(1.0, 4.0)]]), [(1.0, 3.0)]);
    }
}
