//! A descriptor of the model, for code that blocks.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use super::{Desk, thread};
use crate::net::{Addr, ConnectOptions, ListenOptions, SocketOption};
use crate::sim::kernel::{HostId, Kernel, bits};
use crate::sys::Fd;

/// How calls on a socket wait: what descriptors of the same socket share.
#[derive(Debug, Default)]
struct Waits {
    nonblocking: bool,
    read: Option<Duration>,
    write: Option<Duration>,
}

/// An open descriptor of a simulated host.
#[derive(Debug)]
pub(super) struct Socket {
    desk: Desk,
    fd: Fd,
    waits: Arc<Mutex<Waits>>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let fd = self.fd;
        // It fails if the world has ended, and everything in it with it.
        let _ = self.desk.call(None, move |kernel, host, _| kernel.close(host, fd));
    }
}

/// The world's desk, for what is to be made.
pub(super) fn desk() -> Option<Desk> {
    thread::desk()
}

impl Socket {
    pub(super) fn new(desk: Desk, fd: Fd) -> Self {
        Socket { desk, fd, waits: Arc::default() }
    }

    /// Opens one.
    pub(super) fn open(
        desk: Desk,
        open: impl FnMut(&mut Kernel, HostId) -> Result<Fd, Errno> + Send + 'static,
    ) -> io::Result<Self> {
        let mut open = open;
        let fd = desk.call(None, move |kernel, host, _| open(kernel, host))?;
        Ok(Self::new(desk, fd))
    }

    pub(super) fn connect(desk: Desk, to: Addr) -> io::Result<Self> {
        let options = ConnectOptions::default();
        let socket = Self::open(desk, move |kernel, host| Ok(kernel.connect(host, &to, &options)?.0))?;
        let fd = socket.fd;
        socket.desk.call(None, move |kernel, host, _| {
            let mask = kernel.mask(kernel.lookup(host, fd)?);
            match kernel.take_error(host, fd)? {
                Some(error) => Err(error),
                None if mask & bits::OUT == 0 => Err(Errno::AGAIN),
                None => Ok(()),
            }
        })?;
        Ok(socket)
    }

    pub(super) fn listen(desk: Desk, at: Addr) -> io::Result<Self> {
        let options = ListenOptions::default();
        Self::open(desk, move |kernel, host| kernel.listen(host, &at, &options))
    }

    /// What a ticket stands for.
    pub(super) fn redeem(desk: Desk, ticket: OwnedFd) -> io::Result<Self> {
        let mut ticket = Some(ticket);
        // It is tried once, since it does not wait.
        let socket =
            Self::open(desk, move |kernel, host| kernel.redeem(host, ticket.take().ok_or(Errno::BADF)?))?;
        // As the loop has had it.
        socket.set_nonblocking(true);
        Ok(socket)
    }

    pub(super) fn pair(desk: Desk) -> io::Result<(Self, Self)> {
        let (a, b) = desk.call(None, |kernel, host, _| kernel.socket_pair(host))?;
        Ok((Self::new(desk.clone(), a), Self::new(desk, b)))
    }

    pub(super) fn accept(&self) -> io::Result<(Self, Addr)> {
        let (fd, patience) = (self.fd, self.patience(|waits| waits.read));
        let (new, from) = self.desk.call(patience, move |kernel, host, _| kernel.accept(host, fd))?;
        Ok((Self::new(self.desk.clone(), new), from))
    }

    /// One more descriptor of the same socket.
    pub(super) fn duplicate(&self) -> io::Result<Self> {
        let fd = self.fd;
        let fd = self.desk.call(None, move |kernel, host, _| {
            let id = kernel.lookup(host, fd)?;
            kernel.has_number(host)?;
            kernel.assign(host, id)
        })?;
        Ok(Socket { desk: self.desk.clone(), fd, waits: self.waits.clone() })
    }

