//! What a listener, a connection and a socket can be told.

use std::net::SocketAddr;
use std::time::Duration;

#[cfg(doc)]
use crate::CloseReason;

/// How a listening socket is made. The defaults suit a server on the public internet.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ListenOptions {
    /// How many connections the kernel may hold before they are accepted. It caps this at
    /// `net.core.somaxconn`. Default 4,096.
    pub backlog: u32,
    /// `SO_REUSEADDR`: a restarted server can bind while old connections are in TIME_WAIT. Default true.
    pub reuse_addr: bool,
    /// `SO_REUSEPORT`: several sockets may listen on this address and the kernel spreads connections over
    /// them. Default false.
    pub reuse_port: bool,
    /// Whether a listener on `[::]` also takes IPv4 connections. Default true.
    pub dual_stack: bool,
    /// `TCP_NODELAY` on each accepted connection. Writes are corked by the loop, so waiting in the kernel
    /// gains nothing. Default true. Ignored by Unix sockets.
    pub nodelay: bool,
    /// TCP keep-alive on each accepted connection. Default none: an idle timeout or a protocol's own
    /// heartbeat notices dead peers sooner.
    pub keepalive: Option<KeepAlive>,
    /// `SO_RCVBUF` in bytes, which accepted connections inherit. Default: the kernel's own tuning.
    pub recv_buffer: Option<usize>,
    /// `SO_SNDBUF` in bytes, which accepted connections inherit. Default: the kernel's own tuning.
    pub send_buffer: Option<usize>,
    /// Remove a Unix socket's file before binding, and when the listener closes. Default true.
    pub unlink: bool,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            backlog: 4096,
            reuse_addr: true,
            reuse_port: false,
            dual_stack: true,
            nodelay: true,
            keepalive: None,
            recv_buffer: None,
            send_buffer: None,
            unlink: true,
        }
    }
}

/// What becomes of connections that wait in a listener's queue when it closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Closing {
    /// The kernel resets them, unless another process has the socket, too. The listener closes at once.
    Now,
    /// Another process has the socket and serves who comes. Those that wait now are still served here: the kernel may have told
    /// nobody else of them. A Unix socket's file stays: it is the other process's.
    HandedOver,
    /// They are served here, until the queue is empty; it closes then. Whoever comes between the last look at the queue and
    /// the closing is reset, which no process can prevent that has no successor.
    Drained,
}

/// How a connection is made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// The local address to connect from. Default: the kernel chooses.
    pub bind: Option<SocketAddr>,
    /// `TCP_NODELAY`. Default true.
    pub nodelay: bool,
    /// How long the connection may take to be established. Default 30 seconds.
    pub deadline: Option<Duration>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { bind: None, nodelay: true, deadline: Some(Duration::from_secs(30)) }
    }
}

/// When the kernel probes a silent peer. Times are rounded to whole seconds by the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes after which the connection is dead.
    pub probes: u32,
}

/// An option of one open socket.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum SocketOption {
    /// `TCP_NODELAY`.
    NoDelay(bool),
    /// TCP keep-alive; `None` turns it off.
    KeepAlive(Option<KeepAlive>),
    /// `SO_SNDBUF`, in bytes.
    SendBuffer(usize),
    /// `SO_RCVBUF`, in bytes.
    RecvBuffer(usize),
    /// Closing the descriptor resets the connection (`SO_LINGER` of zero).
    ResetOnClose,
}

/// What a callback connection may cost and how slow its peer may be.
///
/// A connection that breaks a limit is reset, and its handler hears the reason in
/// [`on_close`](crate::Handler::on_close). All connections of one [`Pool`](crate::net::Pool) share one `Limits`,
/// so a connection pays nothing for them. Deadlines are checked by a sweep over the connections, late by at
/// most an eighth of the shortest of them; an event pays one store for it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Nothing received and nothing sent for so long: [`CloseReason::IdleTimeout`]. Default 120 s.
    pub idle_timeout: Option<Duration>,
    /// How long a message in progress may take to be complete: [`CloseReason::MessageTimeout`]. The first is
    /// in progress from the start. A handler that frames messages says so by
    /// [`Conn::message_started`](crate::Conn::message_started) and
    /// [`Conn::message_done`](crate::Conn::message_done); for one that does not, the first bytes are the first
    /// message. Default 30 s.
    pub message_deadline: Option<Duration>,
    /// Bytes for each second that a peer must send while a message is in progress that the handler announced,
    /// after `rate_grace`: [`CloseReason::TooSlow`]. Default 128.
    pub min_rate: u32,
    /// How long a message may be in progress before `min_rate` is asked of it. Default 10 s.
    pub rate_grace: Duration,
    /// Queued bytes above which [`Flow::Hold`](crate::Flow::Hold) is answered to writes. Default 64 KiB.
    pub high_watermark: usize,
    /// Queued bytes at which [`on_drained`](crate::Handler::on_drained) is called, after the high watermark
    /// had been passed. Default 16 KiB.
    pub low_watermark: usize,
    /// Queued bytes, the queue's own memory included, past which the connection is closed:
    /// [`CloseReason::QueueFull`]. Default 1 MiB.
    pub max_queue_bytes: usize,
    /// Queued messages past which the connection is closed: [`CloseReason::TooManyQueued`]. Default 4,096.
    pub max_queue_messages: usize,
    /// How long the oldest queued byte may wait: [`CloseReason::QueueStalled`]. Default 60 s.
    pub max_queue_age: Option<Duration>,
    /// How long [`close`](crate::Conn::close) may take to flush what is queued, and to wait for the end of a peer that still
    /// sends. Default 5 s.
    pub close_deadline: Duration,
    /// How many connections the pool may hold; while it is full its listeners accept none, and newcomers wait
    /// in the kernel's backlog. Default none.
    pub max_connections: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            idle_timeout: Some(Duration::from_secs(120)),
            message_deadline: Some(Duration::from_secs(30)),
            min_rate: 128,
            rate_grace: Duration::from_secs(10),
            high_watermark: 64 << 10,
            low_watermark: 16 << 10,
            max_queue_bytes: 1 << 20,
            max_queue_messages: 4096,
            max_queue_age: Some(Duration::from_secs(60)),
            close_deadline: Duration::from_secs(5),
            max_connections: None,
        }
    }
}

impl Limits {
    /// The shortest time limit, which decides how often connections are looked over.
    pub(crate) fn shortest(&self) -> Option<Duration> {
        let rate = (self.min_rate > 0).then_some(self.rate_grace.max(Duration::from_secs(1)));
        [self.idle_timeout, self.message_deadline, self.max_queue_age, rate].into_iter().flatten().min()
    }
}
