//! From what a source is ready for to what its owner hears.

use std::io;
use std::rc::Rc;

use super::SimDriver;
use crate::CloseReason;
use crate::core::out::Ended;
use crate::core::pool::Event as Call;
use crate::core::watch::Interest;
use crate::core::{Kind, Shared, Source, Token, flag};
use crate::sim::kernel::{ObjectId, bits};
use crate::sys::{Sys, uninterrupted};

/// Reads of one source in one turn (I24).
const READS_PER_TURN: usize = 8;

/// The bits of a source's state.
fn news(mask: u32) -> u32 {
    let has = |bits, flag| if mask & bits != 0 { flag } else { 0 };
    has(bits::IN | bits::PRI | bits::RDHUP | bits::HUP | bits::ERR, flag::READABLE)
        | has(bits::OUT | bits::HUP | bits::ERR, flag::WRITABLE)
        | has(bits::PRI | bits::RDHUP | bits::HUP | bits::ERR, flag::HUNG_UP)
}

impl SimDriver {
    /// Something of an object has changed, or may have.
    pub(super) fn serve(&self, lp: &Rc<Shared>, object: ObjectId) {
        if object == self.bell.1 {
            self.sys.clear_wake(self.bell.0);
            return lp.wake_signal_waiters();
        }
        let Some(token) = self.tokens.borrow().get(&object).copied() else {
            return lp.stats.add(&lp.stats.stale);
        };
        let news = news(self.sys.mask(object));
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token).filter(|s| !s.has(flag::DEAD)) else { return };
        if s.kind() == Kind::Watch {
            let asked = Interest::from_bits(s.pool);
            let asked = asked.only(s.has(flag::ARMED_READ), s.has(flag::ARMED_WRITE));
            let told = if asked.read || asked.urgent { news & flag::READABLE } else { 0 }
                | if asked.write { news & flag::WRITABLE } else { 0 };
            core.watch_told(token, told);
            drop(core);
            return lp.run_wakes();
        }
        s.set(news);
        let (kind, flags) = (s.kind(), s.flags);
        match kind {
            Kind::Listener => {
                drop(core);
                self.accept_ready(lp, token);
            }
            Kind::TaskListener => {
                core.wake(token, true, false);
                drop(core);
                lp.run_wakes();
            }
            Kind::Callback | Kind::Async => {
                drop(core);
                self.serve_stream(lp, token, news, flags);
            }
            Kind::Watch | Kind::Free => {}
        }
    }

    fn serve_stream(&self, lp: &Rc<Shared>, token: Token, news: u32, flags: u32) {
        if flags & flag::CONNECTING != 0 {
            return self.connect_ready(lp, token, news);
        }
        if news & flag::WRITABLE != 0 && flags & flag::QUEUED != 0 {
            lp.flush_queue(self, token);
        }
        if Kind::of(flags) == Kind::Async && flags & flag::LINGER == 0 {
            lp.core.borrow_mut().wake(token, news & flag::READABLE != 0, news & flag::WRITABLE != 0);
            return lp.run_wakes();
        }
        if news & flag::HUNG_UP != 0 {
            lp.notice_reset(token);
        }
        self.read_ready(lp, token);
    }

    fn connect_ready(&self, lp: &Rc<Shared>, token: Token, news: u32) {
        let Ok(fd) = lp.fd(token) else { return };
        match lp.connect_outcome(fd) {
            None => {}
            Some(Err(e)) => lp.connect_failed(token, e),
            Some(Ok(())) => {
                let kind = lp.core.borrow_mut().established(token, news & flag::HUNG_UP, lp.now_ms.get());
                if kind == Some(Kind::Callback) {
                    lp.flush_queue(self, token);
                    lp.core.borrow_mut().list(token);
                } else {
                    lp.run_wakes();
                }
            }
        }
    }

    /// Sources whose budget ended in an earlier turn, or that are to be looked at again.
    pub(super) fn serve_listed(&self, lp: &Rc<Shared>) {
        let listed = std::mem::take(&mut lp.core.borrow_mut().ready);
        for token in listed {
            if let Some(s) = lp.core.borrow_mut().sources.get_mut(token) {
                s.clear(flag::LISTED);
            }
            match Kind::of(lp.flags(token)) {
                Kind::Listener => self.accept_ready(lp, token),
                Kind::Callback | Kind::Async => self.read_ready(lp, token),
                Kind::TaskListener | Kind::Watch | Kind::Free => {}
            }
        }
    }

    /// Delivers what a callback connection has to read, if it wants it; throws away what a lingering one has.
    fn read_ready(&self, lp: &Rc<Shared>, token: Token) {
        for _ in 0..READS_PER_TURN {
            let mut core = lp.core.borrow_mut();
            let Some(s) = core.sources.get_mut(token) else { return };
            let (flags, fd) = (s.flags, s.fd);
            if flags & flag::READABLE == 0 || flags & flag::DEAD != 0 {
                return;
            }
            if flags & flag::CLOSING != 0 {
                if flags & flag::LINGER == 0 {
                    return;
                }
                drop(core);
                if !self.discard(lp, token) {
                    return;
                }
                continue;
            }
            let unread = s.extra.as_ref().is_some_and(|e| !e.unread.is_empty());
            if flags & flag::OPENED == 0 || unread && flags & flag::PAUSED == 0 {
                // It must hear `on_open`, or read what came with it, first.
                core.pending.push(token);
                return core.list(token);
            }
            if flags & (flag::PAUSED | flag::EOF) != 0 || s.kind() != Kind::Callback {
                return;
            }
            let ended = s.take_ended();
            drop(core);
            let mut memory = lp.take_scratch();
            let got = match ended {
                Some(Ended::Eof) => Ok(0),
                Some(Ended::Failed(e)) => Err(e),
                None => self.sys.recv(fd, &mut memory),
            };
            self.received(lp, token, got.map(|n| &memory[..n]));
            lp.put_scratch(memory);
        }
        // Its budget is used up.
        lp.core.borrow_mut().list(token);
    }

    fn received(&self, lp: &Rc<Shared>, token: Token, got: io::Result<&[u8]>) {
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        let (pool, slot) = (s.pool, s.slot);
        match got {
            Ok([]) => {
                s.set(flag::EOF);
                s.clear(flag::READABLE);
                drop(core);
                lp.deliver(pool, slot, token, Call::Eof);
                let mut core = lp.core.borrow_mut();
                const ENDED: u32 = flag::SHUT | flag::QUEUED | flag::CORKED;
                if core.sources.get(token).is_some_and(|s| s.flags & ENDED == flag::SHUT) {
                    // Both halves have ended: nothing can happen any more.
                    core.end(token, CloseReason::Local);
                }
                drop(core);
                lp.notice_reset(token);
            }
            Ok(bytes) => {
                lp.stats.add_n(&lp.stats.bytes_in, bytes.len() as u64);
                if s.flags & flag::MESSAGE == 0 {
                    s.stamp = lp.now_ms.get();
                } else if let Some(extra) = s.extra.as_mut().filter(|e| e.counting) {
                    extra.received += bytes.len() as u64;
                }
                drop(core);
                lp.deliver(pool, slot, token, Call::Data(bytes));
                lp.delivered(token);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => s.clear(flag::READABLE),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => core.end(token, CloseReason::Error(e)),
        }
    }

    /// Throws away what still arrives on a connection that is flushed and shut. False when there is no more for now.
    fn discard(&self, lp: &Shared, token: Token) -> bool {
        let Ok(fd) = lp.fd(token) else { return false };
        let mut memory = lp.take_scratch();
        let got = uninterrupted(|| self.sys.recv(fd, &mut memory));
        lp.put_scratch(memory);
        if let Ok(n @ 1..) = got {
            return lp.thrown_away(token, n);
        }
        let mut core = lp.core.borrow_mut();
        match got {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if let Some(s) = core.sources.get_mut(token) {
                    s.clear(flag::READABLE);
                }
            }
            // The peer has everything, or will never have it.
            Ok(_) | Err(_) => core.end(token, CloseReason::Local),
        }
        false
    }

    /// Reads for a task: first what came with the stream from its last owner.
    pub(super) fn pull(&self, lp: &Shared, token: Token, into: &mut [u8]) -> io::Result<usize> {
        let mut core = lp.core.borrow_mut();
        let s = core.sources.get_mut(token).ok_or(io::ErrorKind::NotConnected)?;
        if let Some(n) = s.take_unread(into) {
            return Ok(n);
        }
        match s.take_ended() {
            None => {}
            Some(Ended::Eof) => s.set(flag::EOF),
            Some(Ended::Failed(e)) => {
                s.set(flag::EOF);
                return Err(e);
            }
        }
        let (fd, ended) = (s.fd, s.has(flag::EOF));
        drop(core);
        if ended {
            return Ok(0);
        }
        let got = uninterrupted(|| self.sys.recv(fd, into));
        self.pulled(lp, token, into.len(), got)
    }

    /// Makes the state right after a read for a task.
    pub(super) fn pulled(
        &self,
        lp: &Shared,
        token: Token,
        room: usize,
        got: io::Result<usize>,
    ) -> io::Result<usize> {
        let mut core = lp.core.borrow_mut();
        let s: &mut Source = core.sources.get_mut(token).ok_or(io::ErrorKind::NotConnected)?;
        match &got {
            Ok(0) if room > 0 => s.set(flag::EOF),
            Ok(n) => {
                lp.stats.add_n(&lp.stats.bytes_in, *n as u64);
                s.stamp = lp.now_ms.get();
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => s.clear(flag::READABLE),
            Err(_) => {}
        }
        got
    }
}
