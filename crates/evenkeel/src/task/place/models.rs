//! Answers: whoever leaves one, whoever waits for it, and either who gives up.

#![allow(clippy::unwrap_used)]

use std::pin::pin;
use std::task::{Context, Poll, Wake, Waker};

use loom::thread;

use super::Place;
use crate::sync::{Arc, Bell, model};
use crate::task::answer::channel;

/// A waker of a user's, which looks at the very place that wakes, and drops, it: that must not be locked then.
struct Nosy {
    place: Arc<Place<Token>>,
    bell: std::sync::Arc<Bell>,
}

impl Wake for Nosy {
    fn wake(self: std::sync::Arc<Self>) {
        self.place.is_ready();
        self.bell.ring();
    }
}

impl Drop for Nosy {
    fn drop(&mut self) {
        self.place.is_ready();
    }
}

/// A result, whose drops are counted. The count is no part of the program.
struct Token {
    _count: std::sync::Arc<()>,
}

fn nosy(place: &Arc<Place<Token>>) -> (std::sync::Arc<Bell>, Waker) {
    let (bell, _) = Bell::new();
    let waker = Waker::from(std::sync::Arc::new(Nosy { place: place.clone(), bell: bell.clone() }));
    (bell, waker)
}

struct Rings(std::sync::Arc<Bell>);

impl Wake for Rings {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.ring();
    }
}

/// Polls until the future is ready, waiting to be woken in between.
fn block_on<F: Future>(future: F) -> F::Output {
    let (bell, _) = Bell::new();
    let waker = Waker::from(std::sync::Arc::new(Rings(bell.clone())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => bell.wait(),
        }
    }
}

/// A task that moves on to another waker is woken by that one.
#[test]
fn i02_an_answer_wakes_whoever_polled_last() {
    model(|| {
        let count = std::sync::Arc::new(());
        let place = Arc::new(Place::new());
        let (leaves, token) = (place.clone(), Token { _count: count.clone() });
        let sender = thread::spawn(move || leaves.leave(token));
        let (_, first) = nosy(&place);
        let (bell, second) = nosy(&place);
        let mut result = place.poll(&mut Context::from_waker(&first));
        if result.is_pending() {
            result = place.poll(&mut Context::from_waker(&second));
        }
        if result.is_pending() {
            bell.wait();
            result = place.poll(&mut Context::from_waker(&second));
        }
        assert!(result.is_ready());
        drop(result);
        sender.join().unwrap();
        assert_eq!(std::sync::Arc::strong_count(&count), 1);
    });
}

/// Nobody comes for the result, as it comes: it is dropped once, and so is the waker, with all that it keeps.
#[test]
fn i39_a_forsaken_place_keeps_no_waker() {
    model(|| {
        let count = std::sync::Arc::new(());
        let place = Arc::new(Place::new());
        let (leaves, token) = (place.clone(), Token { _count: count.clone() });
        let (_, waker) = nosy(&place);
        let polled = place.poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        let sender = thread::spawn(move || leaves.leave(token));
        // What the place has is the last of it, which looks at the place when it goes.
        drop(waker);
        place.forsake();
        sender.join().unwrap();
        // A waker that was left would keep the place, and loom would find it.
        drop(place);
        assert_eq!(std::sync::Arc::strong_count(&count), 1);
    });
}

/// The asker goes as the answer comes.
#[test]
fn i23_an_answer_meets_the_drop_of_its_asker() {
    model(|| {
        let count = std::sync::Arc::new(());
        let (sender, mut answer) = channel::<Token>();
        let token = Token { _count: count.clone() };
        let task = thread::spawn(move || sender.send(Ok(token)));
        let waker = Waker::from(std::sync::Arc::new(Rings(Bell::new().0)));
        let polled = pin!(&mut answer).poll(&mut Context::from_waker(&waker));
        drop((polled, answer));
        task.join().unwrap();
        assert_eq!(std::sync::Arc::strong_count(&count), 1);
    });
}

/// A loop that ends drops what it has not run: whoever awaits, or waits for, an answer of it hears that.
#[test]
fn i23_an_answer_meets_the_end_of_its_loop() {
    model(|| {
        let (sender, answer) = channel::<u32>();
        let lp = thread::spawn(move || drop(sender));
        assert!(block_on(answer).unwrap_err().is_cancelled());
        lp.join().unwrap();

        let (sender, answer) = channel::<u32>();
        let lp = thread::spawn(move || drop(sender));
        assert!(answer.wait().unwrap_err().is_cancelled());
        lp.join().unwrap();
    });
}

/// A thread that waits, and one that looks at the answer meanwhile.
#[test]
fn i02_a_thread_that_waits_hears_the_answer() {
    model(|| {
        let (sender, answer) = channel();
        let task = thread::spawn(move || sender.send(Ok(7)));
        let _ = answer.is_finished();
        assert_eq!(answer.wait().unwrap(), 7);
        task.join().unwrap();
    });
}
