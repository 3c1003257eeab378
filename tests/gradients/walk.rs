//! A net run by the reference functions alone, in any float.

use num_traits::Float;
use rectify::model::{Activation, Model, Op};
use rectify::rng::{self, Rng};
use rectify_kernels::linear::LinearShape;
use rectify_kernels::pool::PoolShape;
use rectify_kernels::{ConvShape, Dims, Isa, LANES, blocks, dropout, reference};

/// Where element `i` of a plain tensor stands in the blocked one.
fn place(d: &Dims, i: usize) -> usize {
    let (n, c, p) = (i / d.plane() / d.c, i / d.plane() % d.c, i % d.plane());
    ((n * blocks(d.c) + c / LANES) * d.plane() + p) * LANES + c % LANES
}

fn from_blocked<T: Copy>(d: &Dims, x: &[T]) -> Vec<T> {
    (0..d.plain_len()).map(|i| x[place(d, i)]).collect()
}

/// A model for a batch, with the masks of its dropouts.
pub struct Walk {
    pub model: Model,
    pub dims: Vec<Dims>,
    /// Which elements stay, for each layer that drops some.
    masks: Vec<Vec<bool>>,
}

/// What a forward pass leaves, layer by layer.
///
/// Numbers have *sizes*, which their roundings are relative to: of a sum the sum of its terms' magnitudes.
pub struct Tape<T> {
    /// Each layer's input, then the scores.
    pub x: Vec<Vec<T>>,
    /// Their sizes.
    pub size: Vec<Vec<T>>,
    /// What activations were given.
    pub pre: Vec<Vec<T>>,
    /// Where maxima were.
    pub index: Vec<Vec<u32>>,
}

impl<T: Float> Tape<T> {
    /// The decisions: signs and maxima. Between them the scores are linear in any one parameter.
    pub fn decisions(&self) -> (Vec<Vec<bool>>, &[Vec<u32>]) {
        let signs = |pre: &Vec<T>| pre.iter().map(|&y| y > T::zero()).collect();
        (self.pre.iter().map(signs).collect(), &self.index)
    }

    pub fn scores(&self) -> &[T] {
        &self.x[self.x.len() - 1]
    }
}

/// A layer with weights as a convolution.
enum Affine {
    Conv(ConvShape),
    Linear(LinearShape),
}

impl Affine {
    fn new(op: &Op, d: Dims) -> Option<(Affine, Activation)> {
        match *op {
            Op::Conv(c, activation) => {
                let square = ConvShape::square(d.n, d.c, d.h, c.channels, c.kernel, c.stride, c.padding);
                let (dilation_h, dilation_w) = (c.dilation, c.dilation);
                Some((
                    Affine::Conv(ConvShape { iw: d.w, groups: c.groups, dilation_h, dilation_w, ..square }),
                    activation,
                ))
            }
            Op::Linear { outputs, activation } => {
                Some((Affine::Linear(LinearShape { n: d.n, c: d.c, h: d.h, w: d.w, outputs }), activation))
            }
            _ => None,
        }
    }

    /// Terms of an output, and of an input's gradient.
    fn terms(&self) -> (usize, usize) {
        match self {
            Affine::Conv(s) => (s.group_ic() * s.kh * s.kw, s.group_oc() * s.kh * s.kw),
            Affine::Linear(s) => (s.inputs(), s.outputs),
        }
    }

    fn forward<T: Float>(&self, x: &[T], w: &[T]) -> Vec<T> {
        match self {
            Affine::Conv(s) => reference::conv::forward(s, x, w),
            Affine::Linear(s) => reference::linear::forward(s, x, w),
        }
        .unwrap()
    }

    fn backward_data<T: Float>(&self, dy: &[T], w: &[T]) -> Vec<T> {
        match self {
            Affine::Conv(s) => reference::conv::backward_data(s, dy, w),
            Affine::Linear(s) => reference::linear::backward_data(s, dy, w),
        }
        .unwrap()
    }

    fn backward_weights<T: Float>(&self, x: &[T], dy: &[T]) -> Vec<T> {
        match self {
            Affine::Conv(s) => reference::conv::backward_weights(s, x, dy),
            Affine::Linear(s) => reference::linear::backward_weights(s, x, dy),
        }
        .unwrap()
    }
}

