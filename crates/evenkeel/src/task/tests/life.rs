//! Spawn, poll, join, abort, panic, shutdown.

use super::*;
use crate::task::raw::MAX_LATE_SPAWNS;
use crate::task::yield_now;

type Log = Rc<RefCell<Vec<u32>>>;

#[test]
fn an_output_reaches_its_handle() {
    let executor = executor();
    let mut handle = executor.spawn(async { String::from("done") });
    assert!(!handle.is_finished() && poll(&mut handle).is_pending());
    assert_eq!((executor.len(), executor.has_ready()), (1, true));
    assert!(!executor.run(1));
    assert!(handle.is_finished());
    assert_eq!((executor.len(), executor.has_ready()), (0, false));
    assert_eq!(result(&mut handle).unwrap(), "done");
    assert!(handle.is_finished());
}

#[test]
#[should_panic(expected = "after it had returned the result")]
fn a_result_is_returned_once() {
    let executor = executor();
    let mut handle = executor.spawn(async {});
    settle(&executor);
    let _ = result(&mut handle);
    let _ = poll(&mut handle);
}

#[test]
fn tasks_run_in_the_order_of_their_wakes_within_the_budget() {
    let (executor, log) = (executor(), Log::default());
    for id in 0..3 {
        let log = Rc::clone(&log);
        drop(executor.spawn(async move {
            for round in 0..2 {
                log.borrow_mut().push(10 * round + id);
                yield_now().await;
            }
        }));
    }
    assert!(executor.run(0));
    assert_eq!(*log.borrow(), []);
    assert!(executor.run(2));
    assert_eq!(*log.borrow(), [0, 1]);
    assert!(executor.run(3));
    assert_eq!(*log.borrow(), [0, 1, 2, 10, 11]);
    assert_eq!(executor.ready_len(), 3);
    settle(&executor);
    assert_eq!(*log.borrow(), [0, 1, 2, 10, 11, 12]);
}

#[test]
fn i7_wakes_before_and_during_a_poll_queue_once() {
    let executor = executor();
    let polls = Rc::new(Cell::new(0));
    let count = Rc::clone(&polls);
    drop(executor.spawn(poll_fn(move |cx| {
        count.set(count.get() + 1);
        if count.get() < 3 {
            cx.waker().wake_by_ref();
            cx.waker().clone().wake();
        }
        Poll::<()>::Pending
    })));
    for expected in 1..=3 {
        assert_eq!(executor.ready_len(), 1);
        executor.run(1);
        assert_eq!(polls.get(), expected);
    }
    assert!(!executor.run(1));
    assert_eq!(polls.get(), 3);
}

#[test]
fn a_joiner_is_woken_and_may_change() {
    let executor = Rc::new(executor());
    let mut child = executor.spawn(yield_now());
    // The first one to ask is not the one that is woken.
    assert!(poll(&mut child).is_pending());
    let mut parent = executor.spawn(child);
    settle(&executor);
    result(&mut parent).unwrap().unwrap();
}

#[test]
fn a_task_joins_a_task_of_another_executor_of_its_thread() {
    let (a, b) = (executor(), executor());
    let in_b = b.spawn(async { 7 });
    let mut in_a = a.spawn(async move { in_b.await.unwrap() + 1 });
    settle(&a);
    assert!(!in_a.is_finished() && !a.has_ready());
    settle(&b);
    assert!(a.has_ready());
    settle(&a);
    assert_eq!(result(&mut in_a).unwrap(), 8);
}

