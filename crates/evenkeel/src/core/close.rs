//! The end of a connection: closing, aborting, and the one place where a source is released.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use super::out::Extra;
use super::pool::Event;
use super::shared::Timer;
use super::{Core, Kind, Shared, Source, Token, flag};
use crate::handler::CloseReason;
use crate::net::SocketOption;
use crate::sys::{Fd, uninterrupted};

/// Bytes that are thrown away for a peer that does not stop sending before it is reset: more than both kernels' buffers mostly
/// hold, so that whoever stops when it is told comes to its end.
const MAX_THROWN_AWAY: u64 = 16 << 20;

/// What the kernel had for a stream whose write half has just ended, and that lingers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Something unread, some of which has been thrown away.
    Unread,
    Nothing,
}

impl Shared {
    pub(crate) fn close(&self, token: Token) {
        self.begin_to_close(token, false);
    }

    pub(crate) fn close_lingering(&self, token: Token) {
        self.begin_to_close(token, true);
    }

    fn begin_to_close(&self, token: Token, lingers: bool) {
        let mut core = self.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        if s.has(flag::CLOSING | flag::DEAD) {
            return;
        }
        s.set(flag::CLOSING);
        if s.has(flag::CONNECTING | flag::RESET) {
            // Nobody waits at the other end yet, or the stream has failed; what was written for it is lost.
            let lost = s.has(flag::QUEUED);
            return core.end(token, if lost { CloseReason::Aborted } else { CloseReason::Local });
        }
        if lingers {
            s.extra().lingers = true;
        }
        core.closing.push(token);
    }

    pub(crate) fn abort(&self, token: Token, reason: CloseReason) {
        self.core.borrow_mut().end(token, reason);
    }

    pub(crate) fn shutdown_write(&self, token: Token) {
        let mut core = self.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        if s.has(flag::SHUT | flag::CLOSING | flag::DEAD | flag::CONNECTING) {
            return;
        }
        s.set(flag::SHUT);
        core.closing.push(token);
    }

    #[cold]
    pub(crate) fn handler_panicked(&self, token: Token) {
        self.stats.add(&self.stats.panics);
        self.abort(token, CloseReason::Panicked);
    }

    /// The time to be established is up. For a connection that is, it means nothing.
    pub(crate) fn connect_deadline(&self, token: Token) {
        let mut core = self.core.borrow_mut();
        let Some(s) = core.sources.get(token) else { return };
        if s.has(flag::CONNECTING) {
            let timeout = std::io::Error::new(ErrorKind::TimedOut, "the connect deadline passed");
            if s.kind() == Kind::Async {
                core.fail_async(token, timeout);
            } else {
                core.end(token, CloseReason::ConnectFailed(timeout));
            }
        }
    }

    /// The time to be flushed is up.
    pub(crate) fn flush_deadline(&self, token: Token) {
        let mut core = self.core.borrow_mut();
        let Some(s) = core.sources.get(token) else { return };
        if s.has(flag::CLOSING) {
            let flushed = !s.has(flag::QUEUED | flag::CORKED);
            core.end(token, if flushed { CloseReason::Local } else { CloseReason::FlushTimeout });
        }
    }

    /// Carries closings and ends as far as they go: tells handlers, releases sources. Called when nothing is
    /// borrowed, after each batch.
    #[inline]
    pub(crate) fn reap(self: &Rc<Self>) {
        let core = self.core.borrow();
        let none = core.closing.is_empty() && core.closed.is_empty();
        drop(core);
        if !none {
            self.reap_all();
        }
    }

    #[inline(never)]
    fn reap_all(self: &Rc<Self>) {
        loop {
            let mut core = self.core.borrow_mut();
            if let Some(token) = core.closing.pop() {
                drop(core);
                self.carry_on_closing(token);
            } else if let Some((token, reason)) = core.closed.pop() {
                drop(core);
                self.release(token, reason);
            } else {
                drop(core);
                return self.driver.released(self);
            }
        }
    }

