//! A step of a net: what it computes and where its tensors lie.

use super::affine::Affine;
use super::apart::Apart;
use super::profile::Spent;
use super::{NetError, Parameters};
use rectify_kernels::pool::{PoolShape, SppShape};
use rectify_kernels::{Dims, Error};

pub(super) enum Kind {
    Affine(Box<Affine>),
    Max { shape: PoolShape, index: Vec<u32> },
    Average(PoolShape),
    Spp { shape: SppShape, index: Vec<u32> },
    Dropout { rate: f32, mask: Vec<u8> },
    Norm(Box<Apart>),
}

pub(super) struct Node {
    pub name: String,
    pub kind: Kind,
    /// Elements of its input.
    pub input: usize,
    pub output: Dims,
    /// Which buffers hold its input, what it adds and its output; dropout works in place.
    pub from: usize,
    pub add: Option<usize>,
    pub to: usize,
    /// How far apart in these buffers the images of one round and of the next lie; 0 where rounds take turns.
    pub apart: [usize; 3],
    /// The node whose output it reads, where the backward pass must compute that again.
    pub producer: Option<usize>,
    /// What its passes have taken since [`super::Net::profile`] was last called.
    pub spent: Spent,
}

impl Node {
    /// Puts the layer's name to an error.
    pub fn fault(&self) -> impl Fn(Error) -> NetError + use<> {
        let layer = self.name.clone();
        move |source| NetError::Layer { layer: layer.clone(), source }
    }

    /// What its activation was given, of which dimensions, and the slopes.
    pub fn activation<'a>(&'a self, parameters: &'a Parameters) -> Option<(&'a [f32], Dims, &'a [f32])> {
        match &self.kind {
            Kind::Affine(a) => a.activation(parameters).map(|(pre, slopes)| (pre, self.output, slopes)),
            _ => None,
        }
    }

    /// The kernel of a layer with weights; else what the layer does.
    pub fn kernel(&self) -> String {
        match &self.kind {
            Kind::Affine(a) => a.kernel(),
            Kind::Max { .. } => "max-pool".into(),
            Kind::Average(_) => "average-pool".into(),
            Kind::Spp { .. } => "spp".into(),
            Kind::Dropout { .. } => "dropout".into(),
            Kind::Norm(_) => "batch-norm".into(),
        }
    }

    /// Bytes that the layer itself keeps from the forward pass for the backward one, and of packed weights.
    pub fn bytes(&self) -> (usize, usize) {
        match &self.kind {
            Kind::Affine(a) => a.bytes(),
            Kind::Max { index, .. } | Kind::Spp { index, .. } => (size_of_val(&index[..]), 0),
            Kind::Dropout { mask, .. } => (mask.len(), 0),
            Kind::Average(_) | Kind::Norm(_) => (0, 0),
        }
    }
}
