//! How bytes reach handlers and tasks.
//!
//! A handler is lent them where the kernel put them. A task finds them held for it, and is lent them likewise if it reads
//! in the turn in which they came; after that they are copied out, so that no reader keeps the kernel's buffers, and a
//! stream that has enough unread is not received for until its task reads.

use std::io;
use std::rc::Rc;

use rustix::io::Errno;

use super::pull::Lent;
use super::uring::{Completion, Op, Turn, Uring};
use crate::core::out::Ended;
use crate::core::pool::Event;
use crate::core::{Core, Kind, Shared, Source, Token, flag};
use crate::handler::CloseReason;
use crate::sys::Sys;
use crate::sys::buffers::Span;
use crate::sys::ring::{Done, Entry};

/// Unread bytes of one stream from which on nothing more is received for it.
pub(super) const UNREAD: usize = 64 << 10;

/// Bytes of one stream in one batch, with nobody else's between, from which on it is read by calls, as readiness backends
/// do, until it has nothing left: the kernel would go on to receive for it until it has used up the buffers (I24).
const FLOOD: usize = 256 << 10;
/// Calls for such a stream in one turn.
const READS_PER_TURN: usize = 8;

/// Everything that can be in flight on a descriptor.
pub(super) const ARMED: u32 = flag::ARMED_READ | flag::ARMED_WRITE;

/// A stream that floods, of which the ring has given everything: what comes next is read by plain calls.
pub(super) fn is_read_by_calls(s: &Source) -> bool {
    s.flags & (flag::FLOOD | flag::ARMED_READ | flag::EOF) == flag::FLOOD && is_caught_up(s)
}

/// Nothing waits to be read before what comes next.
pub(super) fn is_caught_up(s: &Source) -> bool {
    s.extra.as_ref().is_none_or(|extra| extra.unread.is_empty() && extra.ended.is_none())
}

impl<Y: Sys> Uring<Y> {
    /// Serves a completion. The usual one, bytes for an open stream, is delivered here.
    #[inline]
    pub(super) fn serve(&self, lp: &Rc<Shared>, completion: Completion, turn: &mut Turn<'_>) {
        const STATES: u32 =
            flag::KIND | flag::CONNECTING | flag::CLOSING | flag::DEAD | flag::EOF | flag::LISTED;
        const HANDLER: u32 = STATES | flag::PAUSED | flag::OPENED | flag::MESSAGE;
        let Completion { done, span: Some(span) } = completion else { return self.other(lp, completion) };
        let index = Op::index(done.data);
        let mut guard = lp.core.borrow_mut();
        let core = &mut *guard;
        let plain = done.more() && span.len() > 0;
        let Some(s) = core.sources.place(index).filter(|_| plain) else {
            drop(guard);
            return self.other(lp, Completion { done, span: Some(span) });
        };
        let token = Token { index, generation: s.generation };
        turn.run = if turn.last == index { turn.run + span.len() } else { 0 };
        turn.last = index;
        if turn.run > FLOOD && !s.has(flag::FLOOD) {
            s.set(flag::FLOOD);
            self.cancel(core, index);
            drop(guard);
            return self.other(lp, Completion { done, span: Some(span) });
        }
        if s.flags & HANDLER == Kind::Callback as u32 | flag::OPENED && is_caught_up(s) {
            s.stamp = lp.now_ms.get();
            (turn.conn.token, turn.conn.slot) = (token, s.slot);
            let place = s.pool;
            drop(guard);
            lp.stats.add_n(&lp.stats.bytes_in, span.len() as u64);
            if turn.pool.is_none() || turn.place != place {
                (turn.pool, turn.place) = (Some(lp.pool(place)), place);
            }
            if let Some(pool) = &turn.pool {
                pool.on_data(&mut turn.conn, self.buffers.bytes(&span));
                if turn.conn.moved {
                    pool.after(&mut turn.conn);
                }
            }
            self.buffers.release(span);
        } else if s.flags & STATES == Kind::Async as u32 {
            s.stamp = lp.now_ms.get();
            lp.stats.add_n(&lp.stats.bytes_in, span.len() as u64);
            let slot = s.slot;
            self.hold(core, index, slot, span);
            if !core.wake_reader(&lp.executor, token, flag::READABLE) {
                drop(guard);
                self.wake_any_reader(lp, token);
            }
        } else {
            drop(guard);
            self.other(lp, Completion { done, span: Some(span) });
        }
    }

    /// A reader that is no task of this loop, or one that has not taken what came before.
    #[cold]
    fn wake_any_reader(&self, lp: &Shared, token: Token) {
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        let (slot, news) = (s.slot, !s.flags & flag::READABLE);
        s.set(flag::READABLE);
        let woken = core.wake_tasks(&lp.executor, token, slot, news);
        drop(core);
        if !woken {
            lp.run_wakes();
        }
    }

