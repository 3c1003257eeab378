//! Storage aligned to 64 bytes: a cache line and the widest vector.

use aligned_vec::{AVec, ConstAlign};

/// A fixed-length `f32` buffer, aligned to 64 bytes.
#[derive(Debug, Clone)]
pub struct Buffer(AVec<f32, ConstAlign<64>>);

impl Buffer {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Buffer {
        Buffer(AVec::from_iter(64, std::iter::repeat_n(0.0, len)))
    }

    /// A copy of a slice.
    pub fn from_slice(x: &[f32]) -> Buffer {
        Buffer(AVec::from_slice(64, x))
    }
}

impl std::ops::Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}
