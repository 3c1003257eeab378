//! Which outputs are written past the caches ([`Lanes::stream`](crate::Lanes::stream)).

use crate::Buffer;

/// Elements of an output from which on it is: 8 MiB. The third cache would hold little of it when it is read again, and whoever
/// writes to a line that is in no cache first waits for what was there. Layers of 16 MiB and more gain a twentieth, training
/// steps of large batches as much; nets forward gain nothing at 8 MiB and lose nothing (Zen 4).
const LARGE: usize = 1 << 21;

/// Whether to stream these outputs of a pass, of one length: if they are large, or `always`, and their lines whole ones.
pub(crate) fn streams(y: &[f32], pre: Option<&[f32]>, always: bool) -> bool {
    let is_aligned = |x: &[f32]| x.as_ptr().addr().is_multiple_of(Buffer::ALIGN);
    (always || y.len() >= LARGE) && is_aligned(y) && pre.is_none_or(is_aligned)
}

/// Makes what this thread has streamed visible to others before whatever it writes from now on. It waits for all its stores:
/// after each task some kernels took a tenth longer.
pub(crate) fn order() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64.
    unsafe {
        core::arch::x86_64::_mm_sfence();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_outputs_whose_lines_are_whole_are_streamed() {
        let y = Buffer::zeroed(LARGE + 1);
        let (small, odd) = (&y[..LARGE - 1], &y[1..]);
        assert!(streams(&y, None, false) && streams(&y, Some(&y), false) && streams(small, None, true));
        for (y, pre, always) in [(small, None, false), (odd, None, false), (odd, None, true), (&y, Some(odd), true)] {
            assert!(!streams(y, pre, always), "{}", y.len());
        }
    }
}
