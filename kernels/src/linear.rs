//! Fully connected layers: convolutions of a one-pixel image whose channels are the blocked input tensor, flattened.
//!
//! `[n][c/16][h][w][16]` is `[n][(c/16)·h·w][1][1][16]` too: what is one pixel with that many blocks of channels. The
//! sums run in the blocked order (block, row, column, lane), chunked as in [`crate::reference::conv`]. Plain weights
//! are `[outputs][c·h·w]`, the order of a linear layer behind a flattened NCHW tensor; packing permutes them.

use crate::conv::{self, Epilogue, Options};
use crate::error::check_len;
use crate::{ConvShape, Dims, Error, Isa, LANES, blocks};

/// A fully connected layer from blocked `n × c × h × w` to blocked `n × outputs × 1 × 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinearShape {
    /// Images.
    pub n: usize,
    /// Input channels.
    pub c: usize,
    /// Input rows.
    pub h: usize,
    /// Input columns.
    pub w: usize,
    /// Outputs.
    pub outputs: usize,
}

impl LinearShape {
    /// The input tensor.
    pub fn input(&self) -> Dims {
        Dims { n: self.n, c: self.c, h: self.h, w: self.w }
    }
    /// The output tensor.
    pub fn output(&self) -> Dims {
        Dims { n: self.n, c: self.outputs, h: 1, w: 1 }
    }
    /// Elements of the plain weights.
    pub fn weight_len(&self) -> usize {
        self.outputs * self.c * self.h * self.w
    }
    /// The convolution that computes it.
    ///
    /// # Errors
    /// A zero dimension, lengths that no slice can hold.
    pub fn conv(&self) -> Result<ConvShape, Error> {
        let channels = crate::shape::product("inputs", &[blocks(self.c), self.h, self.w, LANES])?;
        let shape = ConvShape::square(self.n, channels, 1, self.outputs, 1, 1, 0);
        shape.check().map(|()| shape)
    }
    /// Calls `f(plain index, blocked index)` for each of one output's weights.
    fn permutation(&self, mut f: impl FnMut(usize, usize)) {
        let plane = self.h * self.w;
        for c in 0..self.c {
            for p in 0..plane {
                f(c * plane + p, (c / LANES * plane + p) * LANES + c % LANES);
            }
        }
    }
    fn inputs(&self) -> usize {
        blocks(self.c) * LANES * self.h * self.w
    }
    fn to_conv(self, w: &[f32]) -> Result<Vec<f32>, Error> {
        check_len("weights", w.len(), self.weight_len())?;
        let mut out = vec![0.0; self.outputs * self.inputs()];
        for (plain, blocked) in w.chunks(self.c * self.h * self.w).zip(out.chunks_mut(self.inputs())) {
            self.permutation(|i, j| blocked[j] = plain[i]);
        }
        Ok(out)
    }
}

/// Forward: `y = epilogue(W·x)`.
#[derive(Debug, Clone)]
pub struct Forward {
    shape: LinearShape,
    plan: conv::Forward,
}

/// Gradient with respect to the input: `dx = Wᵀ·dy`.
#[derive(Debug, Clone)]
pub struct BackwardData {
    shape: LinearShape,
    plan: conv::BackwardData,
}

/// Gradient with respect to the weights: `dW = Σₙ dy·xᵀ`.
#[derive(Debug, Clone)]
pub struct BackwardWeights {
    shape: LinearShape,
    plan: conv::BackwardWeights,
}

macro_rules! common {
    ($name:ident) => {
        impl $name {
            /// Plans the shape.
            ///
            /// # Errors
            /// A shape that cannot be served, an instruction set that the processor lacks.
            pub fn new(isa: Isa, shape: &LinearShape) -> Result<Self, Error> {
                let plan = conv::$name::new(isa, &shape.conv()?, &Options::default())?;
                Ok($name { shape: *shape, plan })
            }
            /// The shape it was made for.
            pub fn shape(&self) -> &LinearShape {
                &self.shape
            }
            /// The kernel chosen, for people to read.
            pub fn kernel(&self) -> String {
                self.plan.kernel()
            }
        }
    };
}
common!(Forward);
common!(BackwardData);
common!(BackwardWeights);

macro_rules! packed {
    ($name:ident) => {
        impl $name {
            /// Elements of the packed weights.
            pub fn packed_len(&self) -> usize {
                self.plan.packed_len()
            }
            /// Elements of the workspace with that many threads.
            pub fn workspace_len(&self, threads: usize) -> usize {
                self.plan.workspace_len(threads)
            }
            /// Lays out `[outputs][c·h·w]` weights for `run`.
            ///
            /// # Errors
            /// A length that does not fit.
            pub fn pack(&self, w: &[f32], packed: &mut [f32]) -> Result<(), Error> {
                self.plan.pack(&self.shape.to_conv(w)?, packed)
            }
        }
    };
}
packed!(Forward);
packed!(BackwardData);

impl Forward {
    /// Computes `y` (blocked, `n × outputs × 1 × 1`) from `x` (blocked, `n × c × h × w`).
    ///
    /// # Errors
    /// A length that does not fit.
    pub fn run(
        &self,
        x: &[f32],
        packed: &[f32],
        e: Epilogue<'_>,
        y: &mut [f32],
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        self.plan.run(x, packed, e, y, workspace)
    }
}

impl BackwardData {
    /// Computes `dx` (blocked like the input) from `dy` (blocked like the output).
    ///
    /// # Errors
    /// A length that does not fit.
    pub fn run(&self, dy: &[f32], packed: &[f32], dx: &mut [f32], workspace: &mut [f32]) -> Result<(), Error> {
        self.plan.run(dy, packed, dx, workspace)
    }
}

impl BackwardWeights {
    /// Elements of the workspace with that many threads.
    pub fn workspace_len(&self, threads: usize) -> usize {
        self.plan.workspace_len(threads) + self.shape.outputs * self.shape.inputs()
    }
    /// Computes `dw`, `[outputs][c·h·w]`, from `x` and `dy`.
    ///
    /// # Errors
    /// A length that does not fit.
    pub fn run(&self, x: &[f32], dy: &[f32], dw: &mut [f32], workspace: &mut [f32]) -> Result<(), Error> {
        check_len("dw", dw.len(), self.shape.weight_len())?;
        crate::error::check_at_least("workspace", workspace.len(), self.workspace_len(1))?;
        let (blocked, rest) = workspace.split_at_mut(self.shape.outputs * self.shape.inputs());
        self.plan.run(x, dy, blocked, rest)?;
        let plain = self.shape.c * self.shape.h * self.shape.w;
        for (to, from) in dw.chunks_mut(plain).zip(blocked.chunks(self.shape.inputs())) {
            self.shape.permutation(|i, j| to[i] = from[j]);
        }
        Ok(())
    }
}
