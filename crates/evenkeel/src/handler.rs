//! Callbacks: one [`Handler`] for each connection, and the [`Conn`] that it is called with.
//!
//! The loop owns the memory that bytes arrive in and lends it for the length of a call, so an idle connection
//! holds no buffer, and forgetting to drain an edge-triggered socket is impossible. What a handler writes is
//! collected and leaves together, after the callbacks.
//!
//! ```no_run
//! use evenkeel::{Conn, EventLoop, Handler};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
//!         conn.write(bytes);
//!     }
//! }
//!
//! fn main() -> std::io::Result<()> {
//!     let mut events = EventLoop::new()?;
//!     events.handle().listen("127.0.0.1:7000", |_peer| Echo)?;
//!     events.run()
//! }
//! ```

use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use crate::core::{Shared, Token};
use crate::handle::Handle;
use crate::message::Message;
use crate::net::{Addr, Parcel, SocketOption, Stream};

/// One connection's part of the program: a state machine that the loop calls.
///
/// The calls for one connection come in the order `on_open`, then any of the others, then `on_close` exactly
/// once and last. A handler never runs inside another handler's call: what a call causes is dispatched after it.
/// No call comes after [`Conn::detach`] or [`Conn::pack`]. A panic in any of them resets the connection with
/// [`CloseReason::Panicked`] and is counted; the loop goes on.
///
/// A handler must not block: every other connection of the loop waits meanwhile.
///
/// A protocol of lines, whose incomplete lines have a deadline:
///
/// ```no_run
/// use evenkeel::{Conn, EventLoop, Handler};
///
/// #[derive(Default)]
/// struct Upper {
///     line: Vec<u8>,
/// }
///
/// impl Handler for Upper {
///     fn on_open(&mut self, conn: &mut Conn<'_>) {
///         conn.message_started();
///     }
///
///     fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
///         for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
///             self.line.extend_from_slice(piece);
///             if self.line.len() > 8192 {
///                 return conn.abort();
///             }
///             if self.line.ends_with(b"\n") {
///                 conn.write(&self.line.to_ascii_uppercase());
///                 self.line.clear();
///             }
///         }
///         if self.line.is_empty() { conn.message_done() } else { conn.message_started() }
///     }
/// }
///
/// # fn main() -> std::io::Result<()> {
/// let mut events = EventLoop::new()?;
/// events.handle().listen("127.0.0.1:7000", |_peer| Upper::default())?;
/// events.run()
/// # }
/// ```
pub trait Handler: 'static {
    /// The connection is established. Called before any bytes are delivered.
    fn on_open(&mut self, conn: &mut Conn<'_>) {
        let _ = conn;
    }

    /// Bytes arrived, at least one. They are lent for this call only; none are delivered while the connection
    /// is paused or after it was closed.
    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]);

    /// The peer sends no more. Writing goes on being possible until the connection is closed, which is what
    /// this does unless it is overridden.
    fn on_eof(&mut self, conn: &mut Conn<'_>) {
        conn.close();
    }

    /// The out-queue, having passed the high watermark, has fallen to the low one.
    fn on_drained(&mut self, conn: &mut Conn<'_>) {
        let _ = conn;
    }

    /// Somebody called [`Handle::notify`](crate::Handle::notify) or [`Conn::notify_after`]. Several requests
    /// that were made before the call are one.
    fn on_notify(&mut self, conn: &mut Conn<'_>) {
        let _ = conn;
    }

    /// A [drain](crate::net::Drain) has begun: the connection is to finish what it is in the middle of, and then to
    /// [close](Conn::close). If it does not, the drain closes it when its time has come, which is all that happens unless
    /// this is overridden.
    fn on_drain(&mut self, conn: &mut Conn<'_>) {
        let _ = conn;
    }

    /// The connection is over, `id` is stale and the descriptor is about to be released. The handler is dropped
    /// after this call.
    fn on_close(&mut self, id: ConnId, reason: &CloseReason) {
        let _ = (id, reason);
    }
}

