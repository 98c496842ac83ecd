//! Streams that are forwarded to each other.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use evenkeel::net::{Stream, forward, forward_both};
use evenkeel::sim::blocking::{self, TcpListener, TcpStream, UnixStream};
use evenkeel::sim::is_simulated;
use evenkeel::task::JoinHandle;
use evenkeel::{Backend, EventLoop, Message, time};

use crate::support::{PEER, assert_same, descriptors, event_loop, exactly, pattern, reset_on_close, until};

on_every_kernel! {
    i35_both_directions_at_once_lose_nothing,
    i30_an_end_is_passed_on_and_the_other_direction_lives,
    small_messages_go_through_at_once,
    what_was_received_before_goes_first,
    a_slow_side_slows_the_other_one_down,
    a_failure_of_one_side_ends_it,
    one_direction_alone,
}

in_processes! {
    i33_forwarding_to_nobody_raises_no_signal,
    i36_idle_directions_hold_no_descriptors,
    without_descriptors_it_goes_through_memory,
}

// Without the last: the number of a simulated host's descriptors is not limited by the test.
in_hosts! {
    i33_forwarding_to_nobody_raises_no_signal,
    i36_idle_directions_hold_no_descriptors,
}

type Counts = JoinHandle<io::Result<(u64, u64)>>;

/// Two raw peers with a forwarder between their streams.
fn between(events: &mut EventLoop) -> (TcpStream, TcpStream, Counts) {
    let (streams, peers) = events
        .block_on(async {
            let (mut streams, mut peers) = (Vec::new(), Vec::new());
            for _ in 0..2 {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                streams.push(Stream::connect(listener.local_addr().unwrap()).await.unwrap());
                let peer = listener.accept().unwrap().0;
                peer.set_read_timeout(Some(PEER)).unwrap();
                peer.set_write_timeout(Some(PEER)).unwrap();
                peers.push(peer);
            }
            (streams, peers)
        })
        .unwrap();
    let [mut a, mut b] = <[_; 2]>::try_from(streams).unwrap();
    let [to_a, to_b] = <[_; 2]>::try_from(peers).unwrap();
    let task = events.handle().spawn(async move {
        let result = forward_both(&mut a, &mut b).await;
        if result.is_err() {
            a.abort();
            b.abort();
        }
        result
    });
    (to_a, to_b, task)
}

fn send(peer: &TcpStream, bytes: Vec<u8>) -> blocking::JoinHandle<()> {
    let mut peer = peer.try_clone().unwrap();
    blocking::spawn(move || {
        peer.write_all(&bytes).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
    })
}

fn receive(mut peer: impl Read + Send + 'static) -> blocking::JoinHandle<Vec<u8>> {
    blocking::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        all
    })
}

fn i35_both_directions_at_once_lose_nothing(backend: Backend) {
    let mut events = event_loop(backend);
    let (a, b, task) = between(&mut events);
    // Much more than all buffers between them hold.
    let (more, less) = if is_simulated() { (2_000_000, 900_001) } else { (20_000_000, 9_000_001) };
    let (there, back) = (pattern(more), pattern(less));
    let sending = [send(&a, there.clone()), send(&b, back.clone())];
    let (at_b, at_a) = (receive(b), receive(a));
    let counts = events.block_on(task).unwrap().unwrap().unwrap();
    assert_eq!(counts, (more as u64, less as u64));
    sending.into_iter().for_each(|s| s.join().unwrap());
    assert_same(&at_b.join().unwrap(), &there);
    assert_same(&at_a.join().unwrap(), &back);
    // Unix sockets are forwarded like others.
    let ((a, ours_a), (b, ours_b)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    let task = events.handle().spawn(async move {
        forward_both(
            &mut Stream::from_fd(ours_a.into_fd().unwrap())?,
            &mut Stream::from_fd(ours_b.into_fd().unwrap())?,
        )
        .await
    });
    let mut far = a.try_clone().unwrap();
    let sent = there.clone();
    let sending = blocking::spawn(move || {
        far.write_all(&sent).unwrap();
        far.shutdown(Shutdown::Write).unwrap();
    });
    b.shutdown(Shutdown::Write).unwrap();
    let (at_b, at_a) = (receive(b), receive(a));
    assert_eq!(events.block_on(task).unwrap().unwrap().unwrap(), (more as u64, 0));
    sending.join().unwrap();
    assert_same(&at_b.join().unwrap(), &there);
    assert_eq!(at_a.join().unwrap(), b"");
}

fn i30_an_end_is_passed_on_and_the_other_direction_lives(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut a, mut b, task) = between(&mut events);
    a.write_all(b"question").unwrap();
    a.shutdown(Shutdown::Write).unwrap();
    let talk = blocking::spawn(move || {
        let mut question = Vec::new();
        b.read_to_end(&mut question).unwrap();
        assert_eq!(question, b"question");
        for _ in 0..3 {
            b.write_all(b"answer").unwrap();
            assert_eq!(exactly(&mut a, 6), b"answer");
        }
        drop(b);
        assert_eq!(a.read(&mut [0; 4]).unwrap(), 0);
    });
    assert_eq!(events.block_on(task).unwrap().unwrap().unwrap(), (8, 18));
    talk.join().unwrap();
}

