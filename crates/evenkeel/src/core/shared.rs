//! What one loop is made of, and the small steps of its turn.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::cork::Cork;
use super::pool::{AnyPool, Event};
use super::source::{Kind, Sources, Token, flag};
use super::watch::Watches;
use crate::backend::{Backend, Driver};
use crate::choice::{Fallback, Started};
use crate::descriptors::Descriptors;
use crate::dns::Names;
use crate::fs::Files;
use crate::handler::CloseReason;
use crate::handover::Post;
use crate::local::Locals;
use crate::net::Limits;
use crate::pool::{WorkPool, Workers};
use crate::remote::Inbox;
use crate::stats::Stats;
use crate::sys::{SocketFile, WakeFn};
use crate::task::Executor;
use crate::time::wheel::{Key, Wheel};

/// Whom a timer is for.
pub(crate) enum Timer {
    Wake(Waker),
    Call(Box<dyn FnOnce()>),
    Notify(Token),
    /// The connection must be established by now.
    Connect(Token),
    /// The closing connection must be flushed by now.
    Deadline(Token),
    /// A listener that had to stop may be tried again.
    Accept(Token),
    /// A watch that had to rest is reported again.
    Watch(Token),
    /// Look over a part of the connections for broken limits.
    Sweep,
}

/// The asynchronous side of a stream, a listener or a watched descriptor.
#[derive(Default)]
pub(crate) struct AsyncIo {
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    /// What went wrong with bytes that had been taken for sending.
    pub(crate) error: Option<std::io::Error>,
    pub(crate) free: u32,
    /// The driver's: where it keeps what it has received ahead of the task, if it does that.
    pub(crate) held: u32,
}

/// The waker of one who listens for signals, shared with the loop.
pub(crate) type SignalWaiter = Rc<Cell<Option<Waker>>>;

/// A listener that accepts for a pool.
pub(crate) struct Listener {
    pub(crate) make: Rc<super::pool::Make>,
    pub(crate) pool: u16,
    /// Its source, once it has one.
    pub(crate) token: Option<Token>,
}

/// State of a loop behind one borrow, which is never held while code of a user runs.
pub(crate) struct Core {
    pub(crate) sources: Sources,
    pub(crate) cork: Cork,
    /// Sources whose budget ended before their bytes did.
    pub(crate) ready: Vec<Token>,
    /// Connections that are owed a call: opened, drained, notified, or with unread bytes.
    pub(crate) pending: Vec<Token>,
    /// Closing connections whose queue may be empty.
    pub(crate) closing: Vec<Token>,
    /// Ended connections that have not been told.
    pub(crate) closed: Vec<(Token, CloseReason)>,
    /// Wakers to be called when nothing is borrowed.
    pub(crate) wakes: Vec<(Token, Waker, bool)>,
    pub(crate) tasks: Vec<AsyncIo>,
    pub(crate) free_task: u32,
    /// The waiting sides of watches.
    pub(crate) watches: Watches,
    pub(crate) listeners: Vec<Option<Listener>>,
    /// Files of Unix sockets that go with their listeners.
    pub(crate) socket_files: Vec<(Token, PathBuf, SocketFile)>,
    pub(crate) deferred: VecDeque<Box<dyn FnOnce()>>,
    pub(crate) wheel: Wheel<Timer>,
    /// Where those who listen for signals leave their wakers; called whenever the loop's wake-up comes, which signals
    /// use.
    pub(crate) signal_waiters: Vec<SignalWaiter>,
    /// Where the next sweep goes on.
    pub(crate) sweep_from: usize,
    /// How often a sweep comes, and the timer of the next; none while no pool has a limit.
    pub(crate) sweep: Option<(Duration, Key)>,
}

