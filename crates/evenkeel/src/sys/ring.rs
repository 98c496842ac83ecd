//! An io_uring as what it is: two queues in shared memory, of plain structs, and one call.
//!
//! [`Ring`] writes entries and reads completions; the kernel, or a model of it, is reached only through the
//! `ring_` methods of [`Sys`]. An entry that names memory is made by an unsafe function that says for how long; all
//! others are safe, so that a driver is safe code but where it lends memory.

mod files;
#[cfg(feature = "sim")]
mod kernel_side;

use std::cell::Cell;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub(crate) use rustix::io_uring::IoringSetupFlags as SetupFlags;
pub(crate) use rustix::io_uring::io_uring_params as RingParams;
use rustix::io_uring::{IORING_OFF_SQ_RING, IORING_OFF_SQES, IoringFeatureFlags};

use super::{Fd, Sys};

pub(crate) use files::FILE_OPERATIONS;
#[cfg(feature = "sim")]
pub(crate) use kernel_side::{SQ_OVERFLOWED, SQ_TASK_WORK, cancel, seen};

/// Operations, by the kernel's numbers.
pub(crate) mod op {
    pub(crate) const NOP: u8 = 0;
    pub(crate) const FSYNC: u8 = 3;
    pub(crate) const POLL_ADD: u8 = 6;
    pub(crate) const ACCEPT: u8 = 13;
    pub(crate) const ASYNC_CANCEL: u8 = 14;
    pub(crate) const OPENAT: u8 = 18;
    pub(crate) const CLOSE: u8 = 19;
    pub(crate) const STATX: u8 = 21;
    pub(crate) const READ: u8 = 22;
    pub(crate) const WRITE: u8 = 23;
    pub(crate) const SEND: u8 = 26;
    pub(crate) const RECV: u8 = 27;
    pub(crate) const RENAMEAT: u8 = 35;
    pub(crate) const UNLINKAT: u8 = 36;
    pub(crate) const MKDIRAT: u8 = 37;
    /// Linux 6.9.
    pub(crate) const FTRUNCATE: u8 = 55;
}

/// Flags of an entry.
mod entry_flag {
    /// One of the kernel's threads performs it, without trying first what does not block.
    pub(super) const ASYNC: u8 = 1 << 4;
    /// The kernel chooses a buffer of the group.
    pub(super) const BUFFER_SELECT: u8 = 1 << 5;
    /// No completion unless the operation fails.
    pub(super) const SKIP_SUCCESS: u8 = 1 << 6;
}

/// Flags of a completion.
mod done_flag {
    pub(super) const BUFFER: u32 = 1 << 0;
    pub(super) const MORE: u32 = 1 << 1;
    /// The kernel will put more into the same buffer.
    pub(super) const BUFFER_MORE: u32 = 1 << 4;
}

/// One submission.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Entry {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: Fd,
    offset: u64,
    address: u64,
    len: u32,
    /// The operation's own flags.
    op_flags: u32,
    /// What the completion will carry.
    pub(crate) data: u64,
    buffer: u16,
    personality: u16,
    file_index: i32,
    rest: [u64; 2],
}

const _: () = assert!(size_of::<Entry>() == 64);

/// One completion.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Done {
    pub(crate) data: u64,
    /// What the system call would have returned, errors as negative numbers.
    pub(crate) result: i32,
    flags: u32,
}

impl Done {
    /// The operation goes on and will complete again.
    pub(crate) fn more(&self) -> bool {
        self.flags & done_flag::MORE != 0
    }

    /// The buffer that holds what was received, and whether the kernel goes on to fill it.
    pub(crate) fn buffer(&self) -> Option<(u16, bool)> {
        let more = self.flags & done_flag::BUFFER_MORE != 0;
        (self.flags & done_flag::BUFFER != 0).then_some(((self.flags >> 16) as u16, more))
    }
}

