//! What the tasks of one executor share: the ready queue, the list of live tasks and the inbox of remote
//! wake-ups.

use std::ptr;
use std::sync::atomic::Ordering;

use super::{Header, LIVE, QUEUED, TaskPtr};
use crate::sync::{AtomicPtr, Cell, ThreadId, this_thread, thread_id};
use crate::sys::WakeFn;

/// The state of one executor, kept alive by it and by every finished task that still has wakers.
///
/// `owner`, `inbox` and `notify` belong to all threads; everything else belongs to `owner` alone.
pub(super) struct Shared {
    owner: ThreadId,
    /// Top of the stack of tasks woken by other threads: null when empty, `closed()` when nobody will drain
    /// it again.
    inbox: AtomicPtr<Header>,
    notify: WakeFn,
    ready_head: Cell<*mut Header>,
    ready_tail: Cell<*mut Header>,
    ready_len: Cell<usize>,
    live_head: Cell<*mut Header>,
    live_len: Cell<usize>,
    /// Panics caught in user code.
    pub(super) panics: Cell<u64>,
    pub(super) phase: Cell<Phase>,
    /// Futures accepted since the shutdown began.
    pub(super) late_spawns: Cell<usize>,
    /// Operations that the present poll has left.
    pub(super) operations: Cell<u32>,
    /// A call of `run` or `cancel_all` is under way.
    pub(super) busy: Cell<bool>,
}

/// Operations of one poll, so that a task that never has to wait gives up its turn all the same. Enough for a few
/// messages of a stream, each read and answered.
pub(super) const OPERATIONS: u32 = 128;

/// How far the shutdown has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// The futures are being dropped; what is spawned now joins them.
    Cancelling,
    Closed,
}

// SAFETY: other threads touch only `owner` (never written), `inbox` (atomic) and `notify` (Send and Sync).
// The cells are touched only by the owner thread; dropping them elsewhere runs no code.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// The mark of an inbox that takes nothing more. Never dereferenced.
fn closed() -> *mut Header {
    ptr::without_provenance_mut(1)
}

impl Shared {
    pub(super) fn new(notify: WakeFn) -> Shared {
        Shared {
            owner: thread_id(),
            inbox: AtomicPtr::new(ptr::null_mut()),
            notify,
            ready_head: Cell::new(ptr::null_mut()),
            ready_tail: Cell::new(ptr::null_mut()),
            ready_len: Cell::new(0),
            live_head: Cell::new(ptr::null_mut()),
            live_len: Cell::new(0),
            panics: Cell::new(0),
            phase: Cell::new(Phase::Open),
            late_spawns: Cell::new(0),
            operations: Cell::new(OPERATIONS),
            busy: Cell::new(false),
        }
    }

    /// # Panics
    /// Within a call of `run` or `cancel_all`.
    #[inline]
    pub(super) fn assert_idle(&self) {
        assert!(!self.busy.get(), "the executor was entered again from one of its own tasks");
    }

    #[inline]
    pub(super) fn is_own_thread(&self) -> bool {
        this_thread() == Some(self.owner)
    }

    pub(super) fn ready_len(&self) -> usize {
        self.ready_len.get()
    }

    pub(super) fn live_len(&self) -> usize {
        self.live_len.get()
    }

    /// Appends a task to the ready queue.
    ///
    /// # Safety
    /// On the owner thread; the task is alive, has `QUEUED` set and is not in the queue yet.
    #[inline]
    pub(super) unsafe fn push_ready(&self, task: TaskPtr) {
        // SAFETY: the task is alive, and so is the tail, because `QUEUED` keeps every task of the queue.
        unsafe {
            debug_assert!(task.as_ref().has(QUEUED));
            task.as_ref().ready_next.set(ptr::null_mut());
            match self.ready_tail.replace(task.as_ptr()).as_ref() {
                Some(tail) => tail.ready_next.set(task.as_ptr()),
                None => self.ready_head.set(task.as_ptr()),
            }
        }
        self.ready_len.set(self.ready_len.get() + 1);
    }

