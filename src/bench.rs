//! Measuring kernels on problems of benchdnn's notation, each figure a ratio inside one run: bursts of FMAs alternate
//! with the runs, and medians are compared.
//!
//! ```
//! use rectify::bench::{self, Direction, Options};
//! let problem = "mb1ic16ih8oc16oh8kh3ph1".parse()?;
//! let options = Options { threads: 1, seconds: 0.01, check: true, ..Options::new()? };
//! let record = bench::run(&problem, Direction::Forward, &options)?;
//! assert_eq!((record.exact, record.failure), (Some(true), None));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::data::DataError;
use crate::hyper::HyperError;
use crate::memory::{self, MemoryError};
use crate::nn::NetError;
use crate::problem::{Problem, ProblemError};
pub use rectify_kernels::conv::{Algorithm, Layout};
use rectify_kernels::{ConvShape, Error, Isa};
use std::fmt;

mod check;
mod conv;
mod infer;
pub mod machine;
mod prelu;
mod tensors;
pub(crate) mod timing;
mod train;

pub use infer::{InferOptions, InferRecord, infer};
pub use train::{TrainOptions, TrainProfile, TrainRecord, train};

/// What is measured on a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The convolution with bias and PReLU in its epilogue.
    Forward,
    /// The gradient with respect to the input.
    BackwardData,
    /// The gradient with respect to the weights.
    BackwardWeights,
    /// PReLU alone, on the problem's output tensor.
    PreluForward,
    /// PReLU's backward pass with slope and bias gradient, on the problem's output tensor, in place.
    PreluBackward,
}

impl Direction {
    /// All of them.
    pub const ALL: [Direction; 5] = [
        Direction::Forward,
        Direction::BackwardData,
        Direction::BackwardWeights,
        Direction::PreluForward,
        Direction::PreluBackward,
    ];

    /// Whether it is a pass of a convolution; PReLU's are not.
    pub fn is_conv(self) -> bool {
        matches!(self, Direction::Forward | Direction::BackwardData | Direction::BackwardWeights)
    }

    /// The name on the command line and in records.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Forward => "forward",
            Direction::BackwardData => "backward-data",
            Direction::BackwardWeights => "backward-weights",
            Direction::PreluForward => "prelu-forward",
            Direction::PreluBackward => "prelu-backward",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Direction {
    type Err = BenchError;
    fn from_str(text: &str) -> Result<Direction, BenchError> {
        let found = Direction::ALL.into_iter().find(|x| x.name() == text);
        found.ok_or_else(|| BenchError::UnknownDirection(text.to_owned()))
    }
}

impl serde::Serialize for Direction {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.name())
    }
}

/// How to measure.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The algorithm of convolutions.
    pub algorithm: Algorithm,
    /// How the forward pass is given its input and gives its output: blocked, as between layers, or NCHW, with the
    /// conversions timed. A first layer (at most four channels) reads NCHW in either case.
    pub layout: Layout,
    /// The instruction set.
    pub isa: Isa,
    /// Threads, of a pool of their own.
    pub threads: usize,
    /// Seconds to spend on the timed runs of a problem; at least three rounds are run.
    pub seconds: f64,
    /// Whether to compare the results with the reference.
    pub check: bool,
}

impl Options {
    /// The best instruction set, all processors, one second, no check.
    ///
    /// # Errors
    /// What `RECTIFY_ISA` names is unknown or unsupported.
    pub fn new() -> Result<Options, BenchError> {
        Ok(Options::with_isa(Isa::best()?))
    }

    /// This instruction set, all processors, one second, no check.
    pub fn with_isa(isa: Isa) -> Options {
        let threads = machine::logical_processors();
        Options { algorithm: Algorithm::Auto, layout: Layout::Blocked, isa, threads, seconds: 1.0, check: false }
    }

    /// Refuses what cannot be served.
    ///
    /// # Errors
    /// [`BenchError::Seconds`], [`BenchError::Threads`], an instruction set that the processor lacks.
    pub fn validate(&self) -> Result<(), BenchError> {
        if !(0.0..=86400.0).contains(&self.seconds) {
            return Err(BenchError::Seconds(self.seconds));
        }
        machine::check_threads(self.threads)?;
        Ok(self.isa.require().map(drop)?)
    }

    /// As [`Options::validate`], and refuses choices that the direction does not have.
    ///
    /// # Errors
    /// [`BenchError::Unserved`] for NCHW but of the forward pass, for an algorithm but of a convolution.
    pub fn validate_for(&self, direction: Direction) -> Result<(), BenchError> {
        let unserved = |option| Err(BenchError::Unserved { option, direction });
        match (self.layout, self.algorithm) {
            (Layout::Nchw, _) if direction != Direction::Forward => unserved(Layout::Nchw.name()),
            (_, algorithm) if algorithm != Algorithm::Auto && !direction.is_conv() => unserved(algorithm.name()),
            _ => self.validate(),
        }
    }
}

