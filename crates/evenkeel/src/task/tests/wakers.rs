//! Wakers on other threads, after the end of everything, and with foreign code in them.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, mpsc};
use std::task::Wake;
use std::time::Duration;

use super::*;

/// What a loop waits on.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    rings: AtomicUsize,
    changed: Condvar,
}

impl Bell {
    fn executor(self: &Arc<Bell>) -> Executor {
        let bell = Arc::clone(self);
        Executor::new(Arc::new(move || {
            bell.rings.fetch_add(1, SeqCst);
            *bell.rung.lock().unwrap() = true;
            bell.changed.notify_one();
        }))
    }

    /// The time limit only turns a lost wake-up into a failure.
    fn wait(&self) {
        let rung = self.rung.lock().unwrap();
        let limit = Duration::from_secs(60);
        let (mut rung, late) = self.changed.wait_timeout_while(rung, limit, |rung| !*rung).unwrap();
        assert!(!late.timed_out(), "a wake-up was lost");
        *rung = false;
    }
}

#[test]
fn wakes_from_another_thread_ring_once_until_drained() {
    let bell = Arc::<Bell>::default();
    let executor = bell.executor();
    let wakers = Rc::default();
    for _ in 0..3 {
        drop(executor.spawn(park(Rc::clone(&wakers))));
    }
    settle(&executor);
    executor.drain_remote();
    for round in 1..=2 {
        let remote: Vec<Waker> = wakers.borrow()[..3].to_vec();
        thread::spawn(move || {
            for waker in remote {
                waker.wake_by_ref();
                waker.clone().wake();
                waker.wake();
            }
        })
        .join()
        .unwrap();
        assert_eq!((bell.rings.load(SeqCst), executor.has_ready()), (round, false));
        // A wake from here needs no bell and does not queue a task twice.
        wakers.borrow()[0].wake_by_ref();
        executor.drain_remote();
        assert_eq!((bell.rings.load(SeqCst), executor.ready_len()), (round, 3));
        settle(&executor);
    }
}

#[test]
fn i39_i40_wakers_outlive_the_task_the_executor_and_its_thread() {
    let bell = Arc::<Bell>::default();
    let (send, receive) = mpsc::channel();
    let loop_thread = {
        let bell = Arc::clone(&bell);
        thread::spawn(move || {
            let executor = bell.executor();
            let drops = Rc::new(Cell::new(0));
            let (guard, mut count) = (Guard::new(&drops), 0);
            let future = poll_fn(move |cx| {
                let _ = &guard;
                count += 1;
                // More on this thread than are ever dropped here, so that its half of the count is positive.
                (0..3).for_each(|_| send.send(cx.waker().clone()).unwrap());
                if count == 2 { Poll::Ready(()) } else { Poll::Pending }
            });
            let kind = type_of(&future);
            let handle = executor.spawn(future);
            settle(&executor);
            drop(executor);
            assert_eq!(drops.get(), 1);
            drop(handle);
            kind
        })
    };
    let kind = loop_thread.join().unwrap();
    let wakers: Vec<Waker> = receive.iter().collect();
    assert_eq!(wakers.len(), 3);
    assert_eq!(Arc::strong_count(&bell), 2, "the wakers keep what they may use");
    for waker in &wakers {
        waker.wake_by_ref();
        waker.clone().wake();
    }
    let threads: Vec<_> = wakers.into_iter().map(|waker| thread::spawn(move || waker.wake())).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_freed(kind);
    assert_eq!((bell.rings.load(SeqCst), Arc::strong_count(&bell)), (0, 1));
}

fn elsewhere<R: Send>(code: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| scope.spawn(code).join().unwrap())
}

