//! Connections that move to another loop.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Pool, Stream};
use crate::core::parcel::Cargo;
use crate::handle::Handle;
use crate::handler::{ConnId, Handler};
use crate::remote::{Remote, RemoteError};
use crate::sys::{post, table};

/// A live connection on its way to another loop: what [`Stream::pack`] and [`Conn::pack`](crate::Conn::pack) make of one.
///
/// A connection mostly stays with its loop for life, as its state does. A server moves one when loops have become uneven, or
/// when it turns out late where a connection belongs: with the room, the shard or the cache that it asks for.
///
/// Nothing is lost on the way, whichever backends the loops run on. Along go the bytes that were received and not read, and
/// those that were queued, in their order and with their times (shared messages stay shared); the ends of both halves, be
/// they seen or still to come; a failure that nobody has heard of; the socket's options. From one handler to another also
/// the message in progress, with what counts for its limits, a pending notification, and whether
/// [`on_drained`](Handler::on_drained) is owed. Limits are those of the [`Pool`] that it comes to. Pausing is not kept.
///
/// A parcel belongs to no loop, and nothing is read or sent until it is unpacked, by [`unpack`](Self::unpack) or by
/// [`Pool::unpack`]. Dropped instead, it resets its connection: so does a loop that ends with a parcel in its mailbox.
///
/// ```
/// use evenkeel::{EventLoop, group::Group, net::{Stream, TcpListener}};
///
/// # fn main() -> std::io::Result<()> {
/// let group = Group::builder().loops(1).build(|_, _| Ok(()))?;
/// let elsewhere = group.remote(0);
/// let mut events = EventLoop::new()?;
/// let answer = events.block_on(async move {
///     let mut listener = TcpListener::bind("127.0.0.1:0")?;
///     let mut client = Stream::connect(listener.local_addr()?).await?;
///     let (stream, _peer) = listener.accept().await?;
///     client.write_all(b"ping").await?;
///
///     stream.pack()?.send(&elsewhere, |handle, parcel| {
///         let Ok(mut stream) = parcel.unpack(handle) else { return };
///         handle.spawn(async move { stream.read_with(|bytes, reply| reply.write(bytes)).await }).detach();
///     })?;
///     let mut answer = [0; 4];
///     client.read_exact(&mut answer).await.map(|()| answer)
/// })??;
/// assert_eq!(&answer, b"ping");
/// # Ok(())
/// # }
/// ```
#[must_use = "a connection that is not unpacked is reset"]
#[derive(Debug)]
pub struct Parcel {
    cargo: Cargo,
}

/// A parcel that was not taken, and why. The connection is whole: unpacked on the loop that it came from, it goes on there.
#[derive(Debug)]
pub struct Refused {
    /// The connection, as it was.
    pub parcel: Parcel,
    /// `WouldBlock` when the loop's mailbox is full, `NotConnected` when the loop has ended; when it was to be unpacked, also
    /// the kernel's, or `Unsupported` where the backend cannot watch so high a descriptor, or the loop has another descriptor
    /// table than the one that the connection has left.
    pub error: io::Error,
}

impl Parcel {
    pub(crate) fn new(cargo: Cargo) -> Self {
        Parcel { cargo }
    }

    /// Sends it to a loop, where `arrive` unpacks it, whichever descriptor tables the two have. If `arrive` panics, which is counted there, the connection is reset.
    ///
    /// # Errors
    /// Gives it back when the loop's mailbox is full, or the loop has ended; or, with `Unsupported`, when the loop has another
    /// [descriptor table](crate::group#descriptor-tables) and this is not a loop of its group.
    pub fn send(
        self,
        to: &Remote,
        arrive: impl FnOnce(&Handle, Parcel) + Send + 'static,
    ) -> Result<(), Refused> {
        if !table::is_here(to.inbox.table) {
            return self.cross(to, arrive);
        }
        let call = |parcel| Box::new(move |handle: &Handle| arrive(handle, parcel)) as _;
        to.offer(self, call).map_err(|(parcel, error)| Refused { parcel, error: error.into() })
    }

    /// To a loop with another table. Whatever loses the descriptor on its way resets the connection by that.
    fn cross(
        mut self,
        to: &Remote,
        arrive: impl FnOnce(&Handle, Parcel) + Send + 'static,
    ) -> Result<(), Refused> {
        let here = Handle::try_current();
        let Some((here, fd)) = here.and_then(|here| Some((here, self.cargo.take_fd()?))) else {
            return Err(Refused { parcel: self, error: RemoteError::NoWay.into() });
        };
        let before = post::doom(&fd);
        // Left here, so that a refusal leaves it to the caller.
        let parcel = Arc::new(Mutex::new(Some(self)));
        let left = parcel.clone();
        let take = |from: &Mutex<Option<Parcel>>| from.lock().unwrap_or_else(PoisonError::into_inner).take();
        let sent = here.shared.post(to, vec![fd], move |handle, fds| {
            let fd = fds.ok().and_then(|fds| fds.into_iter().next());
            let Some((fd, mut parcel)) = fd.zip(take(&parcel)) else { return };
            post::pardon(&fd, before);
            parcel.cargo.put_fd(fd);
            arrive(handle, parcel);
        });
        let Err((error, fds)) = sent else { return Ok(()) };
        match fds.into_iter().next().zip(take(&left)) {
            Some((fd, mut parcel)) => {
                post::pardon(&fd, before);
                parcel.cargo.put_fd(fd);
                Err(Refused { parcel, error: error.into() })
            }
            None => Ok(()),
        }
    }

    /// Makes it a stream of this loop's tasks.
    ///
    /// # Errors
    /// Gives it back when the loop has ended, or its backend cannot serve it.
    pub fn unpack(self, handle: &Handle) -> Result<Stream, Refused> {
        let shared = &handle.shared;
        match shared.unpack(self.cargo) {
            Ok(token) => Ok(Stream::from_parts(shared.clone(), token)),
            Err((cargo, error)) => Err(Refused { parcel: Parcel { cargo }, error }),
        }
    }
}

impl<H: Handler> Pool<H> {
    /// Makes a parcel a connection of this pool. Its handler hears `on_open` in the next turn, then what is unread, then the
    /// peer's end if it has come, even if the last owner had heard of it.
    ///
    /// # Errors
    /// Gives parcel and handler back when the loop has ended, its backend cannot serve it, or it was a stream that has
    /// failed.
    pub fn unpack(&self, parcel: Parcel, handler: H) -> Result<ConnId, (Refused, H)> {
        match self.shared.unpack_for(parcel.cargo, &self.typed, handler) {
            Ok(token) => Ok(ConnId { token, owner: self.shared.id }),
            Err((cargo, error, handler)) => Err((Refused { parcel: Parcel { cargo }, error }, handler)),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the connection was not moved: {}", self.error)
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<Refused> for io::Error {
    /// The connection is reset.
    fn from(refused: Refused) -> Self {
        refused.error
    }
}
