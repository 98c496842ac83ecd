//! Bytes from a stream: delivered to its handler, or pulled by its task.

use std::io;
use std::rc::Rc;

use super::{Readiness, Ready, Selector};
use crate::core::out::Ended;
use crate::core::pool::Event as Call;
use crate::core::{Kind, Shared, Source, Token, flag};
use crate::handler::CloseReason;
use crate::sys::{Fd, Sys, uninterrupted};

/// Reads of one source in one turn; a source that has more stays on the ready list (I24).
const READS_PER_TURN: usize = 8;

impl<P: Selector<Y>, Y: Sys> Readiness<P, Y> {
    /// Delivers what a callback connection has to read, if it wants it.
    pub(super) fn read_ready(&self, lp: &Rc<Shared>, token: Token) {
        let core = lp.core.borrow();
        let Some(s) = core.sources.get(token) else { return };
        let (flags, fd, pool, slot) = (s.flags, s.fd, s.pool, s.slot);
        let unread = s.extra.as_ref().is_some_and(|e| !e.unread.is_empty());
        let owed = flags & flag::OPENED == 0 || unread && flags & flag::PAUSED == 0;
        drop(core);
        if flags & flag::READABLE == 0 || flags & flag::DEAD != 0 {
            return;
        }
        if flags & flag::CLOSING != 0 {
            if flags & flag::LINGER != 0 {
                self.discard(lp, token, fd);
            }
            return;
        }
        if owed {
            // It must hear `on_open`, or read what came with it, first; that resumes reading.
            let mut core = lp.core.borrow_mut();
            core.pending.push(token);
            core.list(token);
            return;
        }
        if flags & (flag::PAUSED | flag::EOF) == 0 {
            let ended = lp.core.borrow_mut().sources.get_mut(token).and_then(Source::take_ended);
            match ended {
                None => self.read(lp, token, fd, flags, pool, slot),
                Some(Ended::Eof) => self.end_of_stream(lp, token, pool, slot),
                Some(Ended::Failed(e)) => lp.abort(token, CloseReason::Error(e)),
            }
        }
    }

    /// The first read was not plainly short: it filled the memory, ended the stream, or failed.
    #[cold]
    pub(super) fn read_on(&self, lp: &Rc<Shared>, token: Token, got: io::Result<usize>) {
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        s.set(flag::READABLE);
        let (pool, slot) = (s.pool, s.slot);
        drop(core);
        match got {
            Ok(0) => self.end_of_stream(lp, token, pool, slot),
            Ok(_) => self.read_ready(lp, token),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => self.read_ready(lp, token),
            Err(e) => self.read_refused(lp, token, e),
        }
        self.settle(lp, token);
    }

    /// Reads and delivers until the source is drained, its budget is used up, or the handler has had enough.
    pub(super) fn read(&self, lp: &Rc<Shared>, token: Token, fd: Fd, mut flags: u32, pool: u16, slot: u32) {
        let mut memory = lp.take_scratch();
        for _ in 0..READS_PER_TURN {
            let n = match self.sys.recv(fd, &mut memory) {
                Ok(0) => {
                    self.end_of_stream(lp, token, pool, slot);
                    break;
                }
                Ok(n) => n,
                Err(e) => {
                    self.read_refused(lp, token, e);
                    break;
                }
            };
            let short = n < memory.len() && flags & (flag::SHORT_READS | flag::HUNG_UP) == flag::SHORT_READS;
            self.received(lp, token, n, short);
            lp.deliver(pool, slot, token, Call::Data(&memory[..n]));
            flags = self.after_delivery(lp, token);
            if flags & flag::READABLE == 0 {
                lp.put_scratch(memory);
                return;
            }
        }
        lp.put_scratch(memory);
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get(token) else { return };
        const GOES_ON: u32 = flag::READABLE | flag::PAUSED | flag::EOF | flag::CLOSING | flag::DEAD;
        if s.flags & GOES_ON == flag::READABLE && s.kind() == Kind::Callback {
            core.list(token);
        }
    }

    /// Before a delivery: the state that must be right when the handler looks.
    #[inline]
    fn received(&self, lp: &Shared, token: Token, n: usize, short: bool) {
        lp.stats.add_n(&lp.stats.bytes_in, n as u64);
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        if short {
            s.flags &= !flag::READABLE;
        }
        if s.flags & flag::MESSAGE == 0 {
            s.stamp = lp.now_ms.get();
        } else if let Some(extra) = s.extra.as_mut().filter(|e| e.counting) {
            extra.received += n as u64;
        }
    }

    /// After a delivery: the flags, with READABLE only if reading may go on.
    #[inline]
    fn after_delivery(&self, lp: &Shared, token: Token) -> u32 {
        let flags = lp.delivered(token);
        const OVER: u32 = flag::PAUSED | flag::CLOSING | flag::DEAD;
        // What is left stays known as readable, but is not delivered.
        if flags & OVER == 0 { flags } else { 0 }
    }

