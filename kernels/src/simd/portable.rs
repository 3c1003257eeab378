//! Arrays of sixteen and `f32::mul_add`: the bits of the others on any processor, slow where FMA is software.

use super::{Lanes, Simd};

/// Token of the portable code.
#[derive(Clone, Copy)]
pub struct Portable(pub(crate) ());

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
        core::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
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
