//! The driver over a kernel that is the running one, but with small queues, and that refuses or takes less than all.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::ptr::NonNull;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::{Features, Uring, probe};
use crate::backend::Backend;
use crate::event_loop::EventLoop;
use crate::handler::{Conn, Handler};
use crate::net::{Addr, ConnectOptions, Limits, ListenOptions, Listener, SocketOption};
use crate::sys::ring::RingParams;
use crate::sys::{
    EpollEvent, EpollFlags, EpollOp, Fd, FdSetElement, PacketAddr, PacketKind, Packets, PollEntry, Real, Sys,
    WakeFn, packet::Received,
};

/// What becomes of one `enter`.
pub(super) enum Fate {
    Passes,
    /// Nothing is taken.
    Refused(Errno),
    /// At most so many entries are taken.
    Takes(u32),
}

type Fates = Rc<RefCell<dyn FnMut(u32, bool) -> Fate>>;

/// The running kernel, but for its rings.
struct Odd {
    /// Entries of the two queues.
    sizes: (u32, u32),
    /// Asked with the number of entries, and whether completions are wanted.
    fates: Fates,
}

macro_rules! pass_on {
    ($(fn $name:ident(&self $(, $arg:ident: $type:ty)*) $(-> $result:ty)?;)*) => { $(
        fn $name(&self $(, $arg: $type)*) $(-> $result)? {
            Real.$name($($arg),*)
        }
    )* };
}

