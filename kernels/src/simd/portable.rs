//! Arrays of sixteen and `f32::mul_add`: the bits of the others on any processor, slowly, more so where FMA is software.

use super::{Lanes, Simd};

/// Token of the portable code.
#[derive(Clone, Copy)]
pub struct Portable(pub(crate) ());

/// `a·b + c`. On x86-64 a compiler that may not assume FMA makes a call of the C library for each lane, which asks the
/// processor each time; here it is asked once for sixteen. Inlined, the calls took four times as long to run, and more
/// time to compile than the bodies of both other instruction sets.
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
    #[test]
    fn the_c_library_and_the_processor_fuse_alike() {
        // Products that cancel all but what rounding would lose, overflow, subnormals, zeros of both signs.
        let values = [1.0 + f32::EPSILON, -1.0, 3e38, -1e-38, 1e-45, 0.0, -0.0, f32::INFINITY];
        for a in values {
            for b in values {
                let (a, b) = ([a; 16], [b; 16]);
                let c = core::array::from_fn(|i| if i < 8 { values[i] } else { -(a[0] * b[0]) * values[i - 8] });
                let bits = |v: [f32; 16]| v.map(|x| if x.is_nan() { None } else { Some(x.to_bits()) });
                assert_eq!(bits(super::fma(&a, &b, &c)), bits(super::called(&a, &b, &c)), "{a:?}·{b:?} + {c:?}");
            }
        }
    }
}
