//! The keys of a descriptor as they stand, and what follows from them.

use super::{MOST, ProblemError};
use rectify_kernels::ConvShape;

/// Every key; `n`, the name, comes after all of them.
const KEYS: [&str; 22] = [
    "g", "mb", "ic", "id", "ih", "iw", "oc", "od", "oh", "ow", "kd", "kh", "kw", "sd", "sh", "sw", "pd", "ph", "pw",
    "dd", "dh", "dw",
];

/// The numbers of a descriptor, in the order of [`KEYS`].
#[derive(Default)]
pub(super) struct Keys([Option<usize>; KEYS.len()]);

/// One dimension of the image: what stands, by [`Keys`], and after `fill` all of it.
#[derive(Clone, Copy)]
struct Axis {
    name: &'static str,
    keys: [&'static str; 2],
    input: Option<i128>,
    output: Option<i128>,
    kernel: Option<i128>,
    stride: Option<i128>,
    pad: Option<i128>,
    dilation: Option<i128>,
}

/// A dimension in full.
struct Filled {
    input: usize,
    kernel: usize,
    stride: usize,
    before: usize,
    after: usize,
    dilation: usize,
}

impl Keys {
    /// Reads `key number` pairs and the name.
    pub(super) fn read(text: &str) -> Result<(Keys, String), ProblemError> {
        let mut keys = Keys::default();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('_') {
                rest = after;
            } else if let Some(name) = rest.strip_prefix('n') {
                return Ok((keys, unquote(name)?));
            } else {
                rest = keys.take(rest)?;
            }
        }
        Ok((keys, String::new()))
    }

    /// Takes one key with its number; returns what follows.
    fn take<'t>(&mut self, text: &'t str) -> Result<&'t str, ProblemError> {
        let at = KEYS
            .iter()
            .position(|k| text.starts_with(k))
            .ok_or_else(|| ProblemError::UnknownKey(text.chars().take(16).collect()))?;
        let after = &text[KEYS[at].len()..];
        let digits = &after[..after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len())];
        if digits.is_empty() {
            let unknown = after.starts_with(|c: char| c.is_ascii_alphabetic());
            let shown = text.chars().take(16).collect();
            return Err(if unknown {
                ProblemError::UnknownKey(shown)
            } else {
                ProblemError::NoNumber(KEYS[at].into())
            });
        }
        let value = digits
            .parse::<usize>()
            .ok()
            .filter(|&v| v <= MOST)
            .ok_or_else(|| ProblemError::Overflow { key: KEYS[at], value: digits.into() })?;
        if self.0[at].replace(value).is_some() {
            return Err(ProblemError::Twice(KEYS[at]));
        }
        Ok(&after[digits.len()..])
    }

    fn get(&self, key: &str) -> Option<usize> {
        KEYS.iter().position(|k| *k == key).and_then(|at| self.0[at])
    }

    /// A number that must stand and be at least 1.
    fn need(&self, key: &'static str, default: Option<usize>) -> Result<usize, ProblemError> {
        self.get(key).or(default).filter(|&v| v > 0).ok_or(ProblemError::Missing(key))
    }

    /// The dimension whose keys end in `letter`. Zero sizes count as missing, as in benchdnn.
    fn axis(&self, name: &'static str, keys: [&'static str; 2], letter: char) -> Axis {
        let get = |c: char| self.get(&format!("{c}{letter}")).map(|v| v as i128);
        let size = |c: char| get(c).filter(|&v| v > 0);
        Axis {
            name,
            keys,
            input: size('i'),
            output: size('o'),
            kernel: size('k'),
            stride: get('s'),
            pad: get('p'),
            dilation: get('d'),
        }
    }

    /// The whole shape, checked.
    pub(super) fn shape(&self) -> Result<ConvShape, ProblemError> {
        for (key, trivial) in
            [("id", None), ("od", None), ("kd", None), ("sd", Some(1)), ("pd", Some(0)), ("dd", Some(0))]
        {
            if let Some(value) = self.get(key).filter(|&v| Some(v) != trivial) {
                return Err(ProblemError::ThreeD { key, value });
            }
        }
        let (groups, n) = (self.need("g", Some(1))?, self.need("mb", Some(2))?);
        let (ic, oc) = (self.need("ic", None)?, self.need("oc", None)?);
        let h = self.axis("height", ["ih", "kh"], 'h');
        let w = self.axis("width", ["iw", "kw"], 'w');
        let (h, w) = if h.is_absent() { (Axis::POINT.fill()?, w.fill()?) } else { (h.fill()?, w.like(&h).fill()?) };
        let shape = ConvShape {
            n,
            groups,
            ic,
            ih: h.input,
            iw: w.input,
            oc,
            kh: h.kernel,
            kw: w.kernel,
            stride_h: h.stride,
            stride_w: w.stride,
            pad_top: h.before,
            pad_bottom: h.after,
            pad_left: w.before,
            pad_right: w.after,
            dilation_h: h.dilation,
            dilation_w: w.dilation,
        };
        shape.check()?;
        Ok(shape)
    }
}

