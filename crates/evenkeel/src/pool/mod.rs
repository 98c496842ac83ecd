//! Threads for what would block a loop: computation, and libraries that wait by themselves.
//!
//! A loop serves all its connections on one thread, so that a millisecond of hashing, compressing or rendering is a
//! millisecond for each of them. [`Handle::offload`](crate::Handle::offload) has such work done on a thread of the pool
//! and brings its result back.
//!
//! ```
//! use evenkeel::{EventLoop, pool};
//! let mut events = EventLoop::new()?;
//! let sum = events.block_on(async {
//!     let numbers: Vec<u64> = (1..=1000).collect();
//!     pool::offload(move || numbers.iter().sum::<u64>()).await
//! })?;
//! assert!(matches!(sum, Ok(500_500)));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! A handler, which cannot await, is called back:
//!
//! ```
//! use evenkeel::{Conn, Handler};
//!
//! struct Shouter;
//!
//! impl Handler for Shouter {
//!     fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
//!         let (id, text) = (conn.id(), bytes.to_vec());
//!         let given = conn.handle().offload_then(
//!             move || String::from_utf8_lossy(&text).to_uppercase(),
//!             // Back on the loop. The connection may be over by now, which is an error and no harm.
//!             move |handle, loud| {
//!                 let _ = loud.map(|loud| handle.write(id, loud.as_bytes()));
//!             },
//!         );
//!         if given.is_err() {
//!             // Too much waits already: better one client is turned away than all are late.
//!             conn.abort();
//!         }
//!     }
//! }
//! ```
//!
//! # Lanes
//!
//! What is given away runs in one of three lanes. Each has threads and a bounded queue of its own, so none of them keeps
//! another waiting: a resolver that hangs delays no file, and a queue full of the user's work delays neither.
//!
//! | lane | what runs there | whose it is | threads | queue |
//! |---|---|---|---|---|
//! | files | operations of [`fs`](crate::fs) that the kernel does not perform by itself | the loop's, always | 4 | 1,024 in flight |
//! | names | [`dns`](crate::dns) | the [`WorkPool`]'s | 4 | 1,024 |
//! | work | [`Handle::offload`](crate::Handle::offload) | the [`WorkPool`]'s | as many as processors | 1,024 |
//!
//! [`PoolOptions`] changes the sizes. A loop has a `WorkPool` of its own; the loops of a [`group`](crate::group) share one,
//! so that more loops do not mean more threads, and
//! [`Builder::work_pool`](crate::Builder::work_pool) gives one to any loops. The lane of files stays with its loop: what a
//! thread opens is in the descriptor table of the thread that started it, and a loop may have a table of its own. For the
//! same reason work should not carry open descriptors out of a pool whose loops have tables of their own.
//!
//! # Semantics
//!
//! - **A full queue.** A future waits for a place, first come first served. [`Handle::offload_then`](crate::Handle::offload_then),
//!   which has nobody to wait, is refused with [`WorkError::QueueFull`].
//! - **Every end is told**: a result, a panic ([`WorkError::Panicked`]), a thread that cannot be started when there is no
//!   other ([`WorkError::NoThread`]), the end of the pool.
//! - **Dropping a future** takes back work that has not begun. Work that runs goes on; a [`CancelToken`] tells it that nobody
//!   waits any more, and its result is dropped on the pool's thread.
//! - **Threads** are started when there is work and no idle thread for it, and end after ten idle seconds, or with the pool.
//!   Those that are in a call then are not waited for, since nothing can end a call that does not return: there are at most
//!   as many as the lane has threads, and they hold nothing of a loop. [`WorkPool::shut_down`] waits for them, as long as
//!   it is told to.
//! - **A pool ends** with the last of its loops and of the program's own copies. The end of one loop that shares it drops what
//!   that loop's tasks have given away and no thread has begun.
//! - **Signals.** A running loop's thread blocks SIGPIPE; threads that do the user's work do not, nor do processes that they
//!   start.
//! - **Results wake the loop once**, however many have come when it looks.
//!
//! The pool is for work that ends. A thread that is to live as long as the program is better one of the program's own, with a
//! [`Remote`](crate::Remote) to reach the loop.

mod error;
mod lane;
mod offload;
mod options;
mod workers;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use self::lane::Deadline;
use crate::handle::Handle;
use crate::sim;
use crate::stand_in::StandIn;
use crate::task::JoinHandle;

pub use self::error::{Panic, WorkError};
pub(crate) use self::lane::{Job, Lane, Refused};
pub use self::offload::{CancelToken, Offload};
pub use self::options::{LaneOptions, LaneStats, PoolOptions, PoolStats};
pub(crate) use self::workers::Workers;

/// The lane of files, as its threads are called.
pub(crate) const FILES: &str = "evenkeel-files";
/// The lane of names.
pub(crate) const NAMES: &str = "evenkeel-names";

/// Threads of a lane that waits for devices or for other machines.
pub(crate) const FEW_THREADS: usize = 4;

/// As [`Handle::offload`](crate::Handle::offload), from the current loop.
///
/// # Panics
/// Outside of a running loop.
#[doc(alias = "spawn_blocking")]
#[track_caller]
pub fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Offload<T> {
    Handle::current().offload(work)
}

/// The lanes that loops can share: resolving names, and the user's own work. Cheap to clone; its copies are one pool, which
/// ends with the last of them or by [`shut_down`](Self::shut_down).
///
/// ```
/// use evenkeel::EventLoop;
/// use evenkeel::pool::{PoolOptions, WorkPool};
/// let pool = WorkPool::new(&PoolOptions::default());
/// let mut one = EventLoop::builder().work_pool(&pool).build()?;
/// let two = EventLoop::builder().work_pool(&pool).build()?;
/// let answer = one.block_on(two.handle().offload(|| 42))?;
/// assert!(matches!(answer, Ok(42)));
/// assert_eq!(pool.stats().work.done, 1);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct WorkPool {
    lanes: Arc<Lanes>,
}