/// The two halves of the count in every sign: where wakers are made, moved and dropped decides nothing.
#[test]
fn i39_wakers_are_counted_across_threads() {
    for case in 0..6 {
        let executor = Arc::<Bell>::default().executor();
        let wakers = Rc::default();
        let parked = park(Rc::clone(&wakers));
        let future = async move { parked.await };
        let kind = type_of(&future);
        let handle = executor.spawn(future);
        settle(&executor);
        let first = wakers.borrow_mut().pop().unwrap();
        let mut left = Vec::new();
        match case {
            0 => elsewhere(move || drop(first)),
            1 => {
                left.push(elsewhere(|| first.clone()));
                drop(first);
            }
            2 => {
                left.push(first.clone());
                elsewhere(move || drop(first));
            }
            3 => left.push(first),
            4 => left.extend(elsewhere(move || [first.clone(), first.clone(), first])),
            _ => {
                let copies = elsewhere(|| [first.clone(), first.clone()]);
                drop(copies);
                elsewhere(move || drop(first));
            }
        }
        handle.abort();
        settle(&executor);
        drop(handle);
        let kept = isize::from(!left.is_empty());
        assert_kept(kind, kept);
        // After the end of the task they are counted in one place.
        let copies = left.clone();
        elsewhere(move || copies.into_iter().for_each(Waker::wake));
        assert_kept(kind, kept);
        // A wake from there cannot see that the task has ended; it is in the inbox until now.
        executor.drain_remote();
        assert!(!executor.has_ready());
        assert_kept(kind, kept);
        drop(left);
        assert_freed(kind);
    }
}

#[test]
fn i39_wakes_that_nobody_drained_are_freed() {
    let bell = Arc::<Bell>::default();
    let executor = bell.executor();
    let wakers = Rc::default();
    let parked = park(Rc::clone(&wakers));
    let future = async move { parked.await };
    let kind = type_of(&future);
    let handle = executor.spawn(future);
    settle(&executor);
    let waker = wakers.borrow_mut().pop().unwrap();
    thread::spawn(move || waker.wake()).join().unwrap();
    drop((executor, handle));
    assert_freed(kind);
}

#[test]
fn i39_a_task_completed_while_it_is_in_the_inbox() {
    let bell = Arc::<Bell>::default();
    let executor = bell.executor();
    let wakers = Rc::default();
    let parked = park(Rc::clone(&wakers));
    let future = async move { parked.await };
    let kind = type_of(&future);
    let handle = executor.spawn(future);
    settle(&executor);
    let waker = wakers.borrow_mut().pop().unwrap();
    thread::spawn(move || waker.wake()).join().unwrap();
    handle.abort();
    drop(handle);
    settle(&executor);
    assert_eq!(executor.len(), 0);
    executor.drain_remote();
    assert!(!executor.has_ready());
    assert_freed(kind);
}

