//! Descriptors of others: readiness that is told, kept, and ended with the watch.

use std::future::Future;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use evenkeel::fd::{AsyncFd, Interest};
use evenkeel::{Backend, EventLoop, spawn, time};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::asynchronous::once;
use crate::support::{PEER, assert_same, descriptors, event_loop, pattern, serve, until};

on_every_backend! {
    i35_a_pipe_carries_megabytes,
    both_directions_of_one_socket,
    i01_readiness_that_was_there_before_the_watch,
    many_counters_are_told_apart,
    all_tasks_that_wait_are_woken,
    the_same_descriptor_twice,
    a_wait_that_is_dropped_leaves_nothing,
    i31_a_peer_that_goes_wakes_both_directions,
    i11_a_dropped_watch_is_closed_for_its_peer_at_once,
    i11_a_watch_that_is_dropped_before_its_wait_is_handed_over,
    i03_a_report_after_the_refusal_is_kept,
    i24_a_descriptor_that_is_always_ready_keeps_nobody_waiting,
    i20_nobody_waits_and_nothing_happens,
    i31_what_is_reported_for_ever_and_nobody_takes_does_not_spin,
    what_cannot_be_waited_for_is_refused,
    a_direction_that_was_not_asked_for_is_refused,
    urgent_data_is_told_to_those_who_want_it,
    a_watch_outlives_its_loop,
    the_owner_comes_back,
    pollers_are_woken,
}

in_processes! {
    i36_watches_leave_no_descriptor,
    // Others take numbers, too.
    i06_a_number_that_is_used_again_in_one_batch,
}

fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).unwrap()
}

fn counter() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap()
}

fn add(counter: impl AsFd) {
    rustix::io::write(counter, &1u64.to_ne_bytes()).unwrap();
}

fn take(counter: impl AsFd) -> io::Result<u64> {
    let mut count = [0; 8];
    rustix::io::read(counter, &mut count)?;
    Ok(u64::from_ne_bytes(count))
}

fn watch(events: &mut EventLoop, fd: impl Into<OwnedFd>) -> AsyncFd<OwnedFd> {
    let fd = fd.into();
    events.block_on(async { AsyncFd::new(fd).unwrap() }).unwrap()
}

/// Whether it is ready to be read now.
fn is_readable(events: &mut EventLoop, fd: &AsyncFd<OwnedFd>) -> bool {
    for _ in 0..5 {
        if events.block_on(async { once(fd.readable()).await.is_some() }).unwrap() {
            return true;
        }
        events.poll().unwrap();
    }
    false
}

fn i35_a_pipe_carries_megabytes(backend: Backend) {
    let mut events = event_loop(backend);
    let (from, to) = pipe();
    let want = pattern(3_000_000);
    let sent = want.clone();
    let got = events.block_on(async move {
        let (from, to) = (AsyncFd::new(from).unwrap(), AsyncFd::new(to).unwrap());
        let writer = spawn(async move {
            let mut rest = &sent[..];
            while !rest.is_empty() {
                let n = to.write_with(|to| Ok(rustix::io::write(to, rest)?)).await.unwrap();
                rest = &rest[n..];
            }
        });
        let (mut all, mut bytes) = (Vec::new(), [0; 5000]);
        loop {
            match from.read_with(|from| Ok(rustix::io::read(from, &mut bytes)?)).await.unwrap() {
                0 => break,
                n => all.extend_from_slice(&bytes[..n]),
            }
        }
        writer.await.unwrap();
        all
    });
    assert_same(&got.unwrap(), &want);
}

fn both_directions_of_one_socket(backend: Backend) {
    let mut events = event_loop(backend);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let want = pattern(2_000_000);
    let sent = want.clone();
    let peer = std::thread::spawn(move || {
        let mut back = vec![0; sent.len()];
        let mut writer = theirs.try_clone().unwrap();
        let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
        theirs.read_exact(&mut back).unwrap();
        writing.join().unwrap();
        back
    });
    let total = want.len();
    events
        .block_on(async move {
            let ours = Rc::new(AsyncFd::new(ours).unwrap());
            let (reader, writer) = async_channel::bounded(2);
            let reading = spawn({
                let ours = ours.clone();
                async move {
                    let (mut left, mut bytes) = (total, [0; 30_000]);
                    while left > 0 {
                        let n = ours.read_with(|mut socket| socket.read(&mut bytes)).await.unwrap();
                        left -= n;
                        reader.send(bytes[..n].to_vec()).await.unwrap();
                    }
                }
            });
            while let Ok(bytes) = writer.recv().await {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let n = ours.write_with(|mut socket| socket.write(rest)).await.unwrap();
                    rest = &rest[n..];
                }
            }
            reading.await.unwrap();
        })
        .unwrap();
    assert_same(&peer.join().unwrap(), &want);
}

