//! Spawning, running and the shutdown.

use std::marker::PhantomData;
use std::mem;
use std::ptr;
use std::sync::atomic::Ordering;
use std::task::Waker;

use super::shared::{OPERATIONS, Phase, Shared};
use super::{
    ABORTED, CLOSED, DONE, HANDLE, Handle, LIVE, QUEUED, RUNNING, Stage, Task, TaskPtr, complete, disown,
    waker,
};
use crate::sync::Arc;
use crate::sys::WakeFn;
use crate::task::JoinError;

/// How many futures may be spawned by the destructors that a shutdown runs. Each is dropped at once; without
/// a limit, a future whose destructor spawns another such future would keep the shutdown busy for ever.
pub(in crate::task) const MAX_LATE_SPAWNS: usize = 1 << 16;

/// The raw half of an executor. It is neither `Send` nor `Sync`, so all its methods run on the owner thread.
pub(in crate::task) struct Core {
    shared: Arc<Shared>,
    thread_bound: PhantomData<*mut ()>,
}

/// Resets the mark of a running call, also when an assertion fails in it.
struct Busy<'a>(&'a Shared);

impl<'a> Busy<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.assert_idle();
        shared.busy.set(true);
        Busy(shared)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.set(false);
    }
}

impl Core {
    pub(in crate::task) fn new(notify: WakeFn) -> Core {
        Core { shared: Arc::new(Shared::new(notify)), thread_bound: PhantomData }
    }

    pub(in crate::task) fn ready_len(&self) -> usize {
        self.shared.ready_len()
    }

    /// The number of tasks that have not finished.
    pub(in crate::task) fn live_len(&self) -> usize {
        self.shared.live_len()
    }

    pub(in crate::task) fn panics(&self) -> u64 {
        self.shared.panics.get()
    }

    #[inline]
    pub(in crate::task) fn spawn<F: Future + 'static>(&self, future: F) -> Handle<F::Output> {
        let open = self.shared.phase.get() == Phase::Open;
        if !open && self.shared.late_spawns.replace(self.shared.late_spawns.get() + 1) >= MAX_LATE_SPAWNS {
            mem::forget(future);
            let stage = Stage::<F>::Result(Err(JoinError::cancelled()));
            return Handle::new(Task::allocate(stage, &self.shared, HANDLE | CLOSED | DONE));
        }
        let task = Task::allocate(Stage::Future(future), &self.shared, LIVE | HANDLE | QUEUED);
        // SAFETY: this is the owner thread, and the bits set above say where the task goes.
        unsafe {
            self.shared.link(task);
            self.shared.push_ready(task);
        }
        let handle = Handle::new(task);
        if !open {
            self.cancel_late();
        }
        handle
    }

    #[inline]
    pub(in crate::task) fn run(&self, budget: usize) -> bool {
        self.shared.assert_idle();
        self.shared.ready_len() > 0 && self.run_ready(budget)
    }

    fn run_ready(&self, budget: usize) -> bool {
        let shared = &*self.shared;
        let _busy = Busy::new(shared);
        for _ in 0..budget {
            // SAFETY: the queue's bit on the task becomes the bit of this call; the executor is borrowed, so
            // alive.
            unsafe {
                let Some(task) = shared.pop_ready() else { break };
                let header = task.as_ref();
                header.state.set(header.state.get() & !QUEUED | RUNNING);
                shared.operations.set(OPERATIONS);
                if !header.has(CLOSED) {
                    let ended = if header.has(ABORTED) {
                        (header.vtable.cancel)(task);
                        true
                    } else {
                        (header.vtable.poll)(task)
                    };
                    if ended {
                        complete(task);
                    }
                }
                disown(task, RUNNING);
            }
        }
        shared.ready_len() > 0
    }

    /// Wakes a task of this executor. False if the waker is of anything else.
    #[inline]
    pub(in crate::task) fn wake(&self, waker: &Waker) -> bool {
        let Some(task) = waker::task_behind(waker) else { return false };
        // SAFETY: the waker keeps the task, and the task what it shares, whose address is therefore nobody
        // else's. A task of this executor is on its owner thread, which is this one.
        unsafe {
            let own = ptr::eq(task.as_ref().shared, &*self.shared);
            if own {
                waker::wake_own(task);
            }
            own
        }
    }

    /// Begins a poll from outside of the queue.
    pub(in crate::task) fn refill(&self) {
        self.shared.operations.set(OPERATIONS);
    }

    /// Takes one operation from the present poll's. False if it has none left.
    #[inline]
    pub(in crate::task) fn spend(&self) -> bool {
        let left = self.shared.operations.get();
        self.shared.operations.set(left.saturating_sub(1));
        left > 0
    }

    /// Moves the wake-ups of other threads into the ready queue.
    pub(in crate::task) fn drain_remote(&self, close: bool) {
        // SAFETY: this is the owner thread. Each task comes with a reference, given back below; its link is
        // read before `in_inbox` is cleared, after which another thread may write it.
        unsafe {
            let mut from = self.shared.take_remote(close);
            while let Some(task) = TaskPtr::new(from) {
                from = task.as_ref().inbox_next.get();
                // An exchange, not a store: it reads the wake-up that found the bit set and therefore left
                // nothing but this.
                task.as_ref().in_inbox.swap(false, Ordering::AcqRel);
                waker::wake_own(task);
                waker::release(task);
            }
        }
    }

    /// Drops every future. What is spawned from now on is dropped as well.
    pub(in crate::task) fn cancel_all(&self) {
        self.cancel_live();
    }

    /// Drops what was spawned after the shutdown, unless the shutdown's own loop will.
    #[cold]
    fn cancel_late(&self) {
        if self.shared.phase.get() == Phase::Closed {
            self.cancel_live();
        }
    }

    fn cancel_live(&self) {
        let shared = &*self.shared;
        let _busy = Busy::new(shared);
        shared.phase.set(Phase::Cancelling);
        // SAFETY: this is the owner thread, the executor is borrowed. A live task that is found here is not
        // running: the mark keeps `run` away, and the loop below ends each task that it begins before it
        // looks for the next one.
        unsafe {
            while let Some(task) = shared.first_live() {
                cancel(task);
            }
            while let Some(task) = shared.pop_ready() {
                disown(task, QUEUED);
            }
        }
        shared.late_spawns.set(0);
        shared.phase.set(Phase::Closed);
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.cancel_all();
        self.drain_remote(true);
    }
}

/// Drops a task's future now.
///
/// # Safety
/// On the owner thread, with the executor alive; the task is live and not running.
pub(super) unsafe fn cancel(task: TaskPtr) {
    // SAFETY: `RUNNING` makes this the only code that works on the task.
    unsafe {
        task.as_ref().add(RUNNING);
        (task.as_ref().vtable.cancel)(task);
        complete(task);
        disown(task, RUNNING);
    }
}
