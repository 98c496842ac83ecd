//! Accepting, for pools and for tasks, and what becomes of it when descriptors run out (I27).

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::SimDriver;
use crate::backend::Driver;
use crate::core::accept::{ACCEPTS_PER_TURN, REST, is_of_one_connection};
use crate::core::shared::Timer;
use crate::core::{Kind, Shared, Token, flag};
use crate::net::Addr;
use crate::sys::{Fd, Sys, uninterrupted};

impl SimDriver {
    pub(super) fn accept_ready(&self, lp: &Rc<Shared>, token: Token) {
        let core = lp.core.borrow();
        let Some(s) = core.sources.get(token) else { return };
        let (fd, slot, closing) = (s.fd, s.slot, s.has(flag::CLOSING));
        let listener = core.listeners.get(slot as usize).and_then(Option::as_ref);
        let Some((make, pool)) = listener.map(|l| (l.make.clone(), l.pool)) else { return };
        drop(core);
        if closing {
            self.deregister(lp, token);
        }
        let most = lp.pool(pool).limits().max_connections;
        for _ in 0..ACCEPTS_PER_TURN {
            let stopped = lp.flags(token) & (flag::PAUSED | flag::DEAD) != 0;
            if stopped || most.is_some_and(|most| lp.pool(pool).len() >= most) {
                return self.rest(lp, token, None);
            }
            match uninterrupted(|| self.sys.accept(fd)) {
                Ok((conn, peer)) => drop(lp.welcome(conn, &peer, pool, &*make)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return lp.accepted_all(token),
                Err(e) => {
                    lp.stats.add(&lp.stats.accept_errors);
                    if !is_of_one_connection(&e) {
                        lp.shed(&self.spare, fd);
                        return self.rest(lp, token, Some(REST));
                    }
                }
            }
        }
        lp.core.borrow_mut().list(token);
    }

    /// Stops a listener; `time` says for how long, none until somebody resumes it.
    fn rest(&self, lp: &Shared, token: Token, time: Option<Duration>) {
        if let Some(s) = lp.core.borrow_mut().sources.get_mut(token) {
            s.set(flag::PAUSED | flag::READABLE);
        }
        if let Some(time) = time {
            lp.timer_after(time, Timer::Accept(token));
        }
    }

    /// A listener's rest is over.
    pub(super) fn accept_again(&self, lp: &Rc<Shared>, token: Token) {
        if self.spare.get().is_none() {
            self.spare.set(self.sys.spare().ok());
        }
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        s.clear(flag::PAUSED);
        if s.kind() == Kind::TaskListener {
            core.wake(token, true, false);
            drop(core);
            lp.run_wakes();
        } else {
            drop(core);
            self.accept_ready(lp, token);
        }
    }

    pub(super) fn accept_for_task(&self, lp: &Shared, token: Token) -> io::Result<(Fd, Addr)> {
        let (listener, flags) = (lp.fd(token)?, lp.flags(token));
        let closing = flags & flag::CLOSING != 0;
        if closing {
            self.deregister(lp, token);
        }
        if flags & flag::PAUSED != 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        loop {
            match uninterrupted(|| self.sys.accept(listener)) {
                Ok(taken) => {
                    lp.stats.add(&lp.stats.accepted);
                    return Ok(taken);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if closing {
                        return Err(Shared::no_more_to_accept());
                    }
                    if let Some(s) = lp.core.borrow_mut().sources.get_mut(token) {
                        s.clear(flag::READABLE);
                    }
                    return Err(e);
                }
                Err(e) => {
                    lp.stats.add(&lp.stats.accept_errors);
                    if !is_of_one_connection(&e) {
                        lp.shed(&self.spare, listener);
                        self.rest(lp, token, Some(REST));
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                }
            }
        }
    }
}