fn i01_readiness_that_was_there_before_the_watch(backend: Backend) {
    let mut events = event_loop(backend);
    let fd = counter();
    add(&fd);
    let fd = watch(&mut events, fd);
    let count = events.block_on(async {
        let mut ready = fd.readable().await.unwrap();
        let count = ready.try_io(take).unwrap().unwrap();
        assert!(ready.try_io(take).is_err(), "it was taken");
        fd.writable().await.unwrap();
        count
    });
    assert_eq!(count.unwrap(), 1);
}

fn many_counters_are_told_apart(backend: Backend) {
    let mut events = event_loop(backend);
    let fds: Vec<_> = (0..60).map(|_| counter()).collect();
    let copies: Vec<_> = fds.iter().map(|fd| fd.try_clone().unwrap()).collect();
    let counts = Rc::new(std::cell::RefCell::new(vec![0u64; fds.len()]));
    let tasks = events.block_on(async {
        let task = |(at, fd)| {
            let counts = counts.clone();
            spawn(async move {
                let fd = AsyncFd::new(fd).unwrap();
                loop {
                    let count = fd.read_with(|fd| take(fd)).await.unwrap();
                    counts.borrow_mut()[at] += count;
                }
            })
        };
        fds.into_iter().enumerate().map(task).collect::<Vec<_>>()
    });
    let wanted: Vec<u64> = (0..copies.len() as u64).map(|at| at % 7 + 1).collect();
    let sent = wanted.clone();
    serve(&mut events, move |_| {
        for round in 0..7 {
            for (copy, n) in copies.iter().zip(&sent) {
                if round < *n {
                    add(copy);
                }
            }
        }
    });
    until(&mut events, "all have come", || *counts.borrow() == wanted);
    drop(tasks);
}

fn all_tasks_that_wait_are_woken(backend: Backend) {
    let mut events = event_loop(backend);
    let (from, to) = pipe();
    events
        .block_on(async {
            let from = Rc::new(AsyncFd::new(from).unwrap());
            let one = |_| {
                let from = from.clone();
                spawn(async move {
                    let mut byte = [0];
                    from.read_with(|from| Ok(rustix::io::read(from, &mut byte)?)).await.unwrap();
                    byte[0]
                })
            };
            let tasks: Vec<_> = (0..10).map(one).collect();
            time::sleep(Duration::from_millis(2)).await;
            rustix::io::write(&to, b"abc").unwrap();
            time::sleep(Duration::from_millis(2)).await;
            rustix::io::write(&to, b"defghij").unwrap();
            let mut got = Vec::new();
            for task in tasks {
                got.push(task.await.unwrap());
            }
            got.sort_unstable();
            assert_eq!(got, b"abcdefghij");
        })
        .unwrap();
}

fn the_same_descriptor_twice(backend: Backend) {
    let mut events = event_loop(backend);
    let fd = counter();
    events
        .block_on(async {
            let first = AsyncFd::new(fd.as_fd()).unwrap();
            let second = AsyncFd::new(fd.as_fd()).unwrap();
            add(&fd);
            first.readable().await.unwrap();
            second.readable().await.unwrap();
            drop(first);
            assert_eq!(second.read_with(|fd| take(fd)).await.unwrap(), 1);
            add(&fd);
            assert_eq!(second.read_with(|fd| take(fd)).await.unwrap(), 1);
        })
        .unwrap();
}

/// A waker of a user, whose copies are counted.
struct Counted;

impl Wake for Counted {
    fn wake(self: Arc<Self>) {}
}

fn a_wait_that_is_dropped_leaves_nothing(backend: Backend) {
    let mut events = event_loop(backend);
    let fd = watch(&mut events, counter());
    let counted = Arc::new(Counted);
    let waker = Waker::from(counted.clone());
    let mut cx = Context::from_waker(&waker);
    {
        let mut first = pin!(fd.readable());
        let mut second = Box::pin(fd.readable());
        for _ in 0..100 {
            assert!(first.as_mut().poll(&mut cx).is_pending());
            assert!(second.as_mut().poll(&mut cx).is_pending());
            second = Box::pin(fd.readable());
        }
        assert_eq!(Arc::strong_count(&counted), 3, "one wait keeps one waker");
    }
    assert_eq!(Arc::strong_count(&counted), 2, "and takes it with it");
    add(fd.get_ref());
    assert!(is_readable(&mut events, &fd), "what came for nobody is there for the next one");
}

