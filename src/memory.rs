//! Refusing what does not fit into memory, rather than aborting while it is allocated.

/// Tensors that need more memory than there is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the tensors need {mib} MiB, more than there is")]
pub struct MemoryError {
    /// What they need, in MiB.
    pub mib: usize,
}

/// Asks for that many floats in one piece and gives them back. Systems that promise more memory than they have refuse
/// only what is beyond all of it.
pub(crate) fn reserve(floats: impl IntoIterator<Item = usize>) -> Result<(), MemoryError> {
    let floats = floats.into_iter().fold(0, usize::saturating_add);
    let mib = floats.saturating_mul(size_of::<f32>()) >> 20;
    Vec::<f32>::new().try_reserve_exact(floats).map_err(|_| MemoryError { mib })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_machine_has_is_refused() {
        assert_eq!(reserve([1 << 10, 1 << 10]), Ok(()));
        assert_eq!(reserve([1 << 58, 1 << 58]), Err(MemoryError { mib: 1 << 41 }));
        assert!(reserve([usize::MAX, usize::MAX]).is_err());
    }
}
