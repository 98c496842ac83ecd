//! Watches: descriptors of which the loop tells only when they are ready, and that others read and write.
//!
//! A stream's bytes are the loop's business; those of a datagram socket, a pipe, or any descriptor of somebody else are
//! not. For these a driver sets `READABLE` and `WRITABLE` in the source when the kernel reports them, and wakes who waits. An
//! operation is tried while its bit is set, and clears the bit when the kernel refuses it, unless something was reported since
//! the operation was begun: reports are counted, so a readiness that came in between is not lost.
//!
//! A watch owns its descriptor. One of somebody else is watched by a number of its own (see `fd.rs`): so its source cannot
//! be left with a number that has been closed or given to another, and every rule for descriptors of sources holds for it.

use std::future::Future;
use std::io;
use std::ops::BitOr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use super::async_io::Half;
use super::{Core, Kind, Shared, Token, flag};
use crate::sys::{Fd, Sys};

/// What a descriptor may be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Interest {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) urgent: bool,
}

impl Interest {
    /// There is something to read, or the end.
    pub const READABLE: Interest = Interest { read: true, write: false, urgent: false };
    /// There is room to write.
    pub const WRITABLE: Interest = Interest { read: false, write: true, urgent: false };
    /// Both of the above.
    pub const BOTH: Interest = Interest { read: true, write: true, urgent: false };
    /// There is something urgent (`POLLPRI`): out-of-band data of a socket, a changed attribute in `/sys`. It is
    /// told as readiness to read.
    pub const PRIORITY: Interest = Interest { read: false, write: false, urgent: true };

    /// Whether one direction may be waited for.
    fn has(self, half: Half) -> bool {
        if half == Half::Read { self.read || self.urgent } else { self.write }
    }

    /// The part of it for the directions that are wanted.
    pub(crate) fn only(self, read: bool, write: bool) -> Interest {
        Interest { read: self.read && read, write: self.write && write, urgent: self.urgent && read }
    }

    /// As a source keeps it.
    fn to_bits(self) -> u16 {
        u16::from(self.read) | u16::from(self.write) << 1 | u16::from(self.urgent) << 2
    }

    pub(crate) fn from_bits(bits: u16) -> Interest {
        Interest { read: bits & 1 != 0, write: bits & 2 != 0, urgent: bits & 4 != 0 }
    }
}

impl BitOr for Interest {
    type Output = Interest;

    fn bitor(self, other: Interest) -> Interest {
        Interest {
            read: self.read || other.read,
            write: self.write || other.write,
            urgent: self.urgent || other.urgent,
        }
    }
}

/// How long a watch rests on a level-triggered interface when it goes on to be reported and no operation takes what there
/// is: an error queue that nobody reads, for one. So it is tried 100 times in a second, and not as fast as the processor can.
pub(crate) const REST: Duration = Duration::from_millis(10);
/// Reports in a row that came to nothing, after which a watch rests. A few are no sign of it: another process was faster.
const VAIN: u8 = 8;

/// The waiting sides of a loop's watches, by the slots of their sources.
#[derive(Default)]
pub(crate) struct Watches {
    all: Vec<Option<Watch>>,
    free: Vec<u32>,
}

/// Who waits for one descriptor.
#[derive(Default)]
pub(crate) struct Watch {
    read: Waiters,
    write: Waiters,
    /// What went wrong outside of any call.
    error: Option<io::Error>,
}

/// Who waits for one direction. All are woken by one report.
#[derive(Default)]
struct Waiters {
    /// The task that has last asked by a `poll_` function.
    polled: Option<Waker>,
    /// Those that wait in a future of their own, which takes its waker away when it is dropped.
    list: Vec<Option<Waker>>,
    /// Places of the list that are empty.
    free: Vec<u32>,
    /// How often the list was woken, which empties it.
    round: u64,
    /// Something was tried since the last report.
    tried: bool,
    /// Something was taken since the last report.
    taken: bool,
    /// Something was refused since the last report.
    judged: bool,
    /// Reports in a row that came to nothing.
    vain: u8,
}

