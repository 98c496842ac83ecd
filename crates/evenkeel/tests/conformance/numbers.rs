//! Descriptors as numbers: the first three, very many, and none left. Each test has a process to itself.

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use evenkeel::net::unix::{Seqpacket, UnixDatagram};
use evenkeel::net::{ConnectOptions, ListenOptions, Listener, Stream, UdpSocket};
use evenkeel::{Backend, fs};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::files::Folder;
use crate::standard_streams::put;
use crate::support::{Probe, Server, connect, descriptors, exactly, pattern};

in_processes! {
    the_first_three_numbers_are_like_any_other,
    i27_whatever_needs_a_descriptor_says_that_there_is_none,
    i24_a_thousand_connections_are_told_apart,
    i36_numbers_are_used_again_at_once,
}

/// Closes standard input, output and error for a while.
struct Without {
    kept: [OwnedFd; 3],
}

impl Without {
    fn new() -> Self {
        let copy = |of: &dyn AsFd| rustix::io::fcntl_dupfd_cloexec(of.as_fd(), 10).unwrap();
        let kept = [copy(&io::stdin()), copy(&io::stdout()), copy(&io::stderr())];
        // SAFETY: nobody owns the numbers of the standard streams.
        (0..3).for_each(|number| assert_eq!(unsafe { libc::close(number) }, 0));
        Without { kept }
    }
}

impl Drop for Without {
    fn drop(&mut self) {
        for (number, kept) in self.kept.iter().enumerate() {
            put(kept, number as i32);
        }
    }
}

/// A process that was started without standard streams: its sockets, and what the loop opens for itself, get their numbers.
fn the_first_three_numbers_are_like_any_other(backend: Backend) {
    let folder = Folder::new();
    let before = descriptors();
    let mut used = Vec::new();
    let without = Without::new();
    for round in 0..3 {
        let mut held = Vec::new();
        // The loop gets them, or its listener and its connections do.
        if round > 0 {
            held.extend((0..round).map(|_| rustix::io::dup(&without.kept[0]).unwrap()));
        }
        let mut s = Server::new(backend);
        held.clear();
        let (mut peer, seen) = s.pair(Probe::echo());
        used.push(peer.std().unwrap().as_raw_fd());
        peer.write_all(b"ping").unwrap();
        s.until("it was heard", || seen.len() == 4);
        assert_eq!(s.answer(&mut peer, 4), b"ping");
        let (path, at) = (folder.path("file"), s.addr);
        s.expect(Probe::echo());
        s.events
            .block_on(async {
                fs::write(&path, pattern(10_000)).await.unwrap();
                assert_eq!(fs::read(&path).await.unwrap(), pattern(10_000));
                let mut stream = Stream::connect(at).await.unwrap();
                stream.write_all(b"x").await.unwrap();
                let mut got = [0];
                stream.read_exact(&mut got).await.unwrap();
                let (mut to, mut from) = evenkeel::pipe::pipe().unwrap();
                to.write_all(b"x").await.unwrap();
                from.read_exact(&mut got).await.unwrap();
            })
            .unwrap();
        s.h.abort(seen.id()).unwrap();
        s.turns(2);
        assert!(seen.closed());
    }
    drop(without);
    assert!(used.iter().any(|number| *number < 10), "{used:?}");
    assert_eq!(descriptors(), before);
}

/// The limit is set so that nothing more can be opened.
fn with_none_left<R>(body: impl FnOnce() -> R) -> R {
    let old = getrlimit(Resource::Nofile);
    let highest = rustix::io::dup(io::stdin()).unwrap().as_raw_fd() as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(highest), maximum: old.maximum }).unwrap();
    let holes: Vec<_> = std::iter::from_fn(|| rustix::io::dup(io::stdin()).ok()).collect();
    let result = body();
    drop(holes);
    setrlimit(Resource::Nofile, old).unwrap();
    result
}

