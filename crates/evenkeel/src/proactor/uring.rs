//! The driver over an io_uring: what it holds, and its turn.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use super::Features;
use super::files::Lents;
use super::held::Held;
use super::submit::{Lease, Wait};
use crate::backend::Driver;
use crate::core::async_io::Half;
use crate::core::cork::CORK_WRITE;
use crate::core::pool::AnyPool;
use crate::core::{Core, Kind, Shared, Token, flag};
use crate::fs::{FileOp, FileWaiter};
use crate::handler::Conn;
use crate::net::Addr;
use crate::sys::buffers::{Buffers, Provision, Span};
use crate::sys::ring::{Done, Entry, Ring, Setup};
use crate::sys::{Fd, Sys, WakeFn, poll_bits};

/// Completions between looks at the ready tasks: they find what they need still in the caches.
const COMPLETIONS_PER_ROUND: usize = 32;
/// Polls of tasks in each such round.
const POLLS_PER_ROUND: usize = 64;
/// Entries that are handed over at once.
const SUBMISSIONS: u32 = 256;
/// Completions that the kernel can leave; more of them wait in the kernel until these are taken.
const COMPLETIONS: u32 = 2048;
/// From here on, sending from where bytes were received beats copying them.
const LEASE: usize = 4 << 10;

/// What an entry asks for: the highest bits of its data, above a place among the sources or in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Op {
    Recv = 1,
    Accept = 2,
    /// There is room to send, a connection is made, or the peer has gone.
    Room = 3,
    /// An entry of the cork.
    Send = 4,
    /// A large write of received bytes.
    Lease = 5,
    Wake = 6,
    Cancel = 7,
    /// An operation on a file.
    File = 8,
    /// A watch can be read.
    Readable = 9,
    /// A watch can be written.
    Writable = 10,
}

const OP: u32 = 60;

impl Op {
    #[inline]
    pub(super) fn data(self, index: u32) -> u64 {
        (self as u64) << OP | u64::from(index)
    }

    #[inline]
    pub(super) fn of(data: u64) -> Op {
        match data >> OP {
            1 => Op::Recv,
            2 => Op::Accept,
            3 => Op::Room,
            4 => Op::Send,
            5 => Op::Lease,
            6 => Op::Wake,
            8 => Op::File,
            9 => Op::Readable,
            10 => Op::Writable,
            _ => Op::Cancel,
        }
    }

    #[inline]
    pub(super) fn index(data: u64) -> u32 {
        data as u32
    }
}

/// A completion that waits to be served, with what it received.
pub(super) struct Completion {
    pub(super) done: Done,
    pub(super) span: Option<Span>,
}

/// Bytes delivered from completions, over a kernel `Y`.
pub(crate) struct Uring<Y: Sys> {
    pub(super) sys: Y,
    pub(super) ring: Ring,
    pub(super) buffers: Buffers,
    pub(super) features: Features,
    pub(super) batch: RefCell<VecDeque<Completion>>,
    /// Sends of the submission that is going on which completed: by their data, with their results.
    pub(super) failed: RefCell<Vec<(u64, i32)>>,
    /// The number of that submission.
    pub(super) submission: Cell<u32>,
    pub(super) leases: RefCell<Vec<Lease>>,
    /// Entries for which there was no room, while the kernel took none.
    pub(super) waiting: RefCell<VecDeque<Entry>>,
    pub(super) held: RefCell<Held>,
    /// Operations on files.
    pub(super) files: RefCell<Lents>,
    /// Places of sources that found no buffer to receive into.
    pub(super) starved: RefCell<Vec<u32>>,
    /// Accepted connections that wait for their listener's owner, by the listener's place.
    pub(super) accepted: RefCell<VecDeque<(u32, Fd)>>,
    /// A descriptor to be given up when numbers run out, so that the backlog can be shed.
    pub(super) spare: Cell<Option<Fd>>,
    pub(super) wake_fd: Fd,
    wake: WakeFn,
    /// The last call may have left completions behind.
    pub(super) unfinished: Cell<bool>,
    /// The kernel may still use the memory: it is never freed.
    pub(super) leaked: Cell<bool>,
}

/// What the completions of one turn share.
pub(super) struct Turn<'a> {
    /// What a handler is called with; its token is the last completion's.
    pub(super) conn: Conn<'a>,
    /// The place of the last completion's pool, and the pool: the next one's is mostly the same.
    pub(super) place: u16,
    pub(super) pool: Option<Rc<dyn AnyPool>>,
    /// The place of the last completion's source, and the bytes that came for it without another's between.
    pub(super) last: u32,
    pub(super) run: usize,
}

