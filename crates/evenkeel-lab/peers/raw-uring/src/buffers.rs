//! The buffers that the kernel receives into: a ring of them, each filled piece by piece.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Two MiB together: less of them starve the receives of a batch, and more fall out of the cache.
const COUNT: u16 = 32;
const SIZE: usize = 64 << 10;
/// `IOU_PBUF_RING_INC`: the kernel goes on where it stopped in a buffer, until that is full (Linux 6.12).
const INCREMENTAL: u16 = 2;

pub(crate) struct Buffers {
    ring: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    /// How far each has been filled.
    filled: [usize; COUNT as usize],
    /// Those that are full, and hold what has yet to be sent.
    full: Vec<u16>,
    tail: u16,
}

/// Fresh memory, zeroed and aligned to a page, for as long as the process lives.
fn map(bytes: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a new anonymous mapping aliases nothing.
    let at = unsafe {
        mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
    }?;
    NonNull::new(at.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

impl Buffers {
    /// Registers them as the group 0 of a ring, for as long as the process lives.
    pub(crate) fn new(ring: &IoUring) -> io::Result<Self> {
        let entries = map(usize::from(COUNT) * size_of::<BufRingEntry>())?.cast();
        let memory = map(usize::from(COUNT) * SIZE)?;
        // SAFETY: the mapping holds so many entries, aligned to a page and zeroed, and is never unmapped.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(entries.as_ptr() as u64, COUNT, 0, INCREMENTAL)
        }?;
        let full = (0..COUNT).collect();
        let mut this = Buffers { ring: entries, memory, filled: [0; COUNT as usize], full, tail: 0 };
        this.give_back();
        Ok(this)
    }

    /// The next `n` bytes of a buffer, which the kernel has filled. They stay until `give_back`.
    pub(crate) fn take(&mut self, id: u16, n: usize) -> *const u8 {
        let filled = &mut self.filled[usize::from(id)];
        let at = usize::from(id) * SIZE + *filled;
        *filled += n;
        assert!(*filled <= SIZE, "the kernel keeps to the buffer");
        if *filled == SIZE {
            self.full.push(id);
        }
        // SAFETY: the buffer `id` and the bytes before its end, as was checked, lie in the mapping.
        unsafe { self.memory.as_ptr().add(at) }
    }

    /// Lets the kernel fill the full ones again. What they held must have been sent.
    pub(crate) fn give_back(&mut self) {
        if self.full.is_empty() {
            return;
        }
        for id in self.full.drain(..) {
            self.filled[usize::from(id)] = 0;
            let at = usize::from(id) * SIZE;
            // SAFETY: the place lies below COUNT and is ours, as the kernel has not been shown the new tail. The
            // fields are set one by one, because the first entry holds the tail, too.
            unsafe {
                let entry = &mut *self.ring.as_ptr().add(usize::from(self.tail % COUNT));
                entry.set_addr(self.memory.as_ptr().add(at) as u64);
                entry.set_len(SIZE as u32);
                entry.set_bid(id);
            }
            self.tail = self.tail.wrapping_add(1);
        }
        // SAFETY: the tail lies in the first entry, is aligned and stays mapped; the kernel reads it atomically.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.ring.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}
