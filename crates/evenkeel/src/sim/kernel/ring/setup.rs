//! What a kernel's `io_uring` is like: its version, what of it is refused, and how large the queues are.

use std::num::NonZeroU32;
use std::ptr::NonNull;

use rustix::io::Errno;
use rustix::io_uring::{IORING_OFF_SQ_RING, IORING_OFF_SQES, IoringFeatureFlags};

use super::Ring;
use super::buffers::Group;
use super::queues::Queues;
use super::request::Requests;
use crate::sim::fault::Fault;
use crate::sim::kernel::{HostId, Kernel, Kind, ObjectId};
use crate::sys::Fd;
use crate::sys::ring::{RingParams, SetupFlags, op};

/// A version of Linux, of those that differ in what a ring can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    /// Rings of buffers; accepting again and again.
    V5_19,
    /// Receiving again and again; one issuer.
    V6_0,
    /// Deferred task work.
    V6_1,
    /// Queues without an array.
    V6_6,
    /// Buffers that are filled piece by piece.
    V6_12,
}

impl Version {
    const ALL: [Version; 5] = [Version::V5_19, Version::V6_0, Version::V6_1, Version::V6_6, Version::V6_12];

    /// The flags that it knows.
    fn flags(self) -> SetupFlags {
        let since = |version, flags| if self >= version { flags } else { SetupFlags::empty() };
        SetupFlags::CQSIZE
            | SetupFlags::CLAMP
            | SetupFlags::SUBMIT_ALL
            | SetupFlags::COOP_TASKRUN
            | SetupFlags::TASKRUN_FLAG
            | since(Version::V6_0, SetupFlags::SINGLE_ISSUER)
            | since(Version::V6_1, SetupFlags::DEFER_TASKRUN)
            | since(Version::V6_6, SetupFlags::NO_SQARRAY)
    }
}

/// What the rings of a host are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) version: Version,
    /// There are none.
    pub(crate) refusal: Option<Errno>,
    /// The end of a stream comes with a buffer, in which nothing is.
    pub(crate) end_has_buffer: bool,
}

impl Offer {
    /// All that the model has.
    pub(crate) const NEWEST: Offer = Offer { version: Version::V6_12, refusal: None, end_has_buffer: false };
}

const MOST_ENTRIES: u32 = 32_768;

const FEATURES: IoringFeatureFlags = IoringFeatureFlags::SINGLE_MMAP
    .union(IoringFeatureFlags::NODROP)
    .union(IoringFeatureFlags::SUBMIT_STABLE)
    .union(IoringFeatureFlags::FAST_POLL)
    .union(IoringFeatureFlags::POLL_32BITS)
    .union(IoringFeatureFlags::EXT_ARG)
    .union(IoringFeatureFlags::CQE_SKIP);

impl Kernel {
    /// What a host's rings are like, decided when the first one is asked for.
    fn ring_offer(&mut self, host: HostId) -> Offer {
        if let Some(offer) = self.host(host).rings {
            return offer;
        }
        let mut offer = Offer::NEWEST;
        let dice = &mut self.rings.dice;
        if self.rings.vary {
            if dice.bool() {
                offer.version = Version::ALL[dice.usize(..Version::ALL.len())];
            }
            offer.end_has_buffer = dice.bool();
            if dice.u8(..16) == 0 {
                let refusals = [Errno::PERM, Errno::NOSYS, Errno::NOMEM];
                offer.refusal = Some(refusals[dice.usize(..refusals.len())]);
            }
        }
        self.host(host).rings = Some(offer);
        offer
    }

    pub(crate) fn ring_setup(
        &mut self,
        host: HostId,
        entries: u32,
        params: &mut RingParams,
    ) -> Result<Fd, Errno> {
        let offer = self.ring_offer(host);
        if let Some(refusal) = offer.refusal {
            return Err(refusal);
        }
        let flags = params.flags;
        let has = |flag| flags.contains(flag);
        let runs_late = SetupFlags::COOP_TASKRUN | SetupFlags::DEFER_TASKRUN;
        let odd = !offer.version.flags().contains(flags)
            || has(SetupFlags::DEFER_TASKRUN) && !has(SetupFlags::SINGLE_ISSUER)
            || has(SetupFlags::TASKRUN_FLAG) && !flags.intersects(runs_late);
        if odd {
            return Err(Errno::INVAL);
        }
        let (sq, cq) = self.queue_sizes(entries, params)?;
        self.has_number(host)?;
        if self.strikes(Fault::NoBuffers) {
            return Err(Errno::NOMEM);
        }
        params.features = FEATURES;
        let queues = Queues::new(sq, cq, params)?;
        let ring = Ring {
            host,
            offer,
            flags,
            queues,
            requests: Requests::default(),
            work: Default::default(),
            backlog: Default::default(),
            group: None,
        };
        let fd = self.open(host, Kind::Ring(Box::new(ring)))?;
        let id = self.lookup(host, fd)?;
        self.rings.open.insert(id);
        self.log(format_args!("a ring of {sq} and {cq}, {flags:?}"));
        Ok(fd)
    }

