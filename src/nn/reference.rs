//! A net's scores in `f64`, layer by layer on plain NCHW tensors with naive loops: the oracle of tests and checks.

use super::{EPSILON, NetError, Parameters, Role};
use crate::model::{Activation, Conv, Model, Op};
use rayon::prelude::*;
use rectify_kernels::pool::PoolShape;
use rectify_kernels::{ConvShape, Dims, Error, reference};

/// The scores, `n × classes`, of images in NCHW, as in inference: dropout does nothing.
///
/// # Errors
/// A model that does not fit together, parameters of another model, a number of pixels that is not that of `n` images.
pub fn forward(model: &Model, parameters: &Parameters, n: usize, pixels: &[f32]) -> Result<Vec<f64>, NetError> {
    let dims = model.dims(n)?;
    if pixels.len() != dims[0].plain_len() {
        return Err(Error::Length { what: "pixels", got: pixels.len(), want: dims[0].plain_len() }.into());
    }
    let mut tensors: Vec<Vec<f64>> = vec![pixels.iter().map(|&v| f64::from(v)).collect()];
    for (i, (layer, source)) in model.layers.iter().zip(model.sources()?).enumerate() {
        let given = Given { parameters, layer: i, input: dims[source.from], output: dims[i + 1] };
        let y = given.run(&layer.op, &tensors[source.from]).and_then(|mut y| {
            if let Some(add) = source.add {
                y.iter_mut().zip(&tensors[add]).for_each(|(y, x)| *y += x);
            }
            given.activate(&layer.op.activation(), &mut y)?;
            Ok(y)
        });
        tensors.push(y.map_err(|source| NetError::Layer { layer: layer.name.clone(), source })?);
    }
    Ok(tensors.pop().unwrap_or_default())
}

/// What a layer is given beside its input.
struct Given<'a> {
    parameters: &'a Parameters,
    layer: usize,
    input: Dims,
    output: Dims,
}

impl Given<'_> {
    /// The layer's parameter of a role.
    fn parameter(&self, role: Role, want: usize) -> Result<&[f32], Error> {
        let found = self.parameters.iter().find(|p| p.layer == self.layer && p.role == role);
        let value: &[f32] = found.map_or(&[], |p| &p.value);
        let got = value.len();
        let well = got == want || (role == Role::Slopes && got == 1);
        if well { Ok(value) } else { Err(Error::Length { what: "parameter", got, want }) }
    }

    /// The activation, in place.
    fn activate(&self, activation: &Activation, y: &mut [f64]) -> Result<(), Error> {
        let (c, plane) = (self.output.c, self.output.plane());
        let Some(fixed) = activation.slope() else { return Ok(()) };
        let fixed = [fixed];
        let slopes = match activation {
            Activation::Prelu { .. } => self.parameter(Role::Slopes, c)?,
            _ => &fixed,
        };
        for (i, y) in y.iter_mut().enumerate().filter(|(_, y)| **y <= 0.0) {
            *y *= f64::from(slopes[if slopes.len() == 1 { 0 } else { i / plane % c }]);
        }
        Ok(())
    }

    fn run(&self, op: &Op, x: &[f64]) -> Result<Vec<f64>, Error> {
        match op {
            Op::Conv(conv, _) => self.affine(conv, self.input, x),
            &Op::Linear { outputs, .. } => {
                // A convolution of one pixel whose channels are the flattened input.
                let c = self.input.c * self.input.plane();
                let conv =
                    Conv { channels: outputs, kernel: 1, stride: 1, padding: 0, dilation: 1, groups: 1, bias: true };
                self.affine(&conv, Dims { n: self.input.n, c, h: 1, w: 1 }, x)
            }
            Op::MaxPool(_) | Op::GlobalMaxPool => Ok(reference::pool::max_forward(&self.pool(op)?, x)?.0),
            Op::AveragePool(_) | Op::GlobalAveragePool => reference::pool::average_forward(&self.pool(op)?, x),
            Op::Spp { bins } => Ok(reference::pool::spp_forward(&Op::spp_shape(bins, self.input), x)?.0),
            Op::BatchNorm(_) => self.norm(x),
            Op::Dropout { .. } => Ok(x.to_vec()),
        }
    }

    fn pool(&self, op: &Op) -> Result<PoolShape, Error> {
        let shape = op.pool_shape(self.input);
        shape.ok_or(Error::Shape { what: "pooling shape", value: 0, why: "is not that of a pooling layer" })
    }

    fn affine(&self, conv: &Conv, input: Dims, x: &[f64]) -> Result<Vec<f64>, Error> {
        let shape = Op::conv_shape(conv, input);
        let weights = self.parameter(Role::Weight, shape.weight_len())?;
        let bias = if conv.bias { self.parameter(Role::Bias, shape.oc)? } else { &[] };
        let planes = (0..shape.n * shape.oc).into_par_iter().flat_map_iter(|at| {
            let (n, oc) = (at / shape.oc, at % shape.oc);
            let bias = bias.get(oc).map_or(0.0, |&b| f64::from(b));
            plane(&shape, x, weights, n, oc).into_iter().map(move |sum| sum + bias)
        });
        Ok(planes.collect())
    }

    fn norm(&self, x: &[f64]) -> Result<Vec<f64>, Error> {
        let Dims { c, .. } = self.output;
        let of = |role| self.parameter(role, c);
        let (scale, shift) = (of(Role::Scale)?, of(Role::Shift)?);
        let (mean, variance) = (of(Role::Mean)?, of(Role::Variance)?);
        let value = |(i, &x): (usize, &f64)| {
            let c = i / self.output.plane() % c;
            let normal = (x - f64::from(mean[c])) / (f64::from(variance[c]) + EPSILON).sqrt();
            normal * f64::from(scale[c]) + f64::from(shift[c])
        };
        Ok(x.iter().enumerate().map(value).collect())
    }
}

