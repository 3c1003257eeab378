//! Testing by views: an image is scaled, seen in one or many windows, and the probabilities are averaged.
//!
//! As in He et al. 2015, section 4, the image's shorter side is scaled to each of some lengths. [`Views`] says what is
//! seen of it. A view gives the softmax of its scores, in `f64`; the mean over the views of a scale, then over the
//! scales, then over the models ranks the classes. [`Evaluation`] has the errors, and what they cost.

mod maps;

use crate::data::photos::{Photo, Window, scaled};
use crate::data::{DataError, Disk, Images, LEVELS, Normalise, folder::Picture};
use crate::hyper::HyperError;
use crate::model::{Model, ModelError};
use crate::nn::{Mode, Net, NetError, Parameters};
use maps::Maps;
use rectify_kernels::{Error, Isa};
use std::borrow::Cow;
use std::path::Path;
use std::time::Instant;

/// What is seen of a scaled image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Views {
    /// The crop in the middle.
    Single,
    /// The crops in the corners and in the middle, of the image and of its mirror image (Krizhevsky et al. 2012).
    Ten,
    /// The ten windows at the same places of the feature maps, which are computed once on the whole image and once on
    /// its mirror image; spatial pyramid pooling and the layers behind it see a window ("multi-view testing on feature
    /// maps").
    Maps,
    /// As [`Views::Maps`], but every window that the feature maps have.
    Dense,
}

impl Views {
    /// All of them.
    pub const ALL: [Views; 4] = [Views::Single, Views::Ten, Views::Maps, Views::Dense];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Views::Single => "single",
            Views::Ten => "ten",
            Views::Maps => "maps",
            Views::Dense => "dense",
        }
    }

    /// Where the windows of a size begin in a plane, row and column.
    fn places(self, plane: (usize, usize), window: (usize, usize)) -> Vec<(usize, usize)> {
        let (down, right) = (plane.0.saturating_sub(window.0), plane.1.saturating_sub(window.1));
        match self {
            Views::Single => vec![(down / 2, right / 2)],
            Views::Ten | Views::Maps => {
                vec![(0, 0), (0, right), (down, 0), (down, right), (down / 2, right / 2)]
            }
            Views::Dense => (0..=down).flat_map(|y| (0..=right).map(move |x| (y, x))).collect(),
        }
    }
}

impl std::str::FromStr for Views {
    type Err = HyperError;
    fn from_str(text: &str) -> Result<Views, HyperError> {
        let must = "single, ten, maps or dense";
        let found = Views::ALL.into_iter().find(|v| v.name() == text);
        found.ok_or_else(|| HyperError { what: "views", value: text.into(), must })
    }
}

/// Why a net cannot be tested so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The model is refused.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The net cannot be built or run.
    #[error(transparent)]
    Net(#[from] NetError),
    /// An image is refused.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The net has no feature maps that could be seen in windows.
    #[error("model {model:?} {why}: its feature maps cannot be seen in windows")]
    Maps {
        /// Name of the model.
        model: String,
        /// What is the matter with it.
        why: &'static str,
    },
    /// The net takes neither grey nor coloured images.
    #[error("model {model:?} takes {channels} channels, but pictures have 1 or 3")]
    Channels {
        /// Name of the model.
        model: String,
        /// What it takes.
        channels: usize,
    },
    /// The net takes grey images, the picture has colours.
    #[error("model {model:?} takes grey images, but a picture has colours")]
    Colour {
        /// Name of the model.
        model: String,
    },
    /// A scaled image is smaller than a window.
    #[error("an image of {h}×{w} pixels is smaller than the window, {}×{}: the scale is too small", window.0, window.1)]
    Small {
        /// Rows of the image.
        h: usize,
        /// Columns of the image.
        w: usize,
        /// Rows and columns of the window.
        window: (usize, usize),
    },
    /// There is nothing to test, or nothing to test with.
    #[error("there is no {0}")]
    Nothing(&'static str),
}

impl From<Error> for ViewError {
    fn from(e: Error) -> ViewError {
        NetError::from(e).into()
    }
}

/// What testing an image took.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// Views.
    pub views: usize,
    /// Multiplications in convolutions and fully connected layers.
    pub multiplications: f64,
}

/// A net that looks at views.
pub struct Tester {
    views: Views,
    isa: Isa,
    model: Model,
    parameters: Parameters,
    tables: Vec<[f32; LEVELS]>,
    sees: Sees,
}