/// One problem's figures. Serialised it has all of its fields but `failure`, `null` where one does not apply.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Record {
    /// The problem's name; its descriptor where it has none.
    pub name: String,
    /// The full descriptor.
    pub problem: String,
    /// What was measured.
    pub direction: Direction,
    /// The name of the algorithm that was asked for; `None` for PReLU.
    pub algorithm: Option<&'static str>,
    /// The name of the layout of input and output that was asked for ([`Options::layout`]); `None` but for the forward
    /// pass.
    pub layout: Option<&'static str>,
    /// The kernel that ran.
    pub kernel: String,
    /// The name of its instruction set.
    pub isa: &'static str,
    /// Threads that it ran on.
    pub threads: usize,
    /// Median seconds of a run.
    pub median_s: f64,
    /// Effective GFLOP/s: 2·N·OC·OH·OW·IC/G·KH·KW a run, whatever the algorithm does; `None` for PReLU.
    pub gflops: Option<f64>,
    /// Median of the FMA peak on as many threads, measured between the runs; `None` for PReLU.
    pub peak_gflops: Option<f64>,
    /// `gflops / peak_gflops`.
    pub ratio_to_peak: Option<f64>,
    /// PReLU: GB/s, counting a read and a write (forward) or two reads and a write (backward) of the tensor.
    pub gbytes_per_s: Option<f64>,
    /// PReLU backward: GB/s of the plain addition `g += y` of the same tensors, by turns with it.
    pub add_gbytes_per_s: Option<f64>,
    /// Checked: the largest error relative to the largest output, both against the reference in `f64`.
    pub max_rel_err: Option<f64>,
    /// Checked: whether the bits equal those of the reference in `f32`, which sums in the same order.
    pub exact: Option<bool>,
    /// Why the check failed; `None` if it did not, or there was none.
    #[serde(skip)]
    pub failure: Option<String>,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// No direction has this name.
    #[error(
        "unknown direction {0:?}: expected forward, backward-data, backward-weights, prelu-forward or prelu-backward"
    )]
    UnknownDirection(String),
    /// The direction has no such choice.
    #[error("{option}: {direction} has no such choice")]
    Unserved {
        /// What was asked for.
        option: &'static str,
        /// What was to be measured.
        direction: Direction,
    },
    /// The time to spend is no time.
    #[error("seconds = {0} is not a number of at least 0 and at most 86400")]
    Seconds(f64),
    /// The number of threads is 0, or more than the system gives.
    #[error("threads = {threads}: {why}")]
    Threads {
        /// The number asked for.
        threads: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The tensors need more memory than there is.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A batch or a number of steps is out of bounds.
    #[error(transparent)]
    Hyper(#[from] HyperError),
    /// The net cannot be built or run.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The loss of random labels is infinite or no number, so that the steps are not those of a net that learns.
    #[error("the loss became {0}")]
    Loss(f64),
    /// A data set has images of another size, other classes, or fewer images than a batch.
    #[error(
        "data set {data:?} does not fit model {model:?}: another size of images or other classes, or fewer than {batch} images"
    )]
    Data {
        /// The data set.
        data: String,
        /// The net.
        model: String,
        /// Images a step.
        batch: usize,
    },
    /// The images are refused.
    #[error(transparent)]
    Images(#[from] DataError),
    /// A kernel refuses the problem.
    #[error(transparent)]
    Kernel(#[from] Error),
}

/// The layers that engines are compared by, such as `A.conv3_2`: `benches/problems/layers.txt`, compiled in.
///
/// # Errors
/// None: the file is well formed, which a test asserts.
pub fn layers() -> Result<Vec<Problem>, ProblemError> {
    Problem::parse_file(include_str!("../benches/problems/layers.txt"))
}

/// Measures one problem.
///
/// # Errors
/// [`BenchError`]. A check that fails is no error: see [`Record::failure`].
pub fn run(problem: &Problem, direction: Direction, options: &Options) -> Result<Record, BenchError> {
    options.validate_for(direction)?;
    problem.shape.check()?;
    reserve(&problem.shape)?;
    let measured = machine::pool(options.threads)?.install(|| match direction {
        Direction::Forward => conv::forward(&problem.shape, options),
        Direction::BackwardData => conv::backward_data(&problem.shape, options),
        Direction::BackwardWeights => conv::backward_weights(&problem.shape, options),
        Direction::PreluForward => prelu::forward(problem.shape.output(), options),
        Direction::PreluBackward => prelu::backward(problem.shape.output(), options),
    })?;
    let is_conv = direction.is_conv();
    let gflops = is_conv.then(|| problem.shape.flops() / measured.median_s / 1e9);
    let verdict = measured.verdict.unwrap_or_default();
    Ok(Record {
        name: problem.label(),
        problem: problem.to_string(),
        direction,
        algorithm: is_conv.then_some(options.algorithm.name()),
        layout: (direction == Direction::Forward).then_some(options.layout.name()),
        kernel: measured.kernel,
        isa: options.isa.name(),
        threads: options.threads,
        median_s: measured.median_s,
        gflops,
        peak_gflops: measured.peak_gflops,
        ratio_to_peak: gflops.zip(measured.peak_gflops).map(|(ours, peak)| ours / peak),
        gbytes_per_s: measured.bytes.map(|bytes| bytes / measured.median_s / 1e9),
        add_gbytes_per_s: measured.bytes.zip(measured.plain_s).map(|(bytes, seconds)| bytes / seconds / 1e9),
        max_rel_err: verdict.max_rel_err,
        exact: verdict.exact,
        failure: verdict.failure,
    })
}

/// What a direction found out.
struct Measured {
    kernel: String,
    median_s: f64,
    peak_gflops: Option<f64>,
    /// Median seconds of what it is compared with.
    plain_s: Option<f64>,
    /// Bytes that a run moves, where the figure is a bandwidth.
    bytes: Option<f64>,
    verdict: Option<check::Verdict>,
}

/// Refuses a problem whose tensors do not fit into memory, rather than abort while allocating them.
fn reserve(shape: &ConvShape) -> Result<(), MemoryError> {
    let elements = [shape.input().blocked_len(), shape.output().blocked_len(), shape.weight_len()];
    // Packed weights or a second tensor of the output's size come on top.
    memory::reserve(elements.map(|len| len.saturating_mul(2)))
}
