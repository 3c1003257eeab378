//! The tree in which the weight gradients of groups of images are combined.

/// Sums of equal length, combined as [`crate::reference::conv::tree_sum`] says: a stack in one buffer.
pub(super) struct Tree<'a> {
    pub buffer: &'a mut [f32],
    len: usize,
    sizes: [usize; usize::BITS as usize],
    pub height: usize,
}

impl<'a> Tree<'a> {
    pub fn new(buffer: &'a mut [f32], len: usize) -> Self {
        Tree { buffer, len, sizes: [0; usize::BITS as usize], height: 0 }
    }
    /// Where the next sum is to be written.
    pub fn top(&mut self) -> &mut [f32] {
        &mut self.buffer[self.height * self.len..][..self.len]
    }
    /// Adds the top two sums.
    fn merge(&mut self) {
        let (left, right) = self.buffer[(self.height - 2) * self.len..].split_at_mut(self.len);
        left.iter_mut().zip(right).for_each(|(l, r)| *l += *r);
        self.height -= 1;
    }
    /// Takes the sum that was written to the top.
    pub fn push(&mut self) {
        self.sizes[self.height] = 1;
        self.height += 1;
        while self.height > 1 && self.sizes[self.height - 2] == self.sizes[self.height - 1] {
            self.sizes[self.height - 2] *= 2;
            self.merge();
        }
    }
    /// Combines what is left, from the last to the first.
    pub fn finish(mut self) -> &'a [f32] {
        while self.height > 1 {
            self.merge();
        }
        &self.buffer[..self.len]
    }
}
