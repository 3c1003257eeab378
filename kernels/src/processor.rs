//! What the processor is like where a kernel's speed depends on it. No result does.

use std::sync::OnceLock;

/// What is asked of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Processor {
    /// Bytes of a core's second cache; 1 MiB where it does not say.
    pub second_cache: usize,
    /// Whether it foresees by itself, better than it can be told, which lines of a few long streams are read next.
    pub foresees: bool,
    /// Whether each line that is asked for into the second cache takes one of the few places of those that loads wait
    /// for, so that to ask for what is a while ahead may cost more than it brings. The transforms of strided Winograd
    /// heed it; nowhere else did it make a difference.
    pub asks_dearly: bool,
}

/// The processor that this runs on.
pub(crate) fn processor() -> Processor {
    static FOUND: OnceLock<Processor> = OnceLock::new();
    *FOUND.get_or_init(Processor::find)
}

impl Processor {
    /// Elements that the second cache holds.
    pub fn second_cache_len(&self) -> usize {
        self.second_cache / size_of::<f32>()
    }

    const UNKNOWN: Processor = Processor { second_cache: 1 << 20, foresees: false, asks_dearly: false };

    #[cfg(target_arch = "x86_64")]
    fn find() -> Processor {
        let id = raw_cpuid::CpuId::new();
        let second_cache = id.get_l2_l3_cache_and_tlb_info().map(|of| usize::from(of.l2cache_size()) << 10);
        Processor {
            second_cache: second_cache.filter(|&bytes| bytes > 0).unwrap_or(Processor::UNKNOWN.second_cache),
            // Of those measured Zen 5 does and Zen 4 does not; an instruction that came between the two tells them
            // apart.
            foresees: id.get_extended_feature_info().is_some_and(|of| of.has_avx512_vp2intersect()),
            // Granite Rapids: 16 places, 13 GB/s, where its own guesses bring 27. Others of the maker's are taken to be
            // like it.
            asks_dearly: id.get_vendor_info().is_some_and(|of| of.as_str() == "GenuineIntel"),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn find() -> Processor {
        Processor::UNKNOWN
    }
}

#[cfg(test)]
mod tests {
    use super::processor;

    #[test]
    fn the_second_cache_has_a_size_that_there_is() {
        let bytes = processor().second_cache;
        assert!((1 << 16..=1 << 26).contains(&bytes), "{bytes}");
    }
}
