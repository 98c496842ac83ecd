//! Replacing the running program by a new process, without a client that is refused or a message that is missed.
//!
//! The old process starts the new one and hands it the listening sockets; the new one makes its loops and asks for the state.
//! The old one writes the state down and does nothing more by itself: from then on it is a front, whose connections' commands
//! go to the new process and whose clients get the effects that come from there, as if it were some more loops of the new
//! one. So there is one state at any time, one order of all that happens, and publishing on either side reaches all. When the
//! new process serves, it closes the old one's clients one after another with a code that makes them come back, and the old
//! process ends when the last has left.
//!
//! Until the new process says that it serves, the old one keeps its state and what it has passed on. If the new one fails
//! before, the old one goes on, and nothing has happened.

mod channel;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod new;
mod old;
mod wire;

pub(super) use channel::Channel;
pub use new::Inheritance;
pub(super) use new::take_over;
pub(super) use old::{Elsewhere, Replaced, Successor, replace};
pub(super) use wire::{ApiReply, ApiRequest, base64_bytes};