/// A place in a list of waiters, good for one round of it.
#[derive(Clone, Copy)]
struct Place {
    round: u64,
    at: u32,
}

impl Waiters {
    /// The waker at a place, if that has not been woken.
    fn at(&mut self, place: Place) -> Option<&mut Option<Waker>> {
        let same = place.round == self.round;
        self.list.get_mut(place.at as usize).filter(|_| same)
    }

    fn insert(&mut self, waker: Waker) -> Place {
        let at = self.free.pop().unwrap_or_else(|| {
            self.list.push(None);
            (self.list.len() - 1) as u32
        });
        self.list[at as usize] = Some(waker);
        Place { round: self.round, at }
    }

    fn remove(&mut self, place: Place) -> Option<Waker> {
        let waker = self.at(place)?.take();
        self.free.push(place.at);
        waker
    }

    /// A report: takes all wakers.
    fn take(&mut self) -> impl Iterator<Item = Waker> + '_ {
        (self.tried, self.taken, self.judged) = (false, false, false);
        self.round += 1;
        self.free.clear();
        self.polled.take().into_iter().chain(self.list.drain(..).flatten())
    }

    /// Something is about to be tried. Whoever comes back for more has taken something.
    fn begin(&mut self) {
        self.taken |= self.tried;
        self.tried = true;
    }

    /// What was tried was refused.
    fn refused(&mut self) {
        if self.taken {
            self.vain = 0;
        } else if self.tried && !self.judged {
            self.vain = VAIN.min(self.vain + 1);
        }
        (self.tried, self.judged) = (false, true);
    }

    fn is_empty(&self) -> bool {
        self.polled.is_none() && self.list.len() == self.free.len()
    }
}

impl Watch {
    fn half(&mut self, half: Half) -> &mut Waiters {
        if half == Half::Read { &mut self.read } else { &mut self.write }
    }
}

impl Watches {
    fn insert(&mut self) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.all.push(None);
            (self.all.len() - 1) as u32
        });
        self.all[slot as usize] = Some(Watch::default());
        slot
    }

    /// Frees a slot; what was in it is the caller's to drop when nothing is borrowed.
    #[must_use]
    pub(crate) fn remove(&mut self, slot: u32) -> Option<Watch> {
        let watch = self.all.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        Some(watch)
    }

    fn get(&mut self, slot: u32) -> Option<&mut Watch> {
        self.all.get_mut(slot as usize)?.as_mut()
    }
}

impl Core {
    fn watch_of(&mut self, token: Token) -> Option<&mut Watch> {
        let slot = self.sources.get(token).filter(|s| s.kind() == Kind::Watch)?.slot;
        self.watches.get(slot)
    }

    /// A driver's report: `news` are the bits that were set. Wakers are set aside, to be called by
    /// [`Shared::run_wakes`].
    pub(crate) fn watch_told(&mut self, token: Token, news: u32) {
        let Some(s) = self.sources.get_mut(token) else { return };
        s.set(news & (flag::READABLE | flag::WRITABLE));
        s.stamp = s.stamp.wrapping_add(1);
        let Some(watch) = self.watches.get(s.slot) else { return };
        for half in [Half::Read, Half::Write] {
            if news & half.flag() != 0 {
                self.wakes.extend(watch.half(half).take().map(|waker| (Token::NONE, waker, false)));
            }
        }
    }

    /// A driver cannot watch any more. Whoever waits, or asks next, hears why.
    pub(crate) fn watch_failed(&mut self, token: Token, error: io::Error) {
        if let Some(watch) = self.watch_of(token) {
            watch.error.get_or_insert(error);
        }
        self.watch_told(token, flag::READABLE | flag::WRITABLE);
    }

    /// Whether one direction is reported again and again for nothing.
    pub(crate) fn watch_is_vain(&mut self, token: Token, half: Half) -> bool {
        self.watch_of(token).is_some_and(|watch| watch.half(half).vain == VAIN)
    }

    /// Whether somebody waits for one direction.
    pub(crate) fn watch_is_awaited(&mut self, token: Token, half: Half) -> bool {
        self.watch_of(token).is_some_and(|watch| !watch.half(half).is_empty())
    }
}

