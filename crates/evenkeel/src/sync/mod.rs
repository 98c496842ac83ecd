//! What threads share is made of these: the standard library's own types, or, under `--cfg loom`, doubles of them that a model
//! checker runs in every order (see `CONTRIBUTING.md`).
//!
//! Only what more than one thread touches comes from here. The doubles have no constant constructors, so statics, which a model
//! could not begin anew, are the standard library's in both cases.

#[cfg_attr(loom, path = "loom.rs")]
#[cfg_attr(not(loom), path = "native.rs")]
mod chosen;

pub(crate) use self::chosen::{
    Alive, Arc, AtomicBool, AtomicIsize, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Cell, Condvar, Mutex,
    MutexGuard, ThreadId, as_another_thread, this_thread, thread_id, yield_now,
};
#[cfg(all(test, loom))]
pub(crate) use self::chosen::{Bell, elapse, model};
