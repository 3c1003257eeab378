//! What a Winograd pass is given, as its tasks share it.

use crate::threads::Shared;

/// [`crate::conv::run::Call`] with pointers in place of what tasks write.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub x: &'a [f32],
    pub packed: &'a [f32],
    pub pads: &'a [f32],
    pub bias: Option<&'a [f32]>,
    pub slopes: Option<&'a [f32]>,
    pub shortcut: Option<&'a [f32]>,
    pub y: Shared,
    pub pre: Option<Shared>,
    /// Whether both are streamed.
    pub streams: bool,
}

impl<'a> Call<'a> {
    /// The same with outputs of their own: `extra` has the shortcut, or takes the pre-activation, where there is one.
    pub fn apart<'b>(&self, y: &'b mut [f32], extra: &'b mut [f32]) -> Call<'b>
    where
        'a: 'b,
    {
        debug_assert!(self.shortcut.is_none() || self.pre.is_none(), "one place for both");
        Call {
            y: Shared::new(y),
            pre: self.pre.map(|_| Shared::new(extra)),
            shortcut: self.shortcut.map(|_| &*extra),
            streams: false,
            ..*self
        }
    }
}
