//! Typed pools: the handlers of one kind, in one slab, and what they all share.
//!
//! A handler is lent by the slab for the length of a call. It stays where it is, and every other call of the API is
//! legal meanwhile (I37).

use std::cell::Cell;
use std::rc::Rc;

use super::slab::Slab;
use super::{Shared, Token, caught};
use crate::handler::{CloseReason, Conn, Handler};
use crate::net::drain::Draining;
use crate::net::{Addr, Limits};
use crate::sys::Fd;

/// What a handler is called with.
pub(crate) enum Event<'a> {
    Open,
    Data(&'a [u8]),
    Eof,
    Drained,
    Notify,
    Drain,
    Closed(&'a CloseReason),
}

/// A pool without its handlers' type.
pub(crate) trait AnyPool {
    /// Calls the handler of `conn` with bytes: the usual call. No borrow of the loop's state may be held, and
    /// [`after`](Self::after) must be called next if the connection has moved.
    fn on_data(&self, conn: &mut Conn<'_>, bytes: &[u8]);
    /// Drops the handler of a connection that has moved: it hears nothing more.
    fn after(&self, conn: &mut Conn<'_>);
    /// Calls a handler. No borrow of the loop's state may be held.
    fn dispatch(&self, shared: &Rc<Shared>, token: Token, slot: u32, event: Event<'_>);
    /// Drops a handler that has no connection any more.
    fn discard(&self, slot: u32);
    fn limits(&self) -> &Limits;
    fn len(&self) -> usize;
    fn draining(&self) -> &Draining;
}

/// What became of an accepted connection.
pub(crate) enum Made {
    /// It is served here: the place of its handler.
    Here(u32),
    /// The descriptor was given away, to another loop or to be closed.
    GivenAway,
    /// The user's function panicked, or its pool is gone.
    Failed,
}

/// Makes the handler of an accepted connection.
pub(crate) type Make = dyn Fn(&Rc<Shared>, Fd, &Addr) -> Made;

/// The handlers of type `H` that share limits.
pub(crate) struct TypedPool<H> {
    slots: Slab<H>,
    limits: Limits,
    /// Its place among the loop's pools.
    pub(crate) place: Cell<u16>,
    draining: Draining,
}

impl<H: Handler> TypedPool<H> {
    pub(crate) fn new(limits: Limits) -> Self {
        TypedPool { slots: Slab::new(), limits, place: Cell::new(0), draining: Draining::default() }
    }

    pub(crate) fn insert(&self, handler: H) -> u32 {
        self.slots.insert(handler)
    }

    /// Takes a handler back that has not been called.
    pub(crate) fn take(&self, slot: u32) -> Option<H> {
        self.slots.remove(slot)
    }

    /// Calls a handler, in its place.
    #[inline(always)]
    fn call<'a>(&self, conn: &mut Conn<'a>, call: impl FnOnce(&mut H, &mut Conn<'a>)) {
        let Some(mut handler) = self.slots.lend(conn.slot) else { return };
        if caught(|| call(&mut handler, conn)).is_none() {
            conn.shared.handler_panicked(conn.token);
        }
    }
}

impl<H: Handler> AnyPool for TypedPool<H> {
    #[inline(never)]
    fn on_data(&self, conn: &mut Conn<'_>, bytes: &[u8]) {
        self.call(conn, |handler, conn| handler.on_data(conn, bytes));
    }

    #[cold]
    fn after(&self, conn: &mut Conn<'_>) {
        conn.moved = false;
        drop_quietly(conn.shared, self.slots.remove(conn.slot));
    }

    fn dispatch(&self, shared: &Rc<Shared>, token: Token, slot: u32, event: Event<'_>) {
        let conn = &mut Conn { shared, token, slot, moved: false };
        match event {
            // Not the handler's method: its only call is in there, so that it can be inlined.
            Event::Data(bytes) => self.on_data(conn, bytes),
            Event::Open => self.call(conn, |handler, conn| handler.on_open(conn)),
            Event::Eof => self.call(conn, |handler, conn| handler.on_eof(conn)),
            Event::Drained => self.call(conn, |handler, conn| handler.on_drained(conn)),
            Event::Notify => self.call(conn, |handler, conn| handler.on_notify(conn)),
            Event::Drain => self.call(conn, |handler, conn| handler.on_drain(conn)),
            Event::Closed(reason) => self.call(conn, |handler, conn| {
                conn.moved = true;
                handler.on_close(conn.id(), reason);
            }),
        }
        if conn.moved {
            self.after(conn);
        }
    }

    fn discard(&self, slot: u32) {
        drop(self.slots.remove(slot));
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn len(&self) -> usize {
        self.slots.len()
    }

    fn draining(&self) -> &Draining {
        &self.draining
    }
}

/// Drops a user's value; a panic in it is counted like one in a callback.
fn drop_quietly<T>(shared: &Rc<Shared>, value: T) {
    if caught(|| drop(value)).is_none() {
        shared.stats.panics.set(shared.stats.panics.get() + 1);
    }
}
