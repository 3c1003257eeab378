//! Which kernels a net takes, without building it.

use super::{NetError, plan};
use crate::model::{Model, Op};
use rectify_kernels::conv::{self, Layout, Options};
use rectify_kernels::linear::{self, LinearShape};
use rectify_kernels::{Error, Isa};

/// The kernels of a layer with weights, for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernels {
    /// Of the forward pass.
    pub forward: String,
    /// Of the gradients of the input and of the weights; nothing in a net that cannot be trained.
    pub backward: Option<[String; 2]>,
}

/// The kernels that [`Net`](super::Net) would choose for batches of `batch` images, layer by layer; nothing for a layer
/// without weights. Allocates neither weights nor activations.
///
/// # Errors
/// As [`Net::new`](super::Net::new).
pub fn kernels(model: &Model, isa: Isa, batch: usize) -> Result<Vec<Option<Kernels>>, NetError> {
    let dims = model.tensors(batch)?;
    let (steps, trainable) = (plan::folded(model)?, model.untrainable().is_none());
    let images = plan::images(model, &steps, dims[0]);
    let mut all = vec![None; model.layers.len()];
    for step in &steps {
        let (layer, input) = (&model.layers[step.layer], dims[step.from]);
        let layout = if step.from == 0 { images } else { Layout::Blocked };
        let of_layer = || -> Result<Option<Kernels>, Error> {
            match &layer.op {
                Op::Conv(conv, _) => {
                    let shape = Op::conv_shape(conv, input);
                    let options = Options { input: layout, ..Options::default() };
                    let forward = conv::Forward::new(isa, &shape, &options)?.kernel();
                    let backward = || -> Result<[String; 2], Error> {
                        let data = conv::BackwardData::new(isa, &shape, &options)?.kernel();
                        Ok([data, conv::BackwardWeights::new(isa, &shape, &options)?.kernel()])
                    };
                    Ok(Some(Kernels { forward, backward: trainable.then(backward).transpose()? }))
                }
                &Op::Linear { outputs, .. } => {
                    let shape = LinearShape { n: input.n, c: input.c, h: input.h, w: input.w, outputs };
                    let forward = linear::Forward::new(isa, &shape)?.kernel();
                    let backward = || -> Result<[String; 2], Error> {
                        let data = linear::BackwardData::new(isa, &shape)?.kernel();
                        Ok([data, linear::BackwardWeights::new(isa, &shape)?.kernel()])
                    };
                    Ok(Some(Kernels { forward, backward: trainable.then(backward).transpose()? }))
                }
                _ => Ok(None),
            }
        };
        all[step.layer] = of_layer().map_err(|source| NetError::Layer { layer: layer.name.clone(), source })?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::super::{Mode, Net};
    use super::*;

    #[test]
    fn they_are_those_of_a_net() {
        for name in ["shapes-small", "cifar13", "e14-32", "iresnet18"] {
            let (model, isa) = (Model::built_in(name).unwrap(), Isa::best().unwrap());
            let profile = Net::new(&model, isa, 2, Mode::Inference).unwrap().profile();
            let kernels = kernels(&model, isa, 2).unwrap();
            assert_eq!(kernels.len(), model.layers.len());
            for (layer, kernels) in model.layers.iter().zip(kernels) {
                let of_net = profile.iter().find(|l| l.layer == layer.name).map(|l| l.kernel.clone());
                match kernels {
                    Some(k) => assert_eq!((of_net, k.backward.is_some()), (Some(k.forward), name != "iresnet18")),
                    None => assert!(!matches!(layer.op, Op::Conv(..) | Op::Linear { .. }), "{name}: {}", layer.name),
                }
            }
        }
    }
}
