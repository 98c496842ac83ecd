//! What is given away to the pool, and names: results, panics and cancellations that arrive at a loop which sleeps, and
//! connections to hosts by an injected resolver.

use std::cell::Cell;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel::fs::File;
use evenkeel::net::{Stream, TcpListener};
use evenkeel::pool::{PoolOptions, WorkError, WorkPool};
use evenkeel::sim::{blocking, is_simulated};
use evenkeel::{Backend, EventLoop, dns, time};

use crate::connecting::{closed_port, full_backlog};
use crate::files::{Folder, unblock};
use crate::support::{PEER, Probe, Server, descriptors, event_loop, until};

on_every_kernel! {
    i02_results_wake_a_loop_that_sleeps,
    i26_a_panic_of_work_reaches_the_task,
    callbacks_hear_on_the_loop_what_came_of_their_work,
    loops_of_two_backends_share_a_pool,
    a_host_is_resolved_and_connected_to,
    of_two_addresses_the_one_that_answers_wins,
    i32_a_host_that_never_answers_meets_the_deadline,
}

// A simulated pool has no threads: its work is done on the world's, and must not wait for it.
on_every_backend! {
    i26_work_that_blocks_keeps_neither_the_loop_nor_files,
    i26_files_that_block_keep_neither_work_nor_names,
    i33_work_has_the_programs_mask_of_signals,
    work_is_done_elsewhere_and_heard_of_here,
    aborting_a_callbacks_task_takes_the_work_back,
}

in_processes! {
    i36_attempts_that_lose_leave_no_descriptor,
    i28_threads_end_with_their_pool,
}

// Not the end of threads, which are the system's.
in_hosts! {
    i36_attempts_that_lose_leave_no_descriptor,
}

fn i02_results_wake_a_loop_that_sleeps(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let sum = async {
        let mut sum = 0;
        for i in 0..500_u64 {
            sum += h.offload(move || i).await.unwrap();
        }
        sum
    };
    assert_eq!(events.block_on(sum).unwrap(), 499 * 500 / 2);
    let tasks: Vec<_> = (0..2000_u64).map(|i| h.spawn(h.offload(move || i))).collect();
    let mut sum = 0;
    for task in tasks {
        sum += events.block_on(task).unwrap().unwrap().unwrap();
    }
    assert_eq!(sum, 1999 * 2000 / 2, "and more than the queue holds wait their turn");
    let stats = h.work_pool().unwrap().stats().work;
    assert_eq!((stats.done, stats.refused, stats.running, stats.queued, stats.waiting), (2500, 0, 0, 0, 0));
}

fn i26_a_panic_of_work_reaches_the_task(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let panicked = events.block_on(h.offload(|| -> u32 { panic!("as the test wants it") })).unwrap();
    assert!(matches!(&panicked, Err(WorkError::Panicked(_))), "{panicked:?}");
    assert_eq!(panicked.unwrap_err().to_string(), "the work panicked: as the test wants it");
    assert!(matches!(events.block_on(h.offload(|| 7)).unwrap(), Ok(7)));
}

fn i26_work_that_blocks_keeps_neither_the_loop_nor_files(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, _) = s.pair(Probe::echo());
    let (open, opened) = channel::<()>();
    let opened = Arc::new(Mutex::new(opened));
    // More than there are threads, and more than a queue holds.
    let blocked: Vec<_> = (0..1500)
        .map(|_| {
            let opened = opened.clone();
            s.h.spawn(s.h.offload(move || opened.lock().unwrap().recv().is_ok()))
        })
        .collect();
    let h = s.h.clone();
    s.until("the lane is full", || h.work_pool().unwrap().stats().work.waiting > 0);
    assert!(s.events.block_on(evenkeel::fs::metadata("/")).unwrap().unwrap().is_dir());
    peer.write_all(b"ping").unwrap();
    assert_eq!(s.answer(&mut peer, 4), b"ping");
    drop(open);
    for task in blocked {
        assert!(!s.events.block_on(task).unwrap().unwrap().unwrap());
    }
}

