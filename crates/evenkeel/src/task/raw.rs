//! The memory of a task and the rules by which it lives. All `unsafe` code of the tasks is here and in the
//! files below.
//!
//! A task is one allocation: a header, then the future or its result. Everything but four fields belongs to
//! the executor's thread alone, so it needs neither locks nor atomics:
//!
//! ```text
//! executor's thread only                         any thread
//! state, links of the two lists, joiner,         wakers, in_inbox, inbox_next, shared
//! own_wakers, the future, the result
//! ```
//!
//! The memory is kept by *plain owners*, one bit each (the ready queue, the list of live tasks, the join
//! handle, the call that is running it; see `OWNED`), and by wakers, which are counted (see `waker`). A spawn
//! and a join touch no atomic; nor does a wake or a poll. User code (a poll, a drop, a foreign waker) runs
//! while none of our references into the future or the lists is held; the bits say what it may find.

#[cfg(all(test, debug_assertions))]
pub(super) mod census;
mod core;
mod handle;
mod shared;
mod waker;

use std::any::Any;
use std::cell::UnsafeCell;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

pub(super) use self::core::Core;
#[cfg(test)]
pub(super) use self::core::MAX_LATE_SPAWNS;
pub(super) use self::handle::Handle;
use self::shared::Shared;
use super::join::JoinError;
use crate::sync::{Alive, Arc, AtomicBool, AtomicIsize, Cell};

type TaskPtr = NonNull<Header>;

/// In the ready queue.
const QUEUED: u16 = 1;
/// In the list of live tasks: not finished.
const LIVE: u16 = 1 << 1;
/// The join handle exists.
const HANDLE: u16 = 1 << 2;
/// Being polled, cancelled or completed.
const RUNNING: u16 = 1 << 3;
/// The bits each of which keeps the task's memory.
const OWNED: u16 = QUEUED | LIVE | HANDLE | RUNNING;
/// To be cancelled instead of polled.
const ABORTED: u16 = 1 << 4;
/// The future has returned, or is being dropped: a wake does nothing from here on.
const CLOSED: u16 = 1 << 5;
/// The result is there, or was.
const DONE: u16 = 1 << 6;
/// The owners are gone and `wakers` is the whole count.
const MERGED: u16 = 1 << 7;
/// The task keeps a reference to `shared`, for the wakers that it has left.
const HOLDS_SHARED: u16 = 1 << 8;

#[repr(C)]
struct Header {
    vtable: &'static VTable,
    shared: *const Shared,
    ready_next: Cell<*mut Header>,
    /// Wakers made minus wakers dropped on the owner thread.
    own_wakers: Cell<isize>,
    state: Cell<u16>,
    /// In the inbox of remote wake-ups, or about to be.
    in_inbox: AtomicBool,
    /// The same for the other threads, times `waker::ONE`, plus `waker::COMPLETE`.
    wakers: AtomicIsize,
    /// Written by who has set `in_inbox`, read by the owner before it clears it.
    inbox_next: Cell<*mut Header>,
    live_prev: Cell<*mut Header>,
    live_next: Cell<*mut Header>,
    /// Whom to wake when the result is there.
    joiner: Cell<Option<Waker>>,
    alive: Alive,
}

/// What depends on the future's type. Each function runs on the owner thread, but `dealloc`.
struct VTable {
    /// Polls the future. True if it has ended and the result is stored.
    poll: unsafe fn(TaskPtr) -> bool,
    /// Drops the future and stores the result of a cancelled task.
    cancel: unsafe fn(TaskPtr),
    /// Moves the result out, into an `Option<Result<T, JoinError>>`.
    take: unsafe fn(TaskPtr, *mut ()),
    /// Drops the result if it is still there.
    discard: unsafe fn(TaskPtr),
    dealloc: unsafe fn(TaskPtr),
}

#[repr(C)]
struct Task<F: Future> {
    header: Header,
    stage: UnsafeCell<Stage<F>>,
}

enum Stage<F: Future> {
    Future(F),
    Result(Result<F::Output, JoinError>),
    Taken,
}

impl Header {
    #[inline]
    fn has(&self, bits: u16) -> bool {
        self.state.get() & bits != 0
    }

    #[inline]
    fn add(&self, bits: u16) {
        self.state.set(self.state.get() | bits);
    }

    #[inline]
    fn remove(&self, bits: u16) {
        self.state.set(self.state.get() & !bits);
    }
}

