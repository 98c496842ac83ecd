//! How the ring performs what is asked of files.
//!
//! An operation that was taken is the kernel's until it completes: all that the entry names lies in [`Lent`], which stays
//! where it is and which nobody touches, whoever has stopped to wait meanwhile (I9). The result is handed over to who
//! waits; if nobody does, dropping it gives back what there is to be given back, such as an open descriptor (I10). What
//! the kernel has not ended when the loop ends keeps its memory for ever (I16).
//!
//! Reading and writing a little are tried at once, without blocking. All else, and what would have blocked, a few threads of the
//! kernel do, as many as the pool of other backends has.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Statx};
use rustix::io::Errno;

use super::uring::{Op, Uring};
use crate::core::Shared;
use crate::fs::{FileDone, FileOp, FileWaiter, Metadata, OpenFile, Output, STAT_MASK};
use crate::sys::ring::{Entry, op};
use crate::sys::{Fd, Sys};

/// Operations in flight by their place, which their entries carry. The loop's admission bounds them.
#[derive(Default)]
pub(super) struct Lents {
    places: Vec<Option<InFlight>>,
    free: Vec<u32>,
}

struct InFlight {
    lent: Box<Lent>,
    waiter: FileWaiter,
    /// All but a close is: whether that had closed could not be told.
    cancellable: bool,
}

/// All that an entry names.
struct Lent {
    what: What,
    /// What `statx` writes.
    stat: MaybeUninit<Statx>,
}

enum What {
    Op(FileOp),
    /// A descriptor that is the kernel's to close.
    Close(Fd),
    /// Others still hold what was to be closed.
    Nothing,
}

impl Lents {
    pub(super) fn is_empty(&self) -> bool {
        self.places.len() == self.free.len()
    }

    /// Keeps an operation, and makes the entry for it.
    fn lend(&mut self, in_flight: InFlight) -> Entry {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            (self.places.len() - 1) as u32
        });
        let in_flight = self.places[place as usize].insert(in_flight);
        // SAFETY: it is boxed, nothing here touches it before `take`, which is called when it has completed, and dropping
        // the list leaks it.
        let entry = unsafe { in_flight.lent.entry() };
        entry.with(Op::File.data(place))
    }

    /// The operation at a place has completed.
    fn take(&mut self, place: u32) -> Option<InFlight> {
        let in_flight = self.places.get_mut(place as usize)?.take();
        if in_flight.is_some() {
            self.free.push(place);
        }
        in_flight
    }

    /// What the entries of those that can be cancelled carry.
    fn cancellable(&self) -> Vec<u64> {
        let all = (0..).zip(&self.places);
        let cancellable = all.filter(|(_, place)| place.as_ref().is_some_and(|it| it.cancellable));
        cancellable.map(|(place, _)| Op::File.data(place)).collect()
    }
}

impl Drop for Lents {
    fn drop(&mut self) {
        for InFlight { lent, waiter, .. } in self.places.drain(..).flatten() {
            // It is still lent to the kernel; who waits hears that the loop has ended.
            Box::leak(lent);
            drop(waiter);
        }
    }
}

impl Lent {
    /// The entry that asks the kernel for it.
    ///
    /// # Safety
    /// `self` stays where it is, and nobody touches it, until the entry has completed.
    unsafe fn entry(&mut self) -> Entry {
        let Lent { what, stat } = self;
        let asked = match what {
            What::Close(fd) => return Entry::close(*fd),
            What::Nothing => return Entry::nothing(),
            What::Op(asked) => asked,
        };
        // SAFETY: all that is named lies in `self`, or is memory that it owns, and is static but for that; the caller
        // sees to the rest.
        unsafe {
            match asked {
                FileOp::Open { path, flags, mode } => Entry::open(path, *flags, *mode),
                FileOp::Read { fd, into, most, at } => {
                    let spare = into.spare_capacity_mut();
                    let most = spare.len().min(*most);
                    Entry::read(number(fd), &mut spare[..most], *at)
                }
                FileOp::Write { fd, from, at } => Entry::write(number(fd), from, *at),
                FileOp::Sync { fd, data_only } => Entry::sync(number(fd), *data_only),
                FileOp::SetLen { fd, len } => Entry::set_len(number(fd), *len),
                FileOp::Stat { path, follow } => {
                    let flags = if *follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
                    Entry::stat(None, path, flags, STAT_MASK, stat)
                }
                FileOp::StatFd { fd } => {
                    Entry::stat(Some(number(fd)), c"", AtFlags::EMPTY_PATH, STAT_MASK, stat)
                }
                FileOp::Rename { from, to } => Entry::rename(from, to),
                FileOp::Unlink { path, dir } => {
                    Entry::unlink(path, if *dir { AtFlags::REMOVEDIR } else { AtFlags::empty() })
                }
                FileOp::MakeDir { path, mode } => Entry::make_dir(path, *mode),
                FileOp::Close { .. } => unreachable!("closing was taken apart before"),
                FileOp::Call(_) => unreachable!("the ring takes none"),
            }
        }
    }

