//! What happens to accepted connections, and to those that cannot be accepted.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::pool::{Event, Made, Make};
use super::shared::Timer;
use super::{Kind, Shared, Token, flag};
use crate::handler::CloseReason;
use crate::net::{Addr, Closing, SocketOption};
use crate::sys::Fd;

/// Connections accepted from one listener in one turn (I24).
pub(crate) const ACCEPTS_PER_TURN: usize = 16;
/// Connections shed at a time when descriptors have run out.
const SHED: usize = 8;
/// How long a listener rests after it ran out of descriptors: recovery takes less than 100 ms, and the attempts
/// stay below 200 a second (I27).
pub(crate) const REST: Duration = Duration::from_millis(50);

/// Whether an error concerns the one connection that was about to be accepted, and the next may be fine.
pub(crate) fn is_of_one_connection(e: &io::Error) -> bool {
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

impl Shared {
    /// An accepted connection gets its handler and its place. None if it was refused for want of either, or is served
    /// elsewhere.
    pub(crate) fn welcome(self: &Rc<Self>, fd: Fd, peer: &Addr, pool: u16, make: &Make) -> Option<Token> {
        let made = make(self, fd, peer);
        if let Made::GivenAway = made {
            // Whoever serves it counts it.
            return None;
        }
        self.stats.add(&self.stats.accepted);
        let Made::Here(slot) = made else {
            // The user's function panicked: the connection ends, the listener goes on.
            self.stats.add(&self.stats.panics);
            self.driver.sys().close(fd);
            return None;
        };
        let unix = if peer.socket_addr().is_none() { flag::UNIX } else { 0 };
        let flags = flag::MESSAGE | flag::OPENED | unix;
        let mut core = self.core.borrow_mut();
        let token = core.sources.insert(fd, Kind::Callback, flags, pool, slot, self.now_ms.get());
        drop(core);
        if let Err(e) = self.driver.register(self, token) {
            // For want of memory, or past select's limit: this one is refused, the listener goes on.
            self.stats.add(&self.stats.accept_errors);
            self.abort(token, CloseReason::Error(e));
            return None;
        }
        self.deliver(pool, slot, token, Event::Open);
        if self.pool(pool).draining().has_begun() {
            self.tell_draining(token);
        }
        Some(token)
    }

    /// Nobody waits in a listener's queue: one that was to be emptied has reached its end.
    pub(crate) fn accepted_all(&self, token: Token) {
        let mut core = self.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        s.clear(flag::READABLE);
        if s.has(flag::CLOSING) {
            core.end(token, CloseReason::Local);
        }
    }

    /// What a task hears that accepts from a listener that has stopped, when nobody is left to be accepted.
    pub(crate) fn no_more_to_accept() -> io::Error {
        io::Error::new(io::ErrorKind::NotConnected, "the listener has stopped, and nobody waits any more")
    }

    /// Ends a listener in the way of `closing`. The driver does the rest when it comes to the source on its ready list.
    pub(crate) fn retire_listener(&self, token: Token, closing: Closing) {
        let mut core = self.core.borrow_mut();
        if closing == Closing::HandedOver {
            core.forget_socket_file(token);
        }
        let Some(s) = core.sources.get_mut(token).filter(|s| !s.has(flag::DEAD)) else { return };
        if closing == Closing::Now {
            return core.end(token, CloseReason::Local);
        }
        let (first, by_task) = (!s.has(flag::CLOSING), s.kind() == Kind::TaskListener);
        // Handed over or not, the queue is looked at once more when nothing waits for newcomers here any longer: the kernel may
        // have woken this loop, and nobody else, for one who came meanwhile.
        s.set(flag::CLOSING);
        let pool = s.pool;
        if by_task {
            // The task finds out, and has as long as it likes.
            s.set(flag::READABLE);
            core.wake(token, true, false);
            drop(core);
            return self.run_wakes();
        }
        core.list(token);
        drop(core);
        if first {
            // Past that the listener ends with what waits: a pool that stays full must not keep it for ever.
            let within = self.pool(pool).limits().close_deadline;
            self.arm_deadline(token, within, Timer::Deadline(token));
        }
    }

    /// Descriptors have run out. Whoever waits in the backlog is told at once, by a reset, instead of waiting
    /// for nothing: a spare descriptor is given up for each in turn.
    pub(crate) fn shed(&self, spare: &Cell<Option<Fd>>, listener: Fd) {
        let sys = self.driver.sys();
        for _ in 0..SHED {
            let Some(given_up) = spare.take() else { break };
            sys.close(given_up);
            let accepted = sys.accept(listener);
            if let Ok((fd, _)) = &accepted {
                // A Unix socket cannot be reset; closing tells its peer as well.
                let _ = sys.set_option(*fd, SocketOption::ResetOnClose);
                sys.close(*fd);
                self.stats.add(&self.stats.shed);
            }
            spare.set(sys.spare().ok());
            if accepted.is_err() {
                break;
            }
        }
    }
}
