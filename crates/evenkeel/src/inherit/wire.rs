//! What predecessor and successor say to each other: short frames over a Unix stream socket, with descriptors beside them.
//!
//! A frame is a kind, the length of its text, the number of its descriptors, and the text. It is sent by one call, so that
//! the kernel keeps it together with its descriptors, and read by two that never read into the next frame.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

use super::SuccessionError;
use crate::sys::inherit::{self, MOST_SENT};
use crate::sys::{Real, Sys};

/// The version of all that is below. One that does not know it takes over nothing.
pub(super) const VERSION: u8 = 1;
/// What both sides say first, so that neither takes somebody else's socket for the other side.
pub(super) const MAGIC: &[u8; 8] = b"evenkeel";

/// Bytes before a frame's text.
pub(super) const HEAD: usize = 4;
/// Bytes of text in a frame.
pub(super) const MOST_TEXT: usize = 255;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// The first of each side: the magic bytes and the version. The old process sends the application's channel with it.
    Hello = b'H',
    /// Listening sockets, under the text as their label.
    Sockets = b'S',
    /// There are no more sockets.
    End = b'E',
    /// The new process serves.
    Ready = b'R',
}

impl Kind {
    fn of(byte: u8) -> Result<Kind, SuccessionError> {
        [Kind::Hello, Kind::Sockets, Kind::End, Kind::Ready]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
            .ok_or(SuccessionError::Malformed("a frame of no known kind"))
    }
}

/// A frame as it was received.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) text: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
}

/// The text of a hello.
pub(super) fn hello() -> Vec<u8> {
    [MAGIC.as_slice(), &[VERSION]].concat()
}

/// Checks the other side's hello.
pub(super) fn check_hello(text: &[u8]) -> Result<(), SuccessionError> {
    match text.strip_prefix(MAGIC) {
        Some([VERSION, ..]) => Ok(()),
        Some([theirs, ..]) => Err(SuccessionError::Version { ours: VERSION, theirs: *theirs }),
        _ => Err(SuccessionError::Malformed("no hello")),
    }
}

/// Sends a frame without waiting.
///
/// # Errors
/// [`Full`](SuccessionError::Full) when the other side has not read what was sent before; then nothing is sent.
pub(super) fn send(
    socket: &OwnedFd,
    kind: Kind,
    text: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(), SuccessionError> {
    assert!(text.len() <= MOST_TEXT && fds.len() <= MOST_SENT, "frames are cut by who sends them");
    let mut frame = vec![kind as u8, text.len() as u8, fds.len() as u8, 0];
    frame.extend_from_slice(text);
    match inherit::send(socket, &frame, fds) {
        Ok(sent) if sent == frame.len() => Ok(()),
        // The kernel takes so few bytes whole.
        Ok(_) => Err(SuccessionError::Malformed("a frame was cut by the kernel")),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(SuccessionError::Full),
        Err(e) => Err(e.into()),
    }
}

/// What a frame's head says: its kind, the length of its text, and the number of its descriptors.
pub(super) fn head(bytes: [u8; HEAD]) -> Result<(Kind, usize, usize), SuccessionError> {
    Ok((Kind::of(bytes[0])?, bytes[1].into(), bytes[2].into()))
}

/// Waits for a frame. None at the end of the stream.
pub(super) fn receive(socket: &OwnedFd, until: Instant) -> Result<Option<Frame>, SuccessionError> {
    let mut bytes = [0; HEAD];
    let mut fds = Vec::new();
    if !fill(socket, &mut bytes, &mut fds, until)? {
        return Ok(None);
    }
    let (kind, len, count) = head(bytes)?;
    let mut text = vec![0; len];
    if !text.is_empty() && !fill(socket, &mut text, &mut fds, until)? {
        return Err(SuccessionError::Malformed("a frame without its text"));
    }
    if fds.len() != count {
        return Err(SuccessionError::Malformed("a frame with more or fewer descriptors than it says"));
    }
    Ok(Some(Frame { kind, text, fds }))
}

/// Fills `into`. False if the stream has ended before its first byte.
fn fill(
    socket: &OwnedFd,
    into: &mut [u8],
    fds: &mut Vec<OwnedFd>,
    until: Instant,
) -> Result<bool, SuccessionError> {
    let mut filled = 0;
    while filled < into.len() {
        let left = until.saturating_duration_since(Real.clock());
        if left.is_zero() {
            return Err(SuccessionError::TimedOut);
        }
        match inherit::receive(socket, &mut into[filled..], fds, left) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(SuccessionError::Malformed("a frame that ends in its middle")),
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::TimedOut => return Err(SuccessionError::TimedOut),
            // The other side has ended with something unread.
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(true)
}
