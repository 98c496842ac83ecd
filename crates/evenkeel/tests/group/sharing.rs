//! The three ways to share a port.

use std::cell::RefCell;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Instant;

use evenkeel::Backend;
use evenkeel::group::{Group, Share};
use evenkeel::net::{Limits, ListenOptions};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::*;

on_every_backend! {
    every_byte_comes_back,
    closing_stops_all_loops_from_listening,
    a_panic_of_what_makes_handlers_ends_that_connection_only,
}

fn every_byte_comes_back(backend: Backend) {
    const PEERS: usize = 240;
    for loops in [1, 2, 4] {
        for share in SHARES {
            let group = group_on(backend, loops);
            let listener = echo(&group, share);
            let mut peers: Vec<_> = (0..PEERS).map(|_| connect(tcp(&listener))).collect();
            for round in 0..2 {
                for (peer, stream) in peers.iter_mut().enumerate() {
                    stream.write_all(&labelled(peer, round)).unwrap();
                }
                for (peer, stream) in peers.iter_mut().enumerate() {
                    let sent = labelled(peer, round);
                    let mut back = vec![0; sent.len()];
                    stream.read_exact(&mut back).unwrap();
                    assert!(back == sent, "{share:?} over {loops}: peer {peer}, round {round}");
                }
            }
            let spread = connections(&listener);
            assert_eq!(spread.iter().sum::<usize>(), PEERS, "{share:?}: {spread:?}");
            assert_eq!(group.counts(), listener.counts());
            match share {
                Share::ReusePort => assert!(!spread.contains(&0), "{spread:?}"),
                Share::Acceptor => {
                    let (least, most) = (spread.iter().min().unwrap(), spread.iter().max().unwrap());
                    assert!(most - least <= 1, "{spread:?}");
                }
                _ => {}
            }
            for stream in &mut peers {
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "it is closed, and nothing came twice");
            }
            settle(&group);
            assert_eq!(connections(&listener), vec![0; loops]);
            let counts = group.counts();
            assert_eq!(counts.iter().map(|of| of.accepted).sum::<u64>(), PEERS as u64);
            assert_eq!(counts.iter().map(|of| of.refused).sum::<u64>(), 0);
            join(group);
        }
    }
}

fn closing_stops_all_loops_from_listening(backend: Backend) {
    for share in SHARES {
        let group = group_on(backend, 2);
        let listener = echo(&group, share);
        let addr = tcp(&listener);
        let mut stays = connect(addr);
        ping(&mut stays).unwrap();
        listener.close().unwrap();
        // Twice: the close is in one turn, what it asks of the other loops in another.
        settle(&group);
        settle(&group);
        TcpStream::connect(addr).unwrap_err();
        ping(&mut stays).unwrap();
        assert_eq!(group.counts().iter().map(|of| of.accepted).sum::<u64>(), 1, "closed ones still count");
        join(group);
    }
}

fn a_panic_of_what_makes_handlers_ends_that_connection_only(backend: Backend) {
    for share in SHARES {
        let group = group_on(backend, 2);
        let calls = AtomicUsize::new(0);
        let make = move |_: &_, _| {
            assert!(calls.fetch_add(1, Ordering::Relaxed) % 2 == 1, "every other one fails");
            Echo::default()
        };
        let (options, limits) = (ListenOptions::default(), Limits::default());
        let listener = group.listen("127.0.0.1:0", &options, &limits, share, make).unwrap();
        for _ in 0..4 {
            assert!(is_turned_away(&mut connect(tcp(&listener))));
            ping(&mut connect(tcp(&listener))).unwrap();
        }
        let panics = |index| {
            let stats = || async { evenkeel::Handle::current().stats().panics };
            group.spawn_on(index, stats).unwrap().wait().unwrap()
        };
        assert_eq!(panics(0) + panics(1), 4, "{share:?}");
        join(group);
    }
}