    /// How large the queues are: as asked for, or far too small.
    fn queue_sizes(&mut self, entries: u32, params: &RingParams) -> Result<(u32, u32), Errno> {
        let clamp = params.flags.contains(SetupFlags::CLAMP);
        let size = |asked: u32, most: u32| {
            let asked = NonZeroU32::new(asked).ok_or(Errno::INVAL)?.get();
            if asked > most && !clamp { Err(Errno::INVAL) } else { Ok(asked.min(most).next_power_of_two()) }
        };
        let sq = size(entries, MOST_ENTRIES)?;
        let asks = params.flags.contains(SetupFlags::CQSIZE);
        let cq = if asks { size(params.cq_entries, 2 * MOST_ENTRIES)? } else { 2 * sq };
        if cq < sq {
            return Err(Errno::INVAL);
        }
        if self.strikes(Fault::CompletionOverflow) {
            let dice = self.faults.dice(Fault::CompletionOverflow);
            // A ring that is small already asks for a few entries one after the other, and has room for them.
            let sq = if sq > 8 { 1 << dice.u32(..5) } else { sq };
            return Ok((sq, 2 << dice.u32(..4)));
        }
        Ok((sq, cq))
    }

    pub(crate) fn ring_map(
        &mut self,
        host: HostId,
        fd: Fd,
        offset: u64,
        bytes: usize,
    ) -> Result<NonNull<u8>, Errno> {
        let id = self.ring_by_number(host, fd)?;
        let ring = self.ring(id).ok_or(Errno::BADF)?;
        let region = match offset {
            IORING_OFF_SQ_RING => ring.queues.numbers.clone(),
            IORING_OFF_SQES => ring.queues.entries.clone(),
            _ => return Err(Errno::INVAL),
        };
        if bytes > region.len() {
            return Err(Errno::INVAL);
        }
        Ok(self.rings.memory.show(&region))
    }

    /// Names memory as the ring of buffers of group 0.
    pub(crate) fn ring_provide(
        &mut self,
        host: HostId,
        fd: Fd,
        entries: NonNull<u8>,
        count: u16,
        incremental: bool,
    ) -> Result<(), Errno> {
        const ENTRY: usize = size_of::<crate::sys::buffers::Provided>();
        let id = self.ring_by_number(host, fd)?;
        let found = self.rings.memory.find(entries.as_ptr() as u64, usize::from(count) * ENTRY);
        let (region, at) = found.map(|(region, at)| (region.clone(), at)).ok_or(Errno::FAULT)?;
        let ring = self.ring(id).ok_or(Errno::BADF)?;
        if !count.is_power_of_two() || incremental && ring.offer.version < Version::V6_12 {
            return Err(Errno::INVAL);
        }
        if ring.group.is_some() {
            return Err(Errno::EXIST);
        }
        ring.group = Some(Group::new(region, at, count, incremental));
        Ok(())
    }

    /// The operations that a ring knows, one bit for each.
    pub(crate) fn ring_operations(&self, host: HostId, fd: Fd) -> Result<u128, Errno> {
        self.ring_by_number(host, fd)?;
        let known = [op::NOP, op::POLL_ADD, op::ACCEPT, op::ASYNC_CANCEL, op::SEND, op::RECV];
        Ok(known.into_iter().fold(0, |all, op| all | 1 << op))
    }

    pub(crate) fn map(&mut self, bytes: usize) -> Result<NonNull<u8>, Errno> {
        self.rings.memory.map(bytes)
    }

    /// Takes a mapping back.
    ///
    /// # Panics
    /// If there is none, or if a receive in flight could still write into it.
    pub(crate) fn unmap(&mut self, at: NonNull<u8>) {
        let address = at.as_ptr() as u64;
        let used = self.rings.open.iter().any(|ring| {
            let Some(Kind::Ring(ring)) = self.objects.get(*ring).map(|object| &object.kind) else {
                return false;
            };
            let regions = ring.group.as_ref().map(|group| group.regions(&self.rings.memory));
            regions.is_some_and(|all| all.contains(&address)) && self.may_receive(ring)
        });
        let doomed = self.rings.doomed.remove(&address);
        let mapped = self.rings.memory.unmap(at);
        // A test that has failed already says why by itself.
        if !std::thread::panicking() {
            assert!(mapped.is_some(), "memory was unmapped that was not mapped");
            assert!(!used && !doomed, "memory was unmapped that receives in flight can write to (I16)");
        }
    }

    /// A process is about to close a ring, whose memory it still has: of what it was lent by then, it has given everything back.
    ///
    /// # Panics
    /// If it has not (I15).
    pub(crate) fn check_buffers(&mut self, host: HostId, fd: Fd) {
        let Ok(id) = self.ring_by_number(host, fd) else { return };
        let Some(Kind::Ring(ring)) = self.objects.get(id).map(|object| &object.kind) else { return };
        let lent = ring.group.as_ref().is_some_and(|group| group.is_mapped(&self.rings.memory));
        if !lent || ring.requests.all().next().is_some() {
            return;
        }
        self.take_over_buffers(id);
        let away = self.ring(id).and_then(|ring| ring.group.as_ref()).map_or(0, |group| group.away());
        assert!(away == 0 || std::thread::panicking(), "{away} buffers were never given back (I15)");
    }

    /// Whether a receive is in flight for which bytes may still come.
    fn may_receive(&self, ring: &Ring) -> bool {
        ring.requests.all().any(|(_, request)| {
            let stream = self.objects.get(request.object).and_then(|object| object.stream());
            request.is_receive() && stream.is_some_and(|stream| stream.unread() > 0 || stream.has_peer())
        })
    }

    /// A ring has no number any more: what is in flight on it ends, and nobody hears of it.
    pub(in crate::sim::kernel) fn end_ring(&mut self, id: ObjectId, ring: Ring) {
        self.rings.open.remove(&id);
        if self.may_receive(&ring)
            && let Some(group) = &ring.group
        {
            self.rings.doomed.extend(group.regions(&self.rings.memory));
        }
        let all: Vec<_> = ring.requests.all().map(|(request, it)| (request, it.object)).collect();
        for (request, object) in all {
            self.let_go(id, request, object);
        }
    }
}
