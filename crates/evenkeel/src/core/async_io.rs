//! The asynchronous side: who waits for a stream, and changing a connection's owner.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use super::pool::{AnyPool, TypedPool};
use super::shared::AsyncIo;
use super::{Core, Kind, Shared, Token, flag};
use crate::handler::Handler;
use crate::net::{Addr, SocketOption, Stream};
use crate::sys::Fd;
use crate::task::Executor;

/// Which half of a stream a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    Read,
    Write,
}

/// What the first look at a stream says of an operation of one half.
enum Look {
    /// It may succeed.
    May,
    /// It cannot, and who asks will be woken when it may.
    Waits,
    Closer,
}

impl Half {
    /// The bit of a source that says that an operation of this half may succeed.
    #[inline]
    pub(crate) fn flag(self) -> u32 {
        if self == Half::Read { flag::READABLE } else { flag::WRITABLE }
    }
}

/// States in which an event of a stream is more than news for its tasks.
pub(crate) const BUSY: u32 = flag::CONNECTING | flag::QUEUED | flag::LINGER;

impl AsyncIo {
    #[inline]
    fn waker(&self, half: Half) -> Option<&Waker> {
        if half == Half::Read { self.reader.as_ref() } else { self.writer.as_ref() }
    }
}

impl Core {
    pub(crate) fn new_async(&mut self) -> u32 {
        if self.free_task != u32::MAX {
            let slot = self.free_task;
            self.free_task = self.tasks[slot as usize].free;
            return slot;
        }
        self.tasks.push(AsyncIo::default());
        (self.tasks.len() - 1) as u32
    }

    /// Frees a slot; what was in it is the caller's to drop when nothing is borrowed.
    #[must_use]
    pub(crate) fn free_async(&mut self, slot: u32) -> Option<AsyncIo> {
        let place = self.tasks.get_mut(slot as usize)?;
        let old = std::mem::take(place);
        place.free = self.free_task;
        self.free_task = slot;
        Some(old)
    }

    /// An event of a stream that says nothing new but that it is readable, with a task of this loop waiting for that, if
    /// any: the usual one. False, and nothing is done, for any other.
    #[inline]
    pub(crate) fn wake_reader(&mut self, executor: &Executor, token: Token, news: u32) -> bool {
        let Some(s) = self.sources.get_mut(token) else { return false };
        let flags = s.flags | news;
        if flags & (flag::KIND | BUSY) != Kind::Async as u32 || flags ^ s.flags != flag::READABLE {
            return false;
        }
        let woken = self.tasks[s.slot as usize].reader.as_ref().is_none_or(|waker| executor.wake(waker));
        if woken {
            s.flags = flags;
        }
        woken
    }

    /// Wakes what waits for a stream that has just become readable or writable. False if something waits that is not
    /// a task of this loop: it is set aside then, to be called by [`Shared::run_wakes`].
    #[inline]
    pub(crate) fn wake_tasks(&mut self, executor: &Executor, token: Token, slot: u32, now: u32) -> bool {
        let io = &self.tasks[slot as usize];
        let wake = |bit, waker: &Option<Waker>| {
            now & bit == 0 || waker.as_ref().is_none_or(|waker| executor.wake(waker))
        };
        let woken = wake(flag::READABLE, &io.reader) & wake(flag::WRITABLE, &io.writer);
        if !woken {
            self.wake(token, now & flag::READABLE != 0, now & flag::WRITABLE != 0);
        }
        woken
    }

    /// Sets aside the wakers of the halves, to be called when nothing is borrowed.
    #[inline]
    pub(crate) fn wake(&mut self, token: Token, read: bool, write: bool) {
        let Some(s) = self.sources.get(token) else { return };
        let io = &mut self.tasks[s.slot as usize];
        if read && let Some(waker) = io.reader.take() {
            self.wakes.push((token, waker, true));
        }
        if write && let Some(waker) = io.writer.take() {
            self.wakes.push((token, waker, false));
        }
    }
}

impl Shared {
    /// Leaves a waker for one half.
    pub(crate) fn wait_for(&self, token: Token, half: Half, cx: &Context<'_>) {
        let core = self.core.borrow();
        let Some(s) = core.sources.get(token) else { return };
        let left = core.tasks[s.slot as usize].waker(half);
        if !left.is_some_and(|waker| waker.will_wake(cx.waker())) {
            drop(core);
            self.leave_waker(token, half, cx);
        }
    }

    /// Cloning a waker and dropping the old one may run code of a user: nothing is borrowed meanwhile.
    #[cold]
    fn leave_waker(&self, token: Token, half: Half, cx: &Context<'_>) {
        let new = cx.waker().clone();
        let mut core = self.core.borrow_mut();
        let core_now = &mut *core;
        let Some(s) = core_now.sources.get(token) else { return };
        let io = &mut core_now.tasks[s.slot as usize];
        let place = if half == Half::Read { &mut io.reader } else { &mut io.writer };
        let old: Option<Waker> = place.replace(new);
        drop(core);
        drop(old);
    }

