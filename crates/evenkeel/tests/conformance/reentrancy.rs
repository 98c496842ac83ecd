//! Any part of the API from any callback; and loops beside and inside each other.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use evenkeel::net::{ConnectOptions, Pool, SocketOption, Stream};
use evenkeel::sim::blocking::TcpStream;
use evenkeel::sim::is_simulated;
use evenkeel::{Backend, CloseReason, Conn, ConnId, Handle, Handler, Message};

use crate::support::{Probe, Server, broken, connect, event_loop, exactly, no_limits, reset_on_close, until};

on_every_kernel! {
    i37_any_part_of_the_api_from_any_callback,
    i37_no_call_is_made_inside_another,
    i37_a_handler_that_notifies_itself_starves_nobody,
    several_notifications_are_one,
    another_loop_can_be_run_inside_a_handler,
    two_loops_take_turns_on_one_thread,
    a_loop_can_be_dropped_inside_a_handler_of_another,
    the_current_loop_is_the_one_that_runs,
}

/// Whatever a call does, what comes of it is called after it: calls of handlers, timers, deferred calls, tasks, and wakers.
fn i37_no_call_is_made_inside_another(backend: Backend) {
    let mut s = Server::new(backend);
    let inside = Rc::new(Cell::new(false));
    let calls = Rc::new(Cell::new(0));
    let enter = |what: &'static str| {
        let (inside, calls) = (inside.clone(), calls.clone());
        move || {
            if inside.replace(true) {
                broken(format!("{what} came inside another call"));
            }
            calls.set(calls.get() + 1);
        }
    };
    let leave = inside.clone();
    let quiet = |what| {
        let (enter, leave) = (enter(what), inside.clone());
        move || {
            enter();
            leave.set(false);
        }
    };
    let (closes, notified) = (quiet("on_close"), quiet("on_notify"));
    let (mut gone, other) =
        s.pair(Probe::new().on_close(move |_, _| closes()).on_notify(move |_| notified()));
    let (timer, deferred, task, remote) =
        (quiet("a timer"), quiet("a deferred call"), quiet("a task"), s.h.remote());
    let (refused, made, pool, to) = (quiet("a refusal"), quiet("on_open"), s.pool.clone(), s.addr);
    let (_kept, nobody) = crate::connecting::closed_port();
    let acts = RefCell::new(Some((timer, deferred, task, refused, made)));
    let begin = enter("on_data");
    let (mut peer, seen) = s.pair(Probe::new().on_data(move |conn, _| {
        begin();
        let h = conn.handle();
        let Some((timer, deferred, task, refused, made)) = acts.take() else { return leave.set(false) };
        h.after(Duration::ZERO, timer);
        h.defer(deferred);
        h.spawn(async move { task() }).detach();
        remote.run(|_| ()).unwrap();
        pool.connect(nobody, &ConnectOptions::default(), Probe::new().on_close(move |_, _| refused()))
            .unwrap();
        pool.connect(to, &ConnectOptions::default(), Probe::new().on_open(move |_| made())).unwrap();
        h.notify(other.id()).unwrap();
        h.write(other.id(), &[7; 100_000]).unwrap();
        h.flush();
        h.abort(other.id()).unwrap();
        conn.write(&[7; 100_000]);
        conn.pause();
        conn.resume();
        h.flush();
        leave.set(false);
    }));
    peer.write_all(b"go").unwrap();
    // All but the notification, whose connection is over by then.
    s.until("everything was called", || calls.get() == 7);
    assert_eq!((seen.len(), s.h.stats().panics), (2, 0));
    let _ = gone.read(&mut [0; 8]);
}

fn i37_a_handler_that_notifies_itself_starves_nobody(backend: Backend) {
    let mut s = Server::new(backend);
    let (_peer, seen) = s.pair(Probe::new().on_notify(|conn| conn.handle().notify(conn.id()).unwrap()));
    let (mut other, _) = s.pair(Probe::echo());
    s.h.notify(seen.id()).unwrap();
    s.turns(10);
    assert!((5..=11).contains(&seen.notified.get()), "{} calls in 10 turns", seen.notified.get());
    s.serve(move |_| {
        other.write_all(b"ping").unwrap();
        assert_eq!(exactly(&mut other, 4), b"ping");
    });
}

