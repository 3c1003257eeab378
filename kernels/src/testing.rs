//! What property tests draw: shapes around every edge of the kernels, numbers that break careless arithmetic, and the
//! comparison of bits.

use crate::pool::{PoolShape, SppShape};
use crate::{ConvShape, Dims, Isa, LANES, blocks};
use proptest::prelude::*;

/// Numbers that careless arithmetic gets wrong.
pub const SPECIAL: [f32; 12] = [
    0.0,
    -0.0,
    f32::MIN_POSITIVE,
    -f32::MIN_POSITIVE / 4.0,
    1e-45,
    f32::MAX,
    f32::MIN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    1.0,
    -1.0,
];

/// A slope: negative, zero of either sign, small, one, above one.
pub fn slope() -> impl Strategy<Value = f32> {
    prop_oneof![Just(0.0f32), Just(-0.0), Just(0.25), Just(1.0), Just(1e-40), -2.0f32..0.0, 0.0f32..1.0, 1.0f32..3.0]
}

/// Channel counts around the block of 16, and around 512 in a reduction over one pixel.
pub fn channels() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => prop::sample::select(vec![1usize, 2, 3, 4, 5, 12, 15, 16, 17, 20]),
        3 => prop::sample::select(vec![31usize, 32, 33, 47, 48, 63, 64, 65, 80, 96]),
        1 => prop::sample::select(vec![127usize, 128, 129, 511, 512, 513]),
    ]
}

/// Image sides: one pixel, around the register tiles' rows (6, 12, 14, 28), odd ones between.
pub fn side() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![1usize, 2, 3, 5, 6, 7, 8, 11, 12, 13, 14, 15, 17, 27, 28, 29])
}

/// A tensor's dimensions, a few thousand elements at most.
pub fn dims() -> impl Strategy<Value = Dims> {
    (prop::sample::select(vec![1usize, 2, 3, 7, 8, 9, 17, 25]), channels(), side(), side()).prop_map(|(n, c, h, w)| {
        let mut d = Dims { n, c, h, w };
        while d.plain_len() > 20_000 {
            let longest = [&mut d.c, &mut d.h, &mut d.w, &mut d.n].into_iter().max_by_key(|x| **x);
            longest.into_iter().for_each(|x| *x = x.div_ceil(2));
        }
        d
    })
}

/// The multiply-adds that [`conv_shape`] allows, so that the naive reference takes milliseconds.
const MOST_FLOPS: f64 = 4e6;

/// A valid convolution: kernels of 1 to 7, strides, dilations, groups (depthwise too), each side its own padding, which
/// may exceed the image; reductions around 512.
pub fn conv_shape() -> impl Strategy<Value = ConvShape> {
    let kernel = || prop::sample::select(vec![1usize, 1, 2, 3, 3, 5, 7]);
    let stride = || prop::sample::select(vec![1usize, 1, 1, 2, 3]);
    let dilation = || prop::sample::select(vec![1usize, 1, 1, 2, 3]);
    let groups = prop::sample::select(vec![1usize, 1, 1, 1, 2, 3, 0]);
    let image = (1usize..4, channels(), side(), side(), channels(), groups);
    let window = (kernel(), kernel(), stride(), stride(), dilation(), dilation());
    let pads = prop::array::uniform4(prop_oneof![4 => 0usize..4, 1 => 0usize..20]);
    (image, window, pads).prop_map(
        |((n, ic, ih, iw, oc, groups), (kh, kw, sh, sw, dh, dw), [top, bottom, left, right])| {
            // 0 stands for depthwise: a group a channel.
            let (groups, ic, oc) = match groups {
                0 => (ic, ic, ic * (1 + oc % 2)),
                g => (g, ic.next_multiple_of(g), oc.next_multiple_of(g)),
            };
            let mut s = ConvShape {
                n,
                groups,
                ic,
                ih,
                iw,
                oc,
                kh,
                kw,
                stride_h: sh,
                stride_w: sw,
                pad_top: top,
                pad_bottom: bottom,
                pad_left: left,
                pad_right: right,
                dilation_h: dh,
                dilation_w: dw,
            };
            // Where the kernel does not fit, padding makes room.
            s.pad_bottom += ((kh - 1) * dh + 1).saturating_sub(s.padded_h());
            s.pad_right += ((kw - 1) * dw + 1).saturating_sub(s.padded_w());
            while s.flops() > MOST_FLOPS && (s.n > 1 || s.oh() > 1 || s.ow() > 1) {
                if s.n > 1 {
                    s.n = 1;
                } else if s.oh() >= s.ow() {
                    (s.ih, s.pad_top, s.pad_bottom) = (s.ih.div_ceil(2), s.pad_top / 2, s.pad_bottom / 2);
                    s.pad_bottom += ((kh - 1) * dh + 1).saturating_sub(s.padded_h());
                    if s.ih == 1 && s.pad_top == 0 {
                        break;
                    }
                } else {
                    (s.iw, s.pad_left, s.pad_right) = (s.iw.div_ceil(2), s.pad_left / 2, s.pad_right / 2);
                    s.pad_right += ((kw - 1) * dw + 1).saturating_sub(s.padded_w());
                    if s.iw == 1 && s.pad_left == 0 {
                        break;
                    }
                }
            }
            s
        },
    )
}

