//! The two queues of a ring, as its kernel sees them.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::memory::Region;
use crate::sys::ring::{Done, Entry, RingParams, SetupFlags};

/// Where the numbers are. The two sides' numbers do not share a cache line.
const SQ_HEAD: u32 = 0;
const SQ_TAIL: u32 = 64;
const CQ_HEAD: u32 = 128;
const CQ_TAIL: u32 = 192;
const SQ_MASK: u32 = 256;
const CQ_MASK: u32 = 260;
const SQ_ENTRIES: u32 = 264;
const CQ_ENTRIES: u32 = 268;
const SQ_DROPPED: u32 = 272;
const SQ_FLAGS: u32 = 276;
const CQ_FLAGS: u32 = 280;
const CQ_OVERFLOW: u32 = 284;
const CQES: u32 = 320;

/// What a place holds after its entry was taken: nobody may look there for the entry any more.
pub(super) const SCRIBBLE: u8 = 0xdd;

#[derive(Debug)]
pub(super) struct Queues {
    pub(super) numbers: Rc<Region>,
    pub(super) entries: Rc<Region>,
    sq: u32,
    cq: u32,
    /// Where the order of the entries is, if they need not be in order.
    array: Option<u32>,
    /// Entries that were taken.
    taken: u32,
    /// Completions that were posted.
    posted: u32,
}

impl Queues {
    /// Queues of these sizes, which are powers of two. Where everything is, is put into `params`.
    pub(super) fn new(sq: u32, cq: u32, params: &mut RingParams) -> Result<Self, Errno> {
        let array_at = CQES + cq * size_of::<Done>() as u32;
        let array = (!params.flags.contains(SetupFlags::NO_SQARRAY)).then_some(array_at);
        let numbers = Region::new(array_at as usize + sq as usize * size_of::<u32>())?;
        let entries = Region::new(sq as usize * size_of::<Entry>())?;
        for (at, value) in [(SQ_MASK, sq - 1), (CQ_MASK, cq - 1), (SQ_ENTRIES, sq), (CQ_ENTRIES, cq)] {
            numbers.put(at as usize, value);
        }
        (params.sq_entries, params.cq_entries) = (sq, cq);
        let offsets = &mut params.sq_off;
        (offsets.head, offsets.tail, offsets.flags) = (SQ_HEAD, SQ_TAIL, SQ_FLAGS);
        (offsets.ring_mask, offsets.ring_entries) = (SQ_MASK, SQ_ENTRIES);
        (offsets.dropped, offsets.array) = (SQ_DROPPED, array.unwrap_or(0));
        let offsets = &mut params.cq_off;
        (offsets.head, offsets.tail, offsets.flags) = (CQ_HEAD, CQ_TAIL, CQ_FLAGS);
        (offsets.ring_mask, offsets.ring_entries) = (CQ_MASK, CQ_ENTRIES);
        (offsets.overflow, offsets.cqes) = (CQ_OVERFLOW, CQES);
        Ok(Queues { numbers, entries, sq, cq, array, taken: 0, posted: 0 })
    }

    /// Entries that wait to be taken.
    pub(super) fn waiting(&self) -> u32 {
        let waiting = self.numbers.number(SQ_TAIL).load(Ordering::Acquire).wrapping_sub(self.taken);
        assert!(waiting <= self.sq, "{waiting} entries in a queue of {}", self.sq);
        waiting
    }

    /// Takes the next entry. None if its place in the order is nowhere.
    pub(super) fn take(&mut self) -> Option<Entry> {
        let at = self.taken & (self.sq - 1);
        self.taken = self.taken.wrapping_add(1);
        let at = match self.array {
            None => at,
            Some(array) => self.numbers.number(array + 4 * at).load(Ordering::Relaxed),
        };
        if at >= self.sq {
            return None;
        }
        let at = at as usize * size_of::<Entry>();
        let entry = self.entries.get(at);
        self.entries.fill(at, size_of::<Entry>(), SCRIBBLE);
        Some(entry)
    }

    /// Shows the process what was taken: the places are its own again.
    pub(super) fn show_taken(&self) {
        self.numbers.number(SQ_HEAD).store(self.taken, Ordering::Release);
    }

    /// Completions that the process has not taken.
    pub(super) fn unseen(&self) -> u32 {
        let unseen = self.posted.wrapping_sub(self.numbers.number(CQ_HEAD).load(Ordering::Acquire));
        assert!(unseen <= self.cq, "{unseen} completions were in a queue of {}", self.cq);
        unseen
    }

    pub(super) fn is_full(&self) -> bool {
        self.unseen() == self.cq
    }

    pub(super) fn completions(&self) -> u32 {
        self.cq
    }

    /// Posts a completion. There is room.
    pub(super) fn post(&mut self, done: Done) {
        let at = (self.posted & (self.cq - 1)) as usize * size_of::<Done>();
        self.numbers.put(CQES as usize + at, done);
        self.posted = self.posted.wrapping_add(1);
        self.numbers.number(CQ_TAIL).store(self.posted, Ordering::Release);
    }

    /// Sets or clears a bit that tells the process something.
    pub(super) fn tell(&self, bit: u32, on: bool) {
        let flags = self.numbers.number(SQ_FLAGS);
        let old = flags.load(Ordering::Relaxed);
        flags.store(if on { old | bit } else { old & !bit }, Ordering::Release);
    }
}
