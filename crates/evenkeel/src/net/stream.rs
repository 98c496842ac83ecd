//! A stream that tasks read and write.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::pool::connect;
use super::{
    Addr, ConnectOptions, IntoAddr, OwnedReadHalf, OwnedWriteHalf, Parcel, ReadHalf, SocketOption, WriteHalf,
};
use crate::core::async_io::Half;
use crate::core::shared::Timer;
use crate::core::whole;
use crate::core::{Kind, Shared, Token, flag};
use crate::handle::Handle;
use crate::handler::{CloseReason, Flow};
use crate::message::Message;
use crate::sys::{Fd, Sys};

/// Slices of one vectored write, as many as kernels take.
const MOST_SLICES: usize = 1024;

/// A connection that a task reads and writes, over TCP or a Unix socket.
///
/// Buffers are borrowed, whatever the backend, and dropping any future of this type is safe: no byte is lost or
/// duplicated but where a method says so. It stays on its loop's thread. Dropping it closes it: what is queued is
/// flushed for at most five seconds, without anybody waiting.
///
/// One task at a time reads, one at a time writes; [`split`](Self::split) lets these be two.
pub struct Stream {
    pub(crate) shared: Rc<Shared>,
    token: Token,
}

impl Stream {
    pub(crate) fn from_parts(shared: Rc<Shared>, token: Token) -> Self {
        Stream { shared, token }
    }

    /// Gives up the stream without closing it.
    pub(crate) fn into_token(mut self) -> Token {
        let gone = Token { index: u32::MAX, generation: 0 };
        std::mem::replace(&mut self.token, gone)
    }