fn several_notifications_are_one(backend: Backend) {
    let mut s = Server::new(backend);
    let (_peer, seen) = s.pair(Probe::new());
    (0..10).for_each(|_| s.h.notify(seen.id()).unwrap());
    s.turns(3);
    assert_eq!(seen.notified.get(), 1);
    s.h.pause(seen.id()).unwrap();
    s.h.notify(seen.id()).unwrap();
    s.turns(3);
    assert_eq!(seen.notified.get(), 2, "a pause is about bytes only");
}

fn another_loop_can_be_run_inside_a_handler(backend: Backend) {
    let mut s = Server::new(backend);
    let (mut peer, seen) = s.pair(Probe::new().on_data(move |conn, bytes| {
        let outer = conn.handle();
        let mut inner = event_loop(backend);
        let bytes = bytes.to_vec();
        let answer = inner.block_on(async move {
            assert_ne!(Handle::current().stats().sources, outer.stats().sources);
            evenkeel::time::sleep(Duration::from_millis(1)).await;
            evenkeel::spawn(async move { bytes.to_ascii_uppercase() }).await.unwrap()
        });
        conn.write(&answer.unwrap());
        assert!(
            Handle::try_current().is_some_and(|h| h.is_open(conn.id())),
            "the outer one is current again"
        );
    }));
    peer.write_all(b"shout").unwrap();
    s.until("it was heard", || seen.len() == 5);
    s.turns(2);
    assert_eq!((exactly(&mut peer, 5), s.h.stats().panics), (b"SHOUT".to_vec(), 0));
}

fn two_loops_take_turns_on_one_thread(backend: Backend) {
    let (mut a, mut b) = (Server::new(backend), Server::new(backend));
    let (seen_a, seen_b) = (a.expect(Probe::echo()), b.expect(Probe::echo()));
    let (mut to_a, mut to_b) = (connect(a.addr), connect(b.addr));
    to_a.write_all(b"a").unwrap();
    to_b.write_all(b"b").unwrap();
    while seen_a.len() + seen_b.len() < 2 {
        a.turns(1);
        b.turns(1);
    }
    a.turns(1);
    b.turns(1);
    assert_eq!((exactly(&mut to_a, 1), exactly(&mut to_b, 1)), (b"a".to_vec(), b"b".to_vec()));
    // A task of one waits for a task of the other, which is polled by its own loop only.
    let task = a.h.spawn(async {
        evenkeel::task::yield_now().await;
        5
    });
    let waiting = b.h.spawn(task);
    while !waiting.is_finished() {
        b.turns(1);
        a.turns(1);
    }
}

fn a_loop_can_be_dropped_inside_a_handler_of_another(backend: Backend) {
    let mut s = Server::new(backend);
    let mut other = Server::new(backend);
    let (_inner_peer, inner) = other.pair(Probe::new());
    let slot = RefCell::new(Some(other));
    let (mut peer, seen) = s.pair(Probe::new().on_data(move |_, _| drop(slot.take())));
    peer.write_all(b"x").unwrap();
    s.until("it was heard", || seen.len() == 1);
    assert_eq!((inner.why(), s.h.stats().panics), ("loop ended", 0));
}

fn the_current_loop_is_the_one_that_runs(backend: Backend) {
    let mut events = event_loop(backend);
    assert!(Handle::try_current().is_none());
    let listener = events.handle().listen("127.0.0.1:0", |_| Probe::new()).unwrap();
    let found = events.block_on(async move { Handle::current().listener_addr(listener).is_ok() });
    assert!(found.unwrap() && Handle::try_current().is_none());
    assert!(std::panic::catch_unwind(Handle::current).is_err());
}

// ---- random programs ----

/// What all handlers of one random program share.
struct World {
    rng: RefCell<fastrand::Rng>,
    h: Handle,
    pool: Pool<Random>,
    at: SocketAddr,
    /// Ids of connections, most of them stale.
    ids: RefCell<Vec<ConnId>>,
    streams: RefCell<VecDeque<Stream>>,
    alive: Cell<i64>,
    /// Actions left: the program ends.
    fuel: Cell<u32>,
    log: RefCell<Vec<String>>,
    /// Whether callbacks panic now and then, and how often they did.
    panicky: bool,
    panicked: Cell<u64>,
}

struct Random {
    world: Rc<World>,
    own: Cell<Option<ConnId>>,
    opened: bool,
    closed: bool,
}

