//! Convolution problems in the notation of oneDNN's benchdnn: `mb1ic96ih56oc256oh56kh3ph1n"A.conv2_1"`.
//!
//! Keys and their meaning: `g` groups (1), `mb` images (2), `ic`/`oc` channels, `ih iw oh ow` sizes, `kh kw` kernel,
//! `sh sw` stride (1), `ph pw` padding above and on the left, `dh dw` dilation minus one (0), `n` the name, last; `_`
//! is ignored. What is left out follows from the rest:
//! - no key of the height: a 1-D problem along the width, of height 1;
//! - a width key that is missing is equal to its height key;
//! - no `oh`: it follows from the input and the padding (0 if that is missing too), the same on all sides;
//! - `oh` but no `ph`: half of what the output needs, rounded down;
//! - the padding below and on the right is what the output needs beyond that.

use rectify_kernels::ConvShape;
use std::{fmt, str::FromStr};

mod fill;
#[cfg(test)]
mod tests;

/// Largest number that a descriptor may hold.
const MOST: usize = i32::MAX as usize;

/// A named convolution.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Problem {
    /// The name after `n`; empty if there is none.
    pub name: String,
    /// Images, channels, sizes, kernel, stride, padding, dilation, groups.
    pub shape: ConvShape,
}

/// Why a descriptor is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProblemError {
    /// The text at this place is no key.
    #[error("unknown key at {0:?}")]
    UnknownKey(String),
    /// A key has no number after it.
    #[error("no number after key {0:?}")]
    NoNumber(String),
    /// A key stands twice.
    #[error("key {0:?} is given twice")]
    Twice(&'static str),
    /// A key that nothing else determines is missing or zero.
    #[error("key {0:?} is missing or zero")]
    Missing(&'static str),
    /// A number exceeds what a descriptor may hold.
    #[error("{key}{value} overflows: at most {MOST}")]
    Overflow {
        /// The key.
        key: &'static str,
        /// The digits after it.
        value: String,
    },
    /// The problem has three dimensions.
    #[error("{key}{value}: 3-D problems are not supported")]
    ThreeD {
        /// The key of the third dimension.
        key: &'static str,
        /// Its value.
        value: usize,
    },
    /// The output size does not follow from input, kernel, stride, padding and dilation.
    #[error(
        "{axis}: output {output} does not fit input {input}, kernel {kernel}, stride {stride}, padding {pad}, dilation {dilation}"
    )]
    Inconsistent {
        /// `height` or `width`.
        axis: &'static str,
        /// `oh` or `ow`; 0 if the rest leaves no output.
        output: i128,
        /// `ih` or `iw`.
        input: i128,
        /// `kh` or `kw`.
        kernel: i128,
        /// `sh` or `sw`.
        stride: i128,
        /// `ph` or `pw`, given or derived.
        pad: i128,
        /// `dh` or `dw`.
        dilation: i128,
    },
    /// A name in quotes has no closing quote.
    #[error("name {0:?} has no closing quote")]
    Quote(String),
    /// The shape is refused: groups do not divide the channels, or a tensor is too large.
    #[error(transparent)]
    Shape(#[from] rectify_kernels::Error),
    /// A line of a file is refused.
    #[error("line {line}: {source}")]
    Line {
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        source: Box<ProblemError>,
    },
}

impl Problem {
    /// Parses one descriptor.
    ///
    /// ```
    /// use rectify::problem::Problem;
    /// let p = Problem::parse(r#"mb1ic3ih224oc96oh112kh7sh2ph3n"A.conv1""#)?;
    /// assert_eq!((p.name.as_str(), p.shape.iw, p.shape.pad_bottom), ("A.conv1", 224, 2));
    /// # Ok::<(), rectify::problem::ProblemError>(())
    /// ```
    ///
    /// # Errors
    /// [`ProblemError`], naming the key or the values.
    pub fn parse(text: &str) -> Result<Problem, ProblemError> {
        let (keys, name) = fill::Keys::read(text.trim())?;
        Ok(Problem { name, shape: keys.shape()? })
    }

    /// Parses a file: one descriptor a line, `#` starts a comment, empty lines are skipped.
    ///
    /// # Errors
    /// [`ProblemError::Line`], with the number of the line.
    pub fn parse_file(text: &str) -> Result<Vec<Problem>, ProblemError> {
        text.lines()
            .enumerate()
            .map(|(i, line)| (i + 1, uncomment(line).trim()))
            .filter(|(_, line)| !line.is_empty())
            .map(|(line, text)| {
                Problem::parse(text).map_err(|source| ProblemError::Line { line, source: Box::new(source) })
            })
            .collect()
    }

    /// The name, or the descriptor where there is none.
    pub fn label(&self) -> String {
        if self.name.is_empty() { self.to_string() } else { self.name.clone() }
    }
}

/// A line up to the `#` that stands outside quotes.
fn uncomment(line: &str) -> &str {
    let mut quoted = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted => return &line[..at],
            _ => {}
        }
    }
    line
}

impl FromStr for Problem {
    type Err = ProblemError;
    fn from_str(text: &str) -> Result<Problem, ProblemError> {
        Problem::parse(text)
    }
}

/// The full descriptor, every key written out; parsing it gives the same problem again.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.shape;
        if s.groups != 1 {
            write!(f, "g{}", s.groups)?;
        }
        write!(f, "mb{}ic{}ih{}iw{}oc{}oh{}ow{}", s.n, s.ic, s.ih, s.iw, s.oc, s.oh(), s.ow())?;
        write!(f, "kh{}kw{}sh{}sw{}", s.kh, s.kw, s.stride_h, s.stride_w)?;
        write!(f, "ph{}pw{}dh{}dw{}", s.pad_top, s.pad_left, s.dilation_h - 1, s.dilation_w - 1)?;
        if self.name.is_empty() { Ok(()) } else { write!(f, "n\"{}\"", self.name) }
    }
}
