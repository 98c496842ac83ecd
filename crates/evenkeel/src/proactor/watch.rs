//! Watches: one poll that goes on for each direction, asked for when somebody first waits. It reports each change, so
//! that an end or an error which lasts is told once.

use std::io;
use std::rc::Rc;

use rustix::io::Errno;

use super::uring::{Op, Uring};
use crate::core::async_io::Half;
use crate::core::watch::Interest;
use crate::core::{Core, Kind, Shared, Token, flag};
use crate::sys::ring::{Done, Entry};
use crate::sys::{Sys, poll_bits as bit};

impl<Y: Sys> Uring<Y> {
    /// Somebody waits for one direction.
    pub(super) fn watch_for(&self, lp: &Shared, token: Token, half: Half) {
        self.poll_watch(&mut lp.core.borrow_mut(), token, half);
    }

    fn poll_watch(&self, core: &mut Core, token: Token, half: Half) {
        let Some(s) = core.sources.get_mut(token) else { return };
        let (armed, op) = match half {
            Half::Read => (flag::ARMED_READ, Op::Readable),
            Half::Write => (flag::ARMED_WRITE, Op::Writable),
        };
        if s.has(armed) {
            return;
        }
        let Interest { read, urgent, .. } = Interest::from_bits(s.pool);
        let events = match half {
            Half::Read => (if read { bit::IN | bit::RDHUP } else { 0 }) | if urgent { bit::PRI } else { 0 },
            Half::Write => bit::OUT,
        };
        s.set(armed);
        self.push(&Entry::poll(s.fd, events, true).with(op.data(token.index)));
    }

    /// A poll has something to say.
    pub(super) fn watch_reported(&self, lp: &Rc<Shared>, done: &Done) {
        let Some(token) = self.owner(lp, done) else { return };
        let mut core = lp.core.borrow_mut();
        if core.sources.get(token).is_none_or(|s| s.kind() != Kind::Watch || s.has(flag::DEAD)) {
            return;
        }
        if done.result >= 0 {
            let has = |bits: i16| done.result & i32::from(bits) != 0;
            const GONE: i16 = bit::ERR | bit::HUP | bit::NVAL;
            let read = if has(bit::IN | bit::PRI | bit::RDHUP | GONE) { flag::READABLE } else { 0 };
            let write = if has(bit::OUT | GONE) { flag::WRITABLE } else { 0 };
            core.watch_told(token, read | write);
        } else {
            let error = io::Error::from_raw_os_error(-done.result);
            if Errno::from_io_error(&error) != Some(Errno::CANCELED) {
                core.watch_failed(token, error);
            }
        }
        let half = if Op::of(done.data) == Op::Readable { Half::Read } else { Half::Write };
        if !done.more() && core.watch_is_awaited(token, half) {
            // The kernel was short of room for its completions.
            self.poll_watch(&mut core, token, half);
        }
        drop(core);
        lp.run_wakes();
    }
}
