//! Loops with descriptor tables of their own. With `EVENKEEL_TEST_TABLES=private` all other tests run in this mode too.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use evenkeel::group::Share;
use evenkeel::net::Stream;
use evenkeel::signal::{Signal, Signals};
use evenkeel::{Backend, Descriptors, Handle, Remote};

use crate::support::*;

/// A table but for what only takes up a number.
fn used() -> HashMap<RawFd, String> {
    table().into_iter().filter(|(_, to)| to != "/").collect()
}

on_every_backend! {
    a_number_means_something_else_on_each_loop,
    i02_a_wake_arrives_from_any_table,
    i36_a_private_table_has_what_the_loop_uses_and_nothing_more,
    i43_connections_change_loops_with_data_in_flight,
    a_peer_sees_the_close_at_once,
    signals_reach_loops_in_every_table,
}

fn a_number_means_something_else_on_each_loop(backend: Backend) {
    let group = private_on(backend, 2);
    let open = |name: &'static str| {
        move |handle: &Handle| {
            assert!(matches!(handle.descriptors(), Descriptors::Private));
            let path = std::env::temp_dir().join(format!("evenkeel-tables-{name}-{}", std::process::id()));
            let file = fs::File::create(&path).unwrap();
            fs::remove_file(&path).unwrap();
            let number = file.as_raw_fd();
            let is = fs::read_link(format!("/proc/thread-self/fd/{number}")).unwrap();
            (number, is.display().to_string())
        }
    };
    let (first, is_first) = on(&group, 0, open("one"));
    let (second, is_second) = on(&group, 1, open("two"));
    assert_eq!(first, second, "both tables have the same numbers free");
    assert!(is_first.contains("one") && is_second.contains("two"));
    join(group);
}

fn i02_a_wake_arrives_from_any_table(backend: Backend) {
    let group = private_on(backend, 2);
    let shared = group_on(backend, 1);
    let remotes = [group.remote(0), group.remote(1), shared.remote(0)];
    // Each sleeps when it is woken: it answers only what comes, and nobody sends before the last answer.
    let from_here = |remotes: &[Remote; 3]| {
        for round in 0..50 {
            for remote in remotes {
                assert_eq!(remote.spawn(move || async move { round }).unwrap().wait().unwrap(), round);
            }
        }
    };
    from_here(&remotes);
    // A thread that a private loop has started has its table, and nobody knows.
    let (done, wait) = channel();
    let to = remotes.clone();
    group
        .remote(1)
        .run(move |_| {
            drop(thread::spawn(move || {
                for round in 0..50 {
                    for remote in &to {
                        assert_eq!(
                            remote.spawn(move || async move { round }).unwrap().wait().unwrap(),
                            round
                        );
                    }
                }
                done.send(()).unwrap();
            }))
        })
        .unwrap();
    wait.recv_timeout(LONG).unwrap();
    // From loop to loop, across tables, and to oneself.
    let hops = AtomicU64::new(0);
    let (done, wait) = channel();
    hop(remotes, Arc::new(hops), done);
    wait.recv_timeout(LONG).unwrap();
    join(shared);
    join(group);
}

fn hop(remotes: [Remote; 3], hops: Arc<AtomicU64>, done: Sender<()>) {
    let at = hops.fetch_add(1, Ordering::Relaxed);
    if at == 600 {
        return done.send(()).unwrap();
    }
    let next = remotes[(at as usize * 7 + at as usize / 5) % 3].clone();
    next.run(move |_| hop(remotes, hops, done)).unwrap();
}