fn i26_files_that_block_keep_neither_work_nor_names(backend: Backend) {
    let mut r = Resolving::new(backend);
    r.finds(&["127.0.0.1:80".parse().unwrap()]);
    let h = r.events.handle();
    let folder = Folder::new();
    let pipe = folder.pipe();
    let blocked: Vec<_> = (0..50).map(|_| h.spawn(File::open(pipe.clone()))).collect();
    until(&mut r.events, "they are in flight", || h.stats().files_in_flight == 50);
    let others = async { (h.offload(|| 7).await.is_ok(), dns::resolve("host.example", 80).await.is_ok()) };
    assert_eq!(r.events.block_on(others).unwrap(), (true, true));
    assert_eq!(h.stats().files_in_flight, 50);
    let _other_end = unblock(&pipe);
    for file in blocked {
        r.events.block_on(file).unwrap().unwrap().unwrap();
    }
}

fn i33_work_has_the_programs_mask_of_signals(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    // Whether this thread blocks SIGPIPE.
    let blocks = || {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap() & 1 << (libc::SIGPIPE - 1) != 0
    };
    let both = async { (blocks(), h.offload(blocks).await.unwrap()) };
    assert_eq!(events.block_on(both).unwrap(), (true, false));
}

fn callbacks_hear_on_the_loop_what_came_of_their_work(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let heard: Rc<Cell<u32>> = Rc::default();
    let sums = heard.clone();
    h.offload_then(
        || 7,
        move |h, seven| {
            assert_eq!(seven.unwrap(), 7);
            let sums_too = sums.clone();
            sums.set(1);
            h.offload_then(
                || panic!("as the test wants it"),
                move |h, outcome: Result<(), _>| {
                    assert!(matches!(outcome, Err(WorkError::Panicked(_))));
                    sums_too.set(sums_too.get() + 1);
                    h.stop();
                },
            )
            .unwrap();
        },
    )
    .unwrap();
    assert_eq!(heard.get(), 0, "never inside the call");
    events.run().unwrap();
    assert_eq!((heard.get(), h.stats().panics), (2, 0));
}

fn work_is_done_elsewhere_and_heard_of_here(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let here = std::thread::current().id();
    let heard: Rc<Cell<bool>> = Rc::default();
    let flag = heard.clone();
    h.offload_then(
        || std::thread::current().id(),
        move |h, worker| {
            assert!(worker.unwrap() != here && std::thread::current().id() == here);
            flag.set(true);
            h.stop();
        },
    )
    .unwrap();
    events.run().unwrap();
    assert!(heard.get() && h.stats().panics == 0);
}

fn aborting_a_callbacks_task_takes_the_work_back(backend: Backend) {
    let mut options = PoolOptions::default();
    options.work.threads = Some(1);
    let mut events = EventLoop::builder().backend(backend).pool_options(options).build().unwrap();
    let h = events.handle();
    let (begun, begins) = channel();
    let (open, opened) = channel::<()>();
    let runs = move || {
        begun.send(()).unwrap();
        let _ = opened.recv();
    };
    let running = h.offload_then(runs, |_, _| panic!("it was aborted")).unwrap();
    begins.recv_timeout(PEER).unwrap();
    let held = Arc::new(());
    let share = held.clone();
    let queued = h.offload_then(move || drop(share), |_, _| panic!("it was aborted")).unwrap();
    assert_eq!(h.work_pool().unwrap().stats().work.queued, 1);
    queued.abort();
    running.abort();
    events.poll().unwrap();
    let stats = h.work_pool().unwrap().stats().work;
    assert_eq!((stats.queued, stats.cancelled, Arc::strong_count(&held)), (0, 1, 1));
    drop(open);
    until(&mut events, "what ran has ended", || h.work_pool().unwrap().stats().work.done == 1);
    assert_eq!(h.stats().panics, 0);
}

