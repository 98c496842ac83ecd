//! How writes leave and completions come in: one call for a batch of both.

use std::io;
use std::time::Duration;

use rustix::io::Errno;

use super::uring::{Completion, Op, Uring};
use crate::core::cork::{Cork, Corked};
use crate::core::flush::Outlet;
use crate::core::{Core, Shared, Token, flag};
use crate::sys::buffers::Span;
use crate::sys::ring::Entry;
use crate::sys::{Fd, Sys};

/// The bits of a submission's number, which the data of its sends carry between the operation and the place.
const SUBMISSION: u32 = (1 << 28) - 1;

fn submission_of(data: u64) -> u32 {
    (data >> 32) as u32 & SUBMISSION
}

/// What a submission waits for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wait {
    /// Nothing: what is queued is handed over.
    No,
    /// Nothing, but what can complete does.
    Poll,
    /// A completion, at most so long; nothing if somebody has something to do.
    For(Option<Duration>),
    /// A completion, at most so long.
    Surely(Duration),
}

/// A large write of received bytes, sent from where they were received.
pub(super) struct Lease {
    pub(super) token: Token,
    span: Span,
}

/// Completions from which on one call may have left some behind: the kernel does a bounded amount of deferred work in
/// each, and does not say that there is more.
const WORK_PER_ENTER: usize = 16;
/// Completions that one turn collects, by several calls if need be, so that who is ready is served in it.
const BATCH: usize = 256;
/// How often the kernel may refuse to take entries before it is believed.
const REFUSALS: usize = 64;

impl<Y: Sys> Uring<Y> {
    /// Hands over everything that was written, and all other entries. No user code runs in here.
    #[inline(never)]
    pub(super) fn submit(&self, lp: &Shared, wait: Wait) -> io::Result<()> {
        self.submission.set(self.submission.get().wrapping_add(1) & SUBMISSION);
        let cork = self.queue_corked(lp);
        let leases = self.queue_leases(lp);
        // What was sent by the way may have given somebody something to do.
        let wait = if matches!(wait, Wait::For(_)) && lp.core.borrow().is_owed() { Wait::Poll } else { wait };
        let result = self.enter(wait);
        if result.is_err() {
            let mut failed = self.failed.borrow_mut();
            self.ring.revoke_sends(|data| failed.push((data, NOT_TRIED)));
        }
        if !self.failed.borrow().is_empty() {
            self.not_sent(lp, &cork, &leases);
        }
        leases.into_iter().for_each(|lease| self.buffers.release(lease.span));
        let mut core = lp.core.borrow_mut();
        core.cork = cork;
        core.cork.clear();
        result
    }

    /// Queues a send for each entry of the cork, which is taken away until they are over.
    fn queue_corked(&self, lp: &Shared) -> Cork {
        let mut guard = lp.core.borrow_mut();
        let core = &mut *guard;
        let cork = std::mem::take(&mut core.cork);
        let now = lp.now_ms.get();
        // As if all of it were sent: it mostly is.
        lp.stats.add_n(&lp.stats.sends, cork.entries.len() as u64);
        for (at, (token, corked)) in cork.pieces().enumerate() {
            lp.stats.add_n(&lp.stats.bytes_out, corked.len() as u64);
            match plainly(core, token, now) {
                Some(fd) => self.queue_send(fd, &corked, Op::Send, at),
                None => lp.not_sent(self, core, token, corked, None),
            }
        }
        cork
    }

    fn queue_leases(&self, lp: &Shared) -> Vec<Lease> {
        let leases = std::mem::take(&mut *self.leases.borrow_mut());
        if leases.is_empty() {
            return leases;
        }
        let mut core = lp.core.borrow_mut();
        lp.stats.add_n(&lp.stats.sends, leases.len() as u64);
        for (at, lease) in leases.iter().enumerate() {
            let bytes = self.buffers.bytes(&lease.span);
            lp.stats.add_n(&lp.stats.bytes_out, bytes.len() as u64);
            match plainly(&mut core, lease.token, lp.now_ms.get()) {
                Some(fd) => self.queue_send(fd, bytes, Op::Lease, at),
                None => lp.not_sent(self, &mut core, lease.token, Corked::Bytes(bytes), None),
            }
        }
        leases
    }

    #[inline]
    fn queue_send(&self, fd: Fd, bytes: &[u8], op: Op, at: usize) {
        let data = op.data(at as u32) | u64::from(self.submission.get()) << 32;
        // SAFETY: the cork, its messages and the leases are kept by `submit` until `enter` has handed the entry over or
        // revoked it.
        let entry = unsafe { Entry::send(fd, bytes, self.features.quiet_sends) };
        self.push(&entry.with(data));
    }

    /// Queues an entry, and hands others over if there is no room.
    #[inline]
    pub(super) fn push(&self, entry: &Entry) {
        if !self.waiting.borrow().is_empty() || !self.ring.push(entry) {
            self.push_anyway(entry);
        }
    }

    #[cold]
    fn push_anyway(&self, entry: &Entry) {
        // An error is met again by the next wait, which reports it.
        let _ = self.enter(Wait::No);
        // Not past those that wait: a cancellation must not overtake what it cancels.
        if !self.waiting.borrow().is_empty() || !self.ring.push(entry) {
            match Op::of(entry.data) {
                // Its memory is not ours for long: it is sent another way.
                Op::Send | Op::Lease => self.failed.borrow_mut().push((entry.data, NOT_TRIED)),
                _ => self.waiting.borrow_mut().push_back(*entry),
            }
        }
    }

    /// Entries that found no room go before all that are queued from now on.
    #[inline]
    fn push_waiting(&self) {
        if !self.waiting.borrow().is_empty() {
            let mut waiting = self.waiting.borrow_mut();
            while waiting.front().is_some_and(|entry| self.ring.push(entry)) {
                waiting.pop_front();
            }
        }
    }