#[test]
fn i7_abort_in_every_state() {
    let executor = Rc::new(executor());
    let drops = Rc::new(Cell::new(0));
    let guarded = |guard: Guard, rounds: u32| async move {
        let _guard = guard;
        for _ in 0..rounds {
            yield_now().await;
        }
        5
    };
    let kind = type_of(&guarded(Guard::new(&drops), 0));
    drops.set(0);

    // Before the first poll, queued between polls.
    for polls in [0, 1] {
        let mut handle = executor.spawn(guarded(Guard::new(&drops), 3));
        executor.run(polls);
        handle.abort();
        handle.abort();
        assert_eq!((drops.take(), handle.is_finished()), (0, false), "not within the call");
        settle(&executor);
        assert_eq!(drops.take(), 1);
        assert!(result(&mut handle).unwrap_err().is_cancelled());
    }
    // Finished: the output stands.
    let mut handle = executor.spawn(guarded(Guard::new(&drops), 0));
    settle(&executor);
    handle.abort();
    assert!(!executor.has_ready());
    assert_eq!((result(&mut handle).unwrap(), drops.take()), (5, 1));
    drop(handle);
    assert_freed(kind);

    // Pending, not queued.
    let wakers = Rc::default();
    let parked = park(Rc::clone(&wakers));
    let future = async move { parked.await };
    let kind = type_of(&future);
    let mut handle = executor.spawn(future);
    settle(&executor);
    handle.abort();
    settle(&executor);
    assert!(result(&mut handle).unwrap_err().is_cancelled());
    wakers.borrow()[0].wake_by_ref();
    assert!(!executor.has_ready());
    drop(handle);
    wakers.borrow_mut().clear();
    assert_freed(kind);
    assert_eq!(executor.len(), 0);
}

#[test]
fn i7_i37_a_task_that_aborts_itself() {
    for returns in [false, true] {
        let executor = executor();
        let own: Rc<RefCell<Option<JoinHandle<u32>>>> = Rc::default();
        let mine = Rc::clone(&own);
        let future = poll_fn(move |_| {
            mine.borrow().as_ref().unwrap().abort();
            if returns { Poll::Ready(9) } else { Poll::Pending }
        });
        let kind = type_of(&future);
        *own.borrow_mut() = Some(executor.spawn(future));
        settle(&executor);
        let mut handle = own.take().unwrap();
        match result(&mut handle) {
            Ok(output) => assert!(returns && output == 9),
            Err(error) => assert!(!returns && error.is_cancelled()),
        }
        drop(handle);
        assert_freed(kind);
    }
}

#[test]
fn i7_i40_a_handle_dropped_in_every_state_detaches() {
    let executor = executor();
    for state in 0..5 {
        let (drops, outputs) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let (guard, output) = (Guard::new(&drops), Guard::new(&outputs));
        let future = async move {
            let _guard = guard;
            yield_now().await;
            output
        };
        let kind = type_of(&future);
        let mut handle = executor.spawn(future);
        match state {
            0 => handle.detach(),
            1 => {
                executor.run(1);
                drop(handle);
            }
            2 => {
                assert!(poll(&mut handle).is_pending());
                handle.abort();
                drop(handle);
            }
            3 => {
                settle(&executor);
                assert_eq!((drops.get(), outputs.get()), (1, 0));
                drop(handle);
                assert_eq!(outputs.get(), 1);
            }
            _ => {
                settle(&executor);
                let output = result(&mut handle);
                drop(handle);
                assert_eq!(outputs.get(), 0);
                drop(output);
            }
        }
        settle(&executor);
        assert_eq!((drops.get(), outputs.get()), (1, 1), "state {state}");
        assert_freed(kind);
    }
}

#[test]
fn i38_a_panic_at_each_poll_reaches_the_handle_and_nobody_else() {
    for k in 1..=6 {
        let executor = executor();
        let drops = Rc::new(Cell::new(0));
        let mut handles: Vec<_> = (0..4)
            .map(|id| {
                let guard = Guard::new(&drops);
                executor.spawn(async move {
                    let _guard = guard;
                    for round in 1..=6 {
                        assert!(id != 1 || round != k, "poll {round}");
                        yield_now().await;
                    }
                    id
                })
            })
            .collect();
        settle(&executor);
        assert_eq!((executor.panics(), executor.len(), drops.get()), (1, 0, 4));
        let error = result(&mut handles[1]).unwrap_err();
        assert!(error.is_panic() && !error.is_cancelled());
        assert_eq!(error.to_string(), format!("the task panicked: poll {k}"));
        assert_eq!(format!("{error:?}"), format!("JoinError::Panicked(Some(\"poll {k}\"))"));
        assert_eq!(*error.into_panic().unwrap().downcast::<String>().unwrap(), format!("poll {k}"));
        for id in [0, 2, 3] {
            assert_eq!(result(&mut handles[id]).unwrap(), id);
        }
    }
}