impl Shared {
    /// The number of reports so far, if the descriptor may be ready in one direction. None if it is not.
    fn watch_ready(&self, token: Token, half: Half) -> io::Result<Option<u32>> {
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        let s = core.sources.get_mut(token).filter(|s| !s.has(flag::DEAD)).ok_or_else(Self::gone)?;
        if !Interest::from_bits(s.pool).has(half) {
            let what = "this descriptor was not registered to be waited for in this direction";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        if !s.has(half.flag()) {
            return Ok(None);
        }
        let reports = s.stamp;
        match core.watches.get(s.slot).and_then(|watch| watch.error.take()) {
            Some(e) => Err(e),
            None => Ok(Some(reports)),
        }
    }

    /// An operation of one direction begins. Returns the descriptor, and the number of reports so far.
    fn watch_begins(&self, token: Token, half: Half) -> io::Result<(Fd, u32)> {
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        let s = core.sources.get(token).ok_or_else(Self::gone)?;
        if let Some(watch) = core.watches.get(s.slot) {
            watch.half(half).begin();
        }
        Ok((s.fd, s.stamp))
    }

    /// An operation was refused that was begun after `reports` reports: nothing is ready, unless one has come since.
    fn watch_refused(&self, token: Token, half: Half, reports: u32) {
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        if let Some(s) = core.sources.get_mut(token).filter(|s| s.stamp == reports) {
            s.clear(half.flag());
            if let Some(watch) = core.watches.get(s.slot) {
                watch.half(half).refused();
            }
        }
    }

    /// Ends a watch at once: when this returns the kernel has nothing more to do with the descriptor, and who is at its
    /// other end sees it closed.
    fn unwatch(&self, token: Token) {
        let Ok(fd) = self.fd(token) else { return };
        let over = self.driver.deregister(self, token);
        let mut core = self.core.borrow_mut();
        let removed = if over { core.sources.remove(token) } else { core.sources.retire(token) };
        let state = removed.and_then(|s| core.watches.remove(s.slot));
        drop(core);
        if over {
            self.driver.sys().close(fd);
        } else {
            self.driver.released(self);
        }
        // Wakers, which may be the user's.
        self.guard(|| drop(state));
    }
}

/// A watch, and the descriptor that it owns: what sockets, pipes and foreign descriptors are built on.
///
/// Every operation goes through the seam: it is given [`Sys`] and the descriptor's number. It must not block; the number
/// stays the watch's. Dropping a watch closes its descriptor at once.
pub(crate) struct Watched {
    shared: Rc<Shared>,
    token: Token,
}

impl Watched {
    /// Watches a descriptor, which is closed if that fails. `hopeful`: it is non-blocking, so operations are tried before
    /// anything was reported.
    pub(crate) fn new(shared: Rc<Shared>, fd: Fd, interest: Interest, hopeful: bool) -> io::Result<Watched> {
        if shared.ended.get() {
            shared.driver.sys().close(fd);
            return Err(Shared::gone());
        }
        let mut core = shared.core.borrow_mut();
        let slot = core.watches.insert();
        let flags = if hopeful { flag::READABLE | flag::WRITABLE } else { 0 };
        let token = core.sources.insert(fd, Kind::Watch, flags, interest.to_bits(), slot, 0);
        drop(core);
        if let Err(e) = shared.driver.register(&shared, token) {
            let mut core = shared.core.borrow_mut();
            core.sources.remove(token);
            let state = core.watches.remove(slot);
            drop(core);
            drop(state);
            shared.driver.sys().close(fd);
            return Err(e);
        }
        Ok(Watched { shared, token })
    }

    /// The descriptor, for calls that do not wait, such as options.
    ///
    /// # Errors
    /// `NotConnected` when the loop has ended.
    pub(crate) fn fd(&self) -> io::Result<Fd> {
        self.shared.fd(self.token)
    }

    pub(crate) fn sys(&self) -> &dyn Sys {
        self.shared.driver.sys()
    }

    pub(crate) fn shared(&self) -> &Rc<Shared> {
        &self.shared
    }

