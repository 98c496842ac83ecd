//! A listener that a task accepts from.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::pool::{AcceptedSetup, listen, listen_on};
use super::{Addr, Closing, IntoAddr, ListenOptions, Stream};
use crate::core::async_io::Half;
use crate::core::{Kind, Shared, Token, flag};
use crate::handle::Handle;
use crate::handler::CloseReason;

/// Accepts streams, over TCP or a Unix socket. Dropping it stops listening.
///
/// When descriptors run out, newcomers are reset instead of being kept waiting, [`accept`](Self::accept) stays
/// pending, and accepting goes on within 100 ms of descriptors being free again.
pub struct Listener {
    shared: Rc<Shared>,
    token: Token,
    setup: AcceptedSetup,
    /// At once.
    stopped: bool,
}

impl Listener {
    /// Listens on the current loop, with default options.
    ///
    /// # Errors
    /// The kernel's, such as an address in use.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn bind(at: impl IntoAddr) -> io::Result<Listener> {
        Self::bind_with(at, &ListenOptions::default())
    }

    /// Listens on the current loop.
    ///
    /// # Errors
    /// The kernel's, such as an address in use.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn bind_with(at: impl IntoAddr, options: &ListenOptions) -> io::Result<Listener> {
        let shared = Handle::current().shared;
        let token = listen(&shared, &at.into_addr()?, options, None)?;
        Ok(Listener { shared, token, setup: AcceptedSetup::new(options), stopped: false })
    }

    /// Accepts, on the current loop, from a socket that listens already, such as one that this process has
    /// [inherited](crate::inherit). Of `options`, those count that are about accepted connections, and
    /// [`unlink`](ListenOptions::unlink) for when the listener closes.
    ///
    /// # Errors
    /// `InvalidInput` when it is no listening stream socket; otherwise the kernel's.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn from_fd(socket: impl Into<OwnedFd>, options: &ListenOptions) -> io::Result<Listener> {
        let shared = Handle::current().shared;
        let token = listen_on(&shared, socket.into(), options.unlink, 0, None)?;
        Ok(Listener { shared, token, setup: AcceptedSetup::new(options), stopped: false })
    }

    /// Another descriptor of the listening socket, for a process that is to take it over.
    ///
    /// # Errors
    /// The kernel's.
    pub fn socket(&self) -> io::Result<OwnedFd> {
        self.shared.driver.sys().copy(self.shared.fd(self.token)?)
    }

    /// Stops listening, as `closing` says. With [`Closing::HandedOver`] and [`Closing::Drained`],
    /// [`accept`](Self::accept) returns what is still to be served here, and then an error of the kind `NotConnected`; the
    /// listener is to be dropped then. With [`Closing::Now`] it does at once.
    pub fn stop(&mut self, closing: Closing) {
        self.stopped |= closing == Closing::Now;
        if !self.stopped {
            self.shared.retire_listener(self.token, closing);
        }
    }

    /// Takes the next connection, and its peer's address.
    ///
    /// Cancel safe: a connection is returned, or stays in the backlog.
    ///
    /// # Errors
    /// The kernel's, for errors that accepting again would meet again. Those of one connection are passed over.
    /// `NotConnected` after [`stop`](Self::stop), when nobody is left.
    pub async fn accept(&mut self) -> io::Result<(Stream, Addr)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`accept`](Self::accept), for those who write their own futures.
    ///
    /// # Errors
    /// As for [`accept`](Self::accept).
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Addr)>> {
        if self.stopped {
            return Poll::Ready(Err(Shared::no_more_to_accept()));
        }
        let (shared, token) = (&self.shared, self.token);
        let accept = || shared.driver.accept(shared, token);
        let (fd, peer) = ready!(shared.poll_io(token, Half::Read, cx, accept))?;
        self.setup.apply(shared, fd, &peer);
        let unix = if peer.socket_addr().is_none() { flag::UNIX } else { 0 };
        let token = shared.adopt_async(fd, Kind::Async, flag::READABLE | flag::WRITABLE | unix)?;
        Poll::Ready(Ok((Stream::from_parts(shared.clone(), token), peer)))
    }

    /// The address at which it listens, with the port that the kernel chose.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<Addr> {
        self.shared.local_addr(self.token)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.abort(self.token, CloseReason::Local);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("token", &self.token).finish_non_exhaustive()
    }
}