#[test]
fn i38_a_panic_that_nobody_joins_is_counted() {
    let executor = executor();
    drop(executor.spawn(async { panic!("nobody asks") }));
    drop(executor.spawn(async { std::panic::panic_any(OnDrop(|| panic!("the payload's destructor"))) }));
    settle(&executor);
    assert!(executor.panics() >= 2 && executor.len() == 0);
}

#[test]
fn i38_panics_in_destructors() {
    let executor = executor();
    let bomb = || OnDrop(|| panic!("destructor"));
    let pending = |bomb| async move {
        let _bomb = bomb;
        std::future::pending::<()>().await;
    };
    // Of a future that returned, of one that was cancelled, of an output that nobody took, of a future that
    // panicked.
    let mut returned = executor.spawn(async move {
        let _bomb = bomb();
    });
    let future = pending(bomb());
    let kind = type_of(&future);
    let mut cancelled = executor.spawn(future);
    executor.run(2);
    cancelled.abort();
    drop(executor.spawn(async move { bomb() }));
    settle(&executor);
    assert!(result(&mut returned).unwrap_err().is_panic());
    assert!(result(&mut cancelled).unwrap_err().is_panic());
    assert_eq!((executor.panics(), executor.len()), (3, 0));
    // In the shutdown.
    let mut left = executor.spawn(pending(bomb()));
    executor.run(1);
    executor.cancel_all();
    assert!(result(&mut left).unwrap_err().is_panic());
    drop((left, cancelled));
    assert_freed(kind);
}

#[test]
fn a_cancelled_error_says_so() {
    let executor = executor();
    let mut handle = executor.spawn(std::future::pending::<()>());
    handle.abort();
    settle(&executor);
    let error = result(&mut handle).unwrap_err();
    assert_eq!(
        (error.to_string(), format!("{error:?}")),
        ("the task was cancelled".into(), "JoinError::Cancelled".into())
    );
    let error: Box<dyn std::error::Error + Send + Sync> = Box::new(error.into_panic().unwrap_err());
    assert!(error.downcast::<JoinError>().is_ok_and(|e| e.is_cancelled()));
}

#[test]
fn i37_the_executor_inside_itself_is_an_error() {
    let executor = Rc::new(executor());
    for shut_down in [false, true] {
        let inner = Rc::clone(&executor);
        let mut handle = executor.spawn(async move {
            if shut_down {
                inner.cancel_all();
            } else {
                inner.run(1);
            }
        });
        settle(&executor);
        assert!(result(&mut handle).unwrap_err().to_string().contains("entered again"));
    }
}

#[test]
fn i37_a_destructor_may_spawn_abort_wake_and_join() {
    let executor = Rc::new(executor());
    let (wakers, spawned) = (Rc::default(), Rc::new(RefCell::new(Vec::new())));
    let other = executor.spawn(park(Rc::clone(&wakers)));
    let (e, w, s) = (Rc::clone(&executor), Rc::clone(&wakers), Rc::clone(&spawned));
    let own: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
    let mine = Rc::clone(&own);
    let all = OnDrop(move || {
        s.borrow_mut().push(e.spawn(async { 3 }));
        other.abort();
        for waker in w.borrow().iter() {
            waker.wake_by_ref();
        }
        // Its own handle: the result is not there yet, then nobody wants it.
        let mut own = mine.take().unwrap();
        assert!(poll(&mut own).is_pending());
    });
    let wakers_of_all = Rc::clone(&wakers);
    let future = async move {
        let _all = all;
        park(wakers_of_all).await;
    };
    let kind = type_of(&future);
    *own.borrow_mut() = Some(executor.spawn(future));
    settle(&executor);
    own.borrow().as_ref().unwrap().abort();
    settle(&executor);
    assert_eq!((executor.len(), executor.panics()), (0, 0));
    assert_eq!(result(&mut spawned.borrow_mut()[0]).unwrap(), 3);
    wakers.borrow_mut().clear();
    assert_freed(kind);
}

