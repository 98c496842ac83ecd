//! Structured concurrency: children that do not outlive their parent.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::{Executor, JoinError, JoinHandle};

/// A set of tasks that ends with its owner.
///
/// [`join_next`](TaskSet::join_next) yields the results in the order in which the tasks finish. **Dropping
/// the set cancels the tasks that are left**: none of them is polled again, and the loop drops their futures
/// in its next turn. To wait for that, use [`shutdown`](TaskSet::shutdown).
pub struct TaskSet<T> {
    /// By key. Free places are listed in `free`.
    children: Vec<Option<JoinHandle<T>>>,
    free: Vec<usize>,
    finished: Rc<Finished>,
}

/// What the children report to.
#[derive(Default)]
struct Finished {
    /// Keys of the children whose future is gone and whose result was not returned yet. Each child reports
    /// once.
    keys: RefCell<VecDeque<usize>>,
    /// Who waits in `join_next`.
    waiter: Cell<Option<Waker>>,
}

impl Finished {
    fn report(&self, key: usize) {
        self.keys.borrow_mut().push_back(key);
        if let Some(waiter) = self.waiter.take() {
            waiter.wake();
        }
    }
}

/// Reports when it is dropped, which happens in every end of a task.
struct Reporter {
    key: usize,
    finished: Rc<Finished>,
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.finished.report(self.key);
    }
}

impl<T: 'static> TaskSet<T> {
    /// An empty set.
    #[must_use]
    pub fn new() -> TaskSet<T> {
        TaskSet { children: Vec::new(), free: Vec::new(), finished: Rc::default() }
    }

    /// Spawns a child on the current loop.
    ///
    /// # Panics
    /// Outside of a running loop.
    #[track_caller]
    pub fn spawn<F>(&mut self, future: F)
    where
        F: Future<Output = T> + 'static,
    {
        let handle = crate::Handle::current();
        self.spawn_on(&handle.shared.executor, future);
    }

    /// Spawns a child on this executor.
    pub(crate) fn spawn_on<F>(&mut self, executor: &Executor, future: F)
    where
        F: Future<Output = T> + 'static,
    {
        let key = self.free.pop().unwrap_or_else(|| {
            self.children.push(None);
            self.children.len() - 1
        });
        let reporter = Reporter { key, finished: Rc::clone(&self.finished) };
        self.children[key] = Some(executor.spawn(async move {
            let _reporter = reporter;
            future.await
        }));
    }

    /// Waits until one of the tasks has finished, and removes it from the set. `None` if the set is empty.
    ///
    /// # Cancel safety
    /// Cancel safe: a result is taken only in the poll that returns it.
    pub async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        poll_fn(|cx| self.poll_join_next(cx)).await
    }

    /// The poll of [`join_next`](TaskSet::join_next).
    pub fn poll_join_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, JoinError>>> {
        if self.is_empty() {
            return Poll::Ready(None);
        }
        loop {
            let Some(key) = self.finished.keys.borrow_mut().pop_front() else {
                let waiter = cx.waker().clone();
                drop(self.finished.waiter.replace(Some(waiter)));
                return Poll::Pending;
            };
            let Some(child) = &mut self.children[key] else { continue };
            match Pin::new(child).poll(cx) {
                Poll::Ready(result) => {
                    self.children[key] = None;
                    self.free.push(key);
                    return Poll::Ready(Some(result));
                }
                // This code runs in a destructor of the child's own future. The child wakes us once its
                // result is there.
                Poll::Pending => {
                    self.finished.keys.borrow_mut().push_front(key);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Asks for all tasks to be cancelled, as by [`JoinHandle::abort`]. They stay in the set until
    /// `join_next` has returned them.
    pub fn abort_all(&mut self) {
        for child in self.children.iter().flatten() {
            child.abort();
        }
    }

    /// Cancels all tasks and waits until their futures are dropped. Their results are dropped too.
    ///
    /// # Cancel safety
    /// If it is dropped before it ends, the tasks are cancelled all the same; what is left of the set can be
    /// joined.
    pub async fn shutdown(&mut self) {
        self.abort_all();
        while self.join_next().await.is_some() {}
    }
}

impl<T> TaskSet<T> {
    /// The number of tasks in the set, with those that have finished but were not joined.
    #[must_use]
    pub fn len(&self) -> usize {
        self.children.len() - self.free.len()
    }

    /// Whether no task is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Drop for TaskSet<T> {
    fn drop(&mut self) {
        for child in self.children.iter().flatten() {
            child.abort();
        }
    }
}

impl<T: 'static> Default for TaskSet<T> {
    fn default() -> Self {
        TaskSet::new()
    }
}

impl<T> fmt::Debug for TaskSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskSet").field("len", &self.len()).finish_non_exhaustive()
    }
}
