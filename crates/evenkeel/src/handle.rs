//! The handle of a loop on its own thread.

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::choice::Fallback;
use crate::core::shared::Timer;
use crate::core::{Core, Kind, Shared, Token, flag};
use crate::descriptors::Descriptors;
use crate::handler::{CloseReason, ConnId, Flow, Handler, StaleConn};
use crate::message::Message;
use crate::net::{Addr, Closing, IntoAddr, Limits, ListenOptions, ListenerId, Pool};
use crate::remote::{Remote, RemoteError};
use crate::stats::LoopStats;
use crate::task::JoinHandle;
use crate::time::wheel::Key;

/// A loop, as the code that runs on it sees it. Cheap to clone; stays on its thread.
///
/// After the loop has ended, operations fail or do nothing, as each says.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Rc<Shared>,
}

/// Names a timer, to cancel it.
#[derive(Clone, Copy, Debug)]
pub struct TimerId {
    key: Key,
    owner: u32,
}

impl Handle {
    pub(crate) fn from_shared(shared: Rc<Shared>) -> Self {
        Handle { shared }
    }

    /// The loop that is running on this thread.
    ///
    /// # Panics
    /// Outside of a running loop: there is none that could be meant.
    #[track_caller]
    pub fn current() -> Handle {
        Self::try_current().expect(
            "no event loop is running on this thread: call this from within EventLoop::run or block_on",
        )
    }

    /// The loop that is running on this thread, if one is.
    pub fn try_current() -> Option<Handle> {
        crate::event_loop::current().map(Handle::from_shared)
    }

    // ---- the loop ----

    /// The kernel interface that drives this loop.
    pub fn backend(&self) -> Backend {
        self.shared.backend
    }

    /// Why epoll drives this loop and not io_uring, if that was asked for or was [`Backend::Auto`]'s to choose. None if
    /// io_uring runs, or was not considered.
    pub fn fallback(&self) -> Option<&Fallback> {
        self.shared.fallback.as_ref()
    }

    /// Whether the loop's thread has a descriptor table of its own; see
    /// [`Builder::private_descriptors`](crate::Builder::private_descriptors).
    pub fn descriptors(&self) -> &Descriptors {
        &self.shared.descriptors
    }

    /// Makes [`run`](crate::EventLoop::run) return after the current turn.
    pub fn stop(&self) {
        self.shared.stopping.set(true);
        self.shared.inbox.wake();
    }

    /// A handle that other threads can use.
    pub fn remote(&self) -> Remote {
        Remote::new(self.shared.inbox.clone())
    }

    /// Gives a descriptor to another loop, whichever descriptor tables the two have, and runs `call` with it there. The number
    /// may be another one there. `call` is given the kernel's error where that loop has no number free.
    ///
    /// Descriptors that this loop hands to that one arrive in order; calls sent by [`Remote::run`] may overtake one that waits
    /// for room. One on its way to a loop that ends is closed.
    ///
    /// ```
    /// use evenkeel::{group::Group, net::Stream};
    /// use std::io::{Read, Write};
    /// use std::os::unix::net::UnixStream;
    ///
    /// let group = Group::builder().loops(2).build(|_, _| Ok(()))?;
    /// let (mut ours, theirs) = UnixStream::pair()?;
    /// let other = group.remote(1);
    /// group.remote(0).run(move |handle| {
    ///     let sent = handle.hand_over(&other, theirs.into(), |handle, fd| {
    ///         handle.spawn(async move {
    ///             let mut stream = Stream::from_fd(fd?)?;
    ///             stream.write_all(b"from the other loop").await
    ///         }).detach();
    ///     });
    ///     assert!(sent.is_ok());
    /// })?;
    /// let mut text = [0; 19];
    /// ours.read_exact(&mut text)?;
    /// assert_eq!(&text, b"from the other loop");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// When that loop's mailbox is full or 4,096 descriptors wait for it on this loop already, when it has ended, or `NoWay` when the
    /// loops have different tables and are not of one [`Group`](crate::group::Group). The descriptor is closed then, and
    /// `call` is dropped.
    pub fn hand_over(
        &self,
        to: &Remote,
        fd: OwnedFd,
        call: impl FnOnce(&Handle, io::Result<OwnedFd>) + Send + 'static,
    ) -> Result<(), RemoteError> {
        if self.shared.shares_table_with(to) {
            return to.run(move |handle| call(handle, Ok(fd)));
        }
        let arrive = move |handle: &Handle, fds: io::Result<Vec<OwnedFd>>| {
            let one = fds.and_then(|fds| fds.into_iter().next().ok_or(io::ErrorKind::NotConnected.into()));
            call(handle, one);
        };
        self.shared.post(to, vec![fd], arrive).map_err(|(error, _)| error)
    }

