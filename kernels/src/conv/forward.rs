//! The forward convolution.

use super::axis::Axis;
use super::pack::{Oihw, pack};
use super::pass::Pass;
use super::run::Call;
use super::winograd::Winograd;
use super::{Epilogue, Layout, Options, Parts};
use crate::error::{check_at_least, check_len};
use crate::reference::winograd::Variant;
use crate::{ConvShape, Error, Isa, LANES, blocks, task};

/// A plan of the forward convolution with a fused epilogue (He et al. 2015, Eq. 1 and 5).
///
/// ```
/// use rectify_kernels::{Buffer, ConvShape, Isa, conv::{Epilogue, Forward, Options}};
/// let shape = ConvShape::square(1, 16, 8, 32, 3, 1, 1);
/// let plan = Forward::new(Isa::best()?, &shape, &Options::default())?;
/// let mut packed = Buffer::zeroed(plan.packed_len());
/// plan.pack(&vec![0.125; shape.weight_len()], &mut packed)?;
/// let x = Buffer::from_slice(&vec![1.0; shape.input().blocked_len()]);
/// let mut y = Buffer::zeroed(shape.output().blocked_len());
/// let mut workspace = Buffer::zeroed(plan.workspace_len(rayon::current_num_threads()));
/// let epilogue = Epilogue::BiasPrelu { bias: &[-10.0; 32], slopes: &[0.25] };
/// plan.run(&x, &packed, epilogue, &mut y, &mut workspace)?;
/// assert!((y[0] - (16.0 * 4.0 * 0.125 - 10.0) * 0.25).abs() < 1e-4);
/// # Ok::<(), rectify_kernels::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Forward {
    isa: Isa,
    shape: ConvShape,
    input: Layout,
    output: Layout,
    kind: Kind,
}

/// The algorithm's own plan.
#[derive(Debug, Clone)]
enum Kind {
    Direct(Box<Pass>),
    Winograd(Winograd),
}

impl Forward {
    /// Plans the shape.
    ///
    /// # Errors
    /// A shape that cannot be served, an instruction set that the processor lacks.
    pub fn new(isa: Isa, shape: &ConvShape, options: &Options) -> Result<Forward, Error> {
        shape.check()?;
        let s = shape;
        let kind = match options.algorithm.variant_from(s, options.input)? {
            Some(variant) => Kind::Winograd(Winograd::new(variant, s, options)),
            None => {
                let rows = Axis::forward(s.ih, s.oh(), s.kh, s.stride_h, s.dilation_h, s.pad_top);
                let cols = Axis::forward(s.iw, s.ow(), s.kw, s.stride_w, s.dilation_w, s.pad_left);
                Kind::Direct(Box::new(Pass::new(s.input(), s.output(), s.groups, rows, cols, options)))
            }
        };
        Ok(Forward { isa: isa.require()?, shape: *s, input: options.input, output: options.output, kind })
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
            Kind::Direct(pass) => pass.kernel(self.isa),
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

    /// Elements of the packed weights, with the values of the padding behind them. Their layout depends on the weights'
    /// shape, the groups and [`Forward::variant`] alone.
    pub fn packed_len(&self) -> usize {
        self.weights_len() + self.pads_len()
    }

    /// Elements of the packed weights alone.
    fn weights_len(&self) -> usize {
        match &self.kind {
            Kind::Direct(pass) => pass.packed_len(),
            Kind::Winograd(winograd) => winograd.packed_len(),
        }
    }

    /// Elements of the padding's values: one for each input channel, in whole blocks.
    fn pads_len(&self) -> usize {
        blocks(self.shape.ic) * LANES
    }

    /// Elements of the workspace with that many threads; with less than [`Forward::run`] finds, it uses fewer.
    pub fn workspace_len(&self, threads: usize) -> usize {
        let threads = task::counted(threads);
        match &self.kind {
            Kind::Direct(pass) => pass.workspace_len(threads),
            Kind::Winograd(winograd) => winograd.workspace_len(threads),
        }
    }

    /// Lays out OIHW weights for [`Forward::run`]; outside the image `run` will read zeros.
    ///
    /// # Errors
    /// A length that does not fit.
    pub fn pack(&self, weights: &[f32], packed: &mut [f32]) -> Result<(), Error> {
        self.pack_all(weights, &[], packed)
    }

    /// As [`Forward::pack`], but outside the image `run` will read `pads`, one value for each input channel.
    ///
    /// That is what it takes to fold an affine map of the input, `s·x + t` in each channel (a batch norm before a
    /// padded convolution), into weights and bias: the padding of the mapped input is zero where `x` is `−t/s`.
    ///
    /// # Errors
    /// A length that does not fit.
    pub fn pack_padded(&self, weights: &[f32], pads: &[f32], packed: &mut [f32]) -> Result<(), Error> {
        check_len("pads", pads.len(), self.shape.ic)?;
        self.pack_all(weights, pads, packed)
    }

    fn pack_all(&self, weights: &[f32], pads: &[f32], packed: &mut [f32]) -> Result<(), Error> {
        let s = &self.shape;
        check_len("weights", weights.len(), s.weight_len())?;
        check_len("packed weights", packed.len(), self.packed_len())?;
        let (packed, tail) = packed.split_at_mut(self.weights_len());
        tail.fill(0.0);
        tail[..pads.len()].copy_from_slice(pads);
        let from = Oihw::forward(weights, s.group_ic(), [s.kh, s.kw]);
        match &self.kind {
            Kind::Direct(pass) if pass.by_lanes.is_some() => {
                pass.pack_lanes(packed, |o, i, kh, kw| weights[s.weight_at(o, i, kh, kw)]);
            }
            Kind::Direct(pass) => pack(std::slice::from_ref(pass), self.isa, packed, &from),
            Kind::Winograd(winograd) => winograd.pack(self.isa, packed, &from, false),
        }
        Ok(())
    }

    /// Computes `y` from `x` ([`ConvShape::input`], [`ConvShape::output`], as [`Options::input`] and
    /// [`Options::output`] say), on the current rayon pool. The workspace may hold anything.
    ///
    /// # Errors
    /// A length that does not fit.
    pub fn run(
        &self,
        x: &[f32],
        packed: &[f32],
        epilogue: Epilogue<'_>,
        y: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let s = &self.shape;
        check_len("x", x.len(), self.input.len(&s.input()))?;
        check_len("packed weights", packed.len(), self.packed_len())?;
        check_len("y", y.len(), self.output.len(&s.output()))?;
        check_at_least("workspace", workspace.len(), self.workspace_len(1))?;
        let Parts { bias, slopes, shortcut, pre } = epilogue.parts(s.oc, y.len())?;
        let (packed, pads) = packed.split_at(self.weights_len());
        let call = Call { x, packed, pads, y, bias, slopes, shortcut, pre };
        match &self.kind {
            Kind::Direct(pass) => pass.run(self.isa, call, workspace),
            Kind::Winograd(winograd) => winograd.run(self.isa, call, workspace),
        }
        Ok(())
    }
}
