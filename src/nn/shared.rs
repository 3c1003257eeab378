//! Packed weights that plans of one model for images of several sizes share.

use super::node::Kind;
use super::{Net, NetError, Parameters};
use rectify_kernels::reference::winograd::Variant;
use rectify_kernels::{Buffer, Isa};
use std::sync::Arc;

/// A layer's weights as they are packed, folded with the batch norms beside it, and the bias that these bring.
#[derive(Clone)]
pub(super) struct Loaded {
    /// What the layout of a layer's packed weights depends on; neither the image nor the batch.
    pub key: (Isa, Option<Variant>),
    pub packed: Arc<Buffer>,
    pub bias: Option<Arc<Buffer>>,
}

/// What nets of one model and one set of parameters have packed, by layer: one image may be too small for the algorithm
/// that another takes, so a layer may be there several times, once in each layout.
#[derive(Default)]
pub(crate) struct Shared(Vec<Vec<Loaded>>);

impl Net {
    /// As [`Net::load`], but packs nothing that is shared already, and shares what it packs. All must be nets for
    /// inference of the same layers and parameters, with images of any size.
    pub(crate) fn load_shared(&mut self, parameters: &Parameters, shared: &mut Shared) -> Result<(), NetError> {
        self.check(parameters)?;
        shared.0.resize_with(self.nodes.len(), Vec::new);
        for (node, shared) in self.nodes.iter_mut().zip(&mut shared.0) {
            let fault = node.fault();
            match &mut node.kind {
                Kind::Affine(affine) => match shared.iter().find(|l| l.key == affine.key()) {
                    Some(loaded) => affine.take(loaded),
                    None => {
                        affine.load(parameters).map_err(fault)?;
                        shared.push(affine.loaded());
                    }
                },
                Kind::Norm(apart) => apart.load(parameters).map_err(fault)?,
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Mode;
    use super::*;
    use crate::model::{Model, Op};

    /// Nets of all sizes give the bits of nets of their own, and each layout is packed once.
    #[test]
    fn what_is_shared_is_what_would_be_packed() {
        let isa = Isa::best().unwrap();
        for name in ["e14-32", "cifar13", "iresnet18"] {
            let whole = Model::built_in(name).unwrap();
            let side = whole.input[1].min(40);
            // Without what is for one size alone.
            let end = whole.layers.iter().position(|l| matches!(l.op, Op::Linear { .. } | Op::Spp { .. }));
            let model = Model { layers: whole.layers[..end.unwrap()].to_vec(), ..whole };
            let parameters = Parameters::initial(&model, 3).unwrap();
            let mut shared = Shared::default();
            let count = |shared: &Shared| shared.0.iter().map(Vec::len).sum::<usize>();
            let sizes = [(side, side), (side + 9, side), (side, 2 * side), (2 * side, side + 1)];
            for (i, (h, w)) in sizes.into_iter().chain([sizes[1]]).enumerate() {
                let before = count(&shared);
                let model = Model { input: [model.input[0], h, w], ..model.clone() };
                let image: Vec<f32> = (0..model.input.iter().product()).map(|i| (i % 97) as f32 / 97.0 - 0.5).collect();
                let [mut net, mut alone] = [(); 2].map(|()| Net::new(&model, isa, 1, Mode::Inference).unwrap());
                net.load_shared(&parameters, &mut shared).unwrap();
                alone.load(&parameters).unwrap();
                assert_eq!(
                    net.forward(&parameters, &image, 0).unwrap(),
                    alone.forward(&parameters, &image, 0).unwrap(),
                    "{name} at {h}×{w}"
                );
                // A size that was there packs nothing.
                assert!(i < sizes.len() || count(&shared) == before, "{name} at {h}×{w}");
            }
            let layers = shared.0.iter().filter(|l| !l.is_empty()).count();
            assert!(layers > 5 && (layers..2 * layers).contains(&count(&shared)), "{name}");
        }
    }
}
