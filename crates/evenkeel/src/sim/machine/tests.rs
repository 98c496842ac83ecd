#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use crate::pool::{PoolOptions, WorkError, WorkPool, offload};
use crate::sim::{Check, Failure, Fault, World, elapsed, note};
use crate::{Backend, EventLoop, dns, time};

const SECOND: Duration = Duration::from_secs(1);

/// A world of one client.
fn one<Fut: Future<Output = std::io::Result<()>> + 'static>(
    world: &mut World,
    program: impl Fn() -> Fut + 'static,
) -> Result<(), Failure> {
    world.client("one", program);
    world.run()
}

fn small(threads: usize, queue: usize) -> WorkPool {
    let mut options = PoolOptions::default();
    (options.work.threads, options.work.queue) = (Some(threads), queue);
    WorkPool::new(&options)
}

#[test]
fn work_takes_virtual_time_on_this_thread() {
    for backend in [Backend::Epoll, Backend::EpollLevel, Backend::Poll, Backend::Select] {
        Check::new().seeds(0..8).run(|world| {
            world.set_backend(backend);
            let world_thread = thread::current().id();
            one(world, move || async move {
                let before = elapsed();
                let done = offload(move || (thread::current().id(), crate::Handle::try_current().is_none()));
                let (thread, no_loop) = done.await.unwrap();
                assert_eq!(thread, world_thread);
                assert!(no_loop, "a thread of the pool runs no loop");
                assert!(elapsed() > before && elapsed() < before + SECOND);
                let stats = crate::Handle::current().work_pool().unwrap().stats().work;
                assert_eq!((stats.threads, stats.done), (1, 1));
                time::sleep(20 * SECOND).await;
                let stats = crate::Handle::current().work_pool().unwrap().stats().work;
                assert_eq!((stats.threads, stats.idle), (0, 0), "idle threads end");
                Ok(())
            })
        });
    }
}

#[test]
fn a_lane_has_its_bounds() {
    Check::new().seeds(0..16).run(|world| {
        one(world, || async {
            let pool = small(2, 3);
            let mut events = Vec::new();
            let running = Arc::new(AtomicUsize::new(0));
            for n in 0..5 {
                let running = running.clone();
                let mut work = pool.offload(move || {
                    running.fetch_add(1, Ordering::Relaxed);
                    n
                });
                if n < 3 {
                    work.send().unwrap();
                } else {
                    // No thread has begun yet, so the queue holds all three.
                    assert!(matches!(work.send(), Err(WorkError::QueueFull)));
                    continue;
                }
                events.push(work);
            }
            let stats = pool.stats().work;
            assert_eq!((stats.threads, stats.queued, stats.refused), (2, 3, 2));
            // A future stands in line instead.
            let last = pool.offload(|| 9);
            assert_eq!(last.await.unwrap(), 9);
            for (n, work) in events.into_iter().enumerate() {
                assert_eq!(work.await.unwrap(), n);
            }
            assert_eq!(running.load(Ordering::Relaxed), 3);
            let stats = pool.stats().work;
            assert_eq!((stats.done, stats.running, stats.queued, stats.threads), (4, 0, 0, 2));
            Ok(())
        })
    });
}