/// A valid pooling shape: windows that overlap, leave gaps, lie partly in the padding, or cover the image.
pub fn pool_shape() -> impl Strategy<Value = PoolShape> {
    let axis = || (1usize..6, 1usize..5, 0usize..3, 0usize..3);
    (dims(), axis(), axis(), any::<bool>()).prop_map(|(d, (kh, sh, top, bottom), (kw, sw, left, right), global)| {
        let whole = PoolShape::global(d);
        let s = PoolShape {
            kh,
            kw,
            stride_h: sh,
            stride_w: sw,
            pad_top: top.min(kh - 1),
            pad_bottom: bottom.min(kh - 1),
            pad_left: left.min(kw - 1),
            pad_right: right.min(kw - 1),
            ..whole
        };
        if global && d.n % 2 == 0 || s.check().is_err() { whole } else { s }
    })
}

/// A valid pyramid: up to four levels, bins larger and smaller than pixels.
pub fn spp_shape() -> impl Strategy<Value = SppShape> {
    let bins = prop::collection::vec(1usize..9, 1..5);
    (dims(), bins).prop_map(|(Dims { n, c, h, w }, bins)| SppShape { n: n.min(3), c, h, w, bins })
}

/// `len` numbers in [−1, 1) drawn from the seed; with `special` about one in eight is of [`SPECIAL`].
pub fn numbers(seed: u64, len: usize, special: bool) -> Vec<f32> {
    // SplitMix64 (Steele, Lea and Flood 2014).
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let number = |z: u64| match z & 7 {
        0 if special => SPECIAL[(z >> 3) as usize % SPECIAL.len()],
        _ => (z >> 40) as f32 / (1u64 << 23) as f32 - 1.0,
    };
    (0..len).map(|_| number(next())).collect()
}

/// NCHW to blocked, plainly.
pub fn to_blocked<T: Copy>(d: &Dims, x: &[T], zero: T) -> Vec<T> {
    let mut y = vec![zero; d.blocked_len()];
    for (i, &v) in x.iter().enumerate() {
        let (n, c, p) = (i / d.plane() / d.c, i / d.plane() % d.c, i % d.plane());
        y[((n * blocks(d.c) + c / LANES) * d.plane() + p) * LANES + c % LANES] = v;
    }
    y
}

/// Says where two slices differ in their bits; any NaN equals any NaN.
///
/// # Errors
/// The first difference, in words.
pub fn same_bits(got: &[f32], want: &[f32]) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{} elements, want {}", got.len(), want.len()));
    }
    match got.iter().zip(want).position(|(a, b)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan())) {
        None => Ok(()),
        Some(i) => Err(format!("element {i} of {}: {:e}, want {:e}", got.len(), got[i], want[i])),
    }
}

/// Runs `f` for every instruction set of this processor in rayon pools of 1, 2 and 5 threads.
///
/// # Errors
/// What `f` says, with the instruction set and the number of threads.
pub fn everywhere(f: impl Fn(Isa) -> Result<(), String> + Sync) -> Result<(), String> {
    static POOLS: std::sync::OnceLock<Vec<rayon::ThreadPool>> = std::sync::OnceLock::new();
    let build = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().ok();
    let pools = POOLS.get_or_init(|| [1, 2, 5].into_iter().filter_map(build).collect());
    if pools.len() != 3 {
        return Err("the thread pools cannot be made".into());
    }
    for pool in pools {
        for isa in Isa::available() {
            let at = |why| format!("{isa}, {} threads: {why}", pool.current_num_threads());
            pool.install(|| f(isa)).map_err(at)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest! {
        #[test]
        fn shapes_are_valid_and_small(conv in conv_shape(), pool in pool_shape(), spp in spp_shape(), d in dims()) {
            prop_assert_eq!(conv.check(), Ok(()));
            prop_assert!(conv.flops() < 3e8, "{:?}", conv);
            prop_assert_eq!(pool.check(), Ok(()));
            prop_assert_eq!(spp.check(), Ok(()));
            prop_assert_eq!(d.check(), Ok(()));
        }
    }

    #[test]
    fn bits_tell_zeros_apart_and_not_nans() {
        let nan = f32::from_bits(0xffc0_1234);
        assert_eq!(same_bits(&[1.0, nan], &[1.0, f32::NAN]), Ok(()));
        assert!(same_bits(&[-0.0], &[0.0]).is_err());
        assert!(same_bits(&[0.0], &[0.0, 0.0]).is_err());
    }
}
