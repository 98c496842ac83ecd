//! Signals that interrupt whatever call the loop's thread is in: each is made again, and nothing is lost, doubled or told.
//! Each test has a process to itself.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use evenkeel::net::{ConnectOptions, Listener, Stream, UdpSocket};
use evenkeel::process::Command;
use evenkeel::{Backend, fs, time};

use crate::files::Folder;
use crate::support::{Probe, Server, assert_same, event_loop, exactly, pattern, read_all};

in_processes! {
    i35_interrupted_calls_keep_streams_exact,
    i35_interrupted_calls_keep_tasks_exact,
    i18_i20_interrupted_waits_keep_timers_exact,
    i35_interrupted_calls_keep_all_else,
}

static INTERRUPTIONS: AtomicU64 = AtomicU64::new(0);

extern "C" fn interrupted(_: libc::c_int) {
    INTERRUPTIONS.fetch_add(1, Ordering::Relaxed);
}

/// Runs a body on a thread that signals interrupt all the time. No call is restarted by the kernel.
fn under_fire(body: impl FnOnce() + Send + 'static) {
    // SAFETY: the handler adds to an atomic; nothing else of this process uses the signal.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = interrupted as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGVTALRM, &action, std::ptr::null_mut()), 0);
    }
    let over = Arc::new(AtomicBool::new(false));
    let flag = over.clone();
    let thread = std::thread::spawn(move || {
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        flag.store(true, Ordering::Release);
        // The thread has to be there for as long as signals are sent to it.
        while flag.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        ended
    });
    while !over.load(Ordering::Acquire) {
        // SAFETY: the thread has not ended: it waits for what follows this loop.
        assert_eq!(unsafe { libc::pthread_kill(thread.as_pthread_t(), libc::SIGVTALRM) }, 0);
        std::thread::sleep(Duration::from_micros(50));
    }
    over.store(false, Ordering::Release);
    if let Err(panic) = thread.join().unwrap() {
        std::panic::resume_unwind(panic);
    }
    assert!(INTERRUPTIONS.load(Ordering::Relaxed) > 0);
}

fn i35_interrupted_calls_keep_streams_exact(backend: Backend) {
    under_fire(move || {
        let mut s = Server::new(backend);
        let (mut peer, seen) = s.pair(Probe::echo());
        let got = s.serve(move |_| {
            let mut writer = peer.try_clone().unwrap();
            let thread = std::thread::spawn(move || {
                for piece in pattern(4_000_000).chunks(70_001) {
                    writer.write_all(piece).unwrap();
                }
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let (all, end) = read_all(&mut peer);
            thread.join().unwrap();
            end.unwrap();
            all
        });
        assert_same(&got, &pattern(4_000_000));
        s.until("it is over", || seen.closed());
        assert_eq!((seen.why(), seen.eof.get()), ("closed", 1));
        // One that has to wait for the peer's room, and many that come and go.
        for _ in 0..100 {
            let (mut peer, seen) = s.pair(Probe::echo());
            peer.write_all(b"ping").unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
            s.until("it is over", || seen.closed());
            assert_eq!((read_all(&mut peer).0, seen.why()), (b"ping".to_vec(), "closed"));
        }
        let stats = s.h.stats();
        assert_eq!((stats.panics, stats.accept_errors), (0, 0));
    });
}

fn i35_interrupted_calls_keep_tasks_exact(backend: Backend) {
    under_fire(move || {
        let mut events = event_loop(backend);
        let got = events.block_on(async {
            let mut listener = Listener::bind("127.0.0.1:0").unwrap();
            let at = listener.local_addr().unwrap();
            let client = evenkeel::spawn(async move {
                let (mut read, mut write) = Stream::connect(at).await.unwrap().into_split();
                let writer = evenkeel::spawn(async move {
                    write.write_all(&pattern(3_000_000)).await.unwrap();
                    write.shutdown().await.unwrap();
                });
                let mut all = vec![0; 3_000_000];
                let mut at = 0;
                while at < all.len() {
                    at += read.read(&mut all[at..]).await.unwrap();
                }
                writer.await.unwrap();
                all
            });
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut few = vec![0; 50_000];
            loop {
                match stream.read(&mut few).await.unwrap() {
                    0 => break,
                    n => stream.write_all(&few[..n]).await.unwrap(),
                }
            }
            client.await.unwrap()
        });
        assert_same(&got.unwrap(), &pattern(3_000_000));
    });
}

/// A wait that is cut short is no reason for a timer to fire, and one that is due does not wait for silence.
fn i18_i20_interrupted_waits_keep_timers_exact(backend: Backend) {
    under_fire(move || {
        let mut events = event_loop(backend);
        let before = INTERRUPTIONS.load(Ordering::Relaxed);
        events
            .block_on(async {
                for ms in [1, 3, 20, 40, 65] {
                    let started = Instant::now();
                    time::sleep(Duration::from_millis(ms)).await;
                    assert!(started.elapsed() >= Duration::from_millis(ms));
                }
            })
            .unwrap();
        let cuts = INTERRUPTIONS.load(Ordering::Relaxed) - before;
        assert!(events.handle().stats().turns <= 20 + cuts, "a turn for each interruption at most");
    });
}

fn i35_interrupted_calls_keep_all_else(backend: Backend) {
    under_fire(move || {
        let mut s = Server::new(backend);
        let folder = Folder::new();
        let h = s.h.clone();
        s.events
            .block_on(async {
                for round in 0..30 {
                    let path = folder.path("file");
                    fs::write(&path, pattern(100_000 + round)).await.unwrap();
                    assert_same(&fs::read(&path).await.unwrap(), &pattern(100_000 + round));
                    assert_eq!(h.offload(move || round).await.unwrap(), round);
                    let (mut to, mut from) = evenkeel::pipe::pipe().unwrap();
                    let sent = evenkeel::spawn(async move { to.write_all(&pattern(200_000)).await });
                    let mut all = Vec::new();
                    from.read_to_end(&mut all).await.unwrap();
                    sent.await.unwrap().unwrap();
                    assert_same(&all, &pattern(200_000));
                    let (a, b) =
                        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
                    a.send_to(b"datagram", b.local_addr().unwrap()).await.unwrap();
                    assert_eq!(b.recv(&mut [0; 16]).await.unwrap(), 8);
                }
                for code in 0..5 {
                    let status = Command::new("sh").args(["-c", &format!("exit {code}")]).status().await;
                    assert_eq!(status.unwrap().code(), Some(code));
                }
            })
            .unwrap();
        for _ in 0..50 {
            let theirs = s.expect(Probe::echo());
            let probe = Probe::new();
            let ours = probe.seen.clone();
            let id = s.pool.connect(s.addr, &ConnectOptions::default(), probe).unwrap();
            s.h.write(id, b"ping").unwrap();
            s.until("the echo came", || ours.len() == 4);
            s.h.close(id).unwrap();
            s.until("both are over", || ours.closed() && theirs.closed());
        }
        let (mut peer, _) = s.pair(Probe::echo());
        let remote = s.h.remote();
        s.serve(move |_| {
            for _ in 0..200 {
                remote.wake();
                peer.write_all(b"ping").unwrap();
                assert_eq!(exactly(&mut peer, 4), b"ping");
            }
        });
        assert_eq!(s.h.stats().panics, 0);
    });
}
