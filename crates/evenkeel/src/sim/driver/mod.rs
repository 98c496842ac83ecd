//! The contract kept by the model itself: a driver that no kernel interface is between.
//!
//! It hears from the model which of its sources have changed, looks at what they are ready for, and delivers. There is no
//! interest to be registered and no report to be lost, so it is the shortest of the drivers and the fastest to simulate; and
//! it does, of all that the contract allows, what is least convenient: bytes come in pieces of any size, in any order among
//! connections.

mod accept;
mod serve;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use super::kernel::ObjectId;
use super::sys::{SimSys, Waited};
use crate::backend::Driver;
use crate::core::async_io::Half;
use crate::core::cork::{Corked, SHARED};
use crate::core::flush::Outlet;
use crate::core::{Core, Kind, Shared, Token, flag};
use crate::net::Addr;
use crate::sys::{Fd, Sys, WakeFn, uninterrupted};

/// Objects between looks at the ready tasks.
const OBJECTS_PER_ROUND: usize = 8;
const POLLS_PER_ROUND: usize = 64;

/// The driver of [`Backend::Sim`](crate::Backend::Sim).
pub(crate) struct SimDriver {
    sys: SimSys,
    /// Whose an object is.
    tokens: RefCell<BTreeMap<ObjectId, Token>>,
    spare: Cell<Option<Fd>>,
    bell: (Fd, ObjectId),
    wake: WakeFn,
}

impl SimDriver {
    pub(crate) fn new(sys: SimSys) -> io::Result<Self> {
        let (fd, wake) = sys.wake_pair()?;
        let bell = match sys.watch(fd) {
            Ok(id) => id,
            Err(e) => {
                sys.end_wakes(fd);
                return Err(e);
            }
        };
        let this =
            SimDriver { sys, tokens: RefCell::default(), spare: Cell::new(None), bell: (fd, bell), wake };
        this.spare.set(Some(this.sys.spare()?));
        Ok(this)
    }

    /// Has a source looked at in the next wait.
    fn look_again(&self, fd: Fd) {
        self.sys.look_again(fd);
    }

    /// Sends everything that is corked, one send for each source.
    fn flush_all(&self, lp: &Shared) {
        let mut guard = lp.core.borrow_mut();
        let core = &mut *guard;
        let mut cork = std::mem::take(&mut core.cork);
        let (mut memory, mut messages) = (cork.bytes(), cork.messages.iter());
        for entry in &cork.entries {
            let corked = if entry.len == SHARED {
                let Some(message) = messages.next() else { break };
                Corked::Shared(message)
            } else {
                let (bytes, after) = memory.split_at(entry.len as usize);
                memory = after;
                Corked::Bytes(bytes)
            };
            // Counted as sent, as the drivers do that mostly send at once.
            lp.stats.add_n(&lp.stats.bytes_out, corked.len() as u64);
            lp.stats.add(&lp.stats.sends);
            lp.not_sent(self, core, entry.token, corked, None);
        }
        cork.clear();
        core.cork = cork;
    }
}

impl Outlet for SimDriver {
    type Sys = SimSys;

    fn kernel(&self) -> &SimSys {
        &self.sys
    }

    fn await_room(&self, _: &mut Core, _: Token) -> io::Result<()> {
        Ok(())
    }

    fn await_no_room(&self, _: &mut Core, _: Token) -> io::Result<()> {
        Ok(())
    }
}

impl Driver for SimDriver {
    fn sys(&self) -> &dyn Sys {
        &self.sys
    }

    fn waker(&self) -> WakeFn {
        self.wake.clone()
    }

    fn wait(&self, lp: &Rc<Shared>, timeout: Option<Duration>) -> io::Result<()> {
        let reader = self.sys.reader();
        let found = self.sys.wait(timeout, || Waited::News(reader), |kernel, _| Ok(kernel.take_news(reader)));
        let news = match found {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Vec::new(),
            other => other?.unwrap_or_default(),
        };
        lp.tick();
        lp.stats.add_n(&lp.stats.events, news.len() as u64);
        self.serve_listed(lp);
        for round in news.chunks(OBJECTS_PER_ROUND) {
            for object in round {
                self.serve(lp, *object);
            }
            lp.executor.run(POLLS_PER_ROUND);
            self.flush(lp);
        }
        Ok(())
    }

    fn register(&self, lp: &Shared, token: Token) -> io::Result<()> {
        let mut core = lp.core.borrow_mut();
        let s = core.sources.get_mut(token).ok_or(io::ErrorKind::NotFound)?;
        let object = self.sys.watch(s.fd)?;
        self.tokens.borrow_mut().insert(object, token);
        s.set(flag::REGISTERED);
        if !s.has(flag::CONNECTING | flag::QUEUED) && s.kind() != Kind::Watch {
            s.set(flag::WRITABLE);
        }
        Ok(())
    }