/// One loop. `Rc`-shared between the loop itself and every handle of it on its thread.
pub(crate) struct Shared {
    pub(crate) id: u32,
    pub(crate) backend: Backend,
    pub(crate) fallback: Option<Fallback>,
    /// Whose descriptor table its thread has.
    pub(crate) descriptors: Descriptors,
    /// How descriptors come from and go to loops with other tables, if they can.
    pub(crate) post: RefCell<Option<Post>>,
    pub(crate) core: RefCell<Core>,
    pub(crate) pools: RefCell<Vec<Rc<dyn AnyPool>>>,
    pub(crate) driver: Box<dyn Driver>,
    /// The driver lends what it has received; else it receives into the loop's memory.
    pub(crate) lends: bool,
    /// Writes at least this long are the driver's business, whole.
    pub(crate) cork_write: usize,
    /// Made at the first read.
    scratch: Cell<Option<Box<[u8]>>>,
    pub(crate) executor: Executor,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) files: Files,
    pub(crate) locals: Locals,
    /// Threads for names and the user's work, perhaps shared with other loops. None when the loop has ended.
    pub(crate) work_pool: RefCell<Option<WorkPool>>,
    pub(crate) names: Names,
    pub(crate) stats: Stats,
    pub(crate) epoch: Instant,
    /// The clock as read after the last wait, in nanoseconds since the epoch.
    pub(crate) now: Cell<u64>,
    /// The same in milliseconds, wrapping: what sources are stamped with.
    pub(crate) now_ms: Cell<u32>,
    pub(crate) stopping: Cell<bool>,
    pub(crate) running: Cell<bool>,
    pub(crate) ended: Cell<bool>,
}

/// Memory that bytes are received into and lent from: with much less, small reads would cost a system call for each
/// few messages.
const SCRATCH: usize = 64 << 10;
/// Calls of each kind in one turn, so that none keeps the others waiting (I22, I24).
const QUEUED_PER_TURN: usize = 1024;
const TIMERS_PER_TURN: usize = 4096;
/// Task polls between looks at the kernel.
const POLLS_PER_TURN: usize = 256;
/// Nanoseconds of a tick of the timer wheel.
const TICK: u64 = 1_000_000;
/// Parts in which the connections are looked over.
const SWEEP_PARTS: usize = 8;

impl Shared {
    pub(crate) fn new(id: u32, started: Started, descriptors: Descriptors, workers: Workers) -> Rc<Self> {
        let Started { backend, driver, fallback } = started;
        let inbox = Arc::new(Inbox::new(driver.waker()));
        let woken = inbox.clone();
        let notify: WakeFn = Arc::new(move || woken.wake());
        let (epoch, host) = (driver.sys().clock(), driver.sys().stand_in());
        driver.limit_file_threads(workers.file_threads());
        let core = Core {
            sources: Sources::default(),
            cork: Cork::default(),
            ready: Vec::new(),
            pending: Vec::new(),
            closing: Vec::new(),
            closed: Vec::new(),
            wakes: Vec::new(),
            tasks: Vec::new(),
            free_task: u32::MAX,
            watches: Watches::default(),
            listeners: Vec::new(),
            socket_files: Vec::new(),
            deferred: VecDeque::new(),
            wheel: Wheel::new(0),
            signal_waiters: Vec::new(),
            sweep_from: 0,
            sweep: None,
        };
        Rc::new(Shared {
            id,
            backend,
            lends: driver.lends(),
            fallback,
            descriptors,
            post: RefCell::default(),
            cork_write: driver.cork_write(),
            core: RefCell::new(core),
            pools: RefCell::default(),
            driver,
            scratch: Cell::new(None),
            executor: Executor::new(notify.clone()),
            inbox,
            locals: Locals::default(),
            files: Files::new(notify, &workers.options.files, host.clone()),
            names: Names::new(workers.resolver(host.as_deref())),
            work_pool: RefCell::new(Some(workers.pool(host))),
            stats: Stats::default(),
            epoch,
            now: Cell::new(0),
            now_ms: Cell::new(0),
            stopping: Cell::new(false),
            running: Cell::new(false),
            ended: Cell::new(false),
        })
    }

    /// Takes the memory that bytes are received into, for the length of a delivery; a nested reader gets some of its
    /// own.
    #[inline]
    pub(crate) fn take_scratch(&self) -> Box<[u8]> {
        self.scratch.take().unwrap_or_else(new_scratch)
    }

    #[inline]
    pub(crate) fn put_scratch(&self, memory: Box<[u8]>) {
        self.scratch.set(Some(memory));
    }

