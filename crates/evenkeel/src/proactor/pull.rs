//! How tasks read: what is held for them, what has been copied out for them, and the end.

use std::io;

use super::receive::{UNREAD, is_caught_up, is_read_by_calls};
use super::uring::Uring;
use crate::core::out::Ended;
use crate::core::{Core, Kind, Shared, Source, Token, flag};
use crate::sys::buffers::{Buffers, Span};
use crate::sys::{Fd, Sys, uninterrupted};

/// A span for as long as it is lent, whatever the borrower does.
pub(super) struct Lent<'a> {
    pub(super) buffers: &'a Buffers,
    pub(super) span: Option<Span>,
}

impl Lent<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        self.span.as_ref().map_or(&[], |span| self.buffers.bytes(span))
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(span) = self.span.take() {
            self.buffers.release(span);
        }
    }
}

impl<Y: Sys> Uring<Y> {
    /// Keeps a span for a task.
    pub(super) fn hold(&self, core: &mut Core, index: u32, slot: u32, span: Span) {
        let list = &mut core.tasks[slot as usize].held;
        let mut held = self.held.borrow_mut();
        if *list == 0 {
            held.begun.push(index);
        }
        held.push(list, span);
    }

    /// At the end of a batch: what tasks have not read is copied out, and who has enough is not received for.
    pub(super) fn copy_held(&self, lp: &Shared) {
        let mut begun = std::mem::take(&mut self.held.borrow_mut().begun);
        if !self.held.borrow().is_empty() {
            let mut core = lp.core.borrow_mut();
            for index in &begun {
                self.unhold(&mut core, *index);
                let unread = core.sources.place(*index).and_then(|s| s.extra.as_ref());
                if unread.is_some_and(|extra| extra.unread.len() >= UNREAD) {
                    self.cancel(&mut core, *index);
                }
            }
        }
        begun.clear();
        self.held.borrow_mut().begun = begun;
    }

    /// Puts what is held for a stream behind its unread bytes.
    pub(super) fn unhold(&self, core: &mut Core, index: u32) {
        self.empty_held(core, index, |s, bytes| s.extra().unread.extend_from_slice(bytes));
    }

    /// Forgets what is held for a stream.
    pub(super) fn drop_held(&self, core: &mut Core, index: u32) {
        self.empty_held(core, index, |_, _| ());
    }

    fn empty_held(&self, core: &mut Core, index: u32, mut each: impl FnMut(&mut Source, &[u8])) {
        let Core { sources, tasks, .. } = core;
        let Some(s) = sources.place(index).filter(|s| s.kind() == Kind::Async) else { return };
        let list = &mut tasks[s.slot as usize].held;
        let mut held = self.held.borrow_mut();
        while let Some(span) = held.pop(list) {
            each(s, self.buffers.bytes(&span));
            self.buffers.release(span);
        }
    }

    /// Lends a task what it can read: an empty slice at the end of the stream.
    #[inline]
    pub(super) fn pull<R>(
        &self,
        lp: &Shared,
        token: Token,
        most: usize,
        take: impl FnOnce(&[u8]) -> R,
    ) -> io::Result<R> {
        let mut guard = lp.core.borrow_mut();
        let core = &mut *guard;
        let s = core.sources.get_mut(token).ok_or(io::ErrorKind::NotConnected)?;
        if s.extra.as_ref().is_some_and(|extra| !extra.unread.is_empty()) {
            drop(guard);
            return self.pull_unread(lp, token, most, take);
        }
        let list = &mut core.tasks[s.slot as usize].held;
        let Some(span) = self.held.borrow_mut().pop(list) else {
            if is_read_by_calls(s) {
                drop(guard);
                return self.pull_flood(lp, token, most, take);
            }
            let end = self.nothing_held(core, token)?;
            drop(guard);
            return end.map(|()| take(&[]));
        };
        // With nothing in flight only another attempt finds out what there is.
        let more_will_come = s.flags & (flag::EOF | flag::ARMED_READ) == flag::ARMED_READ;
        if *list == 0 && more_will_come && is_caught_up(s) {
            s.clear(flag::READABLE);
        }
        drop(guard);
        let mut lent = Lent { buffers: &self.buffers, span: Some(span) };
        let n = most.min(lent.bytes().len());
        let result = take(&lent.bytes()[..n]);
        if n < lent.bytes().len()
            && let Some(mut span) = lent.span.take()
        {
            self.buffers.advance(&mut span, n);
            self.hold_first(lp, token, span);
        }
        Ok(result)
    }

