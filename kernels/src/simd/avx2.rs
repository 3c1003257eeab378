//! AVX2 and FMA: a virtual vector is two 256-bit registers.

use super::{Lanes, Simd};
use core::arch::x86_64::*;

/// Token: the processor has AVX2 and FMA.
#[derive(Clone, Copy)]
pub struct Avx2(pub(crate) ());

/// Token of one register; the processor has AVX2 and FMA.
#[derive(Clone, Copy)]
pub struct Half(());

/// Two registers, lanes 0–7 and 8–15.
#[derive(Clone, Copy)]
pub struct V2(__m256, __m256);

/// Exchanges rows and columns of eight registers.
#[inline(always)]
fn transpose8(_: Avx2, r: [__m256; 8]) -> [__m256; 8] {
    let (mut t, mut u, mut out) = (r, r, r);
    // SAFETY: the token proves AVX2.
    unsafe {
        for i in (0..8).step_by(2) {
            t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
            t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
        }
        for i in (0..8).step_by(4) {
            u[i] = _mm256_shuffle_ps::<0x44>(t[i], t[i + 2]);
            u[i + 1] = _mm256_shuffle_ps::<0xee>(t[i], t[i + 2]);
            u[i + 2] = _mm256_shuffle_ps::<0x44>(t[i + 1], t[i + 3]);
            u[i + 3] = _mm256_shuffle_ps::<0xee>(t[i + 1], t[i + 3]);
        }
        for j in 0..4 {
            out[j] = _mm256_permute2f128_ps::<0x20>(u[j], u[4 + j]);
            out[4 + j] = _mm256_permute2f128_ps::<0x31>(u[j], u[4 + j]);
        }
    }
    out
}

/// Eight registers, `step` elements apart.
///
/// # Safety
/// They must be readable.
#[inline(always)]
unsafe fn load8(s: Avx2, from: *const f32, step: usize) -> [__m256; 8] {
    let mut q = [s.register().zero(); 8];
    for (i, row) in q.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *row = unsafe { s.register().load(from.add(i * step)) };
    }
    q
}

/// The reverse.
///
/// # Safety
/// They must be writable.
#[inline(always)]
unsafe fn store8(s: Avx2, to: *mut f32, step: usize, q: [__m256; 8]) {
    for (i, &row) in q.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { s.register().store(to.add(i * step), row) };
    }
}

impl Lanes for Half {
    type V = __m256;
    type M = __m256;
    const WIDTH: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m256 {
        // SAFETY: the token proves AVX2; 8 readable floats by the caller's promise.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m256) {
        // SAFETY: the token proves AVX2; 8 writable floats by the caller's promise.
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn group<const G: usize>(self, p: *const f32, lane: usize) -> [__m256; G] {
        // SAFETY: the token proves AVX2; 16 readable floats by the caller's promise, 8 of them from the lane on.
        unsafe {
            let p = p.add(lane);
            let v = _mm256_loadu_ps(p);
            let mut of = [v; G];
            match G {
                1 => {}
                2 => {
                    of[0] = _mm256_moveldup_ps(v);
                    of[1] = _mm256_movehdup_ps(v);
                }
                4 => {
                    of[0] = _mm256_permute_ps::<0x00>(v);
                    of[1] = _mm256_permute_ps::<0x55>(v);
                    of[2] = _mm256_permute_ps::<0xaa>(v);
                    of[3] = _mm256_permute_ps::<0xff>(v);
                }
                _ => {
                    for (i, to) in of.iter_mut().enumerate() {
                        *to = self.splat(p.add(i).read());
                    }
                }
            }
            of
        }
    }
    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn gt(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_cmp_ps::<_CMP_GT_OQ>(a, b) }
    }
    #[inline(always)]
    fn select(self, m: __m256, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_blendv_ps(b, a, m) }
    }
}

impl Lanes for Avx2 {
    type V = V2;
    type M = V2;
    const WIDTH: usize = 16;
    const STREAMS: bool = true;