    /// Connects on the current loop, with default options: no address is looked up, and 30 seconds are allowed.
    ///
    /// Cancel safe: dropping the future abandons the attempt.
    ///
    /// # Errors
    /// The kernel's, or `TimedOut`.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub async fn connect(to: impl IntoAddr) -> io::Result<Stream> {
        Self::connect_with(to, &ConnectOptions::default()).await
    }

    /// Connects on the current loop.
    ///
    /// Cancel safe: dropping the future abandons the attempt.
    ///
    /// # Errors
    /// The kernel's, or `TimedOut` at the deadline.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub async fn connect_with(to: impl IntoAddr, options: &ConnectOptions) -> io::Result<Stream> {
        let shared = Handle::current().shared;
        let (fd, flags) = connect(&shared, &to.into_addr()?, options)?;
        let token = shared.adopt_async(fd, Kind::Async, flags)?;
        let stream = Stream { shared, token };
        if flags & flag::CONNECTING != 0 {
            if let Some(deadline) = options.deadline {
                stream.shared.arm_deadline(token, deadline, Timer::Connect(token));
            }
            poll_fn(|cx| stream.poll_writable(cx)).await?;
        }
        Ok(stream)
    }

    /// Takes over a connected stream socket of the standard library or any other owner, on the current loop.
    ///
    /// # Errors
    /// The kernel's.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn from_fd(fd: impl Into<OwnedFd>) -> io::Result<Stream> {
        let shared = Handle::current().shared;
        let fd = shared.driver.sys().import(fd.into())?;
        let unix = match shared.driver.sys().local_addr(fd) {
            Ok(Addr::Ip(_)) => 0,
            _ => flag::UNIX,
        };
        let token = shared.adopt_async(fd, Kind::Async, flag::READABLE | flag::WRITABLE | unix)?;
        Ok(Stream { shared, token })
    }

    /// Gives the socket away, non-blocking as it is, and with it what the loop has received and nobody has read. What is
    /// queued stays behind: flush first.
    ///
    /// # Errors
    /// `NotConnected` when the loop has ended; the kernel's, if it will not end what it was asked to receive.
    pub fn into_parts(self) -> io::Result<StreamParts> {
        let (shared, token) = (self.shared.clone(), self.token);
        shared.fd(token)?;
        // What was corked counts as flushed to whoever waited for that.
        self.shared.driver.flush(&self.shared);
        let _ = self.into_token();
        if let Err(e) = shared.driver.withdraw(&shared, token) {
            shared.close(token);
            return Err(e);
        }
        shared.driver.deregister(&shared, token);
        let mut core = shared.core.borrow_mut();
        let source = core.sources.remove(token).ok_or(io::ErrorKind::NotConnected)?;
        let state = core.free_async(source.slot);
        drop(core);
        drop(state);
        let unread = source.extra.map(|extra| extra.unread).unwrap_or_default();
        Ok(StreamParts { fd: shared.driver.sys().export(source.fd)?, unread })
    }

    /// Closes the stream as dropping it does, and in any case waits for the peer's end, as by
    /// [`Conn::close_lingering`](crate::Conn::close_lingering), for at most 5 seconds.
    pub fn close_lingering(self) {
        self.shared.close_lingering(self.token);
        let _ = self.into_token();
    }

    /// Takes the stream off this loop, to move it to another one, with all that it is in the middle of.
    ///
    /// # Errors
    /// `NotConnected` when the loop has ended; the kernel's, if it will not end what it was asked to receive: the stream is
    /// reset then.
    pub fn pack(self) -> io::Result<Parcel> {
        let cargo = self.shared.pack(self.token, &[])?;
        let _ = self.into_token();
        Ok(Parcel::new(cargo))
    }

    /// Who is at the other end of a Unix socket.
    ///
    /// # Errors
    /// `NotConnected` for any other socket, and when the loop has ended.
    pub fn peer_credentials(&self) -> io::Result<super::unix::Credentials> {
        self.shared.driver.sys().peer_credentials(self.shared.fd(self.token)?)
    }

    /// As [`into_parts`](Self::into_parts), for those who know that nothing is unread: it is lost.
    ///
    /// # Errors
    /// As for [`into_parts`](Self::into_parts).
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        Ok(self.into_parts()?.fd)
    }

    // ---- reading ----

    /// Reads at least one byte into `into`; 0 is the end of the stream, or an empty `into`.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(&mut self, into: &mut [u8]) -> impl Future<Output = io::Result<usize>> {
        poll_fn(move |cx| self.poll_read_ref(cx, into))
    }

    /// Fills `into`.
    ///
    /// Not cancel safe: what was read before the future is dropped is in `into`, but nobody knows how much.
    ///
    /// # Errors
    /// The kernel's, or `UnexpectedEof` at the end of the stream.
    pub async fn read_exact(&mut self, into: &mut [u8]) -> io::Result<()> {
        whole::read_exact(into, |cx, rest| self.poll_read_ref(cx, rest)).await
    }

    /// Lends the next bytes, at least one and in the loop's own memory, to `take`, which can answer them beside.
    /// None at the end of the stream.
    ///
    /// This is the cheapest way to read: an idle stream needs no buffer, and nothing is copied. The answer leaves
    /// with the turn's other writes; wait for [`flush`](Self::flush) before reading more if the peer may be slow.
    ///
    /// Cancel safe: `take` has run and its result is returned, or it has not run.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read_with<R>(
        &mut self,
        take: impl FnOnce(&[u8], &mut Reply<'_>) -> R,
    ) -> impl Future<Output = io::Result<Option<R>>> {
        let mut take = Some(take);
        poll_fn(move |cx| {
            let (shared, token) = (&*self.shared, self.token);
            shared.poll_lend(token, usize::MAX, cx, |bytes| match take.take() {
                Some(take) if !bytes.is_empty() => Some(take(bytes, &mut Reply { shared, token })),
                _ => None,
            })
        })
    }

    /// Lends what can be read, at most `most` bytes; an empty slice at the end. `most` is above zero.
    pub(crate) fn poll_lend_ref<R>(
        &self,
        cx: &mut Context<'_>,
        most: usize,
        lend: impl FnOnce(&[u8]) -> R,
    ) -> Poll<io::Result<R>> {
        self.shared.poll_lend(self.token, most, cx, lend)
    }

    #[inline]
    pub(crate) fn poll_read_ref(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        if into.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let (shared, token) = (&*self.shared, self.token);
        shared.poll_io(token, Half::Read, cx, || shared.driver.recv(shared, token, into))
    }

    /// Reads by a call of the caller's own. None: the next bytes are to be read in another way.
    pub(super) fn poll_recv_by(
        &self,
        cx: &mut Context<'_>,
        mut receive: impl FnMut(&dyn Sys, Fd) -> io::Result<usize>,
    ) -> Poll<io::Result<Option<usize>>> {
        let (shared, token) = (&*self.shared, self.token);
        shared.poll_io(token, Half::Read, cx, || shared.driver.recv_by(shared, token, &mut receive))
    }

    // ---- writing ----

    /// Writes some of `from`, at least one byte unless it is empty.
    ///
    /// Cancel safe: dropped before it is ready, nothing was written.
    ///
    /// # Errors
    /// The kernel's; `BrokenPipe` after [`shutdown`](Self::shutdown).
    pub fn write(&mut self, from: &[u8]) -> impl Future<Output = io::Result<usize>> {
        poll_fn(move |cx| self.poll_write_ref(cx, from))
    }

    /// Writes some of what `from` has, in order and by one system call, at least one byte unless all are empty.
    ///
    /// Cancel safe: dropped before it is ready, nothing was written.
    ///
    /// # Errors
    /// The kernel's; `BrokenPipe` after [`shutdown`](Self::shutdown).
    pub async fn write_vectored(&mut self, from: &[io::IoSlice<'_>]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_write_vectored_ref(cx, from)).await
    }

    /// Writes all of `from`.
    ///
    /// Not cancel safe: a part may have been written when the future is dropped.
    ///
    /// # Errors
    /// The kernel's; `BrokenPipe` after [`shutdown`](Self::shutdown).
    pub fn write_all(&mut self, from: &[u8]) -> impl Future<Output = io::Result<()>> {
        whole::write_all(from, |cx, rest| self.poll_write_ref(cx, rest))
    }

    /// Queues a shared message, without a copy and without waiting; see [`Reply::send`].
    pub fn send(&mut self, message: &Message) -> Flow {
        self.shared.send(self.token, message)
    }

    /// Waits until everything queued has been handed to the kernel.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// What went wrong with bytes that were queued.
    pub fn flush(&mut self) -> impl Future<Output = io::Result<()>> {
        poll_fn(move |cx| self.poll_flush_ref(cx))
    }

    #[inline]
    pub(crate) fn poll_write_ref(&self, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        if from.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let (shared, token) = (&*self.shared, self.token);
        shared.poll_io(token, Half::Write, cx, || shared.driver.send(shared, token, from))
    }

    pub(crate) fn poll_write_vectored_ref(
        &self,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // Empty slices must not be all that the kernel sees.
        let first = from.iter().position(|slice| !slice.is_empty());
        let Some(from) = first.map(|first| &from[first..]) else { return Poll::Ready(Ok(0)) };
        let from = &from[..from.len().min(MOST_SLICES)];
        let (shared, token) = (&*self.shared, self.token);
        shared.poll_io(token, Half::Write, cx, || shared.driver.send_vectored(shared, token, from))
    }

    /// Sends by a call of the caller's own, which sends what is no memory of ours. What was written before goes first.
    pub(super) fn poll_send_by(
        &self,
        cx: &mut Context<'_>,
        mut send: impl FnMut(&dyn Sys, Fd) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let (shared, token) = (&*self.shared, self.token);
        shared.poll_io(token, Half::Write, cx, || shared.driver.send_by(shared, token, &mut send))
    }

    #[inline]
    pub(crate) fn poll_flush_ref(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shared.flags(self.token) & (flag::CORKED | flag::QUEUED | flag::HUNG_UP) == 0 {
            return Poll::Ready(Ok(()));
        }
        self.poll_flush_closer(cx)
    }

    #[cold]
    fn poll_flush_closer(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shared.flags(self.token) & flag::CORKED != 0 {
            self.shared.driver.flush(&self.shared);
        }
        if self.shared.flags(self.token) & flag::QUEUED != 0 {
            self.shared.wait_for(self.token, Half::Write, cx);
            return Poll::Pending;
        }
        // Whether the kernel would take more does not matter: nothing waits for it.
        Poll::Ready(self.shared.take_failure(self.token).map_or(Ok(()), Err))
    }

    /// Ready unless the kernel has refused some of what was written, and then when it has taken all of it. What was written in
    /// this batch of calls leaves with it, together with other connections' writes; a [flush](Self::flush) makes it leave at
    /// once, at the price of a system call or submission of its own. For the flushing of a protocol that flushes after each
    /// message.
    ///
    /// # Errors
    /// The kernel's, from writing what had been queued.
    pub fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flags = self.shared.flags(self.token);
        if flags & flag::QUEUED != 0 {
            self.shared.wait_for(self.token, Half::Write, cx);
            return Poll::Pending;
        }
        if flags & flag::HUNG_UP == 0 {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(self.shared.take_failure(self.token).map_or(Ok(()), Err))
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.poll_io(self.token, Half::Write, cx, || Ok(()))
    }

    /// Ends the write half after what is queued; the peer reads the end of the stream.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_shutdown_ref(cx)).await
    }

    pub(crate) fn poll_shutdown_ref(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush_ref(cx))?;
        let mut core = self.shared.core.borrow_mut();
        let Some(s) = core.sources.get_mut(self.token) else { return Poll::Ready(Ok(())) };
        if s.has(flag::RESET) {
            // It has failed, and an end would make the peer believe that it has everything.
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if s.has(flag::SHUT) {
            return Poll::Ready(Ok(()));
        }
        s.set(flag::SHUT);
        drop(core);
        match self.shared.driver.shutdown(&self.shared, self.token, Shutdown::Write) {
            // The peer is gone: its end has come already.
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            other => Poll::Ready(other),
        }
    }

    // ---- the rest ----

    /// Resets the connection: what is queued is lost and the peer sees an error.
    pub fn abort(self) {
        self.shared.abort(self.token, CloseReason::Aborted);
    }

    /// The address of the other end.
    ///
    /// # Errors
    /// The kernel's, for instance when the peer is gone already.
    pub fn peer_addr(&self) -> io::Result<Addr> {
        self.shared.peer_addr(self.token)
    }

    /// The address of this end.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<Addr> {
        self.shared.local_addr(self.token)
    }

    /// Sets an option of the socket.
    ///
    /// # Errors
    /// The kernel's, for instance for an option that a Unix socket does not have.
    pub fn set_option(&self, option: SocketOption) -> io::Result<()> {
        self.shared.set_option(self.token, option)
    }

    /// Two borrowed halves, for two futures of one task.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        (ReadHalf::new(self), WriteHalf::new(self))
    }

    /// Two owned halves, for two tasks. The stream closes when both are dropped.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        let both = Rc::new(self);
        (OwnedReadHalf::new(both.clone()), OwnedWriteHalf::new(both))
    }
}

/// What a stream was made of, as [`Stream::into_parts`] gives it away.
#[derive(Debug)]
#[non_exhaustive]
pub struct StreamParts {
    /// The socket, non-blocking.
    pub fd: OwnedFd,
    /// Bytes that were received and not read: they come before all that the socket still has. Always empty on a
    /// readiness backend unless the stream came from a handler with some.
    pub unread: Vec<u8>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.close(self.token);
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("token", &self.token).finish_non_exhaustive()
    }
}

/// The sending side of a stream, lent beside the bytes that it may answer.
pub struct Reply<'a> {
    shared: &'a Shared,
    token: Token,
}

impl Reply<'_> {
    /// Sends a copy of `bytes`, with the turn's other writes. More than 1 MiB queued ends the stream with an
    /// error: wait for [`Stream::flush`] when [`Flow::Hold`] is answered.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> Flow {
        self.shared.write(self.token, bytes)
    }

    /// Sends a shared message, without a copy. Otherwise as [`write`](Self::write).
    pub fn send(&mut self, message: &Message) -> Flow {
        self.shared.send(self.token, message)
    }
}

impl fmt::Debug for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}
