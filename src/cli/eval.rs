//! `rectify eval`: evaluates checkpoints.

use super::data::{broken, check_skip, is_folder, open, told_of_skipped};
use super::{Failure, say, with_threads};
use indicatif::{ProgressBar, ProgressStyle};
use rectify::checkpoint::Checkpoint;
use rectify::data::{
    self, Dataset,
    photos::{Photo, Photos},
};
use rectify::train::{self, Evaluator};
use rectify::views::{Pictures, Tester, Views, evaluate};
use rectify_kernels::Isa;
use std::path::{Path, PathBuf};

/// Evaluates a checkpoint on a data set's test images
///
/// With --views: several checkpoints together, seeing each image at several scales, in one or many windows.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The checkpoint; with --views it may be given several times
    #[arg(long, value_name = "FILE", required = true)]
    checkpoint: Vec<PathBuf>,
    /// `shapes`, or a directory: CIFAR-10 or CIFAR-100 in binary, train|test|val/CLASS/*.jpg|jpeg|png, or IDX
    #[arg(long, value_name = "shapes|PATH", default_value = "shapes")]
    data: String,
    /// What is seen of an image: single, ten, maps or dense; may be given several times
    #[arg(long, value_name = "VIEWS", value_delimiter = ',')]
    views: Vec<Views>,
    /// Lengths of the shorter side that each image is scaled to, in pixels [default: that of the net's input]
    #[arg(long, value_name = "PIXELS", value_delimiter = ',', requires = "views",
        value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    scale: Vec<u32>,
    /// End after this many images
    #[arg(long, value_name = "N", requires = "views", value_parser = clap::value_parser!(u32).range(1..))]
    images: Option<u32>,
    /// Leave out photos that cannot be decoded, rather than end with the first
    #[arg(long)]
    skip_broken: bool,
    /// Threads [default: one for each logical processor]
    #[arg(long)]
    threads: Option<usize>,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<(), Failure> {
    let isa = Isa::best().map_err(Failure::usage)?;
    with_threads(args.threads, || {
        let load = |path: &PathBuf| Checkpoint::load(path).map_err(Failure::failed);
        let checkpoints = args.checkpoint.iter().map(load).collect::<Result<Vec<Checkpoint>, Failure>>()?;
        match &checkpoints[..] {
            [one] if args.views.is_empty() => whole(one, &args, isa),
            many if args.views.is_empty() => {
                Err(Failure::usage(format_args!("{} checkpoints: without --views one is evaluated", many.len())))
            }
            many => by_views(&args, many, isa),
        }
    })
}

/// Refuses data of other classes than a checkpoint's.
fn check_classes(name: &str, classes: &[String], checkpoint: &Checkpoint) -> Result<(), Failure> {
    if classes == checkpoint.classes {
        return Ok(());
    }
    Err(Failure::failed(format_args!(
        "data set {name:?} has other classes than the checkpoint's, {}",
        checkpoint.classes.join(", ")
    )))
}

/// Each image as it is, in one pass of the net.
fn whole(checkpoint: &Checkpoint, args: &Args, isa: Isa) -> Result<(), Failure> {
    let dataset = open(&args.data, checkpoint.progress.seed, &checkpoint.model, args.skip_broken)?;
    check_classes(&dataset.name, &dataset.classes, checkpoint)?;
    let mut evaluator = Evaluator::new(&checkpoint.model, isa).map_err(Failure::failed)?;
    let result = evaluator.run(&checkpoint.parameters, &dataset.test, &checkpoint.normalise);
    let result = result.map_err(Failure::failed)?;
    say(format_args!(
        "{} on {}: test loss {:.4}, test accuracy {:.2} % ({} of {})",
        checkpoint.model.name,
        dataset.name,
        result.loss,
        100.0 * result.accuracy(),
        result.correct,
        result.images
    ))?;
    super::train::slope_table(&train::slopes(&checkpoint.model, &checkpoint.parameters))
}

/// Test images, in memory or not.
enum Test {
    Photos { name: String, classes: Vec<String>, photos: Vec<Photo> },
    Images(Box<Dataset>),
}

impl Test {
    /// An image folder's are read one by one, each of its own size.
    fn open(args: &Args, seed: u64) -> Result<Test, Failure> {
        let path = Path::new(&args.data);
        if !is_folder(&args.data) {
            check_skip(&args.data, args.skip_broken)?;
            let dataset = data::load(&args.data, seed).map_err(Failure::failed)?;
            return Ok(Test::Images(Box::new(dataset)));
        }
        let test = Photos::open_test(path, broken(args.skip_broken)).map_err(Failure::failed)?;
        told_of_skipped(&test.skipped)?;
        Ok(Test::Photos { name: test.name, classes: test.classes, photos: test.photos })
    }

    fn about(&self) -> (&str, &[String], Pictures<'_>) {
        match self {
            Test::Photos { name, classes, photos } => (name, classes, Pictures::Photos(photos)),
            Test::Images(d) => (&d.name, &d.classes, Pictures::Images(&d.test)),
        }
    }
}

fn by_views(args: &Args, checkpoints: &[Checkpoint], isa: Isa) -> Result<(), Failure> {
    let Some(first) = checkpoints.first() else { return Err(Failure::usage("no checkpoint")) };
    let test = Test::open(args, first.progress.seed)?;
    let (name, classes, pictures) = test.about();
    checkpoints.iter().try_for_each(|c| check_classes(name, classes, c))?;
    let own = first.model.input[1..].iter().max().map(|&side| u32::try_from(side).unwrap_or(u32::MAX));
    let scales = if args.scale.is_empty() { own.into_iter().collect() } else { args.scale.clone() };
    let models: Vec<&str> = checkpoints.iter().map(|c| c.model.name.as_str()).collect();
    let images = args.images.map_or(usize::MAX, |n| n as usize).min(pictures.len());
    let lengths: Vec<String> = scales.iter().map(u32::to_string).collect();
    say(format_args!("{} on {name}: {images} images, shorter side {}", models.join(" + "), lengths.join(", ")))?;
    say(format_args!(
        "{:<7} {:>8} {:>8} {:>12} {:>15} {:>10}",
        "views", "top-1 %", "top-5 %", "views/image", "mult./image", "ms/image"
    ))?;
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {eta}").map_err(Failure::failed)?;
    for &views in &args.views {
        let tester = |c: &Checkpoint| {
            Tester::new(&c.model, c.parameters.clone(), &c.normalise, views, isa).map_err(Failure::failed)
        };
        let mut testers = checkpoints.iter().map(tester).collect::<Result<Vec<Tester>, Failure>>()?;
        let bar = ProgressBar::new(images as u64).with_style(style.clone()).with_prefix(views.name());
        let seen = evaluate(&mut testers, &scales, pictures, &mut |done| {
            bar.set_position(done as u64);
            done < images
        });
        bar.finish_and_clear();
        let seen = seen.map_err(Failure::failed)?;
        let ([top1, top5], n) = (seen.errors(), seen.images as f64);
        let (per, multiplications, ms) = (seen.views as f64 / n, seen.multiplications / n, 1e3 * seen.seconds / n);
        say(format_args!(
            "{:<7} {top1:>8.2} {top5:>8.2} {per:>12.1} {multiplications:>15.3e} {ms:>10.1}",
            views.name()
        ))?;
    }
    Ok(())
}
