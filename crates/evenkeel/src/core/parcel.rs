//! A connection on its way from one loop to another: what it takes along, and the one place where its descriptor
//! crosses.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use super::out::Extra;
use super::pool::{AnyPool, TypedPool};
use super::{Kind, Shared, Token, flag};
use crate::handler::{CloseReason, Handler};
use crate::net::SocketOption;
use crate::sys::{Fd, Real, Sys};

/// A connection's descriptor between two threads. Dropped, it resets the connection.
///
/// The loops of a process share its table of descriptors, so that the number alone is enough to cross. Whatever needs more
/// for it, needs it here.
pub(crate) struct Crossing {
    /// None once it has arrived.
    fd: Option<OwnedFd>,
}

impl Crossing {
    /// On the thread that it leaves. If this fails, the descriptor is where it was.
    fn leave(sys: &dyn Sys, fd: Fd) -> io::Result<Self> {
        Ok(Crossing { fd: Some(sys.export(fd)?) })
    }

    /// On the thread that it comes to.
    fn arrive(&mut self, sys: &dyn Sys) -> io::Result<Fd> {
        sys.import(self.fd.take().ok_or(io::ErrorKind::NotConnected)?)
    }
}

impl Drop for Crossing {
    fn drop(&mut self) {
        if let Some(fd) = &self.fd {
            // What it was to take along is lost, which its peer must not take for the end. A Unix socket cannot be reset;
            // closing tells its peer as well.
            let _ = Real.set_option(fd.as_raw_fd(), SocketOption::ResetOnClose);
        }
    }
}

/// A connection without a loop.
pub(crate) struct Cargo {
    crossing: Crossing,
    /// Whose it was: a handler's, with a message in progress perhaps, or a task's.
    kind: Kind,
    /// Those of a source's flags that go along.
    flags: u32,
    stamp: u32,
    /// The loop's, from which `stamp` and the times of what is queued count.
    epoch: Instant,
    /// What is queued, what is unread, and the message in progress.
    extra: Option<Box<Extra>>,
    /// What went wrong with a stream that has failed, and has not told so.
    error: Option<io::Error>,
}

/// What goes along of every connection.
const KEPT: u32 = flag::UNIX | flag::EOF | flag::SHUT | flag::RESET | flag::HUNG_UP;
/// What else goes along from one handler to the next.
const HANDLERS: u32 = flag::MESSAGE | flag::FRAMED | flag::NOTIFY | flag::HOLD | flag::DRAINED;

impl fmt::Debug for Cargo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extra = self.extra.as_ref();
        f.debug_struct("Parcel")
            .field("unread", &extra.map_or(0, |extra| extra.unread.len()))
            .field("queued", &extra.map_or(0, |extra| extra.bytes()))
            .finish_non_exhaustive()
    }
}

fn over() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the connection is over")
}

/// Milliseconds to be added to a stamp of one epoch to make it one of another. Stamps wrap, and so may this.
fn shift(from: Instant, to: Instant) -> u32 {
    let ahead = from.saturating_duration_since(to).as_millis() as u32;
    ahead.wrapping_sub(to.saturating_duration_since(from).as_millis() as u32)
}

impl Shared {
    /// Takes a connection off the loop, with `unread` as the first bytes that its next owner reads. The owner's own part, a
    /// handler or wakers, stays: nothing reaches it any more.
    ///
    /// If it fails the connection is where it was, or is being ended.
    pub(crate) fn pack(self: &Rc<Self>, token: Token, unread: &[u8]) -> io::Result<Cargo> {
        const OVER: u32 = flag::CLOSING | flag::DEAD | flag::CONNECTING;
        let alive = |flags: u32| if flags & OVER == 0 { Ok(()) } else { Err(over()) };
        alive(self.flags(token))?;
        // No send is in flight after this: what the kernel has not taken is queued.
        self.driver.flush(self);
        alive(self.flags(token))?;
        self.withdraw(token, unread)?;
        alive(self.flags(token))?;
        let idle = self.driver.deregister(self, token);
        debug_assert!(idle, "everything in flight was withdrawn");
        let left = Crossing::leave(self.driver.sys(), self.fd(token)?);
        let crossing = left.inspect_err(|e| self.abort(token, CloseReason::Error(e.kind().into())))?;
        let mut core = self.core.borrow_mut();
        let s = core.sources.remove(token).ok_or_else(over)?;
        let tasks = if s.kind() == Kind::Async { core.free_async(s.slot) } else { None };
        drop(core);
        let error = tasks.and_then(|mut tasks| {
            let error = tasks.error.take();
            // Wakers, which may be the user's.
            self.guard(|| drop(tasks));
            error
        });
        if s.kind() == Kind::Callback {
            self.resume_listeners(s.pool);
        }
        let flags = s.flags & if s.kind() == Kind::Callback { KEPT | HANDLERS } else { KEPT };
        let (kind, stamp, epoch) = (s.kind(), s.stamp, self.epoch);
        Ok(Cargo { crossing, kind, flags, stamp, epoch, extra: s.extra, error })
    }

    /// Ends what is in flight for a connection. What had been received comes after `unread`.
    fn withdraw(&self, token: Token, unread: &[u8]) -> io::Result<()> {
        let mut core = self.core.borrow_mut();
        let s = core.sources.get_mut(token).ok_or_else(over)?;
        s.put_unread(unread);
        if let Some(extra) = s.extra.as_mut().filter(|extra| extra.counting) {
            // They count again when the next handler gets them.
            extra.received = extra.received.saturating_sub(unread.len() as u64);
        }
        drop(core);
        self.driver.withdraw(self, token).inspect_err(|e| {
            // Nobody can have it any more, but its end can be told.
            self.abort(token, CloseReason::Error(e.kind().into()));
        })
    }