fn i36_a_private_table_has_what_the_loop_uses_and_nothing_more(backend: Backend) {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let before = descriptors();
    let group = private_on(backend, 2);
    assert_eq!(descriptors(), before + 2, "of the sockets that the loops were made with, the ways to them");
    let number = held.as_raw_fd();
    let (is, error) = on(&group, 0, move |_| {
        // SAFETY: a number that is taken, for the length of one call that the kernel refuses.
        let taken = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
        (table().remove(&number), rustix::io::write(taken, b"x").unwrap_err())
    });
    assert_eq!((is.as_deref(), error), (Some("/"), rustix::io::Errno::BADF), "taken, and refuses everything");
    let empty = on(&group, 1, |_| used());
    assert!(empty.len() < 12, "{empty:?}");
    for share in SHARES {
        let listener = echo(&group, share);
        let mut peers: Vec<_> = (0..20).map(|_| connect(tcp(&listener))).collect();
        peers.iter_mut().for_each(|peer| ping(peer).unwrap());
        drop(peers);
        listener.close().unwrap();
        settle(&group);
        while group.counts().iter().any(|counts| counts.connections > 0) {
            settle(&group);
        }
        settle(&group);
        assert_eq!(on(&group, 1, |_| used()), empty, "{share:?}");
    }
    join(group);
    assert_eq!(descriptors(), before);
}

/// Counts what it gets, answers it, and changes loops after every so many bytes.
fn echo_and_move(remotes: Arc<[Remote]>, at: usize, mut stream: Stream, mut left: usize) {
    Handle::current()
        .spawn(async move {
            let mut buffer = [0; 512];
            for _ in 0..5 {
                let most = left.min(buffer.len());
                let n = if most == 0 { 0 } else { stream.read(&mut buffer[..most]).await.unwrap() };
                if n == 0 {
                    assert_eq!(left, 0);
                    return;
                }
                left -= n;
                stream.write_all(&buffer[..n]).await.unwrap();
            }
            stream.flush().await.unwrap();
            let parts = stream.into_parts().unwrap();
            // What was received ahead goes along: it is answered first.
            let (unread, to) = (parts.unread, (at + 1) % remotes.len());
            let others = remotes.clone();
            let arrive = move |handle: &Handle, fd: io::Result<OwnedFd>| {
                handle
                    .spawn(async move {
                        let mut stream = Stream::from_fd(fd.unwrap()).unwrap();
                        stream.write_all(&unread).await.unwrap();
                        echo_and_move(others, to, stream, left - unread.len());
                    })
                    .detach();
            };
            Handle::current().hand_over(&remotes[to], parts.fd, arrive).unwrap();
        })
        .detach();
}

fn i43_connections_change_loops_with_data_in_flight(backend: Backend) {
    const PEERS: usize = 100;
    const BYTES: usize = 20_000;
    let group = private_on(backend, 4);
    let remotes: Arc<[Remote]> = group.remotes().into();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let others = remotes.clone();
    group
        .remote(0)
        .run(move |handle| {
            handle
                .spawn(async move {
                    // Opened here, in the loop's own table.
                    for _ in 0..PEERS {
                        let stream = Stream::connect(addr).await.unwrap();
                        echo_and_move(others.clone(), 0, stream, BYTES);
                    }
                })
                .detach();
        })
        .unwrap();
    let streams: Vec<_> = (0..PEERS).map(|_| listener.accept().unwrap().0).collect();
    let peers = streams.into_iter().enumerate().map(|(peer, mut stream)| {
        thread::spawn(move || {
            stream.set_read_timeout(Some(LONG)).unwrap();
            let sent: Vec<u8> = (0..BYTES).map(|at| ((peer * 31) ^ at ^ (at >> 8)) as u8).collect();
            let mut writer = stream.try_clone().unwrap();
            let writes = sent.clone();
            let writing = thread::spawn(move || writer.write_all(&writes).unwrap());
            let mut back = vec![0; BYTES];
            stream.read_exact(&mut back).unwrap();
            writing.join().unwrap();
            assert!(back == sent, "peer {peer}");
        })
    });
    let peers: Vec<_> = peers.collect();
    peers.into_iter().for_each(|peer| peer.join().unwrap());
    join(group);
}

