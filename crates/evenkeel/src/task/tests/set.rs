//! Sets of tasks.

use std::task::Wake;

use super::*;
use crate::task::{TaskSet, yield_now};

async fn after(rounds: u32) -> u32 {
    for _ in 0..rounds {
        yield_now().await;
    }
    rounds
}

#[test]
fn results_come_in_the_order_of_their_ends() {
    let executor = executor();
    let mut set = TaskSet::new();
    for rounds in [5, 1, 3] {
        set.spawn_on(&executor, after(rounds));
    }
    assert_eq!(set.len(), 3);
    let mut all = executor.spawn(async move {
        let mut order = Vec::new();
        while let Some(result) = set.join_next().await {
            order.push(result.unwrap());
        }
        order
    });
    settle(&executor);
    assert_eq!(result(&mut all).unwrap(), [1, 3, 5]);
}

#[test]
fn places_are_used_again_and_errors_are_results() {
    let executor = Rc::new(executor());
    let e = Rc::clone(&executor);
    let mut all = executor.spawn(async move {
        let mut set = TaskSet::new();
        let mut results = Vec::new();
        for round in 0..100 {
            set.spawn_on(&e, after(round % 4));
            set.spawn_on(&e, async { panic!("child") });
            results.push(set.join_next().await.unwrap());
        }
        assert_eq!(set.len(), 100);
        set.abort_all();
        while let Some(result) = set.join_next().await {
            results.push(result);
        }
        assert!(set.is_empty() && set.join_next().await.is_none());
        results
    });
    settle(&executor);
    let results = result(&mut all).unwrap();
    let panics = results.iter().filter(|r| r.as_ref().is_err_and(JoinError::is_panic)).count();
    assert_eq!(results.len(), 200);
    assert_eq!(panics as u64, executor.panics());
    assert!(panics >= 50 && executor.len() == 0);
}

#[test]
fn dropping_a_set_cancels_its_children_and_theirs() {
    let executor = Rc::new(executor());
    let drops = Rc::new(Cell::new(0));
    let mut set = TaskSet::new();
    for _ in 0..3 {
        let (e, guards) = (Rc::clone(&executor), [Guard::new(&drops), Guard::new(&drops)]);
        set.spawn_on(&executor, async move {
            let [mine, child] = guards;
            let mut inner = TaskSet::new();
            inner.spawn_on(&e, async move {
                let _child = child;
                std::future::pending::<()>().await;
            });
            inner.join_next().await;
            drop(mine);
        });
    }
    settle(&executor);
    assert_eq!((executor.len(), drops.get()), (6, 0));
    drop(set);
    assert_eq!(drops.get(), 0, "not within the drop");
    settle(&executor);
    assert_eq!((executor.len(), drops.get()), (0, 6));
}

#[test]
fn a_shutdown_waits_for_the_children() {
    let executor = Rc::new(executor());
    let drops = Rc::new(Cell::new(0));
    let (e, d) = (Rc::clone(&executor), Rc::clone(&drops));
    let mut parent = executor.spawn(async move {
        let mut set = TaskSet::new();
        for _ in 0..3 {
            let guard = Guard::new(&d);
            set.spawn_on(&e, async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            });
        }
        yield_now().await;
        set.shutdown().await;
        (d.get(), set.len())
    });
    settle(&executor);
    assert_eq!(result(&mut parent).unwrap(), (3, 0));
}

thread_local! {
    static SET: RefCell<TaskSet<()>> = RefCell::default();
    static READY: Cell<usize> = const { Cell::new(0) };
}

/// Joins as soon as it is woken, in the child's own end.
struct Eager;

impl Wake for Eager {
    fn wake(self: Arc<Self>) {
        let waker = Waker::from(self);
        let polled = SET.with_borrow_mut(|set| set.poll_join_next(&mut Context::from_waker(&waker)));
        READY.set(READY.get() + usize::from(matches!(polled, Poll::Ready(Some(Ok(()))))));
    }
}

#[test]
fn i37_i39_a_set_polled_in_its_childs_end_loses_nothing() {
    let executor = executor();
    SET.with_borrow_mut(|set| {
        for _ in 0..3 {
            set.spawn_on(&executor, yield_now());
        }
    });
    Waker::from(Arc::new(Eager)).wake();
    executor.run(3);
    assert_eq!(READY.get(), 0);
    // Each child's report finds no result yet; its completion then wakes once more.
    settle(&executor);
    assert_eq!((READY.get(), executor.panics()), (1, 0));
    Waker::from(Arc::new(Eager)).wake();
    Waker::from(Arc::new(Eager)).wake();
    assert_eq!(READY.get(), 3);
    assert!(SET.with_borrow(TaskSet::is_empty));
}
