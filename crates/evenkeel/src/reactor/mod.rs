//! Readiness backends: the kernel says that a descriptor is ready, and one shared driver turns that into bytes
//! delivered.
//!
//! [`Readiness`] holds everything that they have in common; each interface is a [`Selector`] of four verbs.

mod accept;
mod close;
mod epoll;
mod poll;
mod readiness;
mod select;
mod stream;
mod watch;
mod write;

use std::io;
use std::time::Duration;

pub(crate) use epoll::{Epoll, EpollLevel};
pub(crate) use poll::Poll;
pub(crate) use readiness::Readiness;
pub(crate) use select::Select;

use crate::core::watch::Interest;
use crate::core::{Token, flag};
use crate::sys::{Fd, Sys};

/// What a descriptor is asked for, or what it is ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Ready {
    pub(crate) read: bool,
    pub(crate) write: bool,
    /// The peer's end, an error or urgent data was reported: reads must go on until they are refused. Not asked
    /// for; always reported where the interface can.
    pub(crate) hung_up: bool,
}

impl Ready {
    /// The same as bits of a source's state.
    #[inline]
    fn flags(self) -> u32 {
        let read = if self.read { flag::READABLE } else { 0 };
        let write = if self.write { flag::WRITABLE } else { 0 };
        read | write | if self.hung_up { flag::HUNG_UP } else { 0 }
    }
}

/// One descriptor that is ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) token: Token,
    /// What it is ready for, as bits of a source's state: `READABLE`, `WRITABLE`, `HUNG_UP`.
    pub(crate) flags: u32,
}

impl Event {
    #[inline]
    fn new(token: Token, ready: Ready) -> Self {
        Event { token, flags: ready.flags() }
    }

    #[inline]
    fn ready(self) -> Ready {
        let has = |bit| self.flags & bit != 0;
        Ready { read: has(flag::READABLE), write: has(flag::WRITABLE), hung_up: has(flag::HUNG_UP) }
    }
}

/// A readiness interface of the kernel.
///
/// Level-triggered ones report a descriptor in every wait while it is ready; edge-triggered ones once for each
/// change, whatever was asked for, and they are asked for everything once.
pub(crate) trait Selector<Y: Sys>: Sized + 'static {
    /// Edge-triggered.
    const EDGE: bool;
    /// One descriptor that is ready, in the interface's own form.
    type Event: Copy + 'static;

    fn new(sys: &Y) -> io::Result<Self>;
    fn add(&mut self, sys: &Y, fd: Fd, token: Token, interest: Ready) -> io::Result<()>;
    /// Asks for newcomers of a listening socket of which other loops have copies; where the interface can, one loop is
    /// woken for each, and not all.
    fn add_shared(&mut self, sys: &Y, fd: Fd, token: Token) -> io::Result<()> {
        self.add(sys, fd, token, Ready { read: true, ..Ready::default() })
    }
    /// Changes what is asked for; never called on an edge-triggered interface but to ask for a fresh look.
    fn modify(&mut self, sys: &Y, fd: Fd, token: Token, interest: Ready) -> io::Result<()>;
    /// Asks for reports of a watch, in place of what was asked for it before; `known` if anything was. In both directions
    /// only what is named is reported, but for errors and hang-ups.
    fn watch(&mut self, sys: &Y, fd: Fd, token: Token, want: Interest, known: bool) -> io::Result<()>;
    fn remove(&mut self, sys: &Y, fd: Fd);
    /// Waits and replaces what is in `batch`. An interruption is an empty batch.
    fn wait(&mut self, sys: &Y, batch: &mut Vec<Self::Event>, timeout: Option<Duration>) -> io::Result<()>;
    /// Releases what the interface holds; called once, last.
    fn end(&mut self, sys: &Y);
    fn decode(event: Self::Event) -> Event;
}
