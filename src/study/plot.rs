//! The picture of a study.

use super::{LayerScale, Scale};
use crate::plot::{BLUE, BROWN, GREEN, ORANGE, PURPLE, RED, fault, svg};
use plotters::prelude::*;

const SIZE: (u32, u32) = (1040, 440);
const COLOURS: [RGBColor; 6] = [BLUE, RED, GREEN, ORANGE, PURPLE, BROWN];

/// A curve: its name, its layers.
pub type Curve = (String, Vec<LayerScale>);

/// Decades; what is zero or no number is not drawn.
fn points(layers: &[LayerScale], value: impl Fn(&LayerScale) -> f64) -> Vec<(f64, f64)> {
    let decade = |(i, l)| (i as f64 + 1.0, libm::log10(value(l)));
    layers.iter().enumerate().map(decade).filter(|(_, d)| d.is_finite()).collect()
}

/// Draws the scales of some initialisations in the same net, as SVG: forward on the left, backward on the right, each a
/// line with dots as measured and a thin one as derived, over the layers with weights, in decades.
///
/// # Errors
/// What the drawing library says.
pub fn draw(title: &str, curves: &[Curve]) -> Result<String, String> {
    svg(SIZE, |root| {
        let (left, right) = root.split_horizontally(SIZE.0 / 2);
        type Side = fn(&LayerScale) -> Scale;
        let sides: [(_, &str, Side); 2] =
            [(left, "signal y, forward", |l| l.forward), (right, "gradient Δx, backward", |l| l.backward)];
        for (area, name, scale) in sides {
            let all: Vec<_> = curves
                .iter()
                .flat_map(|(_, l)| [points(l, |l| scale(l).measured), points(l, |l| scale(l).derived)])
                .flatten()
                .collect();
            let low = all.iter().map(|p| p.1).fold(0.0, f64::min).floor() - 0.5;
            let high = all.iter().map(|p| p.1).fold(0.0, f64::max).ceil() + 0.5;
            let layers = curves.iter().map(|(_, l)| l.len()).max().unwrap_or(1).max(2) as f64;
            let mut chart = ChartBuilder::on(&area)
                .caption(format!("{title}: {name}"), ("sans-serif", 16))
                .margin(12)
                .x_label_area_size(36)
                .y_label_area_size(60)
                .build_cartesian_2d(1.0..layers, low..high)
                .map_err(fault)?;
            chart
                .configure_mesh()
                .x_desc("layer with weights")
                .y_desc("root mean square")
                .x_label_formatter(&|x| format!("{x:.0}"))
                .y_label_formatter(&|y| if (y - y.round()).abs() < 1e-6 { format!("1e{y:.0}") } else { String::new() })
                .light_line_style(WHITE)
                .draw()
                .map_err(fault)?;
            for (at, (name, layers)) in curves.iter().enumerate() {
                let colour = COLOURS[at % COLOURS.len()];
                let derived = points(layers, |l| scale(l).derived);
                chart.draw_series(LineSeries::new(derived, colour.mix(0.5).stroke_width(1))).map_err(fault)?;
                let measured = points(layers, |l| scale(l).measured);
                chart
                    .draw_series(LineSeries::new(measured.iter().copied(), colour.stroke_width(2)))
                    .map_err(fault)?
                    .label(name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
                chart.draw_series(measured.into_iter().map(|p| Circle::new(p, 3, colour.filled()))).map_err(fault)?;
            }
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::LowerMiddle)
                .border_style(BLACK.mix(0.3))
                .background_style(WHITE.mix(0.8))
                .draw()
                .map_err(fault)?;
        }
        Ok(())
    })
}
