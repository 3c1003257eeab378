//! Batch norms folded into the weights and biases of the layers beside them: in `f64`, rounded once.

use super::Parameters;
use rectify_kernels::Error;

/// What a batch norm adds to the variance.
pub const EPSILON: f64 = 1e-5;

/// A batch norm: where its four parameters begin, and its channels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Norm {
    pub first: usize,
    pub channels: usize,
}

/// What a batch norm does to a channel: `scale·x + shift`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Map {
    pub scale: f64,
    pub shift: f64,
}

impl Norm {
    /// What it does to each channel.
    pub fn maps(&self, parameters: &Parameters) -> Result<Vec<Map>, Error> {
        let of = |i: usize| {
            let value: &[f32] = parameters.get(self.first + i).map_or(&[], |p| &p.value);
            let (got, want) = (value.len(), self.channels);
            if got == want { Ok(value) } else { Err(Error::Length { what: "batch norm's parameter", got, want }) }
        };
        let (scale, shift, mean, variance) = (of(0)?, of(1)?, of(2)?, of(3)?);
        let map = |c: usize| {
            let spread = f64::from(variance[c]) + EPSILON;
            if spread.is_nan() || spread <= 0.0 {
                let (what, value) = ("variance", format!("{} in channel {c}", variance[c]));
                return Err(Error::Value { what, value, why: "is not at least 0" });
            }
            let scale = f64::from(scale[c]) / spread.sqrt();
            Ok(Map { scale, shift: f64::from(shift[c]) - f64::from(mean[c]) * scale })
        };
        (0..self.channels).map(map).collect()
    }
}

/// Weights `[outputs][inputs of a group][taps]` of a convolution or a fully connected layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    pub outputs: usize,
    pub inputs: usize,
    pub taps: usize,
    pub groups: usize,
}

/// A layer that does what it and the batch norms beside it did.
#[derive(Debug, PartialEq)]
pub(super) struct Folded {
    pub weights: Vec<f32>,
    pub bias: Vec<f32>,
}

impl Grid {
    /// Folds `before`, whose output the layer read, and `behind`, which read the layer's output:
    /// `w' = behind·w·before` and `b' = behind·(b + Σ w·(shift of before)) + (shift of behind)`.
    pub fn fold(
        &self,
        weights: &[f32],
        bias: Option<&[f32]>,
        before: Option<&[Map]>,
        behind: Option<&[Map]>,
    ) -> Result<Folded, Error> {
        let Grid { outputs, inputs, taps, groups } = *self;
        let want = outputs * inputs * taps;
        if weights.len() != want || bias.is_some_and(|b| b.len() != outputs) {
            return Err(Error::Length { what: "weights", got: weights.len(), want });
        }
        let nothing = Map { scale: 1.0, shift: 0.0 };
        let mut folded = Folded { weights: Vec::with_capacity(want), bias: Vec::with_capacity(outputs) };
        for (o, row) in weights.chunks(inputs * taps).enumerate() {
            let behind = behind.map_or(nothing, |b| b[o]);
            let mut sum = bias.map_or(0.0, |b| f64::from(b[o]));
            for (i, taps) in row.chunks(taps).enumerate() {
                let before = before.map_or(nothing, |b| b[o / (outputs / groups) * inputs + i]);
                for &w in taps {
                    sum += f64::from(w) * before.shift;
                    folded.weights.push((behind.scale * f64::from(w) * before.scale) as f32);
                }
            }
            folded.bias.push((behind.scale * sum + behind.shift) as f32);
        }
        Ok(folded)
    }
}

/// The input that `before` maps to zero, channel by channel: what padding behind it must read once it is folded.
///
/// # Errors
/// A channel that is not 0 whatever the input is: its scale is 0, or too small.
pub(super) fn pads(before: &[Map]) -> Result<Vec<f32>, Error> {
    let pad = |(c, map): (usize, &Map)| {
        let pad = if map.shift == 0.0 { 0.0 } else { (-map.shift / map.scale) as f32 };
        if pad.is_finite() {
            return Ok(pad);
        }
        let (what, value) = ("scale of a batch norm before padding", format!("{:e} in channel {c}", map.scale));
        Err(Error::Value { what, value, why: "maps no number to zero" })
    };
    before.iter().enumerate().map(pad).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_folded_group_by_group() {
        let map = |scale, shift| Map { scale, shift };
        // Two groups of one input and one output, two taps.
        let grid = Grid { outputs: 2, inputs: 1, taps: 2, groups: 2 };
        let (before, behind) = ([map(2.0, 1.0), map(-1.0, 3.0)], [map(10.0, 5.0), map(1.0, 0.0)]);
        let folded = grid.fold(&[1.0, 2.0, 3.0, 4.0], Some(&[7.0, 8.0]), Some(&before), Some(&behind)).unwrap();
        // 10·(7 + (1 + 2)·1) + 5 and 8 + (3 + 4)·3.
        assert_eq!(folded, Folded { weights: vec![20.0, 40.0, -3.0, -4.0], bias: vec![105.0, 29.0] });
        let alone = grid.fold(&[1.0, 2.0, 3.0, 4.0], None, None, None).unwrap();
        assert_eq!(alone, Folded { weights: vec![1.0, 2.0, 3.0, 4.0], bias: vec![0.0, 0.0] });
        assert!(grid.fold(&[1.0], None, None, None).is_err());
    }

    #[test]
    fn padding_is_what_maps_to_zero_and_is_refused_where_there_is_none() {
        let map = |scale, shift| Map { scale, shift };
        assert_eq!(pads(&[map(2.0, 1.0), map(-1.0, 3.0), map(0.0, 0.0)]), Ok(vec![-0.5, 3.0, 0.0]));
        for scale in [0.0, 1e-60, f64::NAN] {
            let error = pads(&[map(1.0, 1.0), map(scale, 1.0)]).unwrap_err().to_string();
            assert!(error.contains("in channel 1"), "{error}");
        }
    }
}
