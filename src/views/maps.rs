//! A net in two: the layers that give feature maps, on whole images of any size, and those from the pyramid on, on
//! windows.

use super::{Cost, ViewError, Views, add_softmax};
use crate::model::{Model, ModelError, Op};
use crate::nn::{Mode, Net, Parameters, Shared};
use rectify_kernels::{Buffer, Dims, Isa, layout};

/// Windows in a batch of the second part. It changes no result.
const BATCH: usize = 32;

/// Sizes of images that a plan is kept for, with all of its tensors; weights they share. Most photos of a set lie or
/// stand in the same proportions.
const SIZES: usize = 4;

/// A part of a net, and its parameters.
struct Part {
    model: Model,
    parameters: Parameters,
}

impl Part {
    /// Some layers of a model, with the parameters from number `first` on.
    fn new(model: Model, whole: &Parameters, first: usize) -> Result<Part, ModelError> {
        let parameters = Parameters::build::<ModelError>(&model, |place, _, _| {
            Ok(whole.get(first + place).map_or(Buffer::zeroed(0), |p| p.value.clone()))
        })?;
        Ok(Part { model, parameters })
    }
}

/// See [`super::Tester`].
pub(super) struct Maps {
    isa: Isa,
    maps: Part,
    /// Planned for the sizes of the last few images, the last one's behind the others.
    nets: Vec<((usize, usize), Net)>,
    shared: Shared,
    head: Part,
    head_net: Net,
}

impl Maps {
    pub fn new(model: &Model, parameters: &Parameters, isa: Isa) -> Result<Maps, ViewError> {
        let refuse = |why| ViewError::Maps { model: model.name.clone(), why };
        let pools = |op: &Op| matches!(op, Op::Spp { .. } | Op::GlobalMaxPool | Op::GlobalAveragePool);
        let at = model.layers.iter().position(|l| pools(&l.op));
        let at = at.ok_or_else(|| refuse("has neither a pyramid nor a global pooling layer"))?;
        if at == 0 {
            return Err(refuse("has no layer before its pyramid"));
        }
        let (maps, head) = model.layers.split_at(at);
        if head.iter().any(|l| l.from.is_some() || l.add.is_some()) {
            return Err(refuse("is no chain from its pyramid on"));
        }
        let dims = model.dims(1)?[at];
        let maps = Model { layers: maps.to_vec(), ..model.clone() };
        let head = Model { layers: head.to_vec(), input: [dims.c, dims.h, dims.w], ..model.clone() };
        let count = maps.layers.iter().map(|l| l.op.roles().len()).sum();
        let (maps, head) = (Part::new(maps, parameters, 0)?, Part::new(head, parameters, count)?);
        let mut head_net = Net::new(&head.model, isa, BATCH, Mode::Inference)?;
        head_net.load(&head.parameters)?;
        Ok(Maps { isa, maps, nets: Vec::new(), shared: Shared::default(), head, head_net })
    }

    /// Adds the probabilities of all views of an image and its mirror image, normalised NCHW.
    pub fn probabilities(
        &mut self,
        (h, w): (usize, usize),
        pixels: &[f32],
        views: Views,
        sum: &mut [f64],
    ) -> Result<Cost, ViewError> {
        let model = Model { input: [self.maps.model.input[0], h, w], ..self.maps.model.clone() };
        if let Some(at) = self.nets.iter().position(|(size, _)| *size == (h, w)) {
            self.nets[at..].rotate_left(1);
        } else {
            // The one that has waited longest goes first.
            self.nets.drain(..(self.nets.len() + 1).saturating_sub(SIZES));
            let mut net = Net::new(&model, self.isa, 2, Mode::Inference)?;
            net.load_shared(&self.maps.parameters, &mut self.shared)?;
            self.nets.push(((h, w), net));
        }
        let Some((_, net)) = self.nets.last_mut() else { return Err(ViewError::Nothing("net")) };
        net.forward(&self.maps.parameters, pixels, 0)?;
        let output = net.output();
        let mut maps = vec![0.0; output.plain_len()];
        layout::blocked_to_nchw(self.isa, output, net.scores(), &mut maps)?;
        let [c, vh, vw] = self.head.model.input;
        if output.h < vh || output.w < vw {
            return Err(ViewError::Small { h: output.h, w: output.w, window: (vh, vw) });
        }
        let places = views.places((output.h, output.w), (vh, vw));
        let windows: Vec<(usize, (usize, usize))> =
            (0..2).flat_map(|image| places.iter().map(move |&place| (image, place))).collect();
        let len = c * vh * vw;
        let mut batch = vec![0.0; BATCH * len];
        for windows in windows.chunks(BATCH) {
            for (&(image, place), out) in windows.iter().zip(batch.chunks_exact_mut(len)) {
                cut(&maps, output, image, place, (vh, vw), out);
            }
            self.head_net.forward(&self.head.parameters, &batch, 0)?;
            add_softmax(&self.head_net, self.isa, windows.len(), sum)?;
        }
        let multiplications =
            2.0 * model.multiplications()? + windows.len() as f64 * self.head.model.multiplications()?;
        Ok(Cost { views: windows.len(), multiplications })
    }
}

/// Copies the window of all channels of an image at a place.
fn cut(maps: &[f32], d: Dims, image: usize, (top, left): (usize, usize), (h, w): (usize, usize), out: &mut [f32]) {
    for (channel, plane) in out.chunks_exact_mut(h * w).enumerate() {
        for (y, row) in plane.chunks_exact_mut(w).enumerate() {
            let start = ((image * d.c + channel) * d.h + top + y) * d.w + left;
            row.copy_from_slice(&maps[start..start + w]);
        }
    }
}
