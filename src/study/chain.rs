//! A chain of layers, forward and backward to the image, that lets its inner values be seen.

use crate::memory;
use crate::model::{Activation, Model, Op};
use crate::nn::{NetError, Parameters, Role};
use crate::rng::{self, Rng};
use rectify_kernels::conv::{self, Epilogue, Options};
use rectify_kernels::linear::{self, LinearShape};
use rectify_kernels::pool::{self, PoolShape, SppShape};
use rectify_kernels::{Buffer, Dims, Error, Isa, layout};

/// What the way back needs of a layer.
enum Kept {
    /// The output before the activation, and its slope.
    Affine {
        pre: Buffer,
        slope: Option<f32>,
    },
    Max {
        shape: PoolShape,
        index: Vec<u32>,
    },
    Average(PoolShape),
    Spp {
        shape: SppShape,
        index: Vec<u32>,
    },
    Nothing,
}

/// Numbers of the standard normal distribution in a blocked tensor.
fn normal(isa: Isa, dims: Dims, rng: &mut Rng) -> Result<Buffer, Error> {
    let plain: Vec<f32> = (0..dims.plain_len()).map(|_| rng.normal()).collect();
    let mut blocked = Buffer::zeroed(dims.blocked_len());
    layout::nchw_to_blocked(isa, dims, &plain, &mut blocked)?;
    Ok(blocked)
}

/// The mean of the squares of a blocked tensor: summed in order, in `f64`; lanes beyond the channels are zero.
fn square(dims: Dims, x: &[f32]) -> f64 {
    x.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>() / dims.plain_len().max(1) as f64
}

/// See [`super::squares`].
pub(super) fn squares(model: &Model, isa: Isa, batch: usize, seed: u64) -> Result<Vec<[f64; 2]>, NetError> {
    let dims = model.tensors(batch)?;
    if let Some((layer, why)) = model.untrainable() {
        return Err(NetError::Untrainable { layer: layer.name.clone(), why });
    }
    // The way back keeps what every layer gives.
    memory::reserve(dims.iter().map(Dims::blocked_len))?;
    let parameters = Parameters::initial(model, seed)?;
    let fault = |i: usize| {
        let layer = model.layers[i].name.clone();
        move |source| NetError::Layer { layer, source }
    };
    let mut x = normal(isa, dims[0], &mut Rng::at(seed, rng::STUDY, 0, 0))?;
    let (mut kept, mut forward) = (Vec::new(), Vec::new());
    for (i, layer) in model.layers.iter().enumerate() {
        let of_layer =
            OfLayer { isa, op: &layer.op, parameters: &parameters, layer: i, input: dims[i], output: dims[i + 1] };
        let (y, keep) = of_layer.forward(x).map_err(fault(i))?;
        if let Kept::Affine { pre, .. } = &keep {
            forward.push(square(dims[i + 1], pre));
        }
        kept.push(keep);
        x = y;
    }
    let last = dims[dims.len() - 1];
    let mut grad = normal(isa, last, &mut Rng::at(seed, rng::STUDY, 1, 0))?;
    let mut backward = Vec::new();
    for (i, layer) in model.layers.iter().enumerate().rev() {
        let of_layer =
            OfLayer { isa, op: &layer.op, parameters: &parameters, layer: i, input: dims[i], output: dims[i + 1] };
        let Some(kept) = kept.pop() else { continue };
        let is_affine = matches!(kept, Kept::Affine { .. });
        grad = of_layer.backward(&kept, grad).map_err(fault(i))?;
        if is_affine {
            backward.push(square(dims[i], &grad));
        }
    }
    backward.reverse();
    Ok(forward.into_iter().zip(backward).map(|(y, dx)| [y, dx]).collect())
}

/// A layer, its parameters and its shapes.
struct OfLayer<'a> {
    isa: Isa,
    op: &'a Op,
    parameters: &'a Parameters,
    layer: usize,
    input: Dims,
    output: Dims,
}

