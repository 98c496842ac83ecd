//! Which interface runs where io_uring may be had, and why it does not run where it may not.
//!
//! io_uring is the one interface that a kernel, a setting or a container's filter refuses to a program that is otherwise
//! welcome. A loop that was to run on it runs on epoll then, under the same contract, and tells why: [`Fallback`].

use std::fmt;
use std::io::{self, Write};
use std::sync::{Once, OnceLock};

use rustix::io::Errno;

use crate::backend::{Backend, Driver};
use crate::proactor::{Features, Uring, check_names, probe};
use crate::reactor::{Epoll, Readiness};
use crate::sys::ring::SetupFlags;
use crate::sys::{Real, Sys};

/// Why a loop runs on epoll although io_uring was asked for, or was [`Backend::Auto`]'s to choose.
///
/// [`Handle::fallback`](crate::Handle::fallback) has it for the life of the loop, and
/// [`Builder::on_fallback`](crate::Builder::on_fallback) is given it when the loop is made. As text it is one line that says
/// what runs, why, and what helps.
///
/// ```
/// use evenkeel::{Backend, EventLoop};
/// let events = EventLoop::builder().backend(Backend::IoUring).on_fallback(|_| {}).build()?;
/// match events.handle().fallback() {
///     None => assert_eq!(events.handle().backend(), Backend::IoUring),
///     Some(why) => println!("{why}"),
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Fallback {
    asked: Backend,
    by_choice: bool,
    refusal: Refusal,
}

/// One who is told of fallbacks, by loops of any thread.
pub(crate) type Listener = dyn Fn(&Fallback) + Send + Sync;

impl Fallback {
    /// What was asked for: [`Backend::IoUring`] by name, or [`Backend::Auto`].
    pub fn asked(&self) -> Backend {
        self.asked
    }

    /// The interface that does not run.
    pub fn wanted(&self) -> Backend {
        Backend::IoUring
    }

    /// Why not: what the kernel answered, with its number, such as `PermissionDenied`; or `Unsupported` with a text that
    /// names what is missing.
    pub fn reason(&self) -> io::Error {
        self.refusal.error()
    }

    /// What helps, for whoever looks after the machine.
    pub fn help(&self) -> &'static str {
        self.refusal.help()
    }

    /// Whether [`Backend::Auto`] has merely chosen, which [`on_fallback`](crate::Builder::on_fallback) does not hear of.
    /// False if io_uring was asked for by name, or if Auto had found it good and it was refused to this loop.
    pub fn by_choice(&self) -> bool {
        self.by_choice
    }

    /// Tells whoever is to be told; if that is nobody in particular, standard error, once in the life of the process.
    pub(crate) fn tell(&self, whom: Option<&Listener>) {
        static TOLD: Once = Once::new();
        if self.by_choice {
            return;
        }
        match whom {
            Some(whom) => whom(self),
            // That nobody can read it is no reason to fail.
            None => TOLD.call_once(|| drop(writeln!(io::stderr(), "evenkeel: {self}"))),
        }
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoll runs instead of io_uring: {}; {}", self.reason(), self.help())
    }
}

/// An error of the kernel's, or of the probe's, that can be kept and told more than once.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    kind: io::ErrorKind,
    code: Option<i32>,
    text: String,
}

impl From<io::Error> for Refusal {
    fn from(e: io::Error) -> Self {
        Refusal { kind: e.kind(), code: e.raw_os_error(), text: e.to_string() }
    }
}

impl Refusal {
    pub(crate) fn kind(&self) -> io::ErrorKind {
        self.kind
    }

    /// The kernel's number, if it is the kernel's.
    pub(crate) fn code(&self) -> Option<i32> {
        self.code
    }

    pub(crate) fn error(&self) -> io::Error {
        match self.code {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(self.kind, self.text.clone()),
        }
    }

    /// Whether it will be the answer for the life of the process. What is merely short now may be had later.
    fn lasts(&self) -> bool {
        use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
        matches!(self.kind, PermissionDenied | Unsupported | InvalidInput)
    }

    fn help(&self) -> &'static str {
        let code = self.code.map(Errno::from_raw_os_error);
        match (self.kind, code) {
            (io::ErrorKind::PermissionDenied, _) => {
                "the setting kernel.io_uring_disabled or a filter of system calls, such as a container's, forbids it: \
                 allow io_uring_setup, io_uring_enter and io_uring_register, or ask for epoll"
            }
            (io::ErrorKind::OutOfMemory, _) => {
                "memory is short or limited: raise the limit of locked memory (ulimit -l) or the container's"
            }
            (_, Some(Errno::MFILE | Errno::NFILE)) => {
                "descriptors have run out: raise their limit (ulimit -n)"
            }
            (io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput, _) => {
                "it needs Linux 5.19 or later (auto 6.1), built with io_uring, and no filter of system calls that hides it"
            }
            _ => "epoll serves as well, at some cost in system calls",
        }
    }
}

