//! Small convolutions in all three directions, by every algorithm, on every instruction set of the machine, by up to
//! three threads, with whole and with forced tiny blocks, from and to either layout, with each epilogue: the bits are
//! those of the naive loops.
#![no_main]

mod common;

use arbitrary::Arbitrary;
use common::{blocked, plain, pool, same};
use libfuzzer_sys::fuzz_target;
use rectify_kernels::conv::{Algorithm, BackwardData, BackwardWeights, Blocking, Epilogue, Forward, Layout, Options};
use rectify_kernels::{Buffer, ConvShape, Dims, Error, Isa, reference};

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
    threads: u8,
    epilogue: u8,
    padded: bool,
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
            kh: 1 + fold(self.kernel[0], 7),
            kw: 1 + fold(self.kernel[1], 7),
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

    fn numbers(&self, stream: u32, len: usize) -> Vec<f32> {
        common::numbers(self.seed, &self.specials, stream, len)
    }
}

/// A convolution, its tensors, and how its plans are made and run.
struct Case<'a> {
    s: ConvShape,
    draw: &'a Draw,
    options: Options,
    pool: &'static rayon::ThreadPool,
    x: Vec<f32>,
    w: Vec<f32>,
    dy: Vec<f32>,
}

impl Case<'_> {
    fn workspace(&self, len: impl Fn(usize) -> usize) -> Buffer {
        Buffer::from_slice(&vec![f32::NAN; len(self.pool.current_num_threads())])
    }

    fn layout(nchw: bool) -> Layout {
        if nchw { Layout::Nchw } else { Layout::Blocked }
    }

    /// A tensor as it lies.
    fn laid(layout: Layout, dims: Dims, x: &[f32]) -> Result<Buffer, Error> {
        if layout == Layout::Nchw { Ok(Buffer::from_slice(x)) } else { blocked(dims, x) }
    }

    /// The same back.
    fn read(layout: Layout, dims: Dims, y: &[f32]) -> Result<Vec<f32>, Error> {
        if layout == Layout::Nchw { Ok(y.to_vec()) } else { plain(dims, y) }
    }

    fn forward(&self) -> Result<(), Error> {
        let Case { s, draw, .. } = self;
        let [input, output] = draw.nchw.map(Case::layout);
        let options = Options { input, output, ..self.options };
        let Ok(variant) = options.algorithm.variant_from(s, input) else {
            assert!(Forward::new(Isa::Portable, s, &options).is_err());
            return Ok(());
        };
        let pads = if draw.padded { draw.numbers(3, s.ic) } else { vec![0.0; s.ic] };
        let plain = match variant {
            None => reference::conv::forward_padded(s, &self.x, &self.w, &pads)?,
            Some(variant) => reference::winograd::forward(variant, s, &self.x, &self.w, &pads)?,
        };
        let d = s.output();
        let [bias, slopes] = [4, 5].map(|stream| draw.numbers(stream, s.oc));
        let shortcut = draw.numbers(6, d.plain_len());
        let channel = |i: usize| i / d.plane() % d.c;
        let sums: Vec<f32> = plain.iter().enumerate().map(|(i, y)| y + bias[channel(i)]).collect();
        let prelu = |(i, &v): (usize, &f32)| if v > 0.0 { v } else { slopes[channel(i)] * v };
        let kind = draw.epilogue % 5;
        let want = match kind {
            0 => plain,
            1 => sums.clone(),
            2 => sums.iter().zip(&shortcut).map(|(v, s)| v + s).collect(),
            _ => sums.iter().enumerate().map(prelu).collect(),
        };
        let (x, shortcut) = (Case::laid(input, s.input(), &self.x)?, Case::laid(output, d, &shortcut)?);
        for isa in Isa::available() {
            let plan = Forward::new(isa, s, &options)?;
            assert_eq!(plan.variant(), variant);
            let mut packed = Buffer::from_slice(&vec![f32::NAN; plan.packed_len()]);
            match draw.padded {
                true => plan.pack_padded(&self.w, &pads, &mut packed)?,
                false => plan.pack(&self.w, &mut packed)?,
            }
            let [mut y, mut pre] = [(); 2].map(|()| Buffer::from_slice(&vec![f32::NAN; output.len(&d)]));
            let (bias, slopes) = (&bias[..], &slopes[..]);
            let epilogue = match kind {
                0 => Epilogue::None,
                1 => Epilogue::Bias(bias),
                2 => Epilogue::BiasAdd { bias, shortcut: &shortcut },
                3 => Epilogue::BiasPrelu { bias, slopes },
                _ => Epilogue::BiasPreluKeep { bias, slopes, pre: &mut pre },
            };
            let mut workspace = self.workspace(|threads| plan.workspace_len(threads));
            self.pool.install(|| plan.run(&x, &packed, epilogue, &mut y, &mut workspace))?;
            same("forward", isa, &Case::read(output, d, &y)?, &want);
            if kind == 4 {
                same("pre-activation", isa, &Case::read(output, d, &pre)?, &sums);
            }
        }
        Ok(())
    }

    fn backward_data(&self) -> Result<(), Error> {
        let Case { s, options, .. } = self;
        let Ok(variant) = options.algorithm.data_variant(s) else {
            assert!(BackwardData::new(Isa::Portable, s, options).is_err());
            return Ok(());
        };
        let want = match variant {
            None => reference::conv::backward_data(s, &self.dy, &self.w)?,
            Some(variant) => reference::winograd::backward_data(variant, s, &self.dy, &self.w)?,
        };
        let dy = blocked(s.output(), &self.dy)?;
        for isa in Isa::available() {
            let plan = BackwardData::new(isa, s, options)?;
            assert_eq!(plan.variant(), variant);
            let mut packed = Buffer::from_slice(&vec![f32::NAN; plan.packed_len()]);
            plan.pack(&self.w, &mut packed)?;
            let mut dx = Buffer::from_slice(&vec![f32::NAN; s.input().blocked_len()]);
            let mut workspace = self.workspace(|threads| plan.workspace_len(threads));
            self.pool.install(|| plan.run(&dy, &packed, &mut dx, &mut workspace))?;
            same("backward-data", isa, &plain(s.input(), &dx)?, &want);
        }
        Ok(())
    }

    fn backward_weights(&self) -> Result<(), Error> {
        let Case { s, draw, .. } = self;
        // NCHW is for few channels; with stride 1 it is not for Winograd.
        let asked = self.options.algorithm;
        let serves = s.has_few_channels()
            && (matches!(asked, Algorithm::Auto | Algorithm::Direct) || (s.stride_h, s.stride_w) != (1, 1));
        let input = Case::layout(draw.nchw[0] && serves);
        let options = Options { input, ..self.options };
        let Ok(variant) = asked.weights_variant(s) else {
            assert!(BackwardWeights::new(Isa::Portable, s, &options).is_err());
            return Ok(());
        };
        // Where the lanes are not channels, only a stride's phases are brought together.
        let variant = variant.filter(|v| input == Layout::Blocked || v.stride() > 1);
        let want = match variant {
            None => reference::conv::backward_weights(s, &self.x, &self.dy)?,
            Some(variant) => reference::winograd::backward_weights(variant, s, &self.x, &self.dy)?,
        };
        let (x, dy) = (Case::laid(input, s.input(), &self.x)?, blocked(s.output(), &self.dy)?);
        for isa in Isa::available() {
            let plan = BackwardWeights::new(isa, s, &options)?;
            assert_eq!(plan.variant(), variant);
            let mut dw = vec![f32::NAN; s.weight_len()];
            let mut workspace = self.workspace(|threads| plan.workspace_len(threads));
            self.pool.install(|| plan.run(&x, &dy, &mut dw, &mut workspace))?;
            same("backward-weights", isa, &dw, &want);
        }
        Ok(())
    }
}

fn check(draw: &Draw) -> Result<(), Error> {
    let s = draw.shape();
    let Some(pool) = pool(draw.threads) else { return Ok(()) };
    if s.check().is_err() || s.flops() > 4e6 {
        return Ok(());
    }
    let algorithm = Algorithm::ALL[usize::from(draw.algorithm) % Algorithm::ALL.len()];
    let blocking = draw
        .blocking
        .map(|[rows, vectors]| Blocking { rows: 1 + rows as usize % 5, vectors: 1 + vectors as usize % 4 });
    let options = Options { algorithm, blocking, ..Options::default() };
    let (x, w) = (draw.numbers(0, s.input().plain_len()), draw.numbers(1, s.weight_len()));
    let dy = draw.numbers(2, s.output().plain_len());
    let case = Case { s, draw, options, pool, x, w, dy };
    case.forward()?;
    case.backward_data()?;
    case.backward_weights()
}

fuzz_target!(|draw: Draw| {
    if let Err(error) = check(&draw) {
        panic!("{:?}: {error}", draw.shape());
    }
});
