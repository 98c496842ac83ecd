//! Until when other threads may use what its owner is about to end.

use std::sync::atomic::Ordering;

use crate::sync::{AtomicU32, yield_now};

/// Open for everybody until its owner shuts it, which waits for those who are inside. No locks, for it is passed in handlers of
/// signals too.
pub(super) struct Gate {
    /// How many are inside right now, and [`SHUT`].
    inside: AtomicU32,
}

/// Whoever comes now is too late.
const SHUT: u32 = 1 << 31;

impl Gate {
    pub(super) fn new() -> Self {
        Gate { inside: AtomicU32::new(0) }
    }

    /// Does `what`, which must be short, unless the gate is shut. Async-signal-safe if `what` is.
    #[inline]
    pub(super) fn pass(&self, what: impl FnOnce()) {
        if self.inside.fetch_add(1, Ordering::Acquire) & SHUT == 0 {
            what();
        }
        self.inside.fetch_sub(1, Ordering::Release);
    }

    /// Lets nobody in any more and waits until nobody is inside. What was done there has happened when this returns.
    pub(super) fn shut(&self) {
        self.inside.fetch_or(SHUT, Ordering::AcqRel);
        while self.inside.load(Ordering::Acquire) != SHUT {
            yield_now();
        }
    }
}

#[cfg(all(test, loom))]
mod models;