fn small_messages_go_through_at_once(backend: Backend) {
    let mut events = event_loop(backend);
    let (mut a, mut b, task) = between(&mut events);
    let talk = blocking::spawn(move || {
        for len in (1..300).chain([5000, 40_000, 65_536, 100_000, 3]) {
            let sent = pattern(len);
            a.write_all(&sent).unwrap();
            assert_same(&exactly(&mut b, len), &sent);
            b.write_all(&sent).unwrap();
            assert_same(&exactly(&mut a, len), &sent);
        }
    });
    let (there, back) = events.block_on(task).unwrap().unwrap().unwrap();
    assert_eq!(there, back);
    talk.join().unwrap();
}

fn what_was_received_before_goes_first(backend: Backend) {
    let mut events = event_loop(backend);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let (mut from, mut to) = events
        .block_on(async {
            let from = Stream::connect(at).await.unwrap();
            (from, Stream::connect(at).await.unwrap())
        })
        .unwrap();
    let (mut a, b) = (listener.accept().unwrap().0, listener.accept().unwrap().0);
    let sent = pattern(3_000_000);
    let early = sent.clone();
    let sending = blocking::spawn(move || {
        a.write_all(&early).unwrap();
        a.shutdown(Shutdown::Write).unwrap();
        a
    });
    // The stream has been read a little, so that a ring has received far ahead.
    let first = events
        .block_on(async {
            let mut first = [0; 1000];
            from.read_exact(&mut first).await.unwrap();
            time::sleep(Duration::from_millis(5)).await;
            to.send(&Message::from("head"));
            first
        })
        .unwrap();
    b.shutdown(Shutdown::Write).unwrap();
    let at_b = receive(b);
    let counts = events.block_on(async { forward_both(&mut from, &mut to).await }).unwrap().unwrap();
    assert_eq!(counts, (2_999_000, 0));
    assert_same(&[&first[..], &at_b.join().unwrap()[4..]].concat(), &sent);
    drop(sending.join().unwrap());
}

fn a_slow_side_slows_the_other_one_down(backend: Backend) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let (mut a, mut b, task) = between(&mut events);
    a.set_nonblocking(true).unwrap();
    let all = if is_simulated() { 10_000_000 } else { 100_000_000 };
    let sent = pattern(all);
    // The sender is filled up, turn by turn, until nothing goes any more.
    let (mut written, mut quiet) = (0, 0);
    while quiet < 50 {
        match a.write(&sent[written..]) {
            Ok(n) => (written, quiet) = (written + n, 0),
            Err(e) if e.kind() == ErrorKind::WouldBlock => quiet += 1,
            Err(e) => panic!("{e}"),
        }
        events.block_on(async { time::sleep(Duration::from_millis(1)).await }).unwrap();
    }
    assert!(written < all / 10 * 6, "{written} bytes went nowhere");
    let turns = h.stats().turns;
    events.block_on(async { time::sleep(Duration::from_millis(20)).await }).unwrap();
    assert!(h.stats().turns - turns < 10, "{} turns", h.stats().turns - turns);
    assert!(!task.is_finished());
    a.shutdown(Shutdown::Write).unwrap();
    b.shutdown(Shutdown::Write).unwrap();
    let at_b = blocking::spawn(move || {
        let mut all = Vec::new();
        b.read_to_end(&mut all).unwrap();
        all
    });
    assert_eq!(events.block_on(task).unwrap().unwrap().unwrap(), (written as u64, 0));
    assert_same(&at_b.join().unwrap(), &sent[..written]);
}

fn a_failure_of_one_side_ends_it(backend: Backend) {
    let mut events = event_loop(backend);
    for bulk in [false, true] {
        let (a, mut b, task) = between(&mut events);
        if bulk {
            b.set_nonblocking(true).unwrap();
            while b.write(&[7; 100_000]).is_ok() {}
            b.set_nonblocking(false).unwrap();
            (0..20).for_each(|_| events.poll().unwrap());
        }
        reset_on_close(&a);
        drop(a);
        let error = events.block_on(task).unwrap().unwrap().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
        let ended = blocking::spawn(move || {
            let mut all = Vec::new();
            b.read_to_end(&mut all).map_err(|e| e.kind())
        });
        let h = events.handle();
        until(&mut events, "both are closed", || h.stats().sources == 0);
        assert_eq!(ended.join().unwrap(), Err(ErrorKind::ConnectionReset), "no orderly end");
    }
}

