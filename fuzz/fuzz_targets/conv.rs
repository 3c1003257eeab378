//! Small convolutions in all three directions, by every algorithm, on every instruction set of the machine, with whole
//! and with forced tiny blocks: the bits are those of the naive loops.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rectify_kernels::conv::{Algorithm, BackwardData, BackwardWeights, Blocking, Epilogue, Forward, Layout, Options};
use rectify_kernels::{Buffer, ConvShape, Dims, Error, Isa, layout, reference};

/// What the fuzzer draws; every number is folded into its range.
#[derive(Arbitrary, Debug)]
struct Draw {
    n: u8,
    groups: u8,
    channels: [u8; 2],
    image: [u8; 2],
    kernel: [u8; 2],
    stride: [u8; 2],
    pad: [u8; 4],
    dilation: [u8; 2],
    algorithm: u8,
    blocking: Option<[u8; 2]>,
    nchw: [bool; 2],
    seed: u32,
    specials: Vec<(u8, u16)>,
}

impl Draw {
    fn shape(&self) -> ConvShape {
        let fold = |x: u8, most: u8| usize::from(x % most);
        let groups = [1, 1, 1, 2, 3, 5, 17][fold(self.groups, 7)];
        // A group has any few channels, or as many as lanes or blocks are taken by.
        let channels = |x: u8| match groups {
            1 => 1 + fold(x, 70),
            2 | 3 => [1, 2, 3, 4, 8, 16, 32][fold(x, 7)],
            _ => [1, 2, 3, 4, 8][fold(x, 5)],
        };
        ConvShape {
            n: 1 + fold(self.n, 10),
            groups,
            ic: groups * channels(self.channels[0]),
            oc: groups * channels(self.channels[1]),
            ih: 1 + fold(self.image[0], 9),
            iw: 1 + fold(self.image[1], 20),
            kh: 1 + fold(self.kernel[0], 5),
            kw: 1 + fold(self.kernel[1], 5),
            stride_h: 1 + fold(self.stride[0], 4),
            stride_w: 1 + fold(self.stride[1], 4),
            pad_top: fold(self.pad[0], 5),
            pad_bottom: fold(self.pad[1], 5),
            pad_left: fold(self.pad[2], 5),
            pad_right: fold(self.pad[3], 5),
            dilation_h: 1 + fold(self.dilation[0], 3),
            dilation_w: 1 + fold(self.dilation[1], 3),
        }
    }

    /// Numbers of mixed sign and size, with some zeros and the drawn special values among them.
    fn numbers(&self, stream: u32, len: usize) -> Vec<f32> {
        const SPECIAL: [f32; 8] =
            [-0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MIN_POSITIVE, 1e-42, -1e-45, f32::MAX];
        let mut state = self.seed ^ stream.wrapping_mul(0x9e37_79b9);
        let mut x: Vec<f32> = (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect();
        for &(kind, at) in self.specials.iter().take(4).filter(|s| u32::from(s.0 >> 6) == stream) {
            x[usize::from(at) % len] = SPECIAL[usize::from(kind % 8)];
        }
        x
    }
}

fn blocked(dims: Dims, x: &[f32]) -> Result<Buffer, Error> {
    let mut y = Buffer::zeroed(dims.blocked_len());
    layout::nchw_to_blocked(Isa::Portable, dims, x, &mut y)?;
    Ok(y)
}

fn plain(dims: Dims, x: &[f32]) -> Result<Vec<f32>, Error> {
    let mut y = vec![0.0; dims.plain_len()];
    layout::blocked_to_nchw(Isa::Portable, dims, x, &mut y)?;
    Ok(y)
}

/// Equal bits; any NaN equals any other, since their payloads are not defined.
fn same(what: &str, isa: Isa, got: &[f32], want: &[f32]) {
    for (i, (a, b)) in got.iter().zip(want).enumerate() {
        assert!(a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()), "{what} on {isa}: [{i}] {a:e}, not {b:e}");
    }
    assert_eq!(got.len(), want.len(), "{what} on {isa}");
}