/// Magnitudes, element by element.
fn magnitudes<T: Float>(x: &[T]) -> Vec<T> {
    x.iter().map(|x| x.abs()).collect()
}

fn is_learned(activation: Activation) -> bool {
    matches!(activation, Activation::Prelu { .. })
}

fn is_average(op: &Op) -> bool {
    matches!(op, Op::AveragePool(_) | Op::GlobalAveragePool)
}

/// A layer's slopes: learned ones are the parameter after weights and bias.
fn slopes<T: Float>(activation: Activation, p: &[Vec<T>]) -> Option<Vec<T>> {
    if is_learned(activation) {
        return Some(p[2].clone());
    }
    activation.slope().map(|a| vec![T::from(a).unwrap()])
}

fn pool(op: &Op, d: Dims) -> Option<PoolShape> {
    match *op {
        Op::MaxPool(p) | Op::AveragePool(p) => {
            let (pad_top, pad_bottom, pad_left, pad_right) = (p.padding, p.padding, p.padding, p.padding);
            Some(PoolShape { pad_top, pad_bottom, pad_left, pad_right, ..PoolShape::square(d, p.kernel, p.stride) })
        }
        Op::GlobalMaxPool | Op::GlobalAveragePool => Some(PoolShape::global(d)),
        _ => None,
    }
}

impl Walk {
    /// With the masks that a [`rectify::train::Stepper`] of this seed draws after so many steps.
    pub fn new(text: &str, batch: usize, (seed, steps): (u64, u64)) -> Walk {
        let model = Model::parse(text).unwrap();
        let dims = model.dims(batch).unwrap();
        let step = Rng::at(seed, rng::DROPOUT, steps, 0).next_u64();
        let mask = |(at, d): (usize, &Dims)| {
            let Op::Dropout { rate } = model.layers[at].op else { return Vec::new() };
            let (mut ones, mut bits) = (vec![1.0; d.blocked_len()], vec![0; d.blocked_len() / 8]);
            let seed = Rng::at(step, rng::DROPOUT, at as u64, 0).next_u64();
            dropout::forward_in_place(Isa::Portable, *d, &mut ones, rate, seed, 0, &mut bits).unwrap();
            from_blocked(d, &ones).into_iter().map(|v| v > 0.0).collect()
        };
        let masks = dims[..model.layers.len()].iter().enumerate().map(mask).collect();
        Walk { model, dims, masks }
    }

    fn drop<T: Float>(&self, layer: usize, x: &[T]) -> Vec<T> {
        let Op::Dropout { rate } = self.model.layers[layer].op else { return x.to_vec() };
        let scale = T::from(1.0 / (1.0 - rate)).unwrap();
        x.iter().zip(&self.masks[layer]).map(|(&x, &stays)| if stays { x * scale } else { T::zero() }).collect()
    }

    /// The forward pass.
    pub fn forward<T: Float>(&self, parameters: &[Vec<T>], pixels: &[T]) -> Tape<T> {
        let mut tape = Tape { x: Vec::new(), size: Vec::new(), pre: Vec::new(), index: Vec::new() };
        let (mut x, mut size, mut rest) = (pixels.to_vec(), magnitudes(pixels), parameters);
        for (i, layer) in self.model.layers.iter().enumerate() {
            let (input, output) = (self.dims[i], self.dims[i + 1]);
            let (mut pre, mut index) = (Vec::new(), Vec::new());
            let [y, y_size] = if let Some((affine, activation)) = Affine::new(&layer.op, input) {
                let biased = |x: &[T], w: &[T], bias: &[T]| -> Vec<T> {
                    let bias = |i: usize| bias[i / output.plane() % output.c];
                    affine.forward(x, w).into_iter().enumerate().map(|(i, y)| y + bias(i)).collect()
                };
                let y = biased(&x, &rest[0], &rest[1]);
                let y_size = biased(&magnitudes(&x), &magnitudes(&rest[0]), &magnitudes(&rest[1]));
                let slopes = slopes(activation, rest);
                rest = &rest[2 + usize::from(is_learned(activation))..];
                match slopes {
                    None => [y, y_size],
                    Some(slopes) => {
                        let prelu = |y: &[T]| reference::prelu::forward(&output, y, &slopes).unwrap();
                        let signed = |(&y, size): (&T, T)| if y > T::zero() { size } else { -size };
                        let signed: Vec<T> = y.iter().zip(y_size).map(signed).collect();
                        pre = y;
                        [prelu(&pre), magnitudes(&prelu(&signed))]
                    }
                }
            } else if let Some(shape) = pool(&layer.op, input) {
                if is_average(&layer.op) {
                    [&x, &size].map(|x| reference::pool::average_forward(&shape, x).unwrap())
                } else {
                    index = reference::pool::max_forward(&shape, &x).unwrap().1;
                    let at = |o: usize| o / output.plane() * input.plane() + index[o] as usize;
                    [&x, &size].map(|x| (0..index.len()).map(|o| x[at(o)]).collect())
                }
            } else {
                [&x, &size].map(|x| self.drop(i, x))
            };
            tape.x.push(std::mem::replace(&mut x, y));
            tape.size.push(std::mem::replace(&mut size, y_size));
            tape.pre.push(pre);
            tape.index.push(index);
        }
        tape.x.push(x);
        tape.size.push(size);
        tape
    }

