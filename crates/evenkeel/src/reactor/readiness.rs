//! The driver that all readiness interfaces share: what a wait reports becomes deliveries.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::slice::Iter;
use std::time::Duration;

use super::{Event, Ready, Selector};
use crate::backend::Driver;
use crate::core::async_io::{BUSY, Half};
use crate::core::pool::AnyPool;
use crate::core::{Kind, Shared, Token, flag};
use crate::handler::Conn;
use crate::net::Addr;
use crate::sys::{Fd, Sys, WakeFn};

/// Events between looks at the ready tasks and the cork: tasks find what they need still in the caches.
const EVENTS_PER_ROUND: usize = 32;
/// Polls of tasks in each such round.
const POLLS_PER_ROUND: usize = 64;

/// Bytes delivered from readiness: a selector `P` over a kernel `Y`.
pub(crate) struct Readiness<P: Selector<Y>, Y: Sys> {
    pub(super) sys: Y,
    pub(super) selector: RefCell<P>,
    batch: Cell<Vec<P::Event>>,
    /// A descriptor to be given up when numbers run out, so that the backlog can be shed.
    pub(super) spare: Cell<Option<Fd>>,
    wake_fd: Fd,
    wake: WakeFn,
    wake_registered: Cell<bool>,
}

/// States in which a callback connection is more than plainly open.
const NOT_PLAIN: u32 = flag::CONNECTING
    | flag::QUEUED
    | flag::CLOSING
    | flag::PAUSED
    | flag::DEAD
    | flag::EOF
    | flag::SHUT
    | flag::LISTED;

/// What the events of one turn share.
struct Turn<'a> {
    /// Memory that bytes are received into.
    scratch: Box<[u8]>,
    /// What a handler is called with; its token is the last event's.
    conn: Conn<'a>,
    /// The place of the last event's pool among the loop's pools: the next one's is mostly the same.
    place: u16,
}

/// The wake-up's token: no source has generation 0.
const WAKE: Token = Token { index: u32::MAX, generation: 0 };

impl<P: Selector<Y>, Y: Sys> Readiness<P, Y> {
    pub(crate) fn new(sys: Y) -> io::Result<Self> {
        let mut selector = P::new(&sys)?;
        let (wake_fd, wake) = match sys.wake_pair() {
            Ok(pair) => pair,
            Err(e) => {
                selector.end(&sys);
                return Err(e);
            }
        };
        // From here on its drop releases what it has (I36).
        let this = Self {
            sys,
            selector: RefCell::new(selector),
            batch: Cell::default(),
            spare: Cell::new(None),
            wake_fd,
            wake,
            wake_registered: Cell::new(false),
        };
        let read = Ready { read: true, ..Ready::default() };
        this.selector.borrow_mut().add(&this.sys, wake_fd, WAKE, read)?;
        this.wake_registered.set(true);
        this.spare.set(Some(this.sys.spare()?));
        Ok(this)
    }

    /// Serves reported events. The usual one, bytes for a handler, is read and delivered here.
    fn serve(&self, lp: &Rc<Shared>, round: &[P::Event], turn: &mut Turn<'_>) {
        let mut events = round.iter();
        while !events.as_slice().is_empty() {
            // Without pools there are no callback connections.
            let none = lp.pools.borrow().is_empty();
            let pool = (!none).then(|| lp.pool(turn.place));
            self.serve_pool(lp, &mut events, turn, pool.as_deref());
        }
    }

