//! The gradient with respect to the input: the forward pass on rotated weights.

use super::Options;
use super::axis::Axis;
use super::pass::Pass;
use super::run::Call;
use crate::error::{check_at_least, check_len};
use crate::{ConvShape, Error, Isa};

/// A plan of the gradient with respect to the input (He et al. 2015, Eq. 13).
#[derive(Debug, Clone)]
pub struct BackwardData {
    isa: Isa,
    shape: ConvShape,
    /// One for each residue class of the input pixels modulo the strides.
    passes: Vec<Pass>,
}

impl BackwardData {
    /// Plans the shape (that of the forward convolution).
    ///
    /// # Errors
    /// A shape that cannot be served, an instruction set that the processor lacks.
    pub fn new(isa: Isa, shape: &ConvShape, options: &Options) -> Result<BackwardData, Error> {
        shape.check()?;
        let s = shape;
        let rows = Axis::backward(s.ih, s.oh(), s.kh, s.stride_h, s.dilation_h, s.pad_top);
        let cols = Axis::backward(s.iw, s.ow(), s.kw, s.stride_w, s.dilation_w, s.pad_left);
        let pass = |r: &Axis, c: &Axis| Pass::new(s.output(), s.input(), s.groups, r.clone(), c.clone(), options);
        let passes = rows.iter().flat_map(|r| cols.iter().map(move |c| pass(r, c))).collect();
        Ok(BackwardData { isa: isa.require()?, shape: *shape, passes })
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
        self.passes[0].kernel(self.isa)
    }

    /// Elements of the packed weights.
    pub fn packed_len(&self) -> usize {
        self.passes.iter().map(Pass::packed_len).sum()
    }

    /// Elements of the workspace with that many threads; with less than [`BackwardData::run`] finds, it uses fewer.
    pub fn workspace_len(&self, threads: usize) -> usize {
        self.passes.iter().map(|p| p.workspace_len(threads)).max().unwrap_or(0)
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
        let mut rest = packed;
        for pass in &self.passes {
            let (packed, after) = rest.split_at_mut(pass.packed_len());
            pass.pack(packed, |group, i, o, kh, kw| match pass.depthwise {
                true => weights[(group * s.kh + kh) * s.kw + kw],
                false => weights[(((group * ocg + o) * icg + i) * s.kh + kh) * s.kw + kw],
            });
            rest = after;
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
        let mut rest = packed;
        for pass in &self.passes {
            let (packed, after) = rest.split_at(pass.packed_len());
            let call = Call { x: dy, packed, pads: &[], y: dx, bias: None, slopes: None, shortcut: None, pre: None };
            pass.run(self.isa, call, workspace);
            rest = after;
        }
        Ok(())
    }
}
