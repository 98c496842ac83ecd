//! The memory of a task and the rules by which it lives. All `unsafe` code of the tasks is here and in the files below.
//!
//! A task is one allocation: a header, then the future or its result. Everything but four fields belongs to the executor's thread alone,
//! so it needs neither locks nor atomics:
//!
//! ```text
//! executor's thread only                         any thread
//! state, links of the two lists, joiner,         wakers, in_inbox, inbox_next, shared
//! own_wakers, the future, the result
//! ```
//!
//! The memory is kept by *plain owners*, one bit each (the ready queue, the list of live tasks, the join handle, the call that is running
//! it; see `OWNED`), and by wakers, which are counted (see `waker`). A spawn and a join touch no atomic; nor does a wake or a poll.
//! User code (a poll, a drop, a foreign waker) runs while none of our references into the future or the lists is held; the bits say what
//! it may find.

mod shared;
mod waker;

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};
use std::task::{Context, Poll, Waker};

use self::shared::{Phase, Shared};
use super::join::JoinError;

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

/// How many futures may be spawned by the destructors that a shutdown runs. Each is dropped at once; without a limit, a future whose
/// destructor spawns another such future would keep the shutdown busy for ever.
pub(super) const MAX_LATE_SPAWNS: usize = 1 << 16;

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
        };
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
        // SAFETY: `RUNNING` makes this the only code that reaches the stage, which holds the future until `CLOSED` is set. The future
        // never moves: it is dropped where it was first stored.
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
        // SAFETY: nobody else reaches the stage: `RUNNING` keeps the executor away, the missing `DONE` the join handle. The future is dropped
        // once, also when its destructor panics, because the write below does not drop what it overwrites.
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
        // SAFETY: the caller passes an option of this type. The task is done, so that only the join handle and the end of `complete` reach the
        // stage, both on this thread. The result is moved out and marked so; the mark's write drops nothing.
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
        // SAFETY: the pointer came from a box of this type and nobody has it any more. Neither the future nor the result is in it.
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
/// That holds because what this thread has done and what it reads of the others is a consistent picture of the past: whoever has made or
/// dropped a waker got it from an event in that picture. If the picture has no waker, nobody can have changed it since.
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
/// On the owner thread; the task is alive and the bits are the caller's to give. It does not use the task afterwards.
#[inline]
unsafe fn disown(task: TaskPtr, bits: u16) {
    // SAFETY: the bits have kept the task until here.
    unsafe {
        let header = task.as_ref();
        header.remove(bits);
        if header.has(OWNED) {
            return;
        }
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
    // SAFETY: the header is read before the memory goes; `HOLDS_SHARED` is a reference that was taken in `complete`.
    unsafe {
        let shared = task.as_ref().has(HOLDS_SHARED).then_some(task.as_ref().shared);
        (task.as_ref().vtable.dealloc)(task);
        if let Some(shared) = shared {
            drop(Arc::from_raw(shared));
        }
    }
}

/// The raw half of an executor. It is neither `Send` nor `Sync`, so all its methods run on the owner thread.
pub(super) struct Core {
    shared: Arc<Shared>,
    thread_bound: PhantomData<*mut ()>,
}

/// Resets the mark of a running call, also when an assertion fails in it.
struct Busy<'a>(&'a Shared);

impl<'a> Busy<'a> {
    fn new(shared: &'a Shared) -> Self {
        assert!(!shared.busy.replace(true), "the executor was entered again from one of its own tasks");
        Busy(shared)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.set(false);
    }
}

impl Core {
    pub(super) fn new(notify: Arc<dyn Fn() + Send + Sync>) -> Core {
        Core { shared: Arc::new(Shared::new(notify)), thread_bound: PhantomData }
    }

    pub(super) fn ready_len(&self) -> usize {
        self.shared.ready_len()
    }

    /// The number of tasks that have not finished.
    pub(super) fn live_len(&self) -> usize {
        self.shared.live_len()
    }

    pub(super) fn panics(&self) -> u64 {
        self.shared.panics.get()
    }

    #[inline]
    pub(super) fn spawn<F: Future + 'static>(&self, future: F) -> Handle<F::Output> {
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