    /// Serves events until one is of another pool's connection: it stays the next one, and `turn` has its pool.
    #[inline]
    fn serve_pool(
        &self,
        lp: &Rc<Shared>,
        events: &mut Iter<'_, P::Event>,
        turn: &mut Turn<'_>,
        pool: Option<&dyn AnyPool>,
    ) {
        // A connection whose next read is its last one if it is short, and that wants bytes.
        const LOOK: u32 =
            flag::KIND | flag::READABLE | flag::SHORT_READS | NOT_PLAIN | flag::HUNG_UP | flag::MESSAGE;
        const PLAIN: u32 = Kind::Callback as u32 | flag::READABLE | flag::SHORT_READS;
        while let Some(event) = events.as_slice().first() {
            let Event { token, flags: news } = P::decode(*event);
            let mut core = lp.core.borrow_mut();
            let Some(s) = core.sources.get_mut(token).filter(|s| (s.flags | news) & LOOK == PLAIN) else {
                events.next();
                if !P::EDGE || !core.wake_reader(&lp.executor, token, news) {
                    drop(core);
                    self.other_event(lp, token, news, turn);
                }
                continue;
            };
            let Some(pool) = pool.filter(|_| s.pool == turn.place) else {
                turn.place = s.pool;
                return;
            };
            // As if the read were short already: it mostly is.
            s.flags = (s.flags | news) & !flag::READABLE;
            s.stamp = lp.now_ms.get();
            let (scratch, conn) = (&mut *turn.scratch, &mut turn.conn);
            (conn.token, conn.slot) = (token, s.slot);
            let fd = s.fd;
            drop(core);
            events.next();
            match self.sys.recv(fd, scratch) {
                Ok(n) if n > 0 && n < scratch.len() => {
                    lp.stats.add_n(&lp.stats.bytes_in, n as u64);
                    pool.on_data(conn, &scratch[..n]);
                    if conn.moved {
                        pool.after(conn);
                    }
                }
                other => self.not_short(turn, pool, other),
            }
        }
    }

    /// The first read of an event was not plainly short: it filled the memory, ended the stream, or failed.
    #[cold]
    #[inline(never)]
    fn not_short(&self, turn: &mut Turn<'_>, pool: &dyn AnyPool, got: io::Result<usize>) {
        let (lp, token) = (turn.conn.shared, turn.conn.token);
        if let Ok(n @ 1..) = got {
            lp.stats.add_n(&lp.stats.bytes_in, n as u64);
            pool.on_data(&mut turn.conn, &turn.scratch[..n]);
            if turn.conn.moved {
                pool.after(&mut turn.conn);
            }
        }
        self.with_scratch(turn, |this| this.read_on(lp, token, got));
    }

    /// An event of a source that is no handler's, or is more than plainly open, or gone.
    #[inline(never)]
    fn other_event(&self, lp: &Rc<Shared>, token: Token, news: u32, turn: &mut Turn<'_>) {
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else {
            drop(core);
            return self.odd_event(lp, token);
        };
        let was = s.flags;
        let flags = was | news;
        s.flags = flags;
        let event = Event { token, flags: news };
        if flags & (flag::KIND | BUSY) == Kind::Async as u32 {
            // Who waits, waits for a bit that was not set. An edge reports all that is true, not what is news.
            let slot = s.slot;
            let woken = core.wake_tasks(&lp.executor, token, slot, news & !was);
            drop(core);
            if !P::EDGE {
                self.quiet_async(lp, token, was, event.ready());
            }
            if !woken {
                lp.run_wakes();
            }
            return;
        }
        drop(core);
        self.with_scratch(turn, |this| this.stateful_event(lp, token, event.ready(), was));
    }

    /// Does something rare that may read for itself: it finds the memory where it expects it.
    #[cold]
    fn with_scratch(&self, turn: &mut Turn<'_>, rare: impl FnOnce(&Self)) {
        let lp = turn.conn.shared;
        lp.put_scratch(std::mem::take(&mut turn.scratch));
        rare(self);
        turn.scratch = lp.take_scratch();
    }

    /// An event of no source: the loop's wake-up, or one of a source that is gone.
    #[cold]
    fn odd_event(&self, lp: &Shared, token: Token) {
        if token == WAKE {
            // Each wake is an edge of its own, so nothing need be taken back; taking it back would be one more.
            if !P::EDGE {
                self.sys.clear_wake(self.wake_fd);
            }
            lp.wake_signal_waiters();
        } else {
            lp.stats.add(&lp.stats.stale);
        }
    }

