//! AVX-512F: a virtual vector is one register.

use super::{Lanes, Simd};
use core::arch::x86_64::*;

/// Token: the processor has AVX-512F (and AVX2 and FMA).
#[derive(Clone, Copy)]
pub struct Avx512(pub(crate) ());

impl Lanes for Avx512 {
    type V = __m512;
    type M = __mmask16;
    const WIDTH: usize = 16;
    const STREAMS: bool = true;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        // SAFETY: the token proves AVX-512F; 16 readable floats by the caller's promise.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m512) {
        // SAFETY: the token proves AVX-512F; 16 writable floats by the caller's promise.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn stream(self, p: *mut f32, v: __m512) {
        // SAFETY: the token proves AVX-512F; a whole line by the caller's promise.
        unsafe { _mm512_stream_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn group<const G: usize>(self, p: *const f32, _lane: usize) -> [__m512; G] {
        // SAFETY: the token proves AVX-512F; 16 readable floats by the caller's promise.
        unsafe {
            let v = _mm512_loadu_ps(p);
            let mut of = [v; G];
            if G == 2 {
                of[0] = _mm512_moveldup_ps(v);
                of[1] = _mm512_movehdup_ps(v);
            }
            for first in (0..if G > 2 { G } else { 0 }).step_by(4) {
                // The first or the second four of each eight, twice.
                let four = match (G, first) {
                    (4, _) => v,
                    (_, 0) => _mm512_shuffle_f32x4::<0xa0>(v, v),
                    _ => _mm512_shuffle_f32x4::<0xf5>(v, v),
                };
                of[first] = _mm512_permute_ps::<0x00>(four);
                of[first + 1] = _mm512_permute_ps::<0x55>(four);
                of[first + 2] = _mm512_permute_ps::<0xaa>(four);
                of[first + 3] = _mm512_permute_ps::<0xff>(four);
            }
            of
        }
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn gt(self, a: __m512, b: __m512) -> __mmask16 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b) }
    }
    #[inline(always)]
    fn select(self, m: __mmask16, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_mask_blend_ps(m, b, a) }
    }
}

impl Simd for Avx512 {
    type Register = Self;
    const TILE_VECTORS: usize = 4;
    const NARROW_ROWS: usize = 14;

    #[inline(always)]
    fn register(self) -> Self {
        self
    }
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> __m512 {
        if n == 16 {
            // SAFETY: the token proves AVX-512F; 16 readable floats by the caller's promise.
            return unsafe { _mm512_loadu_ps(p) };
        }
        // SAFETY: the token proves AVX-512F; the mask keeps the read to the `n` < 16 floats the caller promised.
        unsafe { _mm512_maskz_loadu_ps(((1u32 << n) - 1) as __mmask16, p) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, v: __m512, n: usize) {
        if n == 16 {
            // A masked store is slow, and what it wrote cannot be forwarded to a load.
            // SAFETY: the token proves AVX-512F; 16 writable floats by the caller's promise.
            return unsafe { _mm512_storeu_ps(p, v) };
        }
        // SAFETY: the token proves AVX-512F; the mask keeps the write to the `n` < 16 floats the caller promised.
        unsafe { _mm512_mask_storeu_ps(p, ((1u32 << n) - 1) as __mmask16, v) }
    }
    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        // SAFETY: a hint that never faults; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    fn prefetch_far(self, p: *const f32) {
        // SAFETY: a hint that never faults; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }
    #[inline(always)]
    fn transpose(self, rows: &mut [__m512; 16]) {
        let (mut t, mut u) = (*rows, *rows);
        // SAFETY: the token proves AVX-512F.
        unsafe {
            for i in (0..16).step_by(2) {
                t[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
                t[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
            }
            let pd = |v| _mm512_castps_pd(v);
            for i in (0..16).step_by(4) {
                u[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(pd(t[i]), pd(t[i + 2])));
                u[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(pd(t[i]), pd(t[i + 2])));
                u[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(pd(t[i + 1]), pd(t[i + 3])));
                u[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(pd(t[i + 1]), pd(t[i + 3])));
            }
            // Quarter `b` of `u[4g + j]` now holds column `4b + j` of rows `4g` to `4g + 3`.
            for j in 0..4 {
                let (even, odd) =
                    (_mm512_shuffle_f32x4::<0x88>(u[j], u[4 + j]), _mm512_shuffle_f32x4::<0xdd>(u[j], u[4 + j]));
                let low = _mm512_shuffle_f32x4::<0x88>(u[8 + j], u[12 + j]);
                let high = _mm512_shuffle_f32x4::<0xdd>(u[8 + j], u[12 + j]);
                rows[j] = _mm512_shuffle_f32x4::<0x88>(even, low);
                rows[4 + j] = _mm512_shuffle_f32x4::<0x88>(odd, high);
                rows[8 + j] = _mm512_shuffle_f32x4::<0xdd>(even, low);
                rows[12 + j] = _mm512_shuffle_f32x4::<0xdd>(odd, high);
            }
        }
    }
    #[inline(always)]
    fn not_gt(self, a: __m512, b: __m512) -> __mmask16 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_cmp_ps_mask::<_CMP_NGT_UQ>(a, b) }
    }
    #[inline(always)]
    fn is_nan(self, a: __m512) -> __mmask16 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a) }
    }
}
