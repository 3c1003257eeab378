//! Random tensors, and single channels out of blocked ones.

use crate::rng::{self, Rng};
use rectify_kernels::{Buffer, Dims, LANES, blocks};

/// Which tensor is drawn.
#[derive(Clone, Copy)]
pub(super) enum Role {
    Input,
    Weights,
    Bias,
    Slopes,
    OutputGradient,
}

fn generator(role: Role) -> Rng {
    Rng::at(0, rng::BENCH, role as u64, 0)
}

/// `len` numbers between −1 and 1.
pub(super) fn random(role: Role, len: usize) -> Buffer {
    let (mut rng, mut x) = (generator(role), Buffer::zeroed(len));
    x.iter_mut().for_each(|x| *x = rng.between(-1.0, 1.0));
    x
}

/// A blocked tensor of numbers between −1 and 1, its padding lanes zero.
pub(super) fn random_blocked(role: Role, d: &Dims) -> Buffer {
    let mut x = random(role, d.blocked_len());
    let rest = d.c % LANES;
    if rest > 0 {
        for image in x.chunks_mut(blocks(d.c) * d.plane() * LANES) {
            for pixel in image[(blocks(d.c) - 1) * d.plane() * LANES..].chunks_mut(LANES) {
                pixel[rest..].fill(0.0);
            }
        }
    }
    x
}

/// Channel `c` of image `n` of a blocked tensor, row by row.
pub(super) fn channel<'a>(d: &Dims, x: &'a [f32], n: usize, c: usize) -> impl Iterator<Item = f32> + use<'a> {
    let plane = d.plane();
    let first = (n * blocks(d.c) + c / LANES) * plane * LANES;
    x[first..first + plane * LANES].iter().skip(c % LANES).step_by(LANES).copied()
}

/// Whether every padding lane of a blocked tensor is zero.
pub(super) fn padding_is_zero(d: &Dims, x: &[f32]) -> bool {
    (0..d.n).all(|n| (d.c..blocks(d.c) * LANES).all(|c| channel(d, x, n, c).all(|x| x == 0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocked_tensors_have_zero_padding_and_their_channels_come_back() {
        let d = Dims { n: 2, c: 18, h: 2, w: 3 };
        let mut x = random_blocked(Role::Input, &d);
        assert_eq!(x.len(), 2 * 32 * 6);
        assert!(padding_is_zero(&d, &x));
        assert!((0..2).all(|n| (0..18).all(|c| channel(&d, &x, n, c).all(|v| v != 0.0))));
        // Image 1, block 1, pixel 4, lane 1.
        x[(3 * 6 + 4) * 16 + 1] = 7.0;
        assert_eq!(channel(&d, &x, 1, 17).nth(4), Some(7.0));
        assert_eq!(channel(&d, &x, 1, 17).count(), 6);
        x[(3 * 6 + 4) * 16 + 2] = 7.0;
        assert!(!padding_is_zero(&d, &x));
    }
}
