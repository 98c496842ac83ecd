//! Messages between loops, and from threads outside.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use evenkeel::Backend;
use evenkeel::Handle;
use evenkeel::task::yield_now;

use crate::support::*;

on_every_backend! {
    a_task_of_another_loop_answers,
    a_panic_of_a_task_reaches_who_asked,
    a_broadcast_reaches_each_loop_once,
}

fn a_task_of_another_loop_answers(backend: Backend) {
    let group = group_on(backend, 3);
    // What a task holds across a wait need not be `Send`.
    let sum = |of: u32| {
        move || async move {
            let parts = Rc::new((of, std::thread::current().name().map(str::to_owned)));
            yield_now().await;
            (parts.0 * 2, parts.1.clone().unwrap())
        }
    };
    assert_eq!(group.spawn_on(2, sum(4)).unwrap().wait().unwrap(), (8, "evenkeel-2".to_owned()));
    // From one loop to the next and the next, and back.
    let (one, two) = (group.remote(1), group.remote(2));
    let relay = move || async move {
        let through = move || async move { two.spawn(sum(21)).unwrap().await.unwrap() };
        one.spawn(through).unwrap().await.unwrap()
    };
    assert_eq!(group.spawn_on(0, relay).unwrap().wait().unwrap(), (42, "evenkeel-2".to_owned()));
    // To itself.
    let own = group.remote(1);
    let itself = move || async move { own.spawn(sum(1)).unwrap().await.unwrap().0 };
    assert_eq!(group.spawn_on(1, itself).unwrap().wait().unwrap(), 2);
    join(group);
}

fn a_panic_of_a_task_reaches_who_asked(backend: Backend) {
    let group = group_on(backend, 2);
    let text = |error: evenkeel::task::JoinError| *error.into_panic().unwrap().downcast::<&str>().unwrap();
    let late = || async {
        yield_now().await;
        panic!("in the future");
    };
    assert_eq!(text(group.spawn_on(1, late).unwrap().wait().unwrap_err()), "in the future");
    let early = || -> std::future::Ready<()> { panic!("while it is made") };
    assert_eq!(text(group.spawn_on(1, early).unwrap().wait().unwrap_err()), "while it is made");
    let remote = group.remote(1);
    let asks = move || async move { remote.spawn(late).unwrap().await.unwrap_err().is_panic() };
    assert!(group.spawn_on(0, asks).unwrap().wait().unwrap());
    join(group);
}

fn a_broadcast_reaches_each_loop_once(backend: Backend) {
    let group = group_on(backend, 4);
    let calls: Arc<[AtomicUsize; 4]> = Arc::default();
    let count = calls.clone();
    let call = move |handle: &Handle, index: usize| {
        assert!(Handle::current().backend() == handle.backend());
        assert_eq!(std::thread::current().name(), Some(&*format!("evenkeel-{index}")));
        count[index].fetch_add(1, Ordering::Relaxed);
    };
    let call = Arc::new(call);
    for _ in 0..100 {
        let call = call.clone();
        let taken = group.broadcast(move |handle, index| call(handle, index));
        assert_eq!(taken, [Ok(()); 4]);
    }
    settle(&group);
    assert!(calls.iter().all(|calls| calls.load(Ordering::Relaxed) == 100), "{calls:?}");
    join(group);
}

#[test]
fn a_task_whose_loop_ends_first_is_cancelled() {
    let _alone = alone();
    let group = group(2);
    let remote = group.remote(1);
    let answer = group.spawn_on(1, std::future::pending::<()>).unwrap();
    join(group);
    assert!(answer.is_finished());
    assert!(answer.wait().unwrap_err().is_cancelled());
    assert_eq!(remote.spawn(|| async {}).unwrap_err(), evenkeel::RemoteError::LoopEnded);
}

#[test]
fn a_loop_is_not_blocked_by_an_answer() {
    let _alone = alone();
    let group = group(2);
    let other = group.remote(1);
    let blocks = move || async move { other.spawn(|| async {}).unwrap().wait().is_ok() };
    assert!(group.spawn_on(0, blocks).unwrap().wait().unwrap_err().is_panic());
    join(group);
}
