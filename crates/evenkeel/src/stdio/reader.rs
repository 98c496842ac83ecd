//! Standard input.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use super::open::Way;
use crate::core::async_io::Half;

/// Standard input, made by [`stdin`](super::stdin). It stays on its loop's thread.
///
/// What others read who share it, this does not read, and the other way round. No more is read than asked for.
pub struct Reader {
    way: Way,
}

impl Reader {
    pub(super) fn new(way: Way) -> Self {
        Reader { way }
    }

    /// Reads at least one byte into `into`; 0 is the end, or an empty `into`.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(&mut self, into: &mut [u8]) -> impl Future<Output = io::Result<usize>> {
        poll_fn(move |cx| self.poll_read(cx, into))
    }

    /// Appends everything up to the end to `into`, and returns how much that was. There is no bound.
    ///
    /// Cancel safe: what was read before the future is dropped is in `into`.
    ///
    /// # Errors
    /// The kernel's; what was read before is in `into`.
    pub async fn read_to_end(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        let (before, mut memory) = (into.len(), vec![0; 16 << 10]);
        loop {
            match self.read(&mut memory).await? {
                0 => return Ok(into.len() - before),
                n => into.extend_from_slice(&memory[..n]),
            }
        }
    }

    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        if into.is_empty() {
            return Poll::Ready(Ok(0));
        }
        match &mut self.way {
            Way::Own(watched) => watched.poll_io(cx, Half::Read, |sys, fd| sys.read(fd, into)),
            Way::Socket(watched) => watched.poll_io(cx, Half::Read, |sys, fd| sys.recv(fd, into)),
            Way::Threads(threads) => threads.poll_read(cx, into),
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("way", &self.way.name()).finish_non_exhaustive()
    }
}
