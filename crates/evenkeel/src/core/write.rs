//! Writing to a callback connection: into the cork, into the queue, or straight to the kernel.

use std::io;

use super::cork::SHORT;
use super::{Core, Kind, Shared, Token, flag};
use crate::handler::{CloseReason, Flow};
use crate::message::Message;
use crate::net::Limits;

/// States in which nothing can be written.
const REFUSED: u32 = flag::CLOSING | flag::DEAD | flag::SHUT;
/// What a stream's queue may cost, and from where on its writer is asked to wait.
const STREAM_CAP: usize = 1 << 20;
const STREAM_HOLD: usize = 64 << 10;

impl Shared {
    #[inline]
    pub(crate) fn write(&self, token: Token, bytes: &[u8]) -> Flow {
        if SHORT.contains(&bytes.len()) && self.cork_first(token, bytes) {
            return Flow::Go;
        }
        self.write_any(token, bytes)
    }

    #[inline(never)]
    fn write_any(&self, token: Token, bytes: &[u8]) -> Flow {
        let corks = (1..self.cork_write).contains(&bytes.len());
        if corks && self.cork_first(token, bytes) {
            return Flow::Go;
        }
        self.write_more(token, bytes)
    }

    /// The usual case: the first write since the last flush, of a connection that can write.
    #[inline(always)]
    fn cork_first(&self, token: Token, bytes: &[u8]) -> bool {
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        let Some(s) = core.sources.get_mut(token) else { return false };
        const LOOK: u32 = REFUSED | flag::QUEUED | flag::CORKED | flag::CONNECTING | flag::WRITABLE;
        if s.flags & LOOK != flag::WRITABLE || !core.cork.begin(token, bytes) {
            return false;
        }
        s.flags |= flag::CORKED;
        true
    }

    /// A write that does not fit the usual case. Borrows the state anew.
    #[cold]
    fn write_more(&self, token: Token, bytes: &[u8]) -> Flow {
        if let Some(answer) = self.make_room(token, bytes.len()) {
            return answer;
        }
        if bytes.is_empty() {
            return Flow::Go;
        }
        let mut sent = 0;
        {
            let mut core = self.core.borrow_mut();
            let core = &mut *core;
            let Some(s) = core.sources.get_mut(token) else { return Flow::Closed };
            if !s.has(flag::QUEUED) && bytes.len() < self.cork_write {
                if s.has(flag::CORKED) && core.cork.extend(token, bytes) {
                    return Flow::Go;
                }
                if s.flags & (flag::CORKED | flag::WRITABLE) == flag::WRITABLE {
                    core.cork.grow();
                    if core.cork.begin(token, bytes) {
                        s.set(flag::CORKED);
                        return Flow::Go;
                    }
                }
            }
        }
        // Until the kernel refuses: a part that it took is no promise of an event (I3).
        while sent < bytes.len() && self.can_send_now(token) {
            match self.driver.send(self, token, &bytes[sent..]) {
                Ok(0) => {
                    self.abort(token, CloseReason::Error(io::ErrorKind::WriteZero.into()));
                    return Flow::Closed;
                }
                Ok(n) => sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => {
                    self.core.borrow_mut().fail(token, e);
                    return Flow::Closed;
                }
            }
        }
        if sent > 0 && sent == bytes.len() {
            return Flow::Go;
        }
        let mut core = self.core.borrow_mut();
        core.queue(token, |extra, now| extra.push(&bytes[sent..], now), self.now_ms.get());
        self.queued_more(&mut core, token)
    }

    pub(crate) fn send(&self, token: Token, message: &Message) -> Flow {
        if message.len() < 512 {
            let core = self.core.borrow();
            let corked = core.sources.get(token).is_some_and(|s| s.has(flag::CORKED) && !s.has(flag::QUEUED));
            drop(core);
            // Joins what was written just before, so that both leave as one send.
            if corked {
                return self.write(token, message);
            }
        }
        if let Some(answer) = self.make_room(token, 0) {
            return answer;
        }
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        let Some(s) = core.sources.get_mut(token) else { return Flow::Closed };
        if s.flags & (flag::QUEUED | flag::CORKED | flag::CONNECTING | flag::WRITABLE) == flag::WRITABLE {
            if !message.is_empty() {
                s.set(flag::CORKED);
                core.cork.begin_shared(token, message.clone());
            }
            return Flow::Go;
        }
        core.queue(token, |extra, now| extra.push_shared(message.clone(), 0, now), self.now_ms.get());
        self.queued_more(core, token)
    }

