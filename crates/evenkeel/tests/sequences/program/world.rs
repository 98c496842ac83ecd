//! What all parts of a program share, and what must hold of it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::task::Waker;
use std::time::Duration;

use evenkeel::net::{Addr, Limits, ListenOptions, ListenerId, Parcel, Pool, Stream};
use evenkeel::task::JoinHandle;
use evenkeel::{ConnId, Handle, TimerId};

use super::actor::Actor;
use super::tape::Tape;

/// How deep destructors may act inside of one another.
const DEEPEST: usize = 16;
/// Of each kind of thing, how many are kept.
const MOST_KEPT: usize = 32;

thread_local! {
    /// For what has no reference of its own: wakers, which other threads may have.
    static CURRENT: RefCell<Weak<World>> = const { RefCell::new(Weak::new()) };
}

/// The payload of a panic that a program plans.
pub struct Planned;

/// Whether a panic was planned, for hooks that are not to tell of it.
pub fn is_planned(payload: &dyn std::any::Any) -> bool {
    payload.is::<Planned>()
}

/// What a callback connection may hear.
#[derive(Clone, Copy, Debug, Default)]
pub struct Life {
    pub paused: bool,
    /// The peer has ended its half.
    pub ended: bool,
    pub closing: bool,
}

pub struct World {
    pub tape: Tape,
    pub h: Handle,
    pub pool: Pool<Actor>,
    /// Where to listen, and where that turned out to be.
    at: Addr,
    address: RefCell<Addr>,
    listeners: RefCell<Vec<ListenerId>>,
    /// Ids of connections, most of them stale.
    ids: RefCell<Vec<ConnId>>,
    lives: RefCell<HashMap<ConnId, Life>>,
    streams: RefCell<Vec<Stream>>,
    parcels: RefCell<Vec<Parcel>>,
    timers: RefCell<Vec<TimerId>>,
    pub joins: RefCell<Vec<JoinHandle<()>>>,
    pub wakers: RefCell<Vec<Waker>>,
    /// Handlers that live, and that ever lived.
    alive: Cell<usize>,
    made: Cell<usize>,
    /// What is running: a callback, a task, a deferred call. Destructors run inside of others.
    running: Cell<Option<&'static str>>,
    pub depth: Cell<usize>,
    pub inside: Cell<usize>,
    /// Panics that the loop must count, and those that may go to a join handle instead.
    certain: Cell<u64>,
    possible: Cell<u64>,
    broken: RefCell<Vec<String>>,
}

impl World {
    pub fn new(h: &Handle, at: &Addr, tape: Tape) -> Rc<Self> {
        let world = Rc::new(World {
            tape,
            h: h.clone(),
            pool: h.pool(limits()),
            at: at.clone(),
            address: RefCell::new(at.clone()),
            listeners: RefCell::default(),
            ids: RefCell::default(),
            lives: RefCell::default(),
            streams: RefCell::default(),
            parcels: RefCell::default(),
            timers: RefCell::default(),
            joins: RefCell::default(),
            wakers: RefCell::default(),
            alive: Cell::new(0),
            made: Cell::new(0),
            running: Cell::new(None),
            depth: Cell::new(0),
            inside: Cell::new(0),
            certain: Cell::new(0),
            possible: Cell::new(0),
            broken: RefCell::default(),
        });
        CURRENT.with_borrow_mut(|current| *current = Rc::downgrade(&world));
        world
    }

    pub fn current() -> Option<Rc<World>> {
        CURRENT.try_with(|current| current.borrow().upgrade()).ok().flatten()
    }

    // ---- what must hold ----

    pub fn broke(&self, what: String) {
        self.broken.borrow_mut().push(what);
    }

    pub fn broken(&self) -> Vec<String> {
        self.broken.borrow().clone()
    }