enum Sees {
    Crops(Box<Net>),
    Maps(Box<Maps>),
}

impl Tester {
    /// Plans a net in the current rayon pool; [`Tester::probabilities`] is to be called in the same.
    ///
    /// # Errors
    /// A model that does not fit together, or, for [`Views::Maps`] and [`Views::Dense`], has neither a pyramid nor a
    /// global pooling layer behind a chain of others; another number of channels than 1 or 3; a normalisation that is
    /// not finite.
    pub fn new(
        model: &Model,
        parameters: Parameters,
        normalise: &Normalise,
        views: Views,
        isa: Isa,
    ) -> Result<Tester, ViewError> {
        let channels = model.input[0];
        if ![1, 3].contains(&channels) {
            return Err(ViewError::Channels { model: model.name.clone(), channels });
        }
        let tables = normalise.tables(channels, [])?;
        let sees = match views {
            Views::Single | Views::Ten => {
                let batch = if views == Views::Ten { 10 } else { 1 };
                let mut net = Net::new(model, isa, batch, Mode::Inference)?;
                net.load(&parameters)?;
                Sees::Crops(Box::new(net))
            }
            Views::Maps | Views::Dense => Sees::Maps(Box::new(Maps::new(model, &parameters, isa)?)),
        };
        Ok(Tester { views, isa, model: model.clone(), parameters, tables, sees })
    }

    /// The probability of each class, the mean over the views of a picture that is scaled already, and what they cost.
    ///
    /// # Errors
    /// A picture smaller than the net's input, or with colours where the net takes grey ones.
    pub fn probabilities(&mut self, picture: &Picture) -> Result<(Vec<f64>, Cost), ViewError> {
        let [c, h, w] = self.model.input;
        if picture.h < h || picture.w < w {
            return Err(ViewError::Small { h: picture.h, w: picture.w, window: (h, w) });
        }
        if c == 1 && !picture.grey {
            return Err(ViewError::Colour { model: self.model.name.clone() });
        }
        let mut mean = vec![0.0; self.model.classes()];
        let cost = match &mut self.sees {
            Sees::Crops(net) => {
                let places = self.views.places((picture.h, picture.w), (h, w));
                let mut pixels = vec![0.0; net.batch() * c * h * w];
                let flips: &[bool] = if self.views == Views::Ten { &[false, true] } else { &[false] };
                let windows = flips.iter().flat_map(|&flip| places.iter().map(move |&place| (flip, place)));
                for ((flip, (top, left)), out) in windows.zip(pixels.chunks_exact_mut((c * h * w).max(1))) {
                    // Where the window of the mirror image lies in the image.
                    let left = if flip { picture.w - w - left } else { left };
                    Window { picture, top, left, flip, tables: &self.tables }.copy((h, w), out);
                }
                net.forward(&self.parameters, &pixels, 0)?;
                let views = net.batch();
                add_softmax(net, self.isa, views, &mut mean)?;
                Cost { views, multiplications: views as f64 * self.model.multiplications()? }
            }
            Sees::Maps(maps) => {
                let size = (picture.h, picture.w);
                let mut pixels = vec![0.0; 2 * c * size.0 * size.1];
                for (flip, out) in [false, true].into_iter().zip(pixels.chunks_exact_mut(c * size.0 * size.1)) {
                    Window { picture, top: 0, left: 0, flip, tables: &self.tables }.copy(size, out);
                }
                maps.probabilities(size, &pixels, self.views, &mut mean)?
            }
        };
        mean.iter_mut().for_each(|p| *p /= cost.views as f64);
        Ok((mean, cost))
    }
}

/// Adds the softmax of the first `images` scores of a net's last pass.
fn add_softmax(net: &Net, isa: Isa, images: usize, sum: &mut [f64]) -> Result<(), Error> {
    let output = net.output();
    let mut scores = vec![0.0; output.plain_len()];
    rectify_kernels::layout::blocked_to_nchw(isa, output, net.scores(), &mut scores)?;
    for scores in scores.chunks_exact(output.c.max(1)).take(images) {
        let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exp: Vec<f64> = scores.iter().map(|&z| libm::exp(f64::from(z) - f64::from(most))).collect();
        let total = exp.iter().fold(0.0, |total, e| total + e);
        sum.iter_mut().zip(exp).for_each(|(sum, e)| *sum += e / total);
    }
    Ok(())
}

