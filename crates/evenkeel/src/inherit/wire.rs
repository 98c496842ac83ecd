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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Kind, VERSION, check_hello, hello, receive, send};
    use crate::inherit::SuccessionError;
    use crate::sys::inherit::{self, MOST_SENT};
    use crate::sys::{Real, Sys};
    use std::os::fd::{AsFd, OwnedFd};
    use std::time::{Duration, Instant};

    fn soon() -> Instant {
        Real.clock() + Duration::from_secs(10)
    }

    #[test]
    fn frames_keep_their_descriptors_and_their_order() {
        let (a, b) = inherit::pair().unwrap();
        let some: Vec<OwnedFd> = (0..MOST_SENT).map(|_| b.try_clone().unwrap()).collect();
        let fds: Vec<_> = some.iter().map(AsFd::as_fd).collect();
        send(&a, Kind::Sockets, b"many", &fds).unwrap();
        send(&a, Kind::Sockets, b"", &fds[..1]).unwrap();
        send(&a, Kind::End, b"", &[]).unwrap();
        drop(a);
        for (kind, text, count) in
            [(Kind::Sockets, b"many".as_slice(), MOST_SENT), (Kind::Sockets, b"", 1), (Kind::End, b"", 0)]
        {
            let frame = receive(&b, soon()).unwrap().unwrap();
            assert_eq!((frame.kind, frame.text.as_slice(), frame.fds.len()), (kind, text, count));
        }
        assert!(receive(&b, soon()).unwrap().is_none(), "the end");
    }

    #[test]
    fn another_version_is_refused_by_its_number() {
        check_hello(&hello()).unwrap();
        let mut other = hello();
        *other.last_mut().unwrap() = 9;
        let refused = check_hello(&other).unwrap_err();
        assert!(matches!(refused, SuccessionError::Version { ours: VERSION, theirs: 9 }), "{refused}");
        assert!(matches!(check_hello(b"HTTP/1.1 200").unwrap_err(), SuccessionError::Malformed(_)));
    }

    #[test]
    fn what_makes_no_sense_is_an_error_and_not_a_wait() {
        for bytes in [b"X\0\0\0".as_slice(), b"S\x02\0\0a", b"S\0\x01\0", b"E"] {
            let (a, b) = inherit::pair().unwrap();
            inherit::send(&a, bytes, &[]).unwrap();
            drop(a);
            assert!(matches!(receive(&b, soon()).unwrap_err(), SuccessionError::Malformed(_)), "{bytes:?}");
        }
    }

    #[test]
    fn a_reader_that_is_slow_is_not_waited_for_and_neither_is_a_writer() {
        let (a, b) = inherit::pair().unwrap();
        let refused = (0..1 << 20).find_map(|_| send(&a, Kind::Sockets, b"label", &[]).err());
        assert!(matches!(refused, Some(SuccessionError::Full)), "{refused:?}");
        let waited = receive(&a, Real.clock() + Duration::from_millis(5)).unwrap_err();
        assert!(matches!(waited, SuccessionError::TimedOut), "{waited}");
        drop(b);
    }
}
