//! Connections move between loops on threads of their own.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use evenkeel::group::Share;
use evenkeel::net::{Limits, ListenOptions, Parcel, Pool, Stream};
use evenkeel::{Backend, CloseReason, Conn, ConnId, EventLoop, Flow, Handle, Handler, Remote};
use fastrand::Rng;

use crate::support::*;

on_every_backend! {
    i43_a_storm_of_moves_loses_nothing,
    a_full_mailbox_gives_the_connection_back,
    a_moved_connection_counts_where_it_is,
}

/// Connections of one storm.
const CONNECTIONS: usize = 50;
/// Numbers that each peer sends, and gets.
const NUMBERS: u32 = 60_000;

thread_local! {
    /// Each loop's own.
    static POOL: RefCell<Option<Pool<Roamer>>> = const { RefCell::new(None) };
}

/// What all loops of a storm know.
struct Storm {
    loops: Vec<Remote>,
    moves: AtomicUsize,
    /// How each connection's handlers have ended, and with how many numbers.
    ends: Mutex<Vec<Vec<(&'static str, u32)>>>,
    /// What must not be.
    broken: Mutex<Vec<String>>,
}

/// A connection's protocol, as it goes from loop to loop: each number that comes is the next one, and is answered.
struct State {
    storm: Arc<Storm>,
    name: usize,
    rng: Rng,
    /// The first bytes of a number.
    begun: Vec<u8>,
    next: u32,
}

impl State {
    /// Checks what came and returns the answer.
    fn heard(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut answer = Vec::with_capacity(bytes.len() + 4);
        for byte in bytes {
            self.begun.push(*byte);
            if let Ok(number) = <[u8; 4]>::try_from(&self.begun[..]) {
                if u32::from_le_bytes(number) != self.next {
                    let what = format!("{}: {number:?} came and not {}", self.name, self.next);
                    self.storm.broken.lock().unwrap().push(what);
                }
                self.next = self.next.wrapping_add(1);
                self.begun.clear();
                answer.extend(number);
            }
        }
        answer
    }

    /// Sends the connection to any loop, the own one too.
    fn moves(mut self, parcel: Parcel) {
        self.storm.moves.fetch_add(1, Ordering::Relaxed);
        let to = self.storm.loops[self.rng.usize(..self.storm.loops.len())].clone();
        let as_stream = self.rng.u8(..4) == 0;
        let arrive = move |handle: &Handle, parcel: Parcel| {
            if as_stream { self.arrive_as_stream(handle, parcel) } else { self.arrive(parcel) }
        };
        parcel.send(&to, arrive).expect("there is room");
    }

    fn arrive(self, parcel: Parcel) {
        let pool = POOL.with_borrow(|pool| pool.clone()).expect("it was made first");
        let result = pool.unpack(parcel, Roamer { state: Some(self) });
        result.map_err(|(refused, _)| refused).expect("any loop can serve it");
    }

    /// A task reads once, and then moves it on or gives it to a handler.
    fn arrive_as_stream(mut self, handle: &Handle, parcel: Parcel) {
        let mut stream: Stream = parcel.unpack(handle).expect("any loop can serve it");
        let task = async move {
            let answer = |bytes: &[u8], reply: &mut evenkeel::net::Reply<'_>| {
                let answer = self.heard(bytes);
                reply.write(&answer)
            };
            if stream.read_with(answer).await.unwrap() == Some(Flow::Hold) {
                stream.flush().await.unwrap();
            }
            if self.rng.bool() {
                self.moves(stream.pack().unwrap());
            } else {
                let pool = POOL.with_borrow(|pool| pool.clone()).expect("it was made first");
                assert!(pool.adopt(stream, Roamer { state: Some(self) }, b"").is_ok());
            }
        };
        handle.spawn(task).detach();
    }
}

/// A handler that may move at any call.
struct Roamer {
    /// None once it has moved.
    state: Option<State>,
}

impl Roamer {
    fn may_move(&mut self, conn: &mut Conn<'_>, unread: &[u8]) -> bool {
        let Some(state) = self.state.take_if(|state| state.rng.bool()) else { return false };
        if state.rng.clone().u8(..5) == 0 {
            conn.pause();
        }
        state.moves(conn.pack(unread).expect("it is open"));
        true
    }
}

