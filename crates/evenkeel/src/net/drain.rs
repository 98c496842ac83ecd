//! Draining: a server stops without throwing its clients out at once, and without their all coming back at once.

use std::cell::Cell;
use std::ops::{Add, AddAssign};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Closing, Pool};
use crate::core::pool::Event;
use crate::core::{Kind, Shared, Token, flag};
use crate::handle::Handle;
use crate::handler::{CloseReason, Handler};
use crate::{task, time};

/// How often a drain looks whether all is over.
const LOOK: Duration = Duration::from_millis(20);
/// A listener without a queue is closed by then.
const SOON: Duration = Duration::from_millis(1);
/// Handlers that are told in one step, so that other work of the loop comes in between.
const TOLD_AT_ONCE: usize = 256;

/// How connections are to end, by [`Pool::drain`], [`Handle::drain`] or [`Group::drain`](crate::group::Group::drain).
///
/// A server that is stopped or replaced has connections that are in the middle of something, and idle ones whose clients will
/// reconnect the moment they are closed: thousands of them at the same time, to whoever serves next. A drain takes time for
/// both. It closes the listeners, tells every connection by [`Handler::on_drain`](crate::Handler::on_drain), lets them
/// finish by themselves for a while, and then closes the rest one after another, spread evenly over a time, in random order
/// and with jitter.
///
/// ```
/// use evenkeel::net::{Closing, Drain, Limits, ListenOptions};
/// use evenkeel::{Conn, EventLoop, Handler};
/// use std::time::Duration;
///
/// struct Echo;
/// impl Handler for Echo {
///     fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
///         conn.write(bytes);
///     }
///     fn on_drain(&mut self, conn: &mut Conn<'_>) {
///         // Nothing is in the middle of anything here.
///         conn.close();
///     }
/// }
///
/// let mut events = EventLoop::new()?;
/// let pool = events.handle().pool(Limits::default());
/// pool.listen("127.0.0.1:0", &ListenOptions::default(), |_| Echo)?;
/// let random = 0x2545_f491_4f6c_dd1d;
/// let mut drain = Drain::new(random);
/// drain.listeners = Closing::Drained;
/// drain.grace = Duration::from_secs(5);
/// let outcome = events.block_on(pool.drain(&drain))?;
/// assert_eq!(outcome.forced, 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Drain {
    /// How the listeners close. Default [`Closing::Drained`]; with a successor, [`Closing::HandedOver`].
    pub listeners: Closing,
    /// How long connections have to finish by themselves. Default 10 s.
    pub grace: Duration,
    /// Over which time those that have not are closed. Default 10 s.
    pub spread: Duration,
    /// How long the last ones have for what is queued for them. Those with a rest are reset then. Default 5 s.
    pub flush: Duration,
    /// Where the jitter and the order come from.
    seed: u64,
}

impl Drain {
    /// The defaults, with `seed` as the source of the order and of the jitter: a random number.
    pub fn new(seed: u64) -> Self {
        let seconds = Duration::from_secs;
        Drain {
            listeners: Closing::Drained,
            grace: seconds(10),
            spread: seconds(10),
            flush: seconds(5),
            seed,
        }
    }

    /// The same for another loop: in another order.
    pub(crate) fn of_loop(&self, index: usize) -> Self {
        let mut random = Random(self.seed.wrapping_add(index as u64));
        Drain { seed: random.next(), ..self.clone() }
    }
}

/// How connections have ended. Those that became streams are not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// By themselves, whether their peer ended them or this side did.
    pub finished: usize,
    /// Closed by the drain, with all that was queued for them sent: [`CloseReason::Draining`].
    pub closed: usize,
    /// Closed by the drain, with a rest that was lost.
    pub forced: usize,
}

impl Add for Drained {
    type Output = Drained;

    fn add(self, other: Drained) -> Drained {
        Drained {
            finished: self.finished + other.finished,
            closed: self.closed + other.closed,
            forced: self.forced + other.forced,
        }
    }
}

impl AddAssign for Drained {
    fn add_assign(&mut self, other: Drained) {
        *self = *self + other;
    }
}

/// What a pool knows of its drain.
#[derive(Default)]
pub(crate) struct Draining {
    begun: Cell<bool>,
    counts: Cell<Drained>,
}

