//! The picture of a net.

use super::{LayerSummary, Summary};
use std::fmt::Write as _;

const ROW: usize = 26;
const BOX: usize = 20;
const TOP: usize = 74;
const LEFT: usize = 24;
/// Room for a character, for a shape, and for a bar with its number; and the longest bar.
const CHARACTER: usize = 7;
const SHAPE: usize = 120;
const BARS: usize = 190;
const BAR: f64 = 110.0;
/// How far an arrow that jumps goes to the left, for each lane.
const LANE: usize = 10;

/// Fill of a layer's box.
fn colour(kind: &str) -> &'static str {
    match kind {
        "conv" => "#cfe3f5",
        "linear" => "#fbd9b5",
        "batch-norm" => "#e4e0f2",
        "dropout" => "#eeeeee",
        _ => "#d3ecd0",
    }
}

/// Text in XML.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            // What XML 1.0 cannot hold.
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A number with three digits and a unit's letter.
pub(super) fn short(value: f64) -> String {
    let units = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    match units.into_iter().find(|&(unit, _)| value >= unit) {
        Some((unit, letter)) if value / unit >= 99.95 => format!("{:.0} {letter}", value / unit),
        Some((unit, letter)) => format!("{:.1} {letter}", value / unit),
        None => format!("{value:.0}"),
    }
}

/// The first of the lanes that is free over a range of rows, which is taken.
fn lane(lanes: &mut Vec<Vec<(usize, usize)>>, first: usize, last: usize) -> usize {
    let free = |lane: &Vec<(usize, usize)>| lane.iter().all(|&(a, b)| last <= a || b <= first);
    let at = lanes.iter().position(free).unwrap_or(lanes.len());
    if at == lanes.len() {
        lanes.push(Vec::new());
    }
    lanes[at].push((first, last));
    at
}

/// Arrows to layers that read or add something other than the layer before: tensor, layer, lane.
fn jumps(summary: &Summary) -> (Vec<(usize, usize, usize)>, usize) {
    let (mut all, mut lanes) = (Vec::new(), Vec::new());
    for (i, layer) in summary.layers.iter().enumerate() {
        let other = [Some(layer.from).filter(|&f| f != i), layer.add];
        for tensor in other.into_iter().flatten() {
            all.push((tensor, i, lane(&mut lanes, tensor, i + 1)));
        }
    }
    (all, lanes.len())
}

/// Writing to a string cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{ let _ = writeln!($out, $($arg)*); }};
}

fn shape(layer: &LayerSummary) -> String {
    let d = layer.output;
    if (d.h, d.w) == (1, 1) { d.c.to_string() } else { format!("{} × {} × {}", d.c, d.h, d.w) }
}

pub(super) fn draw(summary: &Summary) -> String {
    let (jumps, lanes) = jumps(summary);
    let longest = |of: fn(&LayerSummary) -> &str| {
        CHARACTER * summary.layers.iter().map(|l| of(l).chars().count()).max().unwrap_or(0)
    };
    // A box with its three texts, the shapes' end, the bars' beginnings.
    let x = LEFT + lanes * LANE;
    let what = longest(|l| &l.name).max(60) + 16;
    let wide = what + longest(|l| &l.what) + longest(|l| l.activation) + 24;
    let shapes = x + wide + SHAPE;
    let bars = [shapes + 20, shapes + 20 + BARS];
    let (width, height) = (bars[1] + BARS, TOP + ROW * (summary.layers.len() + 1) + 14);
    let mut out = String::new();
    put!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">"##
    );
    put!(out, r##"<rect width="{width}" height="{height}" fill="#ffffff"/>"##);
    let d = summary.input;
    put!(out, r##"<text x="{LEFT}" y="26" font-size="16" font-weight="bold">{}</text>"##, escape(&summary.name));
    put!(
        out,
        r##"<text x="{LEFT}" y="46" fill="#555555">{} × {} × {}: {} multiplications, {} parameters</text>"##,
        d.c,
        d.h,
        d.w,
        short(summary.multiplications()),
        short(summary.parameters() as f64)
    );
    for (title, at) in ["multiplications", "parameters"].into_iter().zip(bars) {
        put!(out, r##"<text x="{at}" y="{}" fill="#555555">{title}</text>"##, TOP - 8);
    }
    put!(out, r##"<text x="{}" y="{}" fill="#555555" text-anchor="end">output</text>"##, shapes, TOP - 8);
    let y = |tensor: usize| TOP + ROW * tensor;
    put!(out, r##"<rect x="{x}" y="{}" width="{wide}" height="{BOX}" rx="4" fill="#f5f5f5" stroke="#999999"/>"##, y(0));
    put!(out, r##"<text x="{}" y="{}">image</text>"##, x + 8, y(0) + 14);
    put!(out, r##"<text x="{}" y="{}" text-anchor="end">{} × {} × {}</text>"##, shapes, y(0) + 14, d.c, d.h, d.w);
    let most = |of: fn(&LayerSummary) -> f64| summary.layers.iter().map(of).fold(1.0, f64::max);
    let columns: [fn(&LayerSummary) -> f64; 2] = [|l| l.multiplications, |l| l.parameters as f64];
    for (i, layer) in summary.layers.iter().enumerate() {
        let (top, text) = (y(i + 1), y(i + 1) + 14);
        if layer.from == i {
            let (middle, from) = (x + wide / 2, y(i) + BOX);
            put!(out, r##"<line x1="{middle}" y1="{from}" x2="{middle}" y2="{top}" stroke="#999999"/>"##);
        }
        put!(
            out,
            r##"<rect x="{x}" y="{top}" width="{wide}" height="{BOX}" rx="4" fill="{}" stroke="#999999"/>"##,
            colour(layer.kind)
        );
        put!(out, r##"<text x="{}" y="{text}">{}</text>"##, x + 8, escape(&layer.name));
        put!(out, r##"<text x="{}" y="{text}">{}</text>"##, x + what, escape(&layer.what));
        put!(out, r##"<text x="{}" y="{text}" text-anchor="end">{}</text>"##, x + wide - 8, layer.activation);
        put!(out, r##"<text x="{}" y="{text}" text-anchor="end">{}</text>"##, shapes, shape(layer));
        for ((of, start), fill) in columns.into_iter().zip(bars).zip(["#1f77b4", "#ff7f0e"]) {
            let value = of(layer);
            if value > 0.0 {
                let long = (BAR * value / most(of)).max(1.0);
                put!(out, r##"<rect x="{start}" y="{}" width="{long:.1}" height="12" fill="{fill}"/>"##, top + 4);
                let behind = start as f64 + long + 6.0;
                put!(out, r##"<text x="{behind:.1}" y="{text}" fill="#555555">{}</text>"##, short(value));
            }
        }
    }
    for (tensor, layer, lane) in jumps {
        let (from, to, left) = (y(tensor) + 14, y(layer + 1) + 6, x - 8 - lane * LANE);
        put!(out, r##"<path d="M{x} {from} H{left} V{to} H{} l-5 -3 v6 l5 -3" fill="none" stroke="#d62728"/>"##, x);
    }
    out += "</svg>\n";
    out
}