impl Packets for Odd {
    pass_on! {
        fn packet_socket(&self, kind: PacketKind) -> io::Result<Fd>;
        fn packet_pair(&self, kind: PacketKind) -> io::Result<(Fd, Fd)>;
        fn packet_import(&self, fd: std::os::fd::OwnedFd, kind: PacketKind) -> io::Result<Fd>;
        fn packet_bind(&self, fd: Fd, to: &PacketAddr) -> io::Result<()>;
        fn packet_listen(&self, fd: Fd, backlog: i32) -> io::Result<()>;
        fn packet_connect(&self, fd: Fd, to: &PacketAddr) -> io::Result<()>;
        fn packet_local(&self, fd: Fd) -> io::Result<PacketAddr>;
        fn packet_peer(&self, fd: Fd) -> io::Result<PacketAddr>;
        fn packet_recv(&self, fd: Fd, into: &mut [u8]) -> io::Result<(usize, Option<PacketAddr>)>;
        fn packet_send(&self, fd: Fd, from: &[u8], to: Option<&PacketAddr>) -> io::Result<usize>;
        fn recv_with_fds(&self, fd: Fd, into: &mut [u8], most: usize) -> io::Result<Received>;
        fn send_with_fds(
            &self, fd: Fd, from: &[u8], fds: &[std::os::fd::BorrowedFd<'_>], to: Option<&PacketAddr>
        ) -> io::Result<usize>;
        fn packet_option(&self, fd: Fd, option: crate::net::UdpOption) -> io::Result<()>;
        fn peer_credentials(&self, fd: Fd) -> io::Result<crate::net::unix::Credentials>;
    }

    #[cfg(feature = "udp-offload")]
    fn udp_offload(&self, fd: Fd) -> io::Result<Box<dyn crate::sys::Offload>> {
        Real.udp_offload(fd)
    }
}

impl Sys for Odd {
    pass_on! {
        fn clock(&self) -> Instant;
        fn listen(&self, at: &Addr, options: &ListenOptions) -> io::Result<Fd>;
        fn connect(&self, to: &Addr, options: &ConnectOptions) -> io::Result<(Fd, bool)>;
        fn accept(&self, listener: Fd) -> io::Result<(Fd, Addr)>;
        fn recv(&self, fd: Fd, into: &mut [u8]) -> io::Result<usize>;
        fn send(&self, fd: Fd, from: &[u8]) -> io::Result<usize>;
        fn send_vectored(&self, fd: Fd, from: &[io::IoSlice<'_>]) -> io::Result<usize>;
        fn send_file(
            &self, fd: Fd, file: std::os::fd::BorrowedFd<'_>, at: &mut u64, most: usize
        ) -> io::Result<usize>;
        fn shutdown(&self, fd: Fd, how: Shutdown) -> io::Result<()>;
        fn close(&self, fd: Fd);
        fn take_error(&self, fd: Fd) -> io::Result<Option<io::Error>>;
        fn set_option(&self, fd: Fd, option: SocketOption) -> io::Result<()>;
        fn local_addr(&self, fd: Fd) -> io::Result<Addr>;
        fn peer_addr(&self, fd: Fd) -> io::Result<Addr>;
        fn import(&self, fd: std::os::fd::OwnedFd) -> io::Result<Fd>;
        fn duplicate(&self, fd: std::os::fd::BorrowedFd<'_>) -> io::Result<Fd>;
        fn is_pollable(&self, fd: Fd) -> io::Result<bool>;
        fn export(&self, fd: Fd) -> io::Result<std::os::fd::OwnedFd>;
        fn spare(&self) -> io::Result<Fd>;
        fn copy(&self, fd: Fd) -> io::Result<std::os::fd::OwnedFd>;
        fn listening(&self, fd: std::os::fd::BorrowedFd<'_>) -> io::Result<crate::sys::Listening>;
        fn socket_file(&self, path: &Path) -> Option<crate::sys::SocketFile>;
        fn remove_socket_file(&self, path: &Path, only: Option<crate::sys::SocketFile>);
        fn wake_pair(&self) -> io::Result<(Fd, WakeFn)>;
        fn end_wakes(&self, fd: Fd);
        fn clear_wake(&self, fd: Fd);
        fn epoll_create(&self) -> io::Result<Fd>;
        fn epoll_ctl(&self, ep: Fd, op: EpollOp, fd: Fd, data: u64, flags: EpollFlags) -> io::Result<()>;
        fn epoll_wait(&self, ep: Fd, events: &mut Vec<EpollEvent>, timeout: Option<Duration>) -> io::Result<()>;
        fn poll(&self, entries: &mut [PollEntry], timeout: Option<Duration>) -> io::Result<usize>;
        fn select(
            &self, bound: i32, sets: &mut [[FdSetElement; 16]; 3], timeout: Option<Duration>
        ) -> io::Result<usize>;
        fn splice(&self, from: Fd, to: Fd, most: usize) -> io::Result<usize>;
        fn pipe(&self) -> io::Result<(Fd, Fd)>;
        fn read(&self, fd: Fd, into: &mut [u8]) -> io::Result<usize>;
        fn write(&self, fd: Fd, from: &[u8]) -> io::Result<usize>;
        fn write_vectored(&self, fd: Fd, from: &[io::IoSlice<'_>]) -> io::Result<usize>;
        fn pidfd(&self, child: u32) -> io::Result<Fd>;
        fn signal(&self, pidfd: Fd, number: i32) -> io::Result<()>;
        fn socket_pair(&self) -> io::Result<(Fd, Fd)>;
        fn ring_map(&self, ring: Fd, offset: u64, bytes: usize) -> io::Result<NonNull<u8>>;
        fn ring_provide(
            &self, ring: Fd, entries: NonNull<u8>, count: u16, incremental: bool
        ) -> io::Result<()>;
        fn ring_operations(&self, ring: Fd) -> io::Result<u128>;
        fn ring_threads(&self, ring: Fd, most: u32) -> io::Result<()>;
        fn map(&self, bytes: usize) -> io::Result<NonNull<u8>>;
        fn unmap(&self, at: NonNull<u8>, bytes: usize);
    }

    fn ring_setup(&self, _entries: u32, params: &mut RingParams) -> io::Result<Fd> {
        params.cq_entries = self.sizes.1;
        Real.ring_setup(self.sizes.0, params)
    }

    fn ring_enter(
        &self,
        ring: Fd,
        submit: u32,
        wait: u32,
        events: bool,
        timeout: Option<Duration>,
    ) -> io::Result<u32> {
        match (self.fates.borrow_mut())(submit, events) {
            Fate::Refused(errno) => Err(errno.into()),
            // The kernel does not wait if it has not taken all.
            Fate::Takes(n) if n < submit => Real.ring_enter(ring, n, 0, events, None),
            Fate::Takes(_) | Fate::Passes => Real.ring_enter(ring, submit, wait, events, timeout),
        }
    }
}

struct Echo;

impl Handler for Echo {
    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        conn.write(bytes);
    }
}

pub(super) fn features(without: &str) -> Features {
    probe(&Real, without).unwrap()
}

pub(super) fn odd(
    features: Features,
    sizes: (u32, u32),
    fates: impl FnMut(u32, bool) -> Fate + 'static,
) -> EventLoop {
    let driver = Uring::new(Odd { sizes, fates: Rc::new(RefCell::new(fates)) }, features).unwrap();
    EventLoop::over(Backend::IoUring, Box::new(driver))
}

/// Two servers that send back what they get: handlers, and tasks.
fn servers(events: &mut EventLoop) -> [SocketAddr; 2] {
    let h = events.handle();
    let limits = Limits { max_queue_bytes: 64 << 20, ..Limits::default() };
    let pool = h.pool(limits);
    let listener = pool.listen("127.0.0.1:0", &ListenOptions::default(), |_| Echo).unwrap();
    let first = h.listener_addr(listener).unwrap().socket_addr().unwrap();
    let mut listener = events.block_on(async { Listener::bind("127.0.0.1:0").unwrap() }).unwrap();
    let second = listener.local_addr().unwrap().socket_addr().unwrap();
    let spawner = h.clone();
    h.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            spawner
                .spawn(async move {
                    let mut i = 0;
                    let mut memory = vec![0; 5000];
                    loop {
                        i += 1;
                        if i % 2 == 0 {
                            let lent = stream.read_with(|bytes, reply| _ = reply.write(bytes)).await;
                            if !matches!(lent, Ok(Some(()))) {
                                return;
                            }
                            stream.flush().await.unwrap();
                        } else {
                            match stream.read(&mut memory).await {
                                Ok(n @ 1..) => stream.write_all(&memory[..n]).await.unwrap(),
                                _ => return,
                            }
                        }
                    }
                })
                .detach();
        }
    })
    .detach();
    [first, second]
}

/// Sends labelled bytes of many sizes in both directions, and comes and goes.
fn peer(at: SocketAddr, label: u8, rounds: usize) {
    for round in 0..rounds {
        let mut peer = TcpStream::connect(at).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        peer.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        for i in 0..6usize {
            let len = [1, 50, 3000, 40_000, 100, 9000][(i + round) % 6];
            let sent: Vec<u8> = (0..len).map(|at| (at as u8 ^ i as u8).wrapping_add(label)).collect();
            peer.write_all(&sent).unwrap();
            let mut got = vec![0; len];
            peer.read_exact(&mut got).unwrap();
            assert!(got == sent, "the bytes came back as others");
        }
        if round % 2 == 0 {
            peer.shutdown(Shutdown::Write).unwrap();
            assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0, "nothing came twice");
        }
    }
}

/// Serves many peers at once to their end. Returns how often the loop failed meanwhile.
fn exchange(events: &mut EventLoop, peers: u8, rounds: usize) -> usize {
    struct Stop(crate::Remote);
    impl Drop for Stop {
        fn drop(&mut self) {
            let _ = self.0.run(|h| h.stop());
        }
    }
    let at = servers(events);
    let remote = events.handle().remote();
    let all = thread::spawn(move || {
        let _stop = Stop(remote);
        let each = |label: u8| thread::spawn(move || peer(at[usize::from(label) % 2], label, rounds));
        let threads: Vec<_> = (0..peers).map(each).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    let mut failures = 0;
    while events.run().is_err() {
        failures += 1;
    }
    all.join().unwrap();
    failures
}

pub(super) const SETS: [&str; 4] =
    ["", "defer-taskrun", "incremental-buffers,quiet-sends", "multishot-recv,multishot-accept"];

/// A multishot receive, accept or poll ends where its completion finds no room, and is asked for again.
#[test]
fn i14_i12_small_queues_lose_nothing() {
    for without in SETS {
        for sizes in [(1, 2), (2, 4), (8, 16)] {
            let mut events = odd(features(without), sizes, |_, _| Fate::Passes);
            assert_eq!(exchange(&mut events, 24, 3), 0);
        }
    }
}

/// A submission may be interrupted, refused for a while, or taken in parts.
#[test]
fn i09_entries_that_are_taken_late_are_taken_once() {
    for without in SETS {
        let mut rng = fastrand::Rng::with_seed(9);
        let fate = move |submit, _| match rng.u8(..8) {
            0 => Fate::Refused(Errno::AGAIN),
            1 => Fate::Refused(Errno::BUSY),
            2 => Fate::Refused(Errno::INTR),
            3..=5 => Fate::Takes(rng.u32(..=submit)),
            _ => Fate::Passes,
        };
        let mut events = odd(features(without), (8, 64), fate);
        assert_eq!(exchange(&mut events, 12, 3), 0);
    }
}

/// Where no submission succeeds that is not also a wait, everything waits for that one, but bytes: they are sent by calls.
#[test]
fn i09_bytes_of_a_refused_submission_are_sent_once() {
    for without in SETS {
        for sizes in [(4, 64), (1024, 8192)] {
            let refuse = |_, events: bool| if events { Fate::Passes } else { Fate::Refused(Errno::NOMEM) };
            let mut events = odd(features(without), sizes, refuse);
            assert_eq!(exchange(&mut events, 12, 3), 0);
        }
    }
}

/// A wait that fails is an error of the loop's (I8); if it can be run again, nothing is missing.
#[test]
fn i09_a_failed_wait_loses_nothing() {
    for without in SETS {
        let mut rng = fastrand::Rng::with_seed(8);
        let fate = move |submit, _| match rng.u8(..12) {
            0 => Fate::Refused(Errno::NOMEM),
            1 => Fate::Takes(rng.u32(..=submit)),
            _ => Fate::Passes,
        };
        let mut events = odd(features(without), (8, 64), fate);
        assert!(exchange(&mut events, 12, 3) > 0, "some waits failed");
    }
}

/// The end of a loop whose kernel takes nothing any more leaves the memory to the kernel, and ends.
#[test]
fn i16_a_kernel_that_ends_nothing_keeps_the_memory() {
    let over = Rc::new(std::cell::Cell::new(false));
    let refuses = over.clone();
    let fate = move |_, _| if refuses.get() { Fate::Refused(Errno::NOMEM) } else { Fate::Passes };
    let mut events = odd(features(""), (8, 64), fate);
    let [at, _] = servers(&mut events);
    let mut peer = TcpStream::connect(at).unwrap();
    peer.write_all(b"hello").unwrap();
    (0..5).for_each(|_| events.poll().unwrap());
    peer.write_all(b"again").unwrap();
    over.set(true);
    assert_eq!(events.poll().unwrap_err().kind(), io::ErrorKind::OutOfMemory);
    drop(events);
}