    /// Gives the descriptor away, once the kernel has ended all that it was asked of it.
    pub(crate) fn into_fd(self) -> io::Result<Fd> {
        let shared = &self.shared;
        let fd = self.fd()?;
        shared.driver.withdraw(shared, self.token)?;
        shared.driver.deregister(shared, self.token);
        let mut core = shared.core.borrow_mut();
        let state = core.sources.remove(self.token).and_then(|s| core.watches.remove(s.slot));
        drop(core);
        shared.guard(|| drop(state));
        Ok(fd)
    }

    /// Waits until one direction may be ready. Returns a number for [`refused`](Self::refused). Of the tasks that poll, the
    /// last one of each direction is woken.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>, half: Half) -> Poll<io::Result<u32>> {
        if let Some(reports) = self.shared.watch_ready(self.token, half)? {
            return self.spend(cx, reports);
        }
        let new = cx.waker().clone();
        let mut core = self.shared.core.borrow_mut();
        let old = core.watch_of(self.token).and_then(|watch| watch.half(half).polled.replace(new));
        drop(core);
        drop(old);
        self.shared.driver.watch(&self.shared, self.token, half)?;
        Poll::Pending
    }

    fn spend(&self, cx: &mut Context<'_>, reports: u32) -> Poll<io::Result<u32>> {
        if self.shared.executor.spend() { Poll::Ready(Ok(reports)) } else { Shared::give_up_turn(cx) }
    }

    /// Waits until one direction may be ready. Any number of tasks may; one report wakes them all.
    pub(crate) fn ready(&self, half: Half) -> WaitReady<'_> {
        WaitReady { watched: self, half, place: None }
    }

    /// The descriptor has refused an operation that was begun when `reports` had come.
    pub(crate) fn refused(&self, half: Half, reports: u32) {
        self.shared.watch_refused(self.token, half, reports);
    }

    /// Begins an operation outside of [`io`](Self::io). Returns the number of reports so far.
    pub(crate) fn begin(&self, half: Half) -> u32 {
        self.shared.watch_begins(self.token, half).map_or(0, |(_, reports)| reports)
    }

    /// Performs an operation of one direction, as soon as it is not refused with `WouldBlock`. For pollers: see
    /// [`poll_ready`](Self::poll_ready).
    pub(crate) fn poll_io<R>(
        &self,
        cx: &mut Context<'_>,
        half: Half,
        mut attempt: impl FnMut(&dyn Sys, Fd) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            ready!(self.poll_ready(cx, half))?;
            if let Some(result) = self.attempt(half, &mut attempt) {
                return Poll::Ready(result);
            }
        }
    }

    /// The same for any number of tasks. Cancel safe: it is performed once, in the poll that is ready.
    pub(crate) async fn io<R>(
        &self,
        half: Half,
        mut attempt: impl FnMut(&dyn Sys, Fd) -> io::Result<R>,
    ) -> io::Result<R> {
        loop {
            self.ready(half).await?;
            if let Some(result) = self.attempt(half, &mut attempt) {
                return result;
            }
        }
    }

    /// Tries an operation once. None if it was refused.
    fn attempt<R>(
        &self,
        half: Half,
        attempt: &mut impl FnMut(&dyn Sys, Fd) -> io::Result<R>,
    ) -> Option<io::Result<R>> {
        let (fd, reports) = match self.shared.watch_begins(self.token, half) {
            Ok(begun) => begun,
            Err(e) => return Some(Err(e)),
        };
        match attempt(self.sys(), fd) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.refused(half, reports);
                None
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => None,
            other => Some(other),
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.shared.unwatch(self.token);
    }
}

/// A future that waits for one direction of a watch. Its place among the waiters is taken away when it is dropped.
pub(crate) struct WaitReady<'a> {
    watched: &'a Watched,
    half: Half,
    place: Option<Place>,
}