/// Why a connection is over.
///
/// After `Local` and `Draining` the peer has read the end of the stream. A connection that broke a limit, panicked or was aborted is
/// reset: what was queued is lost, and the peer sees an error, never a part that passes for the whole.
#[derive(Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// This side closed it and everything queued was handed to the kernel.
    Local,
    /// This side closed it, and the deadline passed with bytes still queued.
    FlushTimeout,
    /// This side aborted it, or closed it before it was established; what was queued is lost, and a peer sees a
    /// reset.
    Aborted,
    /// It could not be established.
    ConnectFailed(io::Error),
    /// The kernel reported an error, such as a reset by the peer.
    Error(io::Error),
    /// Silent for longer than [`Limits::idle_timeout`](crate::net::Limits::idle_timeout).
    IdleTimeout,
    /// A message took longer than [`Limits::message_deadline`](crate::net::Limits::message_deadline).
    MessageTimeout,
    /// A message came slower than [`Limits::min_rate`](crate::net::Limits::min_rate).
    TooSlow,
    /// More bytes were queued than [`Limits::max_queue_bytes`](crate::net::Limits::max_queue_bytes) allows.
    QueueFull,
    /// More messages were queued than
    /// [`Limits::max_queue_messages`](crate::net::Limits::max_queue_messages) allows.
    TooManyQueued,
    /// The oldest queued byte waited longer than
    /// [`Limits::max_queue_age`](crate::net::Limits::max_queue_age).
    QueueStalled,
    /// A [drain](crate::net::Drain) closed it, and everything queued was handed to the kernel.
    Draining,
    /// A call of its handler panicked.
    Panicked,
    /// The loop ended.
    LoopEnded,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::ConnectFailed(e) => write!(f, "connect failed: {e}"),
            CloseReason::Error(e) => write!(f, "{e}"),
            other => f.write_str(other.name()),
        }
    }
}

impl CloseReason {
    /// A short name that is the same for all values of one kind, as a metric's label wants it.
    pub fn name(&self) -> &'static str {
        match self {
            CloseReason::Local => "closed",
            CloseReason::FlushTimeout => "flush timeout",
            CloseReason::Aborted => "aborted",
            CloseReason::ConnectFailed(_) => "connect failed",
            CloseReason::Error(_) => "error",
            CloseReason::IdleTimeout => "idle timeout",
            CloseReason::MessageTimeout => "message timeout",
            CloseReason::TooSlow => "too slow",
            CloseReason::QueueFull => "queue full",
            CloseReason::TooManyQueued => "too many messages queued",
            CloseReason::QueueStalled => "queue stalled",
            CloseReason::Draining => "draining",
            CloseReason::Panicked => "handler panicked",
            CloseReason::LoopEnded => "loop ended",
        }
    }
}

/// What became of a write, and whether more is welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Taken; go on.
    Go,
    /// Taken, but more is queued than the high watermark: wait for
    /// [`on_drained`](Handler::on_drained) before producing more.
    Hold,
    /// Not taken: the connection is closing or its write half has ended.
    Closed,
}

/// A weak, copyable handle of one callback connection.
///
/// Using it after the connection is over is an error value, as is using it on another loop than its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    pub(crate) token: Token,
    pub(crate) owner: u32,
}

impl ConnId {
    /// The id as numbers: to be sent to another process and to come back, or for a log.
    pub fn to_bits(self) -> (u64, u32) {
        (self.token.to_u64(), self.owner)
    }

    /// The id of these numbers. Numbers that came from nowhere name no connection, or one of this loop: an id is no
    /// permission.
    pub fn from_bits((token, owner): (u64, u32)) -> ConnId {
        ConnId { token: Token::from_u64(token), owner }
    }
}

/// A [`ConnId`] that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StaleConn {
    /// The connection is over or has become a stream.
    Gone,
    /// The connection is of another loop.
    OtherLoop,
}

impl fmt::Display for StaleConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StaleConn::Gone => "the connection is over or belongs to a task now",
            StaleConn::OtherLoop => "the connection is of another loop; send a message to that loop instead",
        })
    }
}

impl std::error::Error for StaleConn {}

/// A connection, lent to its handler for the length of one call.
pub struct Conn<'a> {
    pub(crate) shared: &'a Rc<Shared>,
    pub(crate) token: Token,
    /// Where the pool keeps its handler.
    pub(crate) slot: u32,
    /// It has no handler any more.
    pub(crate) moved: bool,
}

