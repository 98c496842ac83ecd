//! Accepting: budgeted, and calm when descriptors run out.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::{Readiness, Ready, Selector};
use crate::core::pool::Event as Call;
use crate::core::shared::Timer;
use crate::core::{Kind, Shared, Token, flag};
use crate::net::{Addr, SocketOption};
use crate::sys::{Fd, Sys};

/// Connections accepted from one listener in one turn (I24).
const ACCEPTS_PER_TURN: usize = 16;
/// Connections shed at a time when descriptors have run out.
const SHED: usize = 8;
/// How long a listener rests after it ran out of descriptors: recovery takes less than 100 ms, and the attempts
/// stay below 200 a second (I27).
const REST: Duration = Duration::from_millis(50);

/// Whether an error concerns the one connection that was about to be accepted, and the next may be fine.
fn is_of_one_connection(e: &io::Error) -> bool {
    use rustix::io::Errno;
    let Some(code) = e.raw_os_error() else { return false };
    // accept(2): pending network errors of the new socket are reported as accept's own.
    [
        Errno::CONNABORTED,
        Errno::PROTO,
        Errno::PERM,
        Errno::NETDOWN,
        Errno::NOPROTOOPT,
        Errno::HOSTDOWN,
        Errno::NONET,
        Errno::HOSTUNREACH,
        Errno::OPNOTSUPP,
        Errno::NETUNREACH,
    ]
    .iter()
    .any(|errno| errno.raw_os_error() == code)
}

impl<P: Selector<Y>, Y: Sys> Readiness<P, Y> {
    /// Accepts for a pool, or wakes the task that accepts.
    pub(super) fn accept_ready(&self, lp: &Rc<Shared>, token: Token) {
        let core = lp.core.borrow();
        let Some(s) = core.sources.get(token) else { return };
        let (fd, slot) = (s.fd, s.slot);
        let listener = core.listeners.get(slot as usize).and_then(Option::as_ref);
        let Some((make, pool)) = listener.map(|l| (l.make.clone(), l.pool)) else { return };
        drop(core);
        let most = lp.pool(pool).limits().max_connections;
        for _ in 0..ACCEPTS_PER_TURN {
            // Looked at each time: a handler that was just made may have closed the listener.
            let stopped = lp.flags(token) & (flag::PAUSED | flag::DEAD) != 0;
            if stopped || most.is_some_and(|most| lp.pool(pool).len() >= most) {
                return self.rest(lp, token, None);
            }
            match self.sys.accept(fd) {
                Ok((conn, peer)) => self.welcome(lp, conn, &peer, pool, &*make),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if let Some(s) = lp.core.borrow_mut().sources.get_mut(token) {
                        s.clear(flag::READABLE);
                    }
                    return;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    lp.stats.add(&lp.stats.accept_errors);
                    if !is_of_one_connection(&e) {
                        self.shed(lp, fd);
                        return self.rest(lp, token, Some(REST));
                    }
                }
            }
        }
        lp.core.borrow_mut().list(token);
    }

    /// An accepted connection gets its handler and its place.
    fn welcome(&self, lp: &Rc<Shared>, fd: Fd, peer: &Addr, pool: u16, make: &crate::core::pool::Make) {
        lp.stats.add(&lp.stats.accepted);
        let Some(slot) = make(lp, fd, peer) else {
            // The user's function panicked: the connection ends, the listener goes on.
            lp.stats.add(&lp.stats.panics);
            return self.sys.close(fd);
        };
        let unix = if peer.socket_addr().is_none() { flag::UNIX } else { 0 };
        let flags = flag::MESSAGE | flag::OPENED | unix;
        let mut core = lp.core.borrow_mut();
        let token = core.sources.insert(fd, Kind::Callback, flags, pool, slot, lp.now_ms.get());
        drop(core);
        if let Err(e) = crate::backend::Driver::register(self, lp, token) {
            // For want of memory, or past select's limit: this one is refused, the listener goes on.
            lp.stats.add(&lp.stats.accept_errors);
            lp.abort(token, crate::CloseReason::Error(e));
            return;
        }
        lp.deliver(pool, slot, token, Call::Open);
        if !P::EDGE {
            self.settle(lp, token);
        }
    }

    /// Descriptors have run out. Whoever waits in the backlog is told at once, by a reset, instead of waiting
    /// for nothing: a spare descriptor is given up for each in turn.
    fn shed(&self, lp: &Shared, listener: Fd) {
        for _ in 0..SHED {
            let Some(spare) = self.spare.take() else { break };
            self.sys.close(spare);
            match self.sys.accept(listener) {
                Ok((fd, _)) => {
                    // A Unix socket cannot be reset; closing tells its peer as well.
                    let _ = self.sys.set_option(fd, SocketOption::ResetOnClose);
                    self.sys.close(fd);
                    lp.stats.add(&lp.stats.shed);
                    self.spare.set(self.sys.spare().ok());
                }
                Err(_) => {
                    self.spare.set(self.sys.spare().ok());
                    break;
                }
            }
        }
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
        let asynchronous = s.kind() == Kind::Watch;
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
        if lp.flags(token) & flag::PAUSED != 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        loop {
            match self.sys.accept(listener) {
                Ok(taken) => {
                    lp.stats.add(&lp.stats.accepted);
                    return Ok(taken);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
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
                    self.shed(lp, listener);
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
