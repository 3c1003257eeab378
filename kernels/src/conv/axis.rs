//! One axis, rows or columns, of a pass: which inputs each output reads.

/// A kernel tap: output `q` reads input `q · in_step + offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tap {
    /// Its place in the kernel.
    pub weight: usize,
    /// Distance of the input that it reads.
    pub offset: isize,
}

/// Output `q` of `count` stands at `first + q · step` of the output tensor and reads the input at
/// `q · in_step + tap.offset` for each tap, in order; outside `0..input` it reads zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Axis {
    pub first: usize,
    pub step: usize,
    pub count: usize,
    pub in_step: usize,
    pub input: usize,
    pub taps: Vec<Tap>,
    /// The smallest and the largest offset of a tap, its own or of an axis that it has been joined with.
    reach: (isize, isize),
}

impl Axis {
    /// The forward pass: `out` outputs of a kernel of `k` taps.
    pub fn forward(input: usize, out: usize, k: usize, stride: usize, dilation: usize, pad: usize) -> Axis {
        let taps = (0..k).map(|t| Tap { weight: t, offset: (t * dilation) as isize - pad as isize }).collect();
        Axis { first: 0, step: 1, count: out, in_step: taken(stride, out), input, taps, reach: (0, 0) }.reaching()
    }

    /// With the reach of its taps.
    fn reaching(mut self) -> Axis {
        let offsets = || self.taps.iter().map(|t| t.offset);
        self.reach = (offsets().min().unwrap_or(0), offsets().max().unwrap_or(0));
        self
    }

    /// Lets each reach what any of them does.
    pub fn join(axes: &mut [Axis]) {
        let low = axes.iter().map(|a| a.reach.0).min().unwrap_or(0);
        let high = axes.iter().map(|a| a.reach.1).max().unwrap_or(0);
        axes.iter_mut().for_each(|a| a.reach = (low, high));
    }

    /// The backward pass with respect to the input: one axis for each residue class of input positions modulo the
    /// stride; within a class the taps and their distances are the same. The classes partition the taps.
    pub fn backward(input: usize, out: usize, k: usize, stride: usize, dilation: usize, pad: usize) -> Vec<Axis> {
        let stride = stride.min(isize::MAX as usize);
        let axis = |first: usize| {
            let count = (input - first).div_ceil(stride);
            let (step, taps) = (taken(stride, count), Vec::new());
            Axis { first, step, count, in_step: 1, input: out, taps, reach: (0, 0) }
        };
        let mut axes: Vec<Axis> = (0..stride.min(input)).map(axis).collect();
        for weight in (0..k).rev() {
            // The first input that it meets, from the image's own first on.
            let distance = pad as isize - (weight * dilation) as isize;
            let first = (-distance).rem_euclid(stride as isize);
            if let Some(axis) = axes.get_mut(first as usize) {
                axis.taps.push(Tap { weight, offset: (distance + first) / stride as isize });
            }
        }
        axes.into_iter().map(Axis::reaching).collect()
    }

    /// The smallest offset that it reaches.
    pub fn low(&self) -> isize {
        self.reach.0
    }

    /// How many inputs lie between the first and the last that `count` neighbouring outputs read.
    pub fn extent(&self, count: usize) -> usize {
        (count - 1) * self.in_step + (self.reach.1 - self.reach.0) as usize + 1
    }

    /// Whether some output reads outside the input.
    pub fn padded(&self) -> bool {
        self.low() < 0 || self.low() as usize + self.extent(self.count) > self.input
    }
}

/// The stride between so many outputs. With one output only whether it is 1 counts; it may be any number, whose
/// products with widths would overflow.
fn taken(stride: usize, count: usize) -> usize {
    if count == 1 { stride.min(2) } else { stride }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backward_taps_are_the_forward_ones_reversed() {
        for (input, k, stride, dilation, pad) in [(9, 3, 1, 1, 1), (10, 3, 2, 1, 1), (12, 4, 3, 2, 5), (5, 1, 3, 1, 0)]
        {
            let out = (input + 2 * pad - (k - 1) * dilation - 1) / stride + 1;
            let forward = Axis::forward(input, out, k, stride, dilation, pad);
            let mut pairs: Vec<_> = (0..out as isize)
                .flat_map(|q| forward.taps.iter().map(move |t| (q * stride as isize + t.offset, t.weight, q)))
                .filter(|p| (0..input as isize).contains(&p.0))
                .collect();
            let mut reversed: Vec<_> = Axis::backward(input, out, k, stride, dilation, pad)
                .iter()
                .flat_map(|a| {
                    let at = |q: usize, t: &Tap| ((a.first + q * a.step) as isize, t.weight, q as isize + t.offset);
                    (0..a.count).flat_map(|q| a.taps.iter().map(move |t| at(q, t))).collect::<Vec<_>>()
                })
                .filter(|p| (0..out as isize).contains(&p.2))
                .collect();
            pairs.sort_unstable();
            reversed.sort_unstable();
            assert_eq!(pairs, reversed);
        }
    }
}
