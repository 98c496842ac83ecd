//! How operations end before their descriptor does: cancelled, waited for, and only then is the number free (I11).

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::time::Duration;

use rustix::io::Errno;

use super::receive::ARMED;
use super::submit::Wait;
use super::uring::{Completion, Op, Uring};
use crate::core::out::Ended;
use crate::core::{Core, Kind, Shared, Source, Token, flag};
use crate::sys::Sys;
use crate::sys::ring::{Done, Entry};

/// How often a cancellation is waited for, and how long each time, before something is given up.
const PATIENCE: usize = 50;
const WAIT: Duration = Duration::from_millis(100);

impl<Y: Sys> Uring<Y> {
    /// The source at a place, if its owner still has it; an event of one that is gone is counted.
    fn alive(&self, lp: &Shared, index: u32) -> Option<Token> {
        let mut core = lp.core.borrow_mut();
        let alive = core.sources.at(index as usize).map(|(token, _)| token);
        if alive.is_none() {
            lp.stats.add(&lp.stats.stale);
        }
        alive
    }

    /// The source that a completion is for, if its owner still has it. An operation that does not go on has ended.
    pub(super) fn owner(&self, lp: &Shared, done: &Done) -> Option<Token> {
        let index = Op::index(done.data);
        if done.more() { self.alive(lp, index) } else { self.ended(lp, index, armed_by(done)) }
    }

    /// The operation that `armed` stands for has ended. If it was the last one of a source that is gone, so is its
    /// descriptor now.
    fn ended(&self, lp: &Shared, index: u32, armed: u32) -> Option<Token> {
        let mut core = lp.core.borrow_mut();
        let s = core.sources.place(index)?;
        s.clear(armed);
        if armed == flag::ARMED_READ {
            s.clear(flag::CANCELLED);
        }
        if !s.has(ARMED)
            && s.kind() == Kind::Free
            && let Some(fd) = core.sources.bury(index)
        {
            self.sys.close(fd);
        }
        drop(core);
        self.alive(lp, index)
    }

    /// Cancels what a source receives or accepts; waiting for room goes on.
    pub(super) fn cancel(&self, core: &mut Core, index: u32) {
        let Some(s) = core.sources.place(index) else { return };
        if s.flags & (flag::ARMED_READ | flag::CANCELLED) == flag::ARMED_READ {
            s.set(flag::CANCELLED);
            let what = reads_by(s.kind());
            self.cancel_one(what, index);
        }
    }

    fn cancel_one(&self, what: Op, index: u32) {
        self.push(&Entry::cancel(what.data(index)).with(Op::Cancel.data(0)));
    }

    /// Cancels everything that is in flight for a source: by what it carries, since finding it by its descriptor costs a
    /// look at everything that is in flight on the ring.
    fn cancel_all(&self, core: &mut Core, index: u32) {
        let Some(s) = core.sources.place(index) else { return };
        let (flags, kind) = (s.flags, s.kind());
        if flags & flag::ARMED_READ != 0 {
            self.cancel_one(reads_by(kind), index);
        }
        if flags & flag::ARMED_WRITE != 0 {
            let writes = if kind == Kind::Watch { Op::Writable } else { Op::Room };
            self.cancel_one(writes, index);
        }
    }

    /// Forgets a source. True if nothing of it is in flight.
    pub(super) fn forget(&self, lp: &Shared, token: Token) -> bool {
        let mut core = lp.core.borrow_mut();
        self.drop_held(&mut core, token.index);
        let Some(s) = core.sources.get(token) else { return true };
        if matches!(s.kind(), Kind::Listener | Kind::TaskListener) {
            self.accepted.borrow_mut().retain(|(listener, fd)| {
                let other = *listener != token.index;
                if !other {
                    self.turn_away(*fd);
                }
                other
            });
        }
        if !s.has(ARMED) {
            return true;
        }
        self.cancel_all(&mut core, token.index);
        false
    }

    /// Ends the write half of a stream whose queue is empty. False if its peer's end is waited for.
    pub(super) fn finish_stream(&self, lp: &Shared, token: Token) -> bool {
        let mut core = lp.core.borrow_mut();
        self.unhold(&mut core, token.index);
        let Some(s) = core.sources.get_mut(token) else { return true };
        let fd = s.fd;
        let over = s.extra.as_ref().is_some_and(|extra| extra.ended.is_some());
        let unread = s.extra.as_ref().is_some_and(|extra| !extra.unread.is_empty());
        let lingers = s.lingers();
        if s.has(flag::EOF) || over {
            return true;
        }
        drop(core);
        if unread {
            // A peer that is gone already needs no end.
            let _ = self.sys.shutdown(fd, Shutdown::Write);
        } else if lp.end_write_half(fd, lingers).is_none() {
            return true;
        }
        let mut core = lp.core.borrow_mut();
        if let Some(s) = core.sources.get_mut(token) {
            s.begin_to_linger();
        }
        self.want(&mut core, token.index);
        false
    }

    /// Ends everything that is in flight for a stream, and keeps what was received.
    pub(super) fn withdraw_stream(&self, lp: &Shared, token: Token) -> io::Result<()> {
        self.unhold(&mut lp.core.borrow_mut(), token.index);
        for _ in 0..PATIENCE {
            self.take_in(lp, token);
            let mut core = lp.core.borrow_mut();
            let Some(s) = core.sources.get(token) else { return Err(io::ErrorKind::NotConnected.into()) };
            if !s.has(ARMED) {
                return Ok(());
            }
            self.cancel_all(&mut core, token.index);
            drop(core);
            self.submit(lp, Wait::Surely(WAIT))?;
        }
        let what = "the kernel does not end what it was asked to receive for this stream";
        Err(io::Error::new(io::ErrorKind::TimedOut, what))
    }

