//! Which way leads to a standard stream without changing its mode.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::retry_on_intr;

use super::Which;
use super::threads::Threads;
use crate::core::Shared;
use crate::core::async_io::Half;
use crate::core::watch::{Interest, Watched};
use crate::handle::Handle;
use crate::sys::Fd;

/// How the bytes travel.
pub(super) enum Way {
    /// Opened anew, and non-blocking.
    Own(Watched),
    /// A socket in the mode that it has, for calls that never wait.
    Socket(Watched),
    /// By calls on other threads.
    Threads(Threads),
}

impl Way {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Way::Own(_) => "opened anew",
            Way::Socket(_) => "socket",
            Way::Threads(_) => "threads",
        }
    }
}

impl Which {
    /// A number of the loop's own for the same open file.
    fn duplicate(self) -> io::Result<OwnedFd> {
        let duplicate = |fd| rustix::io::fcntl_dupfd_cloexec(fd, 3);
        Ok(match self {
            Which::In => duplicate(io::stdin().as_fd()),
            Which::Out => duplicate(io::stdout().as_fd()),
            Which::Err => duplicate(io::stderr().as_fd()),
        }?)
    }

    pub(super) fn half(self) -> Half {
        if self == Which::In { Half::Read } else { Half::Write }
    }

    /// Opens the file behind it once more. The path is the thread's, whose table of descriptors may be its own.
    fn reopen(self) -> io::Result<OwnedFd> {
        let (path, access) = match self {
            Which::In => ("/proc/thread-self/fd/0", OFlags::RDONLY),
            Which::Out => ("/proc/thread-self/fd/1", OFlags::WRONLY),
            Which::Err => ("/proc/thread-self/fd/2", OFlags::WRONLY),
        };
        let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        Ok(retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?)
    }
}

pub(super) fn open(which: Which) -> io::Result<Way> {
    let shared = Handle::current().shared;
    let sys = shared.driver.sys();
    let as_it_is = which.duplicate()?;
    match FileType::from_raw_mode(rustix::fs::fstat(&as_it_is)?.st_mode) {
        FileType::Socket => Ok(Way::Socket(watch(&shared, which, sys.duplicate(as_it_is.as_fd())?, true)?)),
        FileType::Fifo | FileType::CharacterDevice if is_pollable(&shared, &as_it_is)? => {
            // It fails where there is no /proc, and for what another user opened.
            if let Ok(own) = which.reopen() {
                return Ok(Way::Own(watch(&shared, which, sys.import(own)?, true)?));
            }
            let watched = watch(&shared, which, sys.duplicate(as_it_is.as_fd())?, false)?;
            Ok(Way::Threads(Threads::new(&shared, which, as_it_is, Some(watched))))
        }
        _ => Ok(Way::Threads(Threads::new(&shared, which, as_it_is, None))),
    }
}

fn is_pollable(shared: &Rc<Shared>, fd: &OwnedFd) -> io::Result<bool> {
    let sys = shared.driver.sys();
    let number = sys.duplicate(fd.as_fd())?;
    let answer = sys.is_pollable(number);
    sys.close(number);
    answer
}

fn watch(shared: &Rc<Shared>, which: Which, number: Fd, hopeful: bool) -> io::Result<Watched> {
    let interest = if which == Which::In { Interest::READABLE } else { Interest::WRITABLE };
    Watched::new(shared.clone(), number, interest, hopeful)
}