/// No source's.
const NONE: Token = Token { index: u32::MAX, generation: 0 };

impl<Y: Sys> Uring<Y> {
    /// Makes a ring with what the kernel has.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn new(sys: Y, features: Features) -> io::Result<Self> {
        let setup = Setup { submissions: SUBMISSIONS, completions: COMPLETIONS, flags: features.setup };
        let ring = Ring::new(&sys, setup)?;
        // Two MiB each way. What is received by one request each is received in larger pieces.
        let (count, size) = match (features.incremental, features.multishot_recv) {
            (true, _) => (32, 64 << 10),
            (false, true) => (128, 16 << 10),
            (false, false) => (64, 32 << 10),
        };
        let provision = Provision { count, size, incremental: features.incremental };
        let parts = Buffers::new(&sys, &ring, provision).and_then(|buffers| match sys.wake_pair() {
            Ok(wake) => Ok((buffers, wake)),
            Err(e) => {
                buffers.free(&sys);
                Err(e)
            }
        });
        let (buffers, (wake_fd, wake)) = match parts {
            Ok(parts) => parts,
            Err(e) => {
                ring.close(&sys);
                return Err(e);
            }
        };
        // From here on its drop releases what it has (I36).
        let this = Uring {
            sys,
            ring,
            buffers,
            features,
            batch: RefCell::default(),
            failed: RefCell::default(),
            submission: Cell::new(0),
            leases: RefCell::default(),
            waiting: RefCell::default(),
            held: RefCell::default(),
            files: RefCell::default(),
            starved: RefCell::default(),
            accepted: RefCell::default(),
            spare: Cell::new(None),
            wake_fd,
            wake,
            unfinished: Cell::new(false),
            leaked: Cell::new(false),
        };
        this.spare.set(Some(this.sys.spare()?));
        this.listen_for_wakes();
        Ok(this)
    }

    /// Each wake is a change of its own, so nothing need be taken back from the descriptor.
    fn listen_for_wakes(&self) {
        self.push(&Entry::poll(self.wake_fd, poll_bits::IN, true).with(Op::Wake.data(0)));
    }

    fn next(&self) -> Option<Completion> {
        self.batch.borrow_mut().pop_front()
    }

    /// Serves a completion that is not plain bytes for a plainly open stream.
    #[inline(never)]
    pub(super) fn other(&self, lp: &Rc<Shared>, Completion { done, span }: Completion) {
        let index = Op::index(done.data);
        match Op::of(done.data) {
            Op::Recv => self.received(lp, index, &done, span),
            Op::Accept => self.accepted(lp, index, &done),
            Op::Room => self.room(lp, &done),
            Op::Readable | Op::Writable => self.watch_reported(lp, &done),
            Op::Wake => {
                lp.wake_signal_waiters();
                if !done.more() && !lp.ended.get() {
                    self.listen_for_wakes();
                }
            }
            Op::File => self.file_done(lp, index, done.result),
            Op::Send | Op::Lease | Op::Cancel => {}
        }
    }

    /// Asks to be told of room to send, of the end of connecting, and of the peer's reset. But for connecting it goes on
    /// to be told, at each change: a single report would come at once for a peer that has ended its half, whatever was
    /// asked for, and so again and again.
    pub(super) fn poll(&self, core: &mut Core, token: Token) {
        let Some(s) = core.sources.get_mut(token).filter(|s| !s.has(flag::ARMED_WRITE)) else { return };
        s.set(flag::ARMED_WRITE);
        let entry = Entry::poll(s.fd, poll_bits::OUT, !s.has(flag::CONNECTING));
        self.push(&entry.with(Op::Room.data(token.index)));
    }

    /// Something has changed for a sender.
    fn room(&self, lp: &Rc<Shared>, done: &Done) {
        let Some(token) = self.owner(lp, done) else { return };
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token).filter(|s| !s.has(flag::DEAD)) else { return };
        let (flags, fd) = (s.flags, s.fd);
        let wanted = flags & flag::WRITABLE == 0 || flags & flag::EOF != 0;
        if !done.more() && wanted && (flags & flag::CONNECTING == 0 || done.result < 0) {
            // Cancelled along with another source of the same socket, or the kernel was short of memory.
            self.poll(&mut core, token);
        }
        const GONE: i16 = poll_bits::ERR | poll_bits::HUP;
        let has = |bits: i16| done.result > 0 && done.result & i32::from(bits) != 0;
        if !has(poll_bits::OUT | GONE) {
            return;
        }
        if flags & flag::CONNECTING != 0 {
            drop(core);
            return self.connect_news(lp, token, fd);
        }
        let Some(s) = core.sources.get_mut(token) else { return };
        s.set(flag::WRITABLE | if has(GONE) { flag::HUNG_UP } else { 0 });
        let asynchronous = s.kind() == Kind::Async;
        drop(core);
        if flags & flag::QUEUED != 0 {
            lp.flush_queue(self, token);
        }
        if asynchronous {
            lp.core.borrow_mut().wake(token, false, true);
            lp.run_wakes();
        } else if has(GONE) && flags & flag::EOF != 0 {
            // Reading cannot tell any more whether the peer has reset.
            if let Ok(Some(e)) = self.sys.take_error(fd) {
                lp.abort(token, crate::CloseReason::Error(e));
            }
        }
    }

    fn connect_news(&self, lp: &Rc<Shared>, token: Token, fd: Fd) {
        match lp.connect_outcome(fd) {
            None => {
                self.poll(&mut lp.core.borrow_mut(), token);
            }
            Some(Err(e)) => lp.connect_failed(token, e),
            Some(Ok(())) => {
                let kind = lp.core.borrow_mut().established(token, 0, lp.now_ms.get());
                if kind == Some(Kind::Callback) {
                    lp.flush_queue(self, token);
                    self.want(&mut lp.core.borrow_mut(), token.index);
                } else {
                    lp.run_wakes();
                }
            }
        }
    }

    /// Sources that are owed a look: they were paused, or not yet open, when something came.
    fn serve_ready(&self, lp: &Rc<Shared>) {
        let list = match &mut lp.core.borrow_mut().ready {
            none if none.is_empty() => return,
            some => std::mem::take(some),
        };
        for token in list {
            let kind = lp.core.borrow_mut().sources.get_mut(token).map(|s| {
                s.clear(flag::LISTED);
                s.kind()
            });
            match kind {
                Some(Kind::Callback) => self.catch_up(lp, token),
                Some(Kind::Listener) => self.carry_on_retiring(lp, token),
                _ => {}
            }
        }
    }

    /// What is left over at the end of a batch.
    fn batch_over(&self, lp: &Rc<Shared>) {
        self.copy_held(lp);
        self.feed_starved(lp);
        self.serve_accepted(lp);
        self.flush_batch(lp);
    }
}

