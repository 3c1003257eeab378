//! Fully connected layers. Weights are `[outputs][c·h·w]`, the order of a linear layer behind a flattened NCHW tensor,
//! and all passes read them so: nothing is packed. A batch is small beside them, so that memory limits what these
//! layers do: a training step that applies its gradients at once reads the weights twice, the second time for the
//! gradient with respect to the input and to update them and their momentum ([`BackwardStep`]).
//!
//! The orders of the sums are those of [`crate::reference::linear`]: forward sixteen lanes a sum, both backward passes
//! as a convolution of one pixel. An input of more than a pixel is flattened into the workspace first. What of the
//! batch a tile reads, inputs or gradients of the outputs, is laid side by side there: the rows of images lie a
//! multiple of 4 KiB apart in many nets, and the first level would find them all in the same places.

mod backward_data;
mod backward_step;
mod backward_weights;
mod forward;
#[cfg(test)]
mod tests;

pub use backward_data::BackwardData;
pub use backward_step::BackwardStep;
pub use backward_weights::BackwardWeights;
pub use forward::Forward;

use crate::processor::processor;
use crate::reference::linear::CHUNK;
use crate::shape::product;
use crate::task::{pixels, pixels_mut};
use crate::{Dims, Error, Isa, LANES, blocks, layout};
use rayon::prelude::*;

/// Distance of the images of a packed chunk: an odd number of lines, for rows of weights lie far apart already and the
/// first level must not find them all in the same places.
const STRIDE: usize = CHUNK + LANES;

/// A fully connected layer from blocked `n × c × h × w` to blocked `n × outputs × 1 × 1`.
///
/// # Panics
/// Its methods but [`LinearShape::check`] may panic, or wrap round, where that refuses the shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinearShape {
    /// Images.
    pub n: usize,
    /// Input channels.
    pub c: usize,
    /// Input rows.
    pub h: usize,
    /// Input columns.
    pub w: usize,
    /// Outputs.
    pub outputs: usize,
}

impl LinearShape {
    /// The input tensor.
    pub fn input(&self) -> Dims {
        Dims { n: self.n, c: self.c, h: self.h, w: self.w }
    }
    /// The output tensor.
    pub fn output(&self) -> Dims {
        Dims { n: self.n, c: self.outputs, h: 1, w: 1 }
    }
    /// Inputs of an image: `c·h·w`.
    pub fn inputs(&self) -> usize {
        self.c * self.h * self.w
    }
    /// Elements of the weights.
    pub fn weight_len(&self) -> usize {
        self.outputs * self.inputs()
    }
    /// Refuses a zero dimension and lengths that no slice can hold.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Overflow`], naming the dimension.
    pub fn check(&self) -> Result<(), Error> {
        let dims = [("n", self.n), ("c", self.c), ("h", self.h), ("w", self.w), ("outputs", self.outputs)];
        for (what, value) in dims {
            if value == 0 {
                return Err(Error::Shape { what, value, why: "must be at least 1" });
            }
        }
        self.input().check()?;
        self.output().check()?;
        product("weights", &[self.outputs, self.c, self.h, self.w, LANES])?;
        product("workspace", &[4, self.n, self.inputs().div_ceil(CHUNK), STRIDE, size_of::<f32>()])?;
        product("sums", &[self.n, LANES, LANES, forward::HEIGHT, size_of::<f32>()]).map(drop)
    }

    /// Whether the blocked input of an image is its inputs in their order already, with a few zeros behind them.
    fn is_flat(&self) -> bool {
        self.h * self.w == 1
    }

    /// Elements of the workspace that an input takes which must be flattened.
    fn flat_len(&self) -> usize {
        if self.is_flat() { 0 } else { (self.n * self.inputs()).next_multiple_of(LANES) }
    }

    /// Whether the second cache holds the inputs of all images in half of it.
    fn inputs_are_near(&self) -> bool {
        self.packed_len() <= processor().second_cache_len() / 2
    }

    /// Elements of the workspace that hold the inputs chunk by chunk.
    fn packed_len(&self) -> usize {
        self.inputs().div_ceil(CHUNK) * self.n * STRIDE
    }

    /// Lays the inputs of the images into `packed`, `[chunk][image][STRIDE]`; they pass through `flat` where they must
    /// be flattened.
    fn pack(&self, isa: Isa, x: &[f32], flat: &mut [f32], packed: &mut [f32]) -> Result<(), Error> {
        let (rows, stride) = if self.is_flat() {
            (x, blocks(self.c) * LANES)
        } else {
            let flat = &mut flat[..self.n * self.inputs()];
            layout::blocked_to_nchw(isa, self.input(), x, flat)?;
            (&*flat, self.inputs())
        };
        packed.par_chunks_mut(self.n * STRIDE).enumerate().for_each(|(chunk, to)| {
            let (first, len) = (chunk * CHUNK, CHUNK.min(self.inputs() - chunk * CHUNK));
            for (image, to) in to.chunks_mut(STRIDE).enumerate() {
                to[..len].copy_from_slice(&rows[image * stride + first..][..len]);
            }
        });
        Ok(())
    }

    /// Lays the gradients of the outputs, blocked, into `to`, `[block][image][lane]`.
    fn pack_gradients(&self, dy: &[f32], to: &mut [f32]) {
        let (dy, to) = (pixels(dy), pixels_mut(to));
        for (block, to) in to.chunks_mut(self.n).enumerate() {
            for (to, dy) in to.iter_mut().zip(dy.iter().skip(block).step_by(blocks(self.outputs))) {
                *to = *dy;
            }
        }
    }
}

/// What the plans of one pass have in common.
macro_rules! common {
    ($name:ident) => {
        impl $name {
            /// Plans the shape.
            ///
            /// # Errors
            /// A shape that cannot be served, an instruction set that the processor lacks.
            pub fn new(isa: crate::Isa, shape: &super::LinearShape) -> Result<Self, crate::Error> {
                shape.check()?;
                Ok($name { isa: isa.require()?, shape: *shape })
            }
            /// The shape it was made for.
            pub fn shape(&self) -> &super::LinearShape {
                &self.shape
            }
            /// The kernel, for people to read.
            pub fn kernel(&self) -> String {
                format!("linear-{}", self.isa)
            }
        }
    };
}
use common;
