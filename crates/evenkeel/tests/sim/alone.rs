//! Tests that drive their loop by hand, in a world of one host: its time, its threads, and its end.

use std::io::{ErrorKind, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;
use std::time::Duration;

use evenkeel::net::{Limits, ListenOptions};
use evenkeel::sim::blocking::{self, TcpListener, TcpStream, UdpSocket, UnixStream, alone};
use evenkeel::{Backend, Conn, EventLoop, Handler, time};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct Echo;

impl Handler for Echo {
    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        conn.write(bytes);
    }
}

/// An echo server on each driver, and its address.
fn echo(backend: Backend) -> (EventLoop, std::net::SocketAddr) {
    let events = EventLoop::builder().backend(backend).build().unwrap();
    let h = events.handle();
    let listener =
        h.pool(Limits::default()).listen("127.0.0.1:0", &ListenOptions::default(), |_: &_| Echo).unwrap();
    let at = h.listener_addr(listener).unwrap().socket_addr().unwrap();
    (events, at)
}

#[test]
fn a_day_of_waiting_takes_no_time() {
    alone(1, Backend::Sim, || {
        let begun = blocking::now();
        EventLoop::new().unwrap().block_on(async { time::sleep(DAY).await }).unwrap();
        blocking::sleep(DAY);
        let passed = blocking::now() - begun;
        assert!(passed >= 2 * DAY && passed < 2 * DAY + Duration::from_secs(1), "{passed:?}");
    });
}

#[test]
fn time_stands_still_while_a_thread_of_the_world_does_something() {
    for backend in [Backend::Sim, Backend::Epoll, Backend::IoUring] {
        alone(1, backend, move || {
            let (mut events, at) = echo(backend);
            let remote = events.handle().remote();
            let begun = blocking::now();
            // Its connection is idle for longer than the limit allows by the machine's clock, if that were asked.
            let thread = blocking::spawn(move || {
                let mut peer = TcpStream::connect(at).unwrap();
                for _ in 0..100 {
                    (0..1_000).for_each(|_| std::thread::yield_now());
                    peer.write_all(b"still here").unwrap();
                    peer.read_exact(&mut [0; 10]).unwrap();
                }
                remote.run(|h| h.stop()).unwrap();
            });
            events.run().unwrap();
            thread.join().unwrap();
            // The loop's own turns take a little.
            let passed = blocking::now() - begun;
            assert!(passed < Duration::from_secs(1), "nothing had to be waited for: {passed:?}");
        });
    }
}

#[test]
fn reads_wait_as_long_as_they_were_told_in_virtual_time() {
    alone(1, Backend::Sim, || {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        a.set_read_timeout(Some(DAY)).unwrap();
        let begun = blocking::now();
        assert_eq!(a.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(blocking::now() - begun, DAY);
        a.set_nonblocking(true).unwrap();
        assert_eq!(a.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(blocking::now() - begun, DAY);
        // On another thread as well.
        let thread = blocking::spawn(move || {
            b.set_read_timeout(Some(DAY)).unwrap();
            b.read(&mut [0; 1]).unwrap_err().kind()
        });
        assert_eq!(thread.join().unwrap(), ErrorKind::WouldBlock);
        assert_eq!(blocking::now() - begun, 2 * DAY);
    });
}

#[test]
fn threads_speak_to_each_other_without_a_loop() {
    alone(1, Backend::Sim, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let (told, tell) = channel();
        let server = blocking::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            // A thread waits for another one outside of the world.
            let more: usize = blocking::aside(|| tell.recv().unwrap());
            all.len() + more
        });
        let client = blocking::spawn(move || {
            let mut peer = TcpStream::connect(at).unwrap();
            peer.write_all(&vec![7; 3_000_000]).unwrap();
            drop(peer);
            blocking::sleep(DAY);
            told.send(1).unwrap();
        });
        client.join().unwrap();
        assert_eq!(server.join().unwrap(), 3_000_001);
        let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        a.send_to(b"datagram", b.local_addr().unwrap()).unwrap();
        assert_eq!(b.recv_from(&mut [0; 100]).unwrap(), (8, a.local_addr().unwrap()));
    });
}

#[test]
fn a_world_that_has_ended_answers_nobody() {
    let (go, wait) = channel::<()>();
    let (thread, refused) = alone(1, Backend::Sim, || {
        let (events, at) = echo(Backend::Sim);
        drop(events);
        let thread = blocking::spawn(move || {
            blocking::aside(|| wait.recv().unwrap());
            TcpStream::connect(at).unwrap_err().kind()
        });
        (thread, TcpStream::connect(at).unwrap_err().kind())
    });
    assert_eq!(refused, ErrorKind::ConnectionRefused);
    go.send(()).unwrap();
    assert_eq!(thread.join().unwrap(), ErrorKind::NotConnected);
}

#[test]
fn what_a_test_leaves_open_is_told() {
    let leaves = || alone(1, Backend::Sim, || std::mem::forget(TcpListener::bind("127.0.0.1:0").unwrap()));
    let panic = catch_unwind(AssertUnwindSafe(leaves)).unwrap_err();
    assert_eq!(*panic.downcast::<String>().unwrap(), "descriptors were left open: [\"3 listener\"]");
}

#[test]
fn loops_are_made_on_the_worlds_own_thread() {
    alone(1, Backend::Sim, || {
        let refused = blocking::spawn(|| EventLoop::new().map(drop).unwrap_err().kind());
        assert_eq!(refused.join().unwrap(), ErrorKind::Unsupported);
    });
}