fn loops_of_two_backends_share_a_pool(backend: Backend) {
    let mut options = PoolOptions::default();
    options.work.threads = Some(1);
    let pool = WorkPool::new(&options);
    let make = |backend| EventLoop::builder().backend(backend).work_pool(&pool).build().unwrap();
    let (mut one, mut two) = (make(backend), make(Backend::Poll));
    let thread = |h: evenkeel::Handle| h.offload(|| std::thread::current().id());
    let first = one.block_on(thread(one.handle())).unwrap().unwrap();
    assert_eq!(two.block_on(thread(two.handle())).unwrap().unwrap(), first);
    assert_eq!((pool.stats().work.threads, pool.stats().work.done), (1, 2));
}

/// A loop for which each host has the addresses that are put in, and how often it asked.
struct Resolving {
    events: EventLoop,
    found: Arc<Mutex<Vec<SocketAddr>>>,
    asked: Arc<AtomicUsize>,
}

impl Resolving {
    fn new(backend: Backend) -> Self {
        let (found, asked) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicUsize>::default());
        let (answer, count) = (found.clone(), asked.clone());
        let resolver = move |host: &str, _: u16| {
            assert_eq!(host, "host.example");
            count.fetch_add(1, Ordering::Relaxed);
            Ok(answer.lock().unwrap().clone())
        };
        let events = EventLoop::builder().backend(backend).resolver(resolver).build().unwrap();
        Resolving { events, found, asked }
    }

    fn finds(&self, all: &[SocketAddr]) {
        *self.found.lock().unwrap() = all.to_vec();
    }

    fn listen(&mut self) -> (TcpListener, SocketAddr) {
        let listener = self.events.block_on(async { TcpListener::bind("127.0.0.1:0") }).unwrap().unwrap();
        let at = listener.local_addr().unwrap().socket_addr().unwrap();
        (listener, at)
    }
}

/// An address that refuses, and one that never answers, for as long as what comes with them is kept.
fn bad_addresses() -> (impl Sized, SocketAddr, SocketAddr) {
    if is_simulated() {
        // A port that nobody else will get, and a host that there is not.
        let refuses = blocking::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        return (None, refuses, SocketAddr::from(([10, 255, 255, 254], 80)));
    }
    let ((full, fill, silent), (closed, refuses)) = (full_backlog(), closed_port());
    (Some((full, fill, closed)), refuses, silent)
}

/// Sends a byte from a stream to the listener's next connection.
async fn exchange(mut stream: Stream, listener: &mut TcpListener) -> io::Result<u8> {
    let (mut peer, _) = listener.accept().await?;
    stream.write_all(b"!").await?;
    let mut got = [0];
    peer.read_exact(&mut got).await?;
    Ok(got[0])
}

fn a_host_is_resolved_and_connected_to(backend: Backend) {
    let mut r = Resolving::new(backend);
    let (mut listener, at) = r.listen();
    r.finds(&[at]);
    let body = async {
        assert_eq!(dns::resolve("host.example", 80).await.unwrap(), [at]);
        let stream = Stream::connect_host("host.example:80").await?;
        exchange(stream, &mut listener).await
    };
    assert_eq!(r.events.block_on(body).unwrap().unwrap(), b'!');
    assert_eq!(r.asked.load(Ordering::Relaxed), 2, "nothing is kept");
    // An address needs no resolver.
    let direct = async { exchange(Stream::connect_host(&at.to_string()).await?, &mut listener).await };
    assert_eq!(r.events.block_on(direct).unwrap().unwrap(), b'!');
    assert_eq!((r.asked.load(Ordering::Relaxed), r.events.handle().stats().lookups), (2, 2));
}

