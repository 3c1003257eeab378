//! Batch norms that are passes of their own.

use super::Parameters;
use super::fold::{Map, Norm};
use crate::model::Activation;
use rectify_kernels::{Dims, Error, Isa, elementwise, norm, prelu};

/// A batch norm that is a pass of its own.
pub(super) struct Apart {
    norm: Norm,
    scale: Vec<f32>,
    shift: Vec<f32>,
    /// The slopes of an activation that is not learned, and the place of those of one that is.
    fixed: Option<[f32; 1]>,
    learned: Option<usize>,
}

impl Apart {
    /// With an activation, whose slopes, if they are learned, are at this place among the parameters.
    pub(super) fn new(norm: Norm, activation: Activation, slopes: usize) -> Apart {
        let learned = matches!(activation, Activation::Prelu { .. }).then_some(slopes);
        let fixed = if learned.is_some() { None } else { activation.slope().map(|slope| [slope]) };
        Apart { norm, scale: Vec::new(), shift: Vec::new(), fixed, learned }
    }

    pub(super) fn load(&mut self, parameters: &Parameters) -> Result<(), Error> {
        let maps = self.norm.maps(parameters)?;
        self.scale = maps.iter().map(|m: &Map| m.scale as f32).collect();
        self.shift = maps.iter().map(|m: &Map| m.shift as f32).collect();
        Ok(())
    }

    pub(super) fn forward(
        &self,
        isa: Isa,
        dims: Dims,
        parameters: &Parameters,
        x: &[f32],
        shortcut: Option<&[f32]>,
        y: &mut [f32],
    ) -> Result<(), Error> {
        norm::forward(isa, dims, x, &self.scale, &self.shift, y)?;
        if let Some(shortcut) = shortcut {
            elementwise::add_in_place(isa, y, shortcut)?;
        }
        let learned = self.learned.map(|at| &parameters[at].value[..]);
        match learned.or(self.fixed.as_ref().map(|s| &s[..])) {
            Some(slopes) => prelu::forward_in_place(isa, dims, y, slopes),
            None => Ok(()),
        }
    }
}
