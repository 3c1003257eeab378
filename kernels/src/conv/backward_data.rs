//! The gradient with respect to the input: the forward pass on rotated weights.

use super::axis::Axis;
use super::pack::{Oihw, pack};
use super::pass::Pass;
use super::run::Call;
use super::winograd::Winograd;
use super::{Layout, Options};
use crate::error::{check_at_least, check_len};
use crate::reference::winograd::{Variant, reversed};
use crate::{ConvShape, Error, Isa, task};

/// A plan of the gradient with respect to the input (He et al. 2015, Eq. 13).
#[derive(Debug, Clone)]
pub struct BackwardData {
    isa: Isa,
    shape: ConvShape,
    kind: Kind,
}

/// The algorithm's own plan.
#[derive(Debug, Clone)]
enum Kind {
    /// A pass for each residue class of the input pixels modulo the strides.
    Direct(Vec<Pass>),
    /// The forward convolution of the output's gradient with the rotated weights, with stride 2 with their phases.
    Winograd(Winograd),
}

/// Whether passes over one tensor, whose axes can be joined, are to share a copy of each band: planes, which take long
/// to be made from blocks.
fn share_copies(passes: &[Pass]) -> bool {
    passes.len() > 1 && passes.iter().all(|p| p.planar && p.copy)
}

/// Lets passes whose axes have been joined read the copies of the first, which has the most rows and columns.
fn share(passes: &mut [Pass]) {
    if let [first, rest @ ..] = passes {
        for pass in rest {
            (pass.band_rows, pass.planes) = (first.band_rows, first.planes);
            pass.walk();
        }
    }
}

/// Passes that a plan has at most: strides of 256 in both directions.
const MOST_CLASSES: usize = 1 << 16;

