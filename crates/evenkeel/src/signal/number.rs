//! Which signals there are, by name and by number.

use std::fmt;
use std::io;

use rustix::process::Signal as Os;

use crate::sys::signal::real_time;

/// A signal that a process can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Signal {
    /// SIGTERM: end, in an orderly way.
    Terminate,
    /// SIGINT: end, as asked from the terminal.
    Interrupt,
    /// SIGHUP: read the configuration anew.
    Hangup,
    /// SIGQUIT: end, as asked from the terminal.
    Quit,
    /// SIGUSR1.
    User1,
    /// SIGUSR2.
    User2,
    /// SIGALRM: a timer of the operating system.
    Alarm,
    /// SIGCHLD: a child process has ended, stopped or gone on. [`process`](crate::process) does not need it.
    Child,
    /// SIGWINCH: the terminal has another size.
    WindowChange,
    /// SIGCONT: go on after a stop.
    Continue,
    /// SIGTSTP: stop, as asked from the terminal.
    TerminalStop,
    /// SIGTTIN: a read from the terminal in the background.
    TerminalInput,
    /// SIGTTOU: a write to the terminal in the background.
    TerminalOutput,
    /// SIGURG: urgent data of a socket.
    Urgent,
    /// SIGXCPU: the limit of processor time.
    CpuLimit,
    /// SIGXFSZ: the limit of a file's size.
    FileSizeLimit,
    /// SIGVTALRM: a timer of processor time.
    VirtualAlarm,
    /// SIGPROF: a profiler's timer.
    Profile,
    /// SIGIO: a descriptor is ready.
    Io,
    /// SIGPWR: power fails.
    Power,
    /// SIGABRT: the program has given itself up.
    Abort,
    /// SIGTRAP: a breakpoint.
    Trap,
    /// SIGSYS: a system call that is forbidden.
    BadCall,
    /// SIGPIPE. It can be sent, and cannot be listened for.
    Pipe,
    /// SIGKILL: the end, at once. It can be sent, and cannot be listened for.
    Kill,
    /// SIGSTOP: stop, at once. It can be sent, and cannot be listened for.
    Stop,
    /// SIGILL. It can be sent, and cannot be listened for.
    IllegalInstruction,
    /// SIGBUS. It can be sent, and cannot be listened for.
    Bus,
    /// SIGFPE. It can be sent, and cannot be listened for.
    Arithmetic,
    /// SIGSEGV. It can be sent, and cannot be listened for.
    Segmentation,
    /// SIGRTMIN and so many further, up to SIGRTMAX. Unlike the others, several of one number wait in a queue.
    RealTime(u8),
}

const NAMED: [(Signal, Os, &str); 30] = [
    (Signal::Hangup, Os::HUP, "SIGHUP"),
    (Signal::Interrupt, Os::INT, "SIGINT"),
    (Signal::Quit, Os::QUIT, "SIGQUIT"),
    (Signal::IllegalInstruction, Os::ILL, "SIGILL"),
    (Signal::Trap, Os::TRAP, "SIGTRAP"),
    (Signal::Abort, Os::ABORT, "SIGABRT"),
    (Signal::Bus, Os::BUS, "SIGBUS"),
    (Signal::Arithmetic, Os::FPE, "SIGFPE"),
    (Signal::Kill, Os::KILL, "SIGKILL"),
    (Signal::User1, Os::USR1, "SIGUSR1"),
    (Signal::Segmentation, Os::SEGV, "SIGSEGV"),
    (Signal::User2, Os::USR2, "SIGUSR2"),
    (Signal::Pipe, Os::PIPE, "SIGPIPE"),
    (Signal::Alarm, Os::ALARM, "SIGALRM"),
    (Signal::Terminate, Os::TERM, "SIGTERM"),
    (Signal::Child, Os::CHILD, "SIGCHLD"),
    (Signal::Continue, Os::CONT, "SIGCONT"),
    (Signal::Stop, Os::STOP, "SIGSTOP"),
    (Signal::TerminalStop, Os::TSTP, "SIGTSTP"),
    (Signal::TerminalInput, Os::TTIN, "SIGTTIN"),
    (Signal::TerminalOutput, Os::TTOU, "SIGTTOU"),
    (Signal::Urgent, Os::URG, "SIGURG"),
    (Signal::CpuLimit, Os::XCPU, "SIGXCPU"),
    (Signal::FileSizeLimit, Os::XFSZ, "SIGXFSZ"),
    (Signal::VirtualAlarm, Os::VTALARM, "SIGVTALRM"),
    (Signal::Profile, Os::PROF, "SIGPROF"),
    (Signal::WindowChange, Os::WINCH, "SIGWINCH"),
    (Signal::Io, Os::IO, "SIGIO"),
    (Signal::Power, Os::POWER, "SIGPWR"),
    (Signal::BadCall, Os::SYS, "SIGSYS"),
];