impl<Y: Sys> Driver for Uring<Y> {
    fn sys(&self) -> &dyn Sys {
        &self.sys
    }

    fn waker(&self) -> WakeFn {
        self.wake.clone()
    }

    fn wait(&self, lp: &Rc<Shared>, timeout: Option<Duration>) -> io::Result<()> {
        let now = timeout == Some(Duration::ZERO) || !self.batch.borrow().is_empty();
        self.submit(lp, if now { Wait::Poll } else { Wait::For(timeout) })?;
        lp.tick();
        lp.run_wakes();
        let mut left = self.batch.borrow().len();
        lp.stats.add_n(&lp.stats.events, left as u64);
        self.serve_ready(lp);
        let conn = Conn { shared: lp, token: NONE, slot: 0, moved: false };
        let mut turn = Turn { conn, place: 0, pool: None, last: u32::MAX, run: 0 };
        while left > 0 {
            for _ in 0..left.min(COMPLETIONS_PER_ROUND) {
                if let Some(completion) = self.next() {
                    self.serve(lp, completion, &mut turn);
                }
            }
            left = left.saturating_sub(COMPLETIONS_PER_ROUND);
            lp.executor.run(POLLS_PER_ROUND);
        }
        self.batch_over(lp);
        Ok(())
    }

    fn register(&self, lp: &Shared, token: Token) -> io::Result<()> {
        let mut core = lp.core.borrow_mut();
        let s = core.sources.get_mut(token).ok_or(io::ErrorKind::NotFound)?;
        s.set(flag::REGISTERED);
        if s.kind() == Kind::Watch {
            // Nothing is asked of it until somebody waits.
            return Ok(());
        }
        if s.has(flag::CONNECTING) {
            self.poll(&mut core, token);
            return Ok(());
        }
        let (queued, kind) = (s.has(flag::QUEUED), s.kind());
        s.set(if queued { 0 } else { flag::WRITABLE });
        if queued {
            // It came from another loop, with what waits to be sent.
            self.poll(&mut core, token);
        }
        let Some(s) = core.sources.get_mut(token) else { return Ok(()) };
        if matches!(kind, Kind::Async | Kind::TaskListener) {
            // Nothing is received for it until it asks.
            s.set(flag::READABLE);
        } else {
            s.clear(flag::READABLE);
            self.want(&mut core, token.index);
        }
        Ok(())
    }