    /// Runs what the loop calls; it must not be called inside of something else that it calls.
    pub fn enter<R>(&self, what: &'static str, call: impl FnOnce() -> R) -> R {
        struct Leave<'a>(&'a Cell<Option<&'static str>>, Option<&'static str>);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.set(self.1);
            }
        }
        let outer = self.running.replace(Some(what));
        if let Some(outer) = outer {
            self.broke(format!("{what} is called inside {outer}"));
        }
        let _leave = Leave(&self.running, outer);
        call()
    }

    /// Goes one level deeper, unless that is too deep.
    pub fn deeper(&self) -> bool {
        let fits = self.depth.get() < DEEPEST;
        if fits {
            self.depth.set(self.depth.get() + 1);
        }
        fits
    }

    /// Panics, as the program wants it. `certain`: the loop itself must count it.
    pub fn panics(&self, certain: bool) -> ! {
        let count = if certain { &self.certain } else { &self.possible };
        count.set(count.get() + 1);
        std::panic::panic_any(Planned)
    }

    pub fn planned_panics(&self) -> (u64, u64) {
        (self.certain.get(), self.certain.get() + self.possible.get())
    }

    // ---- handlers ----

    pub fn born(&self) {
        self.alive.set(self.alive.get() + 1);
        self.made.set(self.made.get() + 1);
    }

    pub fn died(&self) {
        self.alive.set(self.alive.get() - 1);
    }

    pub fn actors(&self) -> usize {
        self.made.get()
    }

    pub fn change(&self, id: ConnId, change: impl FnOnce(&mut Life)) {
        change(self.lives.borrow_mut().entry(id).or_default());
    }

    pub fn life(&self, id: ConnId) -> Life {
        self.lives.borrow().get(&id).copied().unwrap_or_default()
    }

    pub fn know(&self, id: ConnId) {
        let mut ids = self.ids.borrow_mut();
        if !ids.contains(&id) {
            ids.push(id);
        }
    }

    /// Any connection that there was.
    pub fn any_id(&self) -> Option<ConnId> {
        let ids = self.ids.borrow();
        (!ids.is_empty()).then(|| ids[self.tape.below(ids.len())])
    }

    // ---- things that are kept for later ----

    pub fn listen(self: &Rc<Self>) {
        if self.listeners.borrow().len() >= 2 {
            return;
        }
        let world = Rc::downgrade(self);
        let make = move |_: &Addr| Actor::new(&world.upgrade().expect("the program outlives its listeners"));
        // There may be one already.
        let Ok(listener) = self.pool.listen(self.at.clone(), &ListenOptions::default(), make) else { return };
        if let Ok(address) = self.h.listener_addr(listener) {
            self.address.replace(address);
        }
        self.listeners.borrow_mut().push(listener);
    }

    /// Where whoever connects is heard, if anywhere.
    pub fn address(&self) -> Addr {
        self.address.borrow().clone()
    }

    pub fn take_listener(&self) -> Option<ListenerId> {
        self.listeners.borrow_mut().pop()
    }

    pub fn keep_stream(&self, stream: Stream) {
        let full = self.streams.borrow().len() >= MOST_KEPT;
        // Dropped outside of the borrow.
        if !full {
            self.streams.borrow_mut().push(stream);
        }
    }

    pub fn take_stream(&self) -> Option<Stream> {
        take(&self.streams, &self.tape)
    }

    pub fn keep_parcel(&self, parcel: Parcel) {
        let full = self.parcels.borrow().len() >= MOST_KEPT;
        if !full {
            self.parcels.borrow_mut().push(parcel);
        }
    }

    pub fn take_parcel(&self) -> Option<Parcel> {
        take(&self.parcels, &self.tape)
    }

    pub fn keep_timer(&self, timer: TimerId) {
        self.timers.borrow_mut().push(timer);
    }

    pub fn any_timer(&self) -> Option<TimerId> {
        let timers = self.timers.borrow();
        (!timers.is_empty()).then(|| timers[self.tape.below(timers.len())])
    }

    pub fn take_join(&self) -> Option<JoinHandle<()>> {
        take(&self.joins, &self.tape)
    }

    pub fn take_waker(&self) -> Option<Waker> {
        take(&self.wakers, &self.tape)
    }

    // ---- the end ----

    /// Gives up all that the program has.
    pub fn let_go(&self) {
        // A stream that is dropped would wait for its peer, which may be as patient.
        self.streams.take().into_iter().for_each(Stream::abort);
        drop(self.parcels.take());
        drop(self.wakers.take());
        for timer in self.timers.take() {
            self.h.cancel(timer);
        }
        for join in self.joins.take() {
            join.abort();
        }
        for listener in self.listeners.take() {
            self.h.close_listener(listener);
        }
        for id in self.ids.borrow().clone() {
            let _ = self.h.abort(id);
        }
    }

    pub fn is_over(&self) -> bool {
        let stats = self.h.stats();
        (self.pool.len(), stats.tasks, stats.sources, self.alive.get()) == (0, 0, 0, 0)
    }

    pub fn what_is_left(&self) -> String {
        let stats = self.h.stats();
        let (pool, alive) = (self.pool.len(), self.alive.get());
        format!(
            "{pool} connections, {} tasks, {} sources, {alive} handlers; broken: {:?}",
            stats.tasks,
            stats.sources,
            self.broken()
        )
    }

    /// The loop has ended: everything is an answer.
    pub fn after_the_end(self: &Rc<Self>) {
        for id in self.ids.borrow().clone() {
            let gone = self.h.write(id, b"x").is_err() && self.h.close(id).is_err() && !self.h.is_open(id);
            if !gone {
                self.broke(format!("{id:?} is open after the loop's end"));
            }
        }
        self.h.defer(|| panic!("a call that was deferred after the loop's end is run"));
        let timer = self.h.after(Duration::ZERO, || panic!("a timer of after the loop's end fires"));
        self.h.cancel(timer);
        if self.pool.listen(self.at.clone(), &ListenOptions::default(), |_| unreachable!()).is_ok() {
            self.broke("a loop that has ended listens".into());
        }
        self.h.stop();
        self.h.flush();
        self.let_go();
    }

    /// Nothing of the program is left.
    pub fn take_leave(&self) {
        self.let_go();
        if self.alive.get() > 0 {
            self.broke(format!("{} handlers have outlived the loop", self.alive.get()));
        }
        CURRENT.with_borrow_mut(|current| *current = Weak::new());
    }
}

fn take<T>(from: &RefCell<Vec<T>>, tape: &Tape) -> Option<T> {
    let mut all = from.borrow_mut();
    if all.is_empty() {
        return None;
    }
    let at = tape.below(all.len());
    Some(all.swap_remove(at))
}

/// Limits that little is needed to pass, and no times but a short one for closing.
fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.idle_timeout = None;
    limits.message_deadline = None;
    limits.min_rate = 0;
    limits.max_queue_age = None;
    limits.high_watermark = 20_000;
    limits.low_watermark = 5_000;
    limits.max_queue_bytes = 200_000;
    limits.max_queue_messages = 40;
    limits.close_deadline = Duration::from_millis(5);
    limits.max_connections = Some(24);
    limits
}
