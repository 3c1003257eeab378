//! Weights that the caches do not hold: other tiles by Winograd, panels that take turns in the direct algorithm.

mod common;

use common::forward::forward;
use common::passes::check;
use common::{assert_bits, from_blocked, noise, to_blocked, with_threads};
use rectify_kernels::conv::{Algorithm, Epilogue, Forward, Options};
use rectify_kernels::{Buffer, ConvShape, Isa};

/// 13 MB of transformed weights: with 32 registers of sixteen lanes, 7 to 14 tiles by two vectors, by one the last of
/// 19 blocks. Others have no such tiles, and take the longest row.
#[test]
fn winograd_by_tall_tiles() {
    let isa = Isa::best().unwrap();
    let w = noise(304 * 304 * 9, 2);
    for tiles in if isa == Isa::Avx512 { 9..=15 } else { 15..=15 } {
        let s = ConvShape { iw: 4 * tiles, ..ConvShape::square(1, 304, 4, 304, 3, 1, 1) };
        let x = noise(s.input().plain_len(), 1);
        let options = Options { algorithm: Algorithm::Winograd, ..Options::default() };
        let want = forward(&s, options.algorithm.variant(&s).unwrap(), &x, &w, &vec![0.0; s.ic]);
        let plan = Forward::new(isa, &s, &options).unwrap();
        let mut packed = Buffer::from_slice(&vec![f32::NAN; plan.packed_len()]);
        plan.pack(&w, &mut packed).unwrap();
        let x = to_blocked(&s.input(), &x);
        for threads in [1, 2] {
            let mut y = Buffer::from_slice(&vec![f32::NAN; s.output().blocked_len()]);
            let mut workspace = Buffer::from_slice(&vec![f32::NAN; plan.workspace_len(threads)]);
            with_threads(threads, || plan.run(&x, &packed, Epilogue::None, &mut y, &mut workspace)).unwrap();
            assert_bits(&format!("{isa} {threads} {s:?}"), &from_blocked(&s.output(), &y), &want);
        }
    }
}

/// More panels than keep a chunk's weights in the second cache.
#[test]
fn direct_by_shares_of_panels() {
    check(&ConvShape::square(1, 64, 3, 144, 3, 1, 1));
}
