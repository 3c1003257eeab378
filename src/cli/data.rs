//! Opening the data set that a net is trained on or evaluated with.

use super::{Failure, say};
use rectify::data::{
    self, DataError, Dataset,
    photos::{Broken, Photos},
};
use rectify::model::Model;
use std::path::Path;

/// Whether the text is the path of an image folder.
pub fn is_folder(data: &str) -> bool {
    data != "shapes" && Path::new(data).join("train").is_dir()
}

/// What to do about broken photos.
pub fn broken(skip: bool) -> Broken {
    if skip { Broken::Skip } else { Broken::Fatal }
}

/// Refuses to leave out photos of a set whose images are read all at once.
pub fn check_skip(data: &str, skip: bool) -> Result<(), Failure> {
    if skip {
        return Err(Failure::usage(format_args!(
            "{data}: --skip-broken is for an image folder's photos that are read one by one, with --scale or --views"
        )));
    }
    Ok(())
}

/// Names the files that were left out, and counts them.
pub fn told_of_skipped(skipped: &[DataError]) -> Result<(), Failure> {
    for error in skipped {
        say(format_args!("left out: {error}"))?;
    }
    if skipped.is_empty() { Ok(()) } else { say(format_args!("{} broken files left out", skipped.len())) }
}

/// An image folder's photos one by one if the net's training scales them, cut to the net's input; any other set in
/// memory.
pub fn open(data: &str, seed: u64, model: &Model, skip_broken: bool) -> Result<Dataset, Failure> {
    let Some([shorter, longer]) = model.training.scale.filter(|_| is_folder(data)) else {
        check_skip(data, skip_broken)?;
        return data::load(data, seed).map_err(Failure::failed);
    };
    let [c, h, w] = model.input;
    if (shorter as usize) < h.max(w) {
        return Err(Failure::usage(format_args!(
            "scale {shorter},{longer}: the {h}×{w} pixels that model {:?} takes are cut out of photos of that length",
            model.name
        )));
    }
    if c != 3 {
        return Err(Failure::failed(format_args!("model {:?} takes {c} channels, but photos have 3", model.name)));
    }
    let photos = Photos::open(Path::new(data), broken(skip_broken)).map_err(Failure::failed)?;
    told_of_skipped(&photos.skipped)?;
    photos.dataset((h, w), shorter).map_err(Failure::failed)
}
