//! Descriptor tables: whether two threads are known to have the same one, and how a thread gets one of its own.
//!
//! A thread has the table of the thread that started it, until it leaves that for a copy (`unshare(CLONE_FILES)`). The kernel
//! tells whether a thread shares the first one's (`kcmp`), if a container lets it; a user's thread may have been started by any
//! other. What is not known to be shared counts as not shared.

use std::cell::Cell;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::{DupFlags, Errno};
use rustix::net::sockopt;
use rustix::process::{Resource, getrlimit};
use rustix::thread::UnshareFlags;

use super::{Fd, wake};

/// Threads that are known to share a table have one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table(u32);

/// Nothing is known of a thread.
const UNKNOWN: u32 = 0;
/// The table that the process began with.
const ORIGINAL: u32 = 1;

thread_local! {
    static HERE: Cell<u32> = const { Cell::new(UNKNOWN) };
    /// This thread has left the table that it began with.
    static OWN: Cell<bool> = const { Cell::new(false) };
}

/// Whether any thread has left its table. Before that all threads have the original one.
static SPLIT: AtomicBool = AtomicBool::new(false);
static NEXT: AtomicU32 = AtomicU32::new(ORIGINAL + 1);

/// The table of the process's first thread, which other threads can be compared with; [`UNKNOWN`] while it changes.
static FIRST: AtomicU32 = AtomicU32::new(ORIGINAL);

/// The calling thread's table. Async-signal-safe.
pub(crate) fn here() -> Table {
    if HERE.get() == UNKNOWN {
        // A thread of another table was started after a split, and would see that there was one.
        let known = if SPLIT.load(Ordering::Acquire) { that_of_first() } else { Some(ORIGINAL) };
        HERE.set(known.unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed)));
    }
    Table(HERE.get())
}

/// The table of the process's first thread, if the kernel says that this thread shares it. Where it does not answer, as in some
/// containers, nothing is known.
fn that_of_first() -> Option<u32> {
    let first = FIRST.load(Ordering::SeqCst);
    let shared = is_shared_with(rustix::process::getpid().as_raw_pid());
    // Unchanged: what was compared was the table of this name.
    (shared && first != UNKNOWN && first == FIRST.load(Ordering::SeqCst)).then_some(first)
}

/// Whether a thread of this process has the calling thread's table, as far as the kernel tells (`kcmp`).
fn is_shared_with(thread: i32) -> bool {
    const FILES: i32 = 2;
    let this = rustix::thread::gettid().as_raw_pid();
    // SAFETY: plain numbers. `errno`, which the call may change, belongs to the code that a signal's handler may have interrupted.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let compared = libc::syscall(libc::SYS_kcmp, this, thread, FILES, 0, 0);
        *errno = before;
        compared == 0
    }
}

/// Whether numbers of `table` are known to mean the same on the calling thread. Async-signal-safe.
#[inline]
pub(crate) fn is_here(table: Table) -> bool {
    !SPLIT.load(Ordering::Acquire) || here() == table
}

/// The calling thread was started by one that has `table`.
pub(crate) fn inherit(table: Table) {
    HERE.set(table.0);
}

/// Whether the calling thread has left the table that it began with.
pub(crate) fn is_own() -> bool {
    OWN.get()
}

/// A descriptor that can be on any thread, and is used and closed on those of its table only.
#[derive(Debug)]
pub(crate) struct Bound {
    /// None once it was taken.
    fd: Option<OwnedFd>,
    table: Table,
}

/// Numbers that were dropped on threads of other tables, until a thread of theirs comes by and closes them.
static ABANDONED: Mutex<Vec<(Table, Fd)>> = Mutex::new(Vec::new());
/// Whether there are any.
static ANY_ABANDONED: AtomicBool = AtomicBool::new(false);

impl Bound {
    /// On a thread of its table.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Bound { fd: Some(fd), table: here() }
    }

    /// The descriptor, on a thread of its table.
    pub(crate) fn get(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().filter(|_| is_here(self.table)).map(AsFd::as_fd)
    }

    /// The descriptor, to be owned by a thread of its table. On others it stays.
    pub(crate) fn take(&mut self) -> Option<OwnedFd> {
        if is_here(self.table) { self.fd.take() } else { None }
    }

    /// Whether this is no thread of its table.
    pub(crate) fn is_abroad(&self) -> bool {
        !is_here(self.table)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take().filter(|_| self.is_abroad()) {
            // Taken, so that it is not closed here.
            let mut all = ABANDONED.lock().unwrap_or_else(PoisonError::into_inner);
            all.push((self.table, fd.into_raw_fd()));
            ANY_ABANDONED.store(true, Ordering::Release);
        }
    }
}