impl Draining {
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.get()
    }

    fn begin(&self) {
        self.begun.set(true);
        self.counts.take();
    }

    /// A connection of the pool is over.
    pub(crate) fn ended(&self, by_drain: bool, reason: &CloseReason) {
        if !self.begun.get() {
            return;
        }
        let mut counts = self.counts.get();
        *match reason {
            CloseReason::Draining => &mut counts.closed,
            _ if by_drain => &mut counts.forced,
            _ => &mut counts.finished,
        } += 1;
        self.counts.set(counts);
    }
}

impl<H: Handler> Pool<H> {
    /// Closes the pool's listeners and then its connections, as `drain` says, and returns how they ended. A connection that is
    /// accepted meanwhile, out of a listener's queue, is treated like the others.
    ///
    /// Dropping the future leaves the connections alone that it has not closed yet.
    ///
    /// # Panics
    /// When another loop than the pool's runs it.
    pub async fn drain(&self, drain: &Drain) -> Drained {
        run(&self.shared, vec![self.typed.place.get()], drain).await
    }
}

impl Handle {
    /// Closes all listeners of callback connections and then these connections, of all pools, as `drain` says, and returns how
    /// they ended. Otherwise as [`Pool::drain`]. Listeners and streams of tasks are their tasks' to end.
    ///
    /// # Panics
    /// When another loop runs it.
    pub async fn drain(&self, drain: &Drain) -> Drained {
        let pools = 0..self.shared.pools.borrow().len();
        run(&self.shared, pools.map(|place| place as u16).collect(), drain).await
    }

    /// Closes all listeners of callback connections, and returns when they are closed.
    pub(crate) async fn stop_listening(&self, closing: Closing) {
        let stop = |of: &mut Vec<Token>| {
            let core = self.shared.core.borrow();
            of.clear();
            of.extend(core.listeners.iter().flatten().filter_map(|listener| listener.token));
        };
        let mut tokens = Vec::new();
        stop(&mut tokens);
        let mut pause = SOON;
        while !tokens.is_empty() {
            for token in &tokens {
                self.shared.retire_listener(*token, closing);
            }
            time::sleep(pause).await;
            pause = LOOK;
            stop(&mut tokens);
        }
    }
}

/// Drains some of a loop's pools.
async fn run(shared: &Rc<Shared>, pools: Vec<u16>, drain: &Drain) -> Drained {
    let on = Handle::current().shared;
    assert!(Rc::ptr_eq(shared, &on), "connections are drained on their own loop");
    let lot = Lot { shared, pools };
    let start = time::now();
    lot.begin(drain.listeners).await;
    let grace = start + drain.grace;
    lot.until(grace).await;
    let (closed, flushed) = (grace + drain.spread, grace + drain.spread + drain.flush);
    lot.close_spread(drain, grace).await;
    while !lot.is_empty() && time::now() < flushed {
        // Those that came out of a listener's queue since.
        if time::now() >= closed {
            lot.open().into_iter().for_each(|token| shared.close_draining(token));
        }
        lot.look(flushed).await;
    }
    while !lot.is_empty() {
        lot.all(|_| true).into_iter().for_each(|token| shared.force_draining(token));
        time::sleep(LOOK).await;
    }
    let pools = lot.pools.iter().map(|place| shared.pool(*place).draining().counts.get());
    pools.fold(Drained::default(), Drained::add)
}

/// What is being drained.
struct Lot<'a> {
    shared: &'a Rc<Shared>,
    pools: Vec<u16>,
}