fn of_two_addresses_the_one_that_answers_wins(backend: Backend) {
    let mut r = Resolving::new(backend);
    let (mut listener, at) = r.listen();
    let (_kept, refuses, silent) = bad_addresses();
    // The first is passed over when it refuses, the second when its time is up.
    r.finds(&[refuses, silent, at]);
    let mut options = dns::HostOptions::default();
    options.attempt_delay = Duration::from_millis(10);
    let body = async {
        let stream = dns::connect("host.example", 80, &options).await?;
        exchange(stream, &mut listener).await
    };
    assert_eq!(r.events.block_on(body).unwrap().unwrap(), b'!');
}

fn i32_a_host_that_never_answers_meets_the_deadline(backend: Backend) {
    let (_kept, refuses, silent) = bad_addresses();
    let mut r = Resolving::new(backend);
    r.finds(&[silent, refuses]);
    let mut options = dns::HostOptions::default();
    options.attempt_delay = Duration::from_millis(1);
    options.deadline = Some(Duration::from_millis(60));
    let error = r.events.block_on(dns::connect("host.example", 80, &options)).unwrap().unwrap_err();
    let dns::ConnectError::Failed { attempts, not_tried: 0, .. } = &error else { panic!("{error}") };
    let ends: Vec<_> = attempts.iter().map(|one| (one.to, one.error.kind())).collect();
    let (refused, late) = (io::ErrorKind::ConnectionRefused, io::ErrorKind::TimedOut);
    assert_eq!(ends, [(refuses, refused), (silent, late)]);
}

fn i36_attempts_that_lose_leave_no_descriptor(backend: Backend) {
    let mut r = Resolving::new(backend);
    let (mut listener, at) = r.listen();
    let (_kept, refuses, silent) = bad_addresses();
    r.finds(&[silent, refuses, at]);
    let mut options = dns::HostOptions::default();
    options.attempt_delay = Duration::from_millis(1);
    let once = async |listener: &mut TcpListener| {
        let stream = dns::connect("host.example", 80, &options).await.unwrap();
        exchange(stream, listener).await.unwrap();
        // And one that is dropped while its first attempt is in progress.
        let dropped = dns::connect("host.example", 80, &options);
        assert!(time::timeout(Duration::ZERO, dropped).await.is_err());
    };
    r.events.block_on(once(&mut listener)).unwrap();
    let before = descriptors().len();
    for _ in 0..20 {
        r.events.block_on(once(&mut listener)).unwrap();
    }
    until(&mut r.events, "all are closed", || descriptors().len() <= before);
}

fn threads() -> usize {
    let all = std::fs::read_dir("/proc/self/task").unwrap();
    let names = all.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("evenkeel-")).count()
}

fn i28_threads_end_with_their_pool(backend: Backend) {
    let mut options = PoolOptions::default();
    options.work.threads = Some(3);
    options.names.threads = Some(2);
    let resolver = |_: &str, port: u16| Ok(vec![([127, 0, 0, 1], port).into()]);
    let builder = EventLoop::builder().backend(backend).pool_options(options).resolver(resolver);
    let mut events = builder.build().unwrap();
    let h = events.handle();
    assert_eq!(threads(), 0, "none is started before there is work for one");
    let work: Vec<_> = (0..200).map(|i| h.spawn(h.offload(move || i))).collect();
    let names: Vec<_> =
        (0..200).map(|i| h.spawn(async move { dns::resolve("a.example", i).await })).collect();
    events
        .block_on(async {
            for task in work {
                task.await.unwrap().unwrap();
            }
            for task in names {
                task.await.unwrap().unwrap();
            }
        })
        .unwrap();
    let stats = h.work_pool().unwrap().stats();
    assert!((1..=3).contains(&stats.work.threads) && (1..=2).contains(&stats.names.threads), "{stats:?}");
    // A thread counts from when it was started, and has its name a moment later.
    let named = || threads() == stats.work.threads + stats.names.threads;
    until(&mut events, "all have their names", named);
    drop((events, h));
    let mut other = event_loop(backend);
    until(&mut other, "they have ended", || threads() == 0);
}