    /// An event of a source that is more than plainly open.
    fn stateful_event(&self, lp: &Rc<Shared>, token: Token, ready: Ready, was: u32) {
        let flags = lp.flags(token);
        match Kind::of(flags) {
            Kind::Listener => self.accept_ready(lp, token),
            Kind::Watch => self.watch_reported(lp, token, ready, was),
            Kind::TaskListener => {
                lp.core.borrow_mut().wake(token, ready.read, ready.write);
                if !P::EDGE {
                    self.quiet_async(lp, token, was, ready);
                }
                lp.run_wakes();
            }
            Kind::Callback | Kind::Async => {
                if flags & flag::DEAD != 0 {
                    return;
                }
                if flags & flag::CONNECTING != 0 {
                    return self.connect_ready(lp, token, ready);
                }
                if ready.write && flags & flag::QUEUED != 0 {
                    lp.flush_queue(self, token);
                }
                if Kind::of(flags) == Kind::Async && flags & flag::LINGER == 0 {
                    lp.core.borrow_mut().wake(token, ready.read, ready.write);
                    if !P::EDGE {
                        self.quiet_async(lp, token, was, ready);
                    }
                    return lp.run_wakes();
                }
                if ready.hung_up {
                    lp.notice_reset(token);
                }
                if ready.read {
                    self.read_ready(lp, token);
                }
                if !P::EDGE {
                    self.settle(lp, token);
                    self.quiet_callback(lp, token, was, ready);
                }
            }
            Kind::Free => {}
        }
    }

    /// Level-triggered: stops reports that nobody has use for. A task that has not taken what was reported
    /// before is left alone until it reads or writes again; so is a hung-up descriptor, which would be reported
    /// for ever.
    fn quiet_async(&self, lp: &Shared, token: Token, was: u32, got: Ready) {
        let want = Ready {
            read: was & flag::ARMED_READ != 0 && !(got.read && was & flag::READABLE != 0),
            write: was & flag::ARMED_WRITE != 0 && (!got.write || was & flag::QUEUED != 0),
            hung_up: false,
        };
        let unwanted = !want.read && !want.write;
        self.arm(lp, token, want, unwanted && got.hung_up && was & flag::HUNG_UP != 0);
    }

    /// Level-triggered: makes interest follow what a callback connection wants.
    pub(super) fn settle(&self, lp: &Shared, token: Token) {
        if P::EDGE {
            return;
        }
        let flags = lp.flags(token);
        if flags & flag::DEAD != 0 {
            return;
        }
        // A lingering connection reads whether its handler was paused or not: it waits for the peer's end.
        let paused = if flags & flag::LINGER == 0 { flag::PAUSED } else { 0 };
        let unwanted = paused | flag::EOF | flag::LISTED;
        let closing = flags & (flag::CLOSING | flag::LINGER) == flag::CLOSING;
        let want = Ready {
            read: flags & unwanted == 0 && !closing && flags & flag::CONNECTING == 0,
            write: flags & (flag::QUEUED | flag::CONNECTING) != 0,
            hung_up: false,
        };
        // One that was taken out stays out until something is wanted of it.
        if flags & flag::REGISTERED != 0 || want.read || want.write {
            self.arm(lp, token, want, false);
        }
    }

    /// Level-triggered: a callback connection was reported as hung up although nothing was asked of it, and would be for ever.
    /// It is not taken out before that: a reset may come after the peer's end, and is reported whatever is asked for (I31).
    fn quiet_callback(&self, lp: &Shared, token: Token, was: u32, got: Ready) {
        const ARMED: u32 = flag::ARMED_READ | flag::ARMED_WRITE;
        if got.hung_up && was & ARMED == 0 && lp.flags(token) & (ARMED | flag::DEAD) == 0 {
            self.arm(lp, token, Ready::default(), true);
        }
    }

    /// Level-triggered: sets the interest of a source, with a system call only if it changes. `mute` takes the
    /// descriptor out altogether, since errors are reported whatever is asked for.
    pub(super) fn arm(&self, lp: &Shared, token: Token, want: Ready, mute: bool) {
        if P::EDGE {
            return;
        }
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        let now = Ready { read: s.has(flag::ARMED_READ), write: s.has(flag::ARMED_WRITE), hung_up: false };
        let registered = s.has(flag::REGISTERED);
        let mut selector = self.selector.borrow_mut();
        if mute {
            if registered {
                selector.remove(&self.sys, s.fd);
            }
            s.clear(flag::REGISTERED | flag::ARMED_READ | flag::ARMED_WRITE);
            return;
        }
        if registered && now == want {
            return;
        }
        let result = if s.has(flag::SHARED) {
            // Its registration cannot be changed, and while it rests it is not to be the one that is woken.
            if registered {
                selector.remove(&self.sys, s.fd);
                s.clear(flag::REGISTERED | flag::ARMED_READ);
            }
            if !want.read {
                return;
            }
            selector.add_shared(&self.sys, s.fd, token)
        } else if registered {
            selector.modify(&self.sys, s.fd, token, want)
        } else {
            selector.add(&self.sys, s.fd, token, want)
        };
        // The kernel can refuse only for want of memory; the source is then ended, never left deaf.
        if let Err(e) = result {
            drop(selector);
            if matches!(s.kind(), Kind::Async | Kind::TaskListener) {
                core.fail_async(token, e);
            } else {
                core.end(token, crate::CloseReason::Error(e));
            }
            return;
        }
        s.clear(flag::ARMED_READ | flag::ARMED_WRITE);
        s.set(flag::REGISTERED);
        s.set(if want.read { flag::ARMED_READ } else { 0 });
        s.set(if want.write { flag::ARMED_WRITE } else { 0 });
    }

