//! What the machine can do: its FMA peak and its memory bandwidth, as yardsticks for the kernels' speed.
//!
//! Each function does a known amount of work on all threads of the current rayon pool and leaves the timing to its
//! caller, who thus measures it between the runs it is compared with.

use crate::error::check_len;
use crate::{Error, Isa, Kernel, LANES, Simd};
use rayon::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{io, thread};

/// What a burst of FMAs did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Burst {
    /// Floating-point operations of all threads, two an FMA.
    pub flops: f64,
    /// Mean of the chains' ends, near 1 after many rounds: it depends on every FMA, so none can be optimised away.
    pub value: f32,
}

/// FMAs on registers alone: on each thread `rounds` times one FMA on each of many independent chains.
///
/// The chains outnumber what is in flight at once (latency 4 × 2 units on current processors), and all of them stay
/// in registers, so nothing but the FMA units limits the speed.
pub fn fma_burst(isa: Isa, rounds: usize) -> Burst {
    // 12 chains of one register (AVX-512); elsewhere 6 chains of two (AVX2: 12 of 16) or four (NEON: 24 of 32).
    let (each, chains) = match isa {
        Isa::Avx512 => (rayon::broadcast(|_| isa.dispatch(Chains::<12> { rounds })), 12),
        _ => (rayon::broadcast(|_| isa.dispatch(Chains::<6> { rounds })), 6),
    };
    let flops = 2.0 * (LANES * chains * rounds) as f64 * each.len() as f64;
    Burst { flops, value: each.iter().sum::<f32>() / (each.len() * chains * LANES) as f32 }
}

struct Chains<const N: usize> {
    rounds: usize,
}

impl<const N: usize> Kernel for Chains<N> {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        // The starts are opaque and read lane by lane: the compiler must take every chain for different.
        let starts = std::hint::black_box([[0.5f32; LANES]; N]);
        let (shrink, step) = (s.splat(std::hint::black_box(0.75)), s.splat(std::hint::black_box(0.25)));
        let mut chains: [S::V; N] = std::array::from_fn(|i| s.vector(&starts[i]));
        for _ in 0..self.rounds {
            // x ← ¾·x + ¼ tends to 1: no overflow and no subnormals.
            for x in &mut chains {
                *x = s.fma(*x, shrink, step);
            }
        }
        chains.iter().map(|&x| s.to_array(x).iter().sum::<f32>()).sum()
    }
}

/// Steps of a reduction that [`tile_burst`] walks again and again: its operands take 18 KiB at most.
const STEPS: usize = 64;
/// Rows of its tile.
const ROWS: usize = 6;

/// FMAs as a convolution or a matrix product has them: on each thread `rounds` times a tile of six rows and as many
/// vectors as the instruction set's widest tile has, over 64 steps of a reduction, whose operands come from the first
/// cache. Some processors lower the clock for loads beside wide FMAs: this is then what kernels can reach, not
/// [`fma_burst`].
pub fn tile_burst(isa: Isa, rounds: usize) -> Burst {
    let (each, vectors) = match isa.tile_vectors() {
        4 => (rayon::broadcast(|_| isa.dispatch(Tile::<4> { rounds })), 4),
        _ => (rayon::broadcast(|_| isa.dispatch(Tile::<1> { rounds })), 1),
    };
    let products = ROWS * vectors * LANES * STEPS;
    let flops = 2.0 * (products * rounds) as f64 * each.len() as f64;
    Burst { flops, value: each.iter().sum::<f32>() / each.len() as f32 }
}

/// Its value: the mean of the sums over their number of products, 1.
struct Tile<const V: usize> {
    rounds: usize,
}

impl<const V: usize> Kernel for Tile<V> {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let x = std::hint::black_box([[1f32; ROWS]; STEPS]);
        let w = std::hint::black_box([[[1f32; LANES]; V]; STEPS]);
        let mut mean = 0.0;
        for _ in 0..self.rounds {
            let mut sums = [[s.zero(); V]; ROWS];
            // Read anew each round.
            for (x, w) in std::hint::black_box(&x).iter().zip(std::hint::black_box(&w)) {
                let mut vectors = [s.zero(); V];
                for (vector, w) in vectors.iter_mut().zip(w) {
                    *vector = s.vector(w);
                }
                for (row, &x) in sums.iter_mut().zip(x) {
                    let x = s.splat(x);
                    for (sum, &w) in row.iter_mut().zip(&vectors) {
                        *sum = s.fma(x, w, *sum);
                    }
                }
            }
            let mut all = s.zero();
            for &sum in sums.as_flattened() {
                all = s.add(all, sum);
            }
            mean = s.to_array(all).iter().sum::<f32>() / (STEPS * ROWS * V * LANES) as f32;
        }
        mean
    }
}

/// `a = b + 3·c`, the triad of the STREAM benchmark: 12 bytes of traffic an element (16 where the processor reads a
/// line before it writes it).
///
/// # Errors
/// [`Error::Length`] if the slices differ in length.
pub fn triad(isa: Isa, a: &mut [f32], b: &[f32], c: &[f32]) -> Result<(), Error> {
    check_len("b", b.len(), a.len())?;
    check_len("c", c.len(), a.len())?;
    let part = part_len(a.len());
    (a.par_chunks_mut(part), b.par_chunks(part), c.par_chunks(part))
        .into_par_iter()
        .for_each(|(a, b, c)| isa.dispatch(Triad { a, b, c }));
    Ok(())
}

