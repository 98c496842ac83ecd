//! Sockets that a service manager has opened: socket activation, by the environment variables of systemd.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::net::Addr;
use crate::sys::{Real, Sys};

/// The first descriptor that is passed; those before it are the standard streams.
const FIRST: RawFd = 3;
/// More descriptors than a process can have, by the kernel's own default for the most of them (`fs.nr_open`).
const MOST: RawFd = 1 << 20;

/// Whether they have been taken. It is the process's, as the descriptors and the environment are: two owners of one number
/// would close each other's, and the environment cannot be changed to say so, since other threads may read it.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// A listening socket that this process was started with. Becomes an [`OwnedFd`] by `into`.
#[derive(Debug)]
pub struct Inherited {
    name: Option<String>,
    addr: Addr,
    fd: OwnedFd,
}

impl Inherited {
    /// The name that the service manager gave it, by `FileDescriptorName=`.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Where it listens.
    pub fn addr(&self) -> &Addr {
        &self.addr
    }
}

impl From<Inherited> for OwnedFd {
    fn from(socket: Inherited) -> OwnedFd {
        socket.fd
    }
}

impl AsFd for Inherited {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A descriptor that a service manager has passed and that is not to be accepted from. The error inside of an
/// [`io::Error`].
#[derive(Debug)]
pub struct NotListening {
    number: RawFd,
    name: Option<String>,
    error: io::Error,
}

impl NotListening {
    /// The descriptor's number.
    pub fn number(&self) -> RawFd {
        self.number
    }

    /// Its name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

impl fmt::Display for NotListening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "descriptor {}", self.number)?;
        if let Some(name) = &self.name {
            write!(f, " ({name})")?;
        }
        write!(f, " of LISTEN_FDS cannot be accepted from: {}", self.error)
    }
}

impl std::error::Error for NotListening {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Takes the listening sockets that a service manager has opened for this process: `LISTEN_FDS` of systemd's socket
/// activation, with the names of `LISTEN_FDNAMES`.
///
/// They are given out once; a second call returns none. They are close-on-exec from then on. Those that were meant for
/// another process, by `LISTEN_PID`, are left alone: a program that was started by an activated one finds the variables, but
/// not the sockets. The environment stays as it is.
///
/// Call it early, before anything opens descriptors that programs which this one starts are to have.
///
/// # Errors
/// `InvalidData` when the variables make no sense. `InvalidInput`, with a [`NotListening`] inside that names the number,
/// when a descriptor is not a listening stream socket; all are closed then.
pub fn listen_fds() -> io::Result<Vec<Inherited>> {
    let read = |name| std::env::var_os(name).and_then(|value| value.into_string().ok());
    let (pid, fds, names) = (read("LISTEN_PID"), read("LISTEN_FDS"), read("LISTEN_FDNAMES"));
    let Some(passed) = passed(std::process::id(), pid.as_deref(), fds.as_deref(), names.as_deref())? else {
        return Ok(Vec::new());
    };
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    // All are taken before any is judged, so that none stays open if one is refused.
    let taken: Vec<_> = passed
        .into_iter()
        .map(|(number, name)| (number, name, crate::sys::inherit::take(number, None)))
        .collect();
    taken.into_iter().map(|(number, name, fd)| check(number, name, fd)).collect()
}

fn check(number: RawFd, name: Option<String>, fd: io::Result<OwnedFd>) -> io::Result<Inherited> {
    let checked = fd.and_then(|fd| Ok((Real.listening(fd.as_fd())?, fd)));
    match checked {
        Ok((listening, fd)) => {
            debug_assert_eq!(fd.as_raw_fd(), number);
            Ok(Inherited { name, addr: listening.addr, fd })
        }
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidInput, NotListening { number, name, error })),
    }
}

/// The numbers and names that the variables tell of. None if they tell of nothing for this process.
pub(super) type Passed = Vec<(RawFd, Option<String>)>;

pub(super) fn passed(
    this: u32,
    pid: Option<&str>,
    fds: Option<&str>,
    names: Option<&str>,
) -> io::Result<Option<Passed>> {
    let (Some(pid), Some(fds)) = (pid, fds) else { return Ok(None) };
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let pid: u32 = decimal(pid).ok_or_else(|| invalid(format!("LISTEN_PID is `{pid}`, no process")))?;
    if pid != this {
        return Ok(None);
    }
    let count: u32 = decimal(fds).ok_or_else(|| invalid(format!("LISTEN_FDS is `{fds}`, no number")))?;
    let count = RawFd::try_from(count).ok().filter(|count| *count < MOST);
    let Some(count) = count else {
        return Err(invalid(format!("LISTEN_FDS is {fds}, more than a process can have")));
    };
    let mut names = names.filter(|names| !names.is_empty()).map(|names| names.split(':'));
    let mut name = || names.as_mut().and_then(Iterator::next).map(str::to_owned);
    Ok(Some((FIRST..FIRST + count).map(|number| (number, name())).collect()))
}

/// A number of digits only: what service managers write. Signs, which `parse` takes, stand for a mistake.
fn decimal(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::passed;

    #[test]
    fn variables_for_this_process_tell_numbers_and_names() {
        let all = passed(7, Some("7"), Some("3"), Some("web:admin")).unwrap().unwrap();
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(all, [(3, name("web")), (4, name("admin")), (5, None)]);
        assert_eq!(passed(7, Some("7"), Some("1"), None).unwrap().unwrap(), [(3, None)]);
        assert_eq!(passed(7, Some("7"), Some("0"), None).unwrap().unwrap(), []);
    }

    #[test]
    fn variables_for_another_process_tell_nothing() {
        assert_eq!(passed(7, Some("8"), Some("3"), None).unwrap(), None);
        assert_eq!(passed(7, None, Some("3"), None).unwrap(), None);
        assert_eq!(passed(7, Some("7"), None, None).unwrap(), None);
    }

    #[test]
    fn variables_that_make_no_sense_are_an_error() {
        for pid in ["x", "", "+7", " 7", "4294967296"] {
            assert!(passed(7, Some(pid), Some("1"), None).is_err(), "{pid}");
        }
        for fds in ["x", "", "-1", "+1", "-0", "1048576", "2147483647", "2147483648", "4294967296"] {
            assert!(passed(7, Some("7"), Some(fds), None).is_err(), "{fds}");
        }
    }
}
