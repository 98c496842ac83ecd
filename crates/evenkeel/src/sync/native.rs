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
    /// None before anybody had to know, and while [`ELSEWHERE`].
    static THIS_THREAD: Cell<Option<ThreadId>> = const { Cell::new(None) };
    /// What runs now stands for another thread, which is the owner of nothing.
    static ELSEWHERE: Cell<bool> = const { Cell::new(false) };
}

/// Makes a call as another thread would: what it wakes is told as from there.
pub(crate) fn as_another_thread<R>(call: impl FnOnce() -> R) -> R {
    struct Back(Option<ThreadId>, bool);
    impl Drop for Back {
        fn drop(&mut self) {
            THIS_THREAD.set(self.0);
            ELSEWHERE.set(self.1);
        }
    }
    let _back = Back(THIS_THREAD.take(), ELSEWHERE.replace(true));
    call()
}

/// The identity of the calling thread, which no later thread ever has again.
pub(crate) fn thread_id() -> ThreadId {
    std::thread::current().id()
}

/// As [`thread_id`], cheaper; none where another thread is only stood for.
#[inline]
pub(crate) fn this_thread() -> Option<ThreadId> {
    #[cold]
    fn look_up() -> Option<ThreadId> {
        if !ELSEWHERE.get() {
            THIS_THREAD.set(Some(thread_id()));
        }
        THIS_THREAD.get()
    }
    THIS_THREAD.get().or_else(look_up)
}