#[test]
fn a_late_thread_is_overtaken() {
    let orders = std::sync::Mutex::new(Vec::new());
    let report = Check::new().seeds(0..20).run(|world| {
        world.set_fault(Fault::PoolDelay, 0.5);
        let order = Rc::new(RefCell::new(Vec::new()));
        let seen = order.clone();
        one(world, move || {
            let seen = seen.clone();
            async move {
                let pool = small(2, 8);
                let tasks: Vec<_> = (0..4)
                    .map(|n| {
                        let (work, seen) = (pool.offload(move || n), seen.clone());
                        crate::spawn(async move {
                            let n = work.await.unwrap();
                            note(format_args!("{n} is done"));
                            seen.borrow_mut().push(n);
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await.unwrap();
                }
                Ok(())
            }
        })?;
        orders.lock().unwrap().push(order.borrow().clone());
        Ok(())
    });
    let orders = orders.into_inner().unwrap();
    assert!(orders.iter().any(|order| *order == [0, 1, 2, 3]));
    assert!(orders.iter().any(|order| *order != [0, 1, 2, 3]));
    assert!(report.hits(Fault::PoolDelay) > 0);
}

#[test]
fn a_thread_that_cannot_be_started_is_the_callers_to_know() {
    let report = Check::new().seeds(0..4).run(|world| {
        world.set_fault(Fault::ThreadStartFails, 1.0);
        one(world, || async {
            let error = offload(|| 1).await.unwrap_err();
            let WorkError::NoThread(error) = error else { panic!("{error}") };
            assert_eq!(error.raw_os_error(), Some(Errno::AGAIN.raw_os_error()));
            crate::fs::metadata("/tmp").await.unwrap_err();
            dns::resolve("one", 1).await.unwrap_err();
            Ok(())
        })
    });
    assert!(report.hits(Fault::ThreadStartFails) >= 12);
}

#[test]
fn work_is_taken_back_before_it_begins_and_panics_reach_the_caller() {
    Check::new().seeds(0..16).run(|world| {
        one(world, || async {
            let pool = small(1, 8);
            let mut first = pool.offload_with(|token| token.is_cancelled());
            let mut second = pool.offload(|| unreachable!("it was taken back"));
            first.send().unwrap();
            second.send().unwrap();
            assert!(second.cancel());
            assert!(matches!(second.await, Err::<(), _>(WorkError::Cancelled)));
            assert!(!first.await.unwrap());
            assert_eq!(pool.stats().work.cancelled, 1);
            let panicked = pool.offload(|| panic!("on purpose")).await;
            let Err::<(), _>(WorkError::Panicked(panic)) = panicked else { panic!("{panicked:?}") };
            assert_eq!(*panic.into_payload().downcast_ref::<&str>().unwrap(), "on purpose");
            assert_eq!(pool.stats().work.panicked, 1);
            Ok(())
        })
    });
}

#[test]
fn the_end_of_a_pool_waits_in_virtual_time() {
    let outcomes = std::sync::Mutex::new([0; 2]);
    Check::new().seeds(0..20).run(|world| {
        world.set_fault(Fault::PoolDelay, 1.0);
        let ended = Rc::new(Cell::new(false));
        let told = ended.clone();
        one(world, move || {
            let told = told.clone();
            async move {
                let pool = small(1, 8);
                let mut work = pool.offload(|| ());
                work.send().unwrap();
                while pool.stats().work.running == 0 {
                    time::sleep(Duration::from_millis(1)).await;
                }
                let before = elapsed();
                told.set(pool.shut_down(5 * SECOND));
                assert!(elapsed() <= before + 5 * SECOND + Duration::from_millis(1));
                assert!(matches!(pool.offload(|| ()).await, Err(WorkError::Ended)));
                Ok(())
            }
        })?;
        outcomes.lock().unwrap()[usize::from(ended.get())] += 1;
        Ok(())
    });
    let [late, ended] = outcomes.into_inner().unwrap();
    assert!(late > 0 && ended > 0, "{late} late, {ended} ended");
}

#[test]
fn a_killed_process_does_nothing_more() {
    let ran = Arc::new(AtomicUsize::new(0));
    let count = ran.clone();
    Check::new().seeds(0..4).run(move |world| {
        world.set_fault(Fault::PoolDelay, 1.0);
        let count = count.clone();
        let server = world.host("server", move || {
            let count = count.clone();
            async move {
                let pool = small(1, 8);
                let mut first = pool.offload(|| ());
                first.send().unwrap();
                // It has to wait for the first one, which takes longer than this process lives.
                let second = pool.offload(move || count.fetch_add(1, Ordering::Relaxed));
                second.await.unwrap();
                Ok(())
            }
        });
        world.run_for(Duration::from_millis(9))?;
        world.kill(server, Duration::from_secs(100_000));
        world.run_for(100 * SECOND)
    });
    assert_eq!(ran.load(Ordering::Relaxed), 0);
}

#[test]
fn a_pool_of_a_world_refuses_other_threads() {
    let mut world = World::new(1);
    one(&mut world, || async {
        let pool = small(1, 8);
        let refused = thread::spawn(move || pool.offload(|| ()).send()).join().unwrap();
        let Err(WorkError::NoThread(error)) = refused else { panic!("{refused:?}") };
        assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
        Ok(())
    })
    .unwrap();
}

#[test]
fn names_of_hosts_resolve_and_connect() {
    Check::new().seeds(0..8).run(|world| {
        let server = world.host("server", || async {
            let mut listener = crate::net::TcpListener::bind("0.0.0.0:80")?;
            loop {
                let (stream, _) = listener.accept().await?;
                drop(stream);
            }
        });
        let ip = world.ip(server);
        one(world, move || async move {
            assert_eq!(dns::resolve("server", 80).await?, [(ip, 80).into()]);
            assert_eq!(dns::resolve("localhost", 1).await?, ["127.0.0.1:1".parse().unwrap()]);
            let unknown = dns::resolve("nobody", 80).await.unwrap_err();
            assert!(unknown.to_string().contains("nobody"));
            let stream = crate::net::TcpStream::connect_host("server:80").await?;
            assert_eq!(stream.peer_addr()?.socket_addr(), Some((ip, 80).into()));
            let own = |_: &str, port: u16| Ok(vec![([10, 1, 1, 1], port).into()]);
            // On another thread of the host, whose loop waits in its own call.
            let found = offload(move || {
                let mut other = EventLoop::builder().resolver(own).build()?;
                other.block_on(dns::resolve("server", 80))
            });
            assert_eq!(found.await.unwrap()??, ["10.1.1.1:80".parse().unwrap()]);
            Ok(())
        })
    });
}

#[test]
fn names_fail_and_mean_other_addresses() {
    let kinds = std::sync::Mutex::new([0; 5]);
    let report = Check::new().seeds(0..60).run(|world| {
        world.set_fault(Fault::Names, 0.6);
        let server = world.host("server", || async {
            let mut listener = crate::net::TcpListener::bind("0.0.0.0:80")?;
            loop {
                let (stream, _) = listener.accept().await?;
                drop(stream);
            }
        });
        let ip = world.ip(server);
        let seen = Rc::new(Cell::new(0));
        let told = seen.clone();
        one(world, move || {
            let told = told.clone();
            async move {
                let options = dns::HostOptions { deadline: Some(40 * SECOND), ..Default::default() };
                let before = elapsed();
                told.set(match dns::connect("server", 80, &options).await {
                    Ok(stream) => {
                        assert_eq!(stream.peer_addr()?.socket_addr(), Some((ip, 80).into()));
                        // By way of an address that nobody answers it takes a quarter of a second more.
                        usize::from(elapsed() - before > Duration::from_millis(240))
                    }
                    Err(dns::ConnectError::Resolve(error)) => match error.kind() {
                        std::io::ErrorKind::NotFound => 2,
                        std::io::ErrorKind::TimedOut => 3,
                        _ => 4,
                    },
                    Err(other) => panic!("{other}"),
                });
                Ok(())
            }
        })?;
        kinds.lock().unwrap()[seen.get()] += 1;
        Ok(())
    });
    let kinds = kinds.into_inner().unwrap();
    assert!(kinds.iter().all(|seen| *seen > 0), "at once, raced, not found, timed out, failed: {kinds:?}");
    assert!(report.hits(Fault::Names) > 20);
}