impl Signal {
    /// The signal with this number, such as [`ExitStatusExt::signal`](std::os::unix::process::ExitStatusExt::signal)
    /// gives.
    ///
    /// # Errors
    /// `InvalidInput` if there is none, or none that a program may use.
    pub fn from_raw(number: i32) -> io::Result<Signal> {
        let named = NAMED.iter().find(|(_, os, _)| os.as_raw() == number).map(|(signal, ..)| *signal);
        let found = named.or_else(|| {
            let nth = number.checked_sub(*real_time().start()).filter(|_| real_time().contains(&number))?;
            u8::try_from(nth).ok().map(Signal::RealTime)
        });
        found.ok_or_else(|| invalid(format!("there is no signal with the number {number}")))
    }

    /// Its number on this system.
    ///
    /// # Errors
    /// `InvalidInput` for a [`RealTime`](Self::RealTime) past SIGRTMAX.
    pub fn as_raw(self) -> io::Result<i32> {
        if let Signal::RealTime(nth) = self {
            let number = real_time().start() + i32::from(nth);
            let most = real_time().end() - real_time().start();
            return if real_time().contains(&number) {
                Ok(number)
            } else {
                Err(invalid(format!("real-time signals go from 0 to {most}, and {nth} is none")))
            };
        }
        let named = NAMED.iter().find(|(signal, ..)| *signal == self).map(|(_, os, _)| os.as_raw());
        named.ok_or_else(|| invalid(format!("{self:?} has no number here")))
    }

    /// The number, if it can be listened for.
    pub(super) fn listenable(self) -> io::Result<i32> {
        use Signal as S;
        let why = match self {
            S::Kill | S::Stop => "the kernel lets nobody handle it",
            S::IllegalInstruction | S::Bus | S::Arithmetic | S::Segmentation => {
                "what raised it would raise it again, for ever, after a handler"
            }
            S::Pipe => "threads of loops block it, and writing to who has gone is an error value",
            _ => return self.as_raw(),
        };
        Err(invalid(format!("{self} cannot be listened for: {why}")))
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// Its name as the operating system has it, such as `SIGTERM`.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Signal::RealTime(nth) = self {
            return write!(f, "SIGRTMIN+{nth}");
        }
        f.write_str(NAMED.iter().find(|(signal, ..)| signal == self).map_or("?", |(_, _, name)| name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_signals_are_the_same_thing_twice() {
        let mut known = 0;
        for number in -1..=200 {
            let Ok(signal) = Signal::from_raw(number) else { continue };
            known += 1;
            assert_eq!(signal.as_raw().ok(), Some(number));
            assert!(signal.to_string().starts_with("SIG"), "{signal}");
        }
        assert!(known >= NAMED.len() + 28, "{known}");
        assert_eq!(Signal::from_raw(15).ok(), Some(Signal::Terminate));
    }

    #[test]
    fn what_cannot_be_is_refused_and_says_why() {
        for nonsense in [i32::MIN, -1, 0, 16, 32, 33, 65, i32::MAX] {
            let refused = Signal::from_raw(nonsense).map_err(|e| e.kind());
            assert_eq!(refused, Err(io::ErrorKind::InvalidInput), "{nonsense}");
        }
        assert!(Signal::RealTime(u8::MAX).as_raw().is_err());
        for signal in [Signal::Kill, Signal::Stop, Signal::Segmentation, Signal::Pipe, Signal::RealTime(200)]
        {
            let refused = signal.listenable().map_err(|e| e.kind());
            assert_eq!(refused, Err(io::ErrorKind::InvalidInput), "{signal}");
        }
        assert!(Signal::RealTime(0).listenable().is_ok());
    }
}
