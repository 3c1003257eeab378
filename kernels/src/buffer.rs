//! Storage aligned to 64 bytes: a cache line and the widest vector.

use aligned_vec::{AVec, RuntimeAlign};

/// Bytes of a huge page; buffers of half of one or more are whole ones.
const HUGE: usize = 2 << 20;

/// A fixed-length `f32` buffer, aligned to 64 bytes.
///
/// A large one asks the system for huge pages (Linux): weights that are streamed and tensors that are read tile by tile
/// touch more pages than the processor keeps translations for.
#[derive(Debug, Clone)]
pub struct Buffer(AVec<f32, RuntimeAlign>);

impl Buffer {
    /// Bytes that its address is a multiple of: a cache line.
    pub const ALIGN: usize = 64;

    /// `len` zeros.
    pub fn zeroed(len: usize) -> Buffer {
        let mut buffer = Buffer::with_capacity(len);
        buffer.0.resize(len, 0.0);
        buffer
    }

    /// A copy of a slice.
    pub fn from_slice(x: &[f32]) -> Buffer {
        let mut buffer = Buffer::with_capacity(x.len());
        buffer.0.extend_from_slice(x);
        buffer
    }

    fn with_capacity(len: usize) -> Buffer {
        let bytes = len.saturating_mul(size_of::<f32>());
        let is_large = bytes >= HUGE / 2;
        let (align, bytes) = if is_large { (HUGE, bytes.next_multiple_of(HUGE)) } else { (Buffer::ALIGN, bytes) };
        let storage: AVec<f32, RuntimeAlign> = AVec::with_capacity(align, bytes.div_ceil(size_of::<f32>()));
        #[cfg(target_os = "linux")]
        if is_large {
            // SAFETY: the range is this buffer's own, whole pages of it; the advice changes no content. That a kernel
            // may know no huge pages is no failure.
            unsafe { libc::madvise(storage.as_ptr().cast_mut().cast(), bytes, libc::MADV_HUGEPAGE) };
        }
        Buffer(storage)
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
