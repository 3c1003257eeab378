//! `rectify model`: says what a net consists of.

use super::train::model_failure;
use super::{Failure, say};
use rectify::file;
use rectify::model::Model;
use rectify::summary::Summary;
use rectify_kernels::Isa;
use std::path::PathBuf;

/// Prints a net's layers with output shapes, parameters, multiplications, memory and the kernels chosen
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A built-in net (an unknown name lists them) or a TOML file
    #[arg(value_name = "NAME|FILE.toml")]
    model: String,
    /// Rows and columns of the image, such as 384,512, where the net takes others than its own; one number for both
    #[arg(long, value_name = "N|H,W", value_delimiter = ',')]
    size: Vec<usize>,
    /// Images in the batch that the kernels are chosen for
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch: usize,
    /// Prints the kernels of both backward passes too
    #[arg(long)]
    backward: bool,
    /// Draws the net
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<(), Failure> {
    let isa = Isa::best().map_err(Failure::usage)?;
    let model = Model::load(&args.model).map_err(model_failure)?;
    let model = match args.size[..] {
        [] => model,
        [side] => model.at_size(side, side).map_err(Failure::usage)?,
        [h, w] => model.at_size(h, w).map_err(Failure::usage)?,
        [..] => return Err(Failure::usage(format_args!("--size: {} numbers, at most two", args.size.len()))),
    };
    let summary = Summary::of(&model, isa, args.batch).map_err(Failure::usage)?;
    if let Some(path) = &args.svg {
        file::write(path, summary.svg().as_bytes()).map_err(Failure::failed)?;
    }
    print(&summary, args.backward)
}

fn shape([c, h, w]: [usize; 3]) -> String {
    if (h, w) == (1, 1) { c.to_string() } else { format!("{c}×{h}×{w}") }
}

fn print(summary: &Summary, backward: bool) -> Result<(), Failure> {
    let d = summary.input;
    say(format_args!("{}, images of {}", summary.name, shape([d.c, d.h, d.w])))?;
    let mut rows =
        vec![["layer", "type", "output", "KiB", "parameters", "multiplications", "kernel"].map(String::from)];
    for l in &summary.layers {
        let behind = if l.activation.is_empty() { String::new() } else { format!(" + {}", l.activation) };
        let kernel = l.kernels.as_ref().map_or(String::new(), |k| match &k.backward {
            Some([data, weights]) if backward => format!("{}, {data}, {weights}", k.forward),
            _ => k.forward.clone(),
        });
        rows.push([
            l.name.clone(),
            l.what.clone() + &behind,
            shape([l.output.c, l.output.h, l.output.w]),
            l.bytes().div_ceil(1024).to_string(),
            if l.parameters == 0 { String::new() } else { l.parameters.to_string() },
            if l.multiplications == 0.0 { String::new() } else { format!("{:.3e}", l.multiplications) },
            kernel,
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    for row in &rows {
        let mut line = String::new();
        for (column, (text, &width)) in row.iter().zip(&widths).enumerate() {
            // The last column stands alone.
            line += &match column {
                0 | 1 => format!("{text:<width$}  "),
                6 => text.clone(),
                _ => format!("{text:>width$}  "),
            };
        }
        say(line.trim_end())?;
    }
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    say(format_args!("{} parameters, {:.1} MiB", summary.parameters(), mib(summary.parameters().saturating_mul(4))))?;
    say(format_args!("{:.3e} multiplications an image", summary.multiplications()))?;
    let largest = summary.layers.iter().map(|l| l.bytes()).max().unwrap_or(0);
    say(format_args!(
        "{:.1} MiB of activations an image, every layer's output once; the largest {:.1} MiB",
        mib(summary.activation_bytes()),
        mib(largest)
    ))
}
