//! Why a name has no addresses, and why none of them answered.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Why a name was not resolved. It tells which name.
#[derive(Clone, Debug)]
pub struct ResolveError {
    host: String,
    reason: Reason,
}

#[derive(Clone, Debug)]
enum Reason {
    Invalid,
    NoAddress,
    /// Shared by all who waited for one lookup.
    Failed(Arc<io::Error>),
    TimedOut(Duration),
}

/// What of a name is quoted in a message, in characters.
const QUOTED: usize = 253;

impl ResolveError {
    fn new(host: &str, reason: Reason) -> Self {
        ResolveError { host: host.chars().take(QUOTED).collect(), reason }
    }

    pub(super) fn invalid(host: &str) -> Self {
        Self::new(host, Reason::Invalid)
    }

    pub(super) fn no_address(host: &str) -> Self {
        Self::new(host, Reason::NoAddress)
    }

    pub(super) fn failed(host: &str, error: io::Error) -> Self {
        Self::new(host, Reason::Failed(Arc::new(error)))
    }

    pub(super) fn timed_out(host: &str, after: Duration) -> Self {
        Self::new(host, Reason::TimedOut(after))
    }

    /// The name that was asked for; of one too long its beginning.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `InvalidInput` for what cannot be a name, `NotFound` for a name without addresses, `TimedOut` at the deadline,
    /// `NotConnected` when the loop has ended, and otherwise the resolver's or the pool's.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match &self.reason {
            Reason::Invalid => io::ErrorKind::InvalidInput,
            Reason::NoAddress => io::ErrorKind::NotFound,
            Reason::Failed(error) => error.kind(),
            Reason::TimedOut(_) => io::ErrorKind::TimedOut,
        }
    }
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.escape_debug();
        match &self.reason {
            Reason::Invalid => write!(f, "`{host}` cannot be the name of a host"),
            Reason::NoAddress => write!(f, "`{host}` has no address"),
            Reason::Failed(error) => write!(f, "`{host}` cannot be resolved: {error}"),
            Reason::TimedOut(after) => write!(f, "`{host}` was not resolved within {after:?}"),
        }
    }
}

impl Error for ResolveError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.reason {
            Reason::Failed(error) => Some(error),
            Reason::Invalid | Reason::NoAddress | Reason::TimedOut(_) => None,
        }
    }
}

impl From<ResolveError> for io::Error {
    fn from(error: ResolveError) -> Self {
        io::Error::new(error.kind(), error)
    }
}

/// One attempt to connect that did not succeed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// Where it was to go.
    pub to: SocketAddr,
    /// Why it did not; `TimedOut` also if the deadline of them all ended it.
    pub error: io::Error,
}

/// Why there is no connection to a host.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The host was not resolved.
    Resolve(ResolveError),
    /// No address answered.
    Failed {
        /// The host.
        host: String,
        /// What was tried, in the order in which it ended.
        attempts: Vec<Attempt>,
        /// How many addresses were left to be tried: by the deadline, or because they were too many.
        not_tried: usize,
    },
}

impl ConnectError {
    /// The kind of the name's error, or of the first attempt that ended.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            ConnectError::Resolve(error) => error.kind(),
            ConnectError::Failed { attempts, .. } => {
                attempts.first().map_or(io::ErrorKind::TimedOut, |first| first.error.kind())
            }
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, attempts, not_tried) = match self {
            ConnectError::Resolve(error) => return error.fmt(f),
            ConnectError::Failed { host, attempts, not_tried } => (host, attempts, not_tried),
        };
        write!(f, "no connection to `{}`", host.escape_debug())?;
        for (i, Attempt { to, error }) in attempts.iter().enumerate() {
            write!(f, "{} {to}: {error}", if i == 0 { ":" } else { ";" })?;
        }
        if *not_tried > 0 {
            write!(f, " ({not_tried} more not tried)")?;
        }
        Ok(())
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ConnectError::Resolve(error) => Some(error),
            ConnectError::Failed { attempts, .. } => attempts.first().map(|first| &first.error as _),
        }
    }
}

impl From<ResolveError> for ConnectError {
    fn from(error: ResolveError) -> Self {
        ConnectError::Resolve(error)
    }
}

impl From<ConnectError> for io::Error {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Resolve(error) => error.into(),
            failed @ ConnectError::Failed { .. } => io::Error::new(failed.kind(), failed),
        }
    }
}
