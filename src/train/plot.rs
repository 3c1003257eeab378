//! The pictures of a run folder, as SVG.

use super::EpochRecord;
use crate::plot::{BLUE, RED, fault, names, range, svg};
use plotters::prelude::*;

const SIZE: (u32, u32) = (960, 420);

/// A value that is shown for each epoch: legend, colour, value.
type Series = (&'static str, RGBColor, fn(&EpochRecord) -> f64);

/// Loss and accuracy over the epochs, training and test.
pub(super) fn curves(records: &[EpochRecord]) -> Result<String, String> {
    let loss: [Series; 2] = [("training", BLUE, |r| r.train_loss), ("test", RED, |r| r.test_loss)];
    let accuracy: [Series; 2] =
        [("training", BLUE, |r| 100.0 * r.train_accuracy), ("test", RED, |r| 100.0 * r.test_accuracy)];
    svg(SIZE, |root| {
        let (left, right) = root.split_horizontally(SIZE.0 / 2);
        for (area, title, series) in [(left, "Loss", loss), (right, "Accuracy in %", accuracy)] {
            let values = records.iter().flat_map(|r| series.iter().map(|s| s.2(r)));
            let epochs = 0.0..records.last().map_or(1.0, |r| f64::from(r.epoch)).max(1.0);
            let mut chart = ChartBuilder::on(&area)
                .caption(title, ("sans-serif", 18))
                .margin(12)
                .x_label_area_size(36)
                .y_label_area_size(52)
                .build_cartesian_2d(epochs, range(values))
                .map_err(fault)?;
            chart.configure_mesh().x_desc("epoch").light_line_style(WHITE).draw().map_err(fault)?;
            for (name, colour, value) in series {
                let points = || records.iter().map(|r| (f64::from(r.epoch), value(r)));
                chart
                    .draw_series(LineSeries::new(points(), colour.stroke_width(2)))
                    .map_err(fault)?
                    .label(name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
                chart.draw_series(points().map(|p| Circle::new(p, 2, colour.filled()))).map_err(fault)?;
            }
            chart.configure_series_labels().border_style(BLACK.mix(0.3)).draw().map_err(fault)?;
        }
        Ok(())
    })
}

/// The slopes of each layer after the last epoch: mean, and the range from the smallest to the largest.
pub(super) fn slopes(records: &[EpochRecord]) -> Result<String, String> {
    let slopes = records.last().map_or(&[][..], |r| &r.slopes);
    svg(SIZE, |root| {
        let ends = slopes.iter().flat_map(|s| [f64::from(s.min), f64::from(s.max), 0.0]);
        let mut chart = ChartBuilder::on(root)
            .caption("Learned slopes: mean, smallest and largest of each layer", ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(52)
            .build_cartesian_2d(-0.5..slopes.len() as f64 - 0.5 + f64::from(u8::from(slopes.is_empty())), range(ends))
            .map_err(fault)?;
        let layers: Vec<String> = slopes.iter().map(|s| s.layer.clone()).collect();
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(2 * slopes.len().max(1) + 1)
            .x_label_formatter(&names(&layers))
            .light_line_style(WHITE)
            .draw()
            .map_err(fault)?;
        let range = slopes.iter().enumerate().map(|(i, s)| {
            let (x, low, high) = (i as f64, f64::from(s.min), f64::from(s.max));
            PathElement::new([(x, low), (x, high)], BLUE.stroke_width(2))
        });
        chart.draw_series(range).map_err(fault)?;
        let means = slopes.iter().enumerate().map(|(i, s)| Circle::new((i as f64, s.mean), 5, BLUE.filled()));
        chart.draw_series(means).map_err(fault)?;
        Ok(())
    })
}
