//! `rectify info`: describes the machine.

use super::bench::failure;
use super::{Failure, say};
use rectify::bench::{Options, machine};
use rectify_kernels::Isa;

/// Seconds that each measurement takes.
const SECONDS: f64 = 0.3;

/// Describes the machine: processor, instruction sets, caches, threads, measured peak, bandwidths and way between cores
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Threads to measure with [default: one for each logical processor]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<(), Failure> {
    let chosen = Isa::best().map_err(Failure::usage)?;
    let mut options = Options::with_isa(chosen);
    let cores = options.threads;
    options.threads = args.threads.unwrap_or(cores);
    options.validate().map_err(failure)?;

    item("rectify", env!("CARGO_PKG_VERSION"))?;
    item("processor", machine::processor().unwrap_or_else(|| "unknown".into()))?;
    for isa in Isa::ALL.into_iter().rev() {
        item(isa.name(), machine::describe(isa, chosen))?;
    }
    for cache in machine::caches() {
        let size = match cache.bytes {
            b if b >= 1 << 20 => format!("{} MiB", b >> 20),
            b => format!("{} KiB", b >> 10),
        };
        let shared = if cache.shared_by == 1 { String::new() } else { format!(", shared by {}", cache.shared_by) };
        item(format_args!("L{} {}", cache.level, cache.kind.to_lowercase()), size + &shared)?;
    }
    item("threads", format_args!("{} of {cores}", options.threads))?;
    let peak = |threads| machine::fma_peak(chosen, threads, SECONDS).map_err(failure);
    let tile = |threads| machine::tile_peak(chosen, threads, SECONDS).map_err(failure);
    let bandwidth = |threads| machine::bandwidth(chosen, threads, SECONDS).map_err(failure);
    for threads in if options.threads == 1 { vec![1] } else { vec![1, options.threads] } {
        let on = if threads == 1 { "1 thread".into() } else { format!("{threads} threads") };
        item("FMA peak", format_args!("{:.1} GFLOP/s on {on}", peak(threads)?))?;
        item("  of a tile", format_args!("{:.1} GFLOP/s on {on}, operands from L1", tile(threads)?))?;
        if threads == 1 {
            // Of the caches that hold whole layers.
            for cache in machine::caches().iter().filter(|c| c.level > 1) {
                let b = machine::cache_bandwidth(chosen, cache, SECONDS).map_err(failure)?;
                speed(format_args!("L{}", cache.level), b, &on)?;
            }
        }
        speed("memory", bandwidth(threads)?, &on)?;
    }
    if options.threads > 1 {
        let ns = machine::hand_over_ns(SECONDS).map_err(failure)?;
        item("core to core", format_args!("{ns:.0} ns, a cache line"))?;
    }
    Ok(())
}

fn speed(what: impl std::fmt::Display, b: machine::Bandwidth, on: &str) -> Result<(), Failure> {
    item(what, format_args!("{:.1} GB/s read, {:.1} GB/s triad on {on}", b.read, b.triad))
}

fn item(what: impl std::fmt::Display, value: impl std::fmt::Display) -> Result<(), Failure> {
    say(format_args!("{:<16} {value}", what.to_string()))
}
