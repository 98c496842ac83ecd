//! Kernel interfaces: which there are, which one runs, and the contract that each of them keeps.
//!
//! A program is written against the contract below and never against an interface. The choice is made at run
//! time, by [`Builder::backend`](crate::Builder::backend) or by the environment variable `EVENKEEL_BACKEND`, and no
//! public type carries it.
//!
//! ```
//! use evenkeel::{Backend, EventLoop};
//! for backend in Backend::ALL {
//!     let events = EventLoop::builder().backend(*backend).build()?;
//!     let handle = events.handle();
//!     assert!(handle.backend() == *backend || handle.fallback().is_some());
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # The choice
//!
//! What is asked for by name runs, or making the loop fails; but io_uring, which kernels, settings and containers refuse to
//! programs that are otherwise welcome, is replaced by epoll. [`Backend::Auto`] takes io_uring where the kernel has all that
//! makes it pay, else epoll. What each of them has found is told by [`Handle::fallback`](crate::Handle::fallback), and one
//! who asked by name is told unasked. The rules are those of [`Backend`]; `choice.rs` has them.
//!
//! # The contract
//!
//! A backend promises completion semantics, whatever the kernel offers. It delivers, to the loop, *accepted*
//! connections, *connected* or the failure to connect, *bytes*, the *end* of the read half, *drained* queues,
//! *ready* foreign descriptors, *wakes*, and for each connection *closed* exactly once and last.
//!
//! - **Receiving.** The kernel's bytes land in memory that the loop owns and are lent to the handler for the
//!   length of the call. Nothing is delivered after a pause or a close, not even what was read in the same
//!   batch.
//! - **Pulling.** A task reads into its own buffer, or lends the loop's memory to a closure. Dropping a future
//!   never leaves the kernel with memory that is freed.
//! - **Sending.** A write hands its bytes to the kernel or to the connection's queue before it returns; the
//!   kernel never holds the caller's memory. Writes of one batch leave together, in order, as one send for each
//!   connection. A shared message is stored once.
//! - **Closing.** `close` stops delivery, flushes until a deadline, then closes. `abort` resets. The descriptor's
//!   number is not used again before the batch is over and every operation on it has ended.
//! - **Tokens.** Every event carries a generation; an event of a source that is gone is dropped and counted.
//! - **Readiness is never lost.** A source leaves the ready list after a would-block. A short read ends it too,
//!   but only on a TCP stream subscribed to RDHUP and PRI, with none of RDHUP, HUP, ERR and PRI reported: an end
//!   of stream that is queued behind data, urgent data, and descriptors on a Unix stream make reads short with
//!   more to come and no further edge. A source that used up its budget stays on the list for the next turn.
//! - **Watches.** Of a descriptor that is not the loop's to read, readiness is told: at once if it is there when somebody
//!   begins to wait, and at each change from then on. What was told stays until an operation is refused. When a watch is
//!   dropped the kernel has nothing more to do with it: its descriptor is closed for its peer, too.
//! - **No re-entrancy.** Nothing completes inside the call that asked for it. A handler never runs inside
//!   another handler's call; running the loop from inside the loop is an error.
//! - **Files.** An operation on a file is completed by the kernel, where it can, or by a few threads. It owns its memory
//!   and a share of its descriptor until it has ended, whether anybody still waits for it or not.
//! - **Everything ends exactly once**, completed, failed or cancelled.
//!
//! # The cut
//!
//! A *driver* keeps this contract; the loop owns one and calls it through a table of pointers, a few times in a
//! turn and never once for each event: inside a turn a driver is generic and calls nothing indirectly. All
//! readiness interfaces share one driver, `reactor::Readiness`, over a selector of four verbs. A driver reaches the
//! kernel only through the `sys::Sys` seam.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use crate::choice::{self, Started};
use crate::core::async_io::Half;
use crate::core::cork::CORK_WRITE;
use crate::core::{Shared, Token};
use crate::fs::{FileOp, FileWaiter};
use crate::net::Addr;
use crate::reactor::{Epoll, EpollLevel, Poll, Readiness, Select};
use crate::sim;
use crate::sys::{Fd, Real, Sys, WakeFn};