impl Conn<'_> {
    /// The handle by which this connection is reached from elsewhere.
    pub fn id(&self) -> ConnId {
        ConnId { token: self.token, owner: self.shared.id }
    }

    /// The loop, for everything that is not about this connection.
    pub fn handle(&self) -> Handle {
        Handle::from_shared(self.shared.clone())
    }

    /// Sends a copy of `bytes`. Writes of one callback leave together, in order, after it; what the kernel does
    /// not take at once is queued.
    ///
    /// Passing the queue's hard cap closes the connection with [`CloseReason::QueueFull`].
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> Flow {
        self.shared.write(self.token, bytes)
    }

    /// Sends a shared message, without a copy. Otherwise as [`write`](Self::write).
    #[inline]
    pub fn send(&mut self, message: &Message) -> Flow {
        self.shared.send(self.token, message)
    }

    /// Bytes that were written and that the kernel has not taken.
    pub fn queued(&self) -> usize {
        self.shared.queued(self.token)
    }

    /// Delivers nothing more until [`resume`](Self::resume). The kernel's buffer fills up and the peer is slowed
    /// down.
    pub fn pause(&mut self) {
        self.shared.pause(self.token);
    }

    /// Takes back [`pause`](Self::pause).
    pub fn resume(&mut self) {
        self.shared.resume(self.token);
    }

    /// Ends the write half once everything written so far is sent; the peer reads the end of the stream. Reading
    /// goes on.
    pub fn shutdown_write(&mut self) {
        self.shared.shutdown_write(self.token);
    }

    /// Delivers nothing more, sends what is queued until [`Limits::close_deadline`](crate::net::Limits), then
    /// closes. Writes after this are refused.
    ///
    /// A peer whose bytes are there and unread at that moment is waited for, as by
    /// [`close_lingering`](Self::close_lingering). One whose bytes come later is reset, which can destroy what it has not read.
    pub fn close(&mut self) {
        self.shared.close(self.token);
    }

    /// As [`close`](Self::close), for one who may still be sending and is to read the last word in any case: a client that
    /// is told of its mistake in the middle of a request. Once all is sent the write half ends, and what still comes is thrown
    /// away until the peer's end, for as long as [`Limits::close_deadline`](crate::net::Limits) allows and up to 16 MiB.
    ///
    /// Until then the connection has its descriptor and its place in the pool, for a peer that never ends too: so a server that
    /// turns many away does not do it for all of them.
    pub fn close_lingering(&mut self) {
        self.shared.close_lingering(self.token);
    }

    /// Resets the connection at once: what is queued is lost, and the peer sees an error.
    pub fn abort(&mut self) {
        self.shared.abort(self.token, CloseReason::Aborted);
    }

    /// A message has begun: from now on the message deadline and the minimum rate count, until
    /// [`message_done`](Self::message_done). A connection begins with a message in progress; a handler that
    /// calls this in `on_open` says that the first bytes alone do not complete it.
    pub fn message_started(&mut self) {
        self.shared.message_started(self.token);
    }

    /// The message in progress is complete; only the idle timeout counts.
    pub fn message_done(&mut self) {
        self.shared.message_done(self.token);
    }

    /// Asks for [`on_notify`](Handler::on_notify) after `delay`. It does not come if the connection is over by
    /// then.
    pub fn notify_after(&mut self, delay: Duration) {
        self.shared.notify_after(self.token, delay);
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
    pub fn set_option(&mut self, option: SocketOption) -> io::Result<()> {
        self.shared.set_option(self.token, option)
    }

    /// Turns the connection into an asynchronous stream, with `unread` as the first bytes to be read and with
    /// everything that is queued. The handler is dropped after the current call and hears nothing more;
    /// [`id`](Self::id) is stale. Returns none if the connection is closing.
    pub fn detach(&mut self, unread: &[u8]) -> Option<Stream> {
        let stream = Shared::detach(self.shared, self.token, unread)?;
        self.moved = true;
        Some(stream)
    }

    /// Takes the connection off this loop, to move it to another one, with `unread` as the first bytes to be read there and
    /// with all that it is in the middle of. The handler is dropped after the current call and hears nothing more;
    /// [`id`](Self::id) is stale.
    ///
    /// ```
    /// # use evenkeel::{Conn, EventLoop, Handler, Remote, net::{Limits, Pool}};
    /// # use std::cell::RefCell;
    /// thread_local! {
    ///     /// Each loop's own, made when the loop is set up.
    ///     static ROOMS: RefCell<Option<Pool<Member>>> = const { RefCell::new(None) };
    /// }
    ///
    /// struct Member;
    /// # impl Handler for Member { fn on_data(&mut self, _: &mut Conn<'_>, _: &[u8]) {} }
    ///
    /// struct Lobby { room: Remote }
    /// impl Handler for Lobby {
    ///     fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
    ///         let Ok(parcel) = conn.pack(bytes) else { return };
    ///         let _ = parcel.send(&self.room, |_handle, parcel| {
    ///             ROOMS.with_borrow(|rooms| rooms.as_ref().map(|pool| pool.unpack(parcel, Member)));
    ///         });
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// `NotConnected` when the connection is closing or over; the kernel's, if it will not end what it was asked to receive:
    /// the connection is reset then, and the handler hears of it.
    pub fn pack(&mut self, unread: &[u8]) -> io::Result<Parcel> {
        let cargo = self.shared.pack(self.token, unread)?;
        self.moved = true;
        Ok(Parcel::new(cargo))
    }
}

impl fmt::Debug for Conn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("id", &self.id()).finish_non_exhaustive()
    }
}