impl OfLayer<'_> {
    fn parameter(&self, role: Role) -> &[f32] {
        let found = self.parameters.iter().find(|p| p.layer == self.layer && p.role == role);
        found.map_or(&[], |p| &p.value)
    }

    fn linear(&self) -> LinearShape {
        let Dims { n, c, h, w } = self.input;
        LinearShape { n, c, h, w, outputs: self.output.c }
    }

    fn forward(&self, x: Buffer) -> Result<(Buffer, Kept), Error> {
        let (isa, threads) = (self.isa, rayon::current_num_threads());
        let mut y = Buffer::zeroed(self.output.blocked_len());
        let epilogue = Epilogue::Bias(self.parameter(Role::Bias));
        let index = || vec![0; self.output.blocked_len()];
        match self.op {
            Op::Conv(conv, activation) => {
                let plan = conv::Forward::new(isa, &Op::conv_shape(conv, self.input), &Options::default())?;
                let mut packed = Buffer::zeroed(plan.packed_len());
                plan.pack(self.parameter(Role::Weight), &mut packed)?;
                plan.run(&x, &packed, epilogue, &mut y, &mut Buffer::zeroed(plan.workspace_len(threads)))?;
                Ok(activate(activation, y))
            }
            Op::Linear { activation, .. } => {
                let plan = linear::Forward::new(isa, &self.linear())?;
                let mut workspace = Buffer::zeroed(plan.workspace_len(threads));
                plan.run(&x, self.parameter(Role::Weight), epilogue, &mut y, &mut workspace)?;
                Ok(activate(activation, y))
            }
            Op::Spp { bins } => {
                let (shape, mut index) = (Op::spp_shape(bins, self.input), index());
                pool::spp_forward(isa, &shape, &x, &mut y, Some(&mut index))?;
                Ok((y, Kept::Spp { shape, index }))
            }
            op => match op.pool_shape(self.input) {
                Some(shape) if matches!(op, Op::MaxPool(_) | Op::GlobalMaxPool) => {
                    let mut index = index();
                    pool::max_forward(isa, &shape, &x, &mut y, Some(&mut index))?;
                    Ok((y, Kept::Max { shape, index }))
                }
                Some(shape) => {
                    pool::average_forward(isa, &shape, &x, &mut y)?;
                    Ok((y, Kept::Average(shape)))
                }
                None => Ok((x, Kept::Nothing)),
            },
        }
    }

    /// The gradient of the input from that of the output.
    fn backward(&self, kept: &Kept, mut dy: Buffer) -> Result<Buffer, Error> {
        let (isa, threads) = (self.isa, rayon::current_num_threads());
        let mut dx = Buffer::zeroed(self.input.blocked_len());
        match kept {
            Kept::Affine { pre, slope } => {
                if let Some(slope) = slope {
                    let closed = dy.iter_mut().zip(pre.iter()).filter(|(_, pre)| **pre <= 0.0);
                    closed.for_each(|(dy, _)| *dy *= slope);
                }
                let weights = self.parameter(Role::Weight);
                if let Op::Conv(conv, _) = self.op {
                    let plan = conv::BackwardData::new(isa, &Op::conv_shape(conv, self.input), &Options::default())?;
                    let mut packed = Buffer::zeroed(plan.packed_len());
                    plan.pack(weights, &mut packed)?;
                    plan.run(&dy, &packed, &mut dx, &mut Buffer::zeroed(plan.workspace_len(threads)))?;
                } else {
                    let plan = linear::BackwardData::new(isa, &self.linear())?;
                    plan.run(&dy, weights, &mut dx, &mut Buffer::zeroed(plan.workspace_len(threads)))?;
                }
            }
            Kept::Max { shape, index } => pool::max_backward(isa, shape, index, &dy, &mut dx)?,
            Kept::Average(shape) => pool::average_backward(isa, shape, &dy, &mut dx)?,
            Kept::Spp { shape, index } => pool::spp_backward(isa, shape, index, &dy, &mut dx)?,
            Kept::Nothing => return Ok(dy),
        }
        Ok(dx)
    }
}

/// Applies the activation; at first every slope of a layer is the same.
fn activate(activation: &Activation, pre: Buffer) -> (Buffer, Kept) {
    let slope = activation.slope();
    let mut y = pre.clone();
    if let Some(slope) = slope {
        y.iter_mut().filter(|y| **y <= 0.0).for_each(|y| *y *= slope);
    }
    (y, Kept::Affine { pre, slope })
}