    /// Puts a connection under the loop's care for tasks.
    pub(crate) fn unpack(&self, mut cargo: Cargo) -> Result<Token, (Cargo, io::Error)> {
        let may = if cargo.is_queued() { flag::READABLE } else { flag::READABLE | flag::WRITABLE };
        if let Some(extra) = &mut cargo.extra {
            // The message in progress was a handler's.
            extra.counting = false;
        }
        let error = cargo.error.take();
        let slot = self.core.borrow_mut().new_async();
        let flags = cargo.flags & KEPT | may;
        let result = self.place(cargo, Kind::Async, flags, (0, slot));
        let mut core = self.core.borrow_mut();
        match result {
            Ok(token) => {
                core.tasks[slot as usize].error = error;
                Ok(token)
            }
            Err((mut cargo, e)) => {
                let _ = core.free_async(slot);
                cargo.error = error;
                Err((cargo, e))
            }
        }
    }

    /// Puts a connection under the loop's care for a handler. It hears `on_open` next, then what is unread, then the end if
    /// that has come.
    pub(crate) fn unpack_for<H: Handler>(
        &self,
        cargo: Cargo,
        pool: &TypedPool<H>,
        handler: H,
    ) -> Result<Token, (Cargo, io::Error, H)> {
        if cargo.flags & flag::RESET != 0 {
            let failed = io::Error::new(io::ErrorKind::BrokenPipe, "the stream has failed");
            return Err((cargo, failed, handler));
        }
        let mut flags = cargo.flags & !(flag::EOF | flag::HOLD | flag::DRAINED) | flag::READABLE;
        let mut cargo = cargo;
        if cargo.kind == Kind::Async {
            flags |= flag::MESSAGE;
            (cargo.stamp, cargo.epoch) = (self.now_ms.get(), self.epoch);
        }
        let (queued, limits) = (cargo.extra.as_ref().map_or(0, |extra| extra.bytes()), pool.limits());
        let held = cargo.flags & (flag::HOLD | flag::DRAINED) != 0;
        flags |= match queued {
            // Whoever was told to hold waits for this.
            _ if held && queued <= limits.low_watermark => flag::DRAINED,
            _ if held || queued > limits.high_watermark => flag::HOLD,
            _ => 0,
        };
        let slot = pool.insert(handler);
        match self.place(cargo, Kind::Callback, flags, (pool.place.get(), slot)) {
            Ok(token) => {
                self.core.borrow_mut().pending.push(token);
                self.driver.resume(self, token);
                Ok(token)
            }
            Err((cargo, e)) => {
                let handler = pool.take(slot);
                Err((cargo, e, handler.expect("it was put there just now")))
            }
        }
    }

    /// Makes a connection a source of this loop; what is queued is sent as soon as there is room.
    fn place(
        &self,
        mut cargo: Cargo,
        kind: Kind,
        flags: u32,
        (pool, slot): (u16, u32),
    ) -> Result<Token, (Cargo, io::Error)> {
        if self.ended.get() {
            return Err((cargo, io::Error::new(io::ErrorKind::NotConnected, "the loop has ended")));
        }
        let fd = match cargo.crossing.arrive(self.driver.sys()) {
            Ok(fd) => fd,
            Err(e) => return Err((cargo, e)),
        };
        let queued = if cargo.is_queued() { flag::QUEUED } else { 0 };
        let shift = shift(cargo.epoch, self.epoch);
        let mut core = self.core.borrow_mut();
        let token =
            core.sources.insert(fd, kind, flags | queued, pool, slot, cargo.stamp.wrapping_add(shift));
        if let (Some(s), Some(mut extra)) = (core.sources.get_mut(token), cargo.extra.take()) {
            extra.shift(shift);
            s.extra = (!extra.is_idle()).then_some(extra);
        }
        if flags & flag::SHUT != 0 {
            // The end of the write half may have been waiting for the queue.
            core.closing.push(token);
        }
        drop(core);
        let Err(e) = self.driver.register(self, token) else { return Ok(token) };
        let s = self.core.borrow_mut().sources.remove(token);
        cargo.extra = s.and_then(|s| s.extra);
        (cargo.stamp, cargo.epoch) = (cargo.stamp.wrapping_add(shift), self.epoch);
        match Crossing::leave(self.driver.sys(), fd) {
            Ok(crossing) => cargo.crossing = crossing,
            Err(lost) => return Err((cargo, lost)),
        }
        Err((cargo, e))
    }
}

impl Cargo {
    fn is_queued(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| !extra.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::shift;

    #[test]
    fn stamps_of_one_loop_become_those_of_another() {
        let first = Instant::now();
        let second = first + Duration::from_millis(1500);
        // 5,000 ms after the first epoch is 3,500 ms after the second, and back.
        assert_eq!(5000_u32.wrapping_add(shift(first, second)), 3500);
        assert_eq!(3500_u32.wrapping_add(shift(second, first)), 5000);
        // What was before the second loop began.
        assert_eq!(100_u32.wrapping_add(shift(first, second)), 0_u32.wrapping_sub(1400));
    }
}