impl Lot<'_> {
    /// Closes the listeners, and tells the handlers: outside of any task, like every call of theirs. Returns when they have
    /// been told.
    async fn begin(&self, closing: Closing) {
        for place in &self.pools {
            self.shared.pool(*place).draining().begin();
        }
        for token in self.listeners() {
            self.shared.retire_listener(token, closing);
        }
        let handle = Handle::from_shared(self.shared.clone());
        for some in self.open().chunks(TOLD_AT_ONCE) {
            let (shared, some) = (self.shared.clone(), some.to_vec());
            handle.defer(move || some.into_iter().for_each(|token| shared.tell_draining(token)));
        }
        let told = Rc::new(Cell::new(false));
        let last = told.clone();
        handle.defer(move || last.set(true));
        while !told.get() {
            task::yield_now().await;
        }
    }

    /// Closes all that are open, evenly over the time from `start` on.
    async fn close_spread(&self, drain: &Drain, start: Instant) {
        let mut random = Random(drain.seed);
        let mut tokens = self.open();
        random.shuffle(&mut tokens);
        let count = tokens.len();
        for (at, token) in tokens.into_iter().enumerate() {
            let due = start + random.due(at, count, drain.spread);
            while time::now() < due {
                if self.is_empty() {
                    return;
                }
                self.look(due).await;
            }
            self.shared.close_draining(token);
        }
    }

    fn listeners(&self) -> Vec<Token> {
        let core = self.shared.core.borrow();
        let listeners = core.listeners.iter().flatten().filter(|l| self.pools.contains(&l.pool));
        listeners.filter_map(|listener| listener.token).collect()
    }

    /// Connections that are not closing already.
    fn open(&self) -> Vec<Token> {
        self.all(|flags| flags & (flag::CLOSING | flag::DEAD) == 0)
    }

    fn all(&self, wanted: impl Fn(u32) -> bool) -> Vec<Token> {
        let mut core = self.shared.core.borrow_mut();
        let mut found = Vec::new();
        for at in 0..core.sources.capacity() {
            if let Some((token, s)) = core.sources.at(at)
                && s.kind() == Kind::Callback
                && self.pools.contains(&s.pool)
                && wanted(s.flags)
            {
                found.push(token);
            }
        }
        found
    }

    fn is_empty(&self) -> bool {
        self.pools.iter().all(|place| self.shared.pool(*place).len() == 0) && self.listeners().is_empty()
    }

    async fn until(&self, end: Instant) {
        while !self.is_empty() && time::now() < end {
            self.look(end).await;
        }
    }

    async fn look(&self, end: Instant) {
        time::sleep_until(end.min(time::now() + LOOK)).await;
    }
}

impl Shared {
    /// Tells a handler that its connection is to finish.
    pub(crate) fn tell_draining(self: &Rc<Self>, token: Token) {
        const OVER: u32 = flag::CLOSING | flag::DEAD | flag::CONNECTING;
        let core = self.core.borrow();
        let s = core.sources.get(token).filter(|s| s.kind() == Kind::Callback && s.has(flag::OPENED));
        let Some((pool, slot)) = s.filter(|s| !s.has(OVER)).map(|s| (s.pool, s.slot)) else { return };
        drop(core);
        self.deliver(pool, slot, token, Event::Drain);
    }

    fn close_draining(&self, token: Token) {
        let mut core = self.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token).filter(|s| !s.has(flag::CLOSING | flag::DEAD)) else {
            return;
        };
        s.set(flag::DRAINING);
        drop(core);
        self.close(token);
    }

    /// Resets a connection for which there is no time left, be it that its own handler was closing it.
    fn force_draining(&self, token: Token) {
        let mut core = self.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token).filter(|s| !s.has(flag::DEAD)) else { return };
        s.set(flag::DRAINING);
        core.end(token, CloseReason::FlushTimeout);
    }
}

/// SplitMix64: what spreads closings need not be secret.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is above zero.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    fn shuffle<T>(&mut self, all: &mut [T]) {
        for at in (1..all.len()).rev() {
            all.swap(at, self.below(at as u64 + 1) as usize);
        }
    }

    /// When the one `at` this place of `count` is due: each anywhere in its own part of the time, so that they are spread
    /// evenly and still not in step with anything.
    fn due(&mut self, at: usize, count: usize, time: Duration) -> Duration {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let part = |at: usize| (u128::from(time) * at as u128 / count as u128) as u64;
        let (from, to) = (part(at), part(at + 1));
        Duration::from_nanos(from + self.below((to - from).max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::Random;
    use std::time::Duration;

    #[test]
    fn i48_closings_are_spread_evenly_and_with_jitter() {
        const COUNT: usize = 1000;
        let second = Duration::from_secs(1);
        let mut random = Random(7);
        let due: Vec<_> = (0..COUNT).map(|at| random.due(at, COUNT, second)).collect();
        for (at, due) in due.iter().enumerate() {
            let part = second * at as u32 / COUNT as u32..second * (at as u32 + 1) / COUNT as u32;
            assert!(part.contains(due), "{at}: {due:?}");
        }
        let gaps: std::collections::HashSet<_> = due.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(gaps.len() > COUNT / 2, "no beat");
        assert_eq!(Random(1).due(0, 3, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn the_order_depends_on_the_seed_and_loses_nobody() {
        let order = |seed| {
            let mut all: Vec<_> = (0..100).collect();
            Random(seed).shuffle(&mut all);
            all
        };
        assert_ne!(order(1), order(2));
        let mut sorted = order(1);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    }
}
