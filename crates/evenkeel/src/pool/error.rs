//! Why there is no result of what was given to the pool.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::io;

use super::lane::Refused;
use crate::core::Payload;

/// Why offloaded work has no result.
#[derive(Debug)]
#[non_exhaustive]
pub enum WorkError {
    /// It panicked.
    Panicked(Panic),
    /// [`Offload::cancel`](super::Offload::cancel) took it back before it began.
    Cancelled,
    /// As much as may wait for a thread does: the pool is overloaded, or its threads are stuck.
    QueueFull,
    /// The lane has no thread, and none could be started.
    NoThread(io::Error),
    /// The pool, or the loop, had ended before the work began.
    Ended,
}

impl WorkError {
    pub(super) fn panicked(payload: Box<dyn Any + Send>) -> Self {
        WorkError::Panicked(Panic(Box::new(Payload::new(payload))))
    }
}

impl From<Refused> for WorkError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => WorkError::QueueFull,
            Refused::NoThread(error) => WorkError::NoThread(error),
            Refused::Ended => WorkError::Ended,
        }
    }
}

impl fmt::Display for WorkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkError::Panicked(panic) => panic.fmt(f),
            WorkError::Cancelled => f.write_str("the work was cancelled before it began"),
            WorkError::QueueFull => {
                f.write_str("the pool's queue is full: it is overloaded, or its threads are stuck")
            }
            WorkError::NoThread(error) => write!(f, "no thread can be started for the work: {error}"),
            WorkError::Ended => f.write_str("the pool has ended"),
        }
    }
}

impl Error for WorkError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            WorkError::NoThread(error) => Some(error),
            _ => None,
        }
    }
}

impl From<WorkError> for io::Error {
    fn from(error: WorkError) -> Self {
        let kind = match &error {
            WorkError::Panicked(_) | WorkError::Cancelled => io::ErrorKind::Other,
            WorkError::QueueFull => io::ErrorKind::WouldBlock,
            WorkError::NoThread(error) => error.kind(),
            WorkError::Ended => io::ErrorKind::NotConnected,
        };
        io::Error::new(kind, error)
    }
}

/// What offloaded work panicked with.
pub struct Panic(Box<Payload>);

impl Panic {
    /// What it panicked with, for [`std::panic::resume_unwind`].
    #[must_use]
    pub fn into_payload(self) -> Box<dyn Any + Send> {
        self.0.into_inner()
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.with_message(|message| match message {
            Some(message) => write!(f, "the work panicked: {message}"),
            None => f.write_str("the work panicked"),
        })
    }
}

impl fmt::Debug for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.with_message(|message| f.debug_tuple("Panic").field(&message).finish())
    }
}