    /// What came of it, after it has completed with this result, which is no error.
    fn output<Y: Sys>(self, sys: &Y, result: i32) -> FileDone {
        let n = result as usize;
        Ok(match self.what {
            What::Op(FileOp::Open { .. }) => Output::Opened(sys.export(result)?),
            What::Op(FileOp::Read { mut into, .. }) => {
                let len = into.len() + n;
                assert!(len <= into.capacity(), "the kernel read more than was asked for");
                // SAFETY: the kernel has written `n` bytes behind those that there were.
                unsafe { into.set_len(len) };
                Output::Read(into)
            }
            What::Op(FileOp::Write { .. }) => Output::Written(n),
            What::Op(FileOp::Stat { .. } | FileOp::StatFd { .. }) => {
                // SAFETY: the kernel has written all of it, since the operation succeeded.
                Output::Stat(Box::new(Metadata::new(unsafe { self.stat.assume_init_ref() })))
            }
            What::Op(_) | What::Close(_) | What::Nothing => Output::Done,
        })
    }
}

fn number(file: &OpenFile) -> Fd {
    file.as_fd().as_raw_fd()
}

impl<Y: Sys> Uring<Y> {
    /// Takes a file operation, if the ring has one for it.
    pub(super) fn take_file_op(&self, asked: FileOp, waiter: FileWaiter) -> Result<(), (FileOp, FileWaiter)> {
        let opcode = match &asked {
            FileOp::Open { .. } => op::OPENAT,
            FileOp::Close { .. } => op::CLOSE,
            // Of what has no positions the ring would read what comes next, and wait for it.
            FileOp::Read { fd, .. } | FileOp::Write { fd, .. } if !fd.is_positioned() => {
                return Err((asked, waiter));
            }
            FileOp::Call(_) => return Err((asked, waiter)),
            FileOp::Read { .. } => op::READ,
            FileOp::Write { .. } => op::WRITE,
            FileOp::Sync { .. } => op::FSYNC,
            FileOp::SetLen { .. } => op::FTRUNCATE,
            FileOp::Stat { .. } | FileOp::StatFd { .. } => op::STATX,
            FileOp::Rename { .. } => op::RENAMEAT,
            FileOp::Unlink { .. } => op::UNLINKAT,
            FileOp::MakeDir { .. } => op::MKDIRAT,
        };
        if self.features.files & 1 << opcode == 0 {
            return Err((asked, waiter));
        }
        let what = match asked {
            FileOp::Close { fd } => match Arc::into_inner(fd) {
                Some(file) => What::Close(OwnedFd::from(file).into_raw_fd()),
                None => What::Nothing,
            },
            other => What::Op(other),
        };
        self.ask(Lent { what, stat: MaybeUninit::uninit() }, waiter);
        Ok(())
    }

    fn ask(&self, lent: Lent, waiter: FileWaiter) {
        let cancellable = matches!(lent.what, What::Op(_));
        let in_flight = InFlight { lent: Box::new(lent), waiter, cancellable };
        let entry = self.files.borrow_mut().lend(in_flight);
        self.push(&entry);
    }

    /// An operation has completed: its result goes to who waits. Nothing may be borrowed.
    pub(super) fn file_done(&self, lp: &Shared, place: u32, result: i32) {
        let Some(in_flight) = self.files.borrow_mut().take(place) else { return };
        let InFlight { lent, waiter, .. } = in_flight;
        let refused = REFUSALS.contains(&-result);
        let interrupted = is_interrupted(-result);
        match *lent {
            // Closed is closed, even if it was interrupted; only what was to be written before is in doubt.
            Lent { what: What::Close(_) | What::Nothing, .. } => waiter.complete(lp, Ok(Output::Done)),
            lent if result >= 0 => waiter.complete(lp, lent.output(&self.sys, result)),
            // That the loop has ended is why it did not happen, and what its waiter hears.
            _ if lp.ended.get() && (refused || interrupted) => drop(waiter),
            lent if interrupted => self.ask(lent, waiter),
            Lent { what: What::Op(asked), .. } if refused => lp.files.hand_back(lp, asked, waiter),
            _ => waiter.complete(lp, Err(io::Error::from_raw_os_error(-result))),
        }
    }

    /// The loop has ended: whatever can be cancelled is.
    pub(super) fn cancel_files(&self) {
        let all = self.files.borrow().cancellable();
        for data in all {
            self.push(&Entry::cancel(data).with(Op::Cancel.data(0)));
        }
    }
}

/// Errors after which an operation may yet be done in another way: it would have had to wait, on a file that is not to
/// wait and cannot tell when to go on; or something else was cancelled, and it along with that.
const REFUSALS: [i32; 2] = [Errno::AGAIN.raw_os_error(), Errno::CANCELED.raw_os_error()];

/// A signal has interrupted an operation, which has had no effect. The numbers above 511 are the kernel's own for that.
fn is_interrupted(error: i32) -> bool {
    const RESTARTS: [i32; 4] = [512, 513, 514, 516];
    error == Errno::INTR.raw_os_error() || RESTARTS.contains(&error)
}

#[cfg(test)]
mod tests;