    /// Level-triggered: a task met a would-block, or took what there was; the next event must be reported.
    pub(super) fn listen_for(&self, lp: &Shared, token: Token, read: bool, write: bool) {
        if P::EDGE {
            return;
        }
        let flags = lp.flags(token);
        let want = Ready {
            read: read || flags & flag::ARMED_READ != 0,
            write: write || flags & flag::ARMED_WRITE != 0,
            hung_up: false,
        };
        self.arm(lp, token, want, false);
    }

    /// Sources whose budget ended in an earlier turn.
    fn serve_ready(&self, lp: &Rc<Shared>) {
        let list = match &mut lp.core.borrow_mut().ready {
            none if none.is_empty() => return,
            some => std::mem::take(some),
        };
        for token in list {
            if let Some(s) = lp.core.borrow_mut().sources.get_mut(token) {
                s.clear(flag::LISTED);
            }
            match Kind::of(lp.flags(token)) {
                Kind::Listener => self.accept_ready(lp, token),
                // Of streams, those that linger are listed.
                Kind::Callback | Kind::Async => {
                    self.read_ready(lp, token);
                    self.settle(lp, token);
                }
                Kind::TaskListener | Kind::Watch | Kind::Free => {}
            }
        }
    }
}

impl<P: Selector<Y>, Y: Sys> Driver for Readiness<P, Y> {
    fn sys(&self) -> &dyn Sys {
        &self.sys
    }

    fn waker(&self) -> WakeFn {
        self.wake.clone()
    }

    fn wait(&self, lp: &Rc<Shared>, timeout: Option<Duration>) -> io::Result<()> {
        let mut batch = self.batch.take();
        self.selector.borrow_mut().wait(&self.sys, &mut batch, timeout)?;
        lp.tick();
        lp.stats.add_n(&lp.stats.events, batch.len() as u64);
        self.serve_ready(lp);
        let conn = Conn { shared: lp, token: WAKE, slot: 0, moved: false };
        let mut turn = Turn { scratch: Box::default(), conn, place: 0 };
        for round in batch.chunks(EVENTS_PER_ROUND) {
            turn.scratch = lp.take_scratch();
            self.serve(lp, round, &mut turn);
            lp.put_scratch(std::mem::take(&mut turn.scratch));
            lp.executor.run(POLLS_PER_ROUND);
            self.flush(lp);
        }
        self.batch.set(batch);
        Ok(())
    }

    fn register(&self, lp: &Shared, token: Token) -> io::Result<()> {
        let mut core = lp.core.borrow_mut();
        let s = core.sources.get_mut(token).ok_or(io::ErrorKind::NotFound)?;
        if s.kind() == Kind::Watch {
            return self.begin_watch(s, token);
        }
        // One that came from another loop may have something queued.
        let write = s.has(flag::CONNECTING | flag::QUEUED);
        let want = match s.kind() {
            Kind::Async | Kind::TaskListener => Ready { read: true, write, hung_up: false },
            _ => Ready { read: !s.has(flag::CONNECTING), write, hung_up: false },
        };
        let mut selector = self.selector.borrow_mut();
        if s.has(flag::SHARED) {
            selector.add_shared(&self.sys, s.fd, token)?;
        } else {
            selector.add(&self.sys, s.fd, token, want)?;
        }
        s.set(flag::REGISTERED);
        s.set(if want.read { flag::ARMED_READ } else { 0 });
        s.set(if want.write { flag::ARMED_WRITE } else { 0 });
        // A level repeats itself, so there every short read may end reading; on an edge only a stream's may
        // that says when it is hung up, which is TCP's.
        if !P::EDGE || !s.has(flag::UNIX) {
            s.set(flag::SHORT_READS);
        }
        if !write {
            s.set(flag::WRITABLE);
        }
        Ok(())
    }