impl Axis {
    /// The height of a 1-D problem.
    const POINT: Axis = Axis {
        name: "height",
        keys: ["ih", "kh"],
        input: Some(1),
        output: Some(1),
        kernel: Some(1),
        stride: Some(1),
        pad: Some(0),
        dilation: Some(0),
    };

    /// Whether nothing is said about this dimension.
    fn is_absent(&self) -> bool {
        (self.input, self.output, self.kernel) == (None, None, None)
            && self.stride.unwrap_or(1) == 1
            && self.pad.unwrap_or(0) == 0
            && self.dilation.unwrap_or(0) == 0
    }

    /// The width with what is missing taken from the height. The output is taken only where nothing differs, and the
    /// padding only where it is not to be derived from an output of its own.
    fn like(self, h: &Axis) -> Axis {
        let mut w = self;
        w.input = w.input.or(h.input);
        w.kernel = w.kernel.or(h.kernel);
        w.stride = w.stride.or(h.stride);
        w.dilation = w.dilation.or(h.dilation);
        w.pad = w.pad.or(h.pad);
        let same = (w.input, w.kernel, w.stride, w.dilation, w.pad) == (h.input, h.kernel, h.stride, h.dilation, h.pad);
        if same {
            w.output = w.output.or(h.output);
        }
        w
    }

    /// Derives the output or the padding, and the padding behind.
    fn fill(self) -> Result<Filled, ProblemError> {
        let input = self.input.ok_or(ProblemError::Missing(self.keys[0]))?;
        let kernel = self.kernel.ok_or(ProblemError::Missing(self.keys[1]))?;
        let (stride, dilation) = (self.stride.unwrap_or(1), self.dilation.unwrap_or(0));
        if stride == 0 {
            return Err(ProblemError::Missing(if self.name == "height" { "sh" } else { "sw" }));
        }
        let extent = (kernel - 1) * (dilation + 1) + 1;
        // What the windows of `o` outputs cover beyond the input: the padding of both sides together.
        let needed = |o: i128| (o - 1) * stride + extent - input;
        let pad = self.pad.unwrap_or_else(|| self.output.map_or(0, |o| needed(o) / 2));
        let output = self.output.unwrap_or_else(|| (input + 2 * pad - extent).div_euclid(stride) + 1);
        let misfit = || ProblemError::Inconsistent {
            axis: self.name,
            output: output.max(0),
            input,
            kernel,
            stride,
            pad,
            dilation,
        };
        let after = needed(output.max(1)) - pad;
        // Behind, up to stride − 1 input pixels may stay unread; a window wholly in padding that nobody asked for may
        // not be.
        let unread = after < 0 && -after >= stride;
        let empty = after >= extent && after > pad;
        if output < 1 || pad < 0 || unread || empty {
            return Err(misfit());
        }
        let number = |v: i128| usize::try_from(v).map_err(|_| misfit());
        Ok(Filled {
            input: number(input)?,
            kernel: number(kernel)?,
            stride: number(stride)?,
            before: number(pad)?,
            after: number(after.max(0))?,
            dilation: number(dilation + 1)?,
        })
    }
}

/// A name, with or without its quotes.
fn unquote(name: &str) -> Result<String, ProblemError> {
    match name.strip_prefix('"') {
        None => Ok(name.to_owned()),
        Some(inner) => inner.strip_suffix('"').map(str::to_owned).ok_or_else(|| ProblemError::Quote(name.to_owned())),
    }
}