/// Each of several tasks sees every one of its wakes: the last one is never lost between two polls.
#[test]
fn i2_a_storm_of_wakes_from_four_threads_loses_none() {
    const TASKS: usize = 8;
    const THREADS: usize = 4;
    let wakes = if cfg!(miri) { 50 } else { 20_000 };
    let bell = Arc::<Bell>::default();
    let executor = bell.executor();
    let sent: Arc<Vec<AtomicUsize>> = Arc::new((0..TASKS).map(|_| AtomicUsize::new(0)).collect());
    let (send, receive) = mpsc::channel();
    let handles: Vec<_> = (0..TASKS)
        .map(|id| {
            let (sent, send) = (Arc::clone(&sent), send.clone());
            let mut started = false;
            executor.spawn(poll_fn(move |cx| {
                if !std::mem::replace(&mut started, true) {
                    (0..THREADS).for_each(|thread| send.send((thread, cx.waker().clone())).unwrap());
                }
                if sent[id].load(SeqCst) == THREADS * wakes { Poll::Ready(()) } else { Poll::Pending }
            }))
        })
        .collect();
    drop(send);
    settle(&executor);
    let mut of_thread: Vec<Vec<Waker>> = vec![Vec::new(); THREADS];
    receive.try_iter().for_each(|(thread, waker)| of_thread[thread].push(waker));
    let threads: Vec<_> = of_thread
        .into_iter()
        .map(|wakers| {
            let sent = Arc::clone(&sent);
            thread::spawn(move || {
                for i in 0..wakes {
                    for (id, waker) in wakers.iter().enumerate() {
                        sent[id].fetch_add(1, SeqCst);
                        if i % 3 == 0 { waker.clone().wake() } else { waker.wake_by_ref() }
                    }
                }
            })
        })
        .collect();
    while executor.len() > 0 {
        bell.wait();
        executor.drain_remote();
        settle(&executor);
    }
    assert!(handles.iter().all(JoinHandle::is_finished));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Tasks end on their thread while others clone, use and drop their wakers: each task is freed once.
#[test]
fn i39_i40_wakers_die_on_other_threads_while_their_tasks_end() {
    let rounds = if cfg!(miri) { 20 } else { 3_000 };
    let bell = Arc::<Bell>::default();
    let executor = bell.executor();
    let (sends, threads): (Vec<_>, Vec<_>) = (0..4)
        .map(|_| {
            let (send, receive) = mpsc::sync_channel::<Waker>(8);
            let thread = thread::spawn(move || {
                let mut last: Option<Waker> = None;
                for waker in receive {
                    let copies = [waker.clone(), waker.clone()];
                    waker.wake();
                    drop(last.replace(copies[0].clone()));
                    copies[1].wake_by_ref();
                }
            });
            (send, thread)
        })
        .unzip();
    let drops = Rc::new(Cell::new(0));
    let mut kind = None;
    for round in 0..rounds {
        let (guard, sends) = (Guard::new(&drops), sends.clone());
        let mut polls = 0;
        let future = poll_fn(move |cx| {
            let _ = &guard;
            polls += 1;
            sends[(round + polls) % 4].send(cx.waker().clone()).unwrap();
            if polls > round % 3 { Poll::Ready(()) } else { Poll::Pending }
        });
        kind = Some(type_of(&future));
        let handle = executor.spawn(future);
        settle(&executor);
        while !handle.is_finished() {
            bell.wait();
            executor.drain_remote();
            settle(&executor);
        }
    }
    drop((executor, sends));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(drops.get(), rounds);
    assert_freed(kind.unwrap());
}

/// Executors end while other threads wake their tasks.
#[test]
fn i39_executors_end_under_fire() {
    let rounds = if cfg!(miri) { 10 } else { 500 };
    let mut kind = None;
    for _ in 0..rounds {
        let bell = Arc::<Bell>::default();
        let executor = bell.executor();
        let (send, receive) = mpsc::channel::<Waker>();
        let receive = Arc::new(Mutex::new(receive));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let receive = Arc::clone(&receive);
                thread::spawn(move || {
                    loop {
                        let Ok(waker) = receive.lock().unwrap().recv() else { break };
                        (0..20).for_each(|_| waker.wake_by_ref());
                    }
                })
            })
            .collect();
        for _ in 0..10 {
            let send = send.clone();
            let future = poll_fn(move |cx| {
                send.send(cx.waker().clone()).unwrap();
                Poll::<()>::Pending
            });
            kind = Some(type_of(&future));
            drop(executor.spawn(future));
        }
        executor.run(10);
        executor.drain_remote();
        executor.run(10);
        drop((executor, send));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
    assert_freed(kind.unwrap());
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Executor>>> = const { RefCell::new(None) };
    static HANDLE: RefCell<Option<JoinHandle<u32>>> = const { RefCell::new(None) };
}

/// A foreign waker that uses the executor, takes the result, and panics.
struct Reenter;

impl Wake for Reenter {
    fn wake(self: Arc<Self>) {
        let executor = CURRENT.with_borrow(Option::clone).unwrap();
        drop(executor.spawn(async {}));
        // The task is complete, but its end is not: this is in the middle of it.
        let mut handle = HANDLE.take().unwrap();
        assert_eq!(result(&mut handle).unwrap(), 4);
        drop(handle);
        panic!("in a foreign waker");
    }
}

#[test]
fn i37_i38_i39_a_foreign_waker_may_do_anything() {
    let executor = Rc::new(executor());
    CURRENT.set(Some(Rc::clone(&executor)));
    let future = async { 4 };
    let kind = type_of(&future);
    let mut handle = executor.spawn(future);
    let waker = Waker::from(Arc::new(Reenter));
    assert!(Pin::new(&mut handle).poll(&mut Context::from_waker(&waker)).is_pending());
    HANDLE.set(Some(handle));
    settle(&executor);
    assert_eq!((executor.panics(), executor.len()), (1, 0));
    assert!(HANDLE.take().is_none());
    assert_freed(kind);
    CURRENT.set(None);
}

#[test]
fn wakers_of_one_task_will_wake_each_other() {
    let executor = executor();
    let wakers = Rc::default();
    for _ in 0..2 {
        drop(executor.spawn(park(Rc::clone(&wakers))));
    }
    settle(&executor);
    let wakers = wakers.take();
    assert!(wakers[0].will_wake(&wakers[0].clone()) && !wakers[0].will_wake(&wakers[1]));
}
