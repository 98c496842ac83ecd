//! A handler that records every call, checks that calls come as the contract says, and then does what a test wants.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use evenkeel::{CloseReason, Conn, ConnId, Handle, Handler};

use crate::support::broken;

/// What one connection's handler was called with.
#[derive(Default)]
pub struct Seen {
    pub id: Cell<Option<ConnId>>,
    pub opened: Cell<bool>,
    pub data: RefCell<Vec<u8>>,
    pub chunks: Cell<usize>,
    pub eof: Cell<usize>,
    pub drained: Cell<usize>,
    pub notified: Cell<usize>,
    pub told_to_finish: Cell<usize>,
    pub reason: RefCell<Option<CloseReason>>,
    pub dropped: Cell<bool>,
}

impl Seen {
    pub fn id(&self) -> ConnId {
        self.id.get().expect("the connection was opened")
    }

    pub fn len(&self) -> usize {
        self.data.borrow().len()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.data.borrow()).into_owned()
    }

    pub fn closed(&self) -> bool {
        self.reason.borrow().is_some()
    }

    /// The name of the reason, or "open".
    pub fn why(&self) -> &'static str {
        self.reason.borrow().as_ref().map_or("open", CloseReason::name)
    }

    /// The error that ended the connection.
    pub fn error(&self) -> Option<io::ErrorKind> {
        match &*self.reason.borrow() {
            Some(CloseReason::Error(e) | CloseReason::ConnectFailed(e)) => Some(e.kind()),
            _ => None,
        }
    }
}

