//! Batch norm with fixed statistics, as one fused multiply-add a number.

use crate::error::check_len;
use crate::task::{pixels, pixels_mut, plane_len, units};
use crate::{Dims, Error, Isa, Kernel, LANES, Simd, blocks};
use rayon::prelude::*;

struct Forward<'a> {
    scale: [f32; LANES],
    shift: [f32; LANES],
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (scale, shift) = (s.vector(&self.scale), s.vector(&self.shift));
        for (x, y) in pixels(self.x).iter().zip(pixels_mut(self.y)) {
            s.write(y, s.fma(scale, s.vector(x), shift));
        }
    }
}

/// A block's share of a per-channel parameter; zero in the padding lanes, which therefore stay zero.
fn lanes(of: &[f32], block: usize) -> [f32; LANES] {
    std::array::from_fn(|i| of.get(block * LANES + i).copied().unwrap_or(0.0))
}

/// `y = fma(scale, x, shift)` in each channel, blocked in and out; `scale` and `shift` have one element a channel.
///
/// With `scale = weight/√(variance + ε)` and `shift = bias − mean·scale` it is batch norm (Ioffe and Szegedy 2015,
/// Algorithm 1) with fixed statistics.
///
/// # Errors
/// A length that does not fit `dims`.
pub fn forward(isa: Isa, dims: Dims, x: &[f32], scale: &[f32], shift: &[f32], y: &mut [f32]) -> Result<(), Error> {
    dims.check()?;
    check_len("scale", scale.len(), dims.c)?;
    check_len("shift", shift.len(), dims.c)?;
    check_len("x", x.len(), dims.blocked_len())?;
    check_len("y", y.len(), dims.blocked_len())?;
    if y.is_empty() {
        return Ok(());
    }
    let len = plane_len(&dims);
    let planes = x.par_chunks(len).zip(y.par_chunks_mut(len)).with_min_len(units(len)).enumerate();
    planes.for_each(|(plane, (x, y))| {
        let block = plane % blocks(dims.c);
        isa.dispatch(Forward { scale: lanes(scale, block), shift: lanes(shift, block), x, y });
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{dims, everywhere, numbers, same_bits, to_blocked};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn bits_are_those_of_one_fma(d in dims(), seed: u64, special: bool) {
            let x = numbers(seed, d.plain_len(), special);
            let (scale, shift) = (numbers(!seed, d.c, special), numbers(seed ^ 1, d.c, special));
            let channel = |i: usize| i / d.plane() % d.c;
            let y: Vec<f32> =
                x.iter().enumerate().map(|(i, x)| scale[channel(i)].mul_add(*x, shift[channel(i)])).collect();
            let (x, want) = (to_blocked(&d, &x, 0.0), to_blocked(&d, &y, 0.0));
            let check = everywhere(|isa| {
                let mut y = vec![f32::NAN; want.len()];
                forward(isa, d, &x, &scale, &shift, &mut y).unwrap();
                same_bits(&y, &want)
            });
            prop_assert_eq!(check, Ok(()));
        }
    }

    #[test]
    fn lengths_are_checked() {
        let d = Dims { n: 1, c: 3, h: 1, w: 1 };
        let (x, mut y) = ([0.0; 16], [0.0; 16]);
        assert!(forward(Isa::Portable, d, &x, &[1.0; 3], &[0.0; 3], &mut y).is_ok());
        let e = forward(Isa::Portable, d, &x, &[1.0; 2], &[0.0; 3], &mut y);
        assert_eq!(e, Err(Error::Length { what: "scale", got: 2, want: 3 }));
        let e = forward(Isa::Portable, d, &x[..15], &[1.0; 3], &[0.0; 3], &mut y);
        assert_eq!(e, Err(Error::Length { what: "x", got: 15, want: 16 }));
    }
}