fn a_peer_sees_the_close_at_once(backend: Backend) {
    // Open in the table that the loops leave: closing it here must be enough.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let near = listener.accept().unwrap().0;
    far.set_read_timeout(Some(LONG)).unwrap();
    let group = private_on(backend, 3);
    drop(near);
    assert_eq!(far.read(&mut [0; 1]).unwrap(), 0, "no copy holds it open");
    drop(listener);
    // And what was handed over: neither the loop that accepted it nor anybody else still has it.
    let listener = echo(&group, Share::Acceptor);
    let mut peers: Vec<_> = (0..6).map(|_| connect(tcp(&listener))).collect();
    for peer in &mut peers {
        ping(peer).unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
    }
    join(group);
}

fn signals_reach_loops_in_every_table(backend: Backend) {
    let group = private_on(backend, 2);
    let heard = |index| {
        let (listens, ready) = channel();
        let answer = group.spawn_on(index, move || async move {
            let mut signals = Signals::new(&[Signal::User2]).unwrap();
            listens.send(()).unwrap();
            signals.recv().await
        });
        ready.recv().unwrap();
        answer.unwrap()
    };
    let answers = [heard(0), heard(1)];
    let here = rustix::process::getpid();
    // On whatever thread the kernel lets it arrive.
    rustix::process::kill_process(here, rustix::process::Signal::USR2).unwrap();
    for answer in answers {
        assert_eq!(answer.wait().unwrap(), Signal::User2);
    }
    join(group);
}

#[test]
fn a_thread_that_blocks_all_signals_can_be_woken() {
    let _alone = alone();
    // SAFETY: a set on the stack; the mask is this thread's, and is set back below.
    let before = unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        before
    };
    let group = private_on(Backend::Auto, 2);
    for round in 0..20 {
        assert_eq!(on(&group, round % 2, move |_| round), round);
    }
    join(group);
    // SAFETY: the set of above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
}

#[test]
fn i43_a_thousand_connections_are_handed_over() {
    let _alone = alone();
    for backend in [Backend::Epoll, Backend::IoUring] {
        let group = private_on(backend, 4);
        let listener = echo(&group, Share::Acceptor);
        // Held up, so that more wait for them than a socket has room for.
        let mut releases: Vec<_> = (1..4).map(|index| hold_up(&group.remote(index))).collect();
        let mut peers: Vec<_> = (0..1000).map(|_| connect(tcp(&listener))).collect();
        for (peer, stream) in peers.iter_mut().enumerate() {
            stream.write_all(&labelled(peer, 0)).unwrap();
        }
        while connections(&listener).iter().sum::<usize>() < 1000 {
            thread::yield_now();
        }
        releases.clear();
        for (peer, stream) in peers.iter_mut().enumerate() {
            let sent = labelled(peer, 0);
            let mut back = vec![0; sent.len()];
            stream.read_exact(&mut back).unwrap();
            assert!(back == sent, "peer {peer}");
        }
        assert_eq!(connections(&listener), [250; 4]);
        assert!(listener.counts().iter().all(|counts| counts.refused == 0));
        join(group);
    }
}

fn hold_up(remote: &Remote) -> Sender<()> {
    let (release, wait) = channel::<()>();
    let (begins, begun) = channel();
    remote
        .run(move |_| {
            begins.send(()).unwrap();
            _ = wait.recv();
        })
        .unwrap();
    begun.recv().unwrap();
    release
}

#[test]
fn connections_that_wait_for_a_loop_that_ends_are_reset_and_counted() {
    let _alone = alone();
    let group = private_on(Backend::Auto, 2);
    let listener = echo(&group, Share::Acceptor);
    let release = hold_up(&group.remote(1));
    let mut peers: Vec<_> = (0..2000).map(|_| connect(tcp(&listener))).collect();
    while connections(&listener) != [1000; 2] {
        thread::yield_now();
    }
    // Some are in the socket by now, and some still on the accepting loop.
    let stopping = group.remote(1);
    stopping.stop();
    group.remote(0).stop();
    drop(release);
    for peer in &mut peers {
        assert!(is_turned_away(peer));
    }
    ends(group);
    let counts = listener.counts();
    assert_eq!(counts.iter().map(|of| of.connections).sum::<usize>(), 0, "{counts:?}");
    assert_eq!(counts.iter().map(|of| of.accepted + of.refused).sum::<u64>(), 2000, "{counts:?}");
}
