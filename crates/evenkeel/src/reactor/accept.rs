//! Accepting: budgeted, and calm when descriptors run out.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::{Readiness, Ready, Selector};
use crate::backend::Driver;
use crate::core::accept::{ACCEPTS_PER_TURN, REST, is_of_one_connection};
use crate::core::shared::Timer;
use crate::core::{Kind, Shared, Token, flag};
use crate::net::Addr;
use crate::sys::{Fd, Sys};

impl<P: Selector<Y>, Y: Sys> Readiness<P, Y> {
    /// Accepts for a pool, or wakes the task that accepts.
    pub(super) fn accept_ready(&self, lp: &Rc<Shared>, token: Token) {
        let core = lp.core.borrow();
        let Some(s) = core.sources.get(token) else { return };
        let (fd, slot, flags) = (s.fd, s.slot, s.flags);
        let listener = core.listeners.get(slot as usize).and_then(Option::as_ref);
        let Some((make, pool)) = listener.map(|l| (l.make.clone(), l.pool)) else { return };
        drop(core);
        if flags & flag::CLOSING != 0 {
            // Before the last look, so that whoever the kernel wakes for a newcomer behind it is somebody else.
            self.deregister(lp, token);
        }
        let most = lp.pool(pool).limits().max_connections;
        for _ in 0..ACCEPTS_PER_TURN {
            // Looked at each time: a handler that was just made may have closed the listener.
            let stopped = lp.flags(token) & (flag::PAUSED | flag::DEAD) != 0;
            if stopped || most.is_some_and(|most| lp.pool(pool).len() >= most) {
                return self.rest(lp, token, None);
            }
            match self.sys.accept(fd) {
                Ok((conn, peer)) => {
                    if let Some(token) = lp.welcome(conn, &peer, pool, &*make) {
                        self.settle(lp, token);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return lp.accepted_all(token),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
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
    fn rest(&self, lp: &Rc<Shared>, token: Token, time: Option<Duration>) {
        if let Some(s) = lp.core.borrow_mut().sources.get_mut(token) {
            s.set(flag::PAUSED | flag::READABLE);
        }
        self.arm(lp, token, Ready::default(), false);
        if let Some(time) = time {
            lp.timer_after(time, Timer::Accept(token));
        }
    }

    /// A listener's rest is over: what came meanwhile may never be reported again, so it is tried.
    pub(super) fn accept_again(&self, lp: &Rc<Shared>, token: Token) {
        if self.spare.get().is_none() {
            self.spare.set(self.sys.spare().ok());
        }
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        s.clear(flag::PAUSED);
        let asynchronous = s.kind() == Kind::TaskListener;
        drop(core);
        self.arm(lp, token, Ready { read: true, write: false, hung_up: false }, false);
        if asynchronous {
            lp.core.borrow_mut().wake(token, true, false);
            lp.run_wakes();
        } else {
            self.accept_ready(lp, token);
        }
    }

    /// Takes one connection for a task. For want of descriptors the backlog is shed and the task waits.
    pub(super) fn accept_for_task(&self, lp: &Shared, token: Token) -> io::Result<(Fd, Addr)> {
        let listener = lp.fd(token)?;
        let flags = lp.flags(token);
        if flags & flag::CLOSING != 0 {
            self.deregister(lp, token);
        }
        if flags & flag::PAUSED != 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        loop {
            match self.sys.accept(listener) {
                Ok(taken) => {
                    lp.stats.add(&lp.stats.accepted);
                    return Ok(taken);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if flags & flag::CLOSING != 0 {
                        return Err(Shared::no_more_to_accept());
                    }
                    if let Some(s) = lp.core.borrow_mut().sources.get_mut(token) {
                        s.clear(flag::READABLE);
                    }
                    self.listen_for(lp, token, true, false);
                    return Err(e);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    lp.stats.add(&lp.stats.accept_errors);
                    if is_of_one_connection(&e) {
                        continue;
                    }
                    lp.shed(&self.spare, listener);
                    if let Some(s) = lp.core.borrow_mut().sources.get_mut(token) {
                        s.set(flag::PAUSED | flag::READABLE);
                    }
                    self.arm(lp, token, Ready::default(), false);
                    lp.timer_after(REST, Timer::Accept(token));
                    return Err(io::ErrorKind::WouldBlock.into());
                }
            }
        }
    }
}