impl<F: Future + 'static> Task<F> {
    const VTABLE: VTable = VTable {
        poll: Self::poll,
        cancel: Self::cancel,
        take: Self::take,
        discard: Self::discard,
        dealloc: Self::dealloc,
    };

    fn allocate(stage: Stage<F>, shared: &Arc<Shared>, state: u16) -> TaskPtr {
        let header = Header {
            vtable: &Self::VTABLE,
            shared: Arc::as_ptr(shared),
            ready_next: Cell::new(ptr::null_mut()),
            own_wakers: Cell::new(0),
            state: Cell::new(state),
            in_inbox: AtomicBool::new(false),
            wakers: AtomicIsize::new(0),
            inbox_next: Cell::new(ptr::null_mut()),
            live_prev: Cell::new(ptr::null_mut()),
            live_next: Cell::new(ptr::null_mut()),
            joiner: Cell::new(None),
            alive: Alive::new(),
        };
        #[cfg(all(test, debug_assertions))]
        census::count::<F>(1);
        let task = Box::new(Task { header, stage: UnsafeCell::new(stage) });
        // The pointer is made from the box, not from the header, so that it may reach the whole task.
        NonNull::from(Box::leak(task)).cast()
    }

    /// # Safety
    /// `task` is a live task of this type.
    #[inline]
    unsafe fn stage(task: TaskPtr) -> *mut Stage<F> {
        // SAFETY: the pointer has the provenance of the whole task, whose first field is the header.
        unsafe { UnsafeCell::raw_get(&raw const (*task.cast::<Task<F>>().as_ptr()).stage) }
    }

    unsafe fn poll(task: TaskPtr) -> bool {
        // SAFETY: `RUNNING` makes this the only code that reaches the stage, which holds the future until
        // `CLOSED` is set. The future never moves: it is dropped where it was first stored.
        let polled = unsafe {
            let Stage::Future(future) = &mut *Self::stage(task) else {
                unreachable!("a finished task is polled")
            };
            let waker = waker::borrowed(task);
            let mut cx = Context::from_waker(&waker);
            match catch_unwind(AssertUnwindSafe(|| Pin::new_unchecked(future).poll(&mut cx))) {
                Ok(Poll::Pending) => return false,
                Ok(Poll::Ready(output)) => Ok(output),
                Err(panic) => {
                    count_panic(task);
                    Err(JoinError::panicked(panic))
                }
            }
        };
        // SAFETY: the stage still holds the future.
        unsafe { Self::finish(task, polled) };
        true
    }

    unsafe fn cancel(task: TaskPtr) {
        // SAFETY: `RUNNING` is set and the stage holds the future.
        unsafe { Self::finish(task, Err(JoinError::cancelled())) }
    }

    /// Replaces the future by the result.
    ///
    /// # Safety
    /// `RUNNING` is set and the stage holds the future.
    unsafe fn finish(task: TaskPtr, mut result: Result<F::Output, JoinError>) {
        // SAFETY: nobody else reaches the stage: `RUNNING` keeps the executor away, the missing `DONE` the
        // join handle. The future is dropped once, also when its destructor panics, because the write below
        // does not drop what it overwrites.
        unsafe {
            task.as_ref().add(CLOSED);
            let stage = Self::stage(task);
            let Stage::Future(future) = &mut *stage else {
                unreachable!("a finished task is finished again")
            };
            let future: *mut F = future;
            if let Err(panic) = guarded(task, || ptr::drop_in_place(future)) {
                match mem::replace(&mut result, Err(JoinError::panicked(panic))) {
                    // The first panic says more than the one that it led to.
                    Err(first) if first.is_panic() => result = Err(first),
                    lost => forget_panic(guarded(task, || drop(lost))),
                }
            }
            ptr::write(stage, Stage::Result(result));
        }
    }

    unsafe fn take(task: TaskPtr, into: *mut ()) {
        let into = into.cast::<Option<Result<F::Output, JoinError>>>();
        // SAFETY: the caller passes an option of this type. The task is done, so that only the join handle
        // and the end of `complete` reach the stage, both on this thread. The result is moved out and marked
        // so; the mark's write drops nothing.
        unsafe {
            let stage = Self::stage(task);
            if let Stage::Result(result) = &*stage {
                let result = ptr::read(result);
                ptr::write(stage, Stage::Taken);
                *into = Some(result);
            }
        }
    }

    unsafe fn discard(task: TaskPtr) {
        let mut result: Option<Result<F::Output, JoinError>> = None;
        // SAFETY: as the caller's.
        unsafe { Self::take(task, (&raw mut result).cast()) };
        drop(result);
    }

    unsafe fn dealloc(task: TaskPtr) {
        #[cfg(all(test, debug_assertions))]
        census::count::<F>(-1);
        // SAFETY: the pointer came from a box of this type and nobody has it any more. Neither the future nor
        // the result is in it.
        unsafe {
            debug_assert!(matches!(*Self::stage(task), Stage::Taken));
            drop(Box::from_raw(task.cast::<Task<F>>().as_ptr()));
        }
    }
}