#[test]
fn the_acceptor_fills_the_loops_that_have_lost_connections() {
    let _alone = alone();
    let group = group(4);
    let (tell, told) = channel();
    let make = move |_: &_, index| {
        tell.send(index).unwrap();
        Echo::default()
    };
    let (options, limits) = (ListenOptions::default(), Limits::default());
    let listener = group.listen("127.0.0.1:0", &options, &limits, Share::Acceptor, make).unwrap();
    let open = |_| {
        let mut peer = connect(tcp(&listener));
        ping(&mut peer).unwrap();
        (told.recv().unwrap(), peer)
    };
    let mut peers: Vec<_> = (0..40).map(open).collect();
    // All of the third loop go, and their ends have been seen.
    for (_, peer) in peers.extract_if(.., |(index, _)| *index == 2) {
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(is_turned_away(&mut { peer }));
    }
    settle(&group);
    assert_eq!(connections(&listener), [10, 10, 0, 10]);
    let new: Vec<_> = (0..10).map(open).collect();
    assert!(new.iter().all(|(index, _)| *index == 2), "the newcomers go where the fewest are");
    assert_eq!(connections(&listener), [10; 4]);
    join(group);
}

#[test]
fn connections_that_cannot_be_handed_over_are_refused_and_counted() {
    let _alone = alone();
    let group = group(2);
    let listener = echo(&group, Share::Acceptor);
    let release = fill_mailbox(&group.remote(1));
    // They come in turns, as long as those that are refused leave the loops with equally many.
    let mut served = connect(tcp(&listener));
    ping(&mut served).unwrap();
    let mut refused = connect(tcp(&listener));
    assert!(is_turned_away(&mut refused));
    let counts = listener.counts();
    assert_eq!((counts[0].connections, counts[0].accepted, counts[0].refused), (1, 1, 0));
    assert_eq!((counts[1].connections, counts[1].accepted, counts[1].refused), (0, 0, 1));
    let error = group.stop(std::time::Duration::ZERO).unwrap_err();
    assert!(error.kind() == std::io::ErrorKind::TimedOut && error.to_string().contains('1'), "{error}");
    drop(release);
    join(group);
}

#[test]
fn connections_on_their_way_to_a_loop_that_ends_are_refused_and_counted() {
    let _alone = alone();
    let group = group(2);
    let listener = echo(&group, Share::Acceptor);
    let (release, wait) = channel::<()>();
    group
        .remote(1)
        .run(move |handle| {
            let _ = wait.recv();
            handle.stop();
        })
        .unwrap();
    // More than a turn takes, so that the connection waits behind them when the loop ends.
    (0..5000).for_each(|_| group.remote(1).run(|_| ()).unwrap());
    ping(&mut connect(tcp(&listener))).unwrap();
    let mut waits = connect(tcp(&listener));
    // Loop 0 has handed it over when it accepts the next, which is its own.
    ping(&mut connect(tcp(&listener))).unwrap();
    assert_eq!(listener.counts()[1].connections, 1);
    drop(release);
    assert!(is_turned_away(&mut waits));
    ends(group);
    let counts = listener.counts()[1];
    assert_eq!((counts.connections, counts.accepted, counts.refused), (0, 0, 1));
}

#[test]
fn the_acceptor_keeps_to_the_limit_of_each_loop() {
    let _alone = alone();
    let group = group(2);
    let mut limits = Limits::default();
    limits.max_connections = Some(2);
    let listener = echo_within(&group, Share::Acceptor, &limits);
    let mut peers: Vec<_> = (0..4).map(|_| connect(tcp(&listener))).collect();
    peers.iter_mut().for_each(|peer| ping(peer).unwrap());
    assert!(is_turned_away(&mut connect(tcp(&listener))));
    assert_eq!(connections(&listener), [2, 2]);
    assert_eq!(listener.counts().iter().map(|of| of.refused).sum::<u64>(), 1);
    let gone = peers.pop().unwrap();
    gone.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(is_turned_away(&mut { gone }));
    settle(&group);
    ping(&mut connect(tcp(&listener))).unwrap();
    join(group);
}