impl WaitReady<'_> {
    fn leave(&mut self) {
        let Some(place) = self.place.take() else { return };
        let Watched { shared, token } = self.watched;
        let mut core = shared.core.borrow_mut();
        let waker = core.watch_of(*token).and_then(|watch| watch.half(self.half).remove(place));
        drop(core);
        drop(waker);
    }

    /// Leaves a waker, or the same again.
    fn stay(&mut self, cx: &Context<'_>) {
        let new = cx.waker().clone();
        let Watched { shared, token } = self.watched;
        let mut core = shared.core.borrow_mut();
        let Some(watch) = core.watch_of(*token) else { return };
        let waiters = watch.half(self.half);
        let old = match self.place.and_then(|place| waiters.at(place)) {
            Some(waker) => waker.replace(new),
            None => {
                self.place = Some(waiters.insert(new));
                None
            }
        };
        drop(core);
        drop(old);
    }
}

impl Future for WaitReady<'_> {
    type Output = io::Result<u32>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u32>> {
        let Watched { shared, token } = self.watched;
        match shared.watch_ready(*token, self.half) {
            Ok(None) => {
                self.stay(cx);
                shared.driver.watch(shared, *token, self.half)?;
                Poll::Pending
            }
            Ok(Some(reports)) => {
                self.leave();
                self.watched.spend(cx, reports)
            }
            Err(e) => {
                self.leave();
                Poll::Ready(Err(e))
            }
        }
    }
}

impl Drop for WaitReady<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;
    use std::task::{Wake, Waker};

    use super::{Interest, Place, VAIN, Waiters};

    struct Named;

    impl Wake for Named {
        fn wake(self: Arc<Self>) {}
    }

    /// What is inserted and not removed is woken once, and nothing is kept.
    #[test]
    fn i41_waiters_agree_with_a_list() {
        let mut rng = fastrand::Rng::with_seed(41);
        let mut waiters = Waiters::default();
        let mut model: Vec<(Place, Arc<Named>)> = Vec::new();
        let mut gone: Vec<Place> = Vec::new();
        for _ in 0..20_000 {
            match rng.u8(..8) {
                0 => {
                    let woken: Vec<Waker> = waiters.take().collect();
                    assert_eq!(woken.len(), model.len());
                    assert!(model.iter().all(|(_, named)| Arc::strong_count(named) == 2));
                    gone.extend(model.drain(..).map(|(place, _)| place));
                }
                1..4 if !model.is_empty() => {
                    let (place, named) = model.swap_remove(rng.usize(..model.len()));
                    assert!(waiters.remove(place).unwrap().will_wake(&Waker::from(named)));
                }
                4 if !gone.is_empty() => {
                    // Of an earlier round: whatever is there now is another's.
                    let place = gone.swap_remove(rng.usize(..gone.len()));
                    assert!(waiters.at(place).is_none() && waiters.remove(place).is_none());
                }
                _ if model.len() < 20 => {
                    let named = Arc::new(Named);
                    let place = waiters.insert(Waker::from(named.clone()));
                    model.push((place, named));
                }
                _ => {}
            }
            assert_eq!(waiters.is_empty(), model.is_empty());
            assert!(waiters.list.len() <= 20 && waiters.free.len() <= 20, "places are used again");
        }
    }

    #[test]
    fn i31_reports_are_in_vain_only_if_nothing_is_taken_of_them() {
        let mut waiters = Waiters::default();
        let mut report = |tries: &[bool]| {
            waiters.take().for_each(drop);
            for taken in tries {
                waiters.begin();
                if !taken {
                    waiters.refused();
                }
            }
            waiters.vain
        };
        for n in 1..VAIN {
            // However many try.
            assert_eq!(report(&[false, false, false]), n);
        }
        assert_eq!(report(&[true, false, false]), 0, "one was served, the others came too late");
        assert_eq!(report(&[false]), 1);
        assert_eq!(report(&[]), 1, "nobody has tried");
        assert_eq!(report(&[true, true]), 1, "nor was anybody refused");
        for _ in 0..300 {
            report(&[false]);
        }
        assert_eq!(report(&[false]), VAIN);
    }

    #[test]
    fn an_interest_survives_its_source() {
        for bits in 0..8 {
            assert_eq!(Interest::from_bits(bits).to_bits(), bits);
        }
        assert_eq!(Interest::READABLE | Interest::WRITABLE, Interest::BOTH);
    }
}
