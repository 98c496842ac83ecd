//! How connections are accepted: by a request that goes on, and calmly when descriptors run out.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;

use super::uring::Uring;
use crate::core::accept::{ACCEPTS_PER_TURN, REST, is_of_one_connection};
use crate::core::shared::Timer;
use crate::core::{Kind, Shared, Token, flag};
use crate::net::{Addr, SocketOption};
use crate::sys::ring::Done;
use crate::sys::{Fd, Sys};

/// Accepted connections that wait for a listener's owner before the kernel is asked to stop.
const WAITING: usize = 64;

impl<Y: Sys> Uring<Y> {
    /// A listener's request has something to say.
    pub(super) fn accepted(&self, lp: &Rc<Shared>, index: u32, done: &Done) {
        let Some(token) = self.owner(lp, done) else {
            // Its listener is gone (I10).
            if done.result >= 0 {
                self.turn_away(done.result);
            }
            return;
        };
        if done.result >= 0 {
            self.keep_accepted(lp, token, done.result);
        } else {
            let error = io::Error::from_raw_os_error(-done.result);
            let none =
                matches!(Errno::from_io_error(&error), Some(Errno::CANCELED | Errno::INTR | Errno::AGAIN));
            if !none {
                self.accept_failed(lp, token, &error);
            }
            if lp.flags(token) & flag::CLOSING != 0 {
                // A task that takes what was accepted ahead waits for this.
                self.wake_acceptor(lp, token);
            }
        }
        self.want(&mut lp.core.borrow_mut(), index);
    }

    fn keep_accepted(&self, lp: &Shared, token: Token, fd: Fd) {
        self.accepted.borrow_mut().push_back((token.index, fd));
        let mut core = lp.core.borrow_mut();
        if !self.has_room_to_accept(token.index) {
            self.cancel(&mut core, token.index);
        }
        drop(core);
        self.wake_acceptor(lp, token);
    }

