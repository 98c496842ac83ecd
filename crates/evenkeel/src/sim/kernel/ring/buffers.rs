//! Buffers that a process provides: which are the kernel's, and what is in them while they are (I9, I15).

use std::collections::BTreeSet;
use std::mem::offset_of;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::memory::{Memory, Region};
use super::queues::SCRIBBLE;
use crate::sys::buffers::Provided;
use crate::sys::ring::seen;

/// Where the tail is: behind the fields of the first entry.
const TAIL: usize = size_of::<Provided>() - size_of::<u16>();

/// The group of buffers of a ring.
#[derive(Debug)]
pub(super) struct Group {
    entries: Rc<Region>,
    /// Where in the region the entries begin.
    at: usize,
    count: u16,
    /// Buffers are filled piece by piece.
    incremental: bool,
    /// The next entry to be used.
    head: u16,
    /// Entries that the ledger has.
    seen: u16,
    /// Buffers that are the kernel's.
    ours: BTreeSet<u16>,
}

impl Group {
    pub(super) fn new(entries: Rc<Region>, at: usize, count: u16, incremental: bool) -> Self {
        Group { entries, at, count, incremental, head: 0, seen: 0, ours: BTreeSet::new() }
    }

    fn entry_at(&self, number: u16) -> usize {
        self.at + usize::from(number & (self.count - 1)) * size_of::<Provided>()
    }

    /// Takes over what was provided since the last look. What a buffer still holds is nobody's any more, and is written over.
    ///
    /// # Panics
    /// If a buffer is provided that is the kernel's already, or lies in no memory.
    pub(super) fn take_over(&mut self, memory: &Memory) {
        let tail = self.entries.half(self.at + TAIL).load(Ordering::Acquire);
        while self.seen != tail {
            let Provided { address, len, id, .. } = self.entries.get(self.entry_at(self.seen));
            assert!(self.ours.insert(id), "buffer {id} was provided twice (I15)");
            assert!(
                self.ours.len() <= usize::from(self.count),
                "more buffers were provided than there are (I15)"
            );
            match memory.find(address, len as usize) {
                Some((region, at)) => region.fill(at, len as usize, SCRIBBLE),
                None => panic!("buffer {id} was provided, and its memory is not mapped (I16)"),
            }
            self.seen = self.seen.wrapping_add(1);
        }
    }

    /// The buffer that is next.
    pub(super) fn select(&self) -> Option<Provided> {
        (self.head != self.seen).then(|| self.entries.get(self.entry_at(self.head)))
    }

    /// Gives so much of the next buffer to the process, and returns what its completion says of it.
    pub(super) fn give(&mut self, filled: usize) -> u32 {
        let at = self.entry_at(self.head);
        let Provided { address, len, id, .. } = self.entries.get(at);
        let buffer = seen::BUFFER | u32::from(id) << 16;
        if self.incremental && filled == 0 {
            // Nothing of it was used. Linux does not say that more will come, and it will all the same.
            return buffer;
        }
        let left = len.saturating_sub(filled as u32);
        if self.incremental && left > 0 {
            self.entries.put(at + offset_of!(Provided, address), address + filled as u64);
            self.entries.put(at + offset_of!(Provided, len), left);
            return buffer | seen::BUFFER_MORE;
        }
        assert!(self.ours.remove(&id), "buffer {id} was used, and the process has it (I15)");
        self.head = self.head.wrapping_add(1);
        buffer
    }

    pub(super) fn is_mapped(&self, memory: &Memory) -> bool {
        memory.find(self.entries.address(), 1).is_some()
    }

    /// Buffers that the process has.
    pub(super) fn away(&self) -> usize {
        usize::from(self.count).saturating_sub(self.ours.len())
    }

    /// The memory of the entries, and of the buffers that are the kernel's: by addresses.
    pub(super) fn regions(&self, memory: &Memory) -> BTreeSet<u64> {
        let mut all = BTreeSet::from([self.entries.address()]);
        let mut number = self.head;
        while number != self.seen {
            let Provided { address, len, .. } = self.entries.get(self.entry_at(number));
            all.extend(memory.find(address, len as usize).map(|(region, _)| region.address()));
            number = number.wrapping_add(1);
        }
        all
    }
}
