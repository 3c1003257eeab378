//! Border conversions between NCHW or NHWC and the blocked layout nChw16c.
pub use crate::shape::{Dims, LANES, blocks};
