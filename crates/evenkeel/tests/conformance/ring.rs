//! What only a ring can get wrong: buffers that run out, completions that find no room, and kernels that lack a part
//! of what it uses. Crowds need a process of their own, since descriptors are the process's.

use std::io::Write;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use evenkeel::net::Stream;
use evenkeel::sim::blocking::{self, TcpStream};
use evenkeel::{Backend, task};

use crate::asynchronous::pair;
use crate::support::{Probe, Server, assert_same, exactly, pattern};

macro_rules! on_the_ring {
    ($($name:ident,)*) => { $(
        mod $name {
            #[test]
            fn io_uring() {
                let path = concat!(module_path!(), "::io_uring");
                crate::support::in_process(evenkeel::Backend::IoUring, path, super::$name);
            }

            #[test]
            fn simulated() {
                let path = concat!(module_path!(), "::simulated");
                crate::support::simulated(evenkeel::Backend::IoUring, path, super::$name);
            }
        }
    )* };
}

on_the_ring! {
    i13_more_than_all_buffers_hold_comes_before_a_turn,
    i13_more_than_all_buffers_hold_is_sent_back_from_them,
    i13_buffers_that_run_out_stop_no_task,
    i13_idle_connections_do_not_spin_while_others_have_all_buffers,
    i14_i12_more_completions_than_the_queue_holds,
    i12_connections_are_accepted_after_an_overflow,
}

/// What the ring's buffers hold, all together.
const POOL: usize = 2 << 20;
const CROWD: usize = 300;
/// More than a connection's share of the buffers, and less than its socket holds.
const EACH: usize = 3 * POOL / CROWD;

/// Connections whose handlers are made by `probe`, with all bytes of [`bytes_of`] on their way.
fn crowd(s: &mut Server, probe: fn() -> Probe) -> Vec<(TcpStream, std::rc::Rc<crate::support::Seen>)> {
    let mut all: Vec<_> = (0..CROWD).map(|_| s.pair(probe())).collect();
    for (i, (peer, _)) in all.iter_mut().enumerate() {
        peer.write_all(&bytes_of(i)).unwrap();
    }
    all
}

/// What the connection sends that came as number `i`.
fn bytes_of(i: usize) -> Vec<u8> {
    pattern(EACH + i)
}

fn i13_more_than_all_buffers_hold_comes_before_a_turn(backend: Backend) {
    let mut s = Server::new(backend);
    let mut all = crowd(&mut s, Probe::new);
    let before = s.h.stats().turns;
    s.until("all was heard", || all.iter().enumerate().all(|(i, (_, seen))| seen.len() == EACH + i));
    let turns = s.h.stats().turns - before;
    assert!(turns < 100, "it took {turns} turns");
    for (i, (_, seen)) in all.iter().enumerate() {
        assert!(!seen.closed());
        assert_same(&seen.data.borrow(), &bytes_of(i));
    }
    // And all buffers are there again: so it goes a second time.
    for (i, (peer, seen)) in all.iter_mut().enumerate() {
        seen.data.borrow_mut().clear();
        peer.write_all(&bytes_of(i)).unwrap();
    }
    s.until("all was heard again", || all.iter().enumerate().all(|(i, (_, seen))| seen.len() == EACH + i));
    assert!(s.turns_in(Duration::from_millis(30)) < 20);
}

fn i13_more_than_all_buffers_hold_is_sent_back_from_them(backend: Backend) {
    let mut s = Server::new(backend);
    let mut all = crowd(&mut s, Probe::echo);
    let h = s.h.clone();
    let total: usize = (0..CROWD).map(|i| EACH + i).sum();
    s.until("all was sent back", || h.stats().bytes_out as usize == total);
    for (i, (peer, _)) in all.iter_mut().enumerate() {
        assert_same(&exactly(peer, EACH + i), &bytes_of(i));
    }
}

fn i13_buffers_that_run_out_stop_no_task(backend: Backend) {
    let mut s = Server::new(backend);
    let mut peers = Vec::new();
    let mut readers = Vec::new();
    for i in 0..CROWD {
        let (mut stream, peer) = pair(&mut s.events);
        peers.push(peer);
        readers.push(s.h.spawn(async move {
            let mut got = vec![0; EACH + i];
            // Some read late, when others have had all buffers.
            for _ in 0..i % 7 {
                task::yield_now().await;
            }
            stream.read_exact(&mut got).await.unwrap();
            (stream, got)
        }));
    }
    s.turns(2);
    for (i, peer) in peers.iter_mut().enumerate() {
        peer.write_all(&bytes_of(i)).unwrap();
    }
    let before = s.h.stats().turns;
    let streams: Vec<Stream> = readers
        .into_iter()
        .enumerate()
        .map(|(i, reader)| {
            let (stream, got) = s.events.block_on(reader).unwrap().unwrap();
            assert_same(&got, &bytes_of(i));
            stream
        })
        .collect();
    let turns = s.h.stats().turns - before;
    assert!(turns < 1000, "it took {turns} turns");
    assert_eq!(streams.len(), CROWD);
}

