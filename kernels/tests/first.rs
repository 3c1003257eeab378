//! First layers by Winograd, from NCHW, against the reference: equal bits on every instruction set, thread count and
//! blocking.

mod common;

use common::forward::{check_variations, variations};
use common::noise;
use proptest::prelude::*;
use rectify_kernels::conv::{Algorithm, Blocking, Forward, Layout, Options};
use rectify_kernels::reference::winograd::Variant;
use rectify_kernels::{ConvShape, Isa};

/// Variations of the forward pass of a first layer.
fn first_variations(algorithm: Algorithm) -> impl Iterator<Item = (Isa, usize, Options)> {
    let few = Some(Blocking { rows: 7, vectors: 1 });
    variations(algorithm)
        .chain(variations(algorithm).map(move |(isa, threads, o)| (isa, threads, Options { blocking: few, ..o })))
        .flat_map(|(isa, threads, o)| {
            [Layout::Blocked, Layout::Nchw].map(|output| (isa, threads, Options { input: Layout::Nchw, output, ..o }))
        })
}

fn check_first(s: &ConvShape) {
    let (x, w) = (noise(s.input().plain_len(), 1), noise(s.weight_len(), 2));
    let algorithm = Algorithm::Winograd;
    check_variations(s, Some(Variant::F4x7S2), first_variations(algorithm), &x, &w);
}

#[test]
fn first_layers_edges() {
    let square = |n, ic, side, oc, pad| ConvShape::square(n, ic, side, oc, 7, 2, pad);
    for s in [
        square(2, 3, 21, 17, 3),
        // Such as `Auto` takes.
        square(2, 4, 39, 48, 2),
        // One tile, one output, more padding than image.
        square(3, 1, 1, 5, 3),
        square(1, 4, 7, 33, 0),
        // A row or column that no output reads, but the transforms of the last tiles do.
        square(1, 2, 24, 16, 0),
        // As many tiles in a row as a block takes, and one more; five blocks of output channels.
        ConvShape { iw: 240, ..square(1, 3, 9, 70, 3) },
        ConvShape { iw: 248, ..square(2, 1, 30, 16, 3) },
        ConvShape { iw: 21, pad_top: 2, pad_bottom: 0, pad_left: 0, pad_right: 1, ..square(2, 3, 31, 19, 0) },
        ConvShape { pad_top: 19, pad_right: 32, ..square(1, 3, 4, 6, 3) },
        ConvShape { pad_bottom: 23, pad_left: 35, ..square(1, 3, 4, 6, 3) },
    ] {
        check_first(&s);
    }
}

/// Auto takes Winograd where it is faster, from NCHW alone; from blocks the shape is direct.
#[test]
fn first_layers_take_winograd_where_it_pays() {
    let auto = |s: &ConvShape, input| {
        let variants = [Layout::Blocked, Layout::Nchw].map(|output| {
            let options = Options { input, output, ..Options::default() };
            Forward::new(Isa::Portable, s, &options).unwrap().variant()
        });
        assert_eq!(variants[0], variants[1], "{s:?}");
        variants[0]
    };
    for (side, oc, pays) in [(224, 96, true), (224, 16, true), (224, 15, false), (32, 16, false), (32, 32, true)] {
        let s = ConvShape::square(1, 3, side, oc, 7, 2, 3);
        assert_eq!(auto(&s, Layout::Nchw), pays.then_some(Variant::F4x7S2), "{s:?}");
        for n in [2, 64] {
            assert_eq!(auto(&ConvShape { n, ..s }, Layout::Nchw), auto(&s, Layout::Nchw));
        }
        assert_eq!(auto(&s, Layout::Blocked), None);
    }
    let s = ConvShape::square(1, 3, 224, 96, 7, 2, 3);
    for output in [Layout::Blocked, Layout::Nchw] {
        let options = Options { algorithm: Algorithm::Winograd, input: Layout::Blocked, output, blocking: None };
        assert!(Forward::new(Isa::Portable, &s, &options).unwrap_err().to_string().contains("kh = 7"));
    }
    let many = ConvShape { ic: 5, ..s };
    assert_eq!(auto(&many, Layout::Nchw), None);
    assert_eq!(auto(&ConvShape { ic: 64, ..s }, Layout::Blocked), None);
}

/// First layers that Winograd serves from NCHW.
fn first_shapes() -> impl Strategy<Value = ConvShape> {
    let image = (1usize..4, 1usize..5, 1usize..40, 1usize..90, prop_oneof![1usize..18, 31usize..36, 79usize..82]);
    (image, prop::array::uniform4(0usize..8))
        .prop_map(|((n, ic, ih, iw, oc), [pad_top, pad_bottom, pad_left, pad_right])| {
            let square = ConvShape::square(n, ic, ih, oc, 7, 2, 0);
            ConvShape { iw, pad_top, pad_bottom, pad_left, pad_right, ..square }
        })
        .prop_filter("kernel within the padded image", |s| s.check().is_ok())
}

proptest! {
    #![proptest_config(common::cases(64))]
    #[test]
    fn a_first_layer_has_the_bits_of_its_reference(s in first_shapes()) {
        check_first(&s);
    }
}