/// The registrations of this process's epoll instances that wake one for all.
fn exclusive() -> usize {
    let tables = if private_tables() { loop_threads() } else { vec!["/proc/self".into()] };
    tables.iter().map(|table| exclusive_in(table)).sum()
}

/// The folders of the threads that are loops.
fn loop_threads() -> Vec<PathBuf> {
    let is_loop = |task: &PathBuf| {
        fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("evenkeel-"))
    };
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    tasks.map(|task| task.unwrap().path()).filter(is_loop).collect()
}

fn exclusive_in(task: &Path) -> usize {
    // The thread may end just now.
    let infos = fs::read_dir(task.join("fdinfo")).into_iter().flatten();
    let infos = infos.filter_map(|info| fs::read_to_string(info.ok()?.path()).ok());
    let is_exclusive = |line: &str| {
        let mut words = line.split_whitespace();
        let events = words.by_ref().skip_while(|word| *word != "events:").nth(1);
        let events = events.map_or(0, |events| u32::from_str_radix(events, 16).unwrap());
        line.starts_with("tfd:") && events & 1 << 28 != 0
    };
    infos.map(|info| info.lines().filter(|line| is_exclusive(line)).count()).sum()
}

#[test]
fn a_shared_socket_wakes_one_loop_where_the_interface_can() {
    let _alone = alone();
    for backend in [Backend::EpollLevel, Backend::Epoll] {
        let group = group_on(backend, 3);
        assert_eq!(exclusive(), 0);
        let listener = echo(&group, Share::Shared);
        assert_eq!(exclusive(), 3, "{backend}");
        let _other = echo(&group, Share::ReusePort);
        assert_eq!(exclusive(), 3, "{backend}: a socket of one's own is not shared");
        ping(&mut connect(tcp(&listener))).unwrap();
        join(group);
        assert_eq!(exclusive(), 0);
    }
}

#[test]
fn i27_a_shared_socket_is_taken_from_again_after_descriptors_ran_out() {
    in_process("sharing::i27_a_shared_socket_is_taken_from_again_after_descriptors_ran_out", || {
        Backend::ALL.iter().copied().for_each(run_out);
    });
}

thread_local! {
    /// Descriptors that only take up room.
    static TAKEN: RefCell<Vec<OwnedFd>> = const { RefCell::new(Vec::new()) };
}

fn on_each_loop(group: &Group, call: fn()) {
    for index in 0..group.len() {
        group.spawn_on(index, move || async move { call() }).unwrap().wait().unwrap();
    }
}

fn run_out(backend: Backend) {
    let old = getrlimit(Resource::Nofile);
    // Before there is a ring, which holds on to the limit that it met when it was asked to accept.
    setrlimit(Resource::Nofile, Rlimit { current: Some(200), maximum: old.maximum }).unwrap();
    let group = group_on(backend, 2);
    let listener = echo(&group, Share::Shared);
    let registered = exclusive();
    let to = socket2::SockAddr::from(tcp(&listener));
    let socket = |_| socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let crowd: Vec<_> = (0..30).map(socket).collect();
    // On the loops' own threads, whether they share a table or not.
    on_each_loop(&group, || {
        TAKEN.with_borrow_mut(|taken| {
            taken.extend(std::iter::from_fn(|| rustix::io::dup(std::io::stdin()).ok()));
        })
    });
    let connected = |socket: socket2::Socket| {
        socket.connect(&to).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        TcpStream::from(socket)
    };
    let crowd: Vec<_> = crowd.into_iter().map(connected).collect();
    let since = Instant::now();
    let errors = || async { evenkeel::Handle::current().stats().accept_errors };
    while (0..2).all(|index| group.spawn_on(index, errors).unwrap().wait().unwrap() == 0) {
        assert!(since.elapsed() < LONG, "{backend}: descriptors have run out");
    }
    on_each_loop(&group, || TAKEN.with_borrow_mut(Vec::clear));
    setrlimit(Resource::Nofile, old).unwrap();
    for mut peer in crowd {
        // One was reset, or is served: a descriptor that one loop gave up may have been the next of the other.
        let kept_waiting = ping(&mut peer).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!kept_waiting, "{backend}");
    }
    let since = Instant::now();
    while exclusive() < registered {
        assert!(since.elapsed() < LONG, "{backend}: all loops listen again");
        std::thread::yield_now();
    }
    ping(&mut connect(tcp(&listener))).unwrap();
    join(group);
}