    /// Takes the first ready task. Its `QUEUED` bit, which keeps it alive, stays with the caller.
    ///
    /// # Safety
    /// On the owner thread.
    #[inline]
    pub(super) unsafe fn pop_ready(&self) -> Option<TaskPtr> {
        let task = TaskPtr::new(self.ready_head.get())?;
        // SAFETY: `QUEUED` keeps the task alive.
        let next = unsafe { task.as_ref() }.ready_next.get();
        self.ready_head.set(next);
        if next.is_null() {
            self.ready_tail.set(ptr::null_mut());
        } else {
            super::prefetch(next);
        }
        self.ready_len.set(self.ready_len.get() - 1);
        Some(task)
    }

    /// Enters a task in the list of live ones.
    ///
    /// # Safety
    /// On the owner thread; the task is alive, has `LIVE` set and is not in the list yet.
    pub(super) unsafe fn link(&self, task: TaskPtr) {
        // SAFETY: `LIVE` keeps every task of the list.
        unsafe {
            let header = task.as_ref();
            debug_assert!(header.has(LIVE));
            header.live_prev.set(ptr::null_mut());
            let next = self.live_head.replace(task.as_ptr());
            header.live_next.set(next);
            if let Some(next) = next.as_ref() {
                next.live_prev.set(task.as_ptr());
            }
        }
        self.live_len.set(self.live_len.get() + 1);
    }

    /// Removes a task from the list of live ones.
    ///
    /// # Safety
    /// On the owner thread; the task is in the list.
    pub(super) unsafe fn unlink(&self, task: TaskPtr) {
        // SAFETY: `LIVE` keeps every task of the list, so the neighbours are alive.
        unsafe {
            let (prev, next) = (task.as_ref().live_prev.get(), task.as_ref().live_next.get());
            match prev.as_ref() {
                Some(prev) => prev.live_next.set(next),
                None => self.live_head.set(next),
            }
            if let Some(next) = next.as_ref() {
                next.live_prev.set(prev);
            }
        }
        self.live_len.set(self.live_len.get() - 1);
    }

    /// The task that was spawned last among the live ones. On the owner thread.
    pub(super) fn first_live(&self) -> Option<TaskPtr> {
        TaskPtr::new(self.live_head.get())
    }

    /// Puts a task into the inbox and tells the owner if the inbox was empty. False if the inbox is closed.
    ///
    /// # Safety
    /// The caller has set `in_inbox` (it was not set) and gives one waker reference to the inbox. It keeps
    /// another one during the call, so that neither the task nor `self` ends before the owner was told.
    pub(super) unsafe fn push_remote(&self, task: TaskPtr) -> bool {
        let mut top = self.inbox.load(Ordering::Relaxed);
        loop {
            if top == closed() {
                return false;
            }
            // SAFETY: alive by the caller's reference; who set `in_inbox` alone writes this field.
            unsafe { task.as_ref() }.inbox_next.set(top);
            match self.inbox.compare_exchange_weak(top, task.as_ptr(), Ordering::Release, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => top = now,
            }
        }
        if top.is_null() {
            (self.notify)();
        }
        true
    }

    /// Empties the inbox, or closes it for good, and returns its tasks in the order in which they came.
    ///
    /// # Safety
    /// On the owner thread. Each task comes with one waker reference.
    pub(super) unsafe fn take_remote(&self, close: bool) -> *mut Header {
        let seen = self.inbox.load(Ordering::Relaxed);
        if seen == closed() || seen.is_null() && !close {
            return ptr::null_mut();
        }
        let empty = if close { closed() } else { ptr::null_mut() };
        let mut from = self.inbox.swap(empty, Ordering::Acquire);
        let mut list = ptr::null_mut();
        // SAFETY: each task is kept by the inbox's reference, and its link was written before the exchange
        // that published it.
        while let Some(task) = unsafe { from.as_ref() } {
            let next = task.inbox_next.replace(list);
            list = from;
            from = next;
        }
        list
    }
}
