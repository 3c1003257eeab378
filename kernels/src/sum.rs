//! Sums of vectors in a fixed order.

use crate::LANES;

/// Sixteen lanes that are summed lane by lane.
pub(crate) type Lanes = [f32; LANES];

/// Adds lane by lane.
#[inline(always)]
pub(crate) fn add(a: Lanes, b: Lanes) -> Lanes {
    std::array::from_fn(|i| a[i] + b[i])
}

/// The binary tree of [`crate::reference::conv::tree_sum`] over `item(0)` to `item(count - 1)`, without allocating;
/// nothing if there is none.
#[inline]
pub(crate) fn tree<T>(count: usize, item: &impl Fn(usize) -> T, add: &impl Fn(T, T) -> T) -> Option<T> {
    match count {
        0 => None,
        // In place, without the call of a function that calls itself.
        1 => Some(item(0)),
        _ => Some(branch(0, count, item, add)),
    }
}

/// The sum of `count` items, at least one: the largest power of two below, and the rest.
fn branch<T>(first: usize, count: usize, item: &impl Fn(usize) -> T, add: &impl Fn(T, T) -> T) -> T {
    if count <= 1 {
        return item(first);
    }
    let left = 1 << (count - 1).ilog2();
    add(branch(first, left, item, add), branch(first + left, count - left, item, add))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::conv::tree_sum;

    #[test]
    fn the_tree_is_that_of_the_reference() {
        for n in 0..40u8 {
            let want = tree_sum(0..n as usize, |a, b| a * 31 + b);
            assert_eq!(tree(n as usize, &|i| i, &|a, b| a * 31 + b), want, "{n}");
        }
        let join = |a: String, b: String| format!("({a}{b})");
        assert_eq!(tree(5, &|i| i.to_string(), &join), Some("(((01)(23))4)".into()));
    }
}
