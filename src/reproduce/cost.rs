//! What a rectifier costs: whole training steps of the same net with each of them, by turns.

use super::report::Folder;
use super::{ReproduceError, plot, variant};
use crate::bench::{BenchError, machine, timing};
use crate::hyper::require;
use crate::model::Model;
use crate::rng::{self, Rng};
use crate::train::Stepper;
use rectify_kernels::Isa;
use std::path::Path;
use std::time::Instant;

/// Learning rate of the timed steps: so small that the loss of random labels stays finite, whatever the net.
const LR: f32 = 1e-6;

/// How to measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CostOptions {
    /// Rounds that are timed, at most 65536; one more goes before them.
    pub rounds: usize,
    /// Threads, of a pool of their own.
    pub threads: usize,
    /// The instruction set.
    pub isa: Isa,
}

/// The figures of a net: a line of `runs.jsonl`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct CostRecord {
    /// Name of the net.
    pub model: String,
    /// Images a step.
    pub batch: usize,
    /// Threads that it ran on.
    pub threads: usize,
    /// The name of the instruction set.
    pub isa: &'static str,
    /// Rounds that were timed: a step of each.
    pub rounds: usize,
    /// The rectifiers.
    pub rectifiers: Vec<RectifierCost>,
}

/// The figures of a net with one rectifier.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct RectifierCost {
    /// Name of the rectifier.
    pub variant: &'static str,
    /// Median seconds of a step: forward, loss, both backward passes, update.
    pub s_per_step: f64,
    /// Median over the rounds of the quotient of its step and that of the first rectifier.
    pub against: f64,
}

/// Times training steps of a net, with `model.training.batch` images of the standard normal distribution, with each
/// rectifier of Table 2. Every round takes a step of each, the next round begins with another one.
///
/// ```
/// use rectify::{kernels::Isa, model::Model, reproduce::{CostOptions, cost}};
/// let mut model = Model::built_in("shapes-small")?;
/// model.training.batch = 2;
/// let record = cost(&model, &CostOptions { rounds: 3, threads: 1, isa: Isa::best()? })?;
/// assert_eq!((record.rectifiers[0].variant, record.rectifiers[0].against), ("relu", 1.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`ReproduceError`]: options out of bounds, a net that cannot be trained or does not fit into memory.
pub fn cost(model: &Model, options: &CostOptions) -> Result<CostRecord, ReproduceError> {
    require("rounds", options.rounds, |r| (1..=1 << 16).contains(r), "between 1 and 65536")?;
    model.training.check()?;
    let fault = |source| ReproduceError::Cost { model: model.name.clone(), source };
    let pool = machine::pool(options.threads).map_err(fault)?;
    let seconds = pool.install(|| rounds(model, options)).map_err(fault)?;
    let rectifier = |(at, variant): (usize, &super::Variant)| RectifierCost {
        variant: variant.name,
        s_per_step: timing::median(seconds.iter().map(|round| round[at]).collect()),
        against: timing::median(seconds.iter().map(|round| round[at] / round[0]).collect()),
    };
    Ok(CostRecord {
        model: model.name.clone(),
        batch: model.training.batch,
        threads: options.threads,
        isa: options.isa.name(),
        rounds: options.rounds,
        rectifiers: variant::RECTIFIERS.iter().enumerate().map(rectifier).collect(),
    })
}

/// Seconds of each rectifier's step, round by round.
fn rounds(model: &Model, options: &CostOptions) -> Result<Vec<[f64; variant::RECTIFIERS.len()]>, BenchError> {
    let batch = model.training.batch;
    // First, since they refuse what does not fit into memory.
    let mut steppers = Vec::new();
    for variant in &variant::RECTIFIERS {
        let mut stepper = Stepper::new(&variant.of(model), options.isa, batch, 1)?;
        stepper.lr = LR;
        steppers.push(stepper);
    }
    let mut rng = Rng::new(1, rng::BENCH);
    let image_len: usize = model.input.iter().product();
    let pixels: Vec<f32> = (0..batch * image_len).map(|_| rng.normal()).collect();
    let classes = u32::try_from(model.classes()).unwrap_or(u32::MAX);
    let labels: Vec<u32> = (0..batch).map(|_| rng.below(classes)).collect();
    let mut all = Vec::new();
    for round in 0..=options.rounds {
        let mut seconds = [0.0; variant::RECTIFIERS.len()];
        let count = seconds.len();
        for turn in 0..count {
            let at = (turn + round) % count;
            let start = Instant::now();
            let loss = steppers[at].step(&pixels, &labels)?.loss;
            seconds[at] = start.elapsed().as_secs_f64();
            if !loss.is_finite() {
                return Err(BenchError::Loss(loss));
            }
        }
        // The first warms up.
        if round > 0 {
            all.push(seconds);
        }
    }
    Ok(all)
}

/// Writes `table.md`, `runs.jsonl` and `cost.svg` into `OUT/cost`, each file whole or not at all; gives the text of the
/// table.
///
/// # Errors
/// A file that cannot be written, by name.
pub fn cost_report(records: &[CostRecord], out: &Path) -> Result<String, ReproduceError> {
    let folder = Folder::create(out, "cost")?;
    let mut text = String::from("# cost\n\n| net | batch | threads | rectifier | ms a step | against relu |\n");
    text += "|---|---|---|---|---|---|\n";
    for r in records {
        for c in &r.rectifiers {
            let (ms, percent) = (1e3 * c.s_per_step, 100.0 * (c.against - 1.0));
            text +=
                &format!("| {} | {} | {} | {} | {ms:.2} | {percent:+.1} % |\n", r.model, r.batch, r.threads, c.variant);
        }
    }
    let rounds = records.first().map_or(0, |r| r.rounds);
    text += &format!(
        "\nWhole training steps on random images: forward, loss, both backward passes, update. The rectifiers take turns, \
         step by step, in one process; medians of {rounds} rounds; against relu: the median of the quotients within a round.\n"
    );
    folder.lines(records)?;
    folder.picture("cost.svg", plot::costs(records))?;
    folder.text("table.md", &text)?;
    Ok(text)
}