    /// Wakes the task that accepts from a listener, if one does.
    fn wake_acceptor(&self, lp: &Shared, token: Token) {
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token).filter(|s| s.kind() == Kind::TaskListener) else { return };
        s.set(flag::READABLE);
        core.wake(token, true, false);
        drop(core);
        lp.run_wakes();
    }

    /// Whether a listener's owner has taken what was accepted for it, but for a few. The rest waits in the kernel (I41).
    pub(super) fn has_room_to_accept(&self, listener: u32) -> bool {
        self.accepted.borrow().iter().filter(|(index, _)| *index == listener).count() < WAITING
    }

    fn accept_failed(&self, lp: &Shared, token: Token, error: &io::Error) {
        lp.stats.add(&lp.stats.accept_errors);
        if !is_of_one_connection(error)
            && let Ok(listener) = lp.fd(token)
        {
            lp.shed(&self.spare, listener);
            self.rest(lp, token, Some(REST));
        }
    }

    /// Stops a listener; `time` says for how long, none until somebody resumes it.
    fn rest(&self, lp: &Shared, token: Token, time: Option<Duration>) {
        let mut core = lp.core.borrow_mut();
        if let Some(s) = core.sources.get_mut(token) {
            s.set(flag::PAUSED);
        }
        self.cancel(&mut core, token.index);
        drop(core);
        if let Some(time) = time {
            lp.timer_after(time, Timer::Accept(token));
        }
    }

    /// Handlers for accepted connections, a few in each turn (I24).
    pub(super) fn serve_accepted(&self, lp: &Rc<Shared>) {
        let waiting = self.accepted.borrow().len();
        let mut served = 0;
        for _ in 0..waiting {
            let Some((index, fd)) = self.accepted.borrow_mut().pop_front() else { return };
            let mut core = lp.core.borrow_mut();
            let listener = core.sources.at(index as usize).filter(|(_, s)| !s.has(flag::DEAD));
            let Some((token, s)) = listener else {
                self.turn_away(fd);
                continue;
            };
            let (kind, slot) = (s.kind(), s.slot);
            let later = kind != Kind::Listener;
            if !later && served >= ACCEPTS_PER_TURN {
                core.list(token);
            }
            let listener = core.listeners.get(slot as usize).and_then(Option::as_ref);
            let owner = listener.filter(|_| !later && served < ACCEPTS_PER_TURN);
            let owner = owner.map(|l| (l.make.clone(), l.pool));
            drop(core);
            let Some((make, pool)) = owner else {
                self.accepted.borrow_mut().push_back((index, fd));
                continue;
            };
            let most = lp.pool(pool).limits().max_connections;
            if most.is_some_and(|most| lp.pool(pool).len() >= most) {
                self.accepted.borrow_mut().push_back((index, fd));
                self.rest(lp, token, None);
                continue;
            }
            served += 1;
            match self.sys.peer_addr(fd) {
                Ok(peer) => {
                    lp.welcome(fd, &peer, pool, &*make);
                }
                Err(_) => self.gone(lp, fd),
            }
            self.want(&mut lp.core.borrow_mut(), index);
        }
    }

    /// A listener that is to end: stops what is in flight, waits for what was taken ahead to be served, then empties the
    /// kernel's queue if that is wanted.
    pub(super) fn carry_on_retiring(&self, lp: &Rc<Shared>, token: Token) {
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get(token) else { return };
        let (flags, fd, slot) = (s.flags, s.fd, s.slot);
        if flags & flag::CLOSING == 0 || flags & flag::DEAD != 0 {
            return;
        }
        if flags & flag::ARMED_READ != 0 {
            self.cancel(&mut core, token.index);
            return core.list(token);
        }
        let ahead = self.accepted.borrow().iter().any(|(index, _)| *index == token.index);
        if flags & flag::PAUSED != 0 {
            // It is listed again when its rest is over.
            return;
        }
        if ahead {
            return core.list(token);
        }
        let listener = core.listeners.get(slot as usize).and_then(Option::as_ref);
        let Some((make, pool)) = listener.map(|l| (l.make.clone(), l.pool)) else { return };
        drop(core);
        let most = lp.pool(pool).limits().max_connections;
        for _ in 0..ACCEPTS_PER_TURN {
            if lp.flags(token) & flag::DEAD != 0 {
                return;
            }
            if most.is_some_and(|most| lp.pool(pool).len() >= most) {
                return self.rest(lp, token, None);
            }
            match self.sys.accept(fd) {
                Ok((fd, peer)) => _ = lp.welcome(fd, &peer, pool, &*make),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return lp.accepted_all(token),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.accept_failed(lp, token, &e);
                    if lp.flags(token) & flag::PAUSED != 0 {
                        return;
                    }
                }
            }
        }
        lp.core.borrow_mut().list(token);
    }

    /// A connection whose listener is gone is reset, as the kernel does with those that it has not handed out.
    pub(super) fn turn_away(&self, fd: Fd) {
        // A Unix socket cannot be reset; closing tells its peer as well.
        let _ = self.sys.set_option(fd, SocketOption::ResetOnClose);
        self.sys.close(fd);
    }

    /// A peer that has gone before it was accepted: nobody hears of it.
    fn gone(&self, lp: &Shared, fd: Fd) {
        lp.stats.add(&lp.stats.accept_errors);
        self.sys.close(fd);
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
            s.set(flag::READABLE);
            core.wake(token, true, false);
        } else {
            // Those that were accepted before it had to rest come first.
            core.list(token);
        }
        self.want(&mut core, token.index);
        drop(core);
        lp.run_wakes();
    }

    /// Takes one connection for a task.
    pub(super) fn accept_for_task(&self, lp: &Shared, token: Token) -> io::Result<(Fd, Addr)> {
        while let Some(fd) = self.take_accepted(token.index) {
            match self.sys.peer_addr(fd) {
                Ok(peer) => {
                    lp.stats.add(&lp.stats.accepted);
                    return Ok((fd, peer));
                }
                Err(_) => self.gone(lp, fd),
            }
        }
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return Err(io::ErrorKind::NotConnected.into()) };
        if s.flags & (flag::CLOSING | flag::ARMED_READ) == flag::CLOSING {
            drop(core);
            return self.accept_the_rest(lp, token);
        }
        s.clear(flag::READABLE);
        if s.has(flag::CLOSING) {
            self.cancel(&mut core, token.index);
        }
        self.want(&mut core, token.index);
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Takes what waits in the kernel's queue of a listener that has stopped.
    fn accept_the_rest(&self, lp: &Shared, token: Token) -> io::Result<(Fd, Addr)> {
        let listener = lp.fd(token)?;
        loop {
            match self.sys.accept(listener) {
                Ok(taken) => {
                    lp.stats.add(&lp.stats.accepted);
                    return Ok(taken);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(Shared::no_more_to_accept()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.accept_failed(lp, token, &e);
                    let mut core = lp.core.borrow_mut();
                    let Some(s) = core.sources.get_mut(token) else { return Err(e) };
                    if s.has(flag::PAUSED) {
                        s.clear(flag::READABLE);
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                }
            }
        }
    }

    fn take_accepted(&self, listener: u32) -> Option<Fd> {
        let mut accepted = self.accepted.borrow_mut();
        let at = accepted.iter().position(|(index, _)| *index == listener)?;
        accepted.remove(at).map(|(_, fd)| fd)
    }
}