impl Random {
    fn new(world: &Rc<World>) -> Self {
        world.alive.set(world.alive.get() + 1);
        Random { world: world.clone(), own: Cell::new(None), opened: false, closed: false }
    }

    fn call(&mut self, name: &str, conn: &mut Conn<'_>) {
        let live = conn.handle().is_open(conn.id());
        if self.closed || !live || self.opened == (name == "open") {
            self.world.log.borrow_mut().push(format!("{name} of {:?}, open: {live}", self.own));
        }
        self.opened = true;
        self.own.set(Some(conn.id()));
        if name == "open" {
            self.world.ids.borrow_mut().push(conn.id());
        }
        let actions = self.world.rng.borrow_mut().u8(0..3);
        for _ in 0..actions {
            act(&self.world, Some(conn));
        }
    }
}

impl Handler for Random {
    fn on_open(&mut self, conn: &mut Conn<'_>) {
        self.call("open", conn);
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, _: &[u8]) {
        self.call("data", conn);
    }

    fn on_eof(&mut self, conn: &mut Conn<'_>) {
        self.call("eof", conn);
        if self.world.rng.borrow_mut().bool() {
            conn.close();
        }
    }

    fn on_drained(&mut self, conn: &mut Conn<'_>) {
        self.call("drained", conn);
    }

    fn on_notify(&mut self, conn: &mut Conn<'_>) {
        self.call("notify", conn);
    }

    fn on_close(&mut self, _: ConnId, _: &CloseReason) {
        if self.closed {
            self.world.log.borrow_mut().push("closed twice".into());
        }
        self.closed = true;
        act(&self.world, None);
    }
}

impl Drop for Random {
    fn drop(&mut self) {
        self.world.alive.set(self.world.alive.get() - 1);
        act(&self.world, None);
    }
}

/// Does something, anything, with the loop.
fn act(world: &Rc<World>, conn: Option<&mut Conn<'_>>) {
    if world.fuel.get() == 0 {
        return;
    }
    world.fuel.set(world.fuel.get() - 1);
    let (kind, size) = {
        let mut rng = world.rng.borrow_mut();
        let most = [10, 600, 30_000, 300_000][rng.usize(..4)];
        (rng.u32(..26), rng.usize(..most))
    };
    let any = || {
        let ids = world.ids.borrow();
        (!ids.is_empty()).then(|| ids[world.rng.borrow_mut().usize(..ids.len())])
    };
    if conn.is_some() && world.panicky && size % 25 == 7 {
        world.panicked.set(world.panicked.get() + 1);
        panic!("as the test wants it");
    }
    if let Some(conn) = conn
        && kind < 13
    {
        return act_on(world, conn, kind, size);
    }
    let Some(id) = any() else { return };
    act_elsewhere(world, id, kind, size);
}

/// Does something with the connection that is being called.
fn act_on(world: &World, conn: &mut Conn<'_>, kind: u32, size: usize) {
    match kind {
        0 | 1 => drop(conn.write(&vec![1; size])),
        2 => drop(conn.send(&Message::from(vec![2; size]))),
        3 => conn.pause(),
        4 => conn.resume(),
        5 if size.is_multiple_of(4) => conn.close(),
        6 if size.is_multiple_of(4) => conn.abort(),
        7 => conn.shutdown_write(),
        8 => conn.notify_after(Duration::from_micros(size as u64)),
        9 => conn.message_started(),
        10 => conn.message_done(),
        11 => {
            if let Some(stream) = conn.detach(b"given back") {
                world.streams.borrow_mut().push_back(stream);
            }
        }
        _ => drop(conn.set_option(SocketOption::NoDelay(true))),
    }
}