    /// The gradients of every parameter from that of the scores, and their sizes.
    pub fn backward<T: Float>(
        &self,
        parameters: &[Vec<T>],
        tape: &Tape<T>,
        [mut grad, mut size]: [Vec<T>; 2],
    ) -> [Vec<Vec<T>>; 2] {
        let (mut gradients, mut sizes, mut end) = (Vec::new(), Vec::new(), parameters.len());
        for (i, layer) in self.model.layers.iter().enumerate().rev() {
            let (input, output) = (self.dims[i], self.dims[i + 1]);
            if let Some((affine, activation)) = Affine::new(&layer.op, input) {
                let first = end - 2 - usize::from(is_learned(activation));
                let p = &parameters[first..end];
                end = first;
                if let Some(slopes) = slopes(activation, p) {
                    let pre = &tape.pre[i];
                    let backward = |dy: &[T]| reference::prelu::backward(&output, pre, &slopes, dy).unwrap();
                    let (g, sized) = (backward(&grad), backward(&size));
                    if is_learned(activation) {
                        gradients.push(g.dslopes);
                        // Terms of one sign: multiples of min(0, y) by sizes.
                        sizes.push(magnitudes(&sized.dslopes));
                    }
                    (grad, size) = (g.dx, magnitudes(&sized.dx));
                }
                let bias = |dy: &[T]| reference::prelu::bias_gradient(&output, dy).unwrap();
                gradients.push(bias(&grad));
                sizes.push(bias(&size));
                gradients.push(affine.backward_weights(&tape.x[i], &grad));
                sizes.push(affine.backward_weights(&tape.size[i], &size));
                size = affine.backward_data(&magnitudes(&grad), &magnitudes(&p[0]));
                grad = affine.backward_data(&grad, &p[0]);
            } else if let Some(shape) = pool(&layer.op, input) {
                [grad, size] = [grad, size].map(|g| {
                    match is_average(&layer.op) {
                        true => reference::pool::average_backward(&shape, &g),
                        false => reference::pool::max_backward(&shape, &tape.index[i], &g),
                    }
                    .unwrap()
                });
            } else {
                [grad, size] = [grad, size].map(|g| self.drop(i, &g));
            }
        }
        gradients.reverse();
        sizes.reverse();
        [gradients, sizes]
    }

    /// Roundings on the longest way from a pixel or a parameter to the scores, and on that way and back to a gradient,
    /// if every sum is taken to be one chain over all of its terms.
    pub fn roundings(&self) -> (usize, usize) {
        let (mut forward, mut backward, mut last) = (0, 0, 0);
        for (i, layer) in self.model.layers.iter().enumerate() {
            let (input, output) = (self.dims[i], self.dims[i + 1]);
            if let Some((affine, _)) = Affine::new(&layer.op, input) {
                let (there, back) = affine.terms();
                // The products and their sum, the bias, the slope; back likewise.
                forward += there + 2;
                backward += back + 1;
                // Over images and pixels; channels too where a slope is shared.
                last = last.max(output.n * output.plane() + output.c);
            } else {
                let window = pool(&layer.op, input).map_or(0, |p| p.kh * p.kw);
                forward += window + 1;
                backward += window + 1;
            }
        }
        (forward, forward + backward + last)
    }
}
