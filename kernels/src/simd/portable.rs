//! Arrays of sixteen and `f32::mul_add`: the bits of the others on any processor, slowly, more so without FMA.

use super::{Lanes, Simd};

/// Token of the portable code.
#[derive(Clone, Copy)]
pub struct Portable(pub(crate) ());

/// `a·b + c`. On x86-64 a compiler that may not assume FMA calls a function for each lane, which takes what the
/// processor has or does it in software; here the processor is asked once for sixteen. With sixteen calls in each place
/// kernels took more than three times as long (Emerald Rapids).
#[cfg(target_arch = "x86_64")]
#[inline(never)]
fn fma(a: &[f32; 16], b: &[f32; 16], c: &[f32; 16]) -> [f32; 16] {
    /// # Safety
    /// The processor must have the features.
    #[target_feature(enable = "avx,fma")]
    unsafe fn fused(a: &[f32; 16], b: &[f32; 16], c: &[f32; 16]) -> [f32; 16] {
        mul_add(a, b, c)
    }
    if std::arch::is_x86_feature_detected!("avx") && std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: the processor has just been asked for the features.
        unsafe { fused(a, b, c) }
    } else {
        called(a, b, c)
    }
}

/// Apart, to spare [`fma`] the registers that calls need saved.
#[cfg(target_arch = "x86_64")]
#[cold]
#[inline(never)]
fn called(a: &[f32; 16], b: &[f32; 16], c: &[f32; 16]) -> [f32; 16] {
    mul_add(a, b, c)
}

#[cfg(not(target_arch = "x86_64"))]
use mul_add as fma;

#[inline(always)]
fn mul_add(a: &[f32; 16], b: &[f32; 16], c: &[f32; 16]) -> [f32; 16] {
    core::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
}

#[inline(always)]
fn zip(a: [f32; 16], b: [f32; 16], f: impl Fn(f32, f32) -> f32) -> [f32; 16] {
    core::array::from_fn(|i| f(a[i], b[i]))
}

impl Lanes for Portable {
    type V = [f32; 16];
    type M = [bool; 16];
    const WIDTH: usize = 16;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; 16]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::V {
        // SAFETY: 16 readable floats by the caller's promise; the array type has alignment 4 like f32.
        unsafe { p.cast::<[f32; 16]>().read() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::V) {
        // SAFETY: 16 writable floats by the caller's promise.
        unsafe { p.cast::<[f32; 16]>().write(v) }
    }
    #[inline(always)]
    unsafe fn group<const G: usize>(self, p: *const f32, _lane: usize) -> [Self::V; G] {
        // SAFETY: 16 readable floats by the caller's promise.
        let v = unsafe { self.load(p) };
        core::array::from_fn(|i| core::array::from_fn(|lane| v[lane / G * G + i]))
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        fma(&a, &b, &c)
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn gt(self, a: Self::V, b: Self::V) -> Self::M {
        core::array::from_fn(|i| a[i] > b[i])
    }
    #[inline(always)]
    fn select(self, m: Self::M, a: Self::V, b: Self::V) -> Self::V {
        core::array::from_fn(|i| if m[i] { a[i] } else { b[i] })
    }
}

impl Simd for Portable {
    type Register = Self;
    const TILE_VECTORS: usize = 1;
    const UNROLLS: bool = false;

    #[inline(always)]
    fn register(self) -> Self {
        self
    }
    #[inline(always)]
    fn not_gt(self, a: Self::V, b: Self::V) -> Self::M {
        self.gt(a, b).map(|greater| !greater)
    }
    #[inline(always)]
    fn is_nan(self, a: Self::V) -> Self::M {
        core::array::from_fn(|i| a[i].is_nan())
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use crate::LANES;

    /// Both ways, against a sum that `f64` holds exactly and rounds once.
    #[test]
    fn products_are_fused_with_the_processors_fma_and_without() {
        // Odd numbers of 24 bits: rounded, their products lose up to 24 bits.
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8 | 1) as f32) * if state & 128 == 0 { 1.0 } else { -1.0 }
        };
        let mut unlike = 0;
        for shift in 0..24 {
            let [a, b] = [(); 2].map(|()| std::array::from_fn::<f32, LANES, _>(|_| next()));
            // What cancels most of some products, and no more than 53 bits together.
            let c = std::array::from_fn(|i| if i % 2 == 0 { -(a[i] * b[i]) } else { next() * (1 << shift) as f32 });
            let want: [u32; LANES] =
                std::array::from_fn(|i| ((f64::from(a[i]) * f64::from(b[i]) + f64::from(c[i])) as f32).to_bits());
            assert_eq!(super::fma(&a, &b, &c).map(f32::to_bits), want);
            assert_eq!(super::called(&a, &b, &c).map(f32::to_bits), want);
            unlike += (0..LANES).filter(|&i| (a[i] * b[i] + c[i]).to_bits() != want[i]).count();
        }
        assert!(unlike > 200, "two roundings give other bits: {unlike}");
    }
}