    fn end_of_stream(&self, lp: &Rc<Shared>, token: Token, pool: u16, slot: u32) {
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        s.set(flag::EOF);
        s.clear(flag::READABLE);
        drop(core);
        self.settle(lp, token);
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

    fn read_refused(&self, lp: &Shared, token: Token, e: io::Error) {
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        match e.kind() {
            io::ErrorKind::WouldBlock => s.clear(flag::READABLE),
            // Still readable, so it is tried again in the next turn.
            io::ErrorKind::Interrupted => {}
            _ => core.end(token, CloseReason::Error(e)),
        }
    }

    /// Throws away what still arrives on a connection that is flushed and shut, until the peer's end.
    fn discard(&self, lp: &Shared, token: Token, fd: Fd) {
        let mut memory = lp.take_scratch();
        for _ in 0..READS_PER_TURN {
            match self.sys.recv(fd, &mut memory) {
                Ok(0) => {
                    lp.core.borrow_mut().end(token, CloseReason::Local);
                    break;
                }
                Ok(n) if lp.thrown_away(token, n) => {}
                Ok(_) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if let Some(s) = lp.core.borrow_mut().sources.get_mut(token) {
                        s.clear(flag::READABLE);
                    }
                    break;
                }
                Err(_) => {
                    // The peer has everything or will never have it.
                    lp.core.borrow_mut().end(token, CloseReason::Local);
                    break;
                }
            }
        }
        lp.put_scratch(memory);
        let mut core = lp.core.borrow_mut();
        if core.sources.get(token).is_some_and(|s| s.flags & (flag::READABLE | flag::DEAD) == flag::READABLE)
        {
            core.list(token);
        }
    }

    /// Reads for a task.
    #[inline(always)]
    pub(super) fn pull(&self, lp: &Shared, token: Token, into: &mut [u8]) -> io::Result<usize> {
        let mut core = lp.core.borrow_mut();
        let s = core.sources.get_mut(token).ok_or(io::ErrorKind::NotConnected)?;
        // A stream whose next read is its last one if it is short, with nothing to be armed after it.
        const LOOK: u32 = flag::EOF | flag::SHORT_READS | flag::HUNG_UP;
        let armed = if P::EDGE { 0 } else { flag::ARMED_READ };
        if s.flags & (LOOK | armed) != flag::SHORT_READS | armed || s.extra.is_some() {
            drop(core);
            return self.pull_carefully(lp, token, into);
        }
        // As if the read were short already: it mostly is.
        s.flags &= !flag::READABLE;
        s.stamp = lp.now_ms.get();
        let fd = s.fd;
        drop(core);
        let got = self.sys.recv(fd, into);
        match got {
            Ok(n @ 1..) if n < into.len() => {
                lp.stats.add_n(&lp.stats.bytes_in, n as u64);
                Ok(n)
            }
            _ => self.pulled(lp, token, into, got),
        }
    }

    /// What came with the stream from its last owner is read first.
    #[cold]
    fn pull_carefully(&self, lp: &Shared, token: Token, into: &mut [u8]) -> io::Result<usize> {
        let mut core = lp.core.borrow_mut();
        let s = core.sources.get_mut(token).ok_or(io::ErrorKind::NotConnected)?;
        if let Some(n) = s.take_unread(into) {
            return Ok(n);
        }
        if let Some(ended) = s.take_ended() {
            s.set(flag::EOF);
            return match ended {
                Ended::Eof => Ok(0),
                Ended::Failed(e) => Err(e),
            };
        }
        let (fd, flags) = (s.fd, s.flags);
        drop(core);
        if flags & flag::EOF != 0 {
            return Ok(0);
        }
        let got = self.sys.recv(fd, into);
        self.pulled(lp, token, into, got)
    }

    /// Makes the state right after a read, whatever came of it.
    #[cold]
    fn pulled(
        &self,
        lp: &Shared,
        token: Token,
        into: &mut [u8],
        got: io::Result<usize>,
    ) -> io::Result<usize> {
        let (room, mut got) = (into.len(), got);
        while got.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::Interrupted) {
            got = self.sys.recv(lp.fd(token)?, into);
        }
        self.note_pulled(lp, token, room, got)
    }

    /// Reads for a task by a call of its own.
    pub(super) fn pull_by(
        &self,
        lp: &Shared,
        token: Token,
        receive: &mut dyn FnMut(&dyn Sys, Fd) -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        let core = lp.core.borrow();
        let s = core.sources.get(token).ok_or(io::ErrorKind::NotConnected)?;
        let (fd, flags) = (s.fd, s.flags);
        if s.extra.as_ref().is_some_and(|extra| !extra.unread.is_empty()) {
            return Ok(None);
        }
        drop(core);
        if flags & flag::EOF != 0 {
            return Ok(Some(0));
        }
        let got = uninterrupted(|| receive(&self.sys, fd));
        // As if it had been asked for no more than it took: how much was there is not known.
        let room = got.as_ref().map_or(1, |n| (*n).max(1));
        self.note_pulled(lp, token, room, got).map(Some)
    }

    fn note_pulled(
        &self,
        lp: &Shared,
        token: Token,
        room: usize,
        got: io::Result<usize>,
    ) -> io::Result<usize> {
        let mut core = lp.core.borrow_mut();
        let s = core.sources.get_mut(token).ok_or(io::ErrorKind::NotConnected)?;
        s.set(flag::READABLE);
        match &got {
            Ok(0) if room > 0 => s.set(flag::EOF),
            Ok(n) => {
                lp.stats.add_n(&lp.stats.bytes_in, *n as u64);
                s.stamp = lp.now_ms.get();
                if *n == room || s.flags & (flag::SHORT_READS | flag::HUNG_UP) != flag::SHORT_READS {
                    return got;
                }
                s.clear(flag::READABLE);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => s.clear(flag::READABLE),
            Err(_) => return got,
        }
        if !P::EDGE {
            let rearm = !s.has(flag::EOF) && !s.has(flag::ARMED_READ);
            let (quiet, write) = (s.has(flag::EOF), s.has(flag::ARMED_WRITE));
            drop(core);
            if rearm {
                self.listen_for(lp, token, true, false);
            } else if quiet {
                self.arm(lp, token, Ready { read: false, write, hung_up: false }, !write);
            }
        }
        got
    }
}
