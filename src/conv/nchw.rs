//! One line for a convolution of plain NCHW tensors.

use super::{Activation, Conv2dSpec, ConvError, PlanOptions};
use crate::kernels::conv::Epilogue;
use crate::kernels::{Buffer, Dims, layout};

/// A plain tensor, NCHW.
#[derive(Debug, Clone, PartialEq)]
pub struct Nchw {
    /// Its dimensions.
    pub dims: Dims,
    /// Its [`Dims::plain_len`] elements.
    pub data: Vec<f32>,
}

impl Nchw {
    /// Converts to the blocked layout.
    fn blocked(dims: Dims, x: &[f32], isa: crate::kernels::Isa) -> Result<Buffer, ConvError> {
        let mut blocked = Buffer::zeroed(dims.blocked_len());
        layout::nchw_to_blocked(isa, dims, x, &mut blocked)?;
        Ok(blocked)
    }

    fn plain(dims: Dims, x: &[f32], isa: crate::kernels::Isa) -> Result<Nchw, ConvError> {
        let mut data = vec![0.0; dims.plain_len()];
        layout::blocked_to_nchw(isa, dims, x, &mut data)?;
        Ok(Nchw { dims, data })
    }
}

/// `prelu(conv(x, weights) + bias)` of an NCHW tensor: `bias` has one element per output channel or none; `slopes` one
/// per channel, one for all (`[0.0]` is ReLU), or none for no activation.
///
/// ```
/// use rectify::{conv::{Conv2dSpec, forward_nchw}, kernels::Dims};
/// let spec = Conv2dSpec::new(1, 1, 2);
/// let dims = Dims { n: 1, c: 1, h: 2, w: 3 };
/// let y = forward_nchw(&spec, dims, &[1., 2., 3., 4., 5., 6.], &[1., 0., 0., -1.], &[], &[0.25])?;
/// assert_eq!(y.data, [-1.0, -1.0]);
/// # Ok::<(), rectify::conv::ConvError>(())
/// ```
///
/// # Errors
/// A shape or length that does not fit.
pub fn forward_nchw(
    spec: &Conv2dSpec,
    dims: Dims,
    x: &[f32],
    weights: &[f32],
    bias: &[f32],
    slopes: &[f32],
) -> Result<Nchw, ConvError> {
    let activation = match (bias, slopes) {
        ([], []) => Activation::None,
        (_, []) => Activation::Bias,
        _ => Activation::BiasPrelu,
    };
    let plan = spec.plan(dims, activation, &PlanOptions::default())?;
    let zeros = vec![0.0; if bias.is_empty() { plan.output().c } else { 0 }];
    let bias = if bias.is_empty() { &zeros[..] } else { bias };
    let epilogue = match activation {
        Activation::None => Epilogue::None,
        Activation::Bias => Epilogue::Bias(bias),
        _ => Epilogue::BiasPrelu { bias, slopes },
    };
    let x = Nchw::blocked(dims, x, plan.isa())?;
    let mut y = Buffer::zeroed(plan.output().blocked_len());
    let mut workspace = Buffer::zeroed(plan.workspace_len());
    plan.run(&x, &plan.pack(weights)?, epilogue, &mut y, &mut workspace)?;
    Nchw::plain(plan.output(), &y, plan.isa())
}

/// The gradients of a convolution without activation, all tensors NCHW: `(dx, dw)` from `dy`.
///
/// # Errors
/// A shape or length that does not fit.
pub fn backward_nchw(
    spec: &Conv2dSpec,
    dims: Dims,
    x: &[f32],
    weights: &[f32],
    dy: &[f32],
) -> Result<(Nchw, Vec<f32>), ConvError> {
    let options = PlanOptions::default();
    let data = spec.plan_backward_data(dims, &options)?;
    let weight = spec.plan_backward_weights(dims, &options)?;
    let isa = data.isa();
    let x = Nchw::blocked(dims, x, isa)?;
    let dy = Nchw::blocked(data.output(), dy, isa)?;
    let mut workspace = Buffer::zeroed(data.workspace_len().max(weight.workspace_len()));
    let mut dx = Buffer::zeroed(dims.blocked_len());
    data.run(&dy, &data.pack(weights)?, &mut dx, &mut workspace)?;
    let mut dw = vec![0.0; spec.weight_len()];
    weight.run(&x, &dy, &mut dw, &mut workspace)?;
    Ok((Nchw::plain(dims, &dx, isa)?, dw))
}
