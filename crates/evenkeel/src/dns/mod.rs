//! Names of hosts: resolving them without keeping the loop waiting, and connecting to whichever of their addresses answers.
//!
//! The system's resolver blocks: it asks name servers over the network, for as long as they take. So it runs on threads of
//! the [`pool`](crate::pool)'s lane of names, and the loop goes on. A host with several addresses is connected to by happy
//! eyeballs (RFC 8305), so that one which does not answer, such as IPv6 behind a router that drops it, costs a quarter of a
//! second and not a minute.
//!
//! ```
//! use evenkeel::{EventLoop, net::{TcpListener, TcpStream}};
//! let mut events = EventLoop::new()?;
//! events.block_on(async {
//!     let listener = TcpListener::bind("127.0.0.1:0")?;
//!     let port = listener.local_addr()?.socket_addr().unwrap().port();
//!     let stream = TcpStream::connect_host(&format!("localhost:{port}")).await?;
//!     assert_eq!(stream.peer_addr()?, listener.local_addr()?);
//!     Ok::<(), std::io::Error>(())
//! })??;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! For a connection with callbacks, hand the stream over by [`Pool::adopt`](crate::net::Pool::adopt).
//!
//! # Semantics
//!
//! - **Addresses are no names.** `127.0.0.1` and `::1` need neither a thread nor a resolver.
//! - **Equal lookups are one.** Who asks a loop for a host and port that it is resolving already gets the same answer.
//! - **Nothing is cached**: an answer is given to those who waited for it, and forgotten. The system's resolver, or a name
//!   server nearby, has a cache that knows how long an answer holds.
//! - **Deadlines.** Waiting ends after five seconds, unless told otherwise, with `TimedOut`. The resolver goes on, since nothing
//!   can end it: an equal lookup meanwhile waits for the same answer, so one name keeps one thread at most.
//!   [`LoopStats::lookups_abandoned`](crate::LoopStats::lookups_abandoned) counts such threads; if all of the lane's hang, further
//!   lookups wait until their deadlines.
//! - **Dropping a future** takes its lookup back, unless it has begun or others wait for it, and abandons attempts to connect.
//! - **Another resolver** is set by [`Builder::resolver`](crate::Builder::resolver): for tests, for simulation, or for one that
//!   has its own cache.

mod error;
mod lookup;
mod race;
mod resolver;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use self::lookup::ask;
use self::race::{MOST_ATTEMPTS, Race, interleave};
use self::resolver::{literal, split};
use crate::handle::Handle;
use crate::net::{ConnectOptions, Stream};
use crate::time;

pub use self::error::{Attempt, ConnectError, ResolveError};
pub(crate) use self::lookup::Names;
pub use self::resolver::{Resolver, System};

/// How long a lookup may take, unless told otherwise.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of a name: as many as the system's resolver takes.
const MOST_BYTES: usize = 255;

/// The addresses of a host, at least one, with this port and the preferred first. Five seconds are allowed.
///
/// Cancel safe.
///
/// # Errors
/// [`ResolveError`] tells the name, and why it has no address.
///
/// # Panics
/// Outside of a running loop.
pub async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
    resolve_within(host, port, LOOKUP_DEADLINE).await
}

/// As [`resolve`], with another deadline.
///
/// # Errors
/// As for [`resolve`].
///
/// # Panics
/// Outside of a running loop.
pub async fn resolve_within(
    host: &str,
    port: u16,
    deadline: Duration,
) -> Result<Vec<SocketAddr>, ResolveError> {
    if let Some(address) = literal(host, port) {
        return Ok(vec![address]);
    }
    if host.is_empty() || host.len() > MOST_BYTES || host.contains('\0') {
        return Err(ResolveError::invalid(host));
    }
    let lp = Handle::current().shared;
    match time::timeout(deadline, ask(&lp, host, port)).await {
        Ok(found) => Ok(found?.to_vec()),
        Err(time::Elapsed) => {
            lp.stats.add(&lp.stats.lookups_timed_out);
            Err(ResolveError::timed_out(host, deadline))
        }
    }
}

/// How a connection to a host is made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HostOptions {
    /// How long resolving the name may take. Default 5 seconds.
    pub lookup_deadline: Duration,
    /// How long an attempt is in progress before the next address is tried beside it. Default 250 ms, as RFC 8305
    /// recommends; it advises against less than 100 ms.
    pub attempt_delay: Duration,
    /// How long all may take together. Default 30 seconds.
    pub deadline: Option<Duration>,
    /// How each attempt is made. Its deadline is that of one attempt.
    pub attempt: ConnectOptions,
}

impl Default for HostOptions {
    fn default() -> Self {
        HostOptions {
            lookup_deadline: LOOKUP_DEADLINE,
            attempt_delay: Duration::from_millis(250),
            deadline: Some(Duration::from_secs(30)),
            attempt: ConnectOptions::default(),
        }
    }
}

/// Connects to a host on the current loop: resolves it, and tries its addresses (32 at most) by happy eyeballs, the families by
/// turns. The first connection that is established wins; the others are dropped.
///
/// Cancel safe: dropping the future abandons what it has begun.
///
/// # Errors
/// [`ConnectError`]: why the host was not resolved, or what came of each attempt.
///
/// # Panics
/// Outside of a running loop.
pub async fn connect(host: &str, port: u16, options: &HostOptions) -> Result<Stream, ConnectError> {
    let ends = options.deadline.and_then(|deadline| time::now().checked_add(deadline));
    let lookup = options.deadline.unwrap_or(Duration::MAX).min(options.lookup_deadline);
    let mut order = interleave(&resolve_within(host, port, lookup).await?);
    let too_many = order.len().saturating_sub(MOST_ATTEMPTS);
    order.truncate(MOST_ATTEMPTS);
    let mut race = Race::new(order, options.attempt_delay);
    let mut begin = |to| Stream::connect_with(to, &options.attempt);
    let mut alarm = ends.map(time::sleep_until);
    let winner = poll_fn(|cx| match race.poll(cx, &mut begin) {
        Poll::Pending => match &mut alarm {
            Some(alarm) => Pin::new(alarm).poll(cx).map(|()| None),
            None => Poll::Pending,
        },
        over => over,
    });
    if let Some(winner) = winner.await {
        return Ok(winner);
    }
    let (attempts, left) = race.give_up();
    Err(ConnectError::Failed { host: host.to_owned(), attempts, not_tried: left + too_many })
}

impl Stream {
    /// Connects to `HOST:PORT` on the current loop, with the default [`HostOptions`]: the host is a name, or an address as in
    /// `127.0.0.1:80` and `[::1]:80`. [`dns::connect`](connect) takes options.
    ///
    /// Cancel safe: dropping the future abandons what it has begun.
    ///
    /// # Errors
    /// `InvalidInput` for other text; else those of [`dns::connect`](connect), which [`io::Error::get_ref`] gives back.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub async fn connect_host(to: &str) -> io::Result<Stream> {
        let Some((host, port)) = split(to) else {
            let what =
                format!("`{}` is not HOST:PORT (as in example.com:443 or [::1]:80)", to.escape_debug());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        };
        Ok(connect(host, port, &HostOptions::default()).await?)
    }
}

#[cfg(test)]
mod tests;
