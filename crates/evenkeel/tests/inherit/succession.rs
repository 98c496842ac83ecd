//! A server that hands over to its successor, under a storm of connections, and one whose successor fails.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use evenkeel::inherit::{Succession, SuccessionError, Successor};
use evenkeel::{Backend, EventLoop};

use crate::roles::{LONG, Said, in_role};

/// One connection, from its beginning to its answer: the number of the process that served it.
fn served_by(at: SocketAddr) -> u32 {
    let mut peer = TcpStream::connect(at).expect("nobody is refused");
    peer.set_read_timeout(Some(LONG)).unwrap();
    peer.write_all(b"who?").expect("nobody is reset");
    let mut answer = Vec::new();
    let mut byte = [0];
    while byte != *b"\n" {
        assert_eq!(peer.read(&mut byte).expect("nobody is reset"), 1, "nobody is dropped");
        answer.extend(byte);
    }
    // Reset by this side, so that its port is free for the next.
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    String::from_utf8(answer).unwrap().trim().parse().unwrap()
}

#[derive(Default)]
struct Storm {
    over: AtomicBool,
    served: AtomicUsize,
    /// Who served last.
    by: AtomicU32,
}

impl Storm {
    fn blows(&self, at: SocketAddr) {
        while !self.over.load(Ordering::Relaxed) {
            self.by.store(served_by(at), Ordering::Relaxed);
            self.served.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn rages(&self, more: usize, threads: &[thread::ScopedJoinHandle<'_, ()>]) {
        let until = self.served.load(Ordering::Relaxed) + more;
        while self.served.load(Ordering::Relaxed) < until {
            assert!(!threads.iter().any(|thread| thread.is_finished()), "a connection failed");
            thread::yield_now();
        }
    }
}

/// Ends the storm even if the test fails.
struct Calm<'a>(&'a Storm);

impl Drop for Calm<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

fn hands_over(backend: Backend, loops: usize) {
    let mut old = in_role("old")
        .env("EVENKEEL_BACKEND", backend.name())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = old.stdin.take().unwrap();
    let mut said = Said::new(old.stderr.take().unwrap());
    let at: SocketAddr = said.next().unwrap().parse().unwrap();
    let storm = Storm::default();
    thread::scope(|scope| {
        let _calm = Calm(&storm);
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| storm.blows(at))).collect();
        storm.rages(100, &threads);
        // One that gives up leaves everything as it was.
        stdin.write_all(b"gives up\n").unwrap();
        assert!(said.next().unwrap().contains("the new process ended before it was ready"));
        storm.rages(50, &threads);
        assert_eq!(storm.by.load(Ordering::Relaxed), old.id());
        stdin.write_all(format!("new {loops}\n").as_bytes()).unwrap();
        let handed = said.next().unwrap();
        let new: u32 = handed.strip_prefix("handed over to ").unwrap().parse().unwrap();
        storm.rages(100, &threads);
        assert!(old.wait().unwrap().success());
        storm.rages(100, &threads);
        assert_eq!(served_by(at), new);
        drop(_calm);
    });
    drop(stdin);
    assert_eq!(said.next().unwrap(), "ended");
    assert_eq!(said.next(), None, "both have ended");
}

/// Each loop of the new process has one of the four sockets, or two, or all.
#[test]
fn i48_a_new_process_takes_over_every_queue_and_nobody_is_refused_or_reset() {
    for backend in Backend::ALL {
        for loops in [1, 2, 4] {
            eprintln!("{loops} loops on {backend}");
            hands_over(*backend, loops);
        }
    }
}

fn spawn(command: Command) -> Result<Successor, SuccessionError> {
    Succession::new()?.spawn(command)
}

fn ready(command: Command, within: Duration) -> (u32, SuccessionError) {
    let mut events = EventLoop::new().unwrap();
    let new = spawn(command).unwrap();
    let id = new.id();
    let result = events.block_on(async move { new.ready(within).await }).unwrap();
    (id, result.expect_err("it cannot take over"))
}

/// Neither running nor waiting to be reaped.
fn is_gone(process: u32) -> bool {
    !std::path::Path::new(&format!("/proc/{process}")).exists()
}

#[test]
fn a_successor_that_ends_is_reaped_and_its_status_known() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exit 3"]);
    let (id, error) = ready(shell, LONG);
    let SuccessionError::Died(Some(status)) = error else { panic!("{error}") };
    assert_eq!(status.code(), Some(3));
    assert!(is_gone(id));
}

#[test]
fn a_successor_that_says_nothing_is_killed_at_the_deadline() {
    let mut shell = Command::new("sleep");
    shell.arg("1000000");
    let (id, error) = ready(shell, Duration::from_millis(50));
    assert!(matches!(error, SuccessionError::TimedOut), "{error}");
    assert!(is_gone(id));
}

#[test]
fn a_succession_that_is_given_up_leaves_no_process() {
    for on_a_loop in [false, true] {
        let mut command = Command::new("sleep");
        command.arg("1000000");
        let new = spawn(command).unwrap();
        let id = new.id();
        if !on_a_loop {
            drop(new);
        } else {
            let gone = async {
                drop(new);
                while !is_gone(id) {
                    evenkeel::time::sleep(Duration::from_millis(1)).await;
                }
            };
            EventLoop::new().unwrap().block_on(gone).unwrap();
        }
        assert!(is_gone(id));
    }
}

#[test]
fn a_program_that_is_not_there_is_an_error() {
    let error = spawn(Command::new("/nonexistent/program")).unwrap_err();
    assert!(matches!(&error, SuccessionError::Io(e) if e.kind() == std::io::ErrorKind::NotFound), "{error}");
}

#[test]
fn a_process_that_nobody_started_to_take_over_has_no_predecessor() {
    assert!(evenkeel::inherit::predecessor().unwrap().is_none());
    assert!(evenkeel::inherit::listen_fds().unwrap().is_empty());
}
