//! How many threads a lane has, how much may wait for them, and what it counts.

/// The size of one lane.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LaneOptions {
    /// Threads at most; they are started when there is work for them, and end when there has been none for ten seconds.
    /// Zero counts as one. None: the lane's default, which [`PoolOptions`] tells.
    pub threads: Option<usize>,
    /// How much may wait for a thread. Zero counts as one. Default 1,024.
    pub queue: usize,
}

impl Default for LaneOptions {
    fn default() -> Self {
        LaneOptions { threads: None, queue: 1024 }
    }
}

/// The size of each lane.
///
/// ```
/// use evenkeel::EventLoop;
/// use evenkeel::pool::PoolOptions;
/// let mut options = PoolOptions::default();
/// options.work.threads = Some(2);
/// options.work.queue = 64;
/// let events = EventLoop::builder().pool_options(options).build()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PoolOptions {
    /// Operations on files. Its threads are four if not told otherwise, of the loop's own or of the kernel's for its
    /// ring: disks and file systems serve a few calls at once well, and more threads would only take time from the loops.
    /// Its queue is the number of operations in flight, on whatever backend; further ones wait their turn.
    pub files: LaneOptions,
    /// Resolving names. Its threads are four if not told otherwise: they do nothing but wait for name servers.
    pub names: LaneOptions,
    /// The user's own work. Its threads are as many as processors this process may use if not told otherwise.
    pub work: LaneOptions,
}

/// What a lane has counted, and has now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneStats {
    /// Threads now.
    pub threads: usize,
    /// Threads that wait for something to do.
    pub idle: usize,
    /// What runs now. If it is as many as threads may be, and stays, they are stuck.
    pub running: usize,
    /// What waits for a thread.
    pub queued: usize,
    /// What waits for a place in the queue.
    pub waiting: usize,
    /// What has ended without a panic, whether anybody waited for it or not.
    pub done: u64,
    /// What has panicked.
    pub panicked: u64,
    /// What was taken back from the queue, or dropped with it, before it began.
    pub cancelled: u64,
    /// What was not taken: the queue was full, no thread could be started, or the lane had ended.
    pub refused: u64,
}

/// What the lanes of a [`WorkPool`](super::WorkPool) have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Resolving names.
    pub names: LaneStats,
    /// The user's own work.
    pub work: LaneStats,
}
