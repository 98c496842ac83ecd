//! Why a group cannot be built, and why a loop of it ended.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};

use super::LoopIndex;

/// What went wrong with a group, or with one loop of it.
pub struct GroupError {
    index: Option<LoopIndex>,
    reason: Reason,
}

enum Reason {
    Failed(io::Error),
    /// The mutex makes the payload, which is only `Send`, shareable.
    Panicked(Mutex<Box<dyn Any + Send>>),
}

impl GroupError {
    pub(super) fn of_group(error: io::Error) -> Self {
        GroupError { index: None, reason: Reason::Failed(error) }
    }

    pub(super) fn failed(index: LoopIndex, error: io::Error) -> Self {
        GroupError { index: Some(index), reason: Reason::Failed(error) }
    }

    pub(super) fn panicked(index: LoopIndex, payload: Box<dyn Any + Send>) -> Self {
        GroupError { index: Some(index), reason: Reason::Panicked(Mutex::new(payload)) }
    }

    /// The loop that it is about; none if it is about the group.
    pub fn index(&self) -> Option<LoopIndex> {
        self.index
    }

    /// Whether the loop's thread panicked, in the setup for instance.
    pub fn is_panic(&self) -> bool {
        matches!(self.reason, Reason::Panicked(_))
    }

    /// What the thread panicked with, for [`std::panic::resume_unwind`].
    ///
    /// # Errors
    /// Gives the error back if it is no panic.
    pub fn into_panic(self) -> Result<Box<dyn Any + Send>, GroupError> {
        match self.reason {
            Reason::Panicked(payload) => Ok(payload.into_inner().unwrap_or_else(PoisonError::into_inner)),
            Reason::Failed(_) => Err(self),
        }
    }

    /// The error, unless the thread panicked.
    pub fn io_error(&self) -> Option<&io::Error> {
        match &self.reason {
            Reason::Failed(error) => Some(error),
            Reason::Panicked(_) => None,
        }
    }
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.index {
            write!(f, "loop {index}: ")?;
        }
        match &self.reason {
            Reason::Failed(error) => write!(f, "{error}"),
            Reason::Panicked(payload) => {
                let payload = payload.lock().unwrap_or_else(PoisonError::into_inner);
                let text = payload.downcast_ref::<&str>().copied();
                match text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)) {
                    Some(message) => write!(f, "its thread panicked: {message}"),
                    None => f.write_str("its thread panicked"),
                }
            }
        }
    }
}

impl fmt::Debug for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupError({self})")
    }
}

impl Error for GroupError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.io_error().map(|error| error as _)
    }
}

impl From<GroupError> for io::Error {
    fn from(error: GroupError) -> Self {
        let kind = error.io_error().map_or(io::ErrorKind::Other, io::Error::kind);
        io::Error::new(kind, error)
    }
}
