//! Depthwise convolutions against the reference: equal bits on every instruction set, thread count, blocking and
//! layout.

mod common;

use common::noise;
use common::passes::{check, check_forward};
use rectify_kernels::ConvShape;
use rectify_kernels::conv::Algorithm;

fn depthwise(n: usize, c: usize, ih: usize, iw: usize, k: usize, pad: usize) -> ConvShape {
    ConvShape { groups: c, iw, ..ConvShape::square(n, c, ih, c, k, 1, pad) }
}

/// Rows that hold whole tiles of pixels, whose inputs are loaded once a row of taps: 3 and 5 columns of taps, lanes
/// without a channel, a last tile that overlaps; taps that are not neighbours.
#[test]
fn wide_depthwise() {
    for s in [
        depthwise(2, 32, 5, 24, 3, 1),
        depthwise(1, 19, 6, 21, 3, 1),
        depthwise(1, 16, 7, 26, 5, 2),
        depthwise(2, 21, 6, 19, 5, 0),
        depthwise(1, 16, 8, 17, 4, 1),
        ConvShape { dilation_h: 2, ..depthwise(1, 17, 9, 18, 3, 2) },
        ConvShape { dilation_w: 2, ..depthwise(1, 17, 5, 22, 3, 1) },
        ConvShape { dilation_h: 2, pad_top: 2, pad_bottom: 2, ..depthwise(1, 17, 9, 18, 3, 1) },
        ConvShape { kh: 5, ..depthwise(1, 17, 9, 18, 3, 1) },
        ConvShape { stride_h: 2, ..depthwise(1, 17, 9, 22, 3, 1) },
    ] {
        check(&s);
    }
}

/// Rows of every width about that of a tile: with padding that the first and the last tile alone read, and too narrow
/// for it.
#[test]
fn depthwise_of_any_width() {
    for (k, stride) in [(3, 1), (5, 1), (3, 2), (5, 2)] {
        for iw in (4..=11).chain(17..=20) {
            check(&ConvShape { stride_h: stride, stride_w: stride, ..depthwise(1, 17, 3, iw, k, k / 2) });
        }
    }
}

/// Planes too large to be made into blocks: strips of rows of two blocks of channels, and the tensor itself.
#[test]
fn large_depthwise_from_planes() {
    for (k, iw) in [(3, 3281), (1, 3290)] {
        let s = depthwise(1, 17, 5, iw, k, k / 2);
        check_forward(&s, Algorithm::Direct, &noise(s.input().plain_len(), 1), &noise(s.weight_len(), 2));
    }
}
