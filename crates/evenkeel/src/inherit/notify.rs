//! Telling a service manager how this process is: readiness, reloading, stopping, and that it is not stuck.
//!
//! A service manager that knows when a server serves can start what depends on it, and restart it without a gap; one that
//! hears nothing guesses by the process's existence. This is systemd's protocol: datagrams to the socket that `NOTIFY_SOCKET`
//! names. Without that variable nothing happens, so a program can always call this.
//!
//! ```
//! use evenkeel::inherit::notify::{State, notify};
//!
//! // After all listeners are open:
//! let told = notify(&[State::Ready, State::Status("serving 3 applications")])?;
//! assert!(!told, "nobody has asked");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! A process that has handed over to a successor tells the manager so by [`State::MainPid`], with the successor's number, before
//! it ends; otherwise the manager takes its end for the end of the service. It is the old process that tells, because managers
//! mostly listen to a service's main process only (`NotifyAccess=main`), which the new one is only then.

use std::io;
use std::time::Duration;

use crate::sys::inherit::{monotonic_micros, send_datagram};

/// What a service manager can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State<'a> {
    /// It serves. Also said when reloading is over.
    Ready,
    /// It reads its configuration anew, from now on and until [`Ready`](State::Ready).
    Reloading,
    /// It has begun to end.
    Stopping,
    /// One line for people.
    Status(&'a str),
    /// The service's main process is this one from now on.
    MainPid(u32),
    /// It is not stuck: see [`watchdog`].
    Watchdog,
    /// Starting, reloading or ending takes so much longer than the manager thinks, from now on.
    ExtendTimeout(Duration),
}

/// Tells a service manager all of `states` at once. False when none has asked to be told.
///
/// Does not block: a manager whose queue is full is not told.
///
/// # Errors
/// The kernel's; `WouldBlock` when the manager does not read; `InvalidInput` for a status of several lines, which would be
/// taken for something else; `Unsupported` for an address that is no Unix socket's.
pub fn notify(states: &[State<'_>]) -> io::Result<bool> {
    let Some(to) = std::env::var_os("NOTIFY_SOCKET").filter(|to| !to.is_empty()) else { return Ok(false) };
    send_datagram(&to, message(states, monotonic_micros())?.as_bytes())?;
    Ok(true)
}

fn message(states: &[State<'_>], now: u64) -> io::Result<String> {
    let mut lines = Vec::new();
    for state in states {
        lines.push(match state {
            State::Ready => "READY=1".to_owned(),
            State::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={now}"),
            State::Stopping => "STOPPING=1".to_owned(),
            State::Status(line) if line.contains(['\n', '\0']) => {
                let what = "a status for the service manager is one line";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
            State::Status(line) => format!("STATUS={line}"),
            State::MainPid(pid) => format!("MAINPID={pid}"),
            State::Watchdog => "WATCHDOG=1".to_owned(),
            State::ExtendTimeout(by) => format!("EXTEND_TIMEOUT_USEC={}", by.as_micros()),
        });
    }
    Ok(lines.join("\n"))
}

/// Within which time the service manager wants to hear [`State::Watchdog`] again and again, or it takes this process for
/// stuck and ends it. None if it does not. Telling it twice in that time, from a timer of the loop, proves that the loop turns.
pub fn watchdog() -> Option<Duration> {
    let read = |name| std::env::var(name).ok();
    interval(std::process::id(), read("WATCHDOG_PID").as_deref(), read("WATCHDOG_USEC").as_deref())
}

fn interval(this: u32, pid: Option<&str>, micros: Option<&str>) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(this)) {
        return None;
    }
    let micros: u64 = micros?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{State, interval, message};
    use std::time::Duration;

    #[test]
    fn states_are_lines_of_one_message() {
        let all = [
            State::Ready,
            State::Reloading,
            State::Stopping,
            State::Status("a = b"),
            State::MainPid(7),
            State::Watchdog,
            State::ExtendTimeout(Duration::from_millis(2)),
        ];
        let text = "READY=1\nRELOADING=1\nMONOTONIC_USEC=5\nSTOPPING=1\nSTATUS=a = b\nMAINPID=7\nWATCHDOG=1\n\
                    EXTEND_TIMEOUT_USEC=2000";
        assert_eq!(message(&all, 5).unwrap(), text);
    }

    #[test]
    fn a_status_cannot_pass_for_something_else() {
        assert!(message(&[State::Status("fine\nMAINPID=1")], 0).is_err());
    }

    #[test]
    fn a_watchdog_is_for_the_process_that_is_named() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(interval(7, Some("7"), Some("1000000")), second);
        assert_eq!(interval(7, None, Some("1000000")), second, "for whichever reads it");
        for (pid, micros) in
            [(Some("8"), Some("1000000")), (Some("7"), None), (None, Some("0")), (None, Some("x"))]
        {
            assert_eq!(interval(7, pid, micros), None, "{pid:?} {micros:?}");
        }
    }
}
