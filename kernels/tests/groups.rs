//! Groups of channels: of whole blocks, each by Winograd too a convolution of its own; of two, four or eight, lane by
//! lane.

mod common;

use common::noise;
use common::passes::{check, check_forward, check_winograd};
use rectify_kernels::ConvShape;
use rectify_kernels::conv::Algorithm;

/// Groups that threads take each on their own, and groups that they share; of several blocks, of more inputs than
/// outputs.
#[test]
fn groups_are_convolutions() {
    let square = ConvShape::square;
    for s in [
        ConvShape { groups: 2, ..square(3, 64, 9, 32, 3, 1, 1) },
        ConvShape { groups: 3, ..square(2, 48, 6, 96, 3, 1, 1) },
        ConvShape { groups: 5, iw: 9, ..square(1, 80, 5, 80, 2, 1, 0) },
        ConvShape { groups: 9, ..square(1, 144, 2, 144, 3, 1, 1) },
        ConvShape { groups: 2, ..square(2, 32, 11, 64, 3, 2, 1) },
        ConvShape { groups: 3, ..square(1, 96, 9, 48, 3, 2, 0) },
        // More than a short chunk of tiles: how long it is depends on a group's channels, not on all.
        ConvShape { groups: 7, ..square(1, 112, 26, 112, 3, 1, 1) },
        ConvShape { groups: 4, ..square(1, 64, 50, 64, 3, 2, 1) },
    ] {
        check_winograd(&s);
    }
}

#[test]
fn groups_that_end_within_a_block_are_refused() {
    for (ic, oc) in [(40, 64), (64, 40), (8, 8)] {
        let s = ConvShape { groups: 2, ..ConvShape::square(1, ic, 9, oc, 3, 1, 1) };
        let e = Algorithm::Winograd.variant(&s).unwrap_err().to_string();
        assert!(e.contains("groups = 2"), "{e}");
        assert_eq!(Algorithm::Auto.variant(&s), Ok(None));
    }
}

/// So many channels in groups of `each`.
fn small(channels: usize, each: usize, [ih, iw]: [usize; 2], k: usize, stride: usize, pad: usize) -> ConvShape {
    ConvShape { groups: channels / each, iw, ..ConvShape::square(2, channels, ih, channels, k, stride, pad) }
}

/// Rows that hold whole tiles of pixels, narrow ones, strides, kernels of more taps than a chunk; lanes without a
/// channel.
#[test]
fn groups_within_a_block() {
    for s in [
        small(32, 2, [5, 9], 3, 1, 1),
        small(20, 4, [6, 20], 3, 1, 1),
        small(24, 8, [5, 11], 3, 1, 1),
        small(6, 2, [4, 6], 3, 1, 1),
        small(16, 4, [3, 5], 3, 1, 1),
        small(16, 8, [3, 8], 3, 1, 1),
        small(34, 2, [7, 11], 3, 2, 1),
        small(20, 4, [8, 12], 3, 2, 1),
        small(16, 8, [6, 13], 3, 2, 1),
        small(16, 4, [5, 3], 3, 1, 1),
        small(8, 2, [8, 9], 5, 1, 2),
        small(8, 4, [9, 17], 7, 1, 3),
        small(24, 8, [4, 17], 1, 1, 0),
        ConvShape { n: 17, ..small(20, 4, [3, 7], 3, 1, 1) },
        ConvShape { dilation_w: 2, ..small(16, 8, [5, 14], 3, 1, 2) },
    ] {
        check(&s);
    }
}

/// Planes that are made into blocks band by band; of two blocks, with a stride and a band that reads padding alone.
#[test]
fn large_groups_from_planes() {
    for s in [
        ConvShape { n: 1, ..small(4, 2, [5, 3290], 3, 1, 1) },
        ConvShape { n: 1, stride_w: 1, pad_top: 5, ..small(18, 2, [5, 3290], 3, 2, 1) },
    ] {
        check_forward(&s, Algorithm::Direct, &noise(s.input().plain_len(), 1), &noise(s.weight_len(), 2));
    }
}
