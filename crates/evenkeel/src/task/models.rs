//! Wakers on two threads, and the loop whose task they wake.
//!
//! The loop waits and looks as a real one does: one mark for all wakes (`Mailbox`), taken back before the inbox of the wakers is
//! drained. What a task reads is written without any order of its own, so that only the wake's makes it visible.

#![allow(clippy::unwrap_used)]

use std::any::TypeId;
use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Poll, Waker};

use loom::thread;

use super::raw::census;
use super::{Executor, JoinHandle};
use crate::mailbox::Mailbox;
use crate::sync::{Arc, AtomicUsize, Bell, ThreadId, model, thread_id};

struct Loop {
    executor: Executor,
    mailbox: Arc<Mailbox<()>>,
    bell: std::sync::Arc<Bell>,
}

impl Loop {
    fn new() -> Self {
        let (bell, wake) = Bell::new();
        let mailbox = Arc::new(Mailbox::new(1, wake));
        let woken = mailbox.clone();
        let executor = Executor::new(std::sync::Arc::new(move || woken.wake()));
        Loop { executor, mailbox, bell }
    }

    /// A wait and what follows it.
    fn turn(&self) {
        if self.executor.has_ready() || self.mailbox.is_woken() {
            self.bell.take();
        } else {
            self.bell.wait();
        }
        if self.mailbox.take_wake() {
            self.executor.drain_remote();
        }
        self.executor.run(8);
    }

    /// Ends it; what its tasks or the checker found wrong in them is told here.
    fn end(self) {
        self.executor.cancel_all();
        assert_eq!(self.executor.panics(), 0);
    }
}

/// What a future holds, which must not leave the loop's thread.
struct Held(ThreadId);

impl Drop for Held {
    fn drop(&mut self) {
        assert_eq!(self.0, thread_id());
    }
}

type Said = Arc<[AtomicUsize; 2]>;

/// A task that ends when so many threads have spoken, and the wakers that it has left in its first poll.
struct Listener {
    handle: JoinHandle<()>,
    wakers: Vec<Waker>,
    said: Said,
    future: TypeId,
}

/// `MODEL` gives each model's future a type of its own, because tasks are counted by that and models run side by side.
fn listener<const MODEL: u32>(lp: &Loop, enough: usize) -> Listener {
    let said: Said = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let left = Rc::new(RefCell::new(Vec::new()));
    let (says, leaves, held) = (said.clone(), left.clone(), Held(thread_id()));
    let future = poll_fn(move |cx| {
        let _held = &held;
        let mut wakers = leaves.borrow_mut();
        if wakers.is_empty() {
            wakers.extend([cx.waker().clone(), cx.waker().clone()]);
        }
        let heard = says.iter().filter(|one| one.load(Relaxed) > 0).count();
        if heard >= enough { Poll::Ready(()) } else { Poll::Pending }
    });
    let id = type_of(&future);
    let handle = lp.executor.spawn(future);
    lp.executor.run(1);
    // Something is left in the list, so that there are no more.
    let wakers = left.replace(vec![Waker::noop().clone()]);
    Listener { handle, wakers, said, future: id }
}

fn type_of<F: 'static>(_: &F) -> TypeId {
    TypeId::of::<F>()
}

/// Two threads that speak and wake, each with a waker of its own.
fn speak(listener: &mut Listener, wake: fn(Waker)) -> Vec<thread::JoinHandle<()>> {
    let wakers = std::mem::take(&mut listener.wakers).into_iter().enumerate();
    let speakers = wakers.map(|(id, waker)| {
        let said = listener.said.clone();
        thread::spawn(move || {
            said[id].store(1, Relaxed);
            wake(waker);
        })
    });
    speakers.collect()
}

