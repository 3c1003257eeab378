//! Groups of whole blocks of channels: by Winograd too each is a convolution of its own.

mod common;

use common::passes::check_winograd;
use rectify_kernels::ConvShape;
use rectify_kernels::conv::Algorithm;

/// Groups that threads take each on their own, and groups that they share; of several blocks, of more inputs than outputs.
#[test]
fn groups_are_convolutions() {
    let square = ConvShape::square;
    for s in [
        ConvShape { groups: 2, ..square(3, 64, 9, 32, 3, 1, 1) },
        ConvShape { groups: 3, ..square(2, 48, 6, 96, 3, 1, 1) },
        ConvShape { groups: 5, iw: 9, ..square(1, 80, 5, 80, 2, 1, 0) },
        ConvShape { groups: 9, ..square(1, 144, 2, 144, 3, 1, 1) },
        ConvShape { groups: 2, ..square(2, 32, 11, 64, 3, 2, 1) },
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