fn i13_idle_connections_do_not_spin_while_others_have_all_buffers(backend: Backend) {
    let mut s = Server::new(backend);
    // Paused while much is on its way: what came is kept apart from the buffers.
    let mut all = crowd(&mut s, || Probe::new().on_data(|conn, _| conn.pause()));
    let mut idle: Vec<_> = (0..50).map(|_| s.pair(Probe::echo())).collect();
    s.turns(20);
    assert!(s.turns_in(Duration::from_millis(30)) < 20);
    for (peer, _) in &mut idle {
        peer.write_all(b"ping").unwrap();
    }
    s.turns(5);
    idle.iter_mut().for_each(|(peer, _)| assert_eq!(exactly(peer, 4), b"ping"));
    let h = s.h.clone();
    s.until("all was heard", || {
        all.iter().for_each(|(_, seen)| h.resume(seen.id()).unwrap());
        all.iter().enumerate().all(|(i, (_, seen))| seen.len() == EACH + i)
    });
    for (i, (_, seen)) in all.iter_mut().enumerate() {
        assert_same(&seen.data.borrow(), &bytes_of(i));
    }
}

const MANY: usize = 1000;

/// Where the kernel completes receives as they come, these are twice as many as its queue holds.
fn i14_i12_more_completions_than_the_queue_holds(backend: Backend) {
    let mut s = Server::new(backend);
    let mut all: Vec<_> = (0..MANY).map(|_| s.pair(Probe::echo())).collect();
    for round in 1..=2 {
        let message = |i: usize, k: usize| format!("{i:04} {k:02} {round:56}\n");
        for k in 0..20 {
            for (i, (peer, _)) in all.iter_mut().enumerate() {
                peer.write_all(message(i, k).as_bytes()).unwrap();
            }
        }
        let before = s.h.stats().turns;
        s.until("all was heard", || all.iter().all(|(_, seen)| seen.len() == round * 20 * 65));
        let turns = s.h.stats().turns - before;
        assert!(turns < 1000, "it took {turns} turns");
        s.turns(2);
        for (i, (peer, _)) in all.iter_mut().enumerate() {
            let expected: String = (0..20).map(|k| message(i, k)).collect();
            assert_eq!(String::from_utf8(exactly(peer, expected.len())).unwrap(), expected);
        }
    }
    assert!(all.iter().all(|(_, seen)| !seen.closed()));
}

fn i12_connections_are_accepted_after_an_overflow(backend: Backend) {
    let mut s = Server::new(backend);
    let mut all: Vec<_> = (0..MANY).map(|_| s.pair(Probe::echo())).collect();
    for _ in 0..10 {
        all.iter_mut().for_each(|(peer, _)| peer.write_all(b"x").unwrap());
    }
    let mut more: Vec<_> = (0..200).map(|_| crate::support::connect(s.addr)).collect();
    // Wakes come in between as well.
    let remote = s.h.remote();
    blocking::spawn(move || (0..100).for_each(|_| _ = remote.run(|_| ()))).join().unwrap();
    let h = s.h.clone();
    s.until("all are accepted", || h.stats().accepted as usize == MANY + 200);
    s.serve(|at| {
        let mut late = crate::support::connect(at);
        drop(late.write_all(b"and a wake from another thread"));
    });
    s.until("all was heard", || all.iter().all(|(_, seen)| seen.len() == 10));
    all.truncate(10);
    more.clear();
    let pool = s.pool.clone();
    s.until("all others are gone", || pool.len() == 10);
}

const WITHIN: &str = "EVENKEEL_CONFORMANCE_WITHIN";

/// Runs tests of the ring again, in a process whose rings do without something (I17).
fn without(features: &str, modules: &[&str]) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    if std::env::var_os(WITHIN).is_some() {
        return;
    }
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(modules)
        .args(["--skip", "::select", "--skip", "::poll", "--skip", "::epoll", "--skip", "i17_"])
        // What a simulated ring lacks is decided by the world.
        .args(["--skip", "simulated"])
        // A buffer a turn, where each receive is a request, makes no firehose.
        .args(["--skip", "i24_a_firehose_keeps_nobody_waiting"])
        .env(WITHIN, "1")
        .env("EVENKEEL_IO_URING_WITHOUT", features)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success(), "without {features}: {}\n{out}\n{err}", child.status);
    assert!(!out.contains(" 0 passed"), "nothing ran without {features}:\n{out}");
}

/// Those modules in which one missing feature may show.
const SOME: [&str; 4] = ["ownership::", "ring::", "flow::", "delivery::"];

#[test]
fn i17_without_deferred_work() {
    without("defer-taskrun", &SOME);
}

#[test]
fn i17_with_an_array_of_submissions() {
    without("no-sqarray", &["delivery::", "writing::"]);
}

#[test]
fn i17_with_a_request_for_each_receive() {
    without("multishot-recv", &SOME);
}

#[test]
fn i17_with_a_request_for_each_accept() {
    without("multishot-accept", &["accepting::", "releasing::", "limits::"]);
}

#[test]
fn i17_with_a_buffer_for_each_receive() {
    without("incremental-buffers", &SOME);
}

#[test]
fn i17_with_a_completion_for_each_send() {
    without("quiet-sends", &["writing::", "ownership::", "closing::", "ring::"]);
}

#[test]
fn i17_with_nothing_but_what_is_needed() {
    without(
        "defer-taskrun,no-sqarray,multishot-recv,multishot-accept,incremental-buffers,quiet-sends",
        &["::io_uring"],
    );
}
