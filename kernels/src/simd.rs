//! The virtual vector: sixteen `f32` lanes, the same operations with the same bits on every instruction set.
//!
//! A token type (`Avx2`, …) proves by its existence that the processor has the instructions: only [`crate::Isa`]'s
//! dispatch makes one. Kernel bodies are generic over [`Simd`] and `#[inline(always)]`. What keeps more values than fit
//! the registers, such as a transform of many lines, is generic over [`Lanes`] and takes one register's lanes after the
//! other.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod portable;

/// `f32` lanes of one instruction set, and what is done lane by lane.
///
/// Every operation rounds once, to nearest even, and keeps subnormals, so that lanes are equal bit for bit whatever
/// implements them. Comparisons with NaN are false.
pub trait Lanes: Copy + Send + Sync + 'static {
    /// The lanes.
    type V: Copy;
    /// As many truth values.
    type M: Copy;
    /// How many there are.
    const WIDTH: usize;
    /// Whether [`Lanes::stream`] goes past the caches.
    const STREAMS: bool = false;

    /// `x` in each lane.
    fn splat(self, x: f32) -> Self::V;
    /// +0.0 in each lane.
    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(0.0)
    }
    /// Loads all lanes from any address.
    ///
    /// # Safety
    /// `p` must be valid for reading [`Lanes::WIDTH`] `f32`.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// Stores all lanes to any address.
    ///
    /// # Safety
    /// `p` must be valid for writing [`Lanes::WIDTH`] `f32`.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// Stores all lanes past the caches, where they are a whole line and the instruction set can: whoever writes what
    /// is not read again soon need not wait for what was there.
    ///
    /// # Safety
    /// `p` must be valid for writing [`Lanes::WIDTH`] `f32`, and a multiple of 64 bytes if these are sixteen. Before
    /// another thread reads them, this one needs a store fence (`sfence`), which the tasks of this crate's passes and
    /// of packing end with.
    #[inline(always)]
    unsafe fn stream(self, p: *mut f32, v: Self::V) {
        // SAFETY: the caller's promise.
        unsafe { self.store(p, v) }
    }
    /// Stores all lanes, past the caches if `streams`.
    ///
    /// # Safety
    /// As [`Lanes::store`], if `streams` as [`Lanes::stream`].
    #[inline(always)]
    unsafe fn put(self, p: *mut f32, v: Self::V, streams: bool) {
        // SAFETY: the caller's promise.
        unsafe { if Self::STREAMS && streams { self.stream(p, v) } else { self.store(p, v) } }
    }
    /// `a·b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Of sixteen channels in groups of `G`, a power of two below sixteen, the first, the second and so on of each
    /// group, in all of the group's lanes; of the lanes from `lane` on.
    ///
    /// # Safety
    /// `p` must be valid for reading sixteen `f32`; `lane` is a multiple of [`Lanes::WIDTH`] below sixteen.
    unsafe fn group<const G: usize>(self, p: *const f32, lane: usize) -> [Self::V; G];
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a − b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a·b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a > b`, lane by lane; false where either is NaN.
    fn gt(self, a: Self::V, b: Self::V) -> Self::M;
    /// `a` where the mask holds, else `b`.
    fn select(self, m: Self::M, a: Self::V, b: Self::V) -> Self::V;
    /// True in those of the lanes that are among the first `n` ≤ 16 of a virtual vector, where this is its part `part`.
    #[inline(always)]
    fn first(self, n: usize, part: usize) -> Self::M {
        const NUMBERS: [f32; 16] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];
        // The slice holds a part, or this panics.
        let numbers = &NUMBERS[part * Self::WIDTH..(part + 1) * Self::WIDTH];
        // SAFETY: the slice has as many elements.
        self.gt(self.splat(n as f32), unsafe { self.load(numbers.as_ptr()) })
    }
}

/// The virtual vector of one instruction set: sixteen [`Lanes`], and what is done across them.
pub trait Simd: Lanes {
    /// The lanes of one register, of which a virtual vector has `16 / WIDTH`.
    type Register: Lanes;
    /// How many virtual vectors wide the widest convolution tile is (see `tile.rs`).
    const TILE_VECTORS: usize;
    /// How many pixels tall the convolution tile is that is one virtual vector wide: 6 or 14 (see `narrow.rs`).
    const NARROW_ROWS: usize = 6;
    /// Whether bodies of hundreds of operations, and turns of a reduction, are to be unrolled: not where a vector is an
    /// array of numbers, of which a compiler makes sixteen times as many.
    const UNROLLS: bool = true;
    /// Registers of a virtual vector.
    const PARTS: usize = 16 / <Self::Register as Lanes>::WIDTH;

    /// The token of a register.
    fn register(self) -> Self::Register;
    /// Asks for the cache line at `p`, which need not be readable: a hint that changes no result.
    #[inline(always)]
    fn prefetch(self, _p: *const f32) {}
    /// As [`Simd::prefetch`], into the second cache: what memory is to bring in time, for more such lines can be under
    /// way at once. Zen 4 got up to a sixth more of a layer's speed from it than from the other.
    #[inline(always)]
    fn prefetch_far(self, _p: *const f32) {}
    /// Sixteen times the number at `p`.
    ///
    /// # Safety
    /// `p` must be valid for reading one `f32`.
    #[inline(always)]
    unsafe fn broadcast(self, p: *const f32) -> Self::V {
        // SAFETY: the caller's promise is the read's.
        self.splat(unsafe { p.read() })
    }
    /// Loads the first `n` ≤ 16 lanes, the others zero.
    ///
    /// # Safety
    /// `p` must be valid for reading `n` `f32`, `n` at most 16.
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> Self::V {
        let mut lanes = [0.0f32; 16];
        // SAFETY: `n` ≤ 16 lanes are readable by the caller's promise and fit the array.
        unsafe {
            core::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            self.load(lanes.as_ptr())
        }
    }
    /// Stores the first `n` ≤ 16 lanes.
    ///
    /// # Safety
    /// `p` must be valid for writing `n` `f32`, `n` at most 16.
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, v: Self::V, n: usize) {
        let lanes = self.to_array(v);
        // SAFETY: `n` ≤ 16 lanes are writable by the caller's promise and lie in the array.
        unsafe { core::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n) }
    }
    /// The lanes as an array.
    #[inline(always)]
    fn to_array(self, v: Self::V) -> [f32; 16] {
        let mut lanes = [0.0f32; 16];
        // SAFETY: the array holds 16 lanes.
        unsafe { self.store(lanes.as_mut_ptr(), v) };
        lanes
    }
    /// A vector from an array.
    #[inline(always)]
    fn vector(self, a: &[f32; 16]) -> Self::V {
        // SAFETY: the array holds 16 lanes.
        unsafe { self.load(a.as_ptr()) }
    }
    /// Stores the lanes in an array.
    #[inline(always)]
    fn write(self, to: &mut [f32; 16], v: Self::V) {
        // SAFETY: the array holds 16 lanes.
        unsafe { self.store(to.as_mut_ptr(), v) }
    }
    /// Not `a > b`, lane by lane; true where either is NaN.
    fn not_gt(self, a: Self::V, b: Self::V) -> Self::M;
    /// `a ≠ a`: where a lane is NaN.
    fn is_nan(self, a: Self::V) -> Self::M;
    /// Exchanges rows and columns: lane `j` of vector `i` becomes lane `i` of vector `j`.
    #[inline(always)]
    fn transpose(self, rows: &mut [Self::V; 16]) {
        let mut from = [[0.0f32; 16]; 16];
        for i in 0..16 {
            self.write(&mut from[i], rows[i]);
        }
        for (j, row) in rows.iter_mut().enumerate() {
            let mut to = [0.0f32; 16];
            for i in 0..16 {
                to[i] = from[i][j];
            }
            *row = self.vector(&to);
        }
    }
    /// Exchanges rows and columns in memory: 16 rows of 16, `from_step` and `to_step` elements apart, 16 at least. `to`
    /// may be `from`, if their steps are equal too, else the two must not overlap.
    ///
    /// # Safety
    /// All rows must be valid for reading from `from` on and for writing from `to` on.
    #[inline(always)]
    unsafe fn transpose_between(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        let mut rows = [self.zero(); 16];
        // SAFETY: the caller's promise.
        unsafe {
            for (i, row) in rows.iter_mut().enumerate() {
                *row = self.load(from.add(i * from_step));
            }
            self.transpose(&mut rows);
            for (i, &row) in rows.iter().enumerate() {
                self.store(to.add(i * to_step), row);
            }
        }
    }
    /// `acc[i] += x[i] · w` for `I` rows and `J` vectors: the rank-1 update of a register tile. NEON overrides it.
    ///
    /// # Safety
    /// `x[i] + k` must be valid for reading one `f32` for each `i`.
    #[inline(always)]
    unsafe fn rank1<const I: usize, const J: usize>(
        self,
        acc: &mut [[Self::V; J]; I],
        x: &[*const f32; I],
        k: usize,
        w: &[Self::V; J],
    ) {
        for i in 0..I {
            // SAFETY: the caller's promise.
            let b = unsafe { self.broadcast(x[i].add(k)) };
            for j in 0..J {
                acc[i][j] = self.fma(b, w[j], acc[i][j]);
            }
        }
    }
}
