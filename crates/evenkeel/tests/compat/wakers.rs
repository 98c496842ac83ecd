//! Wakers away from the loop: on other threads, by channels, and after everything has ended.

use std::future::poll_fn;
use std::sync::mpsc;
use std::task::{Poll, Waker};
use std::thread;

use evenkeel::{Backend, EventLoop};

use crate::on_every_backend;

#[test]
fn i2_another_thread_wakes_a_loop_that_waits_for_nothing_else() {
    on_every_backend(|| async {
        for _ in 0..200 {
            let (send, receive) = mpsc::channel::<Waker>();
            let waking = thread::spawn(move || receive.recv().unwrap().wake());
            let mut send = Some(send);
            poll_fn(|cx| match send.take() {
                Some(send) => {
                    send.send(cx.waker().clone()).unwrap();
                    Poll::Pending
                }
                None => Poll::Ready(()),
            })
            .await;
            waking.join().unwrap();
        }
    });
}

#[test]
fn a_channel_joins_a_thread_and_a_task() {
    on_every_backend(|| async {
        let (to_thread, inbox) = async_channel::bounded::<u32>(4);
        let (to_loop, outbox) = async_channel::bounded::<u32>(4);
        let doubling = thread::spawn(move || {
            while let Ok(n) = inbox.recv_blocking() {
                to_loop.send_blocking(2 * n).unwrap();
            }
        });
        let feeding = evenkeel::spawn(async move {
            for n in 0..5000 {
                to_thread.send(n).await.unwrap();
            }
        });
        let mut expected = 0;
        while let Ok(n) = outbox.recv().await {
            assert_eq!(n, 2 * expected);
            expected += 1;
        }
        assert_eq!(expected, 5000);
        feeding.await.unwrap();
        doubling.join().unwrap();
    });
}

#[test]
fn a_channel_joins_loops_on_two_threads_of_different_kinds() {
    for (near, far) in Backend::ALL.iter().zip(Backend::ALL.iter().rev()) {
        let (send, receive) = async_channel::bounded::<u32>(1);
        let sending = thread::spawn(move || {
            let mut events = EventLoop::builder().backend(*far).build().unwrap();
            events.block_on(async {
                for n in 0..2000 {
                    send.send(n).await.unwrap();
                }
            })
        });
        let mut events = EventLoop::builder().backend(*near).build().unwrap();
        let sum = events.block_on(async {
            let mut sum = 0;
            while let Ok(n) = receive.recv().await {
                sum += n;
            }
            sum
        });
        sending.join().unwrap().unwrap();
        assert_eq!(sum.unwrap(), 1999 * 1000);
    }
}

#[test]
fn a_waker_may_outlive_its_task_and_its_loop() {
    for backend in Backend::ALL {
        let mut events = EventLoop::builder().backend(*backend).build().unwrap();
        let (send, receive) = mpsc::channel();
        events
            .block_on(async {
                let send = send.clone();
                let task = evenkeel::spawn(poll_fn(move |cx| {
                    send.send(cx.waker().clone()).unwrap();
                    Poll::Ready(())
                }));
                task.await.unwrap();
            })
            .unwrap();
        let waker = receive.recv().unwrap();
        waker.wake_by_ref();
        events.block_on(evenkeel::task::yield_now()).unwrap();
        drop(events);
        thread::spawn(move || waker.wake()).join().unwrap();
    }
}