#[test]
fn a_shutdown_drops_every_future_here_and_now() {
    let executor = executor();
    let drops = Rc::new(Cell::new(0));
    let wakers = Rc::default();
    let mut handles: Vec<_> = (0..10)
        .map(|id| {
            let (guard, wakers) = (Guard::new(&drops), Rc::clone(&wakers));
            executor.spawn(async move {
                let _guard = guard;
                for _ in 0..id % 3 {
                    yield_now().await;
                }
                park(wakers).await;
            })
        })
        .collect();
    executor.run(17);
    handles.truncate(5);
    executor.cancel_all();
    assert_eq!((drops.get(), executor.len(), executor.has_ready()), (10, 0, false));
    for handle in &mut handles {
        assert!(result(handle).unwrap_err().is_cancelled());
    }
    // Afterwards a future is dropped at once.
    let mut late = executor.spawn(async { unreachable!("it is never polled") });
    assert!(result(&mut late).unwrap_err().is_cancelled());
    assert!(!executor.run(1) && executor.len() == 0);
    for waker in wakers.take() {
        waker.wake();
    }
    assert!(!executor.has_ready());
}

/// A future whose destructor spawns another one, `left` times.
struct Hydra {
    executor: Rc<Executor>,
    left: usize,
    drops: Rc<Cell<usize>>,
}

impl Future for Hydra {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Drop for Hydra {
    fn drop(&mut self) {
        self.drops.set(self.drops.get() + 1);
        if let Some(left) = self.left.checked_sub(1) {
            let (executor, drops) = (Rc::clone(&self.executor), Rc::clone(&self.drops));
            drop(self.executor.spawn(Hydra { executor, left, drops }));
        }
    }
}

#[test]
fn i37_destructors_that_spawn_in_a_shutdown_are_dropped_in_a_loop_and_bounded() {
    let executor = Rc::new(executor());
    let drops = Rc::new(Cell::new(0));
    let spawn = |left| {
        drops.set(0);
        drop(executor.spawn(Hydra { executor: Rc::clone(&executor), left, drops: Rc::clone(&drops) }));
    };
    // Deeper than a stack would allow; first in the shutdown, then after it.
    spawn(MAX_LATE_SPAWNS);
    executor.cancel_all();
    assert_eq!(drops.get(), MAX_LATE_SPAWNS + 1);
    spawn(MAX_LATE_SPAWNS - 1);
    assert_eq!(drops.get(), MAX_LATE_SPAWNS);
    assert_freed(TypeId::of::<Hydra>());
    // Without end.
    spawn(usize::MAX);
    assert_eq!(drops.get(), MAX_LATE_SPAWNS);
    assert_eq!((executor.len(), executor.panics()), (0, 0));
    assert_freed(TypeId::of::<Hydra>());
}

#[test]
fn a_handle_and_its_result_outlive_the_executor() {
    let drops = Rc::new(Cell::new(0));
    let guard = Guard::new(&drops);
    let future = async move { guard };
    let kind = type_of(&future);
    let executor = executor();
    let (finished, mut unfinished) = (executor.spawn(future), executor.spawn(std::future::pending::<()>()));
    executor.run(1);
    drop(executor);
    unfinished.abort();
    assert!(result(&mut unfinished).unwrap_err().is_cancelled());
    assert_eq!(drops.get(), 0);
    drop(finished);
    assert_eq!(drops.get(), 1);
    assert_freed(kind);
}

#[test]
fn a_root_is_woken_in_its_turn() {
    let executor = executor();
    let root = executor.root();
    executor.run(1);
    assert!(root.take_woken() && !root.take_woken());
    assert_eq!(executor.len(), 0);
    executor.run(1);
    assert!(!root.take_woken());
    root.waker().wake_by_ref();
    let waker = root.waker().clone();
    waker.wake_by_ref();
    assert_eq!(executor.ready_len(), 1);
    assert!(!root.take_woken());
    executor.run(1);
    assert!(root.take_woken());
    waker.wake_by_ref();
    drop(root);
    assert_eq!(executor.len(), 0);
    settle(&executor);
    waker.wake();
    assert!(!executor.has_ready());

    let root = executor.root();
    executor.cancel_all();
    root.waker().wake_by_ref();
    assert_eq!((executor.len(), executor.has_ready()), (0, false));
    drop(root);
    drop(executor.root());
    assert_eq!(executor.len(), 0);
}

#[test]
fn a_task_is_small() {
    // Header and stage of a future that holds nothing: less than a third of what the peers need for a
    // sleeping task.
    assert!(crate::task::raw::size_of_task::<std::future::Ready<()>>() <= 104);
    assert_eq!(size_of::<Result<(), JoinError>>(), 16);
}
