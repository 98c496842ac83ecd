//! Bytes to a stream: the cork at the end of each batch, and queues when the kernel has room again.

use std::io::{self, IoSlice};
use std::ops::Deref;

use super::{Readiness, Selector};
use crate::core::cork::{Cork, Entry, SHARED};
use crate::core::out::Extra;
use crate::core::{Core, Kind, Shared, Token, flag};
use crate::message::Message;
use crate::sys::{Fd, Sys};

/// What a source wrote into the cork.
#[derive(Clone, Copy)]
enum Corked<'a> {
    Bytes(&'a [u8]),
    Shared(&'a Message),
}

impl Deref for Corked<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Corked::Bytes(bytes) => bytes,
            Corked::Shared(message) => message,
        }
    }
}

impl Corked<'_> {
    /// Queues what begins at byte `from`.
    fn keep(self, from: usize, queue: &mut Extra, now: u32) {
        match self {
            Corked::Bytes(bytes) => queue.push(&bytes[from..], now),
            Corked::Shared(message) => queue.push_shared(message.clone(), from, now),
        }
    }
}

impl<P: Selector<Y>, Y: Sys> Readiness<P, Y> {
    /// Sends everything that is corked, one send for each source. No user code runs in here.
    #[inline(never)]
    pub(super) fn flush_all(&self, lp: &Shared) {
        let mut guard = lp.core.borrow_mut();
        let core = &mut *guard;
        let mut cork = std::mem::take(&mut core.cork);
        let (mut memory, mut messages) = (cork.bytes(), 0);
        let now = lp.now_ms.get();
        // As if all of it were sent at once: it mostly is.
        lp.stats.add_n(&lp.stats.sends, cork.entries.len() as u64);
        lp.stats.add_n(&lp.stats.bytes_out, memory.len() as u64);
        for entry in &cork.entries {
            if entry.len == SHARED {
                self.flush_message(lp, core, entry, &cork, messages);
                messages += 1;
                continue;
            }
            let (bytes, after) = memory.split_at(entry.len as usize);
            memory = after;
            if let Err(first) = self.send_plainly(core, entry, bytes, now) {
                self.not_sent(lp, core, entry, Corked::Bytes(bytes), first);
            }
        }
        cork.clear();
        core.cork = cork;
    }

    /// An entry that is a shared message, the cork's at `at`.
    #[inline(never)]
    fn flush_message(&self, lp: &Shared, core: &mut Core, entry: &Entry, cork: &Cork, at: usize) {
        let message = &cork.messages[at];
        lp.stats.add_n(&lp.stats.bytes_out, message.len() as u64);
        if let Err(first) = self.send_plainly(core, entry, message, lp.now_ms.get()) {
            self.not_sent(lp, core, entry, Corked::Shared(message), first);
        }
    }

    /// Sends one entry of the cork, which is counted as sent already. The error is what came of it if that was not
    /// all, and none if its source is gone or more than plainly open.
    #[inline(always)]
    fn send_plainly(
        &self,
        core: &mut Core,
        entry: &Entry,
        bytes: &[u8],
        now: u32,
    ) -> Result<(), Option<io::Result<usize>>> {
        let s = core.sources.get_mut(entry.token).ok_or(None)?;
        let flags = s.flags;
        if flags & (flag::DEAD | flag::QUEUED | flag::CLOSING | flag::SHUT) != 0 {
            return Err(None);
        }
        // A message in progress keeps its stamp: answering does not make its sender faster.
        if flags & flag::MESSAGE == 0 {
            s.stamp = now;
        }
        s.flags = flags & !flag::CORKED;
        match self.sys.send(s.fd, bytes) {
            Ok(n) if n == bytes.len() => Ok(()),
            other => Err(Some(other)),
        }
    }

