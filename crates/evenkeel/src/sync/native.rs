//! The standard library's own.

pub(crate) use std::cell::Cell;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard};
pub(crate) use std::thread::{ThreadId, yield_now};

/// Of memory that several threads use and one of them frees: a model finds a use that is not ordered before the end. Here it is
/// nothing.
pub(crate) struct Alive;

impl Alive {
    #[inline]
    pub(crate) fn new() -> Self {
        Alive
    }

    /// The memory is in use.
    #[inline]
    pub(crate) fn seen(&self) {}

    /// The memory is about to be freed.
    #[inline]
    pub(crate) fn ends(&self) {}
}

thread_local! {
    static THIS_THREAD: Cell<Option<ThreadId>> = const { Cell::new(None) };
}

/// The identity of the calling thread, which no later thread ever has again.
#[inline]
pub(crate) fn this_thread() -> ThreadId {
    #[cold]
    fn look_up() -> ThreadId {
        let id = std::thread::current().id();
        THIS_THREAD.set(Some(id));
        id
    }
    match THIS_THREAD.get() {
        Some(id) => id,
        None => look_up(),
    }
}