impl BackwardData {
    /// Plans the shape (that of the forward convolution). How [`Options`] say that tensors lie does not matter: these
    /// are blocked.
    ///
    /// # Errors
    /// A shape that cannot be served, an instruction set that the processor lacks.
    pub fn new(isa: Isa, shape: &ConvShape, options: &Options) -> Result<BackwardData, Error> {
        shape.check()?;
        let s = shape;
        let options = &Options { input: Layout::Blocked, output: Layout::Blocked, ..*options };
        if let Some(variant) = options.algorithm.data_variant(s)? {
            let winograd = match reversed(s) {
                Some(back) if variant.stride() == 1 => Winograd::new(variant, &back, options),
                _ => Winograd::interleaved(variant, s, options),
            };
            return Ok(BackwardData { isa: isa.require()?, shape: *shape, kind: Kind::Winograd(winograd) });
        }
        // Each class of pixels modulo the strides has a pass of its own.
        let classes = s.stride_h.min(s.ih).checked_mul(s.stride_w.min(s.iw));
        if classes.is_none_or(|classes| classes > MOST_CLASSES) {
            let is_rows = s.stride_h.min(s.ih) > s.stride_w.min(s.iw);
            let (what, value) = if is_rows { ("stride_h", s.stride_h) } else { ("stride_w", s.stride_w) };
            return Err(Error::Shape { what, value, why: "is too large for the gradient of the input" });
        }
        let mut rows = Axis::backward(s.ih, s.oh(), s.kh, s.stride_h, s.dilation_h, s.pad_top);
        let mut cols = Axis::backward(s.iw, s.ow(), s.kw, s.stride_w, s.dilation_w, s.pad_left);
        let pass = |r: &Axis, c: &Axis| Pass::new(s.output(), s.input(), s.groups, r.clone(), c.clone(), options);
        let all = |rows: &[Axis], cols: &[Axis]| -> Vec<Pass> {
            rows.iter().flat_map(|r| cols.iter().map(move |c| pass(r, c))).collect()
        };
        let mut passes = all(&rows, &cols);
        if share_copies(&passes) {
            Axis::join(&mut rows);
            Axis::join(&mut cols);
            passes = all(&rows, &cols);
            share(&mut passes);
        }
        Ok(BackwardData { isa: isa.require()?, shape: *shape, kind: Kind::Direct(passes) })
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The shape.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// The kernel chosen, for people to read: algorithm, instruction set, pixels × channels of the register tile.
    pub fn kernel(&self) -> String {
        match &self.kind {
            Kind::Direct(passes) => passes[0].kernel(self.isa),
            Kind::Winograd(winograd) => winograd.kernel(self.isa),
        }
    }

    /// The Winograd variant, `None` if the algorithm is the direct one: what packed weights are packed for.
    pub fn variant(&self) -> Option<Variant> {
        match &self.kind {
            Kind::Direct(_) => None,
            Kind::Winograd(winograd) => Some(winograd.variant),
        }
    }

    /// Elements of the packed weights.
    pub fn packed_len(&self) -> usize {
        match &self.kind {
            Kind::Direct(passes) => passes.iter().map(Pass::packed_len).sum(),
            Kind::Winograd(winograd) => winograd.packed_len(),
        }
    }

    /// Elements of the workspace with that many threads; with less than [`BackwardData::run`] finds, it uses fewer.
    pub fn workspace_len(&self, threads: usize) -> usize {
        let threads = task::counted(threads);
        match &self.kind {
            Kind::Direct(passes) => passes.iter().map(|p| p.workspace_len(threads)).max().unwrap_or(0),
            Kind::Winograd(winograd) => winograd.workspace_len(threads),
        }
    }

    /// Lays out OIHW weights for [`BackwardData::run`].
    ///
    /// # Errors
    /// A length that does not fit.
    pub fn pack(&self, weights: &[f32], packed: &mut [f32]) -> Result<(), Error> {
        let s = &self.shape;
        check_len("weights", weights.len(), s.weight_len())?;
        check_len("packed weights", packed.len(), self.packed_len())?;
        let (icg, ocg) = (s.group_ic(), s.group_oc());
        let from = Oihw::backward(weights, icg, [s.kh, s.kw]);
        match &self.kind {
            Kind::Direct(passes) if passes.iter().any(|pass| pass.by_lanes.is_some()) => {
                let mut rest = packed;
                for pass in passes {
                    let (packed, after) = rest.split_at_mut(pass.packed_len());
                    pass.pack_lanes(packed, |i, o, kh, kw| weights[s.weight_at(i / icg * ocg + o, i % icg, kh, kw)]);
                    rest = after;
                }
            }
            Kind::Direct(passes) => pack(passes, self.isa, packed, &from),
            Kind::Winograd(winograd) => winograd.pack(self.isa, packed, &from, true),
        }
        Ok(())
    }

    /// Computes `dx` (blocked as [`ConvShape::input`]) from `dy` (as [`ConvShape::output`]) on the current rayon pool.
    ///
    /// # Errors
    /// A length that does not fit.
    pub fn run(&self, dy: &[f32], packed: &[f32], dx: &mut [f32], workspace: &mut [f32]) -> Result<(), Error> {
        let s = &self.shape;
        check_len("dy", dy.len(), s.output().blocked_len())?;
        check_len("packed weights", packed.len(), self.packed_len())?;
        check_len("dx", dx.len(), s.input().blocked_len())?;
        check_at_least("workspace", workspace.len(), self.workspace_len(1))?;
        match &self.kind {
            Kind::Direct(passes) => {
                let mut rest = packed;
                for passes in passes.chunks(if share_copies(passes) { passes.len() } else { 1 }) {
                    let (packed, after) = rest.split_at(passes.iter().map(Pass::packed_len).sum());
                    passes[0].run_with(&passes[1..], self.isa, Call::plain(dy, packed, dx), workspace);
                    rest = after;
                }
            }
            Kind::Winograd(winograd) => winograd.run(self.isa, Call::plain(dy, packed, dx), workspace),
        }
        Ok(())
    }
}
