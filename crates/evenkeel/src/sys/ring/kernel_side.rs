//! The other side of the queues: how a model of the kernel reads what was asked, and says what was done.

use super::{Done, Entry, done_flag, entry_flag};
use crate::sys::Fd;

/// Flags of a completion, as the kernel sets them.
pub(crate) mod seen {
    use super::done_flag;
    pub(crate) const BUFFER: u32 = done_flag::BUFFER;
    pub(crate) const MORE: u32 = done_flag::MORE;
    pub(crate) const BUFFER_MORE: u32 = done_flag::BUFFER_MORE;
    /// There was more to be read when this was received.
    pub(crate) const NONEMPTY: u32 = 1 << 2;
}

/// Bits of the submission queue's flags.
pub(crate) const SQ_OVERFLOWED: u32 = super::OVERFLOWED;
pub(crate) const SQ_TASK_WORK: u32 = super::TASK_WORK;

/// What a cancellation is to look for, and whether for all of it.
pub(crate) mod cancel {
    pub(crate) const ALL: u32 = 1 << 0;
    pub(crate) const BY_FD: u32 = 1 << 1;
}

impl Entry {
    pub(crate) fn opcode(&self) -> u8 {
        self.opcode
    }

    pub(crate) fn fd(&self) -> Fd {
        self.fd
    }

    pub(crate) fn skips_success(&self) -> bool {
        self.flags & entry_flag::SKIP_SUCCESS != 0
    }

    pub(crate) fn selects_buffer(&self) -> bool {
        self.flags & entry_flag::BUFFER_SELECT != 0
    }

    /// Where sockets have their flags.
    pub(crate) fn ioprio(&self) -> u16 {
        self.ioprio
    }

    /// Of a poll, whether it goes on.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn op_flags(&self) -> u32 {
        self.op_flags
    }

    /// What a cancellation looks for.
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// The events that a poll asks for.
    pub(crate) fn events(&self) -> u32 {
        if cfg!(target_endian = "big") { self.op_flags.rotate_left(16) } else { self.op_flags }
    }

    /// The bytes that a send names, while the entry is being taken.
    pub(crate) fn bytes(&self) -> &[u8] {
        assert_eq!(self.opcode, super::op::SEND);
        let at = std::ptr::with_exposed_provenance::<u8>(self.address as usize);
        // SAFETY: entries with this operation are made by `send` alone, whose caller has promised that the bytes stay as they are
        // until the entry has been taken.
        unsafe { std::slice::from_raw_parts(at, self.len as usize) }
    }
}

impl Done {
    /// A completion.
    pub(crate) fn new(data: u64, result: i32, flags: u32) -> Self {
        Done { data, result, flags }
    }

    /// Of a receive: more waits to be read.
    pub(crate) fn nonempty(&self) -> bool {
        self.flags & seen::NONEMPTY != 0
    }
}