    /// A call that does not wait.
    pub(super) fn quick<T: Send + 'static>(
        &self,
        mut call: impl FnMut(&mut Kernel, HostId, Fd) -> Result<T, Errno> + Send + 'static,
    ) -> io::Result<T> {
        let fd = self.fd;
        self.desk.call(Some(Duration::ZERO), move |kernel, host, _| call(kernel, host, fd))
    }

    /// A call that waits as reads do.
    pub(super) fn reading<T: Send + 'static>(
        &self,
        mut call: impl FnMut(&mut Kernel, HostId, Fd) -> Result<T, Errno> + Send + 'static,
    ) -> io::Result<T> {
        let (fd, patience) = (self.fd, self.patience(|waits| waits.read));
        self.desk.call(patience, move |kernel, host, _| call(kernel, host, fd))
    }

    /// A call that waits as writes do.
    pub(super) fn sending<T: Send + 'static>(
        &self,
        mut call: impl FnMut(&mut Kernel, HostId, Fd) -> Result<T, Errno> + Send + 'static,
    ) -> io::Result<T> {
        self.writing(move |kernel, host, fd, _| call(kernel, host, fd))
    }

    /// As well; the last argument says that it is the last chance.
    fn writing<T: Send + 'static>(
        &self,
        mut call: impl FnMut(&mut Kernel, HostId, Fd, bool) -> Result<T, Errno> + Send + 'static,
    ) -> io::Result<T> {
        let (fd, patience) = (self.fd, self.patience(|waits| waits.write));
        self.desk.call(patience, move |kernel, host, last| call(kernel, host, fd, last))
    }

    pub(super) fn recv(&self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len();
        let got = self.reading(move |kernel, host, fd| {
            let mut bytes = vec![0; most];
            let n = kernel.recv(host, fd, &mut bytes)?;
            bytes.truncate(n);
            Ok(bytes)
        })?;
        into[..got.len()].copy_from_slice(&got);
        Ok(got.len())
    }

    /// Sends all of it, as a call does that may block, or as much as there is time and room for.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let (bytes, mut sent) = (bytes.to_vec(), 0);
        self.writing(move |kernel, host, fd, last| {
            loop {
                match kernel.send(host, fd, &[&bytes[sent..]]) {
                    Ok(n) => sent += n,
                    Err(Errno::AGAIN) if !last => return Err(Errno::AGAIN),
                    Err(_) if sent > 0 => return Ok(sent),
                    Err(error) => return Err(error),
                }
                if sent >= bytes.len() {
                    return Ok(sent);
                }
            }
        })
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let (read, write) = (how != Shutdown::Write, how != Shutdown::Read);
        self.quick(move |kernel, host, fd| kernel.shutdown(host, fd, read, write))
    }

    /// What brings it into a loop of its world.
    pub(super) fn ticket(&self) -> io::Result<OwnedFd> {
        self.quick(|kernel, host, fd| kernel.ticket(host, fd))
    }

    pub(super) fn set_option(&self, option: SocketOption) -> io::Result<()> {
        self.quick(move |kernel, host, fd| kernel.set_option(host, fd, option))
    }

    pub(super) fn set_backlog(&self, backlog: u16) -> io::Result<()> {
        self.quick(move |kernel, host, fd| kernel.set_backlog(host, fd, backlog.into()))
    }

    pub(super) fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(self.quick(|kernel, host, fd| kernel.take_error(host, fd))?.map(Into::into))
    }

    pub(super) fn address(&self, peer: bool) -> io::Result<Addr> {
        self.quick(move |kernel, host, fd| kernel.address(host, fd, peer))
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        // Nothing panics under it.
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn patience(&self, time: impl FnOnce(&Waits) -> Option<Duration>) -> Option<Duration> {
        let waits = self.waits();
        if waits.nonblocking { Some(Duration::ZERO) } else { time(&waits) }
    }

    pub(super) fn set_nonblocking(&self, nonblocking: bool) {
        self.waits().nonblocking = nonblocking;
    }

    pub(super) fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        self.waits().read = checked(time)?;
        Ok(())
    }

    pub(super) fn set_write_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        self.waits().write = checked(time)?;
        Ok(())
    }
}

/// No time at all is refused, as the standard library does.
fn checked(time: Option<Duration>) -> io::Result<Option<Duration>> {
    match time {
        Some(Duration::ZERO) => Err(io::Error::new(io::ErrorKind::InvalidInput, "a timeout of zero")),
        time => Ok(time),
    }
}

/// An internet address, of a socket that must have one.
pub(super) fn internet(addr: &Addr) -> io::Result<std::net::SocketAddr> {
    addr.socket_addr()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it has no internet address"))
}