#[cfg(test)]
impl Done {
    /// As the kernel answers a receive.
    pub(crate) fn received(result: i32, buffer: u16, goes_on: bool) -> Self {
        let goes_on = if goes_on { done_flag::BUFFER_MORE } else { 0 };
        Done { data: 0, result, flags: done_flag::BUFFER | goes_on | u32::from(buffer) << 16 }
    }
}

/// How sends are to be done: without waiting for room, all or a failure that tells how much, without a signal.
const SEND_FLAGS: u32 = libc_flags::DONTWAIT | libc_flags::WAITALL | libc_flags::NOSIGNAL;

mod libc_flags {
    use rustix::net::{RecvFlags, SendFlags, SocketFlags};
    pub(super) const DONTWAIT: u32 = SendFlags::DONTWAIT.bits();
    pub(super) const NOSIGNAL: u32 = SendFlags::NOSIGNAL.bits();
    pub(super) const WAITALL: u32 = RecvFlags::WAITALL.bits();
    pub(super) const SOCKET: u32 = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC).bits();
}

impl Entry {
    /// The same, with what its completions are to carry.
    #[inline]
    pub(crate) fn with(self, data: u64) -> Self {
        Entry { data, ..self }
    }

    /// Receives into a buffer of the group 0: once, or for as long as there are buffers.
    pub(crate) fn recv(fd: Fd, multishot: bool) -> Self {
        let ioprio = if multishot { 1 << 1 } else { 0 };
        Entry { opcode: op::RECV, flags: entry_flag::BUFFER_SELECT, ioprio, fd, ..Entry::default() }
    }

    /// Accepts, non-blocking and close-on-exec: once, or again and again.
    pub(crate) fn accept(fd: Fd, multishot: bool) -> Self {
        let ioprio = u16::from(multishot);
        Entry { opcode: op::ACCEPT, ioprio, fd, op_flags: libc_flags::SOCKET, ..Entry::default() }
    }

    /// Completes when one of `events`, an error or a hang-up is there: once, or at each change.
    pub(crate) fn poll(fd: Fd, events: i16, multishot: bool) -> Self {
        let events = u32::from(events as u16);
        // The kernel reads two 16-bit halves.
        let op_flags = if cfg!(target_endian = "big") { events.rotate_left(16) } else { events };
        Entry { opcode: op::POLL_ADD, fd, len: u32::from(multishot), op_flags, ..Entry::default() }
    }

    /// Cancels the operation that carries `data`. Completes only if there was none.
    pub(crate) fn cancel(data: u64) -> Self {
        let flags = entry_flag::SKIP_SUCCESS;
        Entry { opcode: op::ASYNC_CANCEL, flags, fd: -1, address: data, ..Entry::default() }
    }

    /// Cancels everything that is in flight on a descriptor. Completes only if there was nothing.
    pub(crate) fn cancel_all(fd: Fd) -> Self {
        const ALL: u32 = 1 << 0;
        const BY_FD: u32 = 1 << 1;
        let flags = entry_flag::SKIP_SUCCESS;
        Entry { opcode: op::ASYNC_CANCEL, flags, fd, op_flags: ALL | BY_FD, ..Entry::default() }
    }

    /// Sends all of `from`, now: it is over when the call that submitted it returns. A completion comes only, and at
    /// once, if not all was sent.
    ///
    /// # Safety
    /// `from` stays as it is until the entry has been submitted, or revoked.
    pub(crate) unsafe fn send(fd: Fd, from: &[u8], quiet: bool) -> Self {
        Entry {
            opcode: op::SEND,
            flags: if quiet { entry_flag::SKIP_SUCCESS } else { 0 },
            fd,
            address: from.as_ptr() as u64,
            len: u32::try_from(from.len()).unwrap_or(u32::MAX),
            op_flags: SEND_FLAGS,
            ..Entry::default()
        }
    }
}

/// What a ring is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) submissions: u32,
    pub(crate) completions: u32,
    pub(crate) flags: SetupFlags,
}

