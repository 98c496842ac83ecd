//! Tests of the tasks: their life, their wakers, random programs.
#![allow(clippy::unwrap_used)]
#![allow(clippy::waker_clone_wake, reason = "cloning and consuming are what is tested")]
#![allow(clippy::redundant_async_block, reason = "a block has a type of its own, which assert_freed needs")]

mod life;
mod random;
mod set;
mod wakers;

use std::any::TypeId;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread::{self, ThreadId};

use super::{Executor, JoinError, JoinHandle};

/// An executor that no other thread wakes.
fn executor() -> Executor {
    Executor::new(Arc::new(|| panic!("nobody wakes it from another thread")))
}

/// Runs until nothing is ready.
fn settle(executor: &Executor) {
    while executor.run(7) {}
}

/// Polls a join handle, or any future, without being woken.
fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn result<T>(handle: &mut JoinHandle<T>) -> Result<T, JoinError> {
    match poll(handle) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("the task has not finished"),
    }
}

/// The type of a future, to ask [`assert_freed`] for it. It must be the test's own: tests run side by side.
fn type_of<F: 'static>(_: &F) -> TypeId {
    TypeId::of::<F>()
}

/// So many tasks with such a future are in memory.
#[track_caller]
fn assert_kept(future: TypeId, tasks: isize) {
    #[cfg(debug_assertions)]
    assert_eq!(super::raw::census::tasks(future), Some(tasks), "tasks leaked or were freed too soon");
    #[cfg(not(debug_assertions))]
    let _ = (future, tasks);
}

/// Every task with such a future was freed, and there was one.
#[track_caller]
fn assert_freed(future: TypeId) {
    assert_kept(future, 0);
}

/// Counts its drops, and insists on its thread.
struct Guard {
    drops: Rc<Cell<usize>>,
    thread: ThreadId,
}

impl Guard {
    fn new(drops: &Rc<Cell<usize>>) -> Guard {
        Guard { drops: Rc::clone(drops), thread: thread::current().id() }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        assert_eq!(thread::current().id(), self.thread);
        self.drops.set(self.drops.get() + 1);
    }
}

/// Runs code when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Waits for ever, and leaves its waker here.
async fn park(wakers: Rc<RefCell<Vec<Waker>>>) {
    poll_fn(move |cx| {
        wakers.borrow_mut().push(cx.waker().clone());
        Poll::<()>::Pending
    })
    .await;
}