    fn carry_on_closing(&self, token: Token) {
        let core = self.core.borrow();
        let Some(s) = core.sources.get(token) else { return };
        let (flags, pool, kind) = (s.flags, s.pool, s.kind());
        drop(core);
        // One that has failed does not end its write half: the peer would take what came before the gap for all.
        if flags & (flag::DEAD | flag::RESET) != 0 {
            return;
        }
        if flags & (flag::QUEUED | flag::CORKED) != 0 {
            if flags & flag::CLOSING != 0 && flags & flag::LINGER == 0 {
                self.arm_close_deadline(token, kind, pool);
            }
            return;
        }
        if flags & flag::CLOSING == 0 {
            // Only the write half ends. If the peer is gone already, reading will tell.
            let _ = self.driver.shutdown(self, token, Shutdown::Write);
            if flags & flag::EOF != 0 && kind == Kind::Callback {
                // Both halves have ended: nothing can happen any more.
                self.core.borrow_mut().end(token, CloseReason::Local);
            }
        } else if flags & flag::LINGER == 0 {
            if self.driver.finish(self, token) {
                self.core.borrow_mut().end(token, CloseReason::Local);
            } else {
                self.arm_close_deadline(token, kind, pool);
            }
        }
    }

    /// Ends the write half of a stream whose queue is empty, and tells whether its close waits for the peer's end: a socket that
    /// is closed with unread bytes resets the connection, and so does one that is sent any when it is closed already; the reset
    /// can destroy what was just flushed. What was unread is thrown away.
    pub(crate) fn end_write_half(&self, fd: Fd, lingers: bool) -> Option<Rest> {
        let sys = self.driver.sys();
        // A peer that is gone already needs no end.
        let _ = sys.shutdown(fd, Shutdown::Write);
        let mut memory = self.take_scratch();
        let got = uninterrupted(|| sys.recv(fd, &mut memory));
        self.put_scratch(memory);
        match got {
            Ok(1..) => Some(Rest::Unread),
            Err(e) if e.kind() == ErrorKind::WouldBlock && lingers => Some(Rest::Nothing),
            // Nobody waits for the end, or it is there already.
            _ => None,
        }
    }

    /// The peer's end was heard, something has hung up, and the handler stays: reading cannot tell any more whether the peer has
    /// reset, and a reset that came in one with the end is told by no further event (I31).
    pub(crate) fn notice_reset(&self, token: Token) {
        let core = self.core.borrow();
        const STAYS: u32 = flag::EOF | flag::HUNG_UP;
        let open = |s: &&Source| s.flags & (STAYS | flag::CLOSING | flag::DEAD) == STAYS;
        let Some(fd) = core.sources.get(token).filter(open).map(|s| s.fd) else { return };
        drop(core);
        if let Ok(Some(e)) = self.driver.sys().take_error(fd) {
            self.abort(token, CloseReason::Error(e));
        }
    }

    fn arm_close_deadline(&self, token: Token, kind: Kind, pool: u16) {
        let within = if kind == Kind::Callback {
            self.pool(pool).limits().close_deadline
        } else {
            Duration::from_secs(5)
        };
        self.arm_deadline(token, within, Timer::Deadline(token));
    }

