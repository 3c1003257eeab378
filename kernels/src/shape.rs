//! The shapes of blocked tensors and of convolutions.

use crate::Error;

/// Lanes of the virtual vector and channels of a block.
pub const LANES: usize = 16;

/// Elements a tensor may have at most: byte offsets stay within `isize`.
const MOST: usize = isize::MAX as usize / 8;

/// How many blocks of 16 hold `c` channels.
pub const fn blocks(c: usize) -> usize {
    c.div_ceil(LANES)
}

/// Multiplies dimensions, refusing what no slice can hold.
pub(crate) fn product(what: &'static str, factors: &[usize]) -> Result<usize, Error> {
    factors
        .iter()
        .try_fold(1usize, |a, &b| a.checked_mul(b).filter(|&p| p <= MOST))
        .ok_or_else(|| Error::Overflow { what, detail: format!("{factors:?}") })
}

/// The dimensions of a tensor: `n` images of `c` channels of `h` rows of `w` pixels.
///
/// Blocked (nChw16c) it is `[n][c/16][h][w][16]` with the channels zero-padded to a multiple of 16; plain it is NCHW.
/// The padding lanes of a blocked tensor are zero: every operation keeps them so and may rely on it.
///
/// # Panics
/// Its methods but [`Dims::check`] may panic, or wrap round, where that refuses the dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dims {
    /// Images.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// Rows.
    pub h: usize,
    /// Pixels a row.
    pub w: usize,
}

impl Dims {
    /// Elements of the blocked tensor, padding lanes included.
    pub fn blocked_len(&self) -> usize {
        self.n * blocks(self.c) * LANES * self.plane()
    }
    /// Elements of the NCHW or NHWC tensor.
    pub fn plain_len(&self) -> usize {
        self.n * self.c * self.plane()
    }
    /// Pixels of a channel.
    pub fn plane(&self) -> usize {
        self.h * self.w
    }
    /// Refuses dimensions whose product no slice can hold; those of a tensor without elements are bounded alike.
    ///
    /// # Errors
    /// [`Error::Overflow`].
    pub fn check(&self) -> Result<(), Error> {
        let factors = [self.n, blocks(self.c), LANES, self.h, self.w];
        product("tensor length", &factors.map(|f| f.max(1))).map(drop)
    }
}

/// The shape of a two-dimensional convolution (cross-correlation, as all nets use it).
///
/// Output pixel `(oh, ow)` reads the input at `oh·stride_h + kh·dilation_h − pad_top` (columns likewise); outside the
/// image it reads zero. Weights are OIHW: `[oc][ic/groups][kh][kw]`.
///
/// # Panics
/// Its methods but [`ConvShape::check`] may panic, or wrap round, where that refuses the shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// Images.
    pub n: usize,
    /// Groups; input and output channels are split evenly among them.
    pub groups: usize,
    /// Input channels.
    pub ic: usize,
    /// Input rows.
    pub ih: usize,
    /// Input columns.
    pub iw: usize,
    /// Output channels.
    pub oc: usize,
    /// Kernel rows.
    pub kh: usize,
    /// Kernel columns.
    pub kw: usize,
    /// Row stride.
    pub stride_h: usize,
    /// Column stride.
    pub stride_w: usize,
    /// Zero rows above.
    pub pad_top: usize,
    /// Zero rows below.
    pub pad_bottom: usize,
    /// Zero columns on the left.
    pub pad_left: usize,
    /// Zero columns on the right.
    pub pad_right: usize,
    /// Distance of kernel rows (1: dense).
    pub dilation_h: usize,
    /// Distance of kernel columns (1: dense).
    pub dilation_w: usize,
}

impl ConvShape {
    /// Input channels that count as few, as a first layer has: blocks of 16 would blow them up.
    pub const FEW_CHANNELS: usize = 4;
    /// Taps that a kernel has at most: plans keep something for each.
    pub const MOST_TAPS: usize = 1 << 20;

    /// A square kernel with equal stride and padding on all sides, one group, no dilation.
    pub fn square(n: usize, ic: usize, hw: usize, oc: usize, k: usize, stride: usize, pad: usize) -> ConvShape {
        ConvShape {
            n,
            groups: 1,
            ic,
            ih: hw,
            iw: hw,
            oc,
            kh: k,
            kw: k,
            stride_h: stride,
            stride_w: stride,
            pad_top: pad,
            pad_bottom: pad,
            pad_left: pad,
            pad_right: pad,
            dilation_h: 1,
            dilation_w: 1,
        }
    }

