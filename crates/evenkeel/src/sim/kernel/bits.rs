//! The bits of readiness, by Linux's numbers, which `epoll` and `poll` share.

pub(crate) const IN: u32 = 0x001;
pub(crate) const PRI: u32 = 0x002;
pub(crate) const OUT: u32 = 0x004;
pub(crate) const ERR: u32 = 0x008;
pub(crate) const HUP: u32 = 0x010;
pub(crate) const RDHUP: u32 = 0x2000;
/// `epoll`'s own: how reports are made.
pub(crate) const EXCLUSIVE: u32 = 1 << 28;
pub(crate) const ONESHOT: u32 = 1 << 30;
pub(crate) const EDGE: u32 = 1 << 31;

/// Reported whether asked for or not.
pub(crate) const ALWAYS: u32 = ERR | HUP;
/// What Linux says is new when there is something to read.
pub(crate) const ARRIVED: u32 = IN | PRI;
/// What Linux says is new when a socket's state is: everything, so whoever watches it looks again.
pub(crate) const STATE: u32 = 0;
/// Of these only one may be woken out of several that share an object.
pub(crate) const MAY_BE_EXCLUSIVE: u32 = IN | OUT | ERR | HUP | EDGE | EXCLUSIVE;