/// The output positions along an axis whose tap at this distance lies inside the image.
fn inside(count: usize, len: usize, stride: usize, distance: usize, pad: usize) -> std::ops::Range<usize> {
    let first = pad.saturating_sub(distance).div_ceil(stride);
    let end = (len + pad).saturating_sub(distance).div_ceil(stride);
    first..end.min(count)
}

/// One channel of one image of a convolution without bias.
fn plane(s: &ConvShape, x: &[f64], w: &[f32], n: usize, oc: usize) -> Vec<f64> {
    let (icg, ow) = (s.group_ic(), s.ow());
    let mut y = vec![0.0; s.oh() * ow];
    for i in 0..icg {
        let x = &x[(n * s.ic + oc / s.group_oc() * icg + i) * s.ih * s.iw..][..s.ih * s.iw];
        for kh in 0..s.kh {
            for kw in 0..s.kw {
                let w = f64::from(w[((oc * icg + i) * s.kh + kh) * s.kw + kw]);
                let (down, right) = (kh * s.dilation_h, kw * s.dilation_w);
                let columns = inside(ow, s.iw, s.stride_w, right, s.pad_left);
                for row in inside(s.oh(), s.ih, s.stride_h, down, s.pad_top) {
                    let x = &x[(row * s.stride_h + down - s.pad_top) * s.iw..][..s.iw];
                    let x = x.iter().skip((columns.start * s.stride_w + right).saturating_sub(s.pad_left));
                    let y = &mut y[row * ow..][..ow];
                    if let Some(y) = y.get_mut(columns.clone()) {
                        y.iter_mut().zip(x.step_by(s.stride_w)).for_each(|(y, &x)| *y += w * x);
                    }
                }
            }
        }
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_convolution_is_that_of_the_kernels_reference() {
        let base = ConvShape::square(2, 6, 7, 4, 3, 1, 1);
        let shapes = [
            base,
            ConvShape { iw: 5, stride_h: 2, stride_w: 3, pad_left: 0, ..base },
            ConvShape { groups: 2, kh: 2, pad_top: 4, pad_right: 5, dilation_w: 2, ..base },
            ConvShape { ih: 1, iw: 1, ..base },
        ];
        for s in shapes {
            let x: Vec<f64> = (0..s.input().plain_len()).map(|i| (i * 37 % 101) as f64 - 50.0).collect();
            let w: Vec<f32> = (0..s.weight_len()).map(|i| (i * 23 % 29) as f32 - 14.0).collect();
            let wide: Vec<f64> = w.iter().map(|&w| f64::from(w)).collect();
            let planes = (0..s.n * s.oc).flat_map(|at| plane(&s, &x, &w, at / s.oc, at % s.oc));
            // Whole numbers: both are exact.
            assert_eq!(planes.collect::<Vec<f64>>(), reference::conv::forward(&s, &x, &wide).unwrap(), "{s:?}");
        }
    }
}