    fn flush(&self, lp: &Shared) {
        if !lp.core.borrow().cork.entries.is_empty() {
            self.flush_all(lp);
        }
    }

    fn resume(&self, lp: &Shared, token: Token) {
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get(token) else { return };
        let kind = s.kind();
        if kind == Kind::Callback && s.flags & (flag::READABLE | flag::LISTED | flag::EOF) == flag::READABLE {
            return core.list(token);
        }
        drop(core);
        if kind == Kind::Callback {
            self.settle(lp, token);
        } else {
            self.listen_for(lp, token, true, false);
        }
    }

    fn recv(&self, lp: &Shared, token: Token, into: &mut [u8]) -> io::Result<usize> {
        self.pull(lp, token, into)
    }

    fn recv_by(
        &self,
        lp: &Shared,
        token: Token,
        receive: &mut dyn FnMut(&dyn Sys, Fd) -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        self.pull_by(lp, token, receive)
    }

    fn send(&self, lp: &Shared, token: Token, from: &[u8]) -> io::Result<usize> {
        lp.send_now(self, token, |sys, fd| sys.send(fd, from))
    }

    fn send_vectored(&self, lp: &Shared, token: Token, from: &[io::IoSlice<'_>]) -> io::Result<usize> {
        lp.send_now(self, token, |sys, fd| sys.send_vectored(fd, from))
    }

    fn send_by(
        &self,
        lp: &Shared,
        token: Token,
        send: &mut dyn FnMut(&dyn Sys, Fd) -> io::Result<usize>,
    ) -> io::Result<usize> {
        lp.send_now(self, token, |sys, fd| send(sys, fd))
    }

    fn accept(&self, lp: &Shared, token: Token) -> io::Result<(Fd, Addr)> {
        self.accept_for_task(lp, token)
    }

    fn retry_accept(&self, lp: &Rc<Shared>, token: Token) {
        self.accept_again(lp, token);
    }

    fn shutdown(&self, lp: &Shared, token: Token, how: Shutdown) -> io::Result<()> {
        self.sys.shutdown(lp.fd(token)?, how)
    }

    fn finish(&self, lp: &Shared, token: Token) -> bool {
        self.finish_stream(lp, token)
    }

    fn renamed(&self, lp: &Shared, _old: Token, token: Token) {
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token).filter(|s| s.has(flag::REGISTERED)) else { return };
        let want = Ready { read: true, write: s.has(flag::QUEUED), hung_up: false };
        s.set(flag::ARMED_READ);
        s.clear(flag::ARMED_WRITE);
        s.set(if want.write { flag::ARMED_WRITE } else { 0 });
        if let Err(e) = self.selector.borrow_mut().modify(&self.sys, s.fd, token, want) {
            core.end(token, crate::CloseReason::Error(e));
        }
    }

    fn watch(&self, lp: &Shared, token: Token, half: Half) -> io::Result<()> {
        self.watch_for(lp, token, half)
    }

    fn watch_again(&self, lp: &Shared, token: Token) {
        self.watch_rested(lp, token);
    }

    fn deregister(&self, lp: &Shared, token: Token) -> bool {
        let mut core = lp.core.borrow_mut();
        if let Some(s) = core.sources.get_mut(token).filter(|s| s.has(flag::REGISTERED)) {
            s.clear(flag::REGISTERED);
            self.selector.borrow_mut().remove(&self.sys, s.fd);
        }
        true
    }
}

impl<P: Selector<Y>, Y: Sys> Drop for Readiness<P, Y> {
    fn drop(&mut self) {
        if self.wake_registered.take() {
            self.selector.get_mut().remove(&self.sys, self.wake_fd);
        }
        self.sys.end_wakes(self.wake_fd);
        if let Some(spare) = self.spare.take() {
            self.sys.close(spare);
        }
        self.selector.get_mut().end(&self.sys);
    }
}