    /// Goes on with an entry that was not plainly sent.
    #[cold]
    #[inline(never)]
    fn not_sent(
        &self,
        lp: &Shared,
        core: &mut Core,
        entry: &Entry,
        corked: Corked<'_>,
        first: Option<io::Result<usize>>,
    ) {
        let token = entry.token;
        lp.stats.take_n(&lp.stats.bytes_out, corked.len() as u64);
        if let Some(first) = first {
            return self.sent_partly(lp, core, token, corked, first);
        }
        lp.stats.take_n(&lp.stats.sends, 1);
        let Some(s) = core.sources.get_mut(token) else { return };
        s.clear(flag::CORKED);
        if s.has(flag::DEAD) {
            return;
        }
        if s.has(flag::QUEUED) {
            return self.flush_gathered(lp, core, token, corked);
        }
        if !s.has(flag::MESSAGE) {
            s.stamp = lp.now_ms.get();
        }
        lp.stats.add(&lp.stats.sends);
        let first = self.sys.send(s.fd, &corked);
        self.sent_partly(lp, core, token, corked, first);
    }

    /// The first send of an entry may have left something: sends until the kernel refuses, since only a refusal
    /// arms the next event (I3), and queues the rest.
    fn sent_partly(
        &self,
        lp: &Shared,
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
                    lp.stats.add_n(&lp.stats.bytes_out, n as u64);
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
            lp.stats.add(&lp.stats.sends);
            result = self.sys.send(s.fd, &bytes[sent..]);
        }
        let now = lp.now_ms.get();
        core.queue(token, |e, now| bytes.keep(sent, e, now), now);
        self.blocked(lp, core, token);
    }

    /// The kernel takes no more of a source: checks its queue and asks to be told.
    fn blocked(&self, lp: &Shared, core: &mut Core, token: Token) {
        let Some(s) = core.sources.get_mut(token) else { return };
        s.clear(flag::WRITABLE);
        if !P::EDGE && !s.has(flag::ARMED_WRITE) {
            s.set(flag::ARMED_WRITE);
            let want = super::Ready { read: s.has(flag::ARMED_READ), write: true, hung_up: false };
            let mut selector = self.selector.borrow_mut();
            let result = if s.has(flag::REGISTERED) {
                selector.modify(&self.sys, s.fd, token, want)
            } else {
                selector.add(&self.sys, s.fd, token, want)
            };
            s.set(flag::REGISTERED);
            if let Err(e) = result {
                return core.fail(token, e);
            }
        }
        if let Some(s) = core.sources.get(token).filter(|s| s.kind() == Kind::Callback) {
            let pool = lp.pool(s.pool);
            core.check_queue(token, pool.limits());
        }
    }

    /// What was corked and then what was queued after it, in one send.
    fn flush_gathered(&self, lp: &Shared, core: &mut Core, token: Token, first: Corked<'_>) {
        let Some(s) = core.sources.get_mut(token) else { return };
        let Some(extra) = &s.extra else { return };
        let mut vectors = Vec::with_capacity(64);
        vectors.push(IoSlice::new(&first));
        extra.vectors(&mut vectors);
        lp.stats.add(&lp.stats.sends);
        let sent = match self.sys.send_vectored(s.fd, &vectors) {
            Ok(n) => n,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            Err(e) => return core.fail(token, e),
        };
        lp.stats.add_n(&lp.stats.bytes_out, sent as u64);
        if sent < first.len() {
            // Rare: the corked part must go back in front of the queue.
            let mut rest = Extra::default();
            first.keep(sent, &mut rest, lp.now_ms.get());
            if let Some(extra) = &mut s.extra {
                extra.put_in_front(rest);
            }
        } else if let Some(extra) = &mut s.extra {
            extra.advance(sent - first.len());
        }
        self.flush_sources_queue(lp, core, token);
    }

    /// Sends what a source has queued, as far as it goes.
    pub(super) fn flush_queue(&self, lp: &Shared, token: Token) {
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get(token) else { return };
        // While an entry is corked, what is queued was written after it; they leave together.
        if s.flags & (flag::QUEUED | flag::CORKED | flag::CONNECTING | flag::DEAD) == flag::QUEUED {
            self.flush_sources_queue(lp, &mut core, token);
        }
    }

    fn flush_sources_queue(&self, lp: &Shared, core: &mut Core, token: Token) {
        loop {
            let Some(s) = core.sources.get_mut(token) else { return };
            let Some(extra) = s.extra.as_mut().filter(|e| !e.is_empty()) else { break };
            let mut vectors = Vec::with_capacity(16);
            extra.vectors(&mut vectors);
            lp.stats.add(&lp.stats.sends);
            match self.sys.send_vectored(s.fd, &vectors) {
                Ok(0) => return core.fail(token, io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    lp.stats.add_n(&lp.stats.bytes_out, n as u64);
                    extra.advance(n);
                    if s.flags & flag::MESSAGE == 0 {
                        s.stamp = lp.now_ms.get();
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.drained(lp, core, token);
                    return self.blocked(lp, core, token);
                }
                Err(e) => return core.fail(token, e),
            }
        }
        self.drained(lp, core, token);
        let Some(s) = core.sources.get_mut(token) else { return };
        s.clear(flag::QUEUED);
        s.set(flag::WRITABLE);
        if s.extra.as_ref().is_some_and(|e| e.is_idle()) {
            s.extra = None;
        }
        if s.has(flag::CLOSING | flag::SHUT) {
            core.closing.push(token);
        }
        if !P::EDGE && s.has(flag::ARMED_WRITE) {
            s.clear(flag::ARMED_WRITE);
            let want = super::Ready { read: s.has(flag::ARMED_READ), write: false, hung_up: false };
            if let Err(e) = self.selector.borrow_mut().modify(&self.sys, s.fd, token, want) {
                return core.fail(token, e);
            }
        }
        if s.kind() == Kind::Async {
            core.wake(token, false, true);
        }
    }

    /// The queue became shorter: its owner may be waiting for that.
    fn drained(&self, lp: &Shared, core: &mut Core, token: Token) {
        let Some(s) = core.sources.get_mut(token) else { return };
        let bytes = s.extra.as_ref().map_or(0, |e| e.bytes());
        if s.kind() == Kind::Callback && s.has(flag::HOLD) && bytes <= lp.pool(s.pool).limits().low_watermark
        {
            s.clear(flag::HOLD);
            s.set(flag::DRAINED);
            core.pending.push(token);
        }
    }

    /// Sends from a task's, or a large write's, own memory. What is corked goes first.
    #[inline]
    pub(super) fn send_now(
        &self,
        lp: &Shared,
        token: Token,
        send: impl FnMut(&Y, Fd) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut core = lp.core.borrow_mut();
        let s = core.sources.get_mut(token).ok_or(io::ErrorKind::NotConnected)?;
        if s.flags & (flag::SHUT | flag::CLOSING | flag::QUEUED | flag::CORKED) != 0 {
            drop(core);
            return self.send_after_others(lp, token, send);
        }
        if s.flags & flag::MESSAGE == 0 {
            s.stamp = lp.now_ms.get();
        }
        let fd = s.fd;
        drop(core);
        self.send_to(lp, token, fd, send)
    }

    #[inline]
    fn send_to(
        &self,
        lp: &Shared,
        token: Token,
        fd: Fd,
        mut send: impl FnMut(&Y, Fd) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let result = loop {
            lp.stats.add(&lp.stats.sends);
            match send(&self.sys, fd) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        match &result {
            Ok(n) => lp.stats.add_n(&lp.stats.bytes_out, *n as u64),
            Err(e) => self.send_refused(lp, token, e.kind()),
        }
        result
    }

    #[cold]
    fn send_after_others(
        &self,
        lp: &Shared,
        token: Token,
        send: impl FnMut(&Y, Fd) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let flags = lp.flags(token);
        if flags & (flag::SHUT | flag::CLOSING) != 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if flags & (flag::QUEUED | flag::CORKED) == flag::CORKED {
            // Something was lent an answer in this turn. The flush takes the cork away.
            self.flush_all(lp);
            let core = lp.core.borrow();
            let s = core.sources.get(token).ok_or(io::ErrorKind::NotConnected)?;
            if !s.has(flag::QUEUED) {
                let fd = s.fd;
                drop(core);
                return self.send_to(lp, token, fd, send);
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    #[cold]
    fn send_refused(&self, lp: &Shared, token: Token, kind: io::ErrorKind) {
        if kind == io::ErrorKind::WouldBlock {
            if let Some(s) = lp.core.borrow_mut().sources.get_mut(token) {
                s.clear(flag::WRITABLE);
            }
            self.listen_for(lp, token, false, true);
        }
    }
}
