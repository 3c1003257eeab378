//! Sums of vectors in a fixed order.

use crate::LANES;

/// Sixteen lanes that are summed lane by lane.
pub(crate) type Lanes = [f32; LANES];

/// Adds lane by lane.
#[inline(always)]
pub(crate) fn add(a: Lanes, b: Lanes) -> Lanes {
    std::array::from_fn(|i| a[i] + b[i])
}

/// The binary tree of [`crate::reference::conv::tree_sum`], fed one element at a time, without allocating.
///
/// `stack[k]` holds the sum of 2^k neighbours where bit k of `count` is set.
pub(crate) struct Tree<T> {
    stack: [T; usize::BITS as usize],
    count: usize,
}

impl<T: Copy> Tree<T> {
    /// An empty tree; `zero` only fills its storage.
    pub(crate) fn new(zero: T) -> Self {
        Tree { stack: [zero; usize::BITS as usize], count: 0 }
    }

    /// Appends an element.
    pub(crate) fn push(&mut self, item: T, add: impl Fn(T, T) -> T) {
        let level = self.count.trailing_ones() as usize;
        let whole = self.stack[..level].iter().fold(item, |right, &left| add(left, right));
        self.stack[level] = whole;
        self.count += 1;
    }

    /// The sum; nothing if the tree is empty.
    pub(crate) fn finish(self, add: impl Fn(T, T) -> T) -> Option<T> {
        let mut sums = (0..self.stack.len()).filter(|k| self.count >> k & 1 == 1).map(|k| self.stack[k]);
        let last = sums.next()?;
        Some(sums.fold(last, |right, left| add(left, right)))
    }
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
            let mut tree = Tree::new(0);
            (0..n as usize).for_each(|i| tree.push(i, |a, b| a * 31 + b));
            assert_eq!(tree.finish(|a, b| a * 31 + b), want, "{n}");
            if n == 5 {
                let owned: Vec<&str> = names.iter().map(String::as_str).collect();
                let left = join(&join(&join(owned[0], owned[1]), &join(owned[2], owned[3])), owned[4]);
                assert_eq!(left, "(((01)(23))4)");
            }
        }
    }
}