/// A kernel interface by which a loop can be driven.
///
/// [`Handle::backend`](crate::Handle::backend) tells which one runs.
///
/// # The choice
///
/// [`Auto`](Self::Auto) tries, once in the life of the process, what io_uring can do here. It takes io_uring if that has
/// deferred task work and receives more than once by one request, which Linux 6.1 and later have; else edge-triggered
/// epoll. It says nothing of its choice; [`Handle::fallback`](crate::Handle::fallback) tells why it was epoll.
///
/// [`IoUring`](Self::IoUring), asked for by name, runs on every kernel that has the least that it needs (Linux 5.19).
///
/// Where io_uring is refused (by a container's filter, the setting `kernel.io_uring_disabled`, a kernel without it or too old,
/// a limit of memory or descriptors), epoll runs in its place, under the same contract.
/// [`Handle::fallback`](crate::Handle::fallback) tells why, and [`Builder::on_fallback`](crate::Builder::on_fallback) is told
/// if io_uring was asked for by name, or if Auto had found it good and it was refused to this loop all the same. A program
/// that has not set it gets one line on standard error, once in the life of the process.
///
/// Whatever else is asked for by name runs, or making the loop fails.
///
/// The variable `EVENKEEL_IO_URING_WITHOUT` leaves out what io_uring would use, to measure it or to do without: names such as
/// `defer-taskrun` and `multishot-recv`, separated by commas. It is read when io_uring is tried first; a name that means
/// nothing is an error, which lists those that do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Backend {
    /// The best that works here: io_uring where it has all that makes it pay, else edge-triggered epoll.
    #[default]
    Auto,
    /// `select(2)`: descriptors up to 1,023, and each wait costs in proportion to the highest.
    Select,
    /// `poll(2)`: each wait costs in proportion to all descriptors.
    Poll,
    /// `epoll(7)`, level-triggered.
    EpollLevel,
    /// `epoll(7)`, edge-triggered: a wait costs in proportion to the ready descriptors, and interest is
    /// registered once for the life of a connection.
    Epoll,
    /// `io_uring(7)`: what is wanted is asked for once, and the answers of a batch leave in the call that waits for the
    /// next one. Where it is refused, epoll runs.
    IoUring,
    /// A simulated kernel, for loops of a simulated host: with the feature `sim`, see the module of that name. Elsewhere
    /// making a loop with it fails. It is not among [`ALL`](Self::ALL).
    Sim,
}

/// A row of the table of backends.
struct Row {
    backend: Backend,
    name: &'static str,
    start: fn() -> io::Result<Started>,
}

/// Every backend, slowest first. Tests, benches, examples and the lab iterate over it.
const TABLE: &[Row] = &[
    Row {
        backend: Backend::Select,
        name: "select",
        start: || on(Backend::Select, Readiness::<Select, Real>::new(Real)),
    },
    Row {
        backend: Backend::Poll,
        name: "poll",
        start: || on(Backend::Poll, Readiness::<Poll, Real>::new(Real)),
    },
    Row {
        backend: Backend::EpollLevel,
        name: "epoll-lt",
        start: || on(Backend::EpollLevel, Readiness::<EpollLevel, Real>::new(Real)),
    },
    Row {
        backend: Backend::Epoll,
        name: "epoll",
        start: || on(Backend::Epoll, Readiness::<Epoll, Real>::new(Real)),
    },
    Row { backend: Backend::IoUring, name: "io_uring", start: || choice::start(Backend::IoUring) },
    Row { backend: Backend::Sim, name: "sim", start: outside },
];

/// There is no simulated host here.
fn outside() -> io::Result<Started> {
    let what = "the backend `sim` drives the loops of simulated hosts only; see the module `sim`";
    Err(io::Error::new(io::ErrorKind::Unsupported, what))
}

