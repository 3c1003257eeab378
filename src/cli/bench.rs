//! `rectify bench`: times kernels.

use super::{Failure, say};
use rectify::bench::{self, Algorithm, BenchError, Direction, Layout, Options, Record};
use rectify::file::JsonFile;
use rectify::problem::Problem;
use rectify_kernels::Isa;
use std::path::{Path, PathBuf};

/// Times kernels against the machine's peak, measured in the same run, and checks their results
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Problems in the notation of oneDNN's benchdnn, one a line
    ///
    /// Without a file and without --problem: the built-in list, benches/problems/layers.txt.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// A problem such as mb1ic96ih56oc256oh56kh3ph1, or the name of one in the built-in list; may be repeated
    #[arg(long, value_name = "TEXT", value_parser = parse_problem)]
    pub problem: Vec<Problem>,
    /// forward, backward-data, backward-weights, prelu-forward or prelu-backward
    #[arg(long, default_value_t = Direction::Forward)]
    pub direction: Direction,
    /// auto, direct, winograd or winograd-accurate
    #[arg(long, default_value_t = Algorithm::Auto)]
    pub algorithm: Algorithm,
    /// Of input and output of the forward pass, which alone has the choice: blocked, as between layers, or nchw, with
    /// the conversions timed
    ///
    /// A first layer (at most four channels) reads NCHW in either case.
    #[arg(long, default_value = "blocked", value_parser = parse_layout)]
    pub layout: Layout,
    /// portable, avx2, avx512 or neon [default: RECTIFY_ISA, or the best of this processor]
    #[arg(long)]
    pub isa: Option<Isa>,
    /// Threads [default: one for each logical processor]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Seconds of timed runs a problem
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    pub seconds: f64,
    /// Compares the results with the naive reference; exit code 1 if a problem fails
    #[arg(long)]
    pub check: bool,
    /// Times every algorithm that serves a problem; exit code 1 if auto's choice is more than 10 % slower than the best
    #[arg(long, conflicts_with_all = ["algorithm", "json"])]
    pub audit: bool,
    /// Writes a line of JSON a problem
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<(), Failure> {
    let options = options(&args)?;
    let problems = problems(&args)?;
    if args.audit {
        return audit(&problems, args.direction, &options);
    }
    let mut json = args.json.as_deref().map(JsonFile::create).transpose().map_err(Failure::failed)?;
    let table = Table::new(&problems, &args);
    let threads = if options.threads == 1 { "thread" } else { "threads" };
    let layout = if options.layout == Layout::Nchw { ", NCHW" } else { "" };
    say(format_args!("{}, {}, {} {threads}{layout}", args.direction, options.isa, options.threads))?;
    say(table.header())?;
    let mut failed = Vec::new();
    for problem in &problems {
        let record =
            bench::run(problem, args.direction, &options).map_err(|e| with_context(failure(e), &problem.label()))?;
        say(table.row(&record))?;
        if let Some(json) = &mut json {
            json.line(&record).map_err(Failure::failed)?;
        }
        failed.extend(record.failure.map(|why| format!("{}: {why}", record.name)));
    }
    json.map_or(Ok(()), JsonFile::finish).map_err(Failure::failed)?;
    if failed.is_empty() {
        Ok(())
    } else {
        let count = format!("{} of {} checks failed", failed.len(), problems.len());
        Err(Failure::failed(format_args!("{count}: {}", failed.join("; "))))
    }
}

fn parse_layout(text: &str) -> Result<Layout, String> {
    let found = [Layout::Blocked, Layout::Nchw].into_iter().find(|layout| layout.name() == text);
    found.ok_or_else(|| "expected blocked or nchw".into())
}

/// How much slower than the best algorithm auto's choice may be.
const AUDIT: f64 = 1.1;

/// Times every algorithm on every problem.
fn audit(problems: &[Problem], direction: Direction, options: &Options) -> Result<(), Failure> {
    if !direction.is_conv() {
        return Err(Failure::usage(format_args!("--audit: {direction} has no algorithms to choose from")));
    }
    let width = problems.iter().map(|p| p.label().chars().count()).max().unwrap_or(0).max("problem".len());
    let columns = Algorithm::ALL.map(|a| format!("{:>18}", a.name())).concat();
    say(format_args!("{direction}, {}, ratio to the FMA peak\n{:<width$}{columns}", options.isa, "problem"))?;
    let mut failed = Vec::new();
    for problem in problems {
        let label = problem.label();
        let run = |algorithm| match bench::run(problem, direction, &Options { algorithm, ..options.clone() }) {
            Ok(record) => Ok(Some(record)),
            // An algorithm that does not serve the shape is none to choose.
            Err(BenchError::Kernel(rectify_kernels::Error::Shape { .. })) => Ok(None),
            Err(e) => Err(with_context(failure(e), &label)),
        };
        let mut found = Vec::new();
        for algorithm in Algorithm::ALL {
            found.push(run(algorithm)?);
        }
        // Auto's own is one of the others.
        let wrong = found[1..].iter().flatten().filter_map(|r| r.failure.as_ref().map(|why| (&r.kernel, why)));
        failed.extend(wrong.map(|(kernel, why)| format!("{label}: {kernel}: {why}")));
        let ratio = |r: &Record| r.ratio_to_peak.unwrap_or(0.0);
        let cell = |r: &Option<Record>| r.as_ref().map_or(format!("{:>18}", "-"), |r| format!("{:>18.3}", ratio(r)));
        say(format_args!("{label:<width$}{}", found.iter().map(cell).collect::<String>()))?;
        let Some(chosen) = &found[0] else { continue };
        let others = found.iter().flatten().filter(|r| r.kernel != chosen.kernel);
        if let Some(better) =
            others.max_by(|a, b| ratio(a).total_cmp(&ratio(b))).filter(|r| ratio(chosen) * AUDIT < ratio(r))
        {
            let (kernel, ratio) = (&better.kernel, ratio(better));
            failed.push(format!("{label}: auto's {} is slower than {kernel}, {ratio:.3} of the peak", chosen.kernel));
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::failed(failed.join("; "))) }
}

