//! What holds for one loop holds for several, whichever way connections come to them: bytes in order, ends, newcomers, queues.
//! Each body runs on every backend, with 1, 2 and 4 loops and each [`Share`], several connections at once. Handlers are made
//! on the loop that serves them, and peers are raw sockets on threads of their own.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use evenkeel::group::{Group, GroupListener, Share};
use evenkeel::net::{Addr, Limits, ListenOptions, SocketOption};
use evenkeel::{Backend, CloseReason, Conn, ConnId, Flow, Handler, Message};

use crate::support::*;

on_every_backend! {
    i05_bytes_come_back_in_order_whatever_their_sizes,
    i30_an_end_behind_data_is_heard_after_it,
    i30_a_reset_behind_data_ends_the_connection,
    i04_data_that_was_there_before_the_connection_was_accepted,
    close_flushes_a_large_queue_to_a_slow_reader,
    i30_close_waits_for_a_peer_that_is_still_sending,
    abort_resets,
    i07_close_in_every_call,
    the_end_of_the_group_ends_every_connection,
    a_crowd_of_newcomers_is_served,
    i38_a_panic_in_make_ends_one_connection,
    a_closed_listener_keeps_its_connections,
    i05_writes_of_all_kinds_leave_in_order,
    watermarks_ask_to_hold_and_tell_when_drained,
    i41_a_queue_has_a_cap,
    i38_a_panic_in_a_handler_ends_one_connection,
}