#[test]
fn unix_sockets_are_shared_but_not_their_addresses() {
    let _alone = alone();
    let path = std::env::temp_dir().join(format!("evenkeel-group-{}", std::process::id()));
    let (options, limits) = (ListenOptions::default(), Limits::default());
    for share in SHARES {
        let group = group(3);
        let listener = group.listen(path.as_path(), &options, &limits, share, |_, _| Echo::default());
        if share == Share::ReusePort {
            assert_eq!(listener.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
            continue;
        }
        let listener = listener.unwrap();
        let mut peers: Vec<_> = (0..12).map(|_| UnixStream::connect(&path).unwrap()).collect();
        for peer in &mut peers {
            peer.set_read_timeout(Some(LONG)).unwrap();
            peer.write_all(b"ping").unwrap();
            peer.read_exact(&mut [0; 4]).unwrap();
        }
        assert_eq!(connections(&listener).iter().sum::<usize>(), 12);
        join(group);
        assert!(!path.exists(), "{share:?}: the socket's file is gone");
    }
    for fails in 0..2 {
        let group = group(2);
        let each = move |_: &_, index| {
            assert_ne!(index, fails, "this loop's fails");
            |_: &_| Echo::default()
        };
        group.listen_each(path.as_path(), &options, &limits, Share::Shared, each).unwrap_err();
        settle(&group);
        assert!(!path.exists(), "with loop {fails} failing");
    }
}

#[test]
fn what_cannot_be_listened_at_leaves_nothing_behind() {
    let _alone = alone();
    let group = group(3);
    let (options, mut limits) = (ListenOptions::default(), Limits::default());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    settle(&group);
    let before = descriptors();
    for share in SHARES {
        let error =
            group.listen(taken.local_addr().unwrap(), &options, &limits, share, |_, _| Echo::default());
        assert_eq!(error.unwrap_err().kind(), std::io::ErrorKind::AddrInUse, "{share:?}");
        let panics = |_: &_, index| {
            assert_ne!(index, 2, "this loop's fails");
            |_: &_| Echo::default()
        };
        let error = group.listen_each("127.0.0.1:0", &options, &limits, share, panics).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::Other, "{share:?}: {error}");
        settle(&group);
        assert!(descriptors() <= before, "{share:?}: {} descriptors, {before} before", descriptors());
    }
    limits.max_connections = Some(10);
    let error = group.listen("127.0.0.1:0", &options, &limits, Share::Shared, |_, _| Echo::default());
    assert_eq!(error.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    join(group);
}

#[test]
fn a_loop_does_not_wait_for_itself() {
    let _alone = alone();
    let group = std::sync::Arc::new(group(2));
    let weak = std::sync::Arc::downgrade(&group);
    let listen = move || async move {
        let group: std::sync::Arc<Group> = weak.upgrade().unwrap();
        let (options, limits) = (ListenOptions::default(), Limits::default());
        let listened =
            group.listen("127.0.0.1:0", &options, &limits, Share::Acceptor, |_, _| Echo::default());
        listened.unwrap_err().kind()
    };
    let kind = group.spawn_on(1, listen).unwrap().wait().unwrap();
    assert_eq!(kind, std::io::ErrorKind::Deadlock);
}