    // ---- time ----

    /// Reads the clock; called once a turn, after the wait.
    pub(crate) fn tick(&self) {
        let now = self.clock();
        self.now.set(now);
        self.now_ms.set((now / TICK) as u32);
    }

    /// The clock, read afresh, in nanoseconds since the epoch: no loop lives the 584 years that they hold.
    fn clock(&self) -> u64 {
        let since = self.driver.sys().clock().saturating_duration_since(self.epoch);
        since.as_secs() * 1_000_000_000 + u64::from(since.subsec_nanos())
    }

    fn tick_at(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.epoch);
        since.as_secs().saturating_mul(1000).saturating_add(u64::from(since.subsec_nanos()).div_ceil(TICK))
    }

    /// Arms a timer that fires no earlier than `at`.
    pub(crate) fn timer_at(&self, at: Instant, timer: Timer) -> Key {
        let tick = self.tick_at(at);
        self.core.borrow_mut().wheel.insert(tick, timer)
    }

    /// Arms a timer anew for another time. False if it has fired.
    pub(crate) fn rearm(&self, key: Key, at: Instant) -> bool {
        let tick = self.tick_at(at);
        self.core.borrow_mut().wheel.reset(key, tick)
    }

    /// Arms a timer that fires no earlier than `delay` from now; the clock is read afresh.
    pub(crate) fn timer_after(&self, delay: Duration, timer: Timer) -> Key {
        let at = u64::try_from(delay.as_nanos()).ok().and_then(|delay| self.clock().checked_add(delay));
        // Past the end of the clock's range: never.
        let tick = at.map_or(u64::MAX, |at| at.div_ceil(TICK));
        self.core.borrow_mut().wheel.insert(tick, timer)
    }

    /// The turn has done all but wait: what it took is counted. Returns how long the kernel may wait: not at all
    /// if anything is due.
    pub(crate) fn turn_ends(&self) -> Option<Duration> {
        let now = self.clock();
        self.stats.add(&self.stats.turns);
        self.stats.turn_took(now.saturating_sub(self.now.get()));
        let core = self.core.borrow();
        if core.is_owed() || self.executor.has_ready() || self.inbox.calls.is_woken() {
            return Some(Duration::ZERO);
        }
        let next = core.wheel.next_deadline()?;
        Some(Duration::from_nanos(next.saturating_mul(TICK).saturating_sub(now)))
    }

    // ---- the steps of a turn ----

    pub(crate) fn fire_timers(self: &Rc<Self>) {
        let now = self.now.get() / TICK;
        let mut core = self.core.borrow_mut();
        if core.wheel.next_deadline().is_none_or(|next| next > now) {
            return;
        }
        core.wheel.begin_pass(now);
        drop(core);
        for _ in 0..TIMERS_PER_TURN {
            let Some(timer) = self.core.borrow_mut().wheel.pop() else { break };
            self.stats.add(&self.stats.timers);
            match timer {
                Timer::Wake(waker) => self.guard(|| waker.wake()),
                Timer::Call(call) => self.guard(call),
                Timer::Notify(token) => self.notify(token),
                Timer::Connect(token) => self.connect_deadline(token),
                Timer::Deadline(token) => self.flush_deadline(token),
                Timer::Accept(token) => self.driver.retry_accept(self, token),
                Timer::Watch(token) => self.driver.watch_again(self, token),
                Timer::Sweep => self.sweep(),
            }
        }
    }

    /// Runs what was queued: messages from other threads, files' results, deferred calls, calls owed to handlers, tasks.
    pub(crate) fn run_queued(self: &Rc<Self>) {
        if self.inbox.run(self, QUEUED_PER_TURN) {
            self.executor.drain_remote();
            self.files.deliver(self);
        }
        self.run_deferred();
        self.run_pending();
        self.executor.run(POLLS_PER_TURN);
    }

    fn run_deferred(&self) {
        // What these calls defer is for the next turn.
        let calls = self.core.borrow().deferred.len().min(QUEUED_PER_TURN);
        for _ in 0..calls {
            let Some(call) = self.core.borrow_mut().deferred.pop_front() else { break };
            self.guard(call);
        }
    }

    /// Runs a user's call; a panic in it is counted and the loop goes on.
    pub(crate) fn guard(&self, call: impl FnOnce()) {
        if super::caught(call).is_none() {
            self.stats.add(&self.stats.panics);
        }
    }

    /// Calls the wakers that were set aside while the state was borrowed, and keeps each for the next time
    /// unless its task has left another.
    #[inline]
    pub(crate) fn run_wakes(&self) {
        while let Some((token, waker, read)) = {
            let mut core = self.core.borrow_mut();
            core.wakes.pop()
        } {
            self.guard(|| waker.wake_by_ref());
            let mut core = self.core.borrow_mut();
            let core = &mut *core;
            if let Some(s) = core.sources.get(token) {
                let io = &mut core.tasks[s.slot as usize];
                let place = if read { &mut io.reader } else { &mut io.writer };
                if place.is_none() {
                    *place = Some(waker);
                    continue;
                }
            }
            // A waker's drop is the user's code too.
            self.guard(|| drop(waker));
        }
    }

    /// Something woke the loop, perhaps a signal: whoever waits for one looks.
    pub(crate) fn wake_signal_waiters(&self) {
        let waiters = self.core.borrow().signal_waiters.clone();
        for waker in waiters.iter().filter_map(|waiter| waiter.take()) {
            self.guard(|| waker.wake());
        }
    }

    /// Calls handlers that are owed something.
    pub(crate) fn run_pending(self: &Rc<Self>) {
        let mut list = match &mut self.core.borrow_mut().pending {
            none if none.is_empty() => return,
            some => std::mem::take(some),
        };
        for token in list.drain(..) {
            self.owed(token);
        }
        let mut core = self.core.borrow_mut();
        if core.pending.is_empty() {
            core.pending = list;
        }
    }

    fn owed(self: &Rc<Self>, token: Token) {
        const OVER: u32 = flag::CLOSING | flag::DEAD | flag::CONNECTING;
        loop {
            let mut core = self.core.borrow_mut();
            let Some(s) = core.sources.get_mut(token) else { return };
            if s.kind() != Kind::Callback || s.has(OVER) {
                return;
            }
            let (pool, slot) = (s.pool, s.slot);
            let has_unread = s.extra.as_ref().is_some_and(|e| !e.unread.is_empty());
            let event = if !s.has(flag::OPENED) {
                s.set(flag::OPENED);
                Event::Open
            } else if has_unread && !s.has(flag::PAUSED) {
                let extra = s.extra();
                let unread = std::mem::take(&mut extra.unread);
                extra.received += unread.len() as u64;
                if extra.is_idle() {
                    s.extra = None;
                }
                drop(core);
                self.deliver(pool, slot, token, Event::Data(&unread));
                self.delivered(token);
                continue;
            } else if s.has(flag::DRAINED) {
                s.clear(flag::DRAINED);
                Event::Drained
            } else if s.has(flag::NOTIFY) {
                s.clear(flag::NOTIFY);
                drop(core);
                // The last thing owed; a handler that notifies itself is called again in the next turn.
                return self.deliver(pool, slot, token, Event::Notify);
            } else {
                return;
            };
            drop(core);
            self.deliver(pool, slot, token, event);
        }
    }

    /// After a delivery of bytes: the flags, or none if the source has gone.
    #[inline]
    pub(crate) fn delivered(&self, token: Token) -> u32 {
        let mut core = self.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return 0 };
        if s.flags & (flag::MESSAGE | flag::FRAMED) == flag::MESSAGE {
            // The handler does not frame messages, so these bytes were the first one.
            s.clear(flag::MESSAGE);
            s.stamp = self.now_ms.get();
        }
        s.flags
    }

    /// Calls a handler. Nothing may be borrowed.
    #[inline]
    pub(crate) fn deliver(self: &Rc<Self>, pool: u16, slot: u32, token: Token, event: Event<'_>) {
        let pool = self.pools.borrow()[pool as usize].clone();
        pool.dispatch(self, token, slot, event);
    }

    pub(crate) fn pool(&self, place: u16) -> Rc<dyn AnyPool> {
        self.pools.borrow()[place as usize].clone()
    }

    /// A pool, and the sweep that its limits need.
    pub(crate) fn add_pool(&self, pool: Rc<dyn AnyPool>) -> u16 {
        let mut pools = self.pools.borrow_mut();
        let place = u16::try_from(pools.len()).expect("fewer than 65,536 pools");
        let shortest = pool.limits().shortest();
        pools.push(pool);
        drop(pools);
        if let Some(shortest) = shortest {
            let every = (shortest / SWEEP_PARTS as u32 / 8).max(Duration::from_millis(1));
            let sweep = self.core.borrow().sweep;
            if sweep.is_none_or(|(now, _)| every < now) {
                // The next one is further away than this pool's limits can wait.
                if let Some((_, next)) = sweep {
                    self.core.borrow_mut().wheel.cancel(next);
                }
                self.sweep_after(every);
            }
        }
        place
    }

    fn sweep_after(&self, every: Duration) {
        let next = self.timer_after(every, Timer::Sweep);
        self.core.borrow_mut().sweep = Some((every, next));
    }

    /// Looks over one part of the connections for limits that are broken. A whole pass takes an eighth of the
    /// shortest limit.
    fn sweep(&self) {
        let core = self.core.borrow();
        let Some((every, _)) = core.sweep else { return };
        let (from, capacity) = (core.sweep_from, core.sources.capacity());
        drop(core);
        let end = capacity.min(from + capacity.div_ceil(SWEEP_PARTS).max(1));
        let pools: Vec<_> = self.pools.borrow().clone();
        let now = self.now_ms.get();
        for at in from..end {
            let mut core = self.core.borrow_mut();
            let Some((token, s)) = core.sources.at(at) else { continue };
            if s.kind() != Kind::Callback || s.has(flag::DEAD | flag::CONNECTING) {
                continue;
            }
            let broken = broken_limit(s, pools[s.pool as usize].limits(), now);
            drop(core);
            if let Some(reason) = broken {
                self.abort(token, reason);
            }
        }
        self.core.borrow_mut().sweep_from = if end >= capacity { 0 } else { end };
        self.sweep_after(every);
    }
}

