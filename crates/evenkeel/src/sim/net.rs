//! The network between hosts: how long things take, how much fits, and who reaches whom.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::kernel::HostId;

/// What the network is like. Delays are in nanoseconds, sizes in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    /// From one host to another, and back.
    pub(crate) delay: Range<u64>,
    /// Within a host.
    pub(crate) local_delay: Range<u64>,
    /// What an unusually late packet takes.
    pub(crate) tail: Range<u64>,
    /// How much a socket takes for sending before it would block.
    pub(crate) send_buffer: usize,
    /// How much waits at most to be read.
    pub(crate) recv_buffer: usize,
    /// Bytes that travel together at most.
    pub(crate) segment: usize,
    /// Whether those who are told of changes hear of every arrival, as on Linux, or only when the first byte comes.
    pub(crate) every_arrival: bool,
    /// Pairs of hosts that do not reach each other, and until when.
    cut: BTreeMap<(HostId, HostId), u64>,
}

impl Default for Network {
    fn default() -> Self {
        Network {
            delay: 50_000..500_000,
            local_delay: 5_000..20_000,
            tail: 10_000_000..2_000_000_000,
            send_buffer: 256 << 10,
            recv_buffer: 128 << 10,
            segment: 64 << 10,
            every_arrival: true,
            cut: BTreeMap::new(),
        }
    }
}

impl Network {
    /// Everything arrives at once: how the loopback interface looks to a thread.
    pub(crate) fn immediate() -> Self {
        Network { delay: 0..0, local_delay: 0..0, ..Network::default() }
    }

    fn pair(a: HostId, b: HostId) -> (HostId, HostId) {
        (a.min(b), a.max(b))
    }

    /// Cuts two hosts off from each other until a time.
    pub(crate) fn cut(&mut self, a: HostId, b: HostId, until: u64) {
        if a != b {
            self.cut.insert(Self::pair(a, b), until);
        }
    }

    /// Lets all hosts reach each other again.
    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    /// Until when two hosts do not reach each other.
    pub(crate) fn is_cut(&self, a: HostId, b: HostId, now: u64) -> Option<u64> {
        self.cut.get(&Self::pair(a, b)).copied().filter(|until| *until > now)
    }
}

/// A duration as the model has it.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
