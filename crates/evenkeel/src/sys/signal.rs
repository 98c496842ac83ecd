//! Signals, caught by the process and passed to whichever loops asked.
//!
//! Signal dispositions are the one thing that is the process's and not a loop's.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::WakeFn;
use super::wake::is_interrupt;

/// The numbers of real-time signals that a program may use.
pub(crate) fn real_time() -> RangeInclusive<i32> {
    libc::SIGRTMIN()..=libc::SIGRTMAX()
}

/// A signal that is being listened for; dropping it stops.
pub(crate) struct Registration(signal_hook_registry::SigId);

impl Drop for Registration {
    fn drop(&mut self) {
        signal_hook_registry::unregister(self.0);
    }
}

/// Counts arrivals of `signal` in `count` and calls `wake` after each.
///
/// # Panics
/// For SIGKILL, SIGSTOP and those that faults of the program raise.
pub(crate) fn register(signal: i32, count: Arc<AtomicU64>, wake: WakeFn) -> io::Result<Registration> {
    let arrived = move |info: &libc::siginfo_t| {
        if signal == libc::SIGURG && is_interrupt(info) {
            // A loop is being woken, which is no event.
            return;
        }
        count.fetch_add(1, Ordering::Release);
        wake();
    };
    // SAFETY: what runs in the signal's handler is async-signal-safe: a look at what came with the signal, an atomic addition, and waking the loop, which
    // is a few atomics and one raw system call on whatever thread this is (`wake.rs`) and leaves `errno` alone. It neither
    // allocates, locks, nor panics.
    let id = unsafe { signal_hook_registry::register_sigaction(signal, arrived) }?;
    Ok(Registration(id))
}