impl Handler for Roamer {
    fn on_open(&mut self, conn: &mut Conn<'_>) {
        self.may_move(conn, b"");
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        let Some(state) = &mut self.state else { return };
        let ours = if state.rng.bool() { state.rng.usize(..=bytes.len()) } else { bytes.len() };
        let answer = state.heard(&bytes[..ours]);
        let flow = conn.write(&answer);
        if self.may_move(conn, &bytes[ours..]) {
            return;
        }
        let Some(state) = &mut self.state else { return };
        let answer = state.heard(&bytes[ours..]);
        if conn.write(&answer) == Flow::Hold || flow == Flow::Hold {
            conn.pause();
        }
    }

    fn on_eof(&mut self, conn: &mut Conn<'_>) {
        if !self.may_move(conn, b"") {
            conn.close();
        }
    }

    fn on_drained(&mut self, conn: &mut Conn<'_>) {
        if !self.may_move(conn, b"") {
            conn.resume();
        }
    }

    fn on_close(&mut self, _: ConnId, reason: &CloseReason) {
        match &self.state {
            Some(state) => {
                let mut ends = state.storm.ends.lock().unwrap();
                ends[state.name].push((reason.name(), state.next));
            }
            None => panic!("one that has moved is told of an end"),
        }
    }
}

/// A loop on a thread of its own, of any backend.
fn start(backend: Backend, remotes: Sender<Remote>, release: Receiver<()>) -> thread::JoinHandle<u64> {
    thread::spawn(move || {
        let mut events = EventLoop::builder().backend(backend).on_fallback(|_| ()).build().unwrap();
        let handle = events.handle();
        POOL.set(Some(handle.pool(Limits::default())));
        remotes.send(handle.remote()).unwrap();
        events.run().unwrap();
        // All have ended before any is gone.
        let _ = release.recv();
        let (stats, left) = (handle.stats(), POOL.take().map_or(0, |pool| pool.len()));
        assert_eq!((stats.sources, stats.tasks, left), (0, 0, 0), "nothing is left behind");
        stats.panics
    })
}

/// Sends the numbers in pieces of many sizes, and reads them back.
fn peer(mut stream: TcpStream, mut rng: Rng) -> io::Result<u32> {
    let mut writer = stream.try_clone()?;
    let writing = thread::spawn(move || {
        let bytes: Vec<u8> = (0..NUMBERS).flat_map(u32::to_le_bytes).collect();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rng.usize(1..=rest.len().min(6000)));
            writer.write_all(piece).unwrap();
            rest = after;
        }
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    writing.join().unwrap();
    let (numbers, rest) = all.as_chunks::<4>();
    assert!(rest.is_empty());
    for (at, number) in (0..).zip(numbers) {
        assert_eq!(u32::from_le_bytes(*number), at, "each number comes once, in order");
    }
    Ok(numbers.len() as u32)
}

