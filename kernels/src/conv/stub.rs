//! Plans that run the naive reference.
use super::{Epilogue, Options};
use crate::error::check_len;
use crate::{ConvShape, Dims, Error, Isa, LANES, blocks, reference};

fn at(d: &Dims, n: usize, c: usize, p: usize) -> usize {
    ((n * blocks(d.c) + c / LANES) * d.plane() + p) * LANES + c % LANES
}
fn plain(d: &Dims, x: &[f32]) -> Vec<f32> {
    let mut y = Vec::with_capacity(d.plain_len());
    for n in 0..d.n {
        for c in 0..d.c {
            y.extend((0..d.plane()).map(|p| x[at(d, n, c, p)]));
        }
    }
    y
}
fn block(d: &Dims, x: &[f32], y: &mut [f32]) {
    y.fill(0.0);
    for n in 0..d.n {
        for c in 0..d.c {
            for p in 0..d.plane() {
                y[at(d, n, c, p)] = x[(n * d.c + c) * d.plane() + p];
            }
        }
    }
}
macro_rules! plan {
    ($name:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Debug, Clone)]
        pub struct $name {
            isa: Isa,
            shape: ConvShape,
        }
        impl $name {
            /// Plans the shape.
            ///
            /// # Errors
            /// A shape that cannot be served, an instruction set that the processor lacks.
            pub fn new(isa: Isa, shape: &ConvShape, _options: &Options) -> Result<Self, Error> {
                shape.check()?;
                Ok(Self { isa: isa.require()?, shape: *shape })
            }
            /// Elements of the packed weights.
            pub fn packed_len(&self) -> usize {
                self.shape.weight_len()
            }
            /// Lays out OIHW weights for `run`.
            ///
            /// # Errors
            /// A length that does not fit.
            pub fn pack(&self, w: &[f32], packed: &mut [f32]) -> Result<(), Error> {
                check_len("weights", w.len(), self.shape.weight_len())?;
                check_len("packed weights", packed.len(), self.packed_len())?;
                packed.copy_from_slice(w);
                Ok(())
            }
            /// Elements of the workspace with that many threads.
            pub fn workspace_len(&self, threads: usize) -> usize {
                threads
            }
            /// The kernel's name.
            pub fn kernel(&self) -> String {
                "reference".into()
            }
            /// The instruction set.
            pub fn isa(&self) -> Isa {
                self.isa
            }
        }
    };
}
plan!(Forward, "Forward convolution.");
plan!(BackwardData, "Gradient with respect to the input.");
plan!(BackwardWeights, "Gradient with respect to the weights.");

impl Forward {
    /// `y = epilogue(conv(x, w))`, blocked in and out.
    ///
    /// # Errors
    /// A length that does not fit.
    pub fn run(
        &self,
        x: &[f32],
        packed: &[f32],
        epilogue: Epilogue<'_>,
        y: &mut [f32],
        _workspace: &mut [f32],
    ) -> Result<(), Error> {
        let (s, d) = (&self.shape, self.shape.output());
        check_len("x", x.len(), s.input().blocked_len())?;
        check_len("y", y.len(), d.blocked_len())?;
        let mut out = reference::conv::forward(s, &plain(&s.input(), x), packed)?;
        let channel = |i: usize| i / d.plane() % d.c;
        let (bias, slopes, pre) = match epilogue {
            Epilogue::None => (None, None, None),
            Epilogue::Bias(b) => (Some(b), None, None),
            Epilogue::BiasPrelu { bias, slopes } => (Some(bias), Some(slopes), None),
            Epilogue::BiasPreluKeep { bias, slopes, pre } => (Some(bias), Some(slopes), Some(pre)),
        };
        if let Some(b) = bias {
            check_len("bias", b.len(), d.c)?;
            out.iter_mut().enumerate().for_each(|(i, v)| *v += b[channel(i)]);
        }
        if let Some(pre) = pre {
            check_len("pre-activation", pre.len(), d.blocked_len())?;
            block(&d, &out, pre);
        }
        if let Some(a) = slopes {
            for (i, v) in out.iter_mut().enumerate() {
                *v = if *v > 0.0 { *v } else { a[if a.len() == 1 { 0 } else { channel(i) }] * *v };
            }
        }
        block(&d, &out, y);
        Ok(())
    }
}
impl BackwardData {
    /// `dx` from `dy`, blocked in and out.
    ///
    /// # Errors
    /// A length that does not fit.
    pub fn run(&self, dy: &[f32], packed: &[f32], dx: &mut [f32], _workspace: &mut [f32]) -> Result<(), Error> {
        let s = &self.shape;
        check_len("dy", dy.len(), s.output().blocked_len())?;
        check_len("dx", dx.len(), s.input().blocked_len())?;
        block(&s.input(), &reference::conv::backward_data(s, &plain(&s.output(), dy), packed)?, dx);
        Ok(())
    }
}
impl BackwardWeights {
    /// `dw` (OIHW) from blocked `x` and `dy`.
    ///
    /// # Errors
    /// A length that does not fit.
    pub fn run(&self, x: &[f32], dy: &[f32], dw: &mut [f32], _workspace: &mut [f32]) -> Result<(), Error> {
        let s = &self.shape;
        check_len("x", x.len(), s.input().blocked_len())?;
        check_len("dy", dy.len(), s.output().blocked_len())?;
        check_len("dw", dw.len(), s.weight_len())?;
        dw.copy_from_slice(&reference::conv::backward_weights(s, &plain(&s.input(), x), &plain(&s.output(), dy))?);
        Ok(())
    }
}
