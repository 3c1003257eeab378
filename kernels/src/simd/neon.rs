//! NEON: a virtual vector is four 128-bit registers.

use super::Simd;
use core::arch::aarch64::*;

/// Token: the processor has NEON.
#[derive(Clone, Copy)]
pub struct Neon(pub(crate) ());

/// Four registers of four lanes.
pub type V4 = [float32x4_t; 4];

#[inline(always)]
fn zip(a: V4, b: V4, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> V4 {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

impl Simd for Neon {
    type V = V4;
    type M = [uint32x4_t; 4];
    const TILE_VECTORS: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> V4 {
        // SAFETY: the token proves NEON.
        [unsafe { vdupq_n_f32(x) }; 4]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> V4 {
        // SAFETY: the token proves NEON; 16 readable floats by the caller's promise.
        unsafe { [vld1q_f32(p), vld1q_f32(p.add(4)), vld1q_f32(p.add(8)), vld1q_f32(p.add(12))] }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: V4) {
        for (i, q) in v.into_iter().enumerate() {
            // SAFETY: the token proves NEON; 16 writable floats by the caller's promise.
            unsafe { vst1q_f32(p.add(4 * i), q) }
        }
    }
    #[inline(always)]
    fn fma(self, a: V4, b: V4, c: V4) -> V4 {
        // SAFETY: the token proves NEON.
        core::array::from_fn(|i| unsafe { vfmaq_f32(c[i], a[i], b[i]) })
    }
    #[inline(always)]
    fn add(self, a: V4, b: V4) -> V4 {
        // SAFETY: the token proves NEON.
        zip(a, b, |a, b| unsafe { vaddq_f32(a, b) })
    }
    #[inline(always)]
    fn sub(self, a: V4, b: V4) -> V4 {
        // SAFETY: the token proves NEON.
        zip(a, b, |a, b| unsafe { vsubq_f32(a, b) })
    }
    #[inline(always)]
    fn mul(self, a: V4, b: V4) -> V4 {
        // SAFETY: the token proves NEON.
        zip(a, b, |a, b| unsafe { vmulq_f32(a, b) })
    }
    #[inline(always)]
    fn gt(self, a: V4, b: V4) -> Self::M {
        // SAFETY: the token proves NEON.
        core::array::from_fn(|i| unsafe { vcgtq_f32(a[i], b[i]) })
    }
    #[inline(always)]
    fn not_gt(self, a: V4, b: V4) -> Self::M {
        // SAFETY: the token proves NEON.
        core::array::from_fn(|i| unsafe { vmvnq_u32(vcgtq_f32(a[i], b[i])) })
    }
    #[inline(always)]
    fn is_nan(self, a: V4) -> Self::M {
        // SAFETY: the token proves NEON.
        core::array::from_fn(|i| unsafe { vmvnq_u32(vceqq_f32(a[i], a[i])) })
    }
    #[inline(always)]
    fn select(self, m: Self::M, a: V4, b: V4) -> V4 {
        // SAFETY: the token proves NEON.
        core::array::from_fn(|i| unsafe { vbslq_f32(m[i], a[i], b[i]) })
    }
}
