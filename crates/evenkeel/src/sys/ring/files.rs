//! Entries for files.
//!
//! Those with the flag that has the kernel use one of its threads at once, `ASYNC`, are for what may keep the calling
//! thread otherwise, whatever the kernel's attempt not to. Those without are tried first without blocking; of the
//! others that are not about bytes the kernel knows by itself that they may block.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxFlags};

use super::{Entry, entry_flag, op};
use crate::sys::Fd;

/// Every operation of this file, one bit for each.
pub(crate) const FILE_OPERATIONS: u128 = 1 << op::FSYNC
    | 1 << op::OPENAT
    | 1 << op::CLOSE
    | 1 << op::STATX
    | 1 << op::READ
    | 1 << op::WRITE
    | 1 << op::RENAMEAT
    | 1 << op::UNLINKAT
    | 1 << op::MKDIRAT
    | 1 << op::FTRUNCATE;

/// More bytes than that one of the kernel's threads copies, and the loop goes on meanwhile: of the largest reads that can
/// be in flight at once, copying all would take it a tenth of a second.
const COPIED_AT_ONCE: usize = 16 << 10;

fn copying(bytes: usize) -> u8 {
    if bytes > COPIED_AT_ONCE { entry_flag::ASYNC } else { 0 }
}

/// The working directory, from where relative paths start.
fn here() -> Fd {
    CWD.as_raw_fd()
}

fn address(path: &CStr) -> u64 {
    path.as_ptr() as u64
}

/// Lengths are bounded by whoever asks; no entry can say more.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// What an unsafe function here names stays where it is, and as it is, until the entry's last completion. Nobody looks
/// meanwhile at what the kernel is to write.
impl Entry {
    /// Completes at once.
    pub(crate) fn nothing() -> Self {
        Entry { opcode: op::NOP, ..Entry::default() }
    }

    /// Opens a file. The kernel's attempt not to block is an open that does not block, which for a pipe is another
    /// thing: so one of its threads opens it at once.
    ///
    /// # Safety
    /// As above.
    pub(crate) unsafe fn open(path: &CStr, flags: OFlags, mode: Mode) -> Self {
        Entry {
            opcode: op::OPENAT,
            flags: entry_flag::ASYNC,
            fd: here(),
            address: address(path),
            len: mode.as_raw_mode(),
            // What the system call adds for 64-bit programs.
            op_flags: (flags | OFlags::LARGEFILE).bits(),
            ..Entry::default()
        }
    }

    /// Closes a descriptor, which is the kernel's from then on, whatever the result. The end of a file may take long,
    /// and would be on the calling thread.
    pub(crate) fn close(fd: Fd) -> Self {
        Entry { opcode: op::CLOSE, flags: entry_flag::ASYNC, fd, ..Entry::default() }
    }

    /// Reads at an offset.
    ///
    /// # Safety
    /// As above.
    pub(crate) unsafe fn read(fd: Fd, into: &mut [MaybeUninit<u8>], at: u64) -> Self {
        Entry {
            opcode: op::READ,
            flags: copying(into.len()),
            fd,
            offset: at,
            address: into.as_mut_ptr() as u64,
            len: length(into.len()),
            ..Entry::default()
        }
    }

    /// Writes at an offset.
    ///
    /// # Safety
    /// As above.
    pub(crate) unsafe fn write(fd: Fd, from: &[u8], at: u64) -> Self {
        Entry {
            opcode: op::WRITE,
            flags: copying(from.len()),
            fd,
            offset: at,
            address: from.as_ptr() as u64,
            len: length(from.len()),
            ..Entry::default()
        }
    }

    /// Syncs a file, or its data and what is needed to find them.
    pub(crate) fn sync(fd: Fd, data_only: bool) -> Self {
        Entry { opcode: op::FSYNC, fd, op_flags: u32::from(data_only), ..Entry::default() }
    }

    /// Sets a file's length.
    pub(crate) fn set_len(fd: Fd, len: u64) -> Self {
        Entry { opcode: op::FTRUNCATE, fd, offset: len, ..Entry::default() }
    }

    /// Asks for what the file system knows: of `path`, from the working directory or from `fd`.
    ///
    /// # Safety
    /// As above.
    pub(crate) unsafe fn stat(
        fd: Option<Fd>,
        path: &CStr,
        flags: AtFlags,
        mask: StatxFlags,
        into: &mut MaybeUninit<Statx>,
    ) -> Self {
        Entry {
            opcode: op::STATX,
            fd: fd.unwrap_or_else(here),
            offset: into.as_mut_ptr() as u64,
            address: address(path),
            len: mask.bits(),
            op_flags: flags.bits(),
            ..Entry::default()
        }
    }

    /// Renames.
    ///
    /// # Safety
    /// As above.
    pub(crate) unsafe fn rename(from: &CStr, to: &CStr) -> Self {
        Entry {
            opcode: op::RENAMEAT,
            fd: here(),
            offset: address(to),
            address: address(from),
            // The directory of `to`, as the bits that it has.
            len: here() as u32,
            ..Entry::default()
        }
    }

    /// Removes a name.
    ///
    /// # Safety
    /// As above.
    pub(crate) unsafe fn unlink(path: &CStr, flags: AtFlags) -> Self {
        Entry {
            opcode: op::UNLINKAT,
            fd: here(),
            address: address(path),
            op_flags: flags.bits(),
            ..Entry::default()
        }
    }

    /// Makes a directory.
    ///
    /// # Safety
    /// As above.
    pub(crate) unsafe fn make_dir(path: &CStr, mode: Mode) -> Self {
        Entry {
            opcode: op::MKDIRAT,
            fd: here(),
            address: address(path),
            len: mode.as_raw_mode(),
            ..Entry::default()
        }
    }
}
