//! A process that forks: the child leaves what its parent has alone, and makes loops of its own. Each test has a process to
//! itself.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use evenkeel::net::Stream;
use evenkeel::signal::{Signal, Signals};
use evenkeel::{Backend, fs, time};
use rustix::process::{Pid, WaitOptions, kill_process, waitpid};

use crate::files::Folder;
use crate::support::{PEER, Probe, Server, assert_same, connect, event_loop, exactly, pattern, until};

in_processes! {
    a_forked_child_makes_loops_of_its_own,
    a_forked_child_that_ends_ends_nothing_of_its_parents,
    a_socket_joins_the_loops_of_parent_and_child,
    signals_reach_the_loops_of_their_own_process,
    i02_a_child_wakes_its_own_loop_only,
    i28_a_process_that_exits_in_the_middle_of_everything,
}

/// Runs a body in a forked child, which ends without anything of the parent's being dropped in it.
fn fork(body: impl FnOnce()) -> Pid {
    // SAFETY: the child uses the C library's allocator, which is usable after a fork, locks of its own, and what it makes.
    match unsafe { libc::fork() } {
        -1 => panic!("{}", std::io::Error::last_os_error()),
        0 => {
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            // SAFETY: ends the process, and runs nothing.
            unsafe { libc::_exit(i32::from(ended.is_err())) }
        }
        id => Pid::from_raw(id).unwrap(),
    }
}

/// Whether a child has ended, and well.
fn has_ended(child: Pid) -> bool {
    match waitpid(Some(child), WaitOptions::NOHANG).unwrap() {
        None => false,
        Some((_, status)) => {
            assert_eq!(status.exit_status(), Some(0), "the child failed");
            true
        }
    }
}

/// Everything that a loop does: sockets, timers, files, threads and wake-ups.
fn busy_life(backend: Backend) {
    let mut s = Server::new(backend);
    let folder = Folder::new();
    s.serve(|addr| {
        let mut peer = connect(addr);
        peer.write_all(&pattern(300_000)).unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        crate::support::read_all(&mut peer).1.unwrap();
    });
    let (mut peer, _) = s.pair(Probe::echo());
    peer.write_all(b"ping").unwrap();
    assert_eq!(s.answer(&mut peer, 4), b"ping");
    let (h, path) = (s.h.clone(), folder.path("file"));
    s.events
        .block_on(async {
            time::sleep(Duration::from_millis(2)).await;
            fs::write(&path, "written").await.unwrap();
            assert_eq!(fs::read(&path).await.unwrap(), b"written");
            assert_eq!(h.offload(|| 7).await.unwrap(), 7);
        })
        .unwrap();
}

fn a_forked_child_makes_loops_of_its_own(backend: Backend) {
    // There is a loop with all that it has, threads included, when the child is made.
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::echo());
    s.events.block_on(s.h.offload(|| ())).unwrap().unwrap();
    let armed = s.h.after(Duration::from_millis(1), || ());
    let child = fork(|| busy_life(backend));
    s.until("the child has ended", || has_ended(child));
    assert!(!s.h.cancel(armed), "the parent's timer fired meanwhile");
    peer.write_all(b"ping").unwrap();
    s.until("the parent goes on", || seen.len() == 4);
    assert_eq!(s.answer(&mut peer, 4), b"ping");
    // And once more, from a parent whose loop is in the middle of things.
    let handler = Probe::new().on_data(move |conn, _| {
        let child = fork(|| busy_life(backend));
        while !has_ended(child) {
            std::thread::yield_now();
        }
        conn.write(b"it has ended");
    });
    let (mut peer, _) = s.pair(handler);
    peer.write_all(b"go").unwrap();
    let got = s.serve(move |_| exactly(&mut peer, 12));
    assert_eq!((got, s.h.stats().panics), (b"it has ended".to_vec(), 0));
}

/// It has a copy of each descriptor; that those are closed is no end of anything.
fn a_forked_child_that_ends_ends_nothing_of_its_parents(backend: Backend) {
    let mut s = Server::new(backend);
    let mut all: Vec<_> = (0..5).map(|_| s.pair(Probe::echo())).collect();
    s.h.write(all[0].1.id(), &pattern(9_000_000)).unwrap();
    s.turns(2);
    for _ in 0..3 {
        let child = fork(|| ());
        s.until("the child has ended", || has_ended(child));
        for (peer, seen) in &mut all[1..] {
            let before = seen.len();
            peer.write_all(b"ping").unwrap();
            s.until("it is heard", || seen.len() == before + 4);
            s.turns(2);
            assert_eq!(exactly(peer, 4), b"ping");
        }
    }
    let (mut slow, seen) = all.swap_remove(0);
    let reader = std::thread::spawn(move || (exactly(&mut slow, 9_000_000), slow));
    s.until("the queue has left", || reader.is_finished());
    let (got, _slow) = reader.join().unwrap();
    assert_same(&got, &pattern(9_000_000));
    assert_eq!((seen.why(), s.pool.len(), s.h.stats().panics), ("open", 5, 0));
    // An end of the parent's is one, though the child's copies are gone.
    s.h.close(seen.id()).unwrap();
    s.until("it is closed", || seen.closed());
}

