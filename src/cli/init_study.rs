//! `rectify init-study`: how initial weights keep the scale of signal and gradient.

use super::train::model_failure;
use super::{Failure, say, with_threads};
use rectify::init::Init;
use rectify::model::Model;
use rectify::{file, study};
use rectify_kernels::Isa;
use std::path::PathBuf;

/// Measures the scale of signal and gradient in a net with fresh weights, layer by layer, beside what the paper derives
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A built-in net (an unknown name lists them) or a TOML file
    #[arg(long, value_name = "NAME|FILE.toml", default_value = "e30-32")]
    model: String,
    /// he, he-backward, he-slope, xavier or gaussian:STD; may be given several times
    #[arg(long, value_name = "NAME", default_values = ["he", "xavier", "gaussian:0.01"])]
    init: Vec<Init>,
    /// Images of a draw
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    batch: u32,
    /// Draws of weights, images and gradients
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    draws: u32,
    /// Seed of the first draw
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Threads [default: one for each logical processor]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Draws the scales
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<(), Failure> {
    let isa = Isa::best().map_err(Failure::usage)?;
    let model = Model::load(&args.model).map_err(model_failure)?;
    let options = study::Options { batch: args.batch as usize, draws: args.draws, seed: args.seed };
    let mut curves = Vec::new();
    for &init in &args.init {
        let layers = with_threads(args.threads, || study::study(&model, init, isa, options).map_err(Failure::failed))?;
        curves.push((init.to_string(), layers));
    }
    say(format_args!("{}: root mean squares of {} draws of {} images", model.name, args.draws, args.batch))?;
    for (init, layers) in &curves {
        let width = layers.iter().map(|l| l.layer.chars().count()).max().unwrap_or(0).max(5).max(init.len());
        say("")?;
        say(format_args!("{init:<width$} {:>21} {:>21}", "signal y", "gradient dx"))?;
        let heads = ["measured", "derived", "measured", "derived"].map(|h| format!(" {h:>10}")).concat();
        say(format_args!("{:<width$}{heads}", "layer"))?;
        for l in layers {
            let all = [l.forward.measured, l.forward.derived, l.backward.measured, l.backward.derived];
            let row = all.map(|v| format!(" {v:>10.2e}")).concat();
            say(format_args!("{:<width$}{row}", l.layer))?;
        }
    }
    if let Some(path) = &args.svg {
        let svg = study::draw(&model.name, &curves).map_err(Failure::failed)?;
        file::write(path, svg.as_bytes()).map_err(Failure::failed)?;
    }
    Ok(())
}
