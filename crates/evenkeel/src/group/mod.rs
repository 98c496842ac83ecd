//! One loop for each processor: N loops on N threads, which share nothing but what they send each other.
//!
//! One loop uses one processor. A server that needs more runs several, and a connection stays with one loop, unless the
//! program moves it, so that its state needs no lock and stays in that processor's caches. What is left to decide is how
//! connections come to loops, and what loops tell each other: that is what a [`Group`] is for.
//!
//! ```
//! use evenkeel::group::{Group, Share};
//! use evenkeel::net::{Limits, ListenOptions};
//! use evenkeel::{Conn, Handler};
//! use std::io::{Read, Write};
//! use std::time::Duration;
//!
//! struct Echo;
//! impl Handler for Echo {
//!     fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
//!         conn.write(bytes);
//!     }
//! }
//!
//! # fn main() -> std::io::Result<()> {
//! let group = Group::builder().loops(2).build(|_handle, _index| Ok(()))?;
//! let options = ListenOptions::default();
//! let listener =
//!     group.listen("127.0.0.1:0", &options, &Limits::default(), Share::Acceptor, |_peer, _index| Echo)?;
//!
//! let addr = listener.addr().socket_addr().expect("TCP");
//! let mut clients = [std::net::TcpStream::connect(addr)?, std::net::TcpStream::connect(addr)?];
//! for client in &mut clients {
//!     client.write_all(b"ping")?;
//!     client.read_exact(&mut [0; 4])?;
//! }
//! assert!(group.counts().iter().all(|of_loop| of_loop.connections == 1));
//!
//! group.stop(Duration::from_secs(10))?;
//! for end in group.join() {
//!     end?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Messages
//!
//! Code on a loop uses its own [`Handle`], without locks or atomics. Every other loop is reached by its [`Remote`]: a bounded
//! mailbox of calls, where any number of messages costs one wake-up. [`Group::spawn_on`] and [`Remote::spawn`] run a task
//! over there and bring its result back; [`Group::broadcast`] tells all. Handlers that talk to other loops keep clones of
//! their [remotes](Group::remotes).
//!
//! # Sharing a port
//!
//! | | spread | a newcomer costs | choose it for |
//! |---|---|---|---|
//! | [`Share::ReusePort`] | by chance: a hash of the addresses | nothing more than on one loop | many short connections from many addresses |
//! | [`Share::Acceptor`] | even, always | a message to its loop, and loop 0's time | long connections, such as WebSockets |
//! | [`Share::Shared`] | to loops that wait, so by load | the kernel's lock of one socket | connections whose work differs much; Unix sockets |
//!
//! - **`ReusePort`** scales best, because the kernel has one queue for each loop and nothing is shared. The price: a newcomer
//!   waits for the one loop that it was dealt to, even if that is busy and others are idle, and a few peers (or one proxy) may
//!   all meet the same loop.
//! - **`Acceptor`** keeps connections balanced to within one while they come, and where some loops lose more than others, fills
//!   those first. The price: one loop accepts for all, so its time bounds how many can come, and what it does besides
//!   delays newcomers of every loop.
//! - **`Shared`** gives a newcomer to a loop that waits, so none queues behind a busy one. The price: the kernel asks the
//!   loops in an order of its own, so on a server that is mostly idle connections that stay pile up on the same loop; and all
//!   loops take turns at one socket's lock.
//!
//! What 10,000 connections that stay come to on 4 loops (fewest and most of one loop; `cargo run --release -p evenkeel-lab --
//! spread` repeats it, on io_uring under Linux 6.18):
//!
//! | | in one burst | each when the one before was served |
//! |---|---|---|
//! | `ReusePort` | 2,417 to 2,570 | 2,422 to 2,577 |
//! | `Acceptor` | 2,500 | 2,500 |
//! | `Shared` | 1,878 to 3,520 | 0 to 10,000 |
//!
//! `ReusePort` is off by chance alone, as a hash is: from one client address as from thousands, since each connection has another
//! port. `Shared` follows the load: in a burst all loops are kept busy and share; in a trickle the same loop
//! waits again each time, and gets everything. That suits connections that end, and is the worst for those that stay.
//!
//! When in doubt: `Acceptor` for connections that stay, `ReusePort` for those that do not.
//!
//! [`Limits`] count for each loop. Under `Acceptor`, a newcomer who finds [`max_connections`](Limits::max_connections) on every
//! loop is reset, and does not wait in the backlog. `Shared` does not go together with `max_connections`: what the kernel has
//! woken a full loop for, no other loop hears of.
//!
//! # Moving a connection
//!
//! Where loops have become uneven, or a connection turns out to belong elsewhere, it moves as a
//! [`Parcel`](crate::net::Parcel): with its unread bytes and its queued ones, between any backends. Its new handler counts on
//! its loop if it says so, by a [`Counter`].
//!
//! # Descriptor tables
//!
//! The threads of a process share one table of descriptors. [`GroupBuilder::private_descriptors`] gives each loop's thread a
//! table of its own, which is for two cases:
//!
//! - **More connections than a table allows.** The limit of descriptors (`ulimit -n`) is one for each table. Where it cannot be raised,
//!   four loops in tables of 20,000 hold 76,000 connections in one process (`evenkeel-lab tables`), opened in 4.5 s on two
//!   processors, at 124 bytes of the process's own memory each.
//! - **Many small system calls.** The kernel counts a reference in each call on a table that threads share. Without that a `send`
//!   and a `recv` on a Unix socket cost 7 % less; of an echoed message over TCP it is less than what can be
//!   measured (1.00, at one loop and at two).
//!
//! The price: the thread must use no descriptor of another table, which nothing checks for what is not this crate's, so the option is
//! `unsafe`. A loop that is woken from another table is sent a signal, so a round trip between loops takes half as long again. The
//! accepting loop of [`Share::Acceptor`] sends connections through a socket, and needs room in its table for those that it
//! has not sent yet. A pool of threads for [work and names](crate::pool) is each loop's own.
//!
//! Every way to listen, [`adopt`](Group::adopt), [`Parcel::send`](crate::net::Parcel::send) and [`GroupListener::sockets`] work across tables.
//! For other descriptors there are [`Handle::hand_over`] and [`Group::hand_over`]. What the group's own thread does with the loops'
//! descriptors (`adopt`, `sockets`, `hand_over`) is to be done on the thread that has built it, or a loop of it.
//!
//! # The end
//!
//! A group lives and ends as one. [`Group::stop`] stops all loops; so does the end of any one of them, be it by
//! [`Handle::stop`], [`Remote::stop`], an error of the kernel, or a panic of its thread, since the connections that come to a loop that is
//! gone would be lost. [`Group::join`] tells how each ended. A loop ends as
//! [`EventLoop`](crate::EventLoop) does when it is dropped: connections hear
//! [`LoopEnded`](crate::CloseReason::LoopEnded). A server that wants to end them gracefully
//! [drains](Group::drain) the group first.
//!
//! # Handing over
//!
//! [`Group::adopt`] listens at sockets that listen already, and [`GroupListener::sockets`] gives away those that a group has: see
//! [`inherit`](crate::inherit).

