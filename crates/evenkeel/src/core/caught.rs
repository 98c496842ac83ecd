//! Calls of a user's code that may panic.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

/// Runs a user's code. None if it panicked: the hook has reported that, and what the code touched stays in use.
#[inline]
pub(crate) fn caught<R>(code: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(code)) {
        Ok(result) => Some(result),
        Err(payload) => {
            discard(payload);
            None
        }
    }
}

/// Drops what a panic carried, whose own destructor is the user's too and may panic again.
#[cold]
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(second);
    }
}

/// What a panic carried, to be told to whoever waits for what panicked. The mutex makes it, which is only `Send`,
/// shareable.
pub(crate) struct Payload(Mutex<Box<dyn Any + Send>>);

impl Payload {
    pub(crate) fn new(payload: Box<dyn Any + Send>) -> Self {
        Payload(Mutex::new(payload))
    }

    pub(crate) fn into_inner(self) -> Box<dyn Any + Send> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// The panic's message, if it is text as `panic!` makes it.
    pub(crate) fn with_message<R>(&self, read: impl FnOnce(Option<&str>) -> R) -> R {
        let payload = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = payload.downcast_ref::<&str>().copied();
        read(text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)))
    }
}
