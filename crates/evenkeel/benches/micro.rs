//! What the smallest operations cost, in nanoseconds each: `cargo bench -p evenkeel --bench micro`.
//!
//! The two modules are compiled into this program, because what is measured here is not public.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "the modules are used in part"
)]

#[path = "../src/task/mod.rs"]
mod task;
#[path = "../src/time/wheel.rs"]
mod wheel;

use std::cell::Cell;
use std::future::poll_fn;
use std::hint::black_box;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use task::{Executor, JoinHandle, yield_now};
use wheel::{Key, Wheel};

/// Whether the command line asks for this one: a part of its name, or nothing.
fn wanted(name: &str) -> bool {
    std::env::args().skip(1).filter(|a| !a.starts_with('-')).all(|part| name.contains(&part))
}

/// Runs `work(n)` five times after a warm-up and prints the median.
fn report(name: &str, n: u64, mut work: impl FnMut(u64)) {
    if !wanted(name) {
        return;
    }
    work(n / 4);
    let mut each: Vec<f64> = (0..5)
        .map(|_| {
            let start = Instant::now();
            work(n);
            start.elapsed().as_nanos() as f64 / n as f64
        })
        .collect();
    each.sort_by(f64::total_cmp);
    println!("{name:<44} {:>9.1} ns", each[2]);
}

/// Runs a future as a task, to its end.
fn block_on(executor: &Rc<Executor>, future: impl Future<Output = ()> + 'static) {
    let handle = executor.spawn(future);
    while executor.run(64) {}
    assert!(handle.is_finished());
}

fn tasks(executor: &Rc<Executor>) {
    report("spawn+join", 1_000_000, |n| {
        let e = Rc::clone(executor);
        block_on(executor, async move {
            for _ in 0..n {
                e.spawn(async {}).await.unwrap();
            }
        });
    });
    report("spawn 1000, join 1000", 1_000_000, |n| {
        let e = Rc::clone(executor);
        block_on(executor, async move {
            for _ in 0..n / 1000 {
                let handles: Vec<_> = (0..1000).map(|_| e.spawn(async {})).collect();
                for handle in handles {
                    handle.await.unwrap();
                }
            }
        });
    });
    report("yield, 1 task", 5_000_000, |n| {
        block_on(executor, async move {
            for _ in 0..n {
                yield_now().await;
            }
        });
    });
    report("yield, 100 tasks", 5_000_000, |n| {
        let e = Rc::clone(executor);
        block_on(executor, async move {
            let each = move |_| {
                e.spawn(async move {
                    for _ in 0..n / 100 {
                        yield_now().await;
                    }
                })
            };
            for handle in (0..100).map(each).collect::<Vec<_>>() {
                handle.await.unwrap();
            }
        });
    });
    report("clone and drop a waker", 5_000_000, |n| {
        block_on(
            executor,
            poll_fn(move |cx| {
                for _ in 0..n {
                    drop(black_box(cx.waker().clone()));
                }
                Poll::Ready(())
            }),
        );
    });
}

/// Tasks too many for the cache, woken in an order that is not theirs.
fn many(executor: &Rc<Executor>) {
    const TASKS: usize = 1_000_000;
    let wakers: Rc<Cell<Vec<Waker>>> = Rc::default();
    let start = Instant::now();
    let handles: Vec<JoinHandle<()>> = (0..TASKS)
        .map(|_| {
            let wakers = Rc::clone(&wakers);
            let mut waited = false;
            executor.spawn(poll_fn(move |cx| {
                if std::mem::replace(&mut waited, true) {
                    return Poll::Ready(());
                }
                let mut list = wakers.take();
                list.push(cx.waker().clone());
                wakers.set(list);
                Poll::Pending
            }))
        })
        .collect();
    while executor.run(64) {}
    println!("{:<44} {:>9.1} ns", "1M tasks: spawn and first poll", start.elapsed().as_nanos() as f64 / 1e6);
    let mut wakers = wakers.take();
    let mut seed = 88_172_645_463_325_252;
    for i in (1..wakers.len()).rev() {
        wakers.swap(i, random(&mut seed) as usize % i);
    }
    let start = Instant::now();
    for waker in wakers {
        waker.wake();
        if executor.ready_len() == 64 {
            executor.run(64);
        }
    }
    while executor.run(64) {}
    println!(
        "{:<44} {:>9.1} ns",
        "1M tasks: wake and finish, shuffled",
        start.elapsed().as_nanos() as f64 / 1e6
    );
    let mut cx = Context::from_waker(Waker::noop());
    for handle in handles {
        assert!(pin!(handle).poll(&mut cx).is_ready());
    }
}

fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

fn timers() {
    let mut wheel: Wheel<u64> = Wheel::new(1_000_000);
    report("timer insert+cancel", 5_000_000, |n| {
        for i in 0..n {
            let key = wheel.insert(1_060_000 + i * 7 / 1000, i);
            black_box(wheel.cancel(black_box(key)));
        }
    });
    let mut seed = 88_172_645_463_325_252;
    let keys: Vec<Key> = (0..30_000).map(|i| wheel.insert(1_090_000 + i * 911 / 1000, i)).collect();
    report("timer insert+cancel among 30000", 5_000_000, |n| {
        for i in 0..n {
            let key = wheel.insert(1_090_000 + random(&mut seed) % 90_000, i);
            black_box(wheel.cancel(black_box(key)));
        }
    });
    report("timer reset among 30000", 5_000_000, |n| {
        for i in 0..n {
            let key = keys[(random(&mut seed) % 30_000) as usize];
            assert!(wheel.reset(key, 1_100_000 + i % 60_000));
        }
    });
    let mut now = 0;
    report("timer insert and fire, 100000 in 10 s", 1_000_000, |n| {
        let mut wheel: Wheel<u64> = Wheel::new(now);
        for i in 0..n.min(100_000) {
            wheel.insert(now + random(&mut seed) % 10_000, i);
        }
        let mut fired = 0;
        while fired < n {
            now = wheel.next_deadline().unwrap();
            wheel.begin_pass(now);
            while let Some(value) = wheel.pop() {
                fired += 1;
                wheel.insert(now + 1 + random(&mut seed) % 10_000, value);
            }
        }
    });
}

fn main() {
    let executor = Rc::new(Executor::new(Arc::new(|| {})));
    tasks(&executor);
    if wanted("1M tasks") {
        many(&executor);
    }
    timers();
}
