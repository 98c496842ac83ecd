//! Why listening sockets were not inherited.

use std::fmt;
use std::io;
use std::process::ExitStatus;

/// Why a new process does not take over.
#[derive(Debug)]
#[non_exhaustive]
pub enum SuccessionError {
    /// The kernel's.
    Io(io::Error),
    /// The other process speaks another version of the protocol between the two.
    Version {
        /// What this process speaks.
        ours: u8,
        /// What the other one speaks.
        theirs: u8,
    },
    /// What the other process said makes no sense.
    Malformed(&'static str),
    /// The other process has not read what it was sent before.
    Full,
    /// The other process has not answered in time.
    TimedOut,
    /// The new process has ended, or has given up, before it was ready. Its exit status, if that was known.
    Died(Option<ExitStatus>),
    /// The old process is gone.
    Orphaned,
}

impl fmt::Display for SuccessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SuccessionError::Io(e) => write!(f, "succession: {e}"),
            SuccessionError::Version { ours, theirs } => write!(
                f,
                "the other process hands over by version {theirs} of the protocol, this one by version {ours}: end \
                 the old process before the new one is started"
            ),
            SuccessionError::Malformed(what) => {
                write!(f, "the other process sent what makes no sense: {what}")
            }
            SuccessionError::Full => f.write_str("the new process has not read what it was sent so far"),
            SuccessionError::TimedOut => f.write_str("the other process has not answered in time"),
            SuccessionError::Died(Some(status)) => {
                write!(f, "the new process ended before it was ready: {status}")
            }
            SuccessionError::Died(None) => f.write_str("the new process gave up before it was ready"),
            SuccessionError::Orphaned => f.write_str("the old process ended before it had handed over"),
        }
    }
}

impl std::error::Error for SuccessionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SuccessionError::Io(e) => Some(e),
            _ => None,
        }
    }
}

impl From<io::Error> for SuccessionError {
    fn from(error: io::Error) -> Self {
        SuccessionError::Io(error)
    }
}

impl From<SuccessionError> for io::Error {
    fn from(error: SuccessionError) -> Self {
        let kind = match error {
            SuccessionError::Io(e) => return e,
            SuccessionError::Version { .. } | SuccessionError::Malformed(_) => io::ErrorKind::InvalidData,
            SuccessionError::Full => io::ErrorKind::WouldBlock,
            SuccessionError::TimedOut => io::ErrorKind::TimedOut,
            SuccessionError::Died(_) | SuccessionError::Orphaned => io::ErrorKind::UnexpectedEof,
        };
        io::Error::new(kind, error)
    }
}