fn check(draw: &Draw) -> Result<(), Error> {
    let s = draw.shape();
    if s.check().is_err() || s.flops() > 4e6 {
        return Ok(());
    }
    let (x, w) = (draw.numbers(0, s.input().plain_len()), draw.numbers(1, s.weight_len()));
    let dy = draw.numbers(2, s.output().plain_len());
    let algorithm = Algorithm::ALL[usize::from(draw.algorithm) % Algorithm::ALL.len()];
    let Ok(variant) = algorithm.variant(&s) else { return Ok(()) };
    let y = match variant {
        None => reference::conv::forward(&s, &x, &w)?,
        Some(variant) => reference::winograd::forward(variant, &s, &x, &w, &vec![0.0; s.ic])?,
    };
    // Of kernels of 7×7 Winograd serves the gradient of few channels' weights.
    let gradient = if algorithm.weights_variant(&s).is_ok() { algorithm } else { Algorithm::Direct };
    let weights = gradient.weights_variant(&s)?;
    let dw = match weights {
        None => reference::conv::backward_weights(&s, &x, &dy)?,
        Some(variant) => reference::winograd::backward_weights(variant, &s, &x, &dy)?,
    };
    let (xb, dyb) = (blocked(s.input(), &x)?, blocked(s.output(), &dy)?);
    let blocking = draw
        .blocking
        .map(|[rows, vectors]| Blocking { rows: 1 + rows as usize % 5, vectors: 1 + vectors as usize % 4 });
    let options = Options { algorithm, blocking, ..Options::default() };
    let direct = Options { algorithm: Algorithm::Direct, ..options };
    for isa in Isa::available() {
        let [input, output] = draw.nchw.map(|nchw| if nchw { Layout::Nchw } else { Layout::Blocked });
        let plan = Forward::new(isa, &s, &Options { input, output, ..options })?;
        let mut packed = Buffer::zeroed(plan.packed_len());
        plan.pack(&w, &mut packed)?;
        let mut out = Buffer::from_slice(&vec![f32::NAN; output.len(&s.output())]);
        let from = if input == Layout::Nchw { &x[..] } else { &xb };
        plan.run(from, &packed, Epilogue::None, &mut out, &mut Buffer::zeroed(plan.workspace_len(1)))?;
        let out = if output == Layout::Nchw { out.to_vec() } else { plain(s.output(), &out)? };
        if plan.variant() == variant {
            same("forward", isa, &out, &y);
        } else {
            same("forward", isa, &out, &reference::conv::forward(&s, &x, &w)?);
        }

        // Winograd serves fewer gradients than outputs: where the padding is wider than the kernel reaches.
        let plan = BackwardData::new(isa, &s, &options).or_else(|_| BackwardData::new(isa, &s, &direct))?;
        let dx = match plan.variant() {
            None => reference::conv::backward_data(&s, &dy, &w)?,
            Some(variant) => reference::winograd::backward_data(variant, &s, &dy, &w)?,
        };
        let mut packed = Buffer::zeroed(plan.packed_len());
        plan.pack(&w, &mut packed)?;
        let mut out = Buffer::from_slice(&vec![f32::NAN; s.input().blocked_len()]);
        plan.run(&dyb, &packed, &mut out, &mut Buffer::zeroed(plan.workspace_len(1)))?;
        same("backward-data", isa, &plain(s.input(), &out)?, &dx);

        let plan = BackwardWeights::new(isa, &s, &Options { algorithm: gradient, ..options })?;
        assert_eq!(plan.variant(), weights);
        let mut out = vec![f32::NAN; s.weight_len()];
        plan.run(&xb, &dyb, &mut out, &mut Buffer::zeroed(plan.workspace_len(1)))?;
        same("backward-weights", isa, &out, &dw);
    }
    Ok(())
}

fuzz_target!(|draw: Draw| {
    if let Err(error) = check(&draw) {
        panic!("{:?}: {error}", draw.shape());
    }
});
