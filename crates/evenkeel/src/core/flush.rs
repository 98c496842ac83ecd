//! Sending what was not plainly sent: the rest of a corked write, and queues, one gathered send at a time.
//!
//! Every driver that sends by system calls shares this; they differ in how they learn that a socket has room again,
//! which is what [`Outlet`] asks of them.

use std::io::{self, IoSlice};

use super::cork::Corked;
use super::out::Extra;
use super::{Core, Kind, Shared, Token, flag};
use crate::sys::{Fd, Sys};

/// What a driver gives to this.
pub(crate) trait Outlet {
    type Sys: Sys;
    fn kernel(&self) -> &Self::Sys;
    /// The kernel has refused bytes of a source: a later event is to say that it takes more.
    fn await_room(&self, core: &mut Core, token: Token) -> io::Result<()>;
    /// Nothing waits to be sent any more.
    fn await_no_room(&self, core: &mut Core, token: Token) -> io::Result<()>;
}

impl Shared {
    /// Goes on with an entry that was not plainly sent.
    #[cold]
    #[inline(never)]
    pub(crate) fn not_sent<O: Outlet>(
        &self,
        out: &O,
        core: &mut Core,
        token: Token,
        corked: Corked<'_>,
        first: Option<io::Result<usize>>,
    ) {
        self.stats.take_n(&self.stats.bytes_out, corked.len() as u64);
        if let Some(first) = first {
            return self.sent_partly(out, core, token, corked, first);
        }
        self.stats.take_n(&self.stats.sends, 1);
        let Some(s) = core.sources.get_mut(token) else { return };
        s.clear(flag::CORKED);
        if s.has(flag::DEAD) {
            return;
        }
        if s.has(flag::QUEUED) {
            return self.flush_gathered(out, core, token, corked);
        }
        if !s.has(flag::MESSAGE) {
            s.stamp = self.now_ms.get();
        }
        self.stats.add(&self.stats.sends);
        let first = out.kernel().send(s.fd, &corked);
        self.sent_partly(out, core, token, corked, first);
    }