    fn flush(&self, lp: &Shared) {
        if !lp.core.borrow().cork.entries.is_empty() {
            self.flush_all(lp);
        }
    }

    fn resume(&self, lp: &Shared, token: Token) {
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        if s.kind() == Kind::Callback && !s.has(flag::EOF) {
            s.set(flag::READABLE);
            core.list(token);
        }
    }

    fn recv(&self, lp: &Shared, token: Token, into: &mut [u8]) -> io::Result<usize> {
        self.pull(lp, token, into)
    }

    fn recv_by(
        &self,
        lp: &Shared,
        token: Token,
        receive: &mut dyn FnMut(&dyn Sys, Fd) -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        let core = lp.core.borrow();
        let s = core.sources.get(token).ok_or(io::ErrorKind::NotConnected)?;
        if s.extra.as_ref().is_some_and(|extra| !extra.unread.is_empty()) {
            return Ok(None);
        }
        let (fd, ended) = (s.fd, s.has(flag::EOF));
        drop(core);
        if ended {
            return Ok(Some(0));
        }
        let got = uninterrupted(|| receive(&self.sys, fd));
        self.pulled(lp, token, got.as_ref().map_or(1, |n| (*n).max(1)), got).map(Some)
    }

    fn send(&self, lp: &Shared, token: Token, from: &[u8]) -> io::Result<usize> {
        lp.send_now(self, token, |sys, fd| sys.send(fd, from))
    }

    fn send_vectored(&self, lp: &Shared, token: Token, from: &[io::IoSlice<'_>]) -> io::Result<usize> {
        lp.send_now(self, token, |sys, fd| sys.send_vectored(fd, from))
    }

    fn send_by(
        &self,
        lp: &Shared,
        token: Token,
        send: &mut dyn FnMut(&dyn Sys, Fd) -> io::Result<usize>,
    ) -> io::Result<usize> {
        lp.send_now(self, token, |sys, fd| send(sys, fd))
    }

    fn accept(&self, lp: &Shared, token: Token) -> io::Result<(Fd, Addr)> {
        self.accept_for_task(lp, token)
    }

    fn retry_accept(&self, lp: &Rc<Shared>, token: Token) {
        self.accept_again(lp, token);
    }

    fn shutdown(&self, lp: &Shared, token: Token, how: Shutdown) -> io::Result<()> {
        self.sys.shutdown(lp.fd(token)?, how)
    }

    fn finish(&self, lp: &Shared, token: Token) -> bool {
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return true };
        let (fd, ended, lingers) = (s.fd, s.has(flag::EOF), s.lingers());
        drop(core);
        if ended || lp.end_write_half(fd, lingers).is_none() {
            return true;
        }
        let mut core = lp.core.borrow_mut();
        if let Some(s) = core.sources.get_mut(token) {
            s.begin_to_linger();
            s.set(flag::READABLE);
        }
        core.list(token);
        false
    }

    fn renamed(&self, lp: &Shared, _old: Token, new: Token) {
        let Ok(fd) = lp.fd(new) else { return };
        if let Ok(object) = self.sys.object(fd) {
            self.tokens.borrow_mut().insert(object, new);
            self.look_again(fd);
        }
    }

    fn watch(&self, lp: &Shared, token: Token, half: Half) -> io::Result<()> {
        let armed = if half == Half::Read { flag::ARMED_READ } else { flag::ARMED_WRITE };
        let mut core = lp.core.borrow_mut();
        if let Some(s) = core.sources.get_mut(token).filter(|s| !s.has(armed)) {
            s.set(armed);
            self.look_again(s.fd);
        }
        Ok(())
    }

    fn deregister(&self, lp: &Shared, token: Token) -> bool {
        let mut core = lp.core.borrow_mut();
        if let Some(s) = core.sources.get_mut(token).filter(|s| s.has(flag::REGISTERED)) {
            s.clear(flag::REGISTERED);
            // Not found only for a process that was killed.
            if let Ok(object) = self.sys.object(s.fd) {
                self.tokens.borrow_mut().remove(&object);
                self.sys.unwatch(object);
            }
        }
        true
    }
}

impl Drop for SimDriver {
    fn drop(&mut self) {
        self.sys.unwatch(self.bell.1);
        self.sys.end_wakes(self.bell.0);
        if let Some(spare) = self.spare.take() {
            self.sys.close(spare);
        }
    }
}
