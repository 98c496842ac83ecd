//! Watches on rings that have little room, or that refuse and take in parts.

#![allow(clippy::unwrap_used)]

use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::event::{EventfdFlags, eventfd};

use super::tests::{Fate, SETS, features, odd};
use crate::EventLoop;
use crate::fd::AsyncFd;

fn counter() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap()
}

fn take(fd: &OwnedFd) -> std::io::Result<u64> {
    let mut count = [0; 8];
    rustix::io::read(fd, &mut count)?;
    Ok(u64::from_ne_bytes(count))
}

/// Adds to many counters at once, again and again, while some of their watches come and go.
fn count(events: &mut EventLoop) {
    events
        .block_on(async {
            let watches: Vec<_> = (0..40).map(|_| Rc::new(AsyncFd::new(counter()).unwrap())).collect();
            for round in 0..20u64 {
                let one = |watch: &Rc<AsyncFd<OwnedFd>>| {
                    let watch = watch.clone();
                    crate::spawn(async move { watch.read_with(take).await.unwrap() })
                };
                let tasks: Vec<_> = watches.iter().map(one).collect();
                crate::time::sleep(std::time::Duration::from_millis(round % 2)).await;
                // Waits that are ended with their watch, in flight or not.
                for _ in 0..round % 4 {
                    let gone = Rc::new(AsyncFd::new(counter()).unwrap());
                    let task = one(&gone);
                    crate::task::yield_now().await;
                    drop(task);
                }
                for watch in &watches {
                    rustix::io::write(watch.get_ref(), &(round + 1).to_ne_bytes()).unwrap();
                }
                for task in tasks {
                    assert_eq!(task.await.unwrap(), round + 1);
                }
            }
        })
        .unwrap();
}

/// A poll that goes on ends where its completion finds no room, and is asked for again.
#[test]
fn i14_i12_small_queues_lose_no_readiness() {
    for without in SETS {
        for sizes in [(1, 2), (2, 4), (8, 16)] {
            count(&mut odd(features(without), sizes, |_, _| Fate::Passes));
        }
    }
}

#[test]
fn i12_submissions_in_parts_lose_no_readiness() {
    let mut rng = fastrand::Rng::with_seed(12);
    let mut events = odd(features(""), (16, 64), move |submit, _| match rng.u8(..4) {
        0 if submit > 1 => Fate::Takes(rng.u32(1..submit)),
        1 => Fate::Refused(rustix::io::Errno::INTR),
        _ => Fate::Passes,
    });
    count(&mut events);
}
