//! Bytes to a stream: the cork at the end of each batch, and queues when the kernel has room again.

use std::io::{self, IoSlice};

use super::{Readiness, Selector};
use crate::core::cork::Corked;
use crate::core::out::Extra;
use crate::core::{Core, Kind, Shared, Token, flag};
use crate::sys::{Fd, Sys};

/// How a flush of one source went.
enum Sent {
    All,
    /// So many bytes went; the kernel takes no more for now.
    Part(usize),
    Failed(io::Error),
}

impl<P: Selector<Y>, Y: Sys> Readiness<P, Y> {
    /// Sends everything that is corked, one send for each source. No user code runs in here.
    pub(super) fn flush_all(&self, lp: &Shared) {
        let mut core = lp.core.borrow_mut();
        if core.cork.entries.is_empty() {
            return;
        }
        let core = &mut *core;
        let mut entries = std::mem::take(&mut core.cork.entries);
        let memory = std::mem::take(&mut core.cork.memory);
        for (token, corked) in entries.drain(..) {
            let Some(s) = core.sources.get_mut(token) else { continue };
            s.flags &= !flag::CORKED;
            let flags = s.flags;
            if flags & flag::DEAD != 0 {
                continue;
            }
            let bytes: &[u8] = match &corked {
                Corked::Bytes { start, len } => &memory[*start..*start + *len],
                Corked::Shared(message) => message,
            };
            if flags & flag::QUEUED != 0 {
                self.flush_gathered(lp, core, token, bytes, &corked);
                continue;
            }
            // A message in progress keeps its stamp: answering does not make its sender faster.
            if flags & flag::MESSAGE == 0 {
                s.stamp = lp.now_ms.get();
            }
            match self.try_send(lp, s.fd, bytes) {
                Sent::All => {
                    if flags & (flag::CLOSING | flag::SHUT) != 0 {
                        core.closing.push(token);
                    }
                }
                Sent::Part(n) => self.keep_rest(lp, core, token, &corked, bytes, n),
                Sent::Failed(e) => core.fail(token, e),
            }
        }
        core.cork.entries = entries;
        let mut memory = memory;
        memory.clear();
        core.cork.memory = memory;
    }

    /// Sends until the kernel refuses: only a refusal arms the next event (I3).
    fn try_send(&self, lp: &Shared, fd: Fd, bytes: &[u8]) -> Sent {
        let mut sent = 0;
        loop {
            lp.stats.add(&lp.stats.sends);
            match self.sys.send(fd, &bytes[sent..]) {
                Ok(n) => {
                    lp.stats.add_n(&lp.stats.bytes_out, n as u64);
                    sent += n;
                    if sent == bytes.len() {
                        return Sent::All;
                    }
                    if n == 0 {
                        return Sent::Failed(io::ErrorKind::WriteZero.into());
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Sent::Part(sent),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Sent::Failed(e),
            }
        }
    }

    /// The kernel's buffer is full: what is left of a corked write goes to the queue.
    fn keep_rest(
        &self,
        lp: &Shared,
        core: &mut Core,
        token: Token,
        corked: &Corked,
        bytes: &[u8],
        sent: usize,
    ) {
        let now = lp.now_ms.get();
        match corked {
            Corked::Bytes { .. } => core.queue(token, |e, now| e.push(&bytes[sent..], now), now),
            Corked::Shared(message) => {
                core.queue(token, |e, now| e.push_shared(message.clone(), sent, now), now)
            }
        }
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
    fn flush_gathered(&self, lp: &Shared, core: &mut Core, token: Token, first: &[u8], corked: &Corked) {
        let Some(s) = core.sources.get_mut(token) else { return };
        let Some(extra) = &s.extra else { return };
        let mut vectors = Vec::with_capacity(64);
        vectors.push(IoSlice::new(first));
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
            match corked {
                Corked::Shared(message) => rest.push_shared(message.clone(), sent, lp.now_ms.get()),
                Corked::Bytes { .. } => rest.push(&first[sent..], lp.now_ms.get()),
            }
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

    /// Sends from a task's, or a large write's, own memory.
    pub(super) fn send_now(
        &self,
        lp: &Shared,
        token: Token,
        send: impl FnOnce(&Y, Fd) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let core = lp.core.borrow();
        let s = core.sources.get(token).ok_or(io::ErrorKind::NotConnected)?;
        let (fd, flags) = (s.fd, s.flags);
        drop(core);
        if flags & (flag::SHUT | flag::CLOSING) != 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if flags & (flag::QUEUED | flag::CORKED) != 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        lp.stats.add(&lp.stats.sends);
        let result = send(&self.sys, fd);
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return result };
        match &result {
            Ok(n) => {
                lp.stats.add_n(&lp.stats.bytes_out, *n as u64);
                if s.flags & flag::MESSAGE == 0 {
                    s.stamp = lp.now_ms.get();
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                s.clear(flag::WRITABLE);
                drop(core);
                self.listen_for(lp, token, false, true);
            }
            Err(_) => {}
        }
        result
    }
}
