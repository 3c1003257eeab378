//! The machine: its processor, caches, instruction sets, FMA peak and memory bandwidth.

use super::{BenchError, timing};
use rectify_kernels::{Buffer, Error, Isa, LANES, measure};
use std::{fs, path::Path, thread, time::Instant};

/// Elements of each array that the bandwidth is measured on, at least: 64 MiB.
const SWEEP: usize = 16 << 20;
/// The same at most: 1 GiB.
const MOST: usize = 256 << 20;
/// How many times larger than the last cache such an array is: a sweep of the three then finds little there that the
/// sweep before has left.
const BEYOND: usize = 4;

/// Turns of a sample of a line's way between cores: the start of a thread does not count beside them.
const HAND_OVERS: usize = 50_000;

/// Most threads of a pool: beyond any machine's processors, and few enough that their stacks fit.
const MOST_THREADS: usize = 4096;

/// Refuses a number of threads that is 0 or beyond all reason.
pub(super) fn check_threads(threads: usize) -> Result<(), BenchError> {
    if (1..=MOST_THREADS).contains(&threads) {
        return Ok(());
    }
    Err(BenchError::Threads { threads, why: format!("must be at least 1 and at most {MOST_THREADS}") })
}

/// Logical processors that this process may use, as far as a pool has threads.
pub fn logical_processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS)
}

/// A rayon pool of that many threads.
///
/// # Errors
/// [`BenchError::Threads`] if it is 0, or more than the system gives.
pub fn pool(threads: usize) -> Result<rayon::ThreadPool, BenchError> {
    check_threads(threads)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|e| BenchError::Threads { threads, why: e.to_string() })
}

/// The processor's name, where the system tells (Linux).
pub fn processor() -> Option<String> {
    processor_in(&fs::read_to_string("/proc/cpuinfo").ok()?)
}

fn processor_in(cpuinfo: &str) -> Option<String> {
    let value = |key: &str| {
        let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(k, v)| k.trim() == key && !v.trim().is_empty()).map(|(_, v)| v.trim().to_owned())
    };
    let arm = || Some(format!("implementer {}, part {}", value("CPU implementer")?, value("CPU part")?));
    value("model name").or_else(|| value("Model")).or_else(arm)
}

/// One of the first processor's caches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// 1, 2 or 3.
    pub level: usize,
    /// `Data`, `Instruction` or `Unified`.
    pub kind: String,
    /// Its size.
    pub bytes: usize,
    /// How many processors share it.
    pub shared_by: usize,
}

/// The first processor's caches, where the system tells (Linux); else none.
pub fn caches() -> Vec<Cache> {
    caches_under(Path::new("/sys/devices/system/cpu/cpu0/cache"))
}

fn caches_under(folder: &Path) -> Vec<Cache> {
    let one = |i: usize| {
        let read = |file| {
            let text = fs::read_to_string(folder.join(format!("index{i}")).join(file)).ok()?;
            Some(text.trim().to_owned())
        };
        Some(Cache {
            level: read("level")?.parse().ok()?,
            kind: read("type")?,
            bytes: bytes(&read("size")?)?,
            shared_by: read("shared_cpu_list").map_or(1, |list| processors(&list)),
        })
    };
    (0..8).map_while(one).collect()
}

/// `32K` or `32M`.
fn bytes(size: &str) -> Option<usize> {
    let (number, unit) = match size.char_indices().last()? {
        (at, 'K') => (&size[..at], 1 << 10),
        (at, 'M') => (&size[..at], 1 << 20),
        (at, 'G') => (&size[..at], 1 << 30),
        _ => (size, 1),
    };
    number.parse::<usize>().ok()?.checked_mul(unit)
}

/// How many processors a list such as `0-3,8` names.
fn processors(list: &str) -> usize {
    let count = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    };
    list.split(',').filter_map(count).sum::<usize>().max(1)
}