    /// Enters the kernel until it has taken everything.
    fn enter(&self, wait: Wait) -> io::Result<()> {
        let (mut least, mut events, mut timeout) = match wait {
            Wait::No => (0, false, None),
            Wait::Poll => (0, true, None),
            Wait::For(timeout) => (1, true, timeout),
            Wait::Surely(timeout) => (1, true, Some(timeout)),
        };
        self.push_waiting();
        if self.ring.pending() == 0 && (!events || least == 0 && self.nothing_to_come()) {
            if events {
                self.sys.skip_turn();
            }
            self.harvest();
            return Ok(());
        }
        let mut refusals = 0;
        loop {
            match self.ring.enter(&self.sys, least, events, timeout) {
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::TimedOut | io::ErrorKind::Interrupted) => {}
                // It wants completions taken first, or is short of memory for a moment.
                Err(e) if is_busy(&e) && refusals < REFUSALS => {
                    refusals += 1;
                    events = true;
                }
                Err(e) => return Err(e),
            }
            let came = self.harvest();
            self.push_waiting();
            if events {
                self.unfinished.set(came >= WORK_PER_ENTER);
            }
            let more = events && self.unfinished.get() && self.batch.borrow().len() < BATCH;
            if self.ring.pending() == 0 && !self.ring.overflowed() && !more {
                return Ok(());
            }
            (least, events, timeout) = (0, events || self.ring.overflowed(), None);
        }
    }

    /// Entering the kernel would bring nothing.
    fn nothing_to_come(&self) -> bool {
        !self.ring.has_work() && !self.unfinished.get()
    }

    /// Takes completions in: those of sends are kept apart, the others wait to be served. Returns how many came.
    fn harvest(&self) -> usize {
        let mut came = 0;
        let (mut batch, mut failed) = (self.batch.borrow_mut(), self.failed.borrow_mut());
        self.ring.reap(|done| {
            came += 1;
            let span = self.buffers.take(&done);
            match Op::of(done.data) {
                Op::Send | Op::Lease => failed.push((done.data, done.result)),
                Op::Cancel => {}
                _ => batch.push_back(Completion { done, span }),
            }
        });
        came
    }

    /// Goes on with the sends of a submission that the kernel did not take whole, or that completed because all do.
    #[cold]
    fn not_sent(&self, lp: &Shared, cork: &Cork, leases: &[Lease]) {
        let mut failed = std::mem::take(&mut *self.failed.borrow_mut());
        // A failure that the kernel kept for want of room is of a submission that is over.
        failed.retain(|(data, _)| submission_of(*data) == self.submission.get());
        failed.sort_unstable();
        let mut guard = lp.core.borrow_mut();
        let core = &mut *guard;
        let of = |op: Op| failed.iter().filter(move |(data, _)| Op::of(*data) == op);
        let mut sends = of(Op::Send).peekable();
        for (at, (token, corked)) in cork.pieces().enumerate() {
            let Some((data, result)) = sends.peek() else { break };
            if Op::index(*data) == at as u32 {
                self.go_on(lp, core, token, corked, *result);
                sends.next();
            }
        }
        for (data, result) in of(Op::Lease) {
            let Some(lease) = leases.get(Op::index(*data) as usize) else { continue };
            let bytes = self.buffers.bytes(&lease.span);
            self.go_on(lp, core, lease.token, Corked::Bytes(bytes), *result);
        }
        failed.clear();
        *self.failed.borrow_mut() = failed;
    }

    fn go_on(&self, lp: &Shared, core: &mut Core, token: Token, bytes: Corked<'_>, result: i32) {
        let first = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
        lp.not_sent(self, core, token, bytes, Some(first));
    }

    /// Sends received bytes from where they are, if they are worth it: the buffer stays until they are sent.
    pub(super) fn lease(&self, lp: &Shared, token: Token, bytes: &[u8]) -> bool {
        let Some(span) = self.buffers.lease(bytes) else { return false };
        if let Some(s) = lp.core.borrow_mut().sources.get_mut(token) {
            s.set(flag::CORKED);
        }
        self.leases.borrow_mut().push(Lease { token, span });
        true
    }
}

const AGAIN: i32 = Errno::AGAIN.raw_os_error();
/// The result of a send that the kernel has not seen: it is tried by a call. No report of room would come for it.
const NOT_TRIED: i32 = -Errno::INTR.raw_os_error();

fn is_busy(e: &io::Error) -> bool {
    e.raw_os_error().is_some_and(|code| code == AGAIN || code == Errno::BUSY.raw_os_error())
}

/// The descriptor of a source that can be plainly sent to; it has nothing corked then.
#[inline]
fn plainly(core: &mut Core, token: Token, now: u32) -> Option<Fd> {
    let s = core.sources.get_mut(token)?;
    const ODD: u32 = flag::DEAD | flag::QUEUED | flag::CLOSING | flag::SHUT;
    if s.has(ODD) {
        return None;
    }
    // A message in progress keeps its stamp: answering does not make its sender faster.
    if !s.has(flag::MESSAGE) {
        s.stamp = now;
    }
    s.clear(flag::CORKED);
    Some(s.fd)
}

impl<Y: Sys> Outlet for Uring<Y> {
    type Sys = Y;

    fn kernel(&self) -> &Y {
        &self.sys
    }

    fn await_room(&self, core: &mut Core, token: Token) -> io::Result<()> {
        self.poll(core, token);
        Ok(())
    }

    fn await_no_room(&self, _core: &mut Core, _token: Token) -> io::Result<()> {
        // A report that nobody waits for does no harm.
        Ok(())
    }
}
