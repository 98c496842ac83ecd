//! What a loop counts about itself.

use std::cell::Cell;

use crate::pool::LaneStats;

/// The turn-time histogram: bucket `i` counts turns shorter than `2^i` microseconds.
pub const TURN_BUCKETS: usize = 24;

/// Counters of one loop, kept without atomics.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) turns: Cell<u64>,
    pub(crate) events: Cell<u64>,
    pub(crate) stale: Cell<u64>,
    pub(crate) timers: Cell<u64>,
    pub(crate) accepted: Cell<u64>,
    pub(crate) accept_errors: Cell<u64>,
    pub(crate) shed: Cell<u64>,
    pub(crate) closed: Cell<u64>,
    pub(crate) panics: Cell<u64>,
    pub(crate) bytes_in: Cell<u64>,
    pub(crate) bytes_out: Cell<u64>,
    pub(crate) sends: Cell<u64>,
    pub(crate) file_ops: Cell<u64>,
    pub(crate) file_ops_on_threads: Cell<u64>,
    pub(crate) lookups: Cell<u64>,
    pub(crate) lookups_joined: Cell<u64>,
    pub(crate) lookups_timed_out: Cell<u64>,
    pub(crate) turn_times: [Cell<u64>; TURN_BUCKETS],
    pub(crate) longest_turn: Cell<u64>,
}

impl Stats {
    #[inline]
    pub(crate) fn add(&self, counter: &Cell<u64>) {
        counter.set(counter.get() + 1);
    }

    #[inline]
    pub(crate) fn add_n(&self, counter: &Cell<u64>, n: u64) {
        counter.set(counter.get() + n);
    }

    /// Takes back what was counted too early.
    pub(crate) fn take_n(&self, counter: &Cell<u64>, n: u64) {
        counter.set(counter.get() - n);
    }

    pub(crate) fn turn_took(&self, nanoseconds: u64) {
        let us = nanoseconds / 1000;
        let bucket = (64 - us.leading_zeros() as usize).min(TURN_BUCKETS - 1);
        self.add(&self.turn_times[bucket]);
        self.longest_turn.set(self.longest_turn.get().max(us));
    }
}

/// A snapshot of what a loop has counted since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoopStats {
    /// Turns: waits in the kernel.
    pub turns: u64,
    /// Events that the kernel reported.
    pub events: u64,
    /// Events of sources that were gone already.
    pub stale: u64,
    /// Timers fired.
    pub timers: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Failed attempts to accept, such as for want of descriptors.
    pub accept_errors: u64,
    /// Connections that were accepted only to be closed, because descriptors had run out.
    pub shed: u64,
    /// Callback connections closed.
    pub closed: u64,
    /// Panics caught in handlers, deferred calls, tasks, and file operations on threads.
    pub panics: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Sends: system calls, or submissions.
    pub sends: u64,
    /// File operations that have ended, with success or not, abandoned ones included.
    pub file_ops: u64,
    /// Those of them that the loop's own threads performed, and not the kernel's interface.
    pub file_ops_on_threads: u64,
    /// File operations in flight: given to the kernel or the pool of threads. At most 1,024, unless
    /// [`PoolOptions`](crate::pool::PoolOptions) says otherwise; one that stays is stuck.
    pub files_in_flight: usize,
    /// File operations that wait for others to end, because so many are in flight.
    pub files_waiting: usize,
    /// The loop's own threads for files. Those for names and the user's work are counted by
    /// [`WorkPool::stats`](crate::pool::WorkPool::stats), since loops can share them.
    pub file_threads: LaneStats,
    /// Names that were given to the resolver.
    pub lookups: u64,
    /// Lookups that were spared, because the same name was being resolved already.
    pub lookups_joined: u64,
    /// Waits for a lookup that met their deadline.
    pub lookups_timed_out: u64,
    /// Names that are being resolved, or wait for a thread.
    pub lookups_in_flight: usize,
    /// Those of them whose callers have all gone. One that stays keeps a thread that is stuck.
    pub lookups_abandoned: usize,
    /// Sources alive: connections, listeners, and a few of the loop's own.
    pub sources: usize,
    /// Tasks alive.
    pub tasks: usize,
    /// Timers armed.
    pub armed: usize,
    /// Turn times without the wait: bucket `i` counts turns shorter than `2^i` microseconds.
    pub turn_times: [u64; TURN_BUCKETS],
    /// The longest turn, in microseconds.
    pub longest_turn_us: u64,
}