/// What makes io_uring pay and is missing here. [`Backend::Auto`] takes io_uring if nothing is.
///
/// Without deferred task work the kernel interrupts the loop for each completion; without receiving again and again each
/// message costs a request. Either way edge-triggered epoll is the cheaper one.
fn lacking(features: &Features) -> Option<&'static str> {
    if !features.setup.contains(SetupFlags::DEFER_TASKRUN) {
        return Some("this io_uring lacks deferred task work, which came with Linux 6.1");
    }
    if !features.multishot_recv {
        return Some(
            "this io_uring lacks receiving more than once by one request, which came with Linux 6.0",
        );
    }
    None
}

/// A driver for a loop, and how it came to be this one.
pub(crate) struct Started {
    pub(crate) backend: Backend,
    pub(crate) driver: Box<dyn Driver>,
    pub(crate) fallback: Option<Fallback>,
}

/// Starts io_uring, or epoll in its place. `asked` is [`Backend::IoUring`] or [`Backend::Auto`].
///
/// # Errors
/// `InvalidInput` for a variable `EVENKEEL_IO_URING_WITHOUT` that names nothing; the kernel's if it refuses epoll too.
pub(crate) fn start(asked: Backend) -> io::Result<Started> {
    start_over(Real, asked, probed()?)
}

/// The same over any kernel, of which this was found.
pub(crate) fn start_over<Y: Sys + Clone + 'static>(
    sys: Y,
    asked: Backend,
    found: Result<Features, Refusal>,
) -> io::Result<Started> {
    let mut by_choice = asked == Backend::Auto;
    let refusal = match found {
        Err(refusal) => refusal,
        Ok(features) => match lacking(&features).filter(|_| asked == Backend::Auto) {
            Some(what) => io::Error::new(io::ErrorKind::Unsupported, what).into(),
            None => match Uring::new(sys.clone(), features) {
                Ok(driver) => {
                    let backend = Backend::IoUring;
                    return Ok(Started { backend, driver: Box::new(driver), fallback: None });
                }
                Err(e) => {
                    by_choice = false;
                    e.into()
                }
            },
        },
    };
    let driver = Box::new(Readiness::<Epoll, Y>::new(sys)?);
    let fallback = Some(Fallback { asked, by_choice, refusal });
    Ok(Started { backend: Backend::Epoll, driver, fallback })
}

/// What the kernel's io_uring has, or why there is none, found out once in the life of the process. Loops that begin at
/// once may each try it; one answer is kept. A shortage is not kept, since it passes.
fn probed() -> io::Result<Result<Features, Refusal>> {
    static FOUND: OnceLock<Result<Features, Refusal>> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found.clone());
    }
    let without = std::env::var_os("EVENKEEL_IO_URING_WITHOUT").unwrap_or_default();
    let without = without.to_string_lossy();
    check_names(&without)?;
    let found = probe(&Real, &without).map_err(Refusal::from);
    if found.as_ref().err().is_none_or(Refusal::lasts) {
        return Ok(FOUND.get_or_init(|| found).clone());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refusal(errno: Errno) -> Refusal {
        io::Error::from(errno).into()
    }

    #[test]
    fn what_passes_is_not_kept() {
        for errno in [Errno::PERM, Errno::ACCESS, Errno::NOSYS, Errno::INVAL, Errno::OPNOTSUPP] {
            assert!(refusal(errno).lasts(), "{errno}");
        }
        for errno in [Errno::NOMEM, Errno::MFILE, Errno::NFILE, Errno::AGAIN, Errno::INTR] {
            assert!(!refusal(errno).lasts(), "{errno}");
        }
    }

    #[test]
    fn a_reason_is_told_as_it_came_and_in_one_line() {
        let custom = io::Error::new(io::ErrorKind::Unsupported, "too old");
        let errors =
            [Errno::PERM, Errno::NOSYS, Errno::NOMEM, Errno::MFILE, Errno::AGAIN].map(io::Error::from);
        for error in errors.into_iter().chain([custom]) {
            let (text, kind, code) = (error.to_string(), error.kind(), error.raw_os_error());
            let fallback = Fallback { asked: Backend::IoUring, by_choice: false, refusal: error.into() };
            let reason = fallback.reason();
            assert_eq!((reason.to_string(), reason.kind(), reason.raw_os_error()), (text, kind, code));
            let line = fallback.to_string();
            assert!(line.contains(&reason.to_string()) && line.ends_with(fallback.help()), "{line}");
            assert!(!line.contains('\n') && !line.contains("  "), "{line}");
        }
        assert!(refusal(Errno::MFILE).help().contains("ulimit -n"));
        assert!(refusal(Errno::NOMEM).help().contains("ulimit -l"));
    }

    #[test]
    fn auto_takes_io_uring_only_with_all_that_makes_it_pay() {
        let all = Features {
            setup: SetupFlags::DEFER_TASKRUN | SetupFlags::SINGLE_ISSUER,
            multishot_recv: true,
            ..Features::default()
        };
        assert_eq!(lacking(&all), None);
        let old = Features { setup: SetupFlags::COOP_TASKRUN, ..all };
        assert!(lacking(&old).unwrap().contains("6.1"));
        assert!(lacking(&Features { multishot_recv: false, ..all }).unwrap().contains("6.0"));
    }
}