mod adopt;
mod builder;
mod drain;
mod error;
mod listen;
mod roster;
mod share;
mod tally;

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub use self::builder::GroupBuilder;
pub use self::error::GroupError;
pub use self::share::{GroupListener, Share};
pub use self::tally::{Counted, Counter, LoopCounts};

use self::roster::Roster;
use self::tally::Tally;
use crate::handle::Handle;
use crate::handover::Outside;
#[cfg(doc)]
use crate::net::Limits;
use crate::remote::{Remote, RemoteError};
use crate::task::Answer;

/// Which loop of a group, from 0.
pub type LoopIndex = usize;

/// Loops on threads of their own. `Send` and `Sync`; see the [module](self).
///
/// Dropping it stops the loops and waits for their threads, however long a handler blocks.
pub struct Group {
    roster: Arc<Roster>,
    remotes: Vec<Remote>,
    /// Taken by `join`.
    threads: Vec<JoinHandle<Result<(), GroupError>>>,
    /// The counts of each listener, of each loop.
    tallies: Mutex<Vec<Arc<[Arc<Tally>]>>>,
    /// How descriptors come to the loops from this side, if their tables differ from it.
    outside: Arc<Outside>,
}

impl Group {
    /// Options for a group.
    pub fn builder() -> GroupBuilder {
        GroupBuilder::new()
    }

    /// A group of loops that run already, whoever runs them, such as those of a host in a [simulated world](crate::sim). Its end is
    /// not theirs: to stop or to drop it ends no loop, and there is nothing to join.
    ///
    /// # Panics
    /// Without a loop.
    pub fn over(remotes: Vec<Remote>) -> Self {
        assert!(!remotes.is_empty(), "a group has at least one loop");
        Group::new(Arc::new(Roster::new(0)), remotes, Vec::new())
    }

    fn new(
        roster: Arc<Roster>,
        remotes: Vec<Remote>,
        threads: Vec<JoinHandle<Result<(), GroupError>>>,
    ) -> Self {
        Group { roster, remotes, threads, tallies: Mutex::default(), outside: Arc::default() }
    }