/// A descriptor or, where it is none, a name of the built-in list.
fn parse_problem(text: &str) -> Result<Problem, String> {
    let named = bench::layers().ok().and_then(|all| all.into_iter().find(|p| p.name == text));
    named.map_or_else(|| Problem::parse(text).map_err(|e| e.to_string()), Ok)
}

fn options(args: &Args) -> Result<Options, Failure> {
    let mut options = Options::with_isa(match args.isa {
        Some(isa) => isa.require().map_err(Failure::usage)?,
        None => Isa::best().map_err(Failure::usage)?,
    });
    options.threads = args.threads.unwrap_or(options.threads);
    (options.algorithm, options.seconds, options.check) = (args.algorithm, args.seconds, args.check);
    options.layout = args.layout;
    options.validate_for(args.direction).map_err(failure)?;
    Ok(options)
}

fn problems(args: &Args) -> Result<Vec<Problem>, Failure> {
    let mut problems = match &args.file {
        Some(path) => read(path)?,
        None if args.problem.is_empty() => bench::layers().map_err(Failure::failed)?,
        None => Vec::new(),
    };
    problems.extend(args.problem.iter().cloned());
    Ok(problems)
}

fn read(path: &Path) -> Result<Vec<Problem>, Failure> {
    let about = |e: &dyn std::fmt::Display| Failure::failed(format_args!("{}: {e}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| about(&e))?;
    let problems = Problem::parse_file(&text).map_err(|e| about(&e))?;
    if problems.is_empty() { Err(about(&"holds no problem")) } else { Ok(problems) }
}

/// What the user may mend on the command line is wrong usage.
pub(super) fn failure(e: BenchError) -> Failure {
    match e {
        BenchError::Seconds(_) | BenchError::Threads { .. } | BenchError::Hyper(_) | BenchError::Unserved { .. } => {
            Failure::usage(e)
        }
        _ => Failure::failed(e),
    }
}

fn with_context(failure: Failure, label: &str) -> Failure {
    match failure {
        Failure::Usage(text) => Failure::Usage(text),
        Failure::Failed(text) => Failure::Failed(format!("{label}: {text}")),
    }
}

/// The columns: those of the direction, and of a check where there is one.
struct Table {
    /// Width of the names.
    names: usize,
    is_prelu: bool,
    check: bool,
}

impl Table {
    fn new(problems: &[Problem], args: &Args) -> Table {
        let names = problems.iter().map(|p| p.label().chars().count()).max().unwrap_or(0).max("problem".len());
        Table { names, is_prelu: !args.direction.is_conv(), check: args.check }
    }

    fn header(&self) -> String {
        let speed = if self.is_prelu { ["GB/s", "g += y", "%"] } else { ["GFLOP/s", "peak", "%"] };
        self.line("problem", "ms", speed, ["max error", "exact"], "kernel")
    }

    fn row(&self, r: &Record) -> String {
        let (error, exact) = (r.max_rel_err.map(|e| format!("{e:.1e}")), r.exact.map(|x| if x { "yes" } else { "NO" }));
        let check = [error.as_deref().unwrap_or("-"), exact.unwrap_or("-")];
        let number = |x: Option<f64>, scale: f64| x.map(|x| format!("{:.1}", x * scale)).unwrap_or_default();
        let speed = if self.is_prelu {
            let share = r.gbytes_per_s.zip(r.add_gbytes_per_s).map(|(ours, plain)| ours / plain);
            [number(r.gbytes_per_s, 1.0), number(r.add_gbytes_per_s, 1.0), number(share, 100.0)]
        } else {
            // Beyond the column's width the peak was not measured at all: its thread did not run.
            [number(r.gflops, 1.0), number(r.peak_gflops, 1.0), number(r.ratio_to_peak.map(|x| x.min(99.0)), 100.0)]
        };
        let last = match &r.failure {
            Some(why) => format!("{}  FAILED: {why}", r.kernel),
            None => r.kernel.clone(),
        };
        self.line(&r.name, &format!("{:.3}", r.median_s * 1e3), speed.each_ref().map(String::as_str), check, &last)
    }

    fn line(&self, name: &str, ms: &str, speed: [&str; 3], check: [&str; 2], kernel: &str) -> String {
        let mut line = format!("{name:<0$} {ms:>10} {1:>9}", self.names, speed[0]);
        line += &format!(" {:>9} {:>6}", speed[1], speed[2]);
        if self.check {
            line += &format!(" {:>9} {:>5}", check[0], check[1]);
        }
        line + "  " + kernel
    }
}