    #[inline]
    pub(crate) fn flags(&self, token: Token) -> u32 {
        self.core.borrow().sources.get(token).map_or(flag::DEAD, |s| s.flags)
    }

    pub(super) fn gone() -> io::Error {
        io::Error::new(io::ErrorKind::NotConnected, "the loop that this belonged to has ended")
    }

    /// Looks whether an operation of one half may succeed.
    #[inline(always)]
    fn look(&self, token: Token, half: Half, cx: &Context<'_>) -> Look {
        // Exclusive, because that is the cheaper one to check.
        let core = self.core.borrow_mut();
        let Some(s) = core.sources.get(token) else { return Look::Closer };
        let may = half.flag();
        if s.flags & (may | flag::CONNECTING | flag::HUNG_UP | flag::DEAD) == may {
            return Look::May;
        }
        let left = core.tasks[s.slot as usize].waker(half);
        if s.flags & (may | flag::DEAD) == 0 && left.is_some_and(|waker| waker.will_wake(cx.waker())) {
            return Look::Waits;
        }
        Look::Closer
    }

    /// As [`look`](Self::look), in every state; if the operation may not succeed, the waker is left.
    #[cold]
    #[inline(never)]
    fn look_closer(&self, token: Token, half: Half, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let flags = self.flags(token);
        if flags & flag::DEAD != 0 {
            return Poll::Ready(Err(Self::gone()));
        }
        if flags & half.flag() == 0 || flags & flag::CONNECTING != 0 {
            self.wait_for(token, half, cx);
            return Poll::Pending;
        }
        Poll::Ready(self.take_failure(token).map_or(Ok(()), Err))
    }

    /// What went wrong outside of any call, once.
    pub(crate) fn take_failure(&self, token: Token) -> Option<io::Error> {
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        let s = core.sources.get(token)?;
        core.tasks[s.slot as usize].error.take()
    }