/// Why an instruction set is or is not the one that is used.
pub fn describe(isa: Isa, chosen: Isa) -> String {
    match isa.missing_features() {
        None => format!("not of this architecture, {}", std::env::consts::ARCH),
        Some(missing) if !missing.is_empty() => format!("the processor lacks {}", missing.join(", ")),
        _ if isa == chosen && std::env::var_os("RECTIFY_ISA").is_some() => "chosen by RECTIFY_ISA".into(),
        _ if isa == chosen => "chosen, the best of this processor".into(),
        _ if isa > chosen => "found, not chosen: RECTIFY_ISA names another".into(),
        _ => format!("found, not chosen: {chosen} is better"),
    }
}

/// The FMA peak of a pool of so many threads, GFLOP/s, measured for about so many seconds.
///
/// # Errors
/// No such pool.
pub fn fma_peak(isa: Isa, threads: usize, seconds: f64) -> Result<f64, BenchError> {
    peak(timing::Peak::new, isa, threads, seconds)
}

/// The peak of a tile of products whose operands come from the first cache ([`measure::tile_burst`]), likewise.
///
/// # Errors
/// No such pool.
pub fn tile_peak(isa: Isa, threads: usize, seconds: f64) -> Result<f64, BenchError> {
    peak(|isa| timing::Peak::of(isa, measure::tile_burst), isa, threads, seconds)
}

fn peak(new: fn(Isa) -> timing::Peak, isa: Isa, threads: usize, seconds: f64) -> Result<f64, BenchError> {
    Ok(pool(threads)?.install(|| {
        let mut peak = new(isa);
        let start = Instant::now();
        loop {
            peak.sample();
            if start.elapsed().as_secs_f64() >= seconds {
                return peak.median();
            }
        }
    }))
}

/// The bandwidth of memory or of a cache, GB/s.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bandwidth {
    /// Of reading.
    pub read: f64,
    /// Of the triad `a = b + 3·c`, counting two reads and a write.
    pub triad: f64,
}

/// The memory bandwidth of a pool of so many threads, measured for about so many seconds on three arrays, each of four
/// times the last cache, but of 64 MiB at least and of 1 GiB at most.
///
/// # Errors
/// No such pool.
pub fn bandwidth(isa: Isa, threads: usize, seconds: f64) -> Result<Bandwidth, BenchError> {
    let last = caches().iter().map(|cache| cache.bytes).max().unwrap_or(0);
    bandwidth_of(isa, threads, seconds, (BEYOND * last / size_of::<f32>()).clamp(SWEEP, MOST))
}

/// The bandwidth of a cache on one thread, measured for about so many seconds on three arrays that fill half of it.
///
/// # Errors
/// No pool of one thread.
pub fn cache_bandwidth(isa: Isa, cache: &Cache, seconds: f64) -> Result<Bandwidth, BenchError> {
    bandwidth_of(isa, 1, seconds, (cache.bytes / 2 / 3 / size_of::<f32>()).max(LANES))
}

/// On three arrays of `len` elements, all of which are read and then written or read in a triad, small ones again and
/// again.
fn bandwidth_of(isa: Isa, threads: usize, seconds: f64, len: usize) -> Result<Bandwidth, BenchError> {
    let (mut a, b, c) = (Buffer::zeroed(len), Buffer::zeroed(len), Buffer::zeroed(len));
    let sweeps = (SWEEP / len).max(1);
    let gigabytes = (sweeps * len * size_of::<f32>()) as f64 / 1e9;
    let measured = pool(threads)?.install(|| {
        let (mut reads, mut triads) = (Vec::new(), Vec::new());
        let begin = Instant::now();
        while reads.is_empty() || begin.elapsed().as_secs_f64() < seconds {
            let start = Instant::now();
            for _ in 0..sweeps {
                for array in [&a, &b, &c] {
                    std::hint::black_box(measure::read(isa, std::hint::black_box(array)));
                }
            }
            reads.push(3.0 * gigabytes / start.elapsed().as_secs_f64());
            let start = Instant::now();
            for _ in 0..sweeps {
                measure::triad(isa, std::hint::black_box(&mut a), &b, &c)?;
            }
            triads.push(3.0 * gigabytes / start.elapsed().as_secs_f64());
        }
        Ok::<_, Error>(Bandwidth { read: timing::median(reads), triad: timing::median(triads) })
    });
    Ok(measured?)
}