fn on<D: Driver + 'static>(backend: Backend, driver: io::Result<D>) -> io::Result<Started> {
    Ok(Started { backend, driver: Box::new(driver?), fallback: None })
}

impl Backend {
    /// Every backend that can be asked for by name, slowest first.
    pub const ALL: &[Backend] =
        &[Backend::Select, Backend::Poll, Backend::EpollLevel, Backend::Epoll, Backend::IoUring];

    /// The name by which the builder's users, command lines and `EVENKEEL_BACKEND` know it.
    pub fn name(self) -> &'static str {
        TABLE.iter().find(|row| row.backend == self).map_or("auto", |row| row.name)
    }

    /// What the environment variable `EVENKEEL_BACKEND` asks for; [`Backend::Auto`] if it is unset or empty.
    ///
    /// # Errors
    /// `InvalidInput` if it names no backend; the message lists those that exist.
    pub fn from_env() -> io::Result<Self> {
        match std::env::var_os("EVENKEEL_BACKEND") {
            Some(name) if !name.is_empty() => name.to_string_lossy().parse(),
            _ => Ok(Backend::Auto),
        }
    }

    /// Makes the driver of what is asked for, or of what runs in its place.
    pub(crate) fn start(self) -> io::Result<Started> {
        if let Some(started) = sim::start(self) {
            return started;
        }
        let row = TABLE.iter().find(|row| row.backend == self);
        row.map_or_else(|| choice::start(Backend::Auto), |row| (row.start)())
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Backend {
    type Err = io::Error;

    fn from_str(name: &str) -> io::Result<Self> {
        if name == "auto" {
            return Ok(Backend::Auto);
        }
        TABLE.iter().find(|row| row.name == name).map(|row| row.backend).ok_or_else(|| {
            let names: Vec<_> = TABLE.iter().map(|row| row.name).collect();
            let what = format!("there is no backend `{name}`; choose one of auto, {}", names.join(", "));
            io::Error::new(io::ErrorKind::InvalidInput, what)
        })
    }
}

/// What a kernel interface does for a loop. Object-safe, so that the choice stays at run time; each method is
/// called at most a few times in a turn, or once for an operation that makes a system call anyway.
///
/// Methods take `&self`, because what they deliver may call back into the driver: a driver keeps no borrow of
/// its own or of the loop's state while a handler, a waker or a task runs.
pub(crate) trait Driver {
    /// The calls that need no driver: addresses, options, opening sockets.
    fn sys(&self) -> &dyn Sys;
    /// The function that wakes `wait` from any thread; the driver delivers its own wake-ups.
    fn waker(&self) -> WakeFn;
    /// Waits at most `timeout` (for ever if none) and delivers what came. Tasks that became ready are run, and
    /// what was written is flushed, after every few events.
    fn wait(&self, lp: &Rc<Shared>, timeout: Option<Duration>) -> io::Result<()>;
    /// Begins to serve a source that is in the table. Fails if the interface cannot hold it.
    fn register(&self, lp: &Shared, token: Token) -> io::Result<()>;
    /// Sends everything that is corked, before it returns.
    fn flush(&self, lp: &Shared);
    /// A batch of calls is over: sends what is corked, or leaves it for the next `wait` to send.
    fn flush_batch(&self, lp: &Shared) {
        self.flush(lp);
    }
    /// From which size on a write is offered to `send` by itself instead of being copied into the cork.
    fn cork_write(&self) -> usize {
        CORK_WRITE
    }
    /// Bytes are wanted again, after a pause.
    fn resume(&self, lp: &Shared, token: Token);
    /// Reads into a task's buffer. `WouldBlock`: a later event will say that it is worth trying again.
    fn recv(&self, lp: &Shared, token: Token, into: &mut [u8]) -> io::Result<usize>;
    /// Whether received bytes lie in memory of the driver's own, from which [`lend`](Self::lend) lends them.
    fn lends(&self) -> bool {
        false
    }
    /// Lends a task at most `most` received bytes, above zero; an empty slice at the end. `WouldBlock` as for `recv`; only
    /// then `take` is not called.
    fn lend(
        &self,
        _lp: &Shared,
        _token: Token,
        _most: usize,
        _take: &mut dyn FnMut(&[u8]),
    ) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Reads by a call that puts what it reads elsewhere than in memory of ours; it returns how much, and 0 at the end.
    /// None, without a call: what comes next is to be read by [`recv`](Self::recv), since it was received already or may be
    /// at any time. `WouldBlock` as for `recv`.
    fn recv_by(
        &self,
        lp: &Shared,
        token: Token,
        receive: &mut dyn FnMut(&dyn Sys, Fd) -> io::Result<usize>,
    ) -> io::Result<Option<usize>>;
    /// Sends from a task's or a large write's memory: hands it to the kernel, or copies it. `WouldBlock` as for `recv`.
    fn send(&self, lp: &Shared, token: Token, from: &[u8]) -> io::Result<usize>;
    /// As `send`, from at most 1,024 places at once.
    fn send_vectored(&self, lp: &Shared, token: Token, from: &[io::IoSlice<'_>]) -> io::Result<usize>;
    /// As `send`, by a call that sends what is no memory of ours.
    fn send_by(
        &self,
        lp: &Shared,
        token: Token,
        send: &mut dyn FnMut(&dyn Sys, Fd) -> io::Result<usize>,
    ) -> io::Result<usize>;
    /// Takes one connection from a task's listener. `WouldBlock` as for `recv`.
    fn accept(&self, lp: &Shared, token: Token) -> io::Result<(Fd, Addr)>;
    /// Tries a listener again that had to stop.
    fn retry_accept(&self, lp: &Rc<Shared>, token: Token);
    /// Ends one or both halves of a stream.
    fn shutdown(&self, lp: &Shared, token: Token, how: Shutdown) -> io::Result<()>;
    /// After the queue of a closing stream is empty: ends its write half. True when it may be closed at once,
    /// false when the peer's last bytes must be waited out.
    fn finish(&self, lp: &Shared, token: Token) -> bool;
    /// A source has a new token: its owner changed.
    fn renamed(&self, lp: &Shared, old: Token, new: Token);
    /// Forgets a source. True: its descriptor is still open, and the loop closes it next. False: operations on it
    /// have yet to end; the loop retires the source, and the driver closes it then.
    fn deregister(&self, lp: &Shared, token: Token) -> bool;
    /// Sources have been released: closes the descriptors of those that were retired, as far as it can.
    fn released(&self, _lp: &Shared) {}
    /// Ends every operation on a source before it returns, so that its descriptor can be given away. What was
    /// received ahead is among its unread bytes then.
    fn withdraw(&self, _lp: &Shared, _token: Token) -> io::Result<()> {
        Ok(())
    }
    /// Asks for reports that a watch is ready in one direction: one at once if it is ready, and one for each time that it
    /// becomes so, until the driver has told of it and nobody has asked again.
    fn watch(&self, lp: &Shared, token: Token, half: Half) -> io::Result<()>;
    /// Reports a watch again that had to rest.
    fn watch_again(&self, _lp: &Shared, _token: Token) {}
    /// Puts what was received ahead of a task among the source's unread bytes: its owner is about to change.
    fn hand_over(&self, _lp: &Shared, _token: Token) {}
    /// The loop has ended and released all its sources: ends what is still in flight.
    fn end(&self, _lp: &Shared) {}
    /// Has the kernel use at most so many threads for file operations, if it has threads of its own for them.
    fn limit_file_threads(&self, _most: usize) {}
    /// Begins a file operation. It is completed by [`FileWaiter::complete`], once, later and never inside this call,
    /// from wherever nothing is borrowed; the driver keeps all that the operation owns until then.
    ///
    /// `Err` gives both back: this interface has no way of its own for this operation, and threads perform it.
    fn file(&self, _: &Shared, op: FileOp, done: FileWaiter) -> Result<(), (FileOp, FileWaiter)> {
        Err((op, done))
    }
}
