//! What the processor is like where a kernel's speed depends on it. No result does.

use std::sync::OnceLock;

/// What is asked of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Processor {
    /// Bytes of a core's first data cache, of the core that asks first where they differ; 32 KiB where it does not say.
    pub first_cache: usize,
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
    /// Elements that the first data cache holds.
    pub fn first_cache_len(&self) -> usize {
        self.first_cache / size_of::<f32>()
    }

    /// Elements that the second cache holds.
    pub fn second_cache_len(&self) -> usize {
        self.second_cache / size_of::<f32>()
    }

    const UNKNOWN: Processor =
        Processor { first_cache: 1 << 15, second_cache: 1 << 20, foresees: false, asks_dearly: false };

    #[cfg(target_arch = "x86_64")]
    fn find() -> Processor {
        let id = raw_cpuid::CpuId::new();
        let first_cache = id.get_cache_parameters().into_iter().flatten().find(|of| {
            of.level() == 1 && matches!(of.cache_type(), raw_cpuid::CacheType::Data | raw_cpuid::CacheType::Unified)
        });
        let first_cache = first_cache
            .map(|of| of.sets() * of.associativity() * of.physical_line_partitions() * of.coherency_line_size());
        let second_cache = id.get_l2_l3_cache_and_tlb_info().map(|of| usize::from(of.l2cache_size()) << 10);
        Processor {
            first_cache: first_cache.filter(|&bytes| bytes > 0).unwrap_or(Processor::UNKNOWN.first_cache),
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
    fn the_caches_have_sizes_that_there_are() {
        let (first, second) = (processor().first_cache, processor().second_cache);
        assert!((1 << 13..=1 << 18).contains(&first), "{first}");
        assert!((1 << 16..=1 << 26).contains(&second), "{second}");
    }
}