/// Runs user code that may panic, and counts it if it does.
///
/// # Safety
/// On the owner thread; the task and its executor are alive.
unsafe fn guarded(task: TaskPtr, code: impl FnOnce()) -> Result<(), Box<dyn Any + Send>> {
    let result = catch_unwind(AssertUnwindSafe(code));
    if result.is_err() {
        // SAFETY: as the caller's.
        unsafe { count_panic(task) };
    }
    result
}

/// # Safety
/// As for `guarded`.
unsafe fn count_panic(task: TaskPtr) {
    // SAFETY: the caller is on the owner thread and the executor is alive.
    let panics = unsafe { &(*task.as_ref().shared).panics };
    panics.set(panics.get() + 1);
}

/// Drops a panic that nobody asks for. The hook has reported it; the payload's own destructor may panic too.
fn forget_panic(result: Result<(), Box<dyn Any + Send>>) {
    if let Err(panic) = result
        && let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(panic)))
    {
        mem::forget(second);
    }
}

/// Fetches the start of a task's future, because a wake or a queue position says that it will be polled soon.
#[inline]
fn prefetch(task: *mut Header) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and faults on no address.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(task.cast::<i8>().wrapping_add(64));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = task;
}

/// Ends the task: the result is stored.
///
/// # Safety
/// On the owner thread, while the executor is alive; `RUNNING` is set, and stays so.
unsafe fn complete(task: TaskPtr) {
    // SAFETY: `RUNNING` keeps the task, the caller the executor.
    unsafe {
        let header = task.as_ref();
        let shared = &*header.shared;
        header.add(DONE);
        shared.unlink(task);
        header.remove(LIVE);
        // Wakers come only from wakers, so none will ever be made if there is none now.
        if waker_count(task) != 0 {
            Arc::increment_strong_count(header.shared);
            header.add(HOLDS_SHARED);
        }
        if let Some(joiner) = header.joiner.take() {
            forget_panic(guarded(task, || joiner.wake()));
        }
        if !header.has(HANDLE) {
            forget_panic(guarded(task, || (header.vtable.discard)(task)));
        }
    }
}

/// The number of wakers, times `waker::ONE`, as far as the owner thread can know. Zero is certain.
///
/// That holds because what this thread has done and what it reads of the others is a consistent picture of
/// the past: whoever has made or dropped a waker got it from an event in that picture. If the picture has no
/// waker, nobody can have changed it since.
///
/// # Safety
/// On the owner thread; the task is alive and not merged.
unsafe fn waker_count(task: TaskPtr) -> isize {
    // SAFETY: as the caller's.
    let header = unsafe { task.as_ref() };
    header.own_wakers.get() * waker::ONE + header.wakers.load(Ordering::Acquire)
}

/// Takes plain owners away, and frees the memory if nobody is left.
///
/// # Safety
/// On the owner thread; the task is alive and the bits are the caller's to give. It does not use the task
/// afterwards.
#[inline]
unsafe fn disown(task: TaskPtr, bits: u16) {
    // SAFETY: the bits have kept the task until here.
    unsafe {
        let header = task.as_ref();
        header.remove(bits);
        if !header.has(OWNED) {
            ownerless(task);
        }
    }
}

/// The last plain owner is gone: frees the memory, or leaves it to the wakers.
///
/// # Safety
/// As for `disown`.
#[inline(never)]
unsafe fn ownerless(task: TaskPtr) {
    // SAFETY: nobody else frees the memory while the counts are not merged.
    unsafe {
        let header = task.as_ref();
        if waker_count(task) == 0 {
            free(task);
            return;
        }
        header.add(MERGED);
        let own = header.own_wakers.get() * waker::ONE;
        if header.wakers.fetch_add(own + waker::COMPLETE, Ordering::AcqRel) + own == 0 {
            free(task);
        }
    }
}

/// Frees the memory, on any thread.
///
/// # Safety
/// Nobody else has the task, and what others did with it happened before.
unsafe fn free(task: TaskPtr) {
    // SAFETY: the header is read before the memory goes; `HOLDS_SHARED` is a reference that was taken in
    // `complete`.
    unsafe {
        let shared = task.as_ref().has(HOLDS_SHARED).then_some(task.as_ref().shared);
        task.as_ref().alive.ends();
        (task.as_ref().vtable.dealloc)(task);
        if let Some(shared) = shared {
            drop(Arc::from_raw(shared));
        }
    }
}

/// The bytes of a task, for the tests.
#[cfg(test)]
pub(super) const fn size_of_task<F: Future>() -> usize {
    size_of::<Task<F>>()
}
