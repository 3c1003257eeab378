//! Storage aligned to 64 bytes: a cache line and the widest vector.

use aligned_vec::{AVec, RuntimeAlign};

/// Bytes of a huge page. A buffer asks for as many as it fills by half or more: workspaces of 1 to 4 MiB on small pages
/// cost 3×3 layers up to 7 % of their time, and rounding all up to whole pages 70 MB of a19's training, 26 MB with
/// halves.
const HUGE: usize = 2 << 20;

/// A fixed-length `f32` buffer, aligned to 64 bytes.
///
/// A large one asks the system for huge pages (Linux): weights that are streamed and tensors that are read tile by tile
/// touch more pages than the processor keeps translations for. One of 1 MiB or more is aligned to 2 MiB.
#[derive(Debug)]
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
        let huge = bytes.saturating_add(HUGE / 2) / HUGE * HUGE;
        let align = if huge > 0 { HUGE } else { Buffer::ALIGN };
        let storage: AVec<f32, RuntimeAlign> = AVec::with_capacity(align, len.max(huge / size_of::<f32>()));
        #[cfg(target_os = "linux")]
        if huge > 0 {
            // SAFETY: the range is this buffer's own: its capacity, which is no less than `huge`, begins with a page.
            // The advice changes no content. That a kernel may know no huge pages is no failure.
            unsafe { libc::madvise(storage.as_ptr().cast_mut().cast(), huge, libc::MADV_HUGEPAGE) };
        }
        Buffer(storage)
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Buffer {
        Buffer::from_slice(self)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_length_is_kept_aligned_and_zero() {
        let page = HUGE / size_of::<f32>();
        for len in [0, 1, 17, page / 2 - 1, page / 2, page / 2 + 1, page, 3 * page / 2 - 1, 3 * page / 2, 2 * page + 1]
        {
            let mut buffer = Buffer::zeroed(len);
            assert!(buffer.len() == len && buffer.iter().all(|&v| v == 0.0), "{len}");
            let align = if len >= page / 2 { HUGE } else { Buffer::ALIGN };
            buffer.fill(1.5);
            let copy = buffer.clone();
            assert!(copy.len() == len && copy.iter().all(|&v| v == 1.5), "{len}");
            for buffer in [buffer, copy] {
                assert!(buffer.as_ptr().addr().is_multiple_of(align), "{len}");
                assert!(buffer.0.capacity() >= (len + page / 2) / page * page, "{len}");
            }
        }
    }
}
