//! The timer that hyper wants to be `Send`, on a loop that is not.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use evenkeel::compat::hyper::LoopTimer;
use evenkeel::{Backend, EventLoop, Handle, time};
use hyper::rt::{Sleep, Timer};

use crate::on_every_backend;

const LONG: Duration = Duration::from_secs(3600);

/// A sleep whose timer is on the loop.
async fn armed(time: Duration) -> Pin<Box<dyn Sleep>> {
    let mut sleep = LoopTimer.sleep(time);
    let pending = poll_fn(|cx| sleep.as_mut().poll(cx).is_pending().into_ready()).await;
    assert!(pending);
    sleep
}

trait IntoReady: Sized {
    fn into_ready(self) -> std::task::Poll<Self> {
        std::task::Poll::Ready(self)
    }
}
impl IntoReady for bool {}

#[test]
fn a_sleep_ends_no_earlier_than_it_says() {
    on_every_backend(|| async {
        let began = LoopTimer.now();
        LoopTimer.sleep(Duration::from_millis(20)).await;
        assert!(LoopTimer.now() - began >= Duration::from_millis(20));
        LoopTimer.sleep_until(began).await;
        LoopTimer.sleep_until(began + Duration::from_millis(40)).await;
        assert!(LoopTimer.now() - began >= Duration::from_millis(40));
    });
}

#[test]
fn a_sleep_that_is_reset_goes_by_the_new_time() {
    on_every_backend(|| async {
        let mut sleep = armed(LONG).await;
        let before = Handle::current().stats().armed;
        LoopTimer.reset(&mut sleep, LoopTimer.now() + Duration::from_millis(10));
        assert_eq!(Handle::current().stats().armed, before, "the same timer");
        sleep.as_mut().await;
        let began = LoopTimer.now();
        LoopTimer.reset(&mut sleep, began + Duration::from_millis(10));
        sleep.await;
        assert!(LoopTimer.now() - began >= Duration::from_millis(10));
    });
}

#[test]
fn a_sleep_without_end_never_ends() {
    on_every_backend(|| async {
        let sleep = armed(Duration::MAX).await;
        assert!(time::timeout(Duration::from_millis(5), sleep).await.is_err());
    });
}

#[test]
fn dropping_a_sleep_cancels_its_timer() {
    on_every_backend(|| async {
        let before = Handle::current().stats().armed;
        let sleep = armed(LONG).await;
        assert_eq!(Handle::current().stats().armed, before + 1);
        drop(sleep);
        assert_eq!(Handle::current().stats().armed, before);
    });
}

#[test]
fn dropping_a_sleep_on_another_thread_cancels_its_timer() {
    on_every_backend(|| async {
        let before = Handle::current().stats().armed;
        let sleep = armed(LONG).await;
        std::thread::spawn(move || drop(sleep)).join().unwrap();
        // The loop has been told; it takes calls once a turn.
        for _ in 0..2 {
            evenkeel::task::yield_now().await;
        }
        assert_eq!(Handle::current().stats().armed, before);
    });
}

#[test]
fn a_sleep_outlives_its_loop() {
    for backend in Backend::ALL {
        let mut events = EventLoop::builder().backend(*backend).build().unwrap();
        let sleep = events.block_on(armed(LONG)).unwrap();
        drop(events);
        drop(sleep);
    }
}

/// What a poll away from the sleep's loop says.
fn poll_panics(sleep: &mut Pin<Box<dyn Sleep>>) -> bool {
    let poll = || sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    let panic = catch_unwind(AssertUnwindSafe(poll)).unwrap_err();
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or(panic.downcast_ref::<&str>().copied())
        .is_some_and(|what| what.contains("away from the event loop on which it was made"))
}

#[test]
fn polling_a_sleep_away_from_its_loop_panics_and_says_why() {
    let mut one = EventLoop::new().unwrap();
    let mut other = EventLoop::new().unwrap();
    let mut sleep = one.block_on(armed(LONG)).unwrap();
    assert!(poll_panics(&mut sleep), "outside of a running loop");
    assert!(other.block_on(async { poll_panics(&mut sleep) }).unwrap(), "on another loop");
    let thread = std::thread::spawn(move || poll_panics(&mut sleep));
    assert!(thread.join().unwrap(), "on another thread");
}
