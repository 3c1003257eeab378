//! Groups of channels, whole blocks each: of a tensor of `n` images it is the same memory that of `n · groups` images
//! would take which have a group's channels. So each group is a convolution of its own, of every so-many-th of these
//! images.

use super::{Call, Winograd};
use crate::conv::Layout;
use crate::threads::{for_each_task, most_threads};
use crate::{Isa, LANES};

/// Groups a thread from which on it does not matter whether threads get equally many.
const EVEN: usize = 4;

/// Whether threads take groups of their own. Else all work on one after the other.
fn is_apart(groups: usize, threads: usize) -> bool {
    groups.is_multiple_of(threads) || groups >= EVEN * threads
}

/// Elements of the workspace with that many threads, if `len` says how many a group needs.
pub(super) fn len(groups: usize, threads: usize, len: impl Fn(usize) -> usize) -> usize {
    let threads = threads.max(1);
    if groups == 1 { len(threads) } else { (threads * len(1)).max(len(threads)) }
}

/// Calls `f(group, threads, workspace)` for each group, if `len` says how many elements of workspace one needs with so
/// many threads.
pub(super) fn for_each(
    groups: usize,
    workspace: &mut [f32],
    len: impl Fn(usize) -> usize,
    f: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    let most = rayon::current_num_threads();
    if groups == 1 {
        return f(0, most, workspace);
    }
    let threads = most_threads(most, workspace.len(), |threads| self::len(groups, threads, &len));
    if is_apart(groups, threads) {
        let each = len(1).max(1);
        let workspace = &mut workspace[..threads * each];
        for_each_task(groups, workspace, each, |group, workspace| f(group, 1, workspace));
    } else {
        (0..groups).for_each(|group| f(group, threads, workspace));
    }
}

impl Winograd {
    /// Runs a group on so many threads at most.
    pub(super) fn run_group(&self, isa: Isa, call: &Call<'_>, threads: usize, workspace: &mut [f32]) {
        if self.is_first() {
            self.run_first(isa, call, workspace);
        } else if self.layouts == (Layout::Blocked, Layout::Blocked) {
            self.run_blocked(isa, call, threads, workspace);
        } else {
            self.run_borders(isa, call, threads, workspace);
        }
    }

    /// The plan of one group, and its weights and parameters.
    pub(super) fn of_group<'a>(&self, call: &Call<'a>, group: usize) -> (Winograd, Call<'a>) {
        let part = |x: &'a [f32], len: usize| if x.len() > len { &x[group * len..][..len] } else { x };
        let (weights, pads) = (self.group_packed_len(), self.in_blocks() * LANES);
        // One parameter may serve all channels.
        let parameter = |p: Option<&'a [f32]>| p.map(|p| part(p, self.output.c));
        let call = Call {
            packed: part(call.packed, weights),
            pads: part(call.pads, pads),
            bias: parameter(call.bias),
            slopes: parameter(call.slopes),
            ..*call
        };
        (Winograd { group, ..*self }, call)
    }
}