    /// Takes a stream's completions out of the batch: its bytes become unread ones.
    fn take_in(&self, lp: &Shared, token: Token) {
        self.pick(
            lp,
            |core, done| {
                armed_by(done) != 0
                    && Op::index(done.data) == token.index
                    && core.sources.get(token).is_some()
            },
            |Completion { done, span }| {
                if let Some(s) = lp.core.borrow_mut().sources.get_mut(token) {
                    match &span {
                        Some(span) => s.extra().unread.extend_from_slice(self.buffers.bytes(span)),
                        None => take_end(s, &done),
                    }
                }
                self.lose(lp, Completion { done, span });
            },
        );
    }

    /// Closes the descriptors of sources that are gone, now that what was in flight has been cancelled. What the kernel
    /// does not end at once ends in a later turn.
    pub(super) fn close_retired(&self, lp: &Shared) {
        if lp.core.borrow().sources.retired() == 0 {
            return;
        }
        // An error is met again by the next wait, which reports it.
        let _ = self.submit(lp, Wait::Poll);
        self.pick(
            lp,
            |core, done| {
                armed_by(done) != 0
                    && core.sources.place(Op::index(done.data)).is_some_and(|s| s.kind() == Kind::Free)
            },
            |completion| self.lose(lp, completion),
        );
    }

    /// Takes those completions out of the batch that are `wanted`, in their order.
    fn pick(
        &self,
        lp: &Shared,
        mut wanted: impl FnMut(&mut Core, &Done) -> bool,
        mut take: impl FnMut(Completion),
    ) {
        let batch = std::mem::take(&mut *self.batch.borrow_mut());
        let mut others = VecDeque::with_capacity(batch.len());
        for completion in batch {
            let picked = wanted(&mut lp.core.borrow_mut(), &completion.done);
            if picked {
                take(completion);
            } else {
                others.push_back(completion);
            }
        }
        *self.batch.borrow_mut() = others;
    }

    /// A completion that nobody is left to hear of.
    fn lose(&self, lp: &Shared, Completion { done, span }: Completion) {
        if let Some(span) = span {
            self.buffers.release(span);
        }
        if Op::of(done.data) == Op::Accept && done.result >= 0 {
            self.turn_away(done.result);
        }
        let armed = armed_by(&done);
        if armed != 0 && !done.more() {
            self.ended(lp, Op::index(done.data), armed);
        }
    }

    /// The loop has ended: everything in flight is cancelled and waited for. What the kernel does not end keeps its
    /// memory for ever (I16).
    pub(super) fn end_all(&self, lp: &Shared) {
        let wakes = Entry::cancel_all(self.wake_fd).with(Op::Cancel.data(0));
        self.push(&wakes);
        // What is to be cancelled must have been handed over. An error is met again below.
        let _ = self.submit(lp, Wait::Poll);
        self.cancel_files();
        let mut waking = true;
        let mut patience = PATIENCE;
        while patience > 0 {
            let batch = std::mem::take(&mut *self.batch.borrow_mut());
            // Everything in flight ends once, so what goes on ending may take its time.
            patience -= usize::from(batch.is_empty());
            for completion in batch {
                let done = &completion.done;
                waking &= done.more() || Op::of(done.data) != Op::Wake;
                if Op::of(done.data) == Op::File {
                    self.file_done(lp, Op::index(done.data), done.result);
                }
                self.lose(lp, completion);
            }
            let files = self.files.borrow().is_empty();
            if !waking && files && lp.core.borrow().sources.retired() == 0 {
                return;
            }
            if self.submit(lp, Wait::Surely(WAIT)).is_err() {
                break;
            }
        }
        self.leaked.set(true);
        let files = std::mem::take(&mut *self.files.borrow_mut());
        drop(files);
    }
}

/// Keeps how a stream has ended: of a failure the kernel tells once, and what it tells then looks like an orderly end.
fn take_end(s: &mut Source, done: &Done) {
    if Op::of(done.data) != Op::Recv || done.result > 0 {
        return;
    }
    if done.result == 0 {
        s.extra().ended = Some(Ended::Eof);
        return;
    }
    let error = io::Error::from_raw_os_error(-done.result);
    if !matches!(
        Errno::from_io_error(&error),
        Some(Errno::NOBUFS | Errno::CANCELED | Errno::INTR | Errno::AGAIN)
    ) {
        s.set(flag::HUNG_UP);
        s.extra().ended = Some(Ended::Failed(error));
    }
}

/// What a source receives by.
fn reads_by(kind: Kind) -> Op {
    match kind {
        Kind::Listener | Kind::TaskListener => Op::Accept,
        Kind::Watch => Op::Readable,
        Kind::Callback | Kind::Async | Kind::Free => Op::Recv,
    }
}

/// The bit of a source that says that the operation is in flight.
fn armed_by(done: &Done) -> u32 {
    match Op::of(done.data) {
        Op::Recv | Op::Accept | Op::Readable => flag::ARMED_READ,
        Op::Room | Op::Writable => flag::ARMED_WRITE,
        Op::Send | Op::Lease | Op::Wake | Op::Cancel | Op::File => 0,
    }
}