fn join(threads: Vec<thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn assert_freed(future: TypeId) {
    assert_eq!(census::tasks(future), Some(0), "tasks leaked or were freed twice");
}

/// However the wakes of two threads fall before, into and after polls and each other: the task is polled after each of them,
/// and that poll sees what was written before it.
#[test]
fn i02_each_wake_is_followed_by_a_poll_that_sees_what_came_before() {
    model(|| {
        let lp = Loop::new();
        let mut listener = listener::<1>(&lp, 2);
        let speakers = speak(&mut listener, Waker::wake);
        while !listener.handle.is_finished() {
            lp.turn();
        }
        join(speakers);
        let Listener { handle, future, .. } = listener;
        drop(handle);
        lp.end();
        assert_freed(future);
    });
}

/// Two tasks, each woken by a thread of its own, with one wake of the loop for both, maybe: neither is left in the inbox.
#[test]
fn i02_each_of_two_tasks_is_polled() {
    model(|| {
        let lp = Loop::new();
        let mut tasks = [listener::<2>(&lp, 1), listener::<2>(&lp, 1)];
        let speakers = tasks.iter_mut().map(|task| {
            task.wakers.truncate(1);
            speak(task, Waker::wake).remove(0)
        });
        let speakers: Vec<_> = speakers.collect();
        while !tasks.iter().all(|task| task.handle.is_finished()) {
            lp.turn();
        }
        join(speakers);
        let [one, other] = tasks;
        let future = one.future;
        drop((one, other));
        lp.end();
        assert_freed(future);
    });
}

/// The first wake ends the task, so that the other one meets a task that runs, ends, or has ended, and a loop that may be gone.
#[test]
fn i39_a_waker_outlives_the_task_that_another_one_ends() {
    model(|| {
        let lp = Loop::new();
        let mut listener = listener::<3>(&lp, 1);
        let speakers = speak(&mut listener, |waker| {
            waker.wake_by_ref();
            drop(waker);
        });
        while !listener.handle.is_finished() {
            lp.turn();
        }
        let Listener { handle, future, .. } = listener;
        drop(handle);
        lp.end();
        join(speakers);
        assert_freed(future);
    });
}

/// The loop ends at any time in the life of two wakes.
#[test]
fn i39_a_waker_outlives_its_loop() {
    model(|| {
        let lp = Loop::new();
        let mut listener = listener::<4>(&lp, 2);
        let speakers = speak(&mut listener, Waker::wake);
        let Listener { handle, future, .. } = listener;
        lp.end();
        drop(handle);
        join(speakers);
        assert_freed(future);
    });
}

/// A task is cancelled while it is woken.
#[test]
fn i23_a_cancelled_task_is_woken() {
    model(|| {
        let lp = Loop::new();
        let mut listener = listener::<5>(&lp, 2);
        listener.handle.abort();
        let speakers = speak(&mut listener, Waker::wake);
        while !listener.handle.is_finished() {
            lp.turn();
        }
        let Listener { handle, future, .. } = listener;
        drop(handle);
        join(speakers);
        lp.end();
        assert_freed(future);
    });
}

/// A waker is cloned where it was not made and dropped where it was not cloned: neither half of the count is whole, and the memory
/// goes once, wherever the last one is.
#[test]
fn i39_wakers_are_counted_across_threads() {
    model(|| {
        let lp = Loop::new();
        let mut listener = listener::<6>(&lp, 2);
        let clones = std::mem::take(&mut listener.wakers).into_iter().map(|waker| {
            thread::spawn(move || {
                let clone = waker.clone();
                drop(waker);
                clone
            })
        });
        let clones: Vec<_> = clones.collect();
        let Listener { handle, future, .. } = listener;
        drop(handle);
        lp.end();
        for clone in clones {
            let waker = clone.join().unwrap();
            waker.wake_by_ref();
            drop(waker.clone());
        }
        assert_freed(future);
    });
}

/// One thread wakes again and again while the task ends: the inbox has its task once at most, and its reference is given back.
#[test]
fn i02_a_task_is_in_the_inbox_once() {
    model(|| {
        let lp = Loop::new();
        let mut listener = listener::<7>(&lp, 1);
        listener.wakers.truncate(1);
        let speakers = speak(&mut listener, |waker| {
            waker.wake_by_ref();
            waker.wake_by_ref();
            waker.wake();
        });
        while !listener.handle.is_finished() {
            lp.turn();
        }
        let Listener { handle, future, .. } = listener;
        drop(handle);
        join(speakers);
        lp.end();
        assert_freed(future);
    });
}
