//! What the kernels refuse, with the offending value.

/// Why a kernel refuses what it was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A slice has another length than the shape asks for.
    #[error("{what} has {got} elements, but the shape asks for {want}")]
    Length {
        /// Which slice.
        what: &'static str,
        /// Its length.
        got: usize,
        /// The length that the shape asks for.
        want: usize,
    },
    /// A dimension or option of a shape cannot be served.
    #[error("{what} = {value} {why}")]
    Shape {
        /// Which dimension or option.
        what: &'static str,
        /// Its value.
        value: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The product of some dimensions exceeds what memory can hold.
    #[error("{what} overflows: {detail}")]
    Overflow {
        /// Which product.
        what: &'static str,
        /// Its factors.
        detail: String,
    },
    /// A label names a class that does not exist.
    #[error("label {label} of sample {sample} is not below the number of classes, {classes}")]
    Label {
        /// Index of the sample in the batch.
        sample: usize,
        /// Its label.
        label: u32,
        /// The number of classes.
        classes: usize,
    },
    /// No instruction set has this name.
    #[error("unknown instruction set {0:?}: expected portable, avx2, avx512 or neon")]
    UnknownIsa(String),
    /// This processor lacks the instruction set.
    #[error("instruction set {0} is not supported by this processor")]
    UnsupportedIsa(&'static str),
    /// No algorithm has this name.
    #[error("unknown algorithm {0:?}: expected auto, direct, winograd or winograd-accurate")]
    UnknownAlgorithm(String),
    /// A number that must be finite, or within bounds, is not.
    #[error("{what} = {value} {why}")]
    Value {
        /// Which number.
        what: &'static str,
        /// The number, printed.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Checks a slice's length.
pub(crate) fn check_len(what: &'static str, got: usize, want: usize) -> Result<(), Error> {
    if got == want { Ok(()) } else { Err(Error::Length { what, got, want }) }
}

/// Checks that a slice is at least as long as asked.
pub(crate) fn check_at_least(what: &'static str, got: usize, want: usize) -> Result<(), Error> {
    if got >= want { Ok(()) } else { Err(Error::Length { what, got, want }) }
}