/// What a handler does in its calls.
#[derive(Clone, Copy)]
struct Script {
    open: fn(&mut Conn<'_>),
    data: fn(&mut Conn<'_>, &[u8]),
    eof: fn(&mut Conn<'_>),
    drained: fn(&mut Conn<'_>),
}

const QUIET: Script =
    Script { open: |_| (), data: |_, _| (), eof: |conn| conn.close(), drained: |conn| conn.resume() };

const ECHO: Script = Script {
    data: |conn, bytes| {
        if conn.write(bytes) == Flow::Hold {
            conn.pause();
        }
    },
    ..QUIET
};

/// What all handlers of a run have come to.
#[derive(Default)]
struct Record {
    made: AtomicUsize,
    received: AtomicUsize,
    drained: AtomicUsize,
    ends: Mutex<Vec<&'static str>>,
    broken: Mutex<Vec<String>>,
}

/// A handler that checks that its calls come as they must, on the loop that made it.
struct Scripted {
    script: Script,
    record: Arc<Record>,
    home: ThreadId,
    opened: bool,
    eof: bool,
}

impl Scripted {
    fn new(script: Script, record: &Arc<Record>) -> Self {
        record.made.fetch_add(1, Ordering::Relaxed);
        let home = thread::current().id();
        Scripted { script, record: record.clone(), home, opened: false, eof: false }
    }

    fn check(&self, holds: bool, what: &str) {
        if !holds || self.home != thread::current().id() {
            self.record.broken.lock().unwrap().push(format!("{what}, made on {:?}", self.home));
        }
    }
}

impl Handler for Scripted {
    fn on_open(&mut self, conn: &mut Conn<'_>) {
        self.check(!self.opened, "on_open");
        self.opened = true;
        (self.script.open)(conn);
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        self.check(self.opened && !self.eof && !bytes.is_empty(), "on_data");
        self.record.received.fetch_add(bytes.len(), Ordering::Relaxed);
        (self.script.data)(conn, bytes);
    }

    fn on_eof(&mut self, conn: &mut Conn<'_>) {
        self.check(self.opened && !self.eof, "on_eof");
        self.eof = true;
        (self.script.eof)(conn);
    }

    fn on_drained(&mut self, conn: &mut Conn<'_>) {
        self.check(self.opened, "on_drained");
        self.record.drained.fetch_add(1, Ordering::Relaxed);
        (self.script.drained)(conn);
    }

    fn on_close(&mut self, _: ConnId, reason: &CloseReason) {
        self.check(self.opened, "on_close");
        self.record.ends.lock().unwrap().push(reason.name());
    }
}

/// A group that listens, under one of the shares.
struct Served {
    group: Group,
    listener: GroupListener,
    record: Arc<Record>,
    share: Share,
    loops: usize,
}

impl Served {
    /// Lets raw peers talk to it, all at once, each on a thread of its own.
    fn talk(&self, peers: usize, talk: impl Fn(TcpStream, usize) + Send + Sync + Clone + 'static) {
        let to = tcp(&self.listener);
        let threads: Vec<_> = (0..peers)
            .map(|name| {
                let talk = talk.clone();
                thread::spawn(move || talk(connect(to), name))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[track_caller]
    fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let since = Instant::now();
        while !condition() {
            assert!(
                since.elapsed() < LONG,
                "{:?} on {}: waited in vain until {what}",
                self.share,
                self.loops
            );
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// Waits for all ends, which are these, and for the counts to say so; then for the group to end.
    #[track_caller]
    fn ended(self, ends: usize, reason: &str) {
        let record = self.record.clone();
        self.until("all have ended", || record.ends.lock().unwrap().len() >= ends);
        self.until("none is counted", || connections(&self.listener).iter().all(|count| *count == 0));
        let context = format!("{:?} on {} loops", self.share, self.loops);
        assert_eq!(*record.ends.lock().unwrap(), vec![reason; ends], "{context}");
        let accepted: u64 = self.listener.counts().iter().map(|counts| counts.accepted).sum();
        assert_eq!(accepted, record.made.load(Ordering::Relaxed) as u64, "{context}");
        join(self.group);
        assert_eq!(*record.broken.lock().unwrap(), Vec::<String>::new(), "{context}");
    }
}

/// Two peers for each loop, and one more.
fn crowd(loops: usize) -> usize {
    2 * loops + 1
}

/// Runs a body under each share with 1, 2 and 4 loops.
fn everywhere(backend: Backend, script: Script, limits: &Limits, body: impl Fn(Served)) {
    for share in SHARES {
        for loops in [1, 2, 4] {
            let group = group_on(backend, loops);
            let record: Arc<Record> = Arc::default();
            let each = record.clone();
            let make = move |_: &Addr, _| Scripted::new(script, &each);
            let options = ListenOptions::default();
            let listener = group.listen("127.0.0.1:0", &options, limits, share, make).unwrap();
            body(Served { group, listener, record, share, loops });
        }
    }
}

/// Talks to an echoing or other server until the server ends, and expects its peers to be closed in order.
fn closed_in_order(
    backend: Backend,
    script: Script,
    talk: impl Fn(TcpStream, usize) + Send + Sync + Clone + 'static,
) {
    everywhere(backend, script, &Limits::default(), |served| {
        let peers = crowd(served.loops);
        served.talk(peers, talk.clone());
        served.ended(peers, "closed");
    });
}

fn pattern(name: usize, len: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(name as u64 + 1);
    let mut all = vec![0; len];
    rng.fill(&mut all);
    all
}

fn read_all(peer: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    peer.read_to_end(&mut all).expect("closed without a reset");
    all
}

fn is_reset(peer: &mut TcpStream) -> bool {
    peer.read_to_end(&mut Vec::new()).is_err_and(|e| e.kind() == ErrorKind::ConnectionReset)
}

fn resets(peer: TcpStream) {
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
}

fn i05_bytes_come_back_in_order_whatever_their_sizes(backend: Backend) {
    closed_in_order(backend, ECHO, |mut peer, name| {
        for size in [1, 1023, 65_536, 65_537, 200_003] {
            let bytes = pattern(name, size);
            let mut writer = peer.try_clone().unwrap();
            let sent = bytes.clone();
            let writing = thread::spawn(move || writer.write_all(&sent).unwrap());
            let mut got = vec![0; size];
            peer.read_exact(&mut got).unwrap();
            writing.join().unwrap();
            assert!(got == bytes, "{size} bytes of peer {name}");
        }
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut peer), b"");
    });
}

fn i30_an_end_behind_data_is_heard_after_it(backend: Backend) {
    everywhere(backend, QUIET, &Limits::default(), |served| {
        let peers = crowd(served.loops);
        // Data and end are there before, or while, the connection is accepted.
        served.talk(peers, |mut peer, name| peer.write_all(&pattern(name, 10_000)).unwrap());
        let record = served.record.clone();
        served.until("all came", || record.received.load(Ordering::Relaxed) == peers * 10_000);
        served.ended(peers, "closed");
    });
}

fn i30_a_reset_behind_data_ends_the_connection(backend: Backend) {
    everywhere(backend, QUIET, &Limits::default(), |served| {
        let peers = crowd(served.loops);
        let (to, record) = (tcp(&served.listener), served.record.clone());
        let connected: Vec<_> = (0..peers).map(|_| connect(to)).collect();
        served.until("all are there", || record.made.load(Ordering::Relaxed) == peers);
        for mut peer in connected {
            peer.write_all(b"last words").unwrap();
            resets(peer);
        }
        served.ended(peers, "error");
    });
}

fn i04_data_that_was_there_before_the_connection_was_accepted(backend: Backend) {
    everywhere(backend, ECHO, &Limits::default(), |served| {
        // All loops are held up while peers come and write.
        let releases: Vec<_> = (0..served.loops)
            .map(|index| {
                let (release, wait) = std::sync::mpsc::channel::<()>();
                let (begins, begun) = std::sync::mpsc::channel();
                let hold = move |_: &evenkeel::Handle| {
                    begins.send(()).unwrap();
                    _ = wait.recv();
                };
                served.group.remote(index).run(hold).unwrap();
                begun.recv().unwrap();
                release
            })
            .collect();
        let peers = crowd(served.loops);
        let to = tcp(&served.listener);
        let mut waiting: Vec<_> = (0..peers).map(|_| connect(to)).collect();
        waiting.iter_mut().for_each(|peer| peer.write_all(b"early").unwrap());
        drop(releases);
        for mut peer in waiting {
            let mut early = [0; 5];
            peer.read_exact(&mut early).unwrap();
            assert_eq!(&early, b"early");
        }
        served.ended(peers, "closed");
    });
}

const MUCH: usize = 400_000;

fn close_flushes_a_large_queue_to_a_slow_reader(backend: Backend) {
    fn open(conn: &mut Conn<'_>) {
        conn.set_option(SocketOption::SendBuffer(8192)).unwrap();
        conn.write(&pattern(0, MUCH));
        conn.close();
    }
    closed_in_order(backend, Script { open, ..QUIET }, |mut peer, _| {
        let (mut all, mut buffer) = (Vec::<u8>::new(), [0; 9000]);
        loop {
            thread::yield_now();
            match peer.read(&mut buffer).expect("closed without a reset") {
                0 => break,
                n => all.extend(&buffer[..n]),
            }
        }
        assert!(all == pattern(0, MUCH));
    });
}

fn i30_close_waits_for_a_peer_that_is_still_sending(backend: Backend) {
    fn data(conn: &mut Conn<'_>, _: &[u8]) {
        conn.write(b"enough");
        conn.close();
    }
    closed_in_order(backend, Script { data, ..QUIET }, |mut peer, _| {
        // What is still sent after the answer does not destroy it.
        peer.write_all(&[7; 60_000]).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut peer), b"enough");
    });
}

fn abort_resets(backend: Backend) {
    let script = Script { data: |conn, _| conn.abort(), ..QUIET };
    everywhere(backend, script, &Limits::default(), |served| {
        let peers = crowd(served.loops);
        served.talk(peers, |mut peer, _| {
            peer.write_all(b"x").unwrap();
            assert!(is_reset(&mut peer));
        });
        served.ended(peers, "aborted");
    });
}

fn i07_close_in_every_call(backend: Backend) {
    let scripts = [
        Script { open: |conn| conn.close(), ..QUIET },
        Script { data: |conn, _| conn.close(), ..QUIET },
        QUIET,
    ];
    for script in scripts {
        closed_in_order(backend, script, |mut peer, _| {
            // One that is closed already may refuse it.
            let _ = peer.write_all(b"x");
            let _ = peer.shutdown(Shutdown::Write);
            let _ = peer.read_to_end(&mut Vec::new());
        });
    }
}

fn the_end_of_the_group_ends_every_connection(backend: Backend) {
    everywhere(backend, ECHO, &Limits::default(), |served| {
        let (peers, to) = (crowd(served.loops), tcp(&served.listener));
        let mut all: Vec<_> = (0..peers).map(|_| connect(to)).collect();
        all.iter_mut().for_each(|peer| ping(peer).unwrap());
        join(served.group);
        assert_eq!(*served.record.ends.lock().unwrap(), vec!["loop ended"; peers]);
        assert_eq!(*served.record.broken.lock().unwrap(), Vec::<String>::new());
        all.iter_mut().for_each(|peer| assert_eq!(read_all(peer), b""));
    });
}

fn a_crowd_of_newcomers_is_served(backend: Backend) {
    everywhere(backend, ECHO, &Limits::default(), |served| {
        let to = tcp(&served.listener);
        let mut all: Vec<_> = (0..60).map(|_| connect(to)).collect();
        all.iter_mut().for_each(|peer| ping(peer).unwrap());
        assert_eq!(connections(&served.listener).iter().sum::<usize>(), 60);
        drop(all);
        served.ended(60, "closed");
    });
}

fn i38_a_panic_in_make_ends_one_connection(backend: Backend) {
    for share in SHARES {
        for loops in [1, 2, 4] {
            let group = group_on(backend, loops);
            let (count, record) = (AtomicUsize::new(0), Arc::<Record>::default());
            let each = record.clone();
            let make = move |_: &Addr, _| {
                assert!(count.fetch_add(1, Ordering::Relaxed) % 3 != 1, "every third one");
                Scripted::new(ECHO, &each)
            };
            let (options, limits) = (ListenOptions::default(), Limits::default());
            let listener = group.listen("127.0.0.1:0", &options, &limits, share, make).unwrap();
            let to = tcp(&listener);
            let served = (0..12).filter(|_| ping(&mut connect(to)).is_ok()).count();
            assert_eq!(served, 8, "{share:?} on {loops}");
            let since = Instant::now();
            while connections(&listener).iter().any(|count| *count > 0) {
                assert!(since.elapsed() < LONG, "{share:?} on {loops}: one that panicked does not count");
                thread::yield_now();
            }
            join(group);
            assert_eq!(*record.broken.lock().unwrap(), Vec::<String>::new());
        }
    }
}

fn a_closed_listener_keeps_its_connections(backend: Backend) {
    everywhere(backend, ECHO, &Limits::default(), |served| {
        let (peers, to) = (crowd(served.loops), tcp(&served.listener));
        let mut all: Vec<_> = (0..peers).map(|_| connect(to)).collect();
        all.iter_mut().for_each(|peer| ping(peer).unwrap());
        let Served { group, listener, record, share, loops } = served;
        listener.close().unwrap();
        settle(&group);
        let refused = TcpStream::connect(to);
        assert!(refused.is_err(), "{share:?} on {loops}");
        all.iter_mut().for_each(|peer| ping(peer).unwrap());
        drop(all);
        let since = Instant::now();
        while record.ends.lock().unwrap().len() < peers {
            assert!(since.elapsed() < LONG);
            thread::yield_now();
        }
        join(group);
        assert_eq!(*record.broken.lock().unwrap(), Vec::<String>::new());
    });
}

fn all_kinds() -> Vec<u8> {
    [10, 500, 20_000, 3, 90_000].iter().flat_map(|len| pattern(*len, *len).repeat(2)).collect()
}

fn i05_writes_of_all_kinds_leave_in_order(backend: Backend) {
    fn data(conn: &mut Conn<'_>, _: &[u8]) {
        for len in [10, 500, 20_000, 3, 90_000] {
            let bytes = pattern(len, len);
            conn.write(&bytes);
            conn.send(&Message::from(bytes));
        }
        conn.close();
    }
    closed_in_order(backend, Script { data, ..QUIET }, |mut peer, _| {
        peer.write_all(b"x").unwrap();
        assert!(read_all(&mut peer) == all_kinds());
    });
}

/// Writes until it is asked to hold, and on each time it has drained, six times.
fn watermarks_ask_to_hold_and_tell_when_drained(backend: Backend) {
    fn fill(conn: &mut Conn<'_>) {
        while conn.write(&[b'.'; 30_000]) == Flow::Go {}
    }
    let script = Script { open: fill, drained: fill, ..QUIET };
    everywhere(backend, script, &Limits::default(), |served| {
        let peers = crowd(served.loops);
        let record = served.record.clone();
        let enough = served.record.clone();
        served.talk(peers, move |mut peer, _| {
            let mut buffer = [0; 50_000];
            while enough.drained.load(Ordering::Relaxed) < 6 * peers {
                assert!(peer.read(&mut buffer).unwrap() > 0);
            }
            resets(peer);
        });
        assert!(record.drained.load(Ordering::Relaxed) >= 6 * peers);
        served.ended(peers, "error");
    });
}

fn i41_a_queue_has_a_cap(backend: Backend) {
    fn data(conn: &mut Conn<'_>, _: &[u8]) {
        while conn.write(&[b'.'; 30_000]) != Flow::Closed {}
    }
    let mut limits = Limits::default();
    limits.max_queue_bytes = 200_000;
    everywhere(backend, Script { data, ..QUIET }, &limits, |served| {
        let peers = crowd(served.loops);
        served.talk(peers, |mut peer, _| {
            peer.write_all(b"x").unwrap();
            assert!(is_reset(&mut peer), "a part does not pass for the whole");
        });
        served.ended(peers, "queue full");
    });
}

fn i38_a_panic_in_a_handler_ends_one_connection(backend: Backend) {
    fn data(conn: &mut Conn<'_>, bytes: &[u8]) {
        assert_ne!(bytes, b"panic", "as it was told");
        conn.write(bytes);
    }
    everywhere(backend, Script { data, ..QUIET }, &Limits::default(), |served| {
        let (peers, to) = (crowd(served.loops), tcp(&served.listener));
        let mut others: Vec<_> = (0..peers).map(|_| connect(to)).collect();
        served.talk(peers, |mut peer, _| {
            peer.write_all(b"panic").unwrap();
            assert!(is_reset(&mut peer));
        });
        others.iter_mut().for_each(|peer| ping(peer).unwrap());
        let record = served.record.clone();
        served.until("each has ended", || record.ends.lock().unwrap().len() == peers);
        assert_eq!(std::mem::take(&mut *record.ends.lock().unwrap()), vec!["handler panicked"; peers]);
        drop(others);
        served.ended(peers, "closed");
    });
}