fn one_direction_alone(backend: Backend) {
    let mut events = event_loop(backend);
    let ((a, ours_a), (b, ours_b)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    let sent = pattern(1_000_000);
    let bytes = sent.clone();
    let sending = blocking::spawn(move || (&a).write_all(&bytes).map(|()| drop(a)).unwrap());
    let at_b = receive(b);
    let result = events.block_on(async {
        let (mut from, mut to) =
            (Stream::from_fd(ours_a.into_fd().unwrap())?, Stream::from_fd(ours_b.into_fd().unwrap())?);
        let count = forward(from.split().0, to.split().1).await?;
        to.write(b"x").await.map(drop).unwrap_err();
        Ok::<_, io::Error>(count)
    });
    assert_eq!(result.unwrap().unwrap(), 1_000_000);
    sending.join().unwrap();
    assert_same(&at_b.join().unwrap(), &sent);
}

fn i33_forwarding_to_nobody_raises_no_signal(backend: Backend) {
    // A world has no signals, and is not alone in its process.
    if !is_simulated() {
        // SAFETY: sets a disposition to its default; no other thread of this process uses it.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }
    let mut events = event_loop(backend);
    for _ in 0..3 {
        // A Unix socket whose peer has gone raises it at the first attempt, which the kernel makes here.
        let ((mut a, ours_a), (mut b, ours_b)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let task = events.handle().spawn(async move {
            let (mut a, mut b) =
                (Stream::from_fd(ours_a.into_fd().unwrap())?, Stream::from_fd(ours_b.into_fd().unwrap())?);
            let result = forward_both(&mut a, &mut b).await;
            a.abort();
            b.abort();
            result
        });
        let sending = blocking::spawn(move || while a.write_all(&[7; 100_000]).is_ok() {});
        let reading = blocking::spawn(move || drop(exactly(&mut b, 3_000_000)));
        let error = events.block_on(task).unwrap().unwrap().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
        reading.join().unwrap();
        let h = events.handle();
        until(&mut events, "both are closed", || h.stats().sources == 0);
        sending.join().unwrap();
    }
}

fn i36_idle_directions_hold_no_descriptors(backend: Backend) {
    let mut events = event_loop(backend);
    let none = descriptors();
    let (mut a, mut b, task) = between(&mut events);
    let open = descriptors();
    let len = if is_simulated() { 1_000_000 } else { 5_000_000 };
    for _ in 0..2 {
        let sent = pattern(len);
        let mut from = a.try_clone().unwrap();
        let bytes = sent.clone();
        let sending = blocking::spawn(move || from.write_all(&bytes).unwrap());
        let mut to = b.try_clone().unwrap();
        let receiving = blocking::spawn(move || exactly(&mut to, len));
        until(&mut events, "all has come", || receiving.is_finished());
        assert_same(&receiving.join().unwrap(), &sent);
        sending.join().unwrap();
        until(&mut events, "the pipe is gone", || descriptors() == open);
    }
    a.shutdown(Shutdown::Write).unwrap();
    b.shutdown(Shutdown::Write).unwrap();
    assert_eq!(events.block_on(task).unwrap().unwrap().unwrap(), (2 * len as u64, 0));
    let _ = (a.read(&mut [0; 1]), b.read(&mut [0; 1]));
    drop((a, b));
    until(&mut events, "all is closed", || descriptors() == none);
    // One that is given up in the middle leaves nothing either.
    let (mut a, b, task) = between(&mut events);
    a.set_nonblocking(true).unwrap();
    let many = pattern(1_000_000);
    for _ in 0..50 {
        let _ = a.write(&many);
        events.poll().unwrap();
    }
    task.abort();
    drop((a, b));
    until(&mut events, "all is closed again", || descriptors() == none);
}

fn without_descriptors_it_goes_through_memory(backend: Backend) {
    let mut events = event_loop(backend);
    let (a, b, task) = between(&mut events);
    let sent = pattern(5_000_000);
    let sending = send(&a, sent.clone());
    b.shutdown(Shutdown::Write).unwrap();
    let (at_b, at_a) = (receive(b), receive(a));
    let mut filler = Vec::new();
    let old = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let few = rustix::process::Rlimit { current: Some(300), maximum: old.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, few).unwrap();
    while let Ok(one) = rustix::io::dup(io::stdin()) {
        filler.push(one);
    }
    assert_eq!(events.block_on(task).unwrap().unwrap().unwrap(), (5_000_000, 0));
    drop(filler);
    sending.join().unwrap();
    assert_same(&at_b.join().unwrap(), &sent);
    assert_eq!(at_a.join().unwrap(), b"");
}
