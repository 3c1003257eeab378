//! How a net is trained: hyper-parameters and their bounds.

use crate::data::Augment;
use crate::hyper::{HyperError, require};
use crate::{init::Init, schedule::Schedule};
use serde::{Deserialize, Serialize};

/// Hyper-parameters of a training run. The defaults are those of He et al. 2015, section 4, where they are not a
/// matter of the data: momentum 0.9, weight decay 0.0005.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Training {
    /// Passes through the training images.
    pub epochs: u32,
    /// Images a step; what is left over at the end of an epoch is left out.
    pub batch: usize,
    /// Base learning rate.
    pub lr: f32,
    /// Momentum.
    pub momentum: f32,
    /// Weight decay; never applied to slopes and biases.
    pub weight_decay: f32,
    /// What the learning rate of slopes is multiplied by: ε of Eq. 4 is one of their own. 0 leaves them as they start.
    #[serde(skip_serializing_if = "is_one")]
    pub slope_lr: f32,
    /// How the learning rate changes.
    pub schedule: Schedule,
    /// What the weights start with.
    pub init: Init,
    /// Mirror half of the images.
    pub flip: bool,
    /// Shift images by up to this many pixels. Photos that `scale` cuts the input out of are not shifted besides.
    pub crop: usize,
    /// Take the images in a random order, another one in each epoch.
    pub shuffle: bool,
    /// Scale the shorter side of photos to a random length between these, and cut the net's input out of them at a
    /// random place; an image folder is then read one by one, `crop` left aside. 256 and 512 in He et al. 2015, section
    /// 4.
    pub scale: Option<[u32; 2]>,
    /// Alter the colours of photos along their principal components by this deviation: 0.1 in Krizhevsky et al. 2012.
    #[serde(skip_serializing_if = "is_zero")]
    pub colour: f32,
}

/// What is not written, so that nets without photos have the checkpoints that they had before.
fn is_zero(x: &f32) -> bool {
    *x == 0.0
}

/// Likewise of slopes that learn at the rate of all.
fn is_one(x: &f32) -> bool {
    *x == 1.0
}

impl Default for Training {
    fn default() -> Training {
        Training {
            epochs: 10,
            batch: 64,
            lr: 0.01,
            momentum: 0.9,
            weight_decay: 5e-4,
            slope_lr: 1.0,
            schedule: Schedule::Constant,
            init: Init::He,
            flip: false,
            crop: 0,
            shuffle: true,
            scale: None,
            colour: 0.0,
        }
    }
}

impl Training {
    /// How training images are varied.
    pub fn augment(&self) -> Augment {
        Augment { flip: self.flip, pad_crop: self.crop, scale: self.scale, colour: self.colour }
    }

    /// Refuses numbers that are not finite or out of bounds.
    ///
    /// # Errors
    /// [`HyperError`], naming the value.
    pub fn check(&self) -> Result<(), HyperError> {
        require("epochs", self.epochs, |&e| e >= 1, "at least 1")?;
        require("batch", self.batch, |b| (1..=1 << 16).contains(b), "between 1 and 65536")?;
        require("lr", self.lr, |&x| x > 0.0 && x.is_finite(), "finite and above 0")?;
        require("momentum", self.momentum, |x| (0.0..1.0).contains(x), "at least 0 and below 1")?;
        require("weight_decay", self.weight_decay, |&x| x >= 0.0 && x.is_finite(), "finite and at least 0")?;
        require("slope_lr", self.slope_lr, |&x| x >= 0.0 && x.is_finite(), "finite and at least 0")?;
        require("crop", self.crop, |&c| c <= 1 << 12, "at most 4096")?;
        require("colour", self.colour, |&x| x >= 0.0 && x.is_finite(), "finite and at least 0")?;
        if let Some([low, high]) = self.scale {
            let must = "two rising lengths between 1 and 65536";
            let well = (1..=high).contains(&low) && high <= 1 << 16;
            require("scale", format!("{low} to {high}"), |_| well, must)?;
        }
        self.init.check()?;
        self.schedule.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_by_name() {
        let good = Training::default();
        assert_eq!(good.check(), Ok(()));
        assert_eq!(Training { scale: Some([8, 9]), crop: 1, ..good.clone() }.check(), Ok(()));
        for (what, bad) in [
            ("epochs", Training { epochs: 0, ..good.clone() }),
            ("batch", Training { batch: 0, ..good.clone() }),
            ("lr", Training { lr: f32::NAN, ..good.clone() }),
            ("lr", Training { lr: f32::INFINITY, ..good.clone() }),
            ("lr", Training { lr: 0.0, ..good.clone() }),
            ("momentum", Training { momentum: f32::NAN, ..good.clone() }),
            ("momentum", Training { momentum: 1.0, ..good.clone() }),
            ("weight_decay", Training { weight_decay: -1e-3, ..good.clone() }),
            ("weight_decay", Training { weight_decay: f32::NAN, ..good.clone() }),
            ("slope_lr", Training { slope_lr: -1.0, ..good.clone() }),
            ("slope_lr", Training { slope_lr: f32::INFINITY, ..good.clone() }),
            ("colour", Training { colour: f32::NAN, ..good.clone() }),
            ("scale", Training { scale: Some([0, 9]), ..good.clone() }),
            ("scale", Training { scale: Some([9, 8]), ..good.clone() }),
            ("init's deviation", Training { init: Init::Gaussian(0.0), ..good.clone() }),
        ] {
            assert_eq!(bad.check().map_err(|e| e.what), Err(what));
        }
    }
}