    /// Answers a write that is refused; flushes the cork if it is full, or in the way of a large write.
    fn make_room(&self, token: Token, len: usize) -> Option<Flow> {
        let core = self.core.borrow();
        let Some(s) = core.sources.get(token) else { return Some(Flow::Closed) };
        if s.has(REFUSED) {
            return Some(Flow::Closed);
        }
        let large = len >= self.cork_write;
        let full = !core.cork.has_room(if large { 0 } else { len });
        let in_the_way = s.has(flag::CORKED) && large;
        drop(core);
        if full || in_the_way {
            self.driver.flush(self);
            // The flush may have met an error.
            return self
                .core
                .borrow()
                .sources
                .get(token)
                .is_none_or(|s| s.has(REFUSED))
                .then_some(Flow::Closed);
        }
        None
    }

    fn can_send_now(&self, token: Token) -> bool {
        const LOOK: u32 = flag::QUEUED | flag::CORKED | flag::CONNECTING | flag::WRITABLE;
        self.core.borrow().sources.get(token).is_some_and(|s| s.flags & LOOK == flag::WRITABLE)
    }

    /// Checks the queue that has just grown against its limits.
    fn queued_more(&self, core: &mut Core, token: Token) -> Flow {
        let Some(s) = core.sources.get(token) else { return Flow::Closed };
        if s.kind() == Kind::Callback {
            let pool = self.pool(s.pool);
            return core.check_queue(token, pool.limits());
        }
        let bytes = s.extra.as_ref().map_or(0, |e| e.cost());
        if bytes > STREAM_CAP {
            let what = "more than 1 MiB was queued on a stream: wait for flush when Hold is answered";
            core.fail_async(token, io::Error::new(io::ErrorKind::QuotaExceeded, what));
            return Flow::Closed;
        }
        if bytes > STREAM_HOLD { Flow::Hold } else { Flow::Go }
    }

    /// Bytes that wait, corked ones not counted: they leave with this batch.
    pub(crate) fn queued(&self, token: Token) -> usize {
        let core = self.core.borrow();
        core.sources.get(token).and_then(|s| s.extra.as_ref()).map_or(0, |e| e.bytes())
    }
}

impl Core {
    /// Puts bytes into a source's queue.
    pub(crate) fn queue(&mut self, token: Token, push: impl FnOnce(&mut super::out::Extra, u32), now: u32) {
        let Some(s) = self.sources.get_mut(token) else { return };
        push(s.extra(), now);
        if !s.extra().is_empty() {
            s.set(flag::QUEUED);
        }
    }

    /// Compares a queue with its limits; past the hard cap the connection is ended.
    pub(crate) fn check_queue(&mut self, token: Token, limits: &Limits) -> Flow {
        let Some(s) = self.sources.get_mut(token) else { return Flow::Closed };
        let Some(extra) = &s.extra else { return Flow::Go };
        let broken = if extra.cost() > limits.max_queue_bytes {
            Some(CloseReason::QueueFull)
        } else {
            (extra.messages() > limits.max_queue_messages).then_some(CloseReason::TooManyQueued)
        };
        if let Some(reason) = broken {
            self.end(token, reason);
            return Flow::Closed;
        }
        if extra.bytes() > limits.high_watermark {
            s.set(flag::HOLD);
            return Flow::Hold;
        }
        Flow::Go
    }

    /// Sending failed: the connection is over, or the stream's next call hears it.
    pub(crate) fn fail(&mut self, token: Token, e: io::Error) {
        match self.sources.get(token).map(|s| s.kind()) {
            Some(Kind::Callback) => self.end(token, CloseReason::Error(e)),
            Some(_) => self.fail_async(token, e),
            None => {}
        }
    }

    /// Ends a connection now: nothing is delivered to it but `on_close`, at the end of the batch.
    pub(crate) fn end(&mut self, token: Token, reason: CloseReason) {
        let Some(s) = self.sources.get_mut(token) else { return };
        if s.has(flag::DEAD) {
            return;
        }
        s.set(flag::DEAD);
        // Whoever breaks a limit, or aborts, leaves nothing to be flushed; a reset frees the peer at once.
        // What was handed to the kernel before a loop ends still reaches the peer, as it does when a process ends.
        let lost = match reason {
            CloseReason::Local | CloseReason::Error(_) | CloseReason::ConnectFailed(_) => false,
            CloseReason::LoopEnded => s.has(flag::QUEUED | flag::CORKED),
            _ => true,
        };
        if lost {
            s.set(flag::RESET);
        }
        self.closed.push((token, reason));
    }
}
