//! The naive loops, generic over the float: the oracle of every test.
//!
//! Tensors are plain NCHW. In `f32` each function sums in the very order of the kernels, so results compare with equal
//! bits; in `f64` it is the yardstick for errors.

pub mod conv;
pub mod linear;
pub mod loss;
pub mod pool;
pub mod prelu;
pub mod winograd;