    /// Something came of a receive that is not plain.
    pub(super) fn received(&self, lp: &Rc<Shared>, index: u32, done: &Done, span: Option<Span>) {
        let token = self.owner(lp, done);
        let lent = Lent { buffers: &self.buffers, span };
        let Some(token) = token else { return };
        match done.result {
            1.. => self.arrived(lp, token, lent),
            0 => self.read_ended(lp, token, Ended::Eof),
            _ => {
                let error = io::Error::from_raw_os_error(-done.result);
                match Errno::from_io_error(&error) {
                    Some(Errno::NOBUFS) => return self.starved.borrow_mut().push(index),
                    // Tried again below, if it is still wanted.
                    Some(Errno::CANCELED | Errno::INTR | Errno::AGAIN) => {}
                    _ => self.read_ended(lp, token, Ended::Failed(error)),
                }
            }
        }
        self.want(&mut lp.core.borrow_mut(), index);
        lp.run_wakes();
    }

    fn arrived(&self, lp: &Rc<Shared>, token: Token, mut lent: Lent<'_>) {
        let mut guard = lp.core.borrow_mut();
        let core = &mut *guard;
        let Some(s) = core.sources.get_mut(token) else { return };
        if s.has(flag::LINGER) {
            drop(guard);
            lp.thrown_away(token, lent.bytes().len());
            return;
        }
        if s.has(flag::DEAD) {
            return;
        }
        if s.has(flag::CLOSING) {
            // Thrown away; the peer's end is waited for now, which a reset could overtake.
            s.extra().lingers = true;
            return;
        }
        lp.stats.add_n(&lp.stats.bytes_in, lent.bytes().len() as u64);
        if !s.has(flag::MESSAGE) {
            s.stamp = lp.now_ms.get();
        }
        if s.kind() == Kind::Async {
            let slot = s.slot;
            if let Some(span) = lent.span.take() {
                self.hold(core, token.index, slot, span);
            }
            drop(guard);
            return self.wake_any_reader(lp, token);
        }
        let (flags, pool, slot) = (s.flags, s.pool, s.slot);
        if flags & flag::PAUSED != 0 || flags & flag::OPENED == 0 || !is_caught_up(s) {
            s.extra().unread.extend_from_slice(lent.bytes());
            if flags & flag::PAUSED == 0 {
                core.pending.push(token);
                core.list(token);
            } else {
                self.cancel(core, token.index);
            }
            return;
        }
        if let Some(extra) = s.extra.as_mut().filter(|extra| extra.counting) {
            extra.received += lent.bytes().len() as u64;
        }
        drop(guard);
        lp.deliver(pool, slot, token, Event::Data(lent.bytes()));
        lp.delivered(token);
    }

    /// The read half has ended, in one way or another: its owner hears it after what is unread.
    fn read_ended(&self, lp: &Rc<Shared>, token: Token, how: Ended) {
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        if s.has(flag::LINGER) {
            // The peer has everything or will never have it.
            return core.end(token, CloseReason::Local);
        }
        if s.has(flag::CLOSING) {
            return s.set(flag::EOF);
        }
        if matches!(how, Ended::Failed(_)) {
            s.set(flag::HUNG_UP);
        }
        s.extra().ended = Some(how);
        if s.kind() == Kind::Async {
            drop(core);
            return self.wake_any_reader(lp, token);
        }
        drop(core);
        self.catch_up(lp, token);
    }

    /// A callback connection hears what is left to be heard, or is received for again.
    pub(super) fn catch_up(&self, lp: &Rc<Shared>, token: Token) {
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        if s.has(flag::PAUSED | flag::CLOSING | flag::DEAD | flag::CONNECTING) {
            return;
        }
        let unread = s.extra.as_ref().is_some_and(|extra| !extra.unread.is_empty());
        if !s.has(flag::OPENED) || unread {
            core.pending.push(token);
            return core.list(token);
        }
        let Some(ended) = s.extra.as_mut().and_then(|extra| extra.ended.take()) else {
            if s.has(flag::FLOOD) && !s.has(flag::ARMED_READ) {
                drop(core);
                return self.read_flood(lp, token);
            }
            return self.want(&mut core, token.index);
        };
        if s.extra.as_ref().is_some_and(|extra| extra.is_idle()) {
            s.extra = None;
        }
        match ended {
            Ended::Eof => {
                drop(core);
                self.end_of_stream(lp, token);
            }
            Ended::Failed(e) => core.end(token, CloseReason::Error(e)),
        }
    }