    #[inline(always)]
    fn splat(self, x: f32) -> V2 {
        let v = self.register().splat(x);
        V2(v, v)
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> V2 {
        // SAFETY: 16 readable floats by the caller's promise.
        unsafe { V2(self.register().load(p), self.register().load(p.add(8))) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: V2) {
        // SAFETY: 16 writable floats by the caller's promise.
        unsafe {
            self.register().store(p, v.0);
            self.register().store(p.add(8), v.1);
        }
    }
    #[inline(always)]
    unsafe fn stream(self, p: *mut f32, v: V2) {
        // SAFETY: the token proves AVX2; a whole line by the caller's promise, the halves one after the other.
        unsafe {
            _mm256_stream_ps(p, v.0);
            _mm256_stream_ps(p.add(8), v.1);
        }
    }
    #[inline(always)]
    unsafe fn group<const G: usize>(self, p: *const f32, _lane: usize) -> [V2; G] {
        // SAFETY: the caller's promise.
        let [low, high] = unsafe { [self.register().group::<G>(p, 0), self.register().group::<G>(p, 8)] };
        let mut of = [self.zero(); G];
        for i in 0..G {
            of[i] = V2(low[i], high[i]);
        }
        of
    }
    #[inline(always)]
    fn fma(self, a: V2, b: V2, c: V2) -> V2 {
        V2(self.register().fma(a.0, b.0, c.0), self.register().fma(a.1, b.1, c.1))
    }
    #[inline(always)]
    fn add(self, a: V2, b: V2) -> V2 {
        V2(self.register().add(a.0, b.0), self.register().add(a.1, b.1))
    }
    #[inline(always)]
    fn sub(self, a: V2, b: V2) -> V2 {
        V2(self.register().sub(a.0, b.0), self.register().sub(a.1, b.1))
    }
    #[inline(always)]
    fn mul(self, a: V2, b: V2) -> V2 {
        V2(self.register().mul(a.0, b.0), self.register().mul(a.1, b.1))
    }
    #[inline(always)]
    fn gt(self, a: V2, b: V2) -> V2 {
        V2(self.register().gt(a.0, b.0), self.register().gt(a.1, b.1))
    }
    #[inline(always)]
    fn select(self, m: V2, a: V2, b: V2) -> V2 {
        V2(self.register().select(m.0, a.0, b.0), self.register().select(m.1, a.1, b.1))
    }
}

impl Simd for Avx2 {
    type Register = Half;
    const TILE_VECTORS: usize = 1;

    #[inline(always)]
    fn register(self) -> Half {
        Half(())
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
    fn transpose(self, rows: &mut [V2; 16]) {
        let quarter = |first: usize, half: fn(&V2) -> __m256| {
            let mut q = [half(&rows[first]); 8];
            for i in 0..8 {
                q[i] = half(&rows[first + i]);
            }
            transpose8(self, q)
        };
        let (a, b) = (quarter(0, |v| v.0), quarter(0, |v| v.1));
        let (c, d) = (quarter(8, |v| v.0), quarter(8, |v| v.1));
        for i in 0..8 {
            rows[i] = V2(a[i], c[i]);
            rows[8 + i] = V2(b[i], d[i]);
        }
    }
    #[inline(always)]
    unsafe fn transpose_between(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        // By quarters, of which two change places: all sixteen rows at once would be spilled.
        // SAFETY: the caller's promise.
        unsafe {
            for at in [0, 8] {
                let q = load8(self, from.add(at * from_step + at), from_step);
                store8(self, to.add(at * to_step + at), to_step, transpose8(self, q));
            }
            let (right, below) = (load8(self, from.add(8), from_step), load8(self, from.add(8 * from_step), from_step));
            store8(self, to.add(8 * to_step), to_step, transpose8(self, right));
            store8(self, to.add(8), to_step, transpose8(self, below));
        }
    }
    #[inline(always)]
    fn not_gt(self, a: V2, b: V2) -> V2 {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe { V2(_mm256_cmp_ps::<_CMP_NGT_UQ>(a.0, b.0), _mm256_cmp_ps::<_CMP_NGT_UQ>(a.1, b.1)) }
    }
    #[inline(always)]
    fn is_nan(self, a: V2) -> V2 {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe { V2(_mm256_cmp_ps::<_CMP_UNORD_Q>(a.0, a.0), _mm256_cmp_ps::<_CMP_UNORD_Q>(a.1, a.1)) }
    }
}
