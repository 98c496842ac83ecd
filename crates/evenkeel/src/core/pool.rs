//! Typed pools: the handlers of one kind, in one slab with a free list, and what they all share.
//!
//! A handler is moved out of its slot for the length of a call and back after it. That costs a copy of its
//! few words and buys that every other call of the API is legal meanwhile (I37), without unsafe code.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::{Shared, Token, caught};
use crate::handler::{CloseReason, Conn, Handler};
use crate::net::{Addr, Limits};
use crate::sys::Fd;

/// What a handler is called with.
pub(crate) enum Event<'a> {
    Open,
    Data(&'a [u8]),
    Eof,
    Drained,
    Notify,
    Closed(&'a CloseReason),
}

/// A pool without its handlers' type.
pub(crate) trait AnyPool {
    /// Calls a handler with bytes: the usual call. No borrow of the loop's state may be held.
    fn on_data(&self, shared: &Rc<Shared>, token: Token, slot: u32, bytes: &[u8]);
    /// Calls a handler. No borrow of the loop's state may be held.
    fn dispatch(&self, shared: &Rc<Shared>, token: Token, slot: u32, event: Event<'_>);
    /// Drops a handler that has no connection any more.
    fn discard(&self, slot: u32);
    fn limits(&self) -> &Limits;
    fn len(&self) -> usize;
}

/// Makes the handler of an accepted connection; none if the user's function panicked.
pub(crate) type Make = dyn Fn(&Rc<Shared>, Fd, &Addr) -> Option<u32>;

/// A slab of handlers. An empty place is free, or its handler is being called.
struct Slots<H> {
    all: Vec<Option<H>>,
    free: Vec<u32>,
}

/// The handlers of type `H` that share limits.
pub(crate) struct TypedPool<H> {
    slots: RefCell<Slots<H>>,
    limits: Limits,
    /// Its place among the loop's pools.
    pub(crate) place: Cell<u16>,
}

impl<H: Handler> TypedPool<H> {
    pub(crate) fn new(limits: Limits) -> Self {
        let slots = RefCell::new(Slots { all: Vec::new(), free: Vec::new() });
        TypedPool { slots, limits, place: Cell::new(0) }
    }

    pub(crate) fn insert(&self, handler: H) -> u32 {
        let mut slots = self.slots.borrow_mut();
        if let Some(at) = slots.free.pop() {
            slots.all[at as usize] = Some(handler);
            return at;
        }
        slots.all.push(Some(handler));
        (slots.all.len() - 1) as u32
    }

    #[inline]
    fn take(&self, slot: u32) -> Option<H> {
        self.slots.borrow_mut().all.get_mut(slot as usize)?.take()
    }

    #[inline]
    fn put(&self, slot: u32, handler: H) {
        self.slots.borrow_mut().all[slot as usize] = Some(handler);
    }

    fn free(&self, slot: u32) {
        self.slots.borrow_mut().free.push(slot);
    }

    /// Takes a handler out for the length of a call.
    #[inline]
    fn call(&self, shared: &Rc<Shared>, token: Token, slot: u32, call: impl FnOnce(&mut H, &mut Conn<'_>)) {
        let Some(mut handler) = self.take(slot) else { return };
        let mut conn = Conn { shared, token, moved: false };
        if caught(|| call(&mut handler, &mut conn)).is_none() {
            shared.handler_panicked(token);
        }
        if conn.moved {
            self.remove(shared, slot, handler);
        } else {
            self.put(slot, handler);
        }
    }

    /// Drops a handler that hears nothing more, and gives its place back.
    #[cold]
    fn remove(&self, shared: &Rc<Shared>, slot: u32, handler: H) {
        self.free(slot);
        drop_quietly(shared, handler);
    }
}

impl<H: Handler> AnyPool for TypedPool<H> {
    fn on_data(&self, shared: &Rc<Shared>, token: Token, slot: u32, bytes: &[u8]) {
        self.call(shared, token, slot, |handler, conn| handler.on_data(conn, bytes));
    }

    fn dispatch(&self, shared: &Rc<Shared>, token: Token, slot: u32, event: Event<'_>) {
        match event {
            Event::Data(bytes) => self.on_data(shared, token, slot, bytes),
            Event::Open => self.call(shared, token, slot, |handler, conn| handler.on_open(conn)),
            Event::Eof => self.call(shared, token, slot, |handler, conn| handler.on_eof(conn)),
            Event::Drained => self.call(shared, token, slot, |handler, conn| handler.on_drained(conn)),
            Event::Notify => self.call(shared, token, slot, |handler, conn| handler.on_notify(conn)),
            Event::Closed(reason) => self.call(shared, token, slot, |handler, conn| {
                conn.moved = true;
                handler.on_close(conn.id(), reason);
            }),
        }
    }

    fn discard(&self, slot: u32) {
        if let Some(handler) = self.take(slot) {
            self.free(slot);
            drop(handler);
        }
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn len(&self) -> usize {
        let slots = self.slots.borrow();
        slots.all.len() - slots.free.len()
    }
}

/// Drops a user's value; a panic in it is counted like one in a callback.
fn drop_quietly<T>(shared: &Rc<Shared>, value: T) {
    if caught(|| drop(value)).is_none() {
        shared.stats.panics.set(shared.stats.panics.get() + 1);
    }
}
