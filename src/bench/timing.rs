//! The clock: runs alternate with bursts of FMAs.

use rectify_kernels::measure::{self, Burst};
use rectify_kernels::{Error, Isa};
use std::time::Instant;

/// Seconds that a burst of FMAs takes: long against waking the threads, short against a change of clock rate.
const BURST: f64 = 0.004;
/// Seconds of runs between two bursts.
const BETWEEN: f64 = 0.03;
/// Seconds that the clock must at least tick over; shorter runs are timed several together.
const SAMPLE: f64 = 2e-5;
/// Rounds at least.
const ROUNDS: usize = 3;

/// Medians of one problem.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    pub median_s: f64,
    /// GFLOP/s of the bursts.
    pub peak_gflops: f64,
}

/// The peak of the current pool's threads in bursts of FMAs, measured over and over.
pub(super) struct Peak {
    isa: Isa,
    work: fn(Isa, usize) -> Burst,
    rounds: usize,
    gflops: Vec<f64>,
}

impl Peak {
    /// That of FMAs on registers.
    pub fn new(isa: Isa) -> Peak {
        Peak::of(isa, measure::fma_burst)
    }
    /// Finds out how long a burst must be; this warms the processor up as well.
    pub fn of(isa: Isa, work: fn(Isa, usize) -> Burst) -> Peak {
        let mut peak = Peak { isa, work, rounds: 64, gflops: Vec::new() };
        // A single burst may have been interrupted: the quickest of three must be long enough.
        let quickest = |peak: &Peak| (0..3).map(|_| peak.burst().0).fold(f64::INFINITY, f64::min);
        while quickest(&peak) < BURST && peak.rounds < 1 << 30 {
            peak.rounds *= 2;
        }
        peak
    }
    fn burst(&self) -> (f64, f64) {
        let start = Instant::now();
        let burst = std::hint::black_box((self.work)(self.isa, self.rounds));
        (start.elapsed().as_secs_f64(), burst.flops)
    }
    /// One more burst.
    pub fn sample(&mut self) {
        let (seconds, flops) = self.burst();
        self.gflops.push(flops / seconds / 1e9);
    }
    /// Median of the bursts, GFLOP/s.
    pub fn median(self) -> f64 {
        median(self.gflops)
    }
}

/// Runs `once` for about so many seconds, with a burst of FMAs before every few runs.
pub(super) fn measure(isa: Isa, seconds: f64, mut once: impl FnMut() -> Result<(), Error>) -> Result<Timing, Error> {
    let mut peak = Peak::new(isa);
    let start = Instant::now();
    once()?;
    let runs = (SAMPLE / start.elapsed().as_secs_f64().max(1e-9)).ceil().max(1.0) as usize;
    let (begin, mut samples) = (Instant::now(), Vec::new());
    let mut rounds = 0;
    while rounds < ROUNDS || begin.elapsed().as_secs_f64() < seconds {
        peak.sample();
        let round = Instant::now();
        loop {
            let start = Instant::now();
            for _ in 0..runs {
                once()?;
            }
            samples.push(start.elapsed().as_secs_f64() / runs as f64);
            if round.elapsed().as_secs_f64() >= BETWEEN.min(seconds) {
                break;
            }
        }
        rounds += 1;
    }
    Ok(Timing { median_s: median(samples), peak_gflops: peak.median() })
}

/// Median seconds of two things that take turns for about so many seconds; `once` is told whether it is the second's
/// turn.
pub(super) fn by_turns(seconds: f64, mut once: impl FnMut(bool) -> Result<(), Error>) -> Result<[f64; 2], Error> {
    let start = Instant::now();
    once(false)?;
    let runs = (SAMPLE / start.elapsed().as_secs_f64().max(1e-9)).ceil().max(1.0) as usize;
    let (begin, mut samples) = (Instant::now(), [Vec::new(), Vec::new()]);
    let mut rounds = 0;
    while rounds < ROUNDS || begin.elapsed().as_secs_f64() < seconds {
        for (second, samples) in [false, true].into_iter().zip(&mut samples) {
            let round = Instant::now();
            loop {
                let start = Instant::now();
                for _ in 0..runs {
                    once(second)?;
                }
                samples.push(start.elapsed().as_secs_f64() / runs as f64);
                if round.elapsed().as_secs_f64() >= BETWEEN.min(seconds) {
                    break;
                }
            }
        }
        rounds += 1;
    }
    Ok(samples.map(median))
}

/// The middle value, or the mean of the two middle ones; NaN if there is none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(vec![]).is_nan());
    }

    #[test]
    fn turns_are_taken() {
        let mut counts = [0, 0];
        let found = by_turns(0.0, |second| {
            counts[usize::from(second)] += 1;
            Ok(())
        });
        assert!(counts[1] >= ROUNDS && counts[0] > counts[1] / 2, "{counts:?}");
        assert!(found.unwrap().iter().all(|&s| s >= 0.0));
        assert!(by_turns(0.0, |second| if second { Err(Error::UnknownIsa("x".into())) } else { Ok(()) }).is_err());
    }

    #[test]
    fn a_run_is_timed_and_its_error_comes_through() {
        let mut count = 0;
        let nap = std::time::Duration::from_millis(2);
        let timing = measure(Isa::Portable, 0.01, || {
            count += 1;
            std::thread::sleep(nap);
            Ok(())
        })
        .unwrap();
        assert!(count > ROUNDS, "{count} runs");
        assert!(timing.median_s >= nap.as_secs_f64() && timing.median_s < 1.0, "{timing:?}");
        assert!(timing.peak_gflops > 0.0, "{timing:?}");
        let error = Error::UnknownIsa("x".into());
        assert_eq!(measure(Isa::Portable, 0.0, || Err(error.clone())).unwrap_err(), error);
    }
}
