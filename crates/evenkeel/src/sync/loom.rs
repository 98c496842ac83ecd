//! Doubles whose every order of events a model tries.
//!
//! A model's threads are coroutines of one thread, so what is no part of the program, such as the list of those who wait, is kept
//! in types of the standard library: nobody comes in between.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{LockResult, PoisonError, Weak};
use std::time::Duration;

pub(crate) use loom::cell::Cell;
pub(crate) use loom::sync::Arc;
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicIsize, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
use loom::sync::mpsc::{Sender, channel};
pub(crate) use loom::thread::{ThreadId, yield_now};

/// Runs a model in every order that the checker's bounds allow, on a thread of its own.
#[cfg(test)]
pub(crate) fn model(program: impl Fn() + Send + Sync + 'static) {
    let mut bounds = loom::model::Builder::new();
    bounds.preemption_bound = bounds.preemption_bound.or(Some(2));
    bounds.max_branches = bounds.max_branches.max(10_000);
    let orders = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = orders.clone();
    bounds.check(move || {
        count.fetch_add(1, Relaxed);
        program();
    });
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    println!("{name}: {} orders", orders.load(Relaxed));
}

/// Stands in for the counter that ends a loop's wait. As the kernel does, it orders a wait's end after the rings that ended it,
/// and nothing after a wake that did not ring because another had.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Bell(AtomicBool);

#[cfg(test)]
impl Bell {
    /// A bell, and the function that rings it.
    pub(crate) fn new() -> (std::sync::Arc<Bell>, crate::sys::WakeFn) {
        let bell = std::sync::Arc::new(Bell::default());
        let ring = bell.clone();
        (bell, std::sync::Arc::new(move || ring.ring()))
    }

    pub(crate) fn ring(&self) {
        self.0.swap(true, Release);
    }

    /// Waits until the bell has been rung since it was last waited for.
    pub(crate) fn wait(&self) {
        while !self.take() {
            yield_now();
        }
    }

    /// As `wait`, without waiting.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Acquire)
    }
}

/// The identity of the calling thread.
pub(crate) fn thread_id() -> ThreadId {
    loom::thread::current().id()
}

/// Makes a call: what stands for other threads is not modelled.
pub(crate) fn as_another_thread<R>(call: impl FnOnce() -> R) -> R {
    call()
}

/// As [`thread_id`]: no thread of a model stands for another one.
pub(crate) fn this_thread() -> Option<ThreadId> {
    Some(thread_id())
}

/// Finds a use of memory that is not ordered before its end.
pub(crate) struct Alive(Cell<()>);

impl Alive {
    pub(crate) fn new() -> Self {
        Alive(Cell::new(()))
    }

    pub(crate) fn seen(&self) {
        self.0.get();
    }

    pub(crate) fn ends(&self) {
        self.0.set(());
    }
}

/// As the standard library's, with a guard that a [`Condvar`] of ours can let go.
#[derive(Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

pub(crate) struct MutexGuard<'a, T> {
    lock: &'a Mutex<T>,
    /// None while a condition is waited for.
    held: Option<loom::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Mutex(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(MutexGuard { lock: self, held: Some(held) })
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().expect("nobody looks while a condition is waited for")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().expect("nobody looks while a condition is waited for")
    }
}

/// A condition whose timed waits end when a model says so ([`elapse`]): in loom's own, time does not pass.
///
/// A wait ends by a notification or its time, never without a reason. That finds more: where somebody is left waiting the model
/// stands still, and loom says so.
pub(crate) struct Condvar {
    state: std::sync::Arc<State>,
}

struct State {
    waiters: std::sync::Mutex<VecDeque<Waiter>>,
    /// Touched by whoever waits or notifies, so that loom tries these in every order.
    touched: AtomicUsize,
}

struct Waiter {
    timed: bool,
    /// Takes whether the time has come.
    wake: Sender<bool>,
}

thread_local! {
    /// The conditions of the model that this thread runs.
    static CONDITIONS: RefCell<Vec<Weak<State>>> = const { RefCell::new(Vec::new()) };
}

/// Ends every timed wait that has begun. From a thread of its own, at any time.
#[cfg(test)]
pub(crate) fn elapse() {
    let conditions: Vec<_> = CONDITIONS.with_borrow(|all| all.iter().filter_map(Weak::upgrade).collect());
    for condition in conditions {
        let timed = condition.take(|all| {
            let (timed, others) = all.drain(..).partition::<VecDeque<_>, _>(|waiter| waiter.timed);
            *all = others;
            timed
        });
        wake(timed, true);
    }
}

fn wake(waiters: impl IntoIterator<Item = Waiter>, timed_out: bool) {
    for waiter in waiters {
        // Nobody gives up waiting.
        let _ = waiter.wake.send(timed_out);
    }
}

impl State {
    /// Looks at those who wait, as one event.
    fn take<R>(&self, look: impl FnOnce(&mut VecDeque<Waiter>) -> R) -> R {
        self.touched.fetch_add(1, Relaxed);
        look(&mut self.waiters.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How a timed wait ended.
pub(crate) struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub(crate) fn timed_out(&self) -> bool {
        self.0
    }
}

type Waited<'a, T> = (MutexGuard<'a, T>, WaitTimeoutResult);

impl Condvar {
    pub(crate) fn new() -> Self {
        let state = State { waiters: std::sync::Mutex::default(), touched: AtomicUsize::new(0) };
        let state = std::sync::Arc::new(state);
        CONDITIONS.with_borrow_mut(|all| {
            all.retain(|one| one.strong_count() > 0);
            all.push(std::sync::Arc::downgrade(&state));
        });
        Condvar { state }
    }

    pub(crate) fn notify_one(&self) {
        wake(self.state.take(VecDeque::pop_front), false);
    }

    pub(crate) fn notify_all(&self) {
        wake(self.state.take(std::mem::take), false);
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        Ok(self.block(guard, false).0)
    }

    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        _: Duration,
    ) -> LockResult<Waited<'a, T>> {
        Ok(self.block(guard, true))
    }

    pub(crate) fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        _: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<Waited<'a, T>> {
        while condition(&mut guard) {
            let waited;
            (guard, waited) = self.block(guard, true);
            if waited.timed_out() {
                return Ok((guard, waited));
            }
        }
        Ok((guard, WaitTimeoutResult(false)))
    }

    fn block<'a, T>(&self, mut guard: MutexGuard<'a, T>, timed: bool) -> Waited<'a, T> {
        let (wake, woken) = channel();
        self.state.take(|all| all.push_back(Waiter { timed, wake }));
        guard.held = None;
        let timed_out = woken.recv().unwrap_or(false);
        guard.held = guard.lock.0.lock().ok();
        (guard, WaitTimeoutResult(timed_out))
    }
}
