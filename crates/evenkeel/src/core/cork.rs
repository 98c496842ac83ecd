//! The cork: what handlers and tasks wrote since the last flush. One memory for the whole loop, so that a
//! connection that answers each message at once never owns a buffer.

use super::source::Token;
use crate::message::Message;

/// What one connection wrote.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) token: Token,
    /// Bytes in the cork's memory, which begin where those of the entry before end; or [`SHARED`].
    pub(crate) len: u32,
}

/// The length of an entry that is a whole message instead: the next of the cork's messages.
pub(crate) const SHARED: u32 = u32::MAX;

/// Writes that wait for the end of the batch, at most one entry for each connection.
#[derive(Debug, Default)]
pub(crate) struct Cork {
    pub(crate) memory: Vec<u8>,
    pub(crate) messages: Vec<Message>,
    pub(crate) entries: Vec<Entry>,
}

/// Above so many bytes the cork is flushed after the current callback instead of after the batch.
pub(crate) const CORK_FULL: usize = 64 << 10;
/// A write at least this long is sent, or queued, by itself: copying it would cost more than a system call.
pub(crate) const CORK_WRITE: usize = 16 << 10;

impl Cork {
    /// The first write of a connection since the last flush. Shorter than [`CORK_WRITE`].
    #[inline]
    pub(crate) fn begin(&mut self, token: Token, bytes: &[u8]) {
        self.memory.extend_from_slice(bytes);
        self.entries.push(Entry { token, len: bytes.len() as u32 });
    }

    /// As [`begin`](Self::begin), for a shared message of any length.
    pub(crate) fn begin_shared(&mut self, token: Token, message: Message) {
        self.messages.push(message);
        self.entries.push(Entry { token, len: SHARED });
    }

    /// Adds to the connection's entry, if it is the last one and can grow.
    #[inline]
    pub(crate) fn extend(&mut self, token: Token, bytes: &[u8]) -> bool {
        match self.entries.last_mut() {
            Some(Entry { token: last, len }) if *last == token && *len != SHARED => {
                self.memory.extend_from_slice(bytes);
                *len += bytes.len() as u32;
                true
            }
            _ => false,
        }
    }

    /// Forgets everything and keeps the memory.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.memory.clear();
        self.messages.clear();
        self.entries.clear();
    }
}