/// Images to test with.
#[derive(Debug, Clone, Copy)]
pub enum Pictures<'a> {
    /// Photos, each of its own size.
    Photos(&'a [Photo]),
    /// Images of one size.
    Images(&'a Images),
}

impl<'a> Pictures<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Pictures::Photos(photos) => photos.len(),
            Pictures::Images(images) => images.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Picture `i`, its label, and the path that errors name.
    fn get(self, i: usize) -> Result<(Picture, u32, Cow<'a, Path>), DataError> {
        let none = || DataError::Index { index: i as u32, samples: self.len() };
        match self {
            Pictures::Photos(photos) => {
                let photo = photos.get(i).ok_or_else(none)?;
                Ok((photo.open()?, photo.label, Cow::Borrowed(&photo.path)))
            }
            Pictures::Images(Images { disk: Some(Disk::Photos(set)), .. }) => Pictures::Photos(&set.photos).get(i),
            Pictures::Images(images) => {
                let (image, &label) = (images.read(i)?, images.labels.get(i).ok_or_else(none)?);
                let plane = images.h * images.w;
                // A grey image has one plane, which stands for all three.
                let channels = images.c.saturating_sub(1);
                let value =
                    |p: usize, channel: usize| image.get(channel.min(channels) * plane + p).copied().unwrap_or(0);
                let rgb = (0..plane).flat_map(|p| [0, 1, 2].map(|channel| value(p, channel))).collect();
                let picture = Picture { h: images.h, w: images.w, grey: images.c == 1, rgb };
                Ok((picture, label, Cow::Owned(format!("image {i}").into())))
            }
        }
    }
}

/// How well some nets do together, and at what cost.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Evaluation {
    /// Images.
    pub images: usize,
    /// Images whose label has the highest probability.
    pub top1: usize,
    /// Images whose label is among the five of the highest probability.
    pub top5: usize,
    /// Views of all images, at all scales, by all nets.
    pub views: usize,
    /// Multiplications of all of them.
    pub multiplications: f64,
    /// Seconds in the nets, without decoding and scaling.
    pub seconds: f64,
}

impl Evaluation {
    /// Shares of the images that are not among the first one and the first five, in percent.
    pub fn errors(&self) -> [f64; 2] {
        [self.top1, self.top5].map(|right| 100.0 * (1.0 - right as f64 / self.images.max(1) as f64))
    }
}

/// How many classes come before the label's: of equal probability, those of lower number. Without end if one is NaN, so
/// that the label is not among the first five of fewer classes either.
fn rank(probabilities: &[f64], label: usize) -> usize {
    let Some(&own) = probabilities.get(label) else { return usize::MAX };
    if probabilities.iter().any(|p| p.is_nan()) {
        return usize::MAX;
    }
    probabilities.iter().enumerate().filter(|&(c, &p)| p > own || (p == own && c < label)).count()
}

/// Tests some nets together at some scales (lengths of the shorter side, in pixels). `observe` hears how many images
/// are done; `false` ends the test there.
///
/// # Errors
/// No nets, scales or images; an image that cannot be read or, scaled, is smaller than a net's input.
pub fn evaluate(
    testers: &mut [Tester],
    scales: &[u32],
    pictures: Pictures<'_>,
    observe: &mut dyn FnMut(usize) -> bool,
) -> Result<Evaluation, ViewError> {
    let lacks = [(testers.is_empty(), "net"), (scales.is_empty(), "scale"), (pictures.is_empty(), "image")];
    if let Some((_, what)) = lacks.into_iter().find(|(lacks, _)| *lacks) {
        return Err(ViewError::Nothing(what));
    }
    let mut total = Evaluation::default();
    for i in 0..pictures.len() {
        let (picture, label, path) = pictures.get(i)?;
        let mut sum: Vec<f64> = Vec::new();
        for &scale in scales {
            let scaled = scaled(picture.clone(), scale as usize, &path)?;
            let start = Instant::now();
            for tester in testers.iter_mut() {
                let (probabilities, cost) = tester.probabilities(&scaled)?;
                sum.resize(probabilities.len(), 0.0);
                sum.iter_mut().zip(probabilities).for_each(|(sum, p)| *sum += p);
                total.views += cost.views;
                total.multiplications += cost.multiplications;
            }
            total.seconds += start.elapsed().as_secs_f64();
        }
        let rank = rank(&sum, label as usize);
        total.images += 1;
        total.top1 += usize::from(rank < 1);
        total.top5 += usize::from(rank < 5);
        if !observe(total.images) {
            break;
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests;
