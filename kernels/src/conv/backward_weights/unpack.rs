//! From the sums of a unit to OIHW.

use crate::layout::pixels_to_planes;
use crate::{Kernel, LANES, Simd};

/// Writes a unit's rows, whose vectors are of output channels, channel by channel.
pub(super) struct Unpack<'a> {
    /// `[oc block][row][16]`.
    pub sums: &'a [f32],
    /// Elements of a block.
    pub height: usize,
    /// Rows to write.
    pub rows: usize,
    /// Where the first channel's first row goes, and the distance of channels, which is no less than the rows.
    pub to: *mut f32,
    pub stream: usize,
    pub channels: usize,
}

impl Kernel for Unpack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for first in (0..self.channels).step_by(LANES) {
            let block = &self.sums[first / LANES * self.height..][..self.rows * LANES];
            for (i, lines) in block.chunks(LANES * LANES).enumerate() {
                let to = self.to.wrapping_add(first * self.stream + i * LANES);
                let channels = LANES.min(self.channels - first);
                // SAFETY: `Direct::unpack` promises that each channel's rows may be written; where there are sixteen,
                // channels are as far apart.
                unsafe { pixels_to_planes(s, lines.as_ptr(), lines.len() / LANES, to, self.stream, channels) };
            }
        }
    }
}