    /// So many bytes were thrown away for a stream that lingers. False if it has ended for that.
    pub(crate) fn thrown_away(&self, token: Token, n: usize) -> bool {
        let mut core = self.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return false };
        let extra = s.extra();
        extra.received += n as u64;
        let enough = extra.received > MAX_THROWN_AWAY;
        if enough {
            core.end(token, CloseReason::Local);
        }
        !enough
    }

    /// Arms the timer by which a source must be connected, or closed, unless it has one. Its end, or that of connecting,
    /// takes the timer out.
    pub(crate) fn arm_deadline(&self, token: Token, within: Duration, timer: Timer) {
        let core = self.core.borrow();
        if core.sources.get(token).is_none_or(|s| s.extra.as_ref().is_some_and(|e| e.deadline.is_some())) {
            return;
        }
        drop(core);
        let key = self.timer_after(within, timer);
        if let Some(s) = self.core.borrow_mut().sources.get_mut(token) {
            s.extra().deadline = Some(key);
        }
    }

    /// The last step of a source: its owner is told, then its descriptor and its token cease to be.
    fn release(self: &Rc<Self>, token: Token, reason: CloseReason) {
        let core = self.core.borrow();
        let Some(s) = core.sources.get(token) else { return };
        let (kind, fd, pool, slot, flags) = (s.kind(), s.fd, s.pool, s.slot, s.flags);
        drop(core);
        let over = self.driver.deregister(self, token);
        if flags & flag::UNLINK != 0 && kind != Kind::Callback {
            let file = self.core.borrow_mut().forget_socket_file(token);
            if let Some((path, file)) = file {
                // The path may be another's by now. Ours, while its socket is open, is no other's inode.
                self.driver.sys().remove_socket_file(&path, Some(file));
            }
        }
        if flags & flag::RESET != 0 {
            // A socket that cannot be reset is closed like any other.
            let _ = self.driver.sys().set_option(fd, SocketOption::ResetOnClose);
        }
        let mut core = self.core.borrow_mut();
        let mut removed = if over { core.sources.remove(token) } else { core.sources.retire(token) };
        if let Some(deadline) = removed.as_mut().and_then(Source::take_deadline) {
            core.wheel.cancel(deadline);
        }
        drop(core);
        // Shared messages in the queue may be the last ones of their kind.
        drop(removed);
        if kind == Kind::Callback {
            self.stats.add(&self.stats.closed);
            let by_drain = flags & flag::DRAINING != 0;
            let reason = match reason {
                CloseReason::Local if by_drain => CloseReason::Draining,
                reason => reason,
            };
            self.pool(pool).draining().ended(by_drain, &reason);
            self.deliver(pool, slot, token, Event::Closed(&reason));
        }
        if over {
            self.driver.sys().close(fd);
        }
        match kind {
            Kind::Callback => self.resume_listeners(pool),
            Kind::Listener => {
                let listener = self.core.borrow_mut().listeners[slot as usize].take();
                // The user's function, and whatever it holds.
                self.guard(|| drop(listener));
            }
            Kind::Watch => {
                let state = self.core.borrow_mut().watches.remove(slot);
                self.guard(|| drop(state));
            }
            Kind::Async | Kind::TaskListener | Kind::Free => {
                let state = self.core.borrow_mut().free_async(slot);
                // Wakers, which may be the user's.
                self.guard(|| drop(state));
            }
        }
    }

    /// Lets listeners of a pool go on that stopped because it was full.
    pub(crate) fn resume_listeners(self: &Rc<Self>, pool: u16) {
        if self.pool(pool).limits().max_connections.is_none() {
            return;
        }
        let mut core = self.core.borrow_mut();
        let Core { listeners, sources, .. } = &mut *core;
        let mut found = Vec::new();
        for token in listeners.iter().flatten().filter(|l| l.pool == pool).filter_map(|l| l.token) {
            if let Some(s) = sources.get_mut(token).filter(|s| s.has(flag::PAUSED)) {
                // Once is enough, however many connections close in this turn.
                s.clear(flag::PAUSED);
                found.push(token);
            }
        }
        drop(core);
        for token in found {
            self.timer_after(Duration::ZERO, Timer::Accept(token));
        }
    }
}

impl Core {
    /// An asynchronous stream failed outside of any call: its tasks are woken and the next one hears it.
    pub(crate) fn fail_async(&mut self, token: Token, error: std::io::Error) {
        let Some(s) = self.sources.get_mut(token) else { return };
        if s.has(flag::CLOSING) {
            // Nobody is left to hear it.
            return self.end(token, CloseReason::Error(error));
        }
        s.clear(flag::CONNECTING | flag::QUEUED);
        // Whatever was queued is missing: nothing may follow it, and the peer must not take the rest for the whole.
        s.set(flag::SHUT | flag::RESET);
        s.set(flag::READABLE | flag::WRITABLE | flag::HUNG_UP);
        let deadline = s.take_deadline();
        // What was received is still to be read; only what was to be sent is lost.
        s.extra = s.extra.take().and_then(|lost| {
            let mut kept = Extra::default();
            (kept.unread, kept.ended) = (lost.unread, lost.ended);
            (!kept.is_idle()).then(|| Box::new(kept))
        });
        let io = &mut self.tasks[s.slot as usize];
        io.error.get_or_insert(error);
        if let Some(deadline) = deadline {
            self.wheel.cancel(deadline);
        }
        self.wake(token, true, true);
    }
}
