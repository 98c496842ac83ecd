//! The other side of a program's connections.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use evenkeel::net::Addr;

use super::tape::Tape;

/// Peers that are not on the loop.
pub trait Outside {
    /// Does what the tape says, with peers of the listener at `at`.
    fn act(&mut self, at: &Addr, tape: &Tape);
    /// One end of a pair of connected sockets; the other is a peer from now on.
    fn pair(&mut self) -> Option<OwnedFd>;
    /// Ends all peers.
    fn leave(&mut self);
}

/// No peers: programs connect to themselves.
pub struct Nobody;

impl Outside for Nobody {
    fn act(&mut self, _: &Addr, _: &Tape) {}

    fn pair(&mut self) -> Option<OwnedFd> {
        None
    }

    fn leave(&mut self) {}
}

/// Sockets of the real kernel.
#[derive(Default)]
pub struct Sockets {
    peers: Vec<Peer>,
}

enum Peer {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// More than a program needs.
const MOST: usize = 12;

impl Outside for Sockets {
    fn act(&mut self, at: &Addr, tape: &Tape) {
        let what = tape.below(12);
        if what < 3 && self.peers.len() < MOST {
            // A backlog may be full, a listener closed.
            self.peers.extend(Peer::connect(at).ok());
        }
        if self.peers.is_empty() {
            return;
        }
        let index = tape.below(self.peers.len());
        let peer = &mut self.peers[index];
        match what {
            3..=5 => drop(peer.write(&vec![10; tape.size()])),
            6..=8 => drop(peer.read(&mut vec![0; 70_000])),
            9 => peer.shutdown(if tape.says() { Shutdown::Write } else { Shutdown::Read }),
            10 => drop(self.peers.swap_remove(index)),
            11 => self.peers.swap_remove(index).reset(),
            _ => {}
        }
    }

    fn pair(&mut self) -> Option<OwnedFd> {
        let (ours, theirs) = UnixStream::pair().ok()?;
        theirs.set_nonblocking(true).ok()?;
        self.peers.push(Peer::Unix(theirs));
        Some(ours.into())
    }

    fn leave(&mut self) {
        self.peers.clear();
    }
}

impl Peer {
    fn connect(at: &Addr) -> io::Result<Peer> {
        let socket = match at {
            Addr::Ip(ip) => {
                socket2::Socket::new(socket2::Domain::for_address(*ip), socket2::Type::STREAM, None)?
            }
            Addr::Unix(_) => socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?,
        };
        // Nobody accepts meanwhile.
        socket.set_nonblocking(true)?;
        let to = match at {
            Addr::Ip(ip) => (*ip).into(),
            Addr::Unix(path) => socket2::SockAddr::unix(path.as_deref().unwrap_or("".as_ref()))?,
        };
        match socket.connect(&to) {
            // Of TCP it is under way.
            Err(e) if at.ip().is_none() => return Err(e),
            _ => {}
        }
        let fd: OwnedFd = socket.into();
        Ok(if at.ip().is_some() { Peer::Tcp(fd.into()) } else { Peer::Unix(fd.into()) })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Peer::Tcp(socket) => socket.write(bytes),
            Peer::Unix(socket) => socket.write(bytes),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Peer::Tcp(socket) => socket.read(into),
            Peer::Unix(socket) => socket.read(into),
        }
    }

    fn shutdown(&self, how: Shutdown) {
        // The other side may be gone.
        let _ = match self {
            Peer::Tcp(socket) => socket.shutdown(how),
            Peer::Unix(socket) => socket.shutdown(how),
        };
    }

    /// Ends it with a reset, which a Unix socket does by leaving something unread.
    fn reset(self) {
        let fd = match &self {
            Peer::Tcp(socket) => socket.as_fd(),
            Peer::Unix(socket) => socket.as_fd(),
        };
        let _ = socket2::SockRef::from(&fd).set_linger(Some(Duration::ZERO));
    }
}
