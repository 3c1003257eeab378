//! What the targets of the kernels have in common.

use rectify_kernels::{Buffer, Dims, Error, Isa, layout};
use std::sync::OnceLock;

/// Numbers of mixed sign and size, with some zeros and those special values among them that are drawn for the stream.
pub fn numbers(seed: u32, specials: &[(u8, u16)], stream: u32, len: usize) -> Vec<f32> {
    const SPECIAL: [f32; 8] =
        [-0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MIN_POSITIVE, 1e-42, -1e-45, f32::MAX];
    let mut state = seed ^ stream.wrapping_mul(0x9e37_79b9);
    let mut x: Vec<f32> = (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    for &(kind, at) in specials.iter().take(4).filter(|s| u32::from(s.0 >> 5) == stream) {
        x[usize::from(at) % len] = SPECIAL[usize::from(kind % 8)];
    }
    x
}

pub fn blocked(dims: Dims, x: &[f32]) -> Result<Buffer, Error> {
    let mut y = Buffer::zeroed(dims.blocked_len());
    layout::nchw_to_blocked(Isa::Portable, dims, x, &mut y)?;
    Ok(y)
}

pub fn plain(dims: Dims, x: &[f32]) -> Result<Vec<f32>, Error> {
    let mut y = vec![0.0; dims.plain_len()];
    layout::blocked_to_nchw(Isa::Portable, dims, x, &mut y)?;
    Ok(y)
}

/// Equal bits; any NaN equals any other, since their payloads are not defined.
pub fn same(what: &str, isa: Isa, got: &[f32], want: &[f32]) {
    for (i, (a, b)) in got.iter().zip(want).enumerate() {
        assert!(a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()), "{what} on {isa}: [{i}] {a:e}, not {b:e}");
    }
    assert_eq!(got.len(), want.len(), "{what} on {isa}");
}

/// A pool of one to three threads.
pub fn pool(threads: u8) -> Option<&'static rayon::ThreadPool> {
    static POOLS: OnceLock<Vec<rayon::ThreadPool>> = OnceLock::new();
    let pools = POOLS.get_or_init(|| {
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        (1..=3).flat_map(pool).collect()
    });
    pools.get(usize::from(threads % 3))
}
