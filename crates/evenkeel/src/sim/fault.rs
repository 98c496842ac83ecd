//! The kinds of faults, how often each strikes, and how often it has.
//!
//! Every kind has random numbers of its own, so that switching one on or off does not shift what the others do.

use std::fmt;

use fastrand::Rng;

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $kind:ident = $name:literal,)+) => {
        /// A kind of fault. The numbers in the names are those under which the project's documents know them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Fault {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl Fault {
            /// Every kind.
            pub const ALL: &[Fault] = &[$(Fault::$kind,)+];

            /// Its name, as reports and command lines have it.
            pub fn name(self) -> &'static str {
                match self { $(Fault::$kind => $name,)+ }
            }
        }
    };
}

faults! {
    /// A read returns less than there is. The rest counts as new to who is told of changes only.
    ShortRead = "k01_short_read",
    /// A write takes less than there is room for.
    ShortWrite = "k02_short_write",
    /// A call would block although it need not; the readiness comes again.
    WouldBlock = "k03_would_block",
    /// Something is reported as readable that is not.
    SpuriousReadable = "k04_spurious_readable",
    /// Something is reported as writable that is not.
    SpuriousWritable = "k05_spurious_writable",
    /// A wait ends without a reason.
    SpuriousWake = "k06_spurious_wake",
    /// A report is held back, and comes with later ones.
    Coalesced = "k07_coalesced",
    /// The reports of a wait come in another order.
    Shuffled = "k08_shuffled",
    /// A wait brings a part of the reports only.
    Truncated = "k09_truncated",
    /// A report is still in the batch when its descriptor is closed.
    StaleEvent = "k10_stale_event",
    /// A call is interrupted by a signal.
    Interrupted = "k11_interrupted",
    /// The process has no more descriptors.
    TooManyFiles = "k12_emfile",
    /// The machine has no more files.
    FileTableFull = "k13_enfile",
    /// The kernel has no memory for a socket.
    NoBuffers = "k14_enobufs",
    /// A connection is gone before it is accepted, and accepting says so.
    AcceptAborted = "k15_econnaborted",
    /// A number that was closed in a batch is given out again in the same batch.
    NumberReused = "k16_number_reused",
    /// A connection is reset.
    Reset = "k17_reset",
    /// A peer ends its half after any byte.
    EarlyEnd = "k18_early_end",
    /// A peer ends its half and reads on.
    HalfClose = "k19_half_close",
    /// A reset follows the end while bytes wait to be read.
    ResetAfterEnd = "k20_reset_after_end",
    /// Connecting is refused, or nobody answers.
    ConnectFails = "k21_connect_fails",
    /// A packet takes far longer than others.
    Delay = "k22_delay",
    /// One direction of a connection stands still for a while.
    Clog = "k23_clog",
    /// Several hosts are cut off one by one, and come back in another order.
    Swizzle = "k24_swizzle",
    /// Hosts do not reach each other.
    Partition = "k25_partition",
    /// A peer takes a byte a second.
    SlowReader = "k26_slow_reader",
    /// A peer takes nothing at all.
    NeverReads = "k27_never_reads",
    /// A peer sends more than can be served.
    Flood = "k28_flood",
    /// A listener's queue is full.
    BacklogFull = "k29_backlog_full",
    /// The wall clock jumps.
    WallClockJump = "k30_wall_clock_jump",
    /// The machine sleeps for hours.
    Suspend = "k31_suspend",
    /// A wait ends a little before or after its time.
    TimerSlack = "k32_timer_slack",
    /// A ring's completions do not fit.
    CompletionOverflow = "k33_completion_overflow",
    /// A request that goes on by itself ends early.
    MultishotEnds = "k34_multishot_ends",
    /// The ring's buffers have run out.
    NoRingBuffers = "k35_no_ring_buffers",
    /// A cancellation meets a request that is ending.
    CancelRace = "k36_cancel_race",
    /// The kernel refuses entries after they were queued.
    SubmitFails = "k37_submit_fails",
    /// A thread of the pool is late, or overtaken by another.
    PoolDelay = "k38_pool_delay",
    /// A thread cannot be started.
    ThreadStartFails = "k39_thread_start_fails",
    /// A handler, a task or a job panics.
    Panic = "k40_panic",
    /// A name is not found, its server fails or is slow, or it means another address.
    Names = "k41_names",
    /// A disk fails, is full, or does only a part.
    Disk = "k42_disk",
    /// A process ends without warning and is started again.
    Kill = "k43_kill",
    /// A datagram is lost on its way to another host.
    Loss = "k46_loss",
    /// A datagram arrives twice.
    Duplicate = "k47_duplicate",
    /// A bound of our own is reached.
    Bound = "k45_bound",
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Fault {
    /// How often it strikes where it could, unless something else is asked for: often enough to be met in a short run, and
    /// not so often that nothing else happens.
    pub(crate) fn usual_rate(self) -> f64 {
        match self {
            // Where each ends a connection, or more.
            Fault::Reset | Fault::EarlyEnd => 0.002,
            Fault::Suspend | Fault::WallClockJump => 0.01,
            Fault::Kill | Fault::Swizzle => 0.05,
            Fault::Partition => 0.1,
            Fault::Clog | Fault::Delay | Fault::Disk => 0.01,
            Fault::Panic => 0.005,
            _ => 0.05,
        }
    }
}

pub(crate) const KINDS: usize = Fault::ALL.len();

/// What a rate is out of.
pub(crate) const ONE: u32 = 1_000_000;

/// The faults of one world.
#[derive(Debug)]
pub(crate) struct Faults {
    /// How often each kind strikes where it could, in millionths.
    rates: [u32; KINDS],
    hits: [u64; KINDS],
    dice: Vec<Rng>,
    /// Off while the world is to calm down.
    on: bool,
}

impl Faults {
    /// None strikes before its rate is set.
    pub(crate) fn new(seed: u64) -> Self {
        // Neighbouring seeds must not give neighbouring streams.
        let mut mix = Rng::with_seed(seed ^ 0x6661_756c_7473);
        let dice = (0..KINDS).map(|_| mix.fork()).collect();
        Faults { rates: [0; KINDS], hits: [0; KINDS], dice, on: true }
    }

    pub(crate) fn set_rate(&mut self, fault: Fault, rate: f64) {
        self.rates[fault as usize] = (rate.clamp(0.0, 1.0) * f64::from(ONE)) as u32;
    }

    pub(crate) fn rate(&self, fault: Fault) -> f64 {
        f64::from(self.rates[fault as usize]) / f64::from(ONE)
    }

    /// Switches all of them on or off.
    pub(crate) fn switch(&mut self, on: bool) {
        self.on = on;
    }

    pub(crate) fn are_on(&self) -> bool {
        self.on
    }

    /// Whether this kind strikes here and now; if so, it is counted.
    pub(crate) fn strikes(&mut self, fault: Fault) -> bool {
        let at = fault as usize;
        // A kind that is off draws nothing: a run without it is the run that never had it.
        if !self.on || self.rates[at] == 0 || self.dice[at].u32(..ONE) >= self.rates[at] {
            return false;
        }
        self.hits[at] += 1;
        true
    }

    /// Counts a kind that the world itself has brought about.
    pub(crate) fn hit(&mut self, fault: Fault) {
        self.hits[fault as usize] += 1;
    }

    /// Random numbers of this kind, for how it strikes.
    pub(crate) fn dice(&mut self, fault: Fault) -> &mut Rng {
        &mut self.dice[fault as usize]
    }

    pub(crate) fn hits(&self) -> impl Iterator<Item = (Fault, u64)> {
        Fault::ALL.iter().map(|fault| (*fault, self.hits[*fault as usize]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_that_is_switched_on_does_not_shift_the_others() {
        let drawn = |with: Option<Fault>| {
            let mut faults = Faults::new(7);
            faults.set_rate(Fault::Reset, 0.5);
            if let Some(with) = with {
                faults.set_rate(with, 0.5);
            }
            (0..200)
                .map(|_| {
                    faults.strikes(Fault::ShortRead);
                    faults.strikes(Fault::Reset)
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(drawn(None), drawn(Some(Fault::ShortRead)));
    }

    #[test]
    fn rates_are_kept_and_hits_counted() {
        let mut faults = Faults::new(1);
        faults.set_rate(Fault::Delay, 0.25);
        let hits = (0..10_000).filter(|_| faults.strikes(Fault::Delay)).count();
        assert!((2_000..3_000).contains(&hits), "{hits}");
        assert!(faults.hits().any(|(fault, n)| fault == Fault::Delay && n == hits as u64));
        faults.switch(false);
        assert!((0..100).all(|_| !faults.strikes(Fault::Delay)));
    }
}
