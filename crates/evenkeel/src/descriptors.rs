//! Whose descriptor table a loop uses: its thread's share of the process's, or one of its own.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Once};

use rustix::io::Errno;

use crate::choice::Refusal;
use crate::sys::{Fd, table};

/// The descriptor table of a loop's thread: [`Handle::descriptors`](crate::Handle::descriptors).
///
/// ```
/// use evenkeel::{Descriptors, EventLoop};
/// let events = EventLoop::new()?;
/// assert!(matches!(events.handle().descriptors(), Descriptors::Shared));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Descriptors {
    /// The loop's thread shares its table with the thread that started it.
    Shared,
    /// The loop's thread, and whatever threads it starts, have a table of their own.
    Private,
    /// A table of its own was asked for and refused: the thread shares one.
    Refused(DescriptorsRefused),
}

/// Why a loop has no descriptor table of its own although it was asked for. As text it is one line that says what happens,
/// why, and what helps.
#[derive(Clone, Debug)]
pub struct DescriptorsRefused {
    refusal: Refusal,
}

/// One who is told of refusals, by loops of any thread.
type Listener = dyn Fn(&DescriptorsRefused) + Send + Sync;

impl DescriptorsRefused {
    /// What the kernel answered, with its number, such as `PermissionDenied`; or `ResourceBusy` if the thread has a loop already.
    pub fn reason(&self) -> io::Error {
        self.refusal.error()
    }

    /// What helps, for whoever looks after the machine.
    pub fn help(&self) -> &'static str {
        match (self.refusal.kind(), self.refusal.code().map(Errno::from_raw_os_error)) {
            (io::ErrorKind::PermissionDenied, _) | (_, Some(Errno::NOSYS)) => {
                "a filter of system calls, such as a container's, forbids it: allow unshare with CLONE_FILES, or raise the limit \
                 of descriptors (ulimit -n) that all loops share"
            }
            (io::ErrorKind::ResourceBusy, _) => "ask for it for the first loop of a thread",
            _ => "raise the limit of descriptors (ulimit -n) that all loops share",
        }
    }

    fn tell(&self, whom: Option<&Listener>) {
        static TOLD: Once = Once::new();
        match whom {
            Some(whom) => whom(self),
            // That nobody can read it is no reason to fail.
            None => TOLD.call_once(|| drop(writeln!(io::stderr(), "evenkeel: {self}"))),
        }
    }
}

impl fmt::Display for DescriptorsRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "loops share one descriptor table, since one of their own was refused: {}; {}",
            self.reason(),
            self.help()
        )
    }
}

/// What was asked for.
#[derive(Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) private: bool,
    pub(crate) keep: Vec<Fd>,
    on_refused: Option<Arc<Listener>>,
}

impl Wanted {
    pub(crate) fn keep(&mut self, fd: impl AsFd) {
        self.keep.push(fd.as_fd().as_raw_fd());
    }

    pub(crate) fn on_refused(&mut self, tell: impl Fn(&DescriptorsRefused) + Send + Sync + 'static) {
        self.on_refused = Some(Arc::new(tell));
    }

    /// Gives the calling thread its table, if that is asked for, and tells which one it has.
    ///
    /// # Errors
    /// The kernel's, when it will not close the copies of what others have open.
    pub(crate) fn begin(&self) -> io::Result<Descriptors> {
        if self.private
            && let Err(error) = table::split(&self.keep)?
        {
            let refused = DescriptorsRefused { refusal: error.into() };
            refused.tell(self.on_refused.as_deref());
            return Ok(Descriptors::Refused(refused));
        }
        Ok(if table::is_own() { Descriptors::Private } else { Descriptors::Shared })
    }
}