/// What the kernel must have, whatever else: two queues in one mapping, completions that are never dropped, and
/// waits with a timeout. All of it is older than the buffer ring.
const NEEDED: IoringFeatureFlags =
    IoringFeatureFlags::SINGLE_MMAP.union(IoringFeatureFlags::NODROP).union(IoringFeatureFlags::EXT_ARG);

/// Bits of the submission queue's flags, set by the kernel.
const OVERFLOWED: u32 = 1 << 1;
const TASK_WORK: u32 = 1 << 2;

/// A mapping of shared memory.
struct Map {
    at: NonNull<u8>,
    bytes: usize,
}

impl Map {
    /// A number in it that the kernel reads or writes too.
    fn number(&self, at: u32) -> NonNull<AtomicU32> {
        assert!(at as usize + size_of::<AtomicU32>() <= self.bytes && at.is_multiple_of(4));
        // SAFETY: within the mapping, as the line above has checked, and aligned, as mappings are.
        unsafe { self.at.add(at as usize).cast() }
    }
}

/// An io_uring. It is used on one thread.
pub(crate) struct Ring {
    pub(crate) fd: Fd,
    /// The numbers and the completions.
    queues: Map,
    entries: Map,
    head: NonNull<AtomicU32>,
    tail: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    done_head: NonNull<AtomicU32>,
    done_tail: NonNull<AtomicU32>,
    done: NonNull<Done>,
    mask: u32,
    done_mask: u32,
    /// Where the next entry goes; the kernel is shown it at `enter`.
    next: Cell<u32>,
}

fn shared(number: &NonNull<AtomicU32>) -> &AtomicU32 {
    // SAFETY: these lie in the queues' mapping, which lives as long as the ring, and both sides use atomics.
    unsafe { number.as_ref() }
}

impl Ring {
    /// Makes a ring.
    ///
    /// # Errors
    /// The kernel's: EPERM where a filter or a setting refuses rings, ENOSYS where there are none, EINVAL for a flag
    /// that it does not know, ENOMEM; `Unsupported` for a kernel that lacks what this needs.
    pub(crate) fn new<Y: Sys>(sys: &Y, setup: Setup) -> io::Result<Self> {
        let mut params = RingParams::default();
        params.flags = setup.flags | SetupFlags::CQSIZE | SetupFlags::CLAMP;
        params.cq_entries = setup.completions;
        let fd = sys.ring_setup(setup.submissions, &mut params)?;
        match Self::map(sys, fd, &params) {
            Ok(ring) => Ok(ring),
            Err(e) => {
                sys.close(fd);
                Err(e)
            }
        }
    }