impl Core {
    /// Something is to be done before the kernel is waited for.
    pub(crate) fn is_owed(&self) -> bool {
        let calls = !self.pending.is_empty() || !self.deferred.is_empty() || !self.ready.is_empty();
        calls || !self.closed.is_empty() || !self.closing.is_empty() || !self.wakes.is_empty()
    }

    /// Puts a source on the ready list, once: it is served again in the next turn.
    pub(crate) fn list(&mut self, token: Token) {
        if let Some(s) = self.sources.get_mut(token).filter(|s| !s.has(flag::LISTED)) {
            s.set(flag::LISTED);
            self.ready.push(token);
        }
    }
}

#[cold]
fn new_scratch() -> Box<[u8]> {
    vec![0; SCRATCH].into_boxed_slice()
}

/// The limit that a connection has broken, if any.
fn broken_limit(s: &super::Source, limits: &Limits, now: u32) -> Option<CloseReason> {
    let past = |since: u32, limit: Option<Duration>| {
        limit.is_some_and(|limit| u128::from(now.wrapping_sub(since)) > limit.as_millis())
    };
    if let Some(extra) = &s.extra
        && extra.oldest().is_some_and(|since| past(since, limits.max_queue_age))
    {
        return Some(CloseReason::QueueStalled);
    }
    if s.has(flag::CLOSING) {
        return None;
    }
    if !s.has(flag::MESSAGE) {
        return past(s.stamp, limits.idle_timeout).then_some(CloseReason::IdleTimeout);
    }
    if past(s.stamp, limits.message_deadline) {
        return Some(CloseReason::MessageTimeout);
    }
    let extra = s.extra.as_ref().filter(|e| e.counting)?;
    let age = u64::from(now.wrapping_sub(s.stamp));
    let slow =
        past(s.stamp, Some(limits.rate_grace)) && extra.received * 1000 < u64::from(limits.min_rate) * age;
    slow.then_some(CloseReason::TooSlow)
}