    /// The loop's time: read once a turn, so it costs nothing and may be late by as much as the turn is long.
    pub fn now(&self) -> Instant {
        self.shared.epoch + Duration::from_nanos(self.shared.now.get())
    }

    /// What the loop has counted.
    pub fn stats(&self) -> LoopStats {
        self.shared.snapshot()
    }

    /// Forgets the turn times counted so far, so that the next snapshot covers the time since.
    pub fn reset_turn_times(&self) {
        for bucket in &self.shared.stats.turn_times {
            bucket.set(0);
        }
        self.shared.stats.longest_turn.set(0);
    }

    // ---- work ----

    /// Spawns a task. It is polled first in the next turn, never inside this call.
    pub fn spawn<F: Future + 'static>(&self, future: F) -> JoinHandle<F::Output> {
        self.shared.executor.spawn(future)
    }

    /// Runs `call` in the next turn, outside of any handler. A panic in it is counted.
    pub fn defer(&self, call: impl FnOnce() + 'static) {
        if !self.shared.ended.get() {
            self.shared.core.borrow_mut().deferred.push_back(Box::new(call));
        }
    }

    /// Runs `call` once, no earlier than `delay` from now, to the millisecond. A panic in it is counted.
    pub fn after(&self, delay: Duration, call: impl FnOnce() + 'static) -> TimerId {
        let key = self.shared.timer_after(delay, Timer::Call(Box::new(call)));
        if self.shared.ended.get() {
            // It never fires; kept, it could hold the loop's memory for ever.
            let call = self.shared.core.borrow_mut().wheel.cancel(key);
            drop(call);
        }
        TimerId { key, owner: self.shared.id }
    }

    /// Cancels a timer. False if it has fired, or is of another loop.
    pub fn cancel(&self, timer: TimerId) -> bool {
        if timer.owner != self.shared.id {
            return false;
        }
        let cancelled = self.shared.core.borrow_mut().wheel.cancel(timer.key);
        cancelled.is_some()
    }

    // ---- listening ----

    /// Accepts connections at `at`, each with a handler made by `make` from its peer's address, under default
    /// [`Limits`]. See [`Pool`] for everything else.
    ///
    /// # Errors
    /// The kernel's, such as an address in use.
    pub fn listen<H: Handler>(
        &self,
        at: impl IntoAddr,
        make: impl Fn(&Addr) -> H + 'static,
    ) -> io::Result<ListenerId> {
        self.pool(Limits::default()).listen(at, &ListenOptions::default(), make)
    }

    /// As [`listen`](Self::listen), at a socket that listens already, such as one that this process has
    /// [inherited](crate::inherit).
    ///
    /// # Errors
    /// As for [`Pool::listen_on`].
    pub fn listen_on<H: Handler>(
        &self,
        socket: impl Into<OwnedFd>,
        make: impl Fn(&Addr) -> H + 'static,
    ) -> io::Result<ListenerId> {
        self.pool(Limits::default()).listen_on(socket, &ListenOptions::default(), make)
    }

    /// A new pool of connections whose handlers are of one type and share limits.
    ///
    /// A pool lives as long as the loop: make one for each kind of connection, not one for each connection.
    pub fn pool<H: Handler>(&self, limits: Limits) -> Pool<H> {
        Pool::new(&self.shared, limits)
    }

    /// The address at which a listener listens, with the port that the kernel chose.
    ///
    /// # Errors
    /// When the listener is closed, or of another loop.
    pub fn listener_addr(&self, listener: ListenerId) -> io::Result<Addr> {
        self.shared.local_addr(self.shared.own(listener.token, listener.owner)?)
    }

    /// Another descriptor of a listening socket, for a process that is to take it over. It is open whether this loop goes
    /// on listening or not.
    ///
    /// # Errors
    /// When the listener is closed, or of another loop; the kernel's.
    pub fn listener_socket(&self, listener: ListenerId) -> io::Result<OwnedFd> {
        let token = self.shared.own(listener.token, listener.owner)?;
        self.shared.driver.sys().copy(self.shared.fd(token)?)
    }

    /// Stops listening, as [`Closing`] says; not at once, but in one of the next turns, and within
    /// [`Limits::close_deadline`]. False if it was closed already, or is of another loop.
    pub fn close_listener_as(&self, listener: ListenerId, closing: Closing) -> bool {
        let Ok(token) = self.shared.own(listener.token, listener.owner) else { return false };
        self.shared.retire_listener(token, closing);
        true
    }

    /// Whether a listener is open, be it that it is ending.
    pub(crate) fn listens(&self, listener: ListenerId) -> bool {
        self.shared.own(listener.token, listener.owner).is_ok()
    }

    /// Stops listening. Connections that were accepted stay; those in the backlog are refused by the kernel.
    /// False if it was closed already, or is of another loop.
    pub fn close_listener(&self, listener: ListenerId) -> bool {
        let Ok(token) = self.shared.own(listener.token, listener.owner) else { return false };
        self.shared.abort(token, CloseReason::Local);
        true
    }

    // ---- connections ----

    fn conn(&self, id: ConnId) -> Result<Token, StaleConn> {
        if id.owner != self.shared.id {
            return Err(StaleConn::OtherLoop);
        }
        let core = self.shared.core.borrow();
        let s = core.sources.get(id.token).filter(|s| s.kind() == Kind::Callback && !s.has(flag::DEAD));
        s.map(|_| id.token).ok_or(StaleConn::Gone)
    }

    /// Whether a connection is open, as far as is known.
    pub fn is_open(&self, id: ConnId) -> bool {
        self.conn(id).is_ok()
    }

    /// As [`Conn::write`](crate::Conn::write).
    ///
    /// # Errors
    /// When the connection is over.
    pub fn write(&self, id: ConnId, bytes: &[u8]) -> Result<Flow, StaleConn> {
        self.conn(id).map(|token| self.shared.write(token, bytes))
    }

    /// As [`Conn::send`](crate::Conn::send): the message is shared, not copied.
    ///
    /// # Errors
    /// When the connection is over.
    pub fn send(&self, id: ConnId, message: &Message) -> Result<Flow, StaleConn> {
        self.conn(id).map(|token| self.shared.send(token, message))
    }

    /// Offers the kernel now what was written since this batch of calls began, instead of after it: for code that writes so
    /// much at once, to one connection, that its queue's limits would be passed before the kernel was asked.
    pub fn flush(&self) {
        self.shared.driver.flush(&self.shared);
    }

    /// Bytes that wait to be sent.
    ///
    /// # Errors
    /// When the connection is over.
    pub fn queued(&self, id: ConnId) -> Result<usize, StaleConn> {
        self.conn(id).map(|token| self.shared.queued(token))
    }

    /// Every connection of the loop that has bytes waiting to be sent, and how many: for a server that must know which
    /// peers are slow. Costs in proportion to all connections.
    pub fn queues(&self) -> Vec<(ConnId, usize)> {
        let mut core = self.shared.core.borrow_mut();
        let capacity = core.sources.capacity();
        let queue = |at| {
            let (token, s) = core.sources.at(at)?;
            let waits = s.kind() == Kind::Callback && !s.has(flag::DEAD);
            let bytes = s.extra.as_ref().filter(|_| waits).map_or(0, |extra| extra.bytes());
            (bytes > 0).then_some((ConnId { token, owner: self.shared.id }, bytes))
        };
        (0..capacity).filter_map(queue).collect()
    }

    /// As [`Conn::close`](crate::Conn::close).
    ///
    /// # Errors
    /// When the connection is over.
    pub fn close(&self, id: ConnId) -> Result<(), StaleConn> {
        self.conn(id).map(|token| self.shared.close(token))
    }

    /// As [`Conn::close_lingering`](crate::Conn::close_lingering).
    ///
    /// # Errors
    /// When the connection is over.
    pub fn close_lingering(&self, id: ConnId) -> Result<(), StaleConn> {
        self.conn(id).map(|token| self.shared.close_lingering(token))
    }

    /// As [`Conn::abort`](crate::Conn::abort).
    ///
    /// # Errors
    /// When the connection is over.
    pub fn abort(&self, id: ConnId) -> Result<(), StaleConn> {
        self.conn(id).map(|token| self.shared.abort(token, CloseReason::Aborted))
    }

    /// As [`Conn::pause`](crate::Conn::pause).
    ///
    /// # Errors
    /// When the connection is over.
    pub fn pause(&self, id: ConnId) -> Result<(), StaleConn> {
        self.conn(id).map(|token| self.shared.pause(token))
    }

    /// As [`Conn::resume`](crate::Conn::resume).
    ///
    /// # Errors
    /// When the connection is over.
    pub fn resume(&self, id: ConnId) -> Result<(), StaleConn> {
        self.conn(id).map(|token| self.shared.resume(token))
    }

    /// Asks for a call of [`Handler::on_notify`] in the next turn.
    ///
    /// # Errors
    /// When the connection is over.
    pub fn notify(&self, id: ConnId) -> Result<(), StaleConn> {
        self.conn(id).map(|token| self.shared.notify(token))
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("backend", &self.shared.backend).finish_non_exhaustive()
    }
}

