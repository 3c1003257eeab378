//! Instruction sets: what there is, what the processor has, the cap, and the way into a kernel body.

use crate::Error;
#[cfg(target_arch = "aarch64")]
use crate::simd::neon::Neon;
use crate::simd::{Simd, portable::Portable};
#[cfg(target_arch = "x86_64")]
use crate::simd::{avx2::Avx2, avx512::Avx512};
use std::sync::OnceLock;

/// An instruction set that kernels are compiled for. Results have the same bits on each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust; runs everywhere.
    Portable,
    /// AArch64 NEON.
    Neon,
    /// x86-64 AVX2 with FMA.
    Avx2,
    /// x86-64 AVX-512F.
    Avx512,
}

/// A computation with one generic body for all instruction sets.
///
/// `run` must be `#[inline(always)]`, and so must be what it calls with the token, so that all of it is compiled
/// with the instruction set's features enabled.
pub trait Kernel {
    /// What the computation returns.
    type Output;
    /// The body.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// One line an instruction set: enum name, token, shim, target, and the features that detection and shim share.
macro_rules! instruction_sets {
    ($($isa:ident, $token:ident, $shim:ident, $arch:literal, $detect:ident, [$($feature:tt),+];)+) => {
        $(
            /// Enters the body with the features enabled.
            ///
            /// # Safety
            /// The processor must have the features.
            #[cfg(target_arch = $arch)]
            $(#[target_feature(enable = $feature)])+
            unsafe fn $shim<K: Kernel>(k: K) -> K::Output {
                k.run($token(()))
            }
        )+

        impl Isa {
            /// Whether this processor has the instruction set.
            pub fn is_available(self) -> bool {
                match self {
                    Isa::Portable => true,
                    $(
                        #[cfg(target_arch = $arch)]
                        Isa::$isa => true $(&& std::arch::$detect!($feature))+,
                    )+
                    #[allow(unreachable_patterns)]
                    _ => false,
                }
            }

            /// The features that this processor lacks for the instruction set; `None` if it belongs to another
            /// architecture.
            pub fn missing_features(self) -> Option<Vec<&'static str>> {
                match self {
                    Isa::Portable => Some(Vec::new()),
                    $(
                        #[cfg(target_arch = $arch)]
                        Isa::$isa => {
                            let features = [$(($feature, std::arch::$detect!($feature))),+];
                            Some(features.into_iter().filter(|f| !f.1).map(|f| f.0).collect())
                        }
                    )+
                    #[allow(unreachable_patterns)]
                    _ => None,
                }
            }

            /// Runs a kernel body compiled for this instruction set; where the processor lacks it, the portable one,
            /// which gives the same bits.
            #[inline]
            pub fn dispatch<K: Kernel>(self, k: K) -> K::Output {
                match self {
                    $(
                        #[cfg(target_arch = $arch)]
                        // SAFETY: `is_available` has just detected the very features that the shim enables.
                        Isa::$isa if self.is_available() => unsafe { $shim(k) },
                    )+
                    // Once, for it is inlined here.
                    _ => k.run(Portable(())),
                }
            }
        }
    };
}

instruction_sets! {
    Neon, Neon, enter_neon, "aarch64", is_aarch64_feature_detected, ["neon"];
    Avx2, Avx2, enter_avx2, "x86_64", is_x86_feature_detected, ["avx2", "fma"];
    Avx512, Avx512, enter_avx512, "x86_64", is_x86_feature_detected, ["avx512f", "avx2", "fma"];
}

/// A constant of an instruction set's [`Simd`].
macro_rules! constant {
    ($(#[$doc:meta])* $name:ident: $constant:ident) => {
        $(#[$doc])*
        pub(crate) fn $name(self) -> usize {
            struct Ask;
            impl Kernel for Ask {
                type Output = usize;
                #[inline(always)]
                fn run<S: Simd>(self, _: S) -> usize {
                    S::$constant
                }
            }
            self.dispatch(Ask)
        }
    };
}

impl Isa {
    constant! {
        /// How many virtual vectors wide the widest convolution tile is.
        tile_vectors: TILE_VECTORS
    }
    constant! {
        /// How many pixels tall the convolution tile is that is one virtual vector wide.
        narrow_rows: NARROW_ROWS
    }

    /// All instruction sets the crate knows, slowest first.
    pub const ALL: [Isa; 4] = [Isa::Portable, Isa::Neon, Isa::Avx2, Isa::Avx512];

    /// The name that `RECTIFY_ISA` and the command line take.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Neon => "neon",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }

    /// The instruction sets of this processor, slowest first.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|i| i.is_available()).collect()
    }

    /// This instruction set, if the processor has it.
    ///
    /// # Errors
    /// [`Error::UnsupportedIsa`] if it has not.
    pub fn require(self) -> Result<Isa, Error> {
        if self.is_available() { Ok(self) } else { Err(Error::UnsupportedIsa(self.name())) }
    }

    /// The best instruction set of this processor, or the one that the environment variable `RECTIFY_ISA` names
    /// (read once a process).
    ///
    /// # Errors
    /// [`Error::UnknownIsa`] or [`Error::UnsupportedIsa`] for what the variable says.
    pub fn best() -> Result<Isa, Error> {
        static CHOSEN: OnceLock<Result<Isa, Error>> = OnceLock::new();
        CHOSEN
            .get_or_init(|| match std::env::var_os("RECTIFY_ISA") {
                None => Ok(Isa::available().pop().unwrap_or(Isa::Portable)),
                Some(text) => text.to_string_lossy().parse::<Isa>()?.require(),
            })
            .clone()
    }
}

impl std::fmt::Display for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Isa {
    type Err = Error;
    fn from_str(text: &str) -> Result<Isa, Error> {
        Isa::ALL.into_iter().find(|i| i.name() == text).ok_or_else(|| Error::UnknownIsa(text.to_owned()))
    }
}

/// Makes what this thread has streamed ([`Lanes::stream`](crate::Lanes::stream)) visible to others before whatever it
/// writes from now on. It waits for all its stores: after each task some kernels took a tenth longer.
pub(crate) fn order_streams() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64.
    unsafe {
        core::arch::x86_64::_mm_sfence();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_unknown_is_refused() {
        for isa in Isa::ALL {
            assert_eq!(isa.name().parse::<Isa>(), Ok(isa));
        }
        assert_eq!("sse9".parse::<Isa>(), Err(Error::UnknownIsa("sse9".into())));
    }

    #[test]
    fn an_instruction_set_is_available_if_nothing_is_missing() {
        for isa in Isa::ALL {
            assert_eq!(isa.is_available(), isa.missing_features() == Some(vec![]), "{isa}");
        }
    }

    #[test]
    fn dispatch_runs_the_instruction_set_that_was_asked_for() {
        struct Name;
        impl Kernel for Name {
            type Output = &'static str;
            #[inline(always)]
            fn run<S: Simd>(self, _: S) -> &'static str {
                core::any::type_name::<S>()
            }
        }
        for isa in Isa::available() {
            assert!(isa.dispatch(Name).to_lowercase().ends_with(isa.name()), "{isa}");
        }
    }
}