    /// The number of loops; at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.remotes.len()
    }

    /// A loop, as other threads see it.
    ///
    /// # Panics
    /// If there is no such loop.
    pub fn remote(&self, index: LoopIndex) -> Remote {
        self.remotes[index].clone()
    }

    /// All loops, in order: for handlers that talk to other loops.
    pub fn remotes(&self) -> &[Remote] {
        &self.remotes
    }

    /// Runs a task on a loop; see [`Remote::spawn`].
    ///
    /// # Errors
    /// When the loop's mailbox is full, or it has ended.
    ///
    /// # Panics
    /// If there is no such loop.
    pub fn spawn_on<T, F>(
        &self,
        index: LoopIndex,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Answer<T>, RemoteError>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        self.remotes[index].spawn(make)
    }

    /// Gives a descriptor to a loop, whichever descriptor table it has, and runs `call` with it there; the number may be another
    /// one. `call` is given the kernel's error where that loop has no number free. As [`Handle::hand_over`], from
    /// outside of the loops.
    ///
    /// # Errors
    /// `WouldBlock` when the loop's mailbox, or the way to it, is full; `NotConnected` when it has ended; `Unsupported` when the loop
    /// has a table of its own, and this thread is not known to have the one in which the group was built, as that
    /// which built it has. The descriptor is closed then, and `call` is dropped.
    ///
    /// # Panics
    /// If there is no such loop.
    pub fn hand_over(
        &self,
        index: LoopIndex,
        fd: OwnedFd,
        call: impl FnOnce(&Handle, io::Result<OwnedFd>) + Send + 'static,
    ) -> io::Result<()> {
        self.outside.send(&self.remotes[index], vec![fd], |handle, fds| {
            let one = fds.and_then(|fds| fds.into_iter().next().ok_or(io::ErrorKind::NotConnected.into()));
            call(handle, one);
        })
    }

    /// Runs `call` once on each loop that takes it, and returns for each loop whether it does. A panic in it is counted by
    /// that loop.
    #[must_use = "a loop whose mailbox is full is not told"]
    pub fn broadcast(
        &self,
        call: impl Fn(&Handle, LoopIndex) + Send + Sync + 'static,
    ) -> Vec<Result<(), RemoteError>> {
        let call = Arc::new(call);
        let send = |(index, remote): (LoopIndex, &Remote)| {
            let call = call.clone();
            remote.run(move |handle| call(handle, index))
        };
        self.remotes.iter().enumerate().map(send).collect()
    }

    /// What each loop has served of all listeners of this group, now, closed ones included. Costs no loop anything.
    ///
    /// Each number is right by itself; those of different loops may be some connections apart in time. Connections of
    /// listeners that a loop has opened by itself are not among them.
    pub fn counts(&self) -> Vec<LoopCounts> {
        let mut sums = vec![LoopCounts::default(); self.len()];
        for tallies in self.tallies.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            for (sum, tally) in sums.iter_mut().zip(tallies.iter()) {
                sum.add(tally.counts());
            }
        }
        sums
    }

    /// Stops all loops and waits at most `within` for their threads to end. Full mailboxes do not hinder it.
    ///
    /// On a loop's own thread, [`Handle::stop`] or a `within` of zero: a loop ends after its turn.
    ///
    /// # Errors
    /// `TimedOut` when some have not ended, because a handler or a task blocks; they have been asked, and end when it returns.
    pub fn stop(&self, within: Duration) -> io::Result<()> {
        self.roster.stop();
        let left = self.roster.wait(within);
        if left.is_empty() {
            return Ok(());
        }
        let what = format!("loops {left:?} have not ended; a handler or a task blocks them");
        Err(io::Error::new(io::ErrorKind::TimedOut, what))
    }

    /// Waits until the loops have ended, as something else makes them, and tells how each did.
    ///
    /// # Panics
    /// On the thread of one of the loops, which would wait for itself.
    pub fn join(mut self) -> Vec<Result<(), GroupError>> {
        assert!(!self.is_own_thread(), "a loop of the group waits for the group's end, which is its own");
        let threads = std::mem::take(&mut self.threads);
        let threads = threads.into_iter().enumerate();
        threads.map(|(index, thread)| builder::ended(index, thread.join())).collect()
    }

    /// Whether this is the thread of one of the loops.
    fn is_own_thread(&self) -> bool {
        let current = thread::current().id();
        self.threads.iter().any(|thread| thread.thread().id() == current)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.roster.stop();
        let current = thread::current().id();
        for thread in self.threads.drain(..) {
            // A loop that drops its group ends after its turn, and nobody can wait for that here.
            if thread.thread().id() != current {
                // How it ended was for `join` to ask.
                let _ = thread.join();
            }
        }
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("loops", &self.len()).finish_non_exhaustive()
    }
}
