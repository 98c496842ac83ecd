//! Wakers: valid on every thread, for ever; a plain push on the task's own thread.
//!
//! References are counted in two halves. The owner thread counts in a plain cell, all other threads in an
//! atomic; either half may be negative, because a waker may be cloned on one thread and dropped on another.
//! Only their sum means something, and only the owner thread may form it. When the last plain owner of the
//! task (see `OWNED`) is gone, the owner thread adds its half to the atomic one and marks the sum as
//! complete; from then on every thread counts in the atomic, and whoever brings it to zero frees the memory.

use std::mem::ManuallyDrop;
use std::sync::atomic::Ordering;
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::{CLOSED, Header, MERGED, QUEUED, Shared, TaskPtr};

/// One waker in the atomic count.
pub(super) const ONE: isize = 2;
/// Set in the atomic count when it is the whole count.
pub(super) const COMPLETE: isize = 1;
/// More wakers than memory could hold, if they were not forgotten.
const TOO_MANY: isize = isize::MAX / 2;

static WAKER: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker);

/// A waker for the length of a poll, which counts no reference.
///
/// # Safety
/// On the owner thread; the task stays alive as long as the result is used.
#[inline]
pub(super) unsafe fn borrowed(task: TaskPtr) -> ManuallyDrop<Waker> {
    // SAFETY: the vtable's functions expect such a pointer, and `ManuallyDrop` does not give back a reference
    // that was never taken.
    ManuallyDrop::new(unsafe { Waker::new(task.as_ptr().cast(), &WAKER) })
}

/// The task behind a waker's data pointer.
///
/// # Safety
/// The pointer is that of a waker of this module.
#[inline]
unsafe fn task_of(data: *const ()) -> TaskPtr {
    // SAFETY: such a pointer was made from a `TaskPtr`.
    unsafe { TaskPtr::new_unchecked(data.cast_mut().cast::<Header>()) }
}

/// The task that a waker wakes, if it is one of this module.
#[inline]
pub(super) fn task_behind(waker: &Waker) -> Option<TaskPtr> {
    // SAFETY: only this module makes wakers with its table.
    std::ptr::eq(waker.vtable(), &WAKER).then(|| unsafe { task_of(waker.data()) })
}

/// The task's executor.
///
/// # Safety
/// The caller holds a waker reference, or knows that the executor is there.
#[inline]
unsafe fn shared<'a>(task: TaskPtr) -> &'a Shared {
    // SAFETY: the executor keeps it until the task has finished; a task that finishes with wakers left keeps
    // it for them (`HOLDS_SHARED`).
    unsafe {
        task.as_ref().alive.seen();
        &*task.as_ref().shared
    }
}

unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: the caller's waker keeps the task and the executor's shared part; the cells are touched on the
    // owner thread only.
    unsafe {
        let task = task_of(data);
        let header = task.as_ref();
        if shared(task).is_own_thread() && !header.has(MERGED) {
            header.own_wakers.set(header.own_wakers.get() + 1);
        } else if header.wakers.fetch_add(ONE, Ordering::Relaxed) > TOO_MANY {
            // As for `Arc`: an overflow would free memory in use, and only a program that forgets wakers
            // without end comes here.
            std::process::abort();
        }
    }
    RawWaker::new(data, &WAKER)
}

unsafe fn wake(data: *const ()) {
    // SAFETY: the waker is consumed, so its reference is dropped after its last use.
    unsafe {
        wake_by_ref(data);
        drop_waker(data);
    }
}

unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: the caller's waker keeps the task and the shared part.
    unsafe {
        let task = task_of(data);
        let shared = shared(task);
        if shared.is_own_thread() {
            wake_own(task);
        } else {
            wake_remote(shared, task);
        }
    }
}

/// Queues the task, unless it is queued or at its end.
///
/// # Safety
/// On the owner thread; the task is alive.
#[inline]
pub(super) unsafe fn wake_own(task: TaskPtr) {
    // SAFETY: the task is alive. While it is not `CLOSED`, so is its executor.
    unsafe {
        let header = task.as_ref();
        if header.has(QUEUED | CLOSED) {
            return;
        }
        header.add(QUEUED);
        shared(task).push_ready(task);
        super::prefetch(task.as_ptr());
    }
}

#[cold]
unsafe fn wake_remote(shared: &Shared, task: TaskPtr) {
    // SAFETY: the caller's waker keeps the task; a new reference is made for the inbox.
    unsafe {
        let header = task.as_ref();
        // The owner's exchange in `drain` reads this one, so that what was written before the wake is seen by
        // the poll.
        if header.in_inbox.swap(true, Ordering::AcqRel) {
            return;
        }
        header.wakers.fetch_add(ONE, Ordering::Relaxed);
        if !shared.push_remote(task) {
            drop_counted(task);
        }
    }
}

unsafe fn drop_waker(data: *const ()) {
    // SAFETY: the caller gives up a waker of this module.
    unsafe { release(task_of(data)) }
}

/// Gives back one waker reference.
///
/// # Safety
/// The caller has one and does not use it again.
#[inline]
pub(super) unsafe fn release(task: TaskPtr) {
    // SAFETY: the reference keeps the task and the shared part until it is given back.
    unsafe {
        let header = task.as_ref();
        if shared(task).is_own_thread() && !header.has(MERGED) {
            // Not the end of the task: a plain owner is left, or the counts would have been merged.
            header.own_wakers.set(header.own_wakers.get() - 1);
        } else {
            drop_counted(task);
        }
    }
}

/// Gives back one reference in the atomic count.
///
/// # Safety
/// As for `release`; on the owner thread only when `MERGED`.
unsafe fn drop_counted(task: TaskPtr) {
    // SAFETY: the last reference of a complete count means that nobody else has the task.
    unsafe {
        if task.as_ref().wakers.fetch_sub(ONE, Ordering::Release) == ONE | COMPLETE {
            // Sees what all others did before they gave back theirs. (A fence would do too, but race
            // detectors do not know fences.)
            task.as_ref().wakers.load(Ordering::Acquire);
            super::free(task);
        }
    }
}