    pub(super) fn run(&self, budget: usize) -> bool {
        let shared = &*self.shared;
        let _busy = Busy::new(shared);
        for _ in 0..budget {
            // SAFETY: the queue's bit on the task becomes the bit of this call; the executor is borrowed, so alive.
            unsafe {
                let Some(task) = shared.pop_ready() else { break };
                let header = task.as_ref();
                header.state.set(header.state.get() & !QUEUED | RUNNING);
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

    /// Moves the wake-ups of other threads into the ready queue.
    pub(super) fn drain_remote(&self, close: bool) {
        // SAFETY: this is the owner thread. Each task comes with a reference, given back below; its link is read before `in_inbox` is cleared,
        // after which another thread may write it.
        unsafe {
            let mut from = self.shared.take_remote(close);
            while let Some(task) = TaskPtr::new(from) {
                from = task.as_ref().inbox_next.get();
                // An exchange, not a store: it reads the wake-up that found the bit set and therefore left nothing but this.
                task.as_ref().in_inbox.swap(false, Ordering::AcqRel);
                waker::wake_own(task);
                waker::release(task);
            }
        }
    }

    /// Drops every future. What is spawned from now on is dropped as well.
    pub(super) fn cancel_all(&self) {
        let _busy = Busy::new(&self.shared);
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
        shared.phase.set(Phase::Cancelling);
        // SAFETY: this is the owner thread, the executor is borrowed. A live task that is found here is not running: `run` is not under way, and
        // the loop below ends each task that it begins before it looks for the next one.
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
unsafe fn cancel(task: TaskPtr) {
    // SAFETY: `RUNNING` makes this the only code that works on the task.
    unsafe {
        task.as_ref().add(RUNNING);
        (task.as_ref().vtable.cancel)(task);
        complete(task);
        disown(task, RUNNING);
    }
}

/// The raw half of a join handle. Bound to the owner thread by the pointer in it.
pub(super) struct Handle<T> {
    task: TaskPtr,
    result: PhantomData<T>,
}

impl<T> Handle<T> {
    /// Takes the `HANDLE` bit of a task whose result is `Result<T, JoinError>`.
    fn new(task: TaskPtr) -> Self {
        Handle { task, result: PhantomData }
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: `HANDLE` keeps the task, and the handle never leaves the owner thread.
        unsafe { self.task.as_ref() }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.header().has(DONE)
    }

    /// The result if it is there; else `cx` is woken when it is.
    ///
    /// # Panics
    /// If the result was taken before.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<T, JoinError>> {
        let header = self.header();
        if header.has(DONE) {
            let mut result: Option<Result<T, JoinError>> = None;
            // SAFETY: the task is done, the handle is on the owner thread, and the option has the type of the task's result.
            unsafe { (header.vtable.take)(self.task, (&raw mut result).cast()) };
            return Poll::Ready(result.expect("a JoinHandle was polled after it had returned the result"));
        }
        // The cell is empty while a foreign waker's code runs.
        match header.joiner.take() {
            Some(old) if old.will_wake(cx.waker()) => header.joiner.set(Some(old)),
            old => {
                let new = cx.waker().clone();
                header.joiner.set(Some(new));
                drop(old);
            }
        }
        Poll::Pending
    }

    /// Has the task cancelled when its turn comes.
    pub(super) fn abort(&self) {
        let header = self.header();
        if !header.has(CLOSED) {
            header.add(ABORTED);
            // SAFETY: the task is alive and so is its executor, because it is not closed; the handle is on the owner thread.
            unsafe { waker::wake_own(self.task) };
        }
    }

    /// Cancels the task now if it is not running, else when its turn comes.
    pub(super) fn cancel(&self) {
        if self.header().has(RUNNING) {
            self.abort();
        } else if self.header().has(LIVE) {
            // SAFETY: it is live, so the executor is alive; it is not running.
            unsafe { cancel(self.task) };
        }
    }

    /// A waker of the task, which must not have finished.
    pub(super) fn waker(&self) -> Waker {
        assert!(!self.header().has(CLOSED), "a waker is asked of a finished task");
        // SAFETY: the handle keeps the task for the length of the call; the clone counts a reference of its own.
        unsafe { Waker::clone(&waker::borrowed(self.task)) }
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        /// Gives the bit back, even if the result's destructor or a foreign waker's panics.
        struct Owner(TaskPtr);
        impl Drop for Owner {
            fn drop(&mut self) {
                // SAFETY: the handle gives up its own bit, on the owner thread.
                unsafe { disown(self.0, HANDLE) }
            }
        }
        let owner = Owner(self.task);
        let joiner = self.header().joiner.take();
        if self.header().has(DONE) {
            // SAFETY: the task is done and its result belongs to the handle.
            unsafe { (self.header().vtable.discard)(self.task) };
        }
        drop(joiner);
        drop(owner);
    }
}