    /// Refuses a zero dimension, channels that the groups do not divide, a kernel larger than the padded image or of
    /// more than [`ConvShape::MOST_TAPS`] taps, and lengths that no slice can hold.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Overflow`], naming the dimension.
    pub fn check(&self) -> Result<(), Error> {
        for (what, value) in [
            ("n", self.n),
            ("groups", self.groups),
            ("ic", self.ic),
            ("ih", self.ih),
            ("iw", self.iw),
            ("oc", self.oc),
            ("kh", self.kh),
            ("kw", self.kw),
            ("stride_h", self.stride_h),
            ("stride_w", self.stride_w),
            ("dilation_h", self.dilation_h),
            ("dilation_w", self.dilation_w),
        ] {
            if value == 0 {
                return Err(Error::Shape { what, value, why: "must be at least 1" });
            }
        }
        for (what, value) in [("ic", self.ic), ("oc", self.oc)] {
            if !value.is_multiple_of(self.groups) {
                return Err(Error::Shape { what, value, why: "is not a multiple of the groups" });
            }
        }
        if self.kh.checked_mul(self.kw).is_none_or(|taps| taps > ConvShape::MOST_TAPS) {
            let (what, value) = if self.kh > self.kw { ("kh", self.kh) } else { ("kw", self.kw) };
            return Err(Error::Shape { what, value, why: "makes a kernel of more than 1048576 taps" });
        }
        for (what, padded, i, before, after, k, d) in [
            ("kh", "padded height", self.ih, self.pad_top, self.pad_bottom, self.kh, self.dilation_h),
            ("kw", "padded width", self.iw, self.pad_left, self.pad_right, self.kw, self.dilation_w),
        ] {
            let sum = i.checked_add(before).and_then(|x| x.checked_add(after)).filter(|&x| x <= MOST);
            let extent = (k - 1).checked_mul(d).and_then(|x| x.checked_add(1));
            match (sum, extent) {
                (Some(p), Some(e)) if e <= p => {}
                (Some(_), Some(_)) => {
                    return Err(Error::Shape { what, value: k, why: "with its dilation exceeds the padded image" });
                }
                (None, _) => {
                    return Err(Error::Overflow { what: padded, detail: format!("{before} + {i} + {after}") });
                }
                (_, None) => return Err(Error::Overflow { what, detail: format!("{k} × {d}") }),
            }
        }
        product("input length", &[self.n, blocks(self.ic) + 1, LANES, self.padded_h(), self.padded_w()])?;
        product("output length", &[self.n, blocks(self.oc), LANES, self.oh(), self.ow()])?;
        // What a pass copies of an image to pad it, forward or backward: a row has less than 34 times as many pixels as
        // a padded one, where a stride's phases end in whole vectors each; gradients read up to twice as many rows, and
        // an odd number of vectors adds up to a half. For the images of a band, which it may copy together, there is
        // room below 64 bits.
        let channels = blocks(self.ic.max(self.oc)) + 1;
        product("padded length", &[channels, LANES, 8 * LANES, self.padded_h(), self.padded_w()])?;
        product("weight length", &[self.oc + LANES, self.ic / self.groups + LANES, self.kh, self.kw])?;
        Ok(())
    }

    /// Rows of the padded image.
    pub fn padded_h(&self) -> usize {
        self.ih + self.pad_top + self.pad_bottom
    }
    /// Columns of the padded image.
    pub fn padded_w(&self) -> usize {
        self.iw + self.pad_left + self.pad_right
    }
    /// Output rows.
    pub fn oh(&self) -> usize {
        (self.padded_h() - (self.kh - 1) * self.dilation_h - 1) / self.stride_h + 1
    }
    /// Output columns.
    pub fn ow(&self) -> usize {
        (self.padded_w() - (self.kw - 1) * self.dilation_w - 1) / self.stride_w + 1
    }
    /// The input tensor.
    pub fn input(&self) -> Dims {
        Dims { n: self.n, c: self.ic, h: self.ih, w: self.iw }
    }
    /// The output tensor.
    pub fn output(&self) -> Dims {
        Dims { n: self.n, c: self.oc, h: self.oh(), w: self.ow() }
    }
    /// Whether the input has [`ConvShape::FEW_CHANNELS`] at most, in one group: kernels then fill their vectors with
    /// something else than channels.
    pub fn has_few_channels(&self) -> bool {
        self.groups == 1 && self.ic <= ConvShape::FEW_CHANNELS
    }
    /// Input channels of a group.
    pub fn group_ic(&self) -> usize {
        self.ic / self.groups
    }
    /// Output channels of a group.
    pub fn group_oc(&self) -> usize {
        self.oc / self.groups
    }
    /// The convolution that each group is.
    pub fn group(&self) -> ConvShape {
        ConvShape { groups: 1, ic: self.group_ic(), oc: self.group_oc(), ..*self }
    }
    /// Elements of the OIHW weights.
    pub fn weight_len(&self) -> usize {
        self.oc * self.group_ic() * self.kh * self.kw
    }
    /// Where a weight of the OIHW weights stands; the input channel is counted within its group.
    pub(crate) fn weight_at(&self, o: usize, i: usize, row: usize, col: usize) -> usize {
        ((o * self.group_ic() + i) * self.kh + row) * self.kw + col
    }
    /// Floating-point operations of one pass: 2·N·OC·OH·OW·IC/G·KH·KW.
    pub fn flops(&self) -> f64 {
        2.0 * self.n as f64 * (self.oh() * self.ow()) as f64 * self.weight_len() as f64
    }
}
