//! Checks of numbers that people choose: learning rates and the like.

/// A hyper-parameter that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} = {value}: it must be {must}")]
pub struct HyperError {
    /// Which one.
    pub what: &'static str,
    /// Its value, printed.
    pub value: String,
    /// What it must be.
    pub must: &'static str,
}

/// Refuses what does not satisfy `ok`; NaN must fail `ok` by itself, as it does every comparison.
pub(crate) fn require<T: std::fmt::Display>(
    what: &'static str,
    value: T,
    ok: impl FnOnce(&T) -> bool,
    must: &'static str,
) -> Result<(), HyperError> {
    if ok(&value) { Ok(()) } else { Err(HyperError { what, value: value.to_string(), must }) }
}
