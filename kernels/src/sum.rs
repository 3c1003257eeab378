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
        let join = |a: &str, b: &str| format!("({a}{b})");
        for n in 0..40u8 {
            let names: Vec<String> = (0..n).map(|i| char::from(b'0' + i).to_string()).collect();
            let want = tree_sum(0..n as usize, |a, b| a * 31 + b);
            assert_eq!(tree(n as usize, &|i| i, &|a, b| a * 31 + b), want, "{n}");
            if n == 5 {
                let owned: Vec<&str> = names.iter().map(String::as_str).collect();
                let left = join(&join(&join(owned[0], owned[1]), &join(owned[2], owned[3])), owned[4]);
                assert_eq!(left, "(((01)(23))4)");
            }
        }
    }
}