fn a_socket_joins_the_loops_of_parent_and_child(backend: Backend) {
    let mut events = event_loop(backend);
    events.poll().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    // What the child takes is closed here with the closure.
    let child = fork(move || {
        let mut own = event_loop(backend);
        let echo = async {
            let mut stream = Stream::from_fd(theirs).unwrap();
            let mut left = 200_000;
            while left > 0 {
                left -= stream
                    .read_with(|bytes, reply| (bytes.len(), reply.write(bytes)).0)
                    .await
                    .unwrap()
                    .unwrap();
                stream.flush().await.unwrap();
            }
        };
        own.block_on(time::timeout(PEER, echo)).unwrap().unwrap();
    });
    let got = events
        .block_on(async {
            let (mut read, mut write) = Stream::from_fd(ours).unwrap().into_split();
            let writer = evenkeel::spawn(async move {
                write.write_all(&pattern(200_000)).await.unwrap();
                write
            });
            let mut got = vec![0; 200_000];
            let mut at = 0;
            while at < got.len() {
                at += read.read(&mut got[at..]).await.unwrap();
            }
            assert_eq!(read.read(&mut [0; 4]).await.unwrap(), 0, "the child's end");
            drop(writer.await.unwrap());
            got
        })
        .unwrap();
    assert_same(&got, &pattern(200_000));
    until(&mut events, "the child has ended", || has_ended(child));
}

fn signals_reach_the_loops_of_their_own_process(backend: Backend) {
    let mut events = event_loop(backend);
    let mut signals = Signals::new_on(&events.handle(), &[Signal::User1]).unwrap();
    let (ready, tell) = std::io::pipe().unwrap();
    let mut tell = Some(tell);
    let child = fork(|| {
        let mut own = event_loop(backend);
        let mut signals = Signals::new_on(&own.handle(), &[Signal::User1]).unwrap();
        tell.take().unwrap().write_all(b"x").unwrap();
        let heard = own.block_on(time::timeout(PEER, signals.recv())).unwrap();
        assert_eq!(heard, Ok(Signal::User1));
    });
    drop(tell);
    let mut ready = std::fs::File::from(std::os::fd::OwnedFd::from(ready));
    assert_eq!(ready.read(&mut [0; 4]).unwrap(), 1, "the child listens");
    kill_process(child, rustix::process::Signal::USR1).unwrap();
    until(&mut events, "the child has heard it", || has_ended(child));
    let none = events.block_on(time::timeout(Duration::from_millis(5), signals.recv())).unwrap();
    assert!(none.is_err(), "it was not for the parent");
    kill_process(rustix::process::getpid(), rustix::process::Signal::USR1).unwrap();
    let heard = events.block_on(time::timeout(PEER, signals.recv())).unwrap();
    assert_eq!(heard, Ok(Signal::User1));
}

/// The parent's loop sleeps for good, and so it stays while its child's loop is woken from a thread again and again.
fn i02_a_child_wakes_its_own_loop_only(backend: Backend) {
    let mut s = Server::new(backend);
    s.turns(2);
    let child = fork(|| {
        let mut own = event_loop(backend);
        let woken = crate::support::serve(&mut own, |remote| {
            let (tell, told) = std::sync::mpsc::channel();
            for i in 0..200 {
                let tell = tell.clone();
                remote.run(move |_| tell.send(i).unwrap()).unwrap();
                assert_eq!(told.recv_timeout(PEER), Ok(i));
            }
            200
        });
        assert_eq!(woken, 200);
    });
    let before = s.h.stats().turns;
    let turns = {
        // The status is waited for on a thread, so that nothing of the test's turns the loop.
        s.serve(move |_| {
            let (_, status) = waitpid(Some(child), WaitOptions::empty()).unwrap().unwrap();
            assert_eq!(status.exit_status(), Some(0), "the child failed");
        });
        s.h.stats().turns - before
    };
    assert!(turns <= 10, "{turns} turns");
}

/// Nothing is ended in order: the kernel has to, and at once.
fn i28_a_process_that_exits_in_the_middle_of_everything(backend: Backend) {
    let mut events = event_loop(backend);
    let folder = Folder::new();
    let pipe = folder.pipe();
    for _ in 0..3 {
        let child = fork(|| {
            let mut s = Server::new(backend);
            let all: Vec<_> = (0..5).map(|_| s.pair(Probe::echo())).collect();
            s.h.write(all[0].1.id(), &pattern(9_000_000)).unwrap();
            let to = s.addr;
            let tasks = [
                s.h.spawn(async move { drop(Stream::connect(to).await.unwrap().read(&mut [0; 8]).await) }),
                s.h.spawn(async { time::sleep(Duration::MAX).await }),
            ];
            // A call that blocks for ever, and a thread that does.
            let blocked = s.h.spawn(fs::File::open(pipe.clone()));
            let work = s.h.spawn(s.h.offload(|| {
                loop {
                    std::thread::park()
                }
            }));
            let h = s.h.clone();
            s.until("it is in flight", || h.stats().files_in_flight == 1);
            s.turns(5);
            assert!(tasks.iter().all(|task| !task.is_finished()));
            std::mem::forget((s, all, tasks, blocked, work));
        });
        until(&mut events, "it has ended", || has_ended(child));
    }
}
