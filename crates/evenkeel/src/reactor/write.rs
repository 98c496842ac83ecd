//! Bytes to streams: the cork, at the end of each batch, one send for each source.

use std::io;

use super::{Readiness, Ready, Selector};
use crate::core::cork::{Cork, Corked, Entry, SHARED};
use crate::core::flush::Outlet;
use crate::core::{Core, Shared, Token, flag};
use crate::sys::Sys;

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
                lp.not_sent(self, core, entry.token, Corked::Bytes(bytes), first);
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
            lp.not_sent(self, core, entry.token, Corked::Shared(message), first);
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

    /// Level-triggered: whether to be told of room, whatever is asked for beside.
    fn listen_for_room(&self, core: &mut Core, token: Token, wanted: bool) -> io::Result<()> {
        let Some(s) = core.sources.get_mut(token) else { return Ok(()) };
        if P::EDGE || s.has(flag::ARMED_WRITE) == wanted {
            return Ok(());
        }
        s.clear(flag::ARMED_WRITE);
        s.set(if wanted { flag::ARMED_WRITE } else { 0 });
        let want = Ready { read: s.has(flag::ARMED_READ), write: wanted, hung_up: false };
        let registered = s.has(flag::REGISTERED);
        s.set(flag::REGISTERED);
        let mut selector = self.selector.borrow_mut();
        if registered {
            selector.modify(&self.sys, s.fd, token, want)
        } else {
            selector.add(&self.sys, s.fd, token, want)
        }
    }
}

impl<P: Selector<Y>, Y: Sys> Outlet for Readiness<P, Y> {
    type Sys = Y;

    fn kernel(&self) -> &Y {
        &self.sys
    }

    fn await_room(&self, core: &mut Core, token: Token) -> io::Result<()> {
        self.listen_for_room(core, token, true)
    }

    fn await_no_room(&self, core: &mut Core, token: Token) -> io::Result<()> {
        self.listen_for_room(core, token, false)
    }
}
