//! The learned slopes, layer by layer, beside the paper's.

use super::report::cell;
use super::{Run, RunRecord, Spread};

/// He et al. 2015, Table 1: the slopes that the 14-layer net has learned from ImageNet: shared, mean of channel-wise.
const TABLE_1: [(&str, (f64, f64)); 13] = [
    ("conv1", (0.681, 0.596)),
    ("conv2_1", (0.103, 0.321)),
    ("conv2_2", (0.099, 0.204)),
    ("conv2_3", (0.228, 0.294)),
    ("conv2_4", (0.561, 0.464)),
    ("conv3_1", (0.126, 0.196)),
    ("conv3_2", (0.089, 0.152)),
    ("conv3_3", (0.124, 0.145)),
    ("conv3_4", (0.062, 0.124)),
    ("conv3_5", (0.008, 0.134)),
    ("conv3_6", (0.210, 0.198)),
    ("fc1", (0.063, 0.074)),
    ("fc2", (0.031, 0.075)),
];

/// The slopes of a layer over the seeds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LayerSlopes {
    pub layer: String,
    /// The one of all channels.
    pub shared: Option<Spread>,
    /// The mean of the channels.
    pub channel_wise: Option<Spread>,
    /// The smallest and the largest of all channels and seeds.
    pub ends: Option<(f32, f32)>,
    /// What Table 1 says of the layer: shared, mean of channel-wise.
    pub paper: Option<(f64, f64)>,
}

/// The slopes that the finished runs ended with.
pub(super) fn layers(records: &[RunRecord]) -> Vec<LayerSlopes> {
    let ended = |variant: &'static str| {
        let finished = records.iter().filter(move |r| r.finished && r.variant == variant);
        finished.filter_map(|r| r.epochs.last()).map(|e| &e.slopes)
    };
    let Some(first) = ended("channel-wise").chain(ended("shared")).next() else { return Vec::new() };
    let layer = |(at, name): (usize, &String)| {
        let of = |variant| ended(variant).filter_map(move |s| s.get(at));
        let spread = |variant| Spread::of(&of(variant).map(|s| s.mean).collect::<Vec<_>>());
        let low = of("channel-wise").map(|s| s.min).reduce(f32::min);
        LayerSlopes {
            shared: spread("shared"),
            channel_wise: spread("channel-wise"),
            ends: low.zip(of("channel-wise").map(|s| s.max).reduce(f32::max)),
            paper: TABLE_1.iter().find(|(layer, _)| layer == name).map(|(_, slopes)| *slopes),
            layer: name.clone(),
        }
    };
    let names: Vec<String> = first.iter().map(|s| s.layer.clone()).collect();
    names.iter().enumerate().map(layer).collect()
}

pub(super) fn table(layers: &[LayerSlopes], records: &[RunRecord], runs: &[Run]) -> String {
    let mut text = String::from(
        "| layer | shared | channel-wise, mean | smallest, largest | paper: shared | paper: channel-wise, mean |\n\
         |---|---|---|---|---|---|\n",
    );
    let spread = |s: Option<Spread>| s.map_or("–".into(), |s| s.text(3));
    for l in layers {
        let ends = l.ends.map_or("–".into(), |(low, high)| format!("{low:.3}, {high:.3}"));
        let paper = |v: Option<f64>| cell(v.into_iter(), 3);
        let (shared, channel_wise) = (paper(l.paper.map(|p| p.0)), paper(l.paper.map(|p| p.1)));
        text += &format!(
            "| {} | {} | {} | {ends} | {shared} | {channel_wise} |\n",
            l.layer,
            spread(l.shared),
            spread(l.channel_wise)
        );
    }
    let finished = records.iter().filter(|r| r.finished).count();
    text += &format!(
        "\nMean ± sample standard deviation over the seeds, of {finished} finished runs of {}; all slopes start at 0.25. \
         Smallest, largest: of all channels and seeds. Paper: He et al. 2015, Table 1.\n",
        runs.len()
    );
    text
}