/// Reads all of `x`, 4 bytes an element, and returns a sum that depends on each of them (in no promised order).
pub fn read(isa: Isa, x: &[f32]) -> f32 {
    x.par_chunks(part_len(x.len())).map(|x| isa.dispatch(Read { x })).sum()
}

/// Polls after which a thread gives its core away.
const PATIENCE: usize = 1 << 14;

/// Two threads, on whichever cores the system runs them, hand a cache line to each other, `turns` times each; returns
/// how often it was handed over. Cores with a third cache in common take some 20 to 60 ns each time, others 100 to 200.
///
/// # Errors
/// The system gives no thread.
pub fn hand_over(turns: usize) -> io::Result<usize> {
    let line = AtomicUsize::new(0);
    let take = |who: usize| {
        for turn in 0..turns {
            // No pause: it takes longer than a line's way. But the other may have no core of its own.
            let mut polls = 0;
            while line.load(Ordering::Acquire) != 2 * turn + who {
                polls += 1;
                if polls > PATIENCE {
                    thread::yield_now();
                }
            }
            line.store(2 * turn + who + 1, Ordering::Release);
        }
    };
    thread::scope(|scope| {
        thread::Builder::new().spawn_scoped(scope, || take(1))?;
        take(0);
        Ok::<_, io::Error>(())
    })?;
    Ok(line.into_inner())
}

/// Elements of one thread's part.
fn part_len(len: usize) -> usize {
    len.div_ceil(rayon::current_num_threads()).next_multiple_of(LANES).max(LANES)
}

struct Triad<'a> {
    a: &'a mut [f32],
    b: &'a [f32],
    c: &'a [f32],
}

impl Kernel for Triad<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let three = s.splat(3.0);
        let (a, a_rest) = self.a.as_chunks_mut::<LANES>();
        let (b, b_rest) = self.b.as_chunks::<LANES>();
        let (c, c_rest) = self.c.as_chunks::<LANES>();
        for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
            let sum = s.fma(three, s.vector(c), s.vector(b));
            // SAFETY: `a` holds 16 floats.
            unsafe { s.store(a.as_mut_ptr(), sum) };
        }
        for ((a, b), c) in a_rest.iter_mut().zip(b_rest).zip(c_rest) {
            *a = 3f32.mul_add(*c, *b);
        }
    }
}

struct Read<'a> {
    x: &'a [f32],
}

impl Kernel for Read<'_> {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (x, rest) = self.x.as_chunks::<LANES>();
        let (fours, ones) = x.as_chunks::<4>();
        let mut sums = [s.zero(); 4];
        for four in fours {
            for (sum, x) in sums.iter_mut().zip(four) {
                *sum = s.add(*sum, s.vector(x));
            }
        }
        for x in ones {
            sums[0] = s.add(sums[0], s.vector(x));
        }
        let sum = s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3]));
        s.to_array(sum).iter().sum::<f32>() + rest.iter().sum::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_count_their_work_and_end_near_one() {
        for isa in Isa::available() {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
            let burst = pool.install(|| fma_burst(isa, 1000));
            let chains = if isa == Isa::Avx512 { 12.0 } else { 6.0 };
            assert_eq!(burst.flops, 2.0 * 2.0 * 16.0 * chains * 1000.0, "{isa}");
            assert!((burst.value - 1.0).abs() < 1e-5, "{isa}: {}", burst.value);
            let short = fma_burst(isa, 1).value;
            assert_eq!(short, 0.625, "{isa}: ¾·½ + ¼");
        }
    }

    #[test]
    fn tiles_count_their_products() {
        for isa in Isa::available() {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
            let burst = pool.install(|| tile_burst(isa, 10));
            let vectors = if isa == Isa::Avx512 { 4.0 } else { 1.0 };
            assert_eq!((burst.value, burst.flops), (1.0, 2.0 * 2.0 * 10.0 * 64.0 * 6.0 * 16.0 * vectors), "{isa}");
        }
    }

    #[test]
    fn a_line_is_handed_over_twice_a_turn() {
        assert_eq!([0, 1, 1000].map(|turns| hand_over(turns).unwrap()), [0, 2, 2000]);
    }

    #[test]
    fn sweeps_touch_every_element() {
        for isa in Isa::available() {
            for len in [0, 1, 15, 16, 17, 64, 131] {
                let b: Vec<f32> = (0..len).map(|i| i as f32).collect();
                let c: Vec<f32> = (0..len).map(|i| (i * i) as f32).collect();
                let mut a = vec![f32::NAN; len];
                triad(isa, &mut a, &b, &c).unwrap();
                assert!(a.iter().enumerate().all(|(i, &a)| a == (i + 3 * i * i) as f32), "{isa} {len}: {a:?}");
                assert_eq!(read(isa, &b), (len * len.saturating_sub(1) / 2) as f32, "{isa} {len}");
            }
        }
        assert!(triad(Isa::Portable, &mut [0.0; 3], &[0.0; 3], &[0.0; 2]).is_err());
    }
}