/// Closes what was dropped elsewhere and is of the calling thread's table. Connections among it are reset.
pub(crate) fn sweep() {
    if !ANY_ABANDONED.load(Ordering::Acquire) {
        return;
    }
    let here = HERE.get();
    let mut all = ABANDONED.lock().unwrap_or_else(PoisonError::into_inner);
    let ours: Vec<_> = all.extract_if(.., |(table, _)| table.0 == here).collect();
    ANY_ABANDONED.store(!all.is_empty(), Ordering::Release);
    drop(all);
    for (_, fd) in ours {
        let fd = own(fd);
        let _ = sockopt::set_socket_linger(&fd, Some(Duration::ZERO));
    }
}

/// Gives the calling thread a table of its own, unless it has one. Of what the old table has, the new one has 0, 1, 2 and `keep`,
/// with the same numbers. The other numbers stay taken, by descriptors that refuse everything, so that whoever
/// still uses one of them fails, and does not meet what the loop has opened since.
///
/// # Errors
/// `Ok(Err)`: it was refused, and nothing has changed. `Err`: the table is split, but copies of what others have open could not be
/// given up.
pub(crate) fn split(keep: &[Fd]) -> io::Result<io::Result<()>> {
    if is_own() {
        return Ok(Ok(()));
    }
    if let Err(e) = prepare() {
        return Ok(Err(e));
    }
    let is_first = rustix::thread::gettid() == rustix::process::getpid();
    let old = FIRST.load(Ordering::SeqCst);
    if is_first {
        FIRST.store(UNKNOWN, Ordering::SeqCst);
    }
    // SAFETY: whoever asked for it (`Builder::private_descriptors` is unsafe) has promised that no descriptor crosses between
    // this thread and those of the old table. What this crate has open belongs to loops, of which this thread has none.
    if let Err(e) = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FILES) } {
        if is_first {
            FIRST.store(old, Ordering::SeqCst);
        }
        return Ok(Err(e.into()));
    }
    // Until the copies are given up below, the old numbers are right here too.
    HERE.set(NEXT.fetch_add(1, Ordering::Relaxed));
    OWN.set(true);
    SPLIT.store(true, Ordering::Release);
    if is_first {
        FIRST.store(HERE.get(), Ordering::SeqCst);
    }
    give_up(keep)?;
    Ok(Ok(()))
}

/// Sees to it that threads of other tables will be able to wake this one.
fn prepare() -> io::Result<()> {
    if wake::has_loop() {
        let what = "a loop that lives on this thread has its descriptors in the shared table";
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, what));
    }
    wake::prepare()
}

/// Replaces the copies of what others have open.
fn give_up(keep: &[Fd]) -> io::Result<()> {
    let given_up = |fd: &Fd| *fd > 2 && !keep.contains(fd);
    let copies: Vec<_> = open_numbers().into_iter().filter(given_up).collect();
    // In a full table the first copy's number is taken again at once, and stays so.
    let full = matches!(inert(), Err(Errno::MFILE)) && !copies.is_empty();
    if full {
        drop(own(copies[0]));
    }
    let inert = ManuallyDrop::new(inert()?);
    for fd in copies {
        // What was open only while the table was being read is not any more.
        if fd == inert.as_raw_fd() || !is_open(fd) {
            continue;
        }
        match rustix::io::dup3(&*inert, &mut ManuallyDrop::new(own(fd)), DupFlags::CLOEXEC) {
            // The limit was lowered below it, so nobody else gets this number.
            Err(Errno::BADF) => drop(own(fd)),
            other => other?,
        }
    }
    if !full {
        drop(ManuallyDrop::into_inner(inert));
    }
    Ok(())
}

/// A descriptor that nothing can be done with: every operation on it fails with EBADF.
fn inert() -> Result<OwnedFd, Errno> {
    rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

fn own(fd: Fd) -> OwnedFd {
    // SAFETY: a number of the calling thread's table that has no owner: a copy of what belongs to somebody in another table, made
    // with the table, which no other thread has as yet; or what its owner has abandoned.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn is_open(fd: Fd) -> bool {
    // SAFETY: the call looks a number up, whether it is taken or not; it is never -1.
    rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(fd) }).is_ok()
}

/// The numbers that are taken in the calling thread's table.
fn open_numbers() -> Vec<Fd> {
    let listed = std::fs::read_dir("/proc/thread-self/fd").map(|entries| {
        let names = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        names.collect()
    });
    listed.unwrap_or_else(|_| {
        // No /proc, or a full table: every number is tried.
        let most = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20).min(1 << 20);
        (0..most as Fd).filter(|fd| is_open(*fd)).collect()
    })
}