/// Does something with any connection, or with the loop.
fn act_elsewhere(world: &Rc<World>, id: ConnId, kind: u32, size: usize) {
    let (h, w) = (&world.h, world.clone());
    match kind % 13 {
        0 => drop(h.write(id, &vec![3; size])),
        1 => drop(h.send(id, &Message::from(vec![4; size]))),
        2 => drop(h.pause(id)),
        3 => drop(h.resume(id)),
        4 => drop(h.close(id)),
        5 => drop(h.abort(id)),
        6 => drop(h.notify(id)),
        7 => h.defer(move || act(&w, None)),
        8 => drop(h.after(Duration::from_micros(size as u64), move || act(&w, None))),
        9 => {
            h.spawn(async move {
                evenkeel::task::yield_now().await;
                act(&w, None);
            })
            .detach();
        }
        10 => {
            let handler = Random::new(world);
            drop(world.pool.connect(world.at, &ConnectOptions::default(), handler));
        }
        11 => {
            let stream = world.streams.borrow_mut().pop_front();
            if let Some(stream) = stream {
                drop(world.pool.adopt(stream, Random::new(world), b"unread"));
            }
        }
        _ => {
            let stream = world.streams.borrow_mut().pop_front();
            let Some(mut stream) = stream else { return };
            h.spawn(async move {
                let _ = evenkeel::time::timeout(Duration::from_millis(1), stream.read(&mut [0; 100])).await;
                act(&w, None);
                let _ = stream.write(&[5; 1000]).await;
                stream.send(&Message::from("from a task"));
                act(&w, None);
            })
            .detach();
        }
    }
}

/// Peers connect, send, read, half-close and reset while the loop turns.
fn meddle(events: &mut evenkeel::EventLoop, w: &Rc<World>) -> Vec<TcpStream> {
    let mut peers: Vec<TcpStream> = Vec::new();
    for _ in 0..400 {
        let what = w.rng.borrow_mut().u8(..12);
        match what {
            0 | 1 if peers.len() < 20 => {
                let peer = connect(w.at);
                peer.set_nonblocking(true).unwrap();
                peers.push(peer);
            }
            2 if !peers.is_empty() => {
                let at = w.rng.borrow_mut().usize(..peers.len());
                let peer = peers.swap_remove(at);
                if w.rng.borrow_mut().bool() {
                    reset_on_close(&peer);
                }
            }
            3 if !peers.is_empty() => {
                let _ = peers[0].shutdown(Shutdown::Write);
                peers.rotate_left(1);
            }
            4 => act(w, None),
            5..=8 => {
                for mut peer in &peers {
                    let _ = peer.write(&[6; 3000]);
                }
            }
            _ => {
                for mut peer in &peers {
                    let _ = peer.read(&mut [0; 70_000]);
                }
            }
        }
        events.poll().unwrap();
    }
    peers
}

fn random_program(backend: Backend, seed: u64) {
    let mut events = event_loop(backend);
    let h = events.handle();
    let mut limits = no_limits();
    limits.close_deadline = Duration::from_millis(20);
    limits.max_queue_bytes = 1 << 20;
    let pool: Pool<Random> = h.pool(limits);
    let world: Rc<RefCell<Option<Rc<World>>>> = Rc::default();
    let later = world.clone();
    let make = move |_: &_| Random::new(later.borrow().as_ref().unwrap());
    let listener = pool.listen("127.0.0.1:0", &Default::default(), make).unwrap();
    let at = h.listener_addr(listener).unwrap().socket_addr().unwrap();
    let w = Rc::new(World {
        rng: RefCell::new(fastrand::Rng::with_seed(seed)),
        h: h.clone(),
        pool: pool.clone(),
        at,
        ids: RefCell::default(),
        streams: RefCell::default(),
        alive: Cell::new(0),
        fuel: Cell::new(1500),
        log: RefCell::default(),
        panicky: seed % 2 == 1,
        panicked: Cell::new(0),
    });
    *world.borrow_mut() = Some(w.clone());
    let peers = meddle(&mut events, &w);
    // Everything comes to an end: no program leaves a connection, a task or a timer of its own behind.
    w.fuel.set(0);
    drop(peers);
    h.close_listener(listener);
    let state = || (pool.len(), h.stats().tasks, h.stats().sources, w.alive.get());
    until(&mut events, &format!("everything of seed {seed} has ended"), || {
        drop(w.streams.take());
        let ids = w.ids.borrow().clone();
        for id in ids {
            let _ = h.abort(id);
        }
        state() == (0, 0, 0, 0)
    });
    assert_eq!(h.stats().panics, w.panicked.get(), "seed {seed}");
    assert!(w.log.borrow().is_empty(), "seed {seed}: {:#?}", w.log);
    world.take();
}

fn i37_any_part_of_the_api_from_any_callback(backend: Backend) {
    // Worlds of random programs have a test of their own.
    for seed in 0..if is_simulated() { 4 } else { 12 } {
        random_program(backend, seed);
    }
}
