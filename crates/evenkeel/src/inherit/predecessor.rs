//! The new process's side: what the old one has, and telling it to go.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::wire::{self, Frame, Kind};
use super::{SuccessionError, VARIABLE};
use crate::sys::inherit::take;
use crate::sys::{Real, Sys};

/// Whether the predecessor's socket has been taken. It is the process's, as the socket's number is.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// How long the old process may take for its first word, which it has said before it starts the new one.
const HELLO: Duration = Duration::from_secs(5);

/// Listening sockets that the old process has handed over, under the label that it gave them.
#[derive(Debug)]
#[non_exhaustive]
pub struct HandedOver {
    /// What the old process called them.
    pub label: Vec<u8>,
    /// At least one, close-on-exec.
    pub sockets: Vec<OwnedFd>,
}

/// The process that this one takes over from.
///
/// Dropping it without [`ready`](Self::ready) gives the succession up: the old process goes on serving, and ends this one.
#[derive(Debug)]
pub struct Predecessor {
    control: OwnedFd,
    channel: Option<UnixStream>,
    /// The old process has said that there are no more sockets.
    ended: bool,
}

/// The process that started this one to take over from it, if one has. Given out once; a second call returns none.
///
/// Blocks for a moment: call it before a loop runs.
///
/// # Errors
/// [`Version`](SuccessionError::Version) when the two processes do not understand each other; the old process hears the same
/// and goes on. [`Orphaned`](SuccessionError::Orphaned) when it has ended meanwhile.
pub fn predecessor() -> Result<Option<Predecessor>, SuccessionError> {
    let Some(control) = inherited()? else { return Ok(None) };
    // First, so that the old process hears of another version from this one, too.
    wire::send(&control, Kind::Hello, &wire::hello(), &[])?;
    let frame = next(&control, Real.clock() + HELLO)?;
    if frame.kind != Kind::Hello {
        return Err(SuccessionError::Malformed("no hello"));
    }
    wire::check_hello(&frame.text)?;
    let channel = frame.fds.into_iter().next().map(UnixStream::from);
    Ok(Some(Predecessor { control, channel, ended: false }))
}

/// The socket that the variable names, if it is that very socket.
fn inherited() -> Result<Option<OwnedFd>, SuccessionError> {
    let Some(value) = std::env::var_os(VARIABLE) else { return Ok(None) };
    let parsed = value.to_str().and_then(|value| value.split_once(':'));
    let parsed = parsed.and_then(|(fd, inode)| Some((fd.parse().ok()?, inode.parse::<u64>().ok()?)));
    let Some((number, expected)) = parsed else {
        return Err(SuccessionError::Malformed("the environment variable"));
    };
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(None);
    }
    // A program that a successor has started finds the variable, too, but another thing or nothing at that number.
    Ok(take(number, Some(expected)).ok())
}

fn next(control: &OwnedFd, until: Instant) -> Result<Frame, SuccessionError> {
    wire::receive(control, until)?.ok_or(SuccessionError::Orphaned)
}

impl Predecessor {
    /// Waits at most `within` for all listening sockets that the old process hands over. Each is open in both processes: what
    /// one closes stays open in the other, and so does the queue of connections that nobody has accepted.
    ///
    /// Blocks: call it before a loop runs. Empty when they have been returned already.
    ///
    /// # Errors
    /// [`TimedOut`](SuccessionError::TimedOut); [`Orphaned`](SuccessionError::Orphaned) when the old process has ended;
    /// the kernel's, when this process may not open so many descriptors.
    pub fn sockets(&mut self, within: Duration) -> Result<Vec<HandedOver>, SuccessionError> {
        let until = Real.clock() + within;
        let mut all: Vec<HandedOver> = Vec::new();
        while !self.ended {
            let Frame { kind, text, mut fds } = next(&self.control, until)?;
            match kind {
                Kind::Sockets if fds.is_empty() => {
                    return Err(SuccessionError::Malformed("a label without sockets"));
                }
                // Many under one label come in several frames, one after the other.
                Kind::Sockets => match all.last_mut().filter(|last| last.label == text) {
                    Some(last) => last.sockets.append(&mut fds),
                    None => all.push(HandedOver { label: text, sockets: fds }),
                },
                Kind::End => self.ended = true,
                Kind::Hello | Kind::Ready => return Err(SuccessionError::Malformed("a frame out of order")),
            }
        }
        Ok(all)
    }

    /// A stream socket to the old process, for whatever the two have to tell each other: state, or what came for the other.
    /// It lives on after the succession, until one of the two ends. Given out once.
    ///
    /// On a loop it becomes a stream by [`Stream::from_fd`](crate::net::Stream::from_fd).
    pub fn channel(&mut self) -> Option<UnixStream> {
        self.channel.take()
    }

    /// Tells the old process that this one serves: it stops accepting.
    ///
    /// # Errors
    /// [`Orphaned`](SuccessionError::Orphaned) when it is gone; then there is nobody left to tell, and this process may as
    /// well go on.
    pub fn ready(self) -> Result<(), SuccessionError> {
        match wire::send(&self.control, Kind::Ready, &[], &[]) {
            Err(SuccessionError::Io(e))
                if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                Err(SuccessionError::Orphaned)
            }
            sent => sent,
        }
    }
}