impl Shared {
    /// A token that must be of this loop and alive.
    pub(crate) fn own(&self, token: Token, owner: u32) -> io::Result<Token> {
        // One that was closed in this batch of calls is over, though its place is still taken.
        let open = |core: &Core| core.sources.get(token).is_some_and(|s| !s.has(flag::DEAD));
        if owner == self.id && open(&self.core.borrow()) {
            return Ok(token);
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "closed already, or of another loop"))
    }

    pub(crate) fn snapshot(&self) -> LoopStats {
        let s = &self.stats;
        let core = self.core.borrow();
        LoopStats {
            turns: s.turns.get(),
            events: s.events.get(),
            stale: s.stale.get(),
            timers: s.timers.get(),
            accepted: s.accepted.get(),
            accept_errors: s.accept_errors.get(),
            shed: s.shed.get(),
            closed: s.closed.get(),
            panics: s.panics.get() + self.executor.panics(),
            bytes_in: s.bytes_in.get(),
            bytes_out: s.bytes_out.get(),
            sends: s.sends.get(),
            file_ops: s.file_ops.get(),
            file_ops_on_threads: s.file_ops_on_threads.get(),
            files_in_flight: self.files.in_flight(),
            files_waiting: self.files.waiting(),
            file_threads: self.files.lane(),
            lookups: s.lookups.get(),
            lookups_joined: s.lookups_joined.get(),
            lookups_timed_out: s.lookups_timed_out.get(),
            lookups_in_flight: self.names.in_flight(),
            lookups_abandoned: self.names.abandoned(),
            sources: core.sources.len(),
            tasks: self.executor.len(),
            armed: core.wheel.len(),
            turn_times: std::array::from_fn(|i| s.turn_times[i].get()),
            longest_turn_us: s.longest_turn.get(),
        }
    }
}
