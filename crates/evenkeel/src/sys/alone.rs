//! What it takes to hold a model to the kernel: a thread whose descriptors nobody else opens or closes, and a look at what is
//! on its way between two sockets.

use std::io;
use std::thread;

use rustix::net::sockopt;

use super::{Fd, real, table};

/// Runs `what` on a thread of its own that has a descriptor table of its own: the numbers that come free there are the thread's
/// alone, the lowest first.
///
/// # Errors
/// The kernel's, if it starts no thread or splits no table.
pub(crate) fn alone<T: Send>(what: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let run = || -> io::Result<T> {
            table::split(&[])??;
            Ok(what())
        };
        let thread = thread::Builder::new().spawn_scoped(scope, run)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// How many bytes wait in a socket to be read. None if it is no stream.
pub(crate) fn unread(fd: Fd) -> Option<usize> {
    let waiting = rustix::io::ioctl_fionread(real::at(fd)).ok()?;
    usize::try_from(waiting).ok()
}

/// How much of what was sent, the end of the stream included, the other side has not acknowledged. 0 if it is no socket.
pub(crate) fn unacknowledged(fd: Fd) -> usize {
    let mut queued = 0;
    // SAFETY: the call writes one `int`, and looks a number up, whether it is taken or not.
    let answer = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut queued) };
    if answer == 0 { usize::try_from(queued).unwrap_or(0) } else { 0 }
}

/// Sends an acknowledgement at once that the kernel would hold back for a while. False if it is no TCP socket.
pub(crate) fn acknowledge(fd: Fd) -> bool {
    sockopt::set_tcp_quickack(real::at(fd), true).is_ok()
}
