//! The last steps of a stream, and the first ones of a connection that is being made.

use std::rc::Rc;

use super::{Readiness, Ready, Selector};
use crate::core::close::Rest;
use crate::core::{Kind, Shared, Token, flag};
use crate::sys::Sys;

impl<P: Selector<Y>, Y: Sys> Readiness<P, Y> {
    /// Ends the write half of a stream whose queue is empty. False if its peer's end is waited for.
    pub(super) fn finish_stream(&self, lp: &Shared, token: Token) -> bool {
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return true };
        let (fd, ended, lingers) = (s.fd, s.has(flag::EOF), s.lingers());
        drop(core);
        if ended {
            return true;
        }
        let Some(rest) = lp.end_write_half(fd, lingers) else { return true };
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return true };
        s.begin_to_linger();
        if rest == Rest::Unread {
            s.set(flag::READABLE);
            core.list(token);
        } else {
            s.clear(flag::READABLE);
        }
        drop(core);
        self.settle(lp, token);
        false
    }

    /// Something was reported of a connection in progress.
    pub(super) fn connect_ready(&self, lp: &Rc<Shared>, token: Token, ready: Ready) {
        if !ready.write && !ready.hung_up {
            return;
        }
        let Ok(fd) = lp.fd(token) else { return };
        match lp.connect_outcome(fd) {
            Some(Ok(())) => self.connected(lp, token, ready.hung_up),
            Some(Err(e)) => lp.connect_failed(token, e),
            None => {
                if let Some(s) = lp.core.borrow_mut().sources.get_mut(token) {
                    s.clear(flag::HUNG_UP);
                }
                self.listen_for(lp, token, false, true);
            }
        }
    }

    /// `hung_up` tells of this event, not of an earlier stray one: the peer's end may be queued behind data, and
    /// is not reported again.
    fn connected(&self, lp: &Rc<Shared>, token: Token, hung_up: bool) {
        let hung_up = if hung_up { flag::HUNG_UP } else { 0 };
        let kind = lp.core.borrow_mut().established(token, hung_up, lp.now_ms.get());
        if kind == Some(Kind::Callback) {
            lp.flush_queue(self, token);
            // The handler hears `on_open` before its first bytes, which the pending list sees to.
            self.settle(lp, token);
            lp.core.borrow_mut().list(token);
        } else {
            self.listen_for(lp, token, true, false);
            lp.run_wakes();
        }
    }
}