/// Nanoseconds in which a cache line gets from one core to another, measured for about so many seconds. A virtual
/// machine may move its processors between cores that have a third cache in common and cores that have not: what
/// threads share then costs other times.
///
/// # Errors
/// [`BenchError::Threads`] if the system gives no second thread.
pub fn hand_over_ns(seconds: f64) -> Result<f64, BenchError> {
    let (mut samples, begin) = (Vec::new(), Instant::now());
    while samples.is_empty() || begin.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        let times =
            measure::hand_over(HAND_OVERS).map_err(|e| BenchError::Threads { threads: 2, why: e.to_string() })?;
        samples.push(start.elapsed().as_secs_f64() * 1e9 / times as f64);
    }
    Ok(timing::median(samples))
}

/// The largest memory that this process has held so far, in MiB, where the system tells (Linux).
pub fn peak_mib() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?;
    kib.trim().parse::<f64>().ok().map(|kib| kib / 1024.0)
}

/// Seconds that the processors have spent on this process so far, all threads together, where the system tells (Linux:
/// in hundredths).
pub fn processor_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name, in brackets, may hold anything; user and system time are the 12th and 13th field after it.
    let ticks = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(2).map(|t| t.parse::<u64>());
    Some(ticks.sum::<Result<u64, _>>().ok()? as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_have_names() {
        let x86 = "processor\t: 0\nmodel name\t: AMD EPYC 9R14\nflags\t\t: fpu\n";
        assert_eq!(processor_in(x86).as_deref(), Some("AMD EPYC 9R14"));
        let arm = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n";
        assert_eq!(processor_in(arm).as_deref(), Some("implementer 0x41, part 0xd40"));
        assert_eq!(processor_in("model name\t:\n"), None);
    }

    #[test]
    fn caches_are_read_from_files() {
        let folder = tempfile::tempdir().unwrap();
        for (i, (level, kind, size, shared)) in
            [("1", "Data", "32K", "0"), ("3", "Unified", "32M", "0-3,8,10-11")].into_iter().enumerate()
        {
            let index = folder.path().join(format!("index{i}"));
            fs::create_dir(&index).unwrap();
            for (file, text) in [("level", level), ("type", kind), ("size", size), ("shared_cpu_list", shared)] {
                fs::write(index.join(file), format!("{text}\n")).unwrap();
            }
        }
        let found = caches_under(folder.path());
        assert_eq!(found[0], Cache { level: 1, kind: "Data".into(), bytes: 32 << 10, shared_by: 1 });
        assert_eq!(found[1], Cache { level: 3, kind: "Unified".into(), bytes: 32 << 20, shared_by: 7 });
        assert_eq!((found.len(), caches_under(Path::new("no such folder")).len()), (2, 0));
    }

    #[test]
    fn peak_and_bandwidth_are_positive() {
        assert!(fma_peak(Isa::Portable, 2, 0.0).unwrap() > 0.0);
        assert!(tile_peak(Isa::Portable, 2, 0.0).unwrap() > 0.0);
        let found = bandwidth_of(Isa::Portable, 2, 0.0, 1000).unwrap();
        assert!(found.read > 0.0 && found.triad > 0.0, "{found:?}");
        assert!(hand_over_ns(0.0).unwrap() > 0.0);
        assert!(matches!(pool(0), Err(BenchError::Threads { threads: 0, .. })));
        assert!(pool(usize::MAX).is_err());
    }

    #[test]
    fn every_instruction_set_has_a_reason() {
        for isa in Isa::ALL {
            let text = describe(isa, Isa::Portable);
            let (available, found) = (isa.is_available(), text.contains("found") || text.contains("chosen"));
            assert_eq!(available, found, "{isa}: {text}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_peak_of_memory_grows_with_use() {
        let used = Buffer::from_slice(&vec![1.0; 8 << 20]);
        assert!(peak_mib().unwrap() >= ((used.len() * 4) >> 20) as f64);
    }
}
