//! The compute kernels of `rectify`: slices in, slices out; they know no tensor and no layer.
//!
//! Every function but the yardsticks of [`measure`] gives the same bits, but for a NaN's payload, on every [`Isa`], for
//! any number of threads (the current rayon pool's) and any blocking: each module states the order of its sums.
//! Activations are blocked ([`Dims`]): nChw16c, padding lanes zero. Lengths are bounded so that no product of theirs
//! wraps round in 64 bits ([`ConvShape::check`]): other targets are not served. The naive loops in [`mod@reference`]
//! sum in the same order and are the oracle of the tests.

const _: () = assert!(usize::BITS == 64, "rectify-kernels serves 64-bit targets only");

mod buffer;
pub mod conv;
pub mod dropout;
pub mod elementwise;
pub(crate) mod error;
pub mod im2col;
mod isa;
pub mod layout;
pub mod linear;
pub mod loss;
pub mod measure;
pub mod norm;
pub mod pool;
pub mod prelu;
mod processor;
pub mod reference;
mod shape;
pub mod simd;
mod stream;
mod sum;
mod task;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod threads;

pub use buffer::Buffer;
pub use error::Error;
pub use isa::{Isa, Kernel};
pub use shape::{ConvShape, Dims, LANES, blocks};
pub use simd::{Lanes, Simd};