    /// Reads a task's stream that has too much for the ring, by a call.
    #[cold]
    fn pull_flood<R>(
        &self,
        lp: &Shared,
        token: Token,
        most: usize,
        take: impl FnOnce(&[u8]) -> R,
    ) -> io::Result<R> {
        let fd = lp.fd(token)?;
        let mut memory = lp.take_scratch();
        let room = most.min(memory.len());
        let got = uninterrupted(|| self.sys.recv(fd, &mut memory[..room]));
        self.note_flood(lp, token, &got);
        let result = got.map(|n| take(&memory[..n]));
        lp.put_scratch(memory);
        result
    }

    /// Makes the state right after a plain read of a stream that floods.
    fn note_flood(&self, lp: &Shared, token: Token, got: &io::Result<usize>) {
        match got {
            Ok(n @ 1..) => self.note_received(lp, token, *n),
            Ok(_) | Err(_) => {
                let mut core = lp.core.borrow_mut();
                if let Some(s) = core.sources.get_mut(token) {
                    s.clear(flag::FLOOD);
                    let blocked = got.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock);
                    s.set(if blocked { 0 } else { flag::EOF });
                    s.clear(if blocked { flag::READABLE } else { 0 });
                }
                self.want(&mut core, token.index);
            }
        }
    }

    /// Reads by a call of the task's own, if plain calls are what the stream is read by.
    pub(super) fn pull_by(
        &self,
        lp: &Shared,
        token: Token,
        receive: &mut dyn FnMut(&dyn Sys, Fd) -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        let core = lp.core.borrow();
        let s = core.sources.get(token).ok_or(io::ErrorKind::NotConnected)?;
        let held = core.tasks[s.slot as usize].held != 0;
        if held || !is_read_by_calls(s) {
            return Ok(None);
        }
        let fd = s.fd;
        drop(core);
        let got = uninterrupted(|| receive(&self.sys, fd));
        // A call that is refused for what it is has read nothing, and tells nothing of the stream.
        if got.as_ref().is_ok() || got.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock) {
            self.note_flood(lp, token, &got);
        }
        got.map(Some)
    }

    #[cold]
    fn hold_first(&self, lp: &Shared, token: Token, span: Span) {
        let mut guard = lp.core.borrow_mut();
        let core = &mut *guard;
        let Some(s) = core.sources.get_mut(token) else { return self.buffers.release(span) };
        s.set(flag::READABLE);
        let list = &mut core.tasks[s.slot as usize].held;
        let mut held = self.held.borrow_mut();
        held.begun.push(token.index);
        held.push_first(list, span);
    }

    #[cold]
    fn pull_unread<R>(
        &self,
        lp: &Shared,
        token: Token,
        most: usize,
        take: impl FnOnce(&[u8]) -> R,
    ) -> io::Result<R> {
        let mut core = lp.core.borrow_mut();
        let s = core.sources.get_mut(token).ok_or(io::ErrorKind::NotConnected)?;
        let mut unread = std::mem::take(&mut s.extra().unread);
        drop(core);
        let n = most.min(unread.len());
        let result = take(&unread[..n]);
        unread.drain(..n);
        let mut core = lp.core.borrow_mut();
        if let Some(s) = core.sources.get_mut(token) {
            if !unread.is_empty() {
                unread.append(&mut s.extra().unread);
                s.extra().unread = unread;
            } else if s.extra().is_idle() {
                s.extra = None;
            }
        }
        Ok(result)
    }

    /// Nothing is there to be read: the end, a failure, or not yet, which is the outer error.
    #[cold]
    fn nothing_held(&self, core: &mut Core, token: Token) -> io::Result<io::Result<()>> {
        let s = core.sources.get_mut(token).ok_or(io::ErrorKind::NotConnected)?;
        if s.has(flag::EOF) {
            return Ok(Ok(()));
        }
        let ended = s.extra.as_mut().and_then(|extra| extra.ended.take());
        if s.extra.as_ref().is_some_and(|extra| extra.is_idle()) {
            s.extra = None;
        }
        match ended {
            Some(ended) => {
                s.set(flag::EOF);
                Ok(match ended {
                    Ended::Eof => Ok(()),
                    Ended::Failed(e) => Err(e),
                })
            }
            None => {
                s.clear(flag::READABLE);
                self.want(core, token.index);
                Err(io::ErrorKind::WouldBlock.into())
            }
        }
    }
}
