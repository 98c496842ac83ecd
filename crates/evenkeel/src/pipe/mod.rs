//! Pipes, anonymous and named, read and written by tasks.
//!
//! A pipe is how a process talks with its children and with programs that know no sockets. [`process`](crate::process)
//! makes those of children; this is for all others.
//!
//! ```
//! let mut events = evenkeel::EventLoop::new()?;
//! let got = events.block_on(async {
//!     let (mut sender, mut receiver) = evenkeel::pipe::pipe()?;
//!     sender.write_all(b"hello").await?;
//!     drop(sender);
//!     let mut all = Vec::new();
//!     receiver.read_to_end(&mut all).await?;
//!     Ok::<_, std::io::Error>(all)
//! })??;
//! assert_eq!(got, b"hello");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! A pipe holds 64 KiB as a rule; a writer waits while it is full. Writes of up to 4,096 bytes by one call stay whole
//! among those of other writers. Writing when nobody has the other end open is the error `BrokenPipe`, and never a
//! SIGPIPE on the thread of a loop that runs.
//!
//! With the features `futures-io` and `tokio-io`, both ends have the traits of those; see [`compat`](crate::compat).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};

mod receiver;
mod sender;

pub use receiver::Receiver;
pub use sender::Sender;

/// A pipe between two tasks of the current loop. An end can be given away, for instance to a child.
///
/// # Errors
/// The kernel's, such as when descriptors have run out.
///
/// # Panics
/// Outside of a running loop.
#[track_caller]
pub fn pipe() -> io::Result<(Sender, Receiver)> {
    let shared = crate::Handle::current().shared;
    let (read, write) = shared.driver.sys().pipe()?;
    let receiver = Receiver::of(&shared, read);
    // Each takes its number over, also when the other fails.
    Ok((Sender::of(&shared, write)?, receiver?))
}

/// Refuses what is not an end of a pipe that is open for what is wanted.
fn check(fd: BorrowedFd<'_>, refused: OFlags, end: &str) -> io::Result<()> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode);
    let access = rustix::fs::fcntl_getfl(fd)? & OFlags::ACCMODE;
    if kind == FileType::Fifo && access != refused {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("this is not the {end} end of a pipe")))
}

/// Opens a named pipe, never waiting for its other end.
fn open(path: &std::path::Path, access: OFlags, refused: OFlags, end: &str) -> io::Result<OwnedFd> {
    let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let fd = rustix::io::retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?;
    check(fd.as_fd(), refused, end)?;
    Ok(fd)
}

/// Undoes what the loop needed: whoever is given the descriptor expects one that blocks.
fn blocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    rustix::io::ioctl_fionbio(&fd, false)?;
    Ok(fd)
}