fn i31_a_peer_that_goes_wakes_both_directions(backend: Backend) {
    let mut events = event_loop(backend);
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let ours = Rc::new(events.block_on(async { AsyncFd::new(ours).unwrap() }).unwrap());
    while ours.get_ref().write(&[7; 10_000]).is_ok() {}
    let tasks = events
        .block_on(async {
            let (reader, writer) = (ours.clone(), ours.clone());
            let reader = spawn(async move { reader.read_with(|mut s| s.read(&mut [0; 10])).await });
            let writer = spawn(async move { writer.write_with(|mut s| s.write(b"more")).await });
            time::sleep(Duration::from_millis(2)).await;
            assert!(!reader.is_finished() && !writer.is_finished());
            drop(theirs);
            (reader.await.unwrap(), writer.await.unwrap())
        })
        .unwrap();
    // Unread bytes were thrown away at the other end, which is told as a reset.
    assert!(matches!(&tasks.0, Err(e) if e.kind() == ErrorKind::ConnectionReset) || tasks.0.is_ok());
    assert_eq!(tasks.1.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

/// Whether it is so, or will be without anything that this test does: a child that another test is starting has a copy of
/// every descriptor until its program begins.
fn soon(mut is: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PEER;
    while Instant::now() < end {
        if is() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

/// Whether a pipe has no end to be read from.
fn nobody_reads(to: &OwnedFd) -> bool {
    soon(|| rustix::io::write(to, b"x") == Err(Errno::PIPE))
}

fn i11_a_dropped_watch_is_closed_for_its_peer_at_once(backend: Backend) {
    let mut events = event_loop(backend);
    // The reader's end goes, with a wait in the kernel.
    let (from, to) = pipe();
    let from = watch(&mut events, from);
    assert!(!is_readable(&mut events, &from));
    drop(from);
    assert!(nobody_reads(&to), "before the loop has run");
    // The writer's, full, with a wait in the kernel.
    let (from, to) = pipe();
    let to = watch(&mut events, to);
    let mut sent = 0;
    while let Ok(n) = rustix::io::write(to.get_ref(), &[7; 4096]) {
        sent += n;
    }
    for _ in 0..3 {
        events
            .block_on(async {
                if let Some(ready) = once(to.writable()).await {
                    let _ = ready.unwrap().try_io(|to| Ok(rustix::io::write(to, b"x")?));
                }
            })
            .unwrap();
        events.poll().unwrap();
    }
    drop(to);
    let mut bytes = vec![0; 1 << 20];
    let mut got = 0;
    let closed = soon(|| match rustix::io::read(&from, &mut bytes) {
        Ok(n) => {
            got += n;
            n == 0
        }
        Err(error) => error != Errno::AGAIN,
    });
    assert!(closed, "the end is there, before the loop has run");
    assert_eq!(got, sent);
}

fn i11_a_watch_that_is_dropped_before_its_wait_is_handed_over(backend: Backend) {
    let mut events = event_loop(backend);
    let (from, to) = pipe();
    events
        .block_on(async {
            for _ in 0..3 {
                let watched = AsyncFd::new(from.as_fd()).unwrap();
                assert!(once(watched.readable()).await.is_none());
            }
            drop(from);
            assert!(nobody_reads(&to));
        })
        .unwrap();
}

fn i06_a_number_that_is_used_again_in_one_batch(backend: Backend) {
    let mut events = event_loop(backend);
    // More than what is served between two looks at the tasks.
    let fds: Vec<_> = (0..80).map(|_| Rc::new(watch(&mut events, counter()))).collect();
    let numbers: Vec<_> = fds.iter().map(|fd| fd.as_fd().as_raw_fd()).collect();
    let found = Rc::new(std::cell::RefCell::new(Vec::new()));
    let slots: Rc<std::cell::RefCell<Vec<_>>> =
        Rc::new(std::cell::RefCell::new(fds.iter().cloned().map(Some).collect()));
    drop(fds);
    let first = slots.borrow()[0].clone().unwrap();
    let task = events
        .block_on(async {
            let (slots, found) = (slots.clone(), found.clone());
            let task = spawn(async move {
                first.read_with(|fd| take(fd)).await.unwrap();
                drop(first);
                // All the others go, reported or not; new ones get their numbers.
                slots.borrow_mut().iter_mut().for_each(|slot| drop(slot.take()));
                for _ in 0..80 {
                    found.borrow_mut().push(AsyncFd::new(counter()).unwrap());
                }
            });
            time::sleep(Duration::from_millis(1)).await;
            Some(task)
        })
        .unwrap();
    for slot in slots.borrow().iter().flatten() {
        add(slot.get_ref());
    }
    let task = task.unwrap();
    until(&mut events, "the first has been read", || task.is_finished());
    events.block_on(task).unwrap().unwrap();
    let found = found.take();
    assert!(found.iter().any(|fd| numbers.contains(&fd.as_fd().as_raw_fd())), "numbers are used again");
    for fd in &found {
        assert!(!is_readable(&mut events, fd), "an event of the one before");
    }
    for fd in &found {
        add(fd.get_ref());
        assert!(is_readable(&mut events, fd));
    }
}

fn i03_a_report_after_the_refusal_is_kept(backend: Backend) {
    let mut events = event_loop(backend);
    let fd = watch(&mut events, counter());
    add(fd.get_ref());
    events
        .block_on(async {
            let mut ready = fd.readable().await.unwrap();
            take(fd.get_ref()).unwrap();
            assert!(take(fd.get_ref()).is_err(), "refused");
            // Before it is told, more comes, and is reported.
            add(fd.get_ref());
            time::sleep(Duration::from_millis(3)).await;
            ready.clear();
            fd.readable().await.unwrap();
            assert_eq!(fd.read_with(|fd| take(fd)).await.unwrap(), 1);
            // What was told in time counts.
            let mut ready = fd.readable().await.unwrap();
            assert!(ready.try_io(take).is_err());
            assert!(once(fd.readable()).await.is_none());
        })
        .unwrap();
}

fn i24_a_descriptor_that_is_always_ready_keeps_nobody_waiting(backend: Backend) {
    let mut events = event_loop(backend);
    let fd = eventfd(u32::MAX, EventfdFlags::NONBLOCK | EventfdFlags::SEMAPHORE).unwrap();
    let quiet = watch(&mut events, counter());
    events
        .block_on(async {
            let greedy = spawn(async move {
                let fd = AsyncFd::new(fd).unwrap();
                loop {
                    fd.read_with(|fd| take(fd)).await.unwrap();
                }
            });
            for _ in 0..5 {
                add(quiet.get_ref());
                quiet.read_with(|fd| take(fd)).await.unwrap();
                time::sleep(Duration::from_millis(1)).await;
            }
            assert!(!greedy.is_finished());
        })
        .unwrap();
}

/// The turns that a loop takes in some time of its own.
fn turns_in(events: &mut EventLoop, time: Duration) -> u64 {
    let before = events.handle().stats().turns;
    events.block_on(async move { time::sleep(time).await }).unwrap();
    events.handle().stats().turns - before
}

fn i20_nobody_waits_and_nothing_happens(backend: Backend) {
    let mut events = event_loop(backend);
    let full = watch(&mut events, counter());
    add(full.get_ref());
    let (from, to) = pipe();
    let ended = watch(&mut events, from);
    drop(to);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let gone = watch(&mut events, ours);
    drop(theirs);
    assert!(turns_in(&mut events, Duration::from_millis(60)) < 30);
    // Nor when somebody has waited and left.
    for fd in [&full, &ended, &gone] {
        assert!(is_readable(&mut events, fd));
    }
    let turns = turns_in(&mut events, Duration::from_millis(60));
    assert!(turns < 30, "{turns} turns");
}

fn i31_what_is_reported_for_ever_and_nobody_takes_does_not_spin(backend: Backend) {
    let mut events = event_loop(backend);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    rustix::net::send(&peer, b"!", rustix::net::SendFlags::OOB).unwrap();
    let both = Interest::READABLE | Interest::PRIORITY;
    let socket = events.block_on(async { Rc::new(AsyncFd::with_interest(socket, both).unwrap()) }).unwrap();
    // They wait for ordinary data, and are told of the urgent for ever where that is told for as long as it is there.
    let one = |_| {
        let socket = socket.clone();
        events.handle().spawn(async move { socket.read_with(|mut s| s.read(&mut [0; 1])).await })
    };
    let tasks: Vec<_> = (0..3).map(one).collect();
    let turns = turns_in(&mut events, Duration::from_millis(200));
    assert!(turns < 100, "{turns} turns");
    assert!(tasks.iter().all(|task| !task.is_finished()));
    // And what they wait for reaches them.
    rustix::net::send(&peer, b"abcd", rustix::net::SendFlags::empty()).unwrap();
    until(&mut events, "all have read", || tasks.iter().all(|task| task.is_finished()));
}

fn what_cannot_be_waited_for_is_refused(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            for path in ["Cargo.toml", ".", "/dev/null"] {
                let file = std::fs::File::open(path).unwrap();
                let error = AsyncFd::new(file).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{path}: {error}");
                assert!(error.to_string().contains("cannot be waited for"), "{error}");
            }
        })
        .unwrap();
}

fn a_direction_that_was_not_asked_for_is_refused(backend: Backend) {
    let mut events = event_loop(backend);
    let (from, to) = pipe();
    events
        .block_on(async {
            let from = AsyncFd::with_interest(from, Interest::READABLE).unwrap();
            let to = AsyncFd::with_interest(to, Interest::WRITABLE).unwrap();
            assert_eq!(from.writable().await.unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(to.readable().await.unwrap_err().kind(), ErrorKind::InvalidInput);
            to.writable().await.unwrap();
            rustix::io::write(&to, b"x").unwrap();
            from.readable().await.unwrap();
        })
        .unwrap();
}

fn urgent_data_is_told_to_those_who_want_it(backend: Backend) {
    let mut events = event_loop(backend);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    events
        .block_on(async {
            let both = Interest::READABLE | Interest::PRIORITY;
            let plain = AsyncFd::with_interest(socket.try_clone().unwrap(), Interest::READABLE).unwrap();
            let urgent = AsyncFd::with_interest(socket, both).unwrap();
            assert!(once(plain.readable()).await.is_none() && once(urgent.readable()).await.is_none());
            rustix::net::send(&peer, b"!", rustix::net::SendFlags::OOB).unwrap();
            let mut byte = [0];
            let read = |socket: &TcpStream| {
                Ok(rustix::net::recv(socket, &mut byte[..], rustix::net::RecvFlags::OOB)?)
            };
            urgent.readable().await.unwrap().try_io(read).unwrap().unwrap();
            assert_eq!(byte, *b"!");
        })
        .unwrap();
}

fn a_watch_outlives_its_loop(backend: Backend) {
    let mut events = event_loop(backend);
    let (from, to) = pipe();
    let from = watch(&mut events, from);
    assert!(!is_readable(&mut events, &from));
    drop(events);
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Err(error)) = from.poll_read_ready(&mut cx) else { panic!("it is ready") };
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    drop(from);
    assert!(nobody_reads(&to));
}

fn the_owner_comes_back(backend: Backend) {
    let mut events = event_loop(backend);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    events
        .block_on(async {
            let ours = AsyncFd::new(ours).unwrap();
            ours.set_nonblocking(true).unwrap();
            assert!(once(ours.read_with(|mut s| s.read(&mut [0; 4]))).await.is_none());
            let mut ours = ours.into_inner();
            theirs.write_all(b"more").unwrap();
            let mut got = [0; 4];
            ours.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"more");
            let mut again = AsyncFd::new(ours).unwrap();
            theirs.write_all(b"!").unwrap();
            assert_eq!(again.read_with_mut(|s| s.read(&mut [0; 4])).await.unwrap(), 1);
        })
        .unwrap();
}

fn pollers_are_woken(backend: Backend) {
    let mut events = event_loop(backend);
    let (from, to) = pipe();
    events
        .block_on(async {
            let (from, to) = (AsyncFd::new(from).unwrap(), AsyncFd::new(to).unwrap());
            let reading = spawn(async move {
                let mut byte = [0];
                std::future::poll_fn(|cx| {
                    loop {
                        let mut ready = std::task::ready!(from.poll_read_ready(cx)).unwrap();
                        if let Ok(read) = ready.try_io(|from| Ok(rustix::io::read(from, &mut byte)?)) {
                            return Poll::Ready(read.unwrap());
                        }
                    }
                })
                .await;
                byte[0]
            });
            std::future::poll_fn(|cx| to.poll_write_ready(cx).map(|ready| assert!(ready.is_ok()))).await;
            time::sleep(Duration::from_millis(1)).await;
            rustix::io::write(&to, b"x").unwrap();
            assert_eq!(reading.await.unwrap(), b'x');
        })
        .unwrap();
}

fn i36_watches_leave_no_descriptor(backend: Backend) {
    // What a process makes once, it has now.
    drop(event_loop(backend));
    let before = descriptors();
    for _ in 0..3 {
        let mut events = event_loop(backend);
        let (from, to) = pipe();
        let kept = watch(&mut events, from);
        let waiting = events.handle().spawn(async move {
            let to = AsyncFd::new(to).unwrap();
            while to.write_with(|to| Ok(rustix::io::write(to, &[7; 1000])?)).await.is_ok() {}
        });
        let full = watch(&mut events, counter());
        assert!(!is_readable(&mut events, &full));
        drop(full);
        events.block_on(async { AsyncFd::new(std::fs::File::open(".").unwrap()).unwrap_err() }).unwrap();
        drop((waiting, events));
        drop(kept);
        assert_eq!(descriptors(), before);
    }
}