fn i27_whatever_needs_a_descriptor_says_that_there_is_none(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::echo());
    let folder = Folder::new();
    let path = folder.path("file");
    std::fs::write(&path, "x").unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = silent.local_addr().unwrap();
    // What a loop opens once, and the threads that it may need, it has from here on.
    s.events.block_on(fs::read(&path)).unwrap().unwrap();
    s.events.block_on(async { drop(UdpSocket::bind("127.0.0.1:0").unwrap()) }).unwrap();
    let before = descriptors();
    for _ in 0..3 {
        let errors = with_none_left(|| {
            let listened = s.pool.listen("127.0.0.1:0", &ListenOptions::default(), |_| Probe::new());
            let connected = s.pool.connect(at, &ConnectOptions::default(), Probe::new());
            let mut errors = vec![
                ("listen", listened.map(drop)),
                ("connect", connected.map(drop)),
                ("a copy of a listener", s.h.listener_socket(s.listener).map(drop)),
            ];
            s.events
                .block_on(async {
                    errors.push(("a task's connect", Stream::connect(at).await.map(drop)));
                    errors.push(("a task's listener", Listener::bind("127.0.0.1:0").map(drop)));
                    errors.push(("UDP", UdpSocket::bind("127.0.0.1:0").map(drop)));
                    errors.push(("a Unix datagram", UnixDatagram::unbound().map(drop)));
                    errors.push(("a pair", Seqpacket::pair().map(drop)));
                    errors.push(("a pipe", evenkeel::pipe::pipe().map(drop)));
                    errors.push(("a file", fs::File::open(&path).await.map(drop)));
                    errors.push(("reading a file", fs::read(&path).await.map(drop)));
                })
                .unwrap();
            errors
        });
        for (what, result) in errors {
            let error = result.expect_err(what);
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{what}: {error}");
        }
        // Who is there goes on, then and now.
        let heard = seen.len();
        peer.write_all(b"ping").unwrap();
        s.until("it is heard", || seen.len() == heard + 4);
        assert_eq!(s.answer(&mut peer, 4), b"ping");
        s.turns(3);
        assert_eq!(descriptors(), before);
        assert!(s.events.block_on(Stream::connect(at)).unwrap().is_ok());
        assert!(s.events.block_on(fs::read(&path)).unwrap().is_ok());
        s.turns(3);
    }
}

fn i24_a_thousand_connections_are_told_apart(backend: Backend) {
    let old = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: old.maximum, maximum: old.maximum }).unwrap();
    // Each takes two numbers, and select has 1,024 of them.
    let count = if backend == Backend::Select { 450 } else { 1500 };
    let mut s = Server::new(backend);
    let mut all: Vec<_> = (0..count).map(|_| s.pair(Probe::echo())).collect();
    let text = |i: usize, round: usize| format!("{i} in round {round};").into_bytes();
    for round in 0..3 {
        for (i, (peer, _)) in all.iter_mut().enumerate().filter(|(i, _)| i % 3 >= round) {
            peer.write_all(&text(i, round)).unwrap();
        }
        let mut wanted = 0;
        let h = s.h.clone();
        let before = h.stats().bytes_out;
        for i in (0..count).filter(|i| i % 3 >= round) {
            wanted += text(i, round).len() as u64;
        }
        s.until("all were answered", || h.stats().bytes_out - before >= wanted);
        for (i, (peer, _)) in all.iter_mut().enumerate().filter(|(i, _)| i % 3 >= round) {
            let want = text(i, round);
            assert_eq!(exactly(peer, want.len()), want);
        }
    }
    // Every other one goes; those that stay are the right ones.
    let mut at = 0;
    let mut gone = Vec::new();
    all.retain_mut(|(_, seen)| {
        at += 1;
        if at % 2 == 0 {
            gone.push(seen.clone());
        }
        at % 2 != 0
    });
    s.until("their ends were heard", || gone.iter().all(|seen| seen.closed()));
    assert!(all.iter().all(|(_, seen)| !seen.closed()));
    for (peer, _) in &mut all {
        peer.write_all(b"still here").unwrap();
    }
    for (peer, _) in &mut all {
        s.until("it is answered", || {
            peer.set_nonblocking(true).unwrap();
            let there = peer.std().unwrap().peek(&mut [0; 10]).is_ok_and(|n| n == 10);
            peer.set_nonblocking(false).unwrap();
            there
        });
        assert_eq!(exactly(peer, 10), b"still here");
    }
    assert_eq!((s.pool.len(), s.h.stats().panics), (all.len(), 0));
}

/// The same few numbers are opened and closed a thousand times; each connection hears its own bytes.
fn i36_numbers_are_used_again_at_once(backend: Backend) {
    let mut s = Server::new(backend);
    let before = descriptors();
    let mut highest = 0;
    for round in 0..300_u32 {
        let seen = s.expect(Probe::echo());
        let mut peer = connect(s.addr);
        highest = highest.max(peer.std().unwrap().as_raw_fd());
        let word = round.to_be_bytes();
        peer.write_all(&word).unwrap();
        s.until("it was heard", || seen.len() == 4);
        assert_eq!(*seen.data.borrow(), word, "bytes of another connection");
        s.turns(1);
        match round % 3 {
            0 => drop(peer),
            1 => s.h.abort(seen.id()).unwrap(),
            _ => {
                s.h.close(seen.id()).unwrap();
                s.turns(2);
                let mut back = [0; 4];
                peer.read_exact(&mut back).unwrap();
                assert_eq!((back, peer.read(&mut back).unwrap()), (word, 0));
            }
        }
        s.until("it is over", || seen.closed());
    }
    assert!(highest < 40, "{highest} is the highest number");
    s.turns(3);
    assert_eq!(descriptors(), before);
}