    fn map<Y: Sys>(sys: &Y, fd: Fd, params: &RingParams) -> io::Result<Self> {
        if !params.features.contains(NEEDED) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel's io_uring is too old"));
        }
        let (sq, cq) = (&params.sq_off, &params.cq_off);
        let sorted = !params.flags.contains(SetupFlags::NO_SQARRAY);
        let array = if sorted { sq.array as usize + params.sq_entries as usize * 4 } else { 0 };
        let bytes = array.max(cq.cqes as usize + params.cq_entries as usize * size_of::<Done>());
        let queues = Map { at: sys.ring_map(fd, IORING_OFF_SQ_RING, bytes)?, bytes };
        let bytes = params.sq_entries as usize * size_of::<Entry>();
        let entries = match sys.ring_map(fd, IORING_OFF_SQES, bytes) {
            Ok(at) => Map { at, bytes },
            Err(e) => {
                sys.unmap(queues.at, queues.bytes);
                return Err(e);
            }
        };
        if sorted {
            // Entries are always used in order.
            for i in 0..params.sq_entries {
                shared(&queues.number(sq.array + 4 * i)).store(i, Ordering::Relaxed);
            }
        }
        let ring = Ring {
            fd,
            head: queues.number(sq.head),
            tail: queues.number(sq.tail),
            flags: queues.number(sq.flags),
            done_head: queues.number(cq.head),
            done_tail: queues.number(cq.tail),
            done: queues.number(cq.cqes).cast(),
            mask: params.sq_entries - 1,
            done_mask: params.cq_entries - 1,
            next: Cell::new(0),
            queues,
            entries,
        };
        ring.next.set(shared(&ring.tail).load(Ordering::Relaxed));
        Ok(ring)
    }

    /// Queues an entry for the next `enter`. False if there is no room.
    #[inline]
    pub(crate) fn push(&self, entry: &Entry) -> bool {
        let next = self.next.get();
        if next.wrapping_sub(shared(&self.head).load(Ordering::Acquire)) > self.mask {
            return false;
        }
        // SAFETY: the index is masked to the mapping, and the kernel does not read past the tail that it was shown.
        unsafe { self.entries.at.cast::<Entry>().add((next & self.mask) as usize).write(*entry) };
        self.next.set(next.wrapping_add(1));
        true
    }

    /// Entries that the kernel has not taken.
    #[inline]
    pub(crate) fn pending(&self) -> u32 {
        self.next.get().wrapping_sub(shared(&self.head).load(Ordering::Acquire))
    }

    /// Turns sends that the kernel has not taken into nothing, and tells of each: their memory is free again.
    pub(crate) fn revoke_sends(&self, mut each: impl FnMut(u64)) {
        let next = self.next.get();
        for i in 0..self.pending() {
            let at = (next.wrapping_sub(1 + i) & self.mask) as usize;
            // SAFETY: masked to the mapping; the kernel has not taken the entry, and takes entries only in `enter`.
            let entry = unsafe { self.entries.at.cast::<Entry>().add(at).as_mut() };
            if entry.opcode == op::SEND {
                each(entry.data);
                *entry = Entry { opcode: op::NOP, flags: entry_flag::SKIP_SUCCESS, ..Entry::default() };
            }
        }
    }

    /// Lets the kernel take what was queued. With `events`, it also completes what it can, and waits until `wait`
    /// completions are there or the timeout is over. Returns how many entries it took.
    ///
    /// # Errors
    /// The kernel's. `TimedOut` if the timeout was over and nothing had been queued; `Interrupted`; EAGAIN or EBUSY
    /// where it wants completions taken first.
    #[inline]
    pub(crate) fn enter<Y: Sys>(
        &self,
        sys: &Y,
        wait: u32,
        events: bool,
        timeout: Option<Duration>,
    ) -> io::Result<u32> {
        shared(&self.tail).store(self.next.get(), Ordering::Release);
        sys.ring_enter(self.fd, self.pending(), wait, events, timeout)
    }

    /// Takes all completions.
    #[inline]
    pub(crate) fn reap(&self, mut each: impl FnMut(Done)) {
        let tail = shared(&self.done_tail).load(Ordering::Acquire);
        let head = shared(&self.done_head).load(Ordering::Relaxed);
        for at in 0..tail.wrapping_sub(head) {
            let at = head.wrapping_add(at) & self.done_mask;
            // SAFETY: masked to the mapping, and between head and tail, where the kernel does not write.
            each(unsafe { self.done.add(at as usize).read() });
        }
        shared(&self.done_head).store(tail, Ordering::Release);
    }

    /// The kernel keeps completions for which there was no room; the next `enter` with `events` brings them (I14).
    #[inline]
    pub(crate) fn overflowed(&self) -> bool {
        shared(&self.flags).load(Ordering::Relaxed) & OVERFLOWED != 0
    }

    /// An `enter` with `events` would find something to do. Known only to rings that were made with `TASKRUN_FLAG`.
    pub(crate) fn has_work(&self) -> bool {
        shared(&self.flags).load(Ordering::Relaxed) & (OVERFLOWED | TASK_WORK) != 0
    }

    /// Ends the ring. Nothing may be in flight on it that uses memory which is freed next.
    pub(crate) fn close<Y: Sys>(&self, sys: &Y) {
        sys.unmap(self.entries.at, self.entries.bytes);
        sys.unmap(self.queues.at, self.queues.bytes);
        sys.close(self.fd);
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
pub(crate) mod tests;