    /// Reads a handler's stream that has too much for the ring: a few calls in each turn.
    fn read_flood(&self, lp: &Rc<Shared>, token: Token) {
        let mut memory = lp.take_scratch();
        for _ in 0..READS_PER_TURN {
            let core = lp.core.borrow();
            let Some(s) = core.sources.get(token).filter(|s| s.kind() == Kind::Callback) else { break };
            if s.has(flag::PAUSED | flag::CLOSING | flag::DEAD) {
                break;
            }
            let (fd, pool, slot) = (s.fd, s.pool, s.slot);
            drop(core);
            match self.sys.recv(fd, &mut memory) {
                Ok(n @ 1..) => {
                    self.note_received(lp, token, n);
                    lp.deliver(pool, slot, token, Event::Data(&memory[..n]));
                    lp.delivered(token);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => {
                    lp.put_scratch(memory);
                    return self.flood_over(lp, token, other);
                }
            }
        }
        lp.put_scratch(memory);
        let mut core = lp.core.borrow_mut();
        const OVER: u32 = flag::PAUSED | flag::CLOSING | flag::DEAD;
        if core.sources.get(token).is_some_and(|s| s.kind() == Kind::Callback && !s.has(OVER)) {
            core.list(token);
        }
    }

    /// A read of a flooded stream brought nothing: the ring receives for it again, or it has ended.
    fn flood_over(&self, lp: &Rc<Shared>, token: Token, got: io::Result<usize>) {
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        s.clear(flag::FLOOD);
        match got {
            Ok(_) => {
                drop(core);
                self.end_of_stream(lp, token);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.want(&mut core, token.index),
            Err(e) => core.end(token, CloseReason::Error(e)),
        }
    }

    /// Before a delivery: the state that must be right when the handler looks.
    pub(super) fn note_received(&self, lp: &Shared, token: Token, n: usize) {
        lp.stats.add_n(&lp.stats.bytes_in, n as u64);
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        if !s.has(flag::MESSAGE) {
            s.stamp = lp.now_ms.get();
        } else if let Some(extra) = s.extra.as_mut().filter(|extra| extra.counting) {
            extra.received += n as u64;
        }
    }

    fn end_of_stream(&self, lp: &Rc<Shared>, token: Token) {
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        s.set(flag::EOF);
        let (pool, slot) = (s.pool, s.slot);
        drop(core);
        lp.deliver(pool, slot, token, Event::Eof);
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        if s.has(flag::CLOSING | flag::DEAD) || s.kind() != Kind::Callback {
            return;
        }
        if s.flags & (flag::SHUT | flag::QUEUED | flag::CORKED) == flag::SHUT {
            // Both halves have ended: nothing can happen any more.
            return core.end(token, CloseReason::Local);
        }
        // Reading cannot tell any more whether the peer has reset: that is asked for, and may have been told before.
        self.poll(&mut core, token);
        drop(core);
        lp.notice_reset(token);
    }

    /// Receives for a stream, or accepts for a listener, if it is not being done and the owner wants it.
    pub(super) fn want(&self, core: &mut Core, index: u32) {
        let Some(s) = core.sources.place(index) else { return };
        const NOT_NOW: u32 = flag::ARMED_READ | flag::CANCELLED | flag::DEAD | flag::EOF | flag::CONNECTING;
        if s.has(NOT_NOW) {
            return;
        }
        let unread = s.extra.as_ref().map_or(0, |extra| extra.unread.len());
        let over = s.extra.as_ref().is_some_and(|extra| extra.ended.is_some());
        let open = !s.has(flag::CLOSING) && !over;
        // What comes for one that lingers is thrown away: piece by piece, so that others find buffers (I24).
        let multishot = self.features.multishot_recv && !s.has(flag::LINGER);
        if s.has(flag::FLOOD) && s.flags & (flag::CLOSING | flag::LINGER) == 0 {
            let token = Token { index, generation: s.generation };
            if s.kind() == Kind::Callback {
                return core.list(token);
            }
            // An attempt reads it.
            s.set(flag::READABLE);
            return core.wake(token, true, false);
        }
        let entry = match s.kind() {
            Kind::Callback if s.has(flag::LINGER) || open && !s.has(flag::PAUSED) && unread == 0 => {
                Entry::recv(s.fd, multishot).with(Op::Recv.data(index))
            }
            Kind::Async if s.has(flag::LINGER) || open && unread < UNREAD => {
                Entry::recv(s.fd, multishot).with(Op::Recv.data(index))
            }
            Kind::Listener | Kind::TaskListener
                if open && !s.has(flag::PAUSED) && self.has_room_to_accept(index) =>
            {
                Entry::accept(s.fd, self.features.multishot_accept).with(Op::Accept.data(index))
            }
            _ => return,
        };
        s.set(flag::ARMED_READ);
        self.push(&entry);
    }

    /// Buffers have come back: whoever found none tries again (I13).
    pub(super) fn feed_starved(&self, lp: &Shared) {
        if self.starved.borrow().is_empty() {
            return;
        }
        let starved = std::mem::take(&mut *self.starved.borrow_mut());
        let mut core = lp.core.borrow_mut();
        for index in starved {
            self.want(&mut core, index);
        }
    }
}