    fn flush(&self, lp: &Shared) {
        if !lp.core.borrow().cork.entries.is_empty() || !self.leases.borrow().is_empty() {
            // An error is met again by the next wait, which reports it.
            let _ = self.submit(lp, Wait::No);
        }
    }

    fn flush_batch(&self, lp: &Shared) {
        // Writes leave with the next wait, unless something depends on their having left.
        let core = lp.core.borrow();
        let ending = !core.closing.is_empty() || !core.closed.is_empty();
        drop(core);
        if ending {
            self.flush(lp);
        }
    }

    fn cork_write(&self) -> usize {
        LEASE
    }

    fn resume(&self, lp: &Shared, token: Token) {
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        if s.kind() == Kind::Callback {
            // It hears what came with it, or came meanwhile, first.
            core.list(token);
        } else {
            // What there is to be read, an attempt will find.
            s.set(flag::READABLE);
        }
    }

    fn recv(&self, lp: &Shared, token: Token, into: &mut [u8]) -> io::Result<usize> {
        self.pull(lp, token, into.len(), |bytes| {
            into[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        })
    }

    fn lends(&self) -> bool {
        true
    }

    fn lend(&self, lp: &Shared, token: Token, most: usize, take: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        self.pull(lp, token, most, take)
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
        const BUSY: u32 =
            flag::SHUT | flag::CLOSING | flag::DEAD | flag::QUEUED | flag::CORKED | flag::CONNECTING;
        // One that was hung up on learns at once what becomes of its bytes.
        const OTHERS: u32 = BUSY | flag::HUNG_UP;
        let flags = lp.flags(token);
        if flags & (OTHERS | flag::WRITABLE) == flag::WRITABLE {
            if from.len() >= LEASE && self.lease(lp, token, from) {
                return Ok(from.len());
            }
            if from.len() < CORK_WRITE {
                let mut core = lp.core.borrow_mut();
                core.cork.grow();
                if core.cork.begin(token, from) {
                    if let Some(s) = core.sources.get_mut(token) {
                        s.set(flag::CORKED);
                    }
                    return Ok(from.len());
                }
            }
        }
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

    fn renamed(&self, _lp: &Shared, old: Token, new: Token) {
        // Operations know a source by its place.
        for lease in self.leases.borrow_mut().iter_mut().filter(|lease| lease.token == old) {
            lease.token = new;
        }
    }

    fn watch(&self, lp: &Shared, token: Token, half: Half) -> io::Result<()> {
        self.watch_for(lp, token, half);
        Ok(())
    }

    fn deregister(&self, lp: &Shared, token: Token) -> bool {
        self.forget(lp, token)
    }

    fn released(&self, lp: &Shared) {
        self.close_retired(lp);
    }

    fn withdraw(&self, lp: &Shared, token: Token) -> io::Result<()> {
        self.withdraw_stream(lp, token)
    }

    fn hand_over(&self, lp: &Shared, token: Token) {
        self.unhold(&mut lp.core.borrow_mut(), token.index);
    }

    fn end(&self, lp: &Shared) {
        self.end_all(lp);
    }

    fn limit_file_threads(&self, most: usize) {
        // Where it refuses, it has its own idea of how many are enough.
        let _ = self.sys.ring_threads(self.ring.fd, u32::try_from(most).unwrap_or(u32::MAX));
    }

    fn file(&self, _lp: &Shared, op: FileOp, done: FileWaiter) -> Result<(), (FileOp, FileWaiter)> {
        self.take_file_op(op, done)
    }
}

impl<Y: Sys> Drop for Uring<Y> {
    fn drop(&mut self) {
        self.sys.end_wakes(self.wake_fd);
        if let Some(spare) = self.spare.take() {
            self.sys.close(spare);
        }
        if self.leaked.get() {
            return self.sys.close(self.ring.fd);
        }
        self.ring.close(&self.sys);
        self.buffers.free(&self.sys);
    }
}

#[cfg(test)]
mod tests {
    use super::Op;

    #[test]
    fn an_operation_and_its_place_survive_the_kernel() {
        const ALL: [Op; 10] = [
            Op::Recv,
            Op::Accept,
            Op::Room,
            Op::Send,
            Op::Lease,
            Op::Wake,
            Op::Cancel,
            Op::File,
            Op::Readable,
            Op::Writable,
        ];
        for op in ALL {
            for index in [0, 1, 0x7fff_ffff, u32::MAX] {
                let data = op.data(index);
                assert_eq!((Op::of(data), Op::index(data)), (op, index));
            }
        }
    }
}
