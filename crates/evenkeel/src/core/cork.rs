//! The cork: what handlers and tasks wrote since the last flush. One memory for the whole loop, so that a
//! connection that answers each message at once never owns a buffer.

use super::source::Token;
use crate::message::Message;

/// What one connection wrote.
#[derive(Debug)]
pub(crate) enum Corked {
    /// A range of the cork's memory.
    Bytes { start: usize, len: usize },
    /// A whole shared message.
    Shared(Message),
}

/// Writes that wait for the end of the batch, at most one entry for each connection.
#[derive(Debug, Default)]
pub(crate) struct Cork {
    pub(crate) memory: Vec<u8>,
    pub(crate) entries: Vec<(Token, Corked)>,
}

/// Above so many bytes the cork is flushed after the current callback instead of after the batch.
pub(crate) const CORK_FULL: usize = 64 << 10;
/// A write at least this long is sent, or queued, by itself: copying it would cost more than a system call.
pub(crate) const CORK_WRITE: usize = 16 << 10;

impl Cork {
    /// The first write of a connection since the last flush.
    #[inline]
    pub(crate) fn begin(&mut self, token: Token, bytes: &[u8]) {
        let start = self.memory.len();
        self.memory.extend_from_slice(bytes);
        self.entries.push((token, Corked::Bytes { start, len: bytes.len() }));
    }

    /// Adds to the connection's entry, if it is the last one and can grow.
    #[inline]
    pub(crate) fn extend(&mut self, token: Token, bytes: &[u8]) -> bool {
        match self.entries.last_mut() {
            Some((last, Corked::Bytes { len, .. })) if *last == token => {
                self.memory.extend_from_slice(bytes);
                *len += bytes.len();
                true
            }
            _ => false,
        }
    }
}