type Hook = Option<Box<dyn FnMut(&mut Conn<'_>)>>;
type CloseHook = Option<Box<dyn FnMut(ConnId, &CloseReason)>>;
type DataHook = Option<Box<dyn FnMut(&mut Conn<'_>, &[u8])>>;

/// A handler that records every call, checks their order, and then does what the test wants.
#[derive(Default)]
pub struct Probe {
    pub seen: Rc<Seen>,
    open: Hook,
    data: DataHook,
    eof: Hook,
    drained: Hook,
    notify: Hook,
    drain: Hook,
    close: CloseHook,
    /// Nothing but a close may come: the hook closed, aborted or detached.
    over: bool,
}

impl Probe {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn on_open(mut self, f: impl FnMut(&mut Conn<'_>) + 'static) -> Self {
        self.open = Some(Box::new(f));
        self
    }

    pub fn on_data(mut self, f: impl FnMut(&mut Conn<'_>, &[u8]) + 'static) -> Self {
        self.data = Some(Box::new(f));
        self
    }

    pub fn on_eof(mut self, f: impl FnMut(&mut Conn<'_>) + 'static) -> Self {
        self.eof = Some(Box::new(f));
        self
    }

    pub fn on_drained(mut self, f: impl FnMut(&mut Conn<'_>) + 'static) -> Self {
        self.drained = Some(Box::new(f));
        self
    }

    pub fn on_notify(mut self, f: impl FnMut(&mut Conn<'_>) + 'static) -> Self {
        self.notify = Some(Box::new(f));
        self
    }

    pub fn on_drain(mut self, f: impl FnMut(&mut Conn<'_>) + 'static) -> Self {
        self.drain = Some(Box::new(f));
        self
    }

    pub fn on_close(mut self, f: impl FnMut(ConnId, &CloseReason) + 'static) -> Self {
        self.close = Some(Box::new(f));
        self
    }

    /// A handler that sends back what it gets.
    pub fn echo() -> Self {
        Self::new().on_data(|conn, bytes| {
            conn.write(bytes);
        })
    }

    /// Goes on after the peer's end, as a handler that overrides `on_eof` does.
    pub fn deaf_to_eof(self) -> Self {
        self.on_eof(|_| ())
    }

    fn check(&mut self, call: &str, conn: &Conn<'_>) {
        let seen = &self.seen;
        if !seen.opened.get() && call != "on_open" {
            broken(format!("{call} came before on_open"));
        }
        if seen.opened.get() && call == "on_open" {
            broken("on_open came twice".into());
        }
        if seen.closed() || self.over {
            broken(format!("{call} came after the end"));
        }
        if seen.id.get().is_some_and(|id| id != conn.id()) {
            broken(format!("{call} came for another connection"));
        }
        if !conn.handle().is_open(conn.id()) {
            broken(format!("{call} came for a connection that is not open"));
        }
    }

    /// A closing connection answers `Closed` to an empty write.
    fn after(&mut self, conn: &mut Conn<'_>) {
        self.over = !conn.handle().is_open(conn.id());
    }
}

impl Handler for Probe {
    fn on_open(&mut self, conn: &mut Conn<'_>) {
        self.check("on_open", conn);
        self.seen.opened.set(true);
        self.seen.id.set(Some(conn.id()));
        if let Some(hook) = &mut self.open {
            hook(conn);
            self.after(conn);
        }
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        self.check("on_data", conn);
        if bytes.is_empty() {
            broken("on_data came without bytes".into());
        }
        if self.seen.eof.get() > 0 {
            broken("on_data came after on_eof".into());
        }
        self.seen.data.borrow_mut().extend_from_slice(bytes);
        self.seen.chunks.set(self.seen.chunks.get() + 1);
        if let Some(hook) = &mut self.data {
            hook(conn, bytes);
            self.after(conn);
        }
    }

    fn on_eof(&mut self, conn: &mut Conn<'_>) {
        self.check("on_eof", conn);
        self.seen.eof.set(self.seen.eof.get() + 1);
        if self.seen.eof.get() > 1 {
            broken("on_eof came twice".into());
        }
        match &mut self.eof {
            Some(hook) => hook(conn),
            None => conn.close(),
        }
        self.after(conn);
    }

    fn on_drained(&mut self, conn: &mut Conn<'_>) {
        self.check("on_drained", conn);
        self.seen.drained.set(self.seen.drained.get() + 1);
        if let Some(hook) = &mut self.drained {
            hook(conn);
            self.after(conn);
        }
    }

    fn on_notify(&mut self, conn: &mut Conn<'_>) {
        self.check("on_notify", conn);
        self.seen.notified.set(self.seen.notified.get() + 1);
        if let Some(hook) = &mut self.notify {
            hook(conn);
            self.after(conn);
        }
    }

    fn on_drain(&mut self, conn: &mut Conn<'_>) {
        self.check("on_drain", conn);
        self.seen.told_to_finish.set(self.seen.told_to_finish.get() + 1);
        if let Some(hook) = &mut self.drain {
            hook(conn);
            self.after(conn);
        }
    }

    fn on_close(&mut self, id: ConnId, reason: &CloseReason) {
        if self.seen.closed() {
            broken("on_close came twice".into());
        }
        if self.seen.id.get().is_some_and(|own| own != id) {
            broken("on_close came with another id".into());
        }
        if Handle::try_current().is_some_and(|h| h.is_open(id)) {
            broken("the id is not stale in on_close".into());
        }
        *self.seen.reason.borrow_mut() = Some(copy_of(reason));
        if let Some(hook) = &mut self.close {
            hook(id, reason);
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.seen.dropped.set(true);
    }
}

/// Reasons cannot be cloned, because errors cannot.
fn copy_of(reason: &CloseReason) -> CloseReason {
    let copy = |e: &io::Error| match e.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(e.kind(), e.to_string()),
    };
    match reason {
        CloseReason::Local => CloseReason::Local,
        CloseReason::FlushTimeout => CloseReason::FlushTimeout,
        CloseReason::Aborted => CloseReason::Aborted,
        CloseReason::ConnectFailed(e) => CloseReason::ConnectFailed(copy(e)),
        CloseReason::Error(e) => CloseReason::Error(copy(e)),
        CloseReason::IdleTimeout => CloseReason::IdleTimeout,
        CloseReason::MessageTimeout => CloseReason::MessageTimeout,
        CloseReason::TooSlow => CloseReason::TooSlow,
        CloseReason::QueueFull => CloseReason::QueueFull,
        CloseReason::TooManyQueued => CloseReason::TooManyQueued,
        CloseReason::QueueStalled => CloseReason::QueueStalled,
        CloseReason::Draining => CloseReason::Draining,
        CloseReason::Panicked => CloseReason::Panicked,
        CloseReason::LoopEnded => CloseReason::LoopEnded,
        other => panic!("{other:?} is not known here"),
    }
}