    /// The first send of an entry may have left something: sends until the kernel refuses, since only a refusal
    /// arms the next event (I3), and queues the rest.
    pub(crate) fn sent_partly<O: Outlet>(
        &self,
        out: &O,
        core: &mut Core,
        token: Token,
        bytes: Corked<'_>,
        first: io::Result<usize>,
    ) {
        let Some(s) = core.sources.get_mut(token) else { return };
        let mut sent = 0;
        let mut result = first;
        loop {
            match result {
                Ok(0) if !bytes.is_empty() => return core.fail(token, io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.stats.add_n(&self.stats.bytes_out, n as u64);
                    sent += n;
                    if sent == bytes.len() {
                        if s.has(flag::CLOSING | flag::SHUT) {
                            core.closing.push(token);
                        }
                        return;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return core.fail(token, e),
            }
            self.stats.add(&self.stats.sends);
            result = out.kernel().send(s.fd, &bytes[sent..]);
        }
        let now = self.now_ms.get();
        core.queue(token, |e, now| bytes.keep(sent, e, now), now);
        self.blocked(out, core, token);
    }

    /// The kernel takes no more of a source: checks its queue and asks to be told.
    fn blocked<O: Outlet>(&self, out: &O, core: &mut Core, token: Token) {
        let Some(s) = core.sources.get_mut(token) else { return };
        s.clear(flag::WRITABLE);
        if let Err(e) = out.await_room(core, token) {
            return core.fail(token, e);
        }
        if let Some(s) = core.sources.get(token).filter(|s| s.kind() == Kind::Callback) {
            let pool = self.pool(s.pool);
            core.check_queue(token, pool.limits());
        }
    }

    /// What was corked and then what was queued after it, in one send.
    fn flush_gathered<O: Outlet>(&self, out: &O, core: &mut Core, token: Token, first: Corked<'_>) {
        let Some(s) = core.sources.get_mut(token) else { return };
        let Some(extra) = &s.extra else { return };
        let mut vectors = Vec::with_capacity(64);
        vectors.push(IoSlice::new(&first));
        extra.vectors(&mut vectors);
        self.stats.add(&self.stats.sends);
        let sent = match out.kernel().send_vectored(s.fd, &vectors) {
            Ok(n) => n,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            Err(e) => return core.fail(token, e),
        };
        self.stats.add_n(&self.stats.bytes_out, sent as u64);
        if sent < first.len() {
            // Rare: the corked part must go back in front of the queue.
            let mut rest = Extra::default();
            first.keep(sent, &mut rest, self.now_ms.get());
            if let Some(extra) = &mut s.extra {
                extra.put_in_front(rest);
            }
        } else if let Some(extra) = &mut s.extra {
            extra.advance(sent - first.len());
        }
        self.flush_sources_queue(out, core, token);
    }

    /// Sends what a source has queued, as far as it goes.
    pub(crate) fn flush_queue<O: Outlet>(&self, out: &O, token: Token) {
        let mut core = self.core.borrow_mut();
        let Some(s) = core.sources.get(token) else { return };
        // While an entry is corked, what is queued was written after it; they leave together.
        if s.flags & (flag::QUEUED | flag::CORKED | flag::CONNECTING | flag::DEAD) == flag::QUEUED {
            self.flush_sources_queue(out, &mut core, token);
        }
    }

    fn flush_sources_queue<O: Outlet>(&self, out: &O, core: &mut Core, token: Token) {
        loop {
            let Some(s) = core.sources.get_mut(token) else { return };
            let Some(extra) = s.extra.as_mut().filter(|e| !e.is_empty()) else { break };
            let mut vectors = Vec::with_capacity(16);
            extra.vectors(&mut vectors);
            self.stats.add(&self.stats.sends);
            match out.kernel().send_vectored(s.fd, &vectors) {
                Ok(0) => return core.fail(token, io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.stats.add_n(&self.stats.bytes_out, n as u64);
                    extra.advance(n);
                    if s.flags & flag::MESSAGE == 0 {
                        s.stamp = self.now_ms.get();
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.drained(core, token);
                    return self.blocked(out, core, token);
                }
                Err(e) => return core.fail(token, e),
            }
        }
        self.drained(core, token);
        let Some(s) = core.sources.get_mut(token) else { return };
        s.clear(flag::QUEUED);
        s.set(flag::WRITABLE);
        if s.extra.as_ref().is_some_and(|e| e.is_idle()) {
            s.extra = None;
        }
        if s.has(flag::CLOSING | flag::SHUT) {
            core.closing.push(token);
        }
        let asynchronous = s.kind() == Kind::Async;
        if let Err(e) = out.await_no_room(core, token) {
            return core.fail(token, e);
        }
        if asynchronous {
            core.wake(token, false, true);
        }
    }

    /// The queue became shorter: its owner may be waiting for that.
    fn drained(&self, core: &mut Core, token: Token) {
        let Some(s) = core.sources.get_mut(token) else { return };
        let bytes = s.extra.as_ref().map_or(0, |e| e.bytes());
        if s.kind() == Kind::Callback
            && s.has(flag::HOLD)
            && bytes <= self.pool(s.pool).limits().low_watermark
        {
            s.clear(flag::HOLD);
            s.set(flag::DRAINED);
            core.pending.push(token);
        }
    }

    /// Sends from a task's, or a large write's, own memory. What is corked goes first.
    #[inline]
    pub(crate) fn send_now<O: Outlet>(
        &self,
        out: &O,
        token: Token,
        send: impl FnMut(&O::Sys, Fd) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut core = self.core.borrow_mut();
        let s = core.sources.get_mut(token).ok_or(io::ErrorKind::NotConnected)?;
        if s.flags & (flag::SHUT | flag::CLOSING | flag::QUEUED | flag::CORKED) != 0 {
            drop(core);
            return self.send_after_others(out, token, send);
        }
        if s.flags & flag::MESSAGE == 0 {
            s.stamp = self.now_ms.get();
        }
        let fd = s.fd;
        drop(core);
        self.send_to(out, token, fd, send)
    }

    #[inline]
    fn send_to<O: Outlet>(
        &self,
        out: &O,
        token: Token,
        fd: Fd,
        mut send: impl FnMut(&O::Sys, Fd) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let result = loop {
            self.stats.add(&self.stats.sends);
            match send(out.kernel(), fd) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        match &result {
            Ok(n) => self.stats.add_n(&self.stats.bytes_out, *n as u64),
            Err(e) => self.send_refused(out, token, e.kind()),
        }
        result
    }

    #[cold]
    fn send_after_others<O: Outlet>(
        &self,
        out: &O,
        token: Token,
        send: impl FnMut(&O::Sys, Fd) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let flags = self.flags(token);
        if flags & (flag::SHUT | flag::CLOSING) != 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if flags & (flag::QUEUED | flag::CORKED) == flag::CORKED {
            // Something was lent an answer in this turn. The flush takes the cork away.
            self.driver.flush(self);
            let core = self.core.borrow();
            let s = core.sources.get(token).ok_or(io::ErrorKind::NotConnected)?;
            if !s.has(flag::QUEUED) {
                let fd = s.fd;
                drop(core);
                return self.send_to(out, token, fd, send);
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    #[cold]
    fn send_refused<O: Outlet>(&self, out: &O, token: Token, kind: io::ErrorKind) {
        if kind != io::ErrorKind::WouldBlock {
            return;
        }
        let mut core = self.core.borrow_mut();
        if let Some(s) = core.sources.get_mut(token) {
            s.clear(flag::WRITABLE);
        }
        if let Err(e) = out.await_room(&mut core, token) {
            core.fail(token, e);
        }
    }
}