/// Ends the lanes with the last copy of the pool. Jobs and futures have copies of a lane, which do not count.
struct Lanes {
    names: Lane,
    work: Lane,
    /// A simulated host, if they are of one.
    host: Option<Arc<dyn StandIn>>,
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.names.end();
        self.work.end();
    }
}

impl WorkPool {
    /// A pool of its own, without threads as yet. Of the options `files` means nothing here.
    pub fn new(options: &PoolOptions) -> Self {
        Self::on(options, None, sim::machine())
    }

    /// One whose threads run on these processors; if none are given, where the threads do that start them.
    pub(crate) fn on(
        options: &PoolOptions,
        processors: Option<Arc<[usize]>>,
        host: Option<Arc<dyn StandIn>>,
    ) -> Self {
        let names = Lane::of_users(NAMES, &options.names, Some(FEW_THREADS));
        let work = Lane::of_users("evenkeel-work", &options.work, None);
        let (names, work) = (names.on(processors.clone()), work.on(processors));
        let (names, work) = (names.of_host(host.clone()), work.of_host(host.clone()));
        WorkPool { lanes: Arc::new(Lanes { names, work, host }) }
    }

    /// As [`Handle::offload`](crate::Handle::offload), for any thread.
    pub fn offload<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Offload<T> {
        self.offload_with(|_| work())
    }

    /// As [`Handle::offload_with`](crate::Handle::offload_with), for any thread.
    pub fn offload_with<T, F>(&self, work: F) -> Offload<T>
    where
        T: Send + 'static,
        F: FnOnce(&CancelToken) -> T + Send + 'static,
    {
        Offload::new(&self.lanes.work, work)
    }

    /// As [`offload`](Self::offload), in the lane of names.
    pub(crate) fn look_up<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Offload<T> {
        Offload::new(&self.lanes.names, |_| work())
    }

    /// What its lanes have counted.
    pub fn stats(&self) -> PoolStats {
        PoolStats { names: self.lanes.names.stats(), work: self.lanes.work.stats() }
    }

    /// Ends the pool for all who share it, and waits until its threads have ended, or for `time` at most. What waits is
    /// dropped, what comes is refused, and what runs can ask its [`CancelToken`]. True if no thread is left.
    ///
    /// This blocks: it is for a thread whose loop does not run, or no more.
    pub fn shut_down(&self, time: Duration) -> bool {
        let Lanes { names, work, host } = &*self.lanes;
        let deadline = Deadline::after(time, host.as_deref());
        names.end();
        work.end();
        let names = names.wait_until(deadline);
        work.wait_until(deadline) && names
    }
}

impl fmt::Debug for WorkPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkPool").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Handle {
    /// Has `work` done on a thread of the pool, in the lane of the user's own work. The future comes to its result; other
    /// libraries call this `spawn_blocking`, but here nothing begins before the future is polled.
    ///
    /// ```
    /// # let mut events = evenkeel::EventLoop::new()?;
    /// # let h = events.handle();
    /// # events.block_on(async {
    /// let text = "x".repeat(1 << 20);
    /// let length = h.offload(move || text.chars().filter(|c| c.is_alphabetic()).count()).await;
    /// assert!(matches!(length, Ok(n) if n == 1 << 20));
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// Its errors are those of [`WorkError`].
    #[doc(alias = "spawn_blocking")]
    pub fn offload<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Offload<T> {
        self.offload_with(|_| work())
    }

    /// As [`offload`](Self::offload), for work that looks now and then whether anybody still wants its result.
    pub fn offload_with<T, F>(&self, work: F) -> Offload<T>
    where
        T: Send + 'static,
        F: FnOnce(&CancelToken) -> T + Send + 'static,
    {
        match self.work_pool() {
            Some(pool) => pool.offload_with(work),
            None => Offload::refused(WorkError::Ended),
        }
    }

    /// As [`offload`](Self::offload), for callbacks: `then` is called on the loop with what came of the work, in a task of
    /// its own, so never inside this call; a panic in it is counted. The work is given away at once.
    ///
    /// The handle is the task's: [`abort`](JoinHandle::abort) gives the work up as dropping the future does, and `then` is not
    /// called. Nor is it if the loop ends first.
    ///
    /// ```
    /// let mut events = evenkeel::EventLoop::new()?;
    /// let h = events.handle();
    /// h.offload_then(|| 6 * 7, |handle, answer| {
    ///     assert!(matches!(answer, Ok(42)));
    ///     handle.stop();
    /// })?;
    /// events.run()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`WorkError::QueueFull`], [`WorkError::NoThread`], and [`WorkError::Ended`] after the loop's end. Both calls are
    /// dropped then.
    pub fn offload_then<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
        then: impl FnOnce(&Handle, Result<T, WorkError>) + 'static,
    ) -> Result<JoinHandle<()>, WorkError> {
        let mut offload = self.offload(work);
        offload.send()?;
        let handle = self.clone();
        Ok(self.spawn(async move {
            let outcome = offload.await;
            then(&handle, outcome);
        }))
    }

    /// The pool for names and the user's work, which this loop may share with others. None after the loop has ended.
    pub fn work_pool(&self) -> Option<WorkPool> {
        self.shared.work_pool.borrow().clone()
    }
}

#[cfg(test)]
mod tests;