/// Two of the loops have this backend, the others the next two.
fn i43_a_storm_of_moves_loses_nothing(backend: Backend) {
    let before = descriptors();
    let seed = 43 + backend.name().len() as u64;
    let mut rng = Rng::with_seed(seed);
    let place = Backend::ALL.iter().position(|other| *other == backend).unwrap();
    let backends = [0, 0, 1, 2].map(|step| Backend::ALL[(place + step) % Backend::ALL.len()]);
    let (sender, remotes) = channel();
    let started = backends.map(|backend| {
        let (release, wait) = channel();
        (start(backend, sender.clone(), wait), release)
    });
    let loops: Vec<Remote> = remotes.iter().take(backends.len()).collect();
    drop(remotes);
    let storm = Arc::new(Storm {
        loops: loops.clone(),
        moves: AtomicUsize::new(0),
        ends: Mutex::new(vec![Vec::new(); CONNECTIONS]),
        broken: Mutex::default(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peers: Vec<_> = (0..CONNECTIONS)
        .map(|name| {
            let (far, near) = (connect(listener.local_addr().unwrap()), listener.accept().unwrap().0);
            let (begun, next, storm) = (Vec::new(), 0, storm.clone());
            let state = State { storm, name, rng: rng.fork(), begun, next };
            let begin = move |_: &Handle| {
                let stream = Stream::from_fd(near).unwrap();
                state.arrive(stream.pack().unwrap());
            };
            loops[name % loops.len()].run(begin).unwrap();
            let rng = rng.fork();
            thread::spawn(move || peer(far, rng))
        })
        .collect();
    let got: Vec<_> = peers.into_iter().map(|peer| peer.join().unwrap().unwrap()).collect();
    for remote in &loops {
        // Ends are told in the turn in which the peers read theirs, or the next.
        remote.spawn(|| async {}).unwrap().wait().unwrap();
        remote.spawn(|| async {}).unwrap().wait().unwrap();
        remote.stop();
    }
    for (thread, release) in started {
        drop(release);
        assert_eq!(thread.join().unwrap(), 0, "a handler panicked; the seed is {seed}");
    }
    assert_eq!(*storm.broken.lock().unwrap(), Vec::<String>::new(), "the seed is {seed}");
    assert_eq!(got, vec![NUMBERS; CONNECTIONS], "the seed is {seed}");
    let ends = storm.ends.lock().unwrap();
    let once: Vec<_> = (0..CONNECTIONS).map(|_| vec![("closed", NUMBERS)]).collect();
    assert_eq!(*ends, once, "each connection ends once; the seed is {seed}");
    let moves = storm.moves.load(Ordering::Relaxed);
    eprintln!("{moves} moves");
    assert!(moves > CONNECTIONS * 5, "{moves} moves");
    drop(ends);
    // Remotes keep the descriptors by which they wake.
    drop((listener, loops, storm));
    // Fewer, if a loop has closed what an earlier test's group had left in its table.
    assert!(descriptors() <= before, "{} descriptors, {before} before", descriptors());
}

fn a_full_mailbox_gives_the_connection_back(backend: Backend) {
    let group = group_on(backend, 2);
    let release = fill_mailbox(&group.remote(1));
    let (to, listener) = (group.remote(1), TcpListener::bind("127.0.0.1:0").unwrap());
    let (mut far, near) = (connect(listener.local_addr().unwrap()), listener.accept().unwrap().0);
    far.write_all(b"ping").unwrap();
    let tries = move |fd: io::Result<std::os::fd::OwnedFd>| async move {
        let stream = Stream::from_fd(fd.unwrap()).unwrap();
        let refused = stream.pack().unwrap().send(&to, |_, _| ()).unwrap_err();
        assert_eq!(refused.error.kind(), io::ErrorKind::WouldBlock);
        let mut stream = refused.parcel.unpack(&Handle::current()).unwrap();
        stream.read_with(|bytes, reply| reply.write(bytes)).await.unwrap();
        stream.flush().await.unwrap();
    };
    let arrive = |handle: &Handle, fd| handle.spawn(tries(fd)).detach();
    group.hand_over(0, near.into(), arrive).unwrap();
    let mut pong = [0; 4];
    far.read_exact(&mut pong).unwrap();
    assert_eq!(&pong, b"ping");
    drop(release);
    join(group);
}

/// Echoes, and moves to the other loop when it is told to.
struct Mover {
    to: Remote,
    counter: evenkeel::group::Counter,
}

thread_local! {
    static ECHOES: RefCell<Option<Pool<evenkeel::group::Counted<Echo>>>> = const { RefCell::new(None) };
}

impl Handler for Mover {
    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        if bytes == b"move" {
            let (parcel, counter) = (conn.pack(b"ping").unwrap(), self.counter.clone());
            let arrive = move |handle: &Handle, parcel: Parcel| {
                let new = || handle.pool(Limits::default());
                let pool = ECHOES.with_borrow_mut(|pool| pool.get_or_insert_with(new).clone());
                assert!(pool.unpack(parcel, counter.count(Echo::default())).is_ok());
            };
            parcel.send(&self.to, arrive).unwrap();
        }
    }
}

fn a_moved_connection_counts_where_it_is(backend: Backend) {
    let group = group_on(backend, 2);
    let counter: Arc<Mutex<Option<evenkeel::group::Counter>>> = Arc::default();
    let (to, given) = (group.remote(1), counter.clone());
    let make = move |_: &_, _| {
        let counter = given.lock().unwrap().clone().expect("it is known before the first connection");
        Mover { to: to.clone(), counter }
    };
    let (options, limits) = (ListenOptions::default(), Limits::default());
    let listener = group.listen("127.0.0.1:0", &options, &limits, Share::Acceptor, make).unwrap();
    *counter.lock().unwrap() = Some(listener.counter(1));
    let mut peer = connect(tcp(&listener));
    peer.write_all(b"move").unwrap();
    peer.read_exact(&mut [0; 4]).unwrap();
    settle(&group);
    assert_eq!(connections(&listener), [0, 1]);
    assert_eq!(listener.counts()[1].accepted, 0);
    drop(peer);
    let since = std::time::Instant::now();
    while connections(&listener) != [0, 0] {
        assert!(since.elapsed() < LONG);
        thread::yield_now();
    }
    *counter.lock().unwrap() = None;
    join(group);
}
