//! The pictures of a study.

use super::slopes::LayerSlopes;
use super::{CostRecord, RunRecord, Spread, Study};
use crate::plot::{Area, BLUE, GREEN, ORANGE, PURPLE, RED, fault, names, range, svg};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

const SIZE: (u32, u32) = (1040, 440);
const COLOURS: [RGBColor; 5] = [BLUE, ORANGE, PURPLE, GREEN, RED];

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// A curve of a run.
type Points = Vec<(f64, f64)>;

/// The mean of the longest curves: those of runs that have got as far as any.
fn mean(curves: &[Points]) -> Points {
    let len = curves.iter().map(Vec::len).max().unwrap_or(0);
    let longest: Vec<&Points> = curves.iter().filter(|c| c.len() == len).collect();
    let at = |i: usize| {
        let values: f64 = longest.iter().map(|c| c[i].1).sum();
        (longest[0][i].0, values / longest.len() as f64)
    };
    (0..len).map(at).collect()
}

/// Training loss by step and test error by epoch: a thin line for each run, a thick one for the mean of a variant.
pub(super) fn curves(study: Study, records: &[RunRecord]) -> Result<String, String> {
    let loss = |r: &RunRecord| r.losses.iter().map(|p| (p.step as f64, p.loss)).collect();
    let error = |r: &RunRecord| r.epochs.iter().map(|e| (f64::from(e.epoch), 100.0 * e.test_error)).collect();
    svg(SIZE, |root| {
        let (left, right) = root.split_horizontally(SIZE.0 / 2);
        panel(&left, "training loss", "step", study, records, &loss)?;
        panel(&right, "test error in %", "epoch", study, records, &error)?;
        Ok(())
    })
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
    let mut chart: Chart<'_, '_> = ChartBuilder::on(area)
        .caption(format!("{study}: {title}"), ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..far, range(ends().map(|p| p.1)))
        .map_err(fault)?;
    let label = |x: &f64| if x.fract() == 0.0 { format!("{x:.0}") } else { String::new() };
    chart.configure_mesh().x_desc(x).x_label_formatter(&label).light_line_style(WHITE).draw().map_err(fault)?;
    for (colour, (name, curves)) in COLOURS.iter().cycle().zip(&all) {
        for curve in curves {
            chart.draw_series(LineSeries::new(curve.clone(), colour.mix(0.35).stroke_width(1))).map_err(fault)?;
        }
        chart
            .draw_series(LineSeries::new(mean(curves), colour.stroke_width(2)))
            .map_err(fault)?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    legend(&mut chart)
}

/// Slopes by layer: means of the seeds with their deviations, and the paper's.
pub(super) fn slopes(layers: &[LayerSlopes]) -> Result<String, String> {
    type Value = fn(&LayerSlopes) -> Option<Spread>;
    let series: [(&str, usize, Value); 4] = [
        ("shared", 0, |l| l.shared),
        ("channel-wise, mean", 3, |l| l.channel_wise),
        ("shared, paper", 0, |l| l.paper.map(|p| Spread::exact(p.0))),
        ("channel-wise, paper", 3, |l| l.paper.map(|p| Spread::exact(p.1))),
    ];
    let ends = layers.iter().flat_map(|l| series.iter().filter_map(|s| s.2(l)));
    let ends = ends.flat_map(|s| [s.mean - s.deviation.unwrap_or(0.0), s.mean + s.deviation.unwrap_or(0.0)]);
    let (low, high) = ends.fold((0.0, 0.5), |(l, h), v| (v.min(l), v.max(h)));
    let labels: Vec<String> = layers.iter().map(|l| l.layer.clone()).collect();
    svg(SIZE, |root| {
        let mut chart: Chart<'_, '_> = ChartBuilder::on(root)
            .caption("learned slopes by layer", ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(52)
            .build_cartesian_2d(-0.5..layers.len().max(1) as f64 - 0.5, low - 0.02..high + 0.02)
            .map_err(fault)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(2 * layers.len().max(1) + 1)
            .x_label_formatter(&names(&labels))
            .light_line_style(WHITE)
            .draw()
            .map_err(fault)?;
        for (at, (name, colour, value)) in series.into_iter().enumerate() {
            let (colour, ours) = (COLOURS[colour], at < 2);
            let style = if ours { colour.stroke_width(2) } else { colour.mix(0.45).stroke_width(1) };
            let spreads: Vec<(f64, Spread)> =
                layers.iter().enumerate().filter_map(|(i, l)| Some((i as f64, value(l)?))).collect();
            let means = || spreads.iter().map(|(x, s)| (*x, s.mean));
            let bars = spreads.iter().filter_map(|(x, s)| Some((*x, s.mean, s.deviation?)));
            let bars = bars.map(|(x, m, d)| PathElement::new([(x, m - d), (x, m + d)], style));
            chart.draw_series(bars).map_err(fault)?;
            chart
                .draw_series(LineSeries::new(means(), style))
                .map_err(fault)?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
            let radius = if ours { 4 } else { 2 };
            chart.draw_series(means().map(|p| Circle::new(p, radius, style.filled()))).map_err(fault)?;
        }
        legend(&mut chart)?;
        Ok(())
    })
}

/// The time of a step against that of the first rectifier: a bar each, net by net.
pub(super) fn costs(records: &[CostRecord]) -> Result<String, String> {
    let labels: Vec<String> = records.iter().map(|r| format!("{}, batch {}", r.model, r.batch)).collect();
    let all = || records.iter().flat_map(|r| r.rectifiers.iter());
    let high = all().map(|c| c.against).fold(1.0, f64::max) * 1.35;
    let most = records.iter().map(|r| r.rectifiers.len()).max().unwrap_or(1).max(1) as f64;
    svg(SIZE, |root| {
        let first = records.first().and_then(|r| r.rectifiers.first()).map_or("", |c| c.variant);
        let mut chart: Chart<'_, '_> = ChartBuilder::on(root)
            .caption(format!("time of a training step against {first}"), ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(52)
            .build_cartesian_2d(-0.5..records.len().max(1) as f64 - 0.5, 0.0..high)
            .map_err(fault)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(2 * records.len().max(1) + 1)
            .x_label_formatter(&names(&labels))
            .light_line_style(WHITE)
            .draw()
            .map_err(fault)?;
        let variants: Vec<&str> =
            records.first().map_or(Vec::new(), |r| r.rectifiers.iter().map(|c| c.variant).collect());
        for (at, (name, colour)) in variants.into_iter().zip(COLOURS.iter().cycle()).enumerate() {
            let bars = records.iter().enumerate().filter_map(|(i, r)| {
                let left = i as f64 - 0.4 + 0.8 * at as f64 / most;
                let corners = [(left, 0.0), (left + 0.72 / most, r.rectifiers.get(at)?.against)];
                Some(Rectangle::new(corners, colour.filled()))
            });
            chart
                .draw_series(bars)
                .map_err(fault)?
                .label(name)
                .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 12, y + 4)], colour.filled()));
        }
        legend(&mut chart)?;
        Ok(())
    })
}

fn legend<'a>(chart: &mut Chart<'a, 'a>) -> Result<(), String> {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .border_style(BLACK.mix(0.3))
        .background_style(WHITE.mix(0.8))
        .draw()
        .map_err(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_of_the_longest_curves() {
        assert_eq!(mean(&[]), []);
        let long = [vec![(1.0, 2.0), (2.0, 3.0)], vec![(1.0, 9.0)], vec![(1.0, 4.0), (2.0, 7.0)]];
        assert_eq!(mean(&long), [(1.0, 3.0), (2.0, 5.0)]);
    }
}
