//! Which outputs of convolutions, and which packed weights, are written past the caches
//! ([`Lanes::stream`](crate::Lanes::stream)).

use crate::Buffer;
use crate::conv::Options;

/// Elements of an output from which on it is: 8 MiB. The third cache would hold little of it when it is read again, and
/// whoever writes to a line that is in no cache first waits for what was there. Layers of 16 MiB and more gain a
/// twentieth, training steps of large batches up to as much; nets forward gain nothing at 8 MiB and lose nothing (Zen
/// 4).
const LARGE: usize = 1 << 21;

/// Elements from which on a plan streams: forced blocks are for tests, which have small tensors.
pub(crate) fn least(options: &Options) -> usize {
    if options.blocking.is_some() { 0 } else { LARGE }
}

/// Whether to stream these outputs of a pass, of one length, or packed weights: if they are at least so many, and their
/// lines whole ones. Never where the fuzzer watches: it does not see such stores.
pub(crate) fn streams(y: &[f32], pre: Option<&[f32]>, least: usize) -> bool {
    let is_aligned = |x: &[f32]| x.as_ptr().addr().is_multiple_of(Buffer::ALIGN);
    !cfg!(fuzzing) && y.len() >= least && is_aligned(y) && pre.is_none_or(is_aligned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::Blocking;

    #[test]
    fn large_outputs_whose_lines_are_whole_are_streamed() {
        let usual = least(&Options::default());
        let forced = least(&Options { blocking: Some(Blocking { rows: 1, vectors: 1 }), ..Options::default() });
        let y = Buffer::zeroed(usual + 1);
        let (small, odd) = (&y[..usual - 1], &y[1..]);
        assert!(streams(&y, None, usual) && streams(&y, Some(&y), usual) && streams(small, None, forced));
        for (y, pre, least) in [(small, None, usual), (odd, None, usual), (odd, None, forced), (&y, Some(odd), forced)]
        {
            assert!(!streams(y, pre, least), "{}", y.len());
        }
    }
}
