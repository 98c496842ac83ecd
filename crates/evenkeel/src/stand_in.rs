//! What stands in for the machine around a loop: its threads, its resolver and its disks.
//!
//! A loop's sockets and its clock are behind [`Sys`](crate::sys::Sys). What remains outside of it are calls that block, which
//! threads make for it. In a simulated host nothing may block and nothing may be a thread, so a loop that is made there, and
//! a pool, have one of these in their place. Everywhere else there is none, and the machine's own are used.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::dns::Resolver;
use crate::fs::{FileDone, FileOp};

/// A shared one.
pub(crate) type Host = Arc<dyn StandIn>;

/// A call that is made once.
pub(crate) type Call = Box<dyn FnOnce() + Send>;

/// A machine that is not the real one. It belongs to one thread; its users may be sent to others, where it refuses.
pub(crate) trait StandIn: Send + Sync {
    /// Whether it can be used here and now.
    ///
    /// # Errors
    /// `Unsupported` on another thread than its own, `NotConnected` when its process has ended.
    fn check(&self) -> io::Result<()>;
    /// Starts a thread of a lane: `begin` is called when it begins.
    ///
    /// # Errors
    /// Those of starting a thread.
    fn start_thread(&self, lane: &'static str, begin: Call) -> io::Result<()>;
    /// How many threads do a program's own work, if it does not say.
    fn processors(&self) -> usize;
    /// How long a job of a lane takes: until its code runs, and from then on.
    fn job_takes(&self, lane: &'static str) -> (Duration, Duration);
    /// Calls this after a time, outside of every loop; not at all if the process has ended by then.
    fn after(&self, time: Duration, call: Call);
    /// The time of its loops; none when there are none.
    fn clock(&self) -> Option<Instant>;
    /// Lets time pass until `over` says so, or it is `until`; none: for ever.
    fn pass(&self, until: Option<Instant>, over: &mut dyn FnMut() -> bool);
    /// Resolves names, as a job of the lane of names.
    fn resolver(&self) -> Arc<dyn Resolver>;
    /// Performs an operation on its disk, as a job of the lane of files.
    fn file(&self, op: FileOp) -> FileDone;
}
