//! What passes between processes, for the fuzz targets of its two formats.

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::time::Duration;

use super::activation;
use super::error::SuccessionError;
use super::wire::{self, Kind};
use crate::sys::inherit;
use crate::sys::{Real, Sys};

/// Longer than anything takes that is there already.
const PATIENCE: Duration = Duration::from_secs(10);

/// A frame that was received.
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    /// Its kind, as it stands in the frame.
    pub kind: u8,
    /// Its text.
    pub text: Vec<u8>,
    /// How many descriptors came with it.
    pub descriptors: usize,
}

/// What the variables of a service manager tell the process `this`.
///
/// # Errors
/// When they make no sense.
pub fn passed(
    this: u32,
    pid: Option<&str>,
    fds: Option<&str>,
    names: Option<&str>,
) -> io::Result<Option<Vec<(RawFd, Option<String>)>>> {
    activation::passed(this, pid, fds, names)
}

/// Receives frames of an other side that sends these pieces, each with so many descriptors, and then ends.
///
/// # Errors
/// With what was received before, whatever is no frame.
pub fn receive(pieces: &[(&[u8], usize)]) -> (Vec<Received>, Option<SuccessionError>) {
    let mut received = Vec::new();
    let result = (|| {
        let (ours, theirs) = inherit::pair()?;
        for (bytes, count) in pieces {
            let fds: Vec<_> = (0..*count).map(|_| theirs.as_fd()).collect();
            inherit::send(&ours, bytes, &fds)?;
        }
        drop(ours);
        while let Some(frame) = wire::receive(&theirs, Real.clock() + PATIENCE)? {
            let (kind, descriptors) = (frame.kind as u8, frame.fds.len());
            received.push(Received { kind, text: frame.text, descriptors });
        }
        Ok(())
    })();
    (received, result.err())
}

/// Sends a frame, and receives it.
///
/// # Errors
/// The kernel's, and whatever is wrong with what was sent.
pub fn send(frame: &Received) -> Result<Option<Received>, SuccessionError> {
    let (ours, theirs): (OwnedFd, OwnedFd) = inherit::pair()?;
    let kind = match frame.kind {
        b'H' => Kind::Hello,
        b'S' => Kind::Sockets,
        b'E' => Kind::End,
        _ => Kind::Ready,
    };
    let fds: Vec<_> = (0..frame.descriptors).map(|_| theirs.as_fd()).collect();
    wire::send(&ours, kind, &frame.text, &fds)?;
    let back = wire::receive(&theirs, Real.clock() + PATIENCE)?;
    Ok(back.map(|frame| Received { kind: frame.kind as u8, text: frame.text, descriptors: frame.fds.len() }))
}