    /// Polls an operation of one half: tries it if it may succeed, and waits if it would block. The waker is
    /// left after the attempt that failed, and no event can come between (I3).
    #[inline]
    pub(crate) fn poll_io<R>(
        &self,
        token: Token,
        half: Half,
        cx: &mut Context<'_>,
        attempt: impl FnOnce() -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        match self.look(token, half, cx) {
            Look::May => {}
            Look::Waits => return Poll::Pending,
            Look::Closer => ready!(self.look_closer(token, half, cx))?,
        }
        if !self.executor.spend() {
            return Self::give_up_turn(cx);
        }
        match attempt() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.wait_for(token, half, cx);
                Poll::Pending
            }
            other => Poll::Ready(other),
        }
    }

    /// The task has had its turn (I24): it goes to the back of the queue, and finds everything as it is.
    #[cold]
    pub(super) fn give_up_turn<R>(cx: &Context<'_>) -> Poll<R> {
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Lends what can be read, at most `most` bytes, from the loop's own memory; an empty slice at the end. `most` is
    /// above zero.
    #[inline]
    pub(crate) fn poll_lend<R>(
        &self,
        token: Token,
        most: usize,
        cx: &mut Context<'_>,
        lend: impl FnOnce(&[u8]) -> R,
    ) -> Poll<io::Result<R>> {
        if self.lends {
            return self.poll_lend_from_driver(token, most, cx, lend);
        }
        self.poll_io(token, Half::Read, cx, || {
            let mut memory = self.take_scratch();
            let room = most.min(memory.len());
            let result = self.driver.recv(self, token, &mut memory[..room]).map(|n| lend(&memory[..n]));
            self.put_scratch(memory);
            result
        })
    }

    /// The same from memory of the driver's own. Apart, so that the other way stays short.
    #[inline(never)]
    fn poll_lend_from_driver<R>(
        &self,
        token: Token,
        most: usize,
        cx: &mut Context<'_>,
        lend: impl FnOnce(&[u8]) -> R,
    ) -> Poll<io::Result<R>> {
        self.poll_io(token, Half::Read, cx, || {
            let (mut lend, mut result) = (Some(lend), None);
            let mut once = |bytes: &[u8]| result = lend.take().map(|lend| lend(bytes));
            self.driver.lend(self, token, most, &mut once)?;
            result.ok_or_else(|| io::ErrorKind::WouldBlock.into())
        })
    }

    /// Puts a descriptor under the loop's care for tasks.
    pub(crate) fn adopt_async(&self, fd: Fd, kind: Kind, flags: u32) -> io::Result<Token> {
        if self.ended.get() {
            self.driver.sys().close(fd);
            return Err(Self::gone());
        }
        let mut core = self.core.borrow_mut();
        let slot = core.new_async();
        let token = core.sources.insert(fd, kind, flags, 0, slot, self.now_ms.get());
        drop(core);
        if let Err(e) = self.driver.register(self, token) {
            let mut core = self.core.borrow_mut();
            core.sources.remove(token);
            let state = core.free_async(slot);
            drop(core);
            drop(state);
            self.driver.sys().close(fd);
            return Err(e);
        }
        Ok(token)
    }

    /// Puts a descriptor under the loop's care for a handler.
    pub(crate) fn adopt_callback<H: Handler>(
        &self,
        pool: &TypedPool<H>,
        fd: Fd,
        flags: u32,
        handler: H,
    ) -> io::Result<Token> {
        let slot = pool.insert(handler);
        let flags = flags | flag::MESSAGE;
        let mut core = self.core.borrow_mut();
        let token = core.sources.insert(fd, Kind::Callback, flags, pool.place.get(), slot, self.now_ms.get());
        drop(core);
        if let Err(e) = self.driver.register(self, token) {
            self.core.borrow_mut().sources.remove(token);
            self.driver.sys().close(fd);
            pool.discard(slot);
            return Err(e);
        }
        Ok(token)
    }

    /// A callback connection becomes a stream.
    pub(crate) fn detach(this: &Rc<Self>, token: Token, unread: &[u8]) -> Option<Stream> {
        let mut guard = this.core.borrow_mut();
        let core = &mut *guard;
        let s = core.sources.get(token)?;
        if s.has(flag::CLOSING | flag::DEAD) || s.kind() != Kind::Callback {
            return None;
        }
        let pool = s.pool;
        // A new token: handles and events of the old owner find nothing.
        let slot = core.new_async();
        let new = core.move_source(token, |s| {
            s.set_kind(Kind::Async);
            s.clear(flag::PAUSED | flag::HOLD | flag::MESSAGE | flag::FRAMED | flag::NOTIFY | flag::DRAINED);
            // The list has the old token.
            s.clear(flag::LISTED);
            s.slot = slot;
            s.pool = 0;
            s.put_unread(unread);
            if let Some(extra) = &mut s.extra {
                // The message in progress was the handler's.
                extra.counting = false;
                if !extra.unread.is_empty() {
                    s.set(flag::READABLE);
                } else if extra.is_idle() {
                    s.extra = None;
                }
            }
        })?;
        drop(guard);
        let this = this.clone();
        this.moved(token, new);
        this.resume_listeners(pool);
        Some(Stream::from_parts(this, new))
    }

    /// A stream becomes a callback connection; its handler hears `on_open` next, then `unread`.
    pub(crate) fn attach<H: Handler>(
        &self,
        token: Token,
        pool: &TypedPool<H>,
        handler: H,
        unread: &[u8],
    ) -> Result<Token, H> {
        self.driver.hand_over(self, token);
        let mut core = self.core.borrow_mut();
        const OVER: u32 = flag::CLOSING | flag::DEAD | flag::RESET;
        let Some(s) = core.sources.get(token).filter(|s| !s.has(OVER)) else {
            drop(core);
            // One that has failed is still to be ended.
            self.close(token);
            return Err(handler);
        };
        let old_slot = s.slot;
        let slot = pool.insert(handler);
        let (place, now) = (pool.place.get(), self.now_ms.get());
        let new = core.move_source(token, |s| {
            s.set_kind(Kind::Callback);
            s.set(flag::MESSAGE);
            if s.has(flag::EOF) {
                // The stream has read the end; the handler has yet to hear of it.
                s.set(flag::READABLE);
            }
            s.clear(flag::OPENED | flag::EOF | flag::LISTED);
            s.slot = slot;
            s.pool = place;
            s.stamp = now;
            s.put_unread(unread);
        });
        let new = new.expect("the source was there just now");
        core.pending.push(new);
        let state = core.free_async(old_slot);
        drop(core);
        drop(state);
        self.moved(token, new);
        Ok(new)
    }

    /// The driver learns a source's new token, and whatever was ready is looked at again.
    fn moved(&self, old: Token, new: Token) {
        let mut core = self.core.borrow_mut();
        for entry in core.cork.entries.iter_mut().filter(|e| e.token == old) {
            entry.token = new;
        }
        if core.sources.get(new).is_some_and(|s| s.has(flag::SHUT)) {
            // The end of the write half may have been asked for under the old token.
            core.closing.push(new);
        }
        drop(core);
        self.driver.renamed(self, old, new);
        self.driver.resume(self, new);
    }

    pub(crate) fn peer_addr(&self, token: Token) -> io::Result<Addr> {
        self.driver.sys().peer_addr(self.fd(token)?)
    }

    pub(crate) fn local_addr(&self, token: Token) -> io::Result<Addr> {
        self.driver.sys().local_addr(self.fd(token)?)
    }

    pub(crate) fn set_option(&self, token: Token, option: SocketOption) -> io::Result<()> {
        self.driver.sys().set_option(self.fd(token)?, option)
    }

    pub(crate) fn fd(&self, token: Token) -> io::Result<Fd> {
        self.core.borrow().sources.get(token).map(|s| s.fd).ok_or_else(Self::gone)
    }
}

impl Core {
    /// Gives a source a new token in the same place, changed by `change`.
    fn move_source(&mut self, token: Token, change: impl FnOnce(&mut super::Source)) -> Option<Token> {
        let s = self.sources.get_mut(token)?;
        s.generation = s.generation.wrapping_add(1).max(1);
        let generation = s.generation;
        change(s);
        Some(Token { index: token.index, generation })
    }
}
