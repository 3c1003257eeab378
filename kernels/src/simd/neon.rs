//! NEON: a virtual vector is four 128-bit registers.

use super::{Lanes, Simd};
use core::arch::aarch64::*;

/// Token: the processor has NEON.
#[derive(Clone, Copy)]
pub struct Neon(pub(crate) ());

/// Token of one register; the processor has NEON.
#[derive(Clone, Copy)]
pub struct Quarter(());

/// Four registers of four lanes.
pub type V4 = [float32x4_t; 4];

impl Lanes for Quarter {
    type V = float32x4_t;
    type M = uint32x4_t;
    const WIDTH: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> float32x4_t {
        // SAFETY: the token proves NEON.
        unsafe { vdupq_n_f32(x) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> float32x4_t {
        // SAFETY: the token proves NEON; 4 readable floats by the caller's promise.
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: float32x4_t) {
        // SAFETY: the token proves NEON; 4 writable floats by the caller's promise.
        unsafe { vst1q_f32(p, v) }
    }
    #[inline(always)]
    unsafe fn group<const G: usize>(self, p: *const f32, lane: usize) -> [float32x4_t; G] {
        // SAFETY: the token proves NEON; 16 readable floats by the caller's promise.
        unsafe {
            let v = vld1q_f32(p.add(lane));
            let mut of = [v; G];
            match G {
                1 => {}
                2 => {
                    of[0] = vtrn1q_f32(v, v);
                    of[1] = vtrn2q_f32(v, v);
                }
                _ => {
                    for (i, to) in of.iter_mut().enumerate() {
                        *to = self.splat(p.add(lane / G * G + i).read());
                    }
                }
            }
            of
        }
    }
    #[inline(always)]
    fn fma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: the token proves NEON.
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: the token proves NEON.
        unsafe { vaddq_f32(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: the token proves NEON.
        unsafe { vsubq_f32(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: the token proves NEON.
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    fn gt(self, a: float32x4_t, b: float32x4_t) -> uint32x4_t {
        // SAFETY: the token proves NEON.
        unsafe { vcgtq_f32(a, b) }
    }
    #[inline(always)]
    fn select(self, m: uint32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: the token proves NEON.
        unsafe { vbslq_f32(m, a, b) }
    }
}

impl Lanes for Neon {
    type V = V4;
    type M = [uint32x4_t; 4];
    const WIDTH: usize = 16;

    #[inline(always)]
    fn splat(self, x: f32) -> V4 {
        [self.register().splat(x); 4]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> V4 {
        let q = self.register();
        // SAFETY: 16 readable floats by the caller's promise.
        unsafe { [q.load(p), q.load(p.add(4)), q.load(p.add(8)), q.load(p.add(12))] }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: V4) {
        for (i, q) in v.into_iter().enumerate() {
            // SAFETY: 16 writable floats by the caller's promise.
            unsafe { self.register().store(p.add(4 * i), q) }
        }
    }
    #[inline(always)]
    unsafe fn group<const G: usize>(self, p: *const f32, _lane: usize) -> [V4; G] {
        let mut of = [self.zero(); G];
        for part in 0..4 {
            // SAFETY: the caller's promise.
            let quarter = unsafe { self.register().group::<G>(p, 4 * part) };
            for i in 0..G {
                of[i][part] = quarter[i];
            }
        }
        of
    }
    #[inline(always)]
    fn fma(self, a: V4, b: V4, c: V4) -> V4 {
        core::array::from_fn(|i| self.register().fma(a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn add(self, a: V4, b: V4) -> V4 {
        core::array::from_fn(|i| self.register().add(a[i], b[i]))
    }
    #[inline(always)]
    fn sub(self, a: V4, b: V4) -> V4 {
        core::array::from_fn(|i| self.register().sub(a[i], b[i]))
    }
    #[inline(always)]
    fn mul(self, a: V4, b: V4) -> V4 {
        core::array::from_fn(|i| self.register().mul(a[i], b[i]))
    }
    #[inline(always)]
    fn gt(self, a: V4, b: V4) -> Self::M {
        core::array::from_fn(|i| self.register().gt(a[i], b[i]))
    }
    #[inline(always)]
    fn select(self, m: Self::M, a: V4, b: V4) -> V4 {
        core::array::from_fn(|i| self.register().select(m[i], a[i], b[i]))
    }
}

impl Simd for Neon {
    type Register = Quarter;
    const TILE_VECTORS: usize = 1;

    #[inline(always)]
    fn register(self) -> Quarter {
        Quarter(())
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
}
