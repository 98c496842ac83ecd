//! The cork: what handlers and tasks wrote since the last flush. One memory for the whole loop, so that a
//! connection that answers each message at once never owns a buffer.

use std::ops::{Deref, RangeInclusive};

use super::out::Extra;
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
    /// [`CORK_FULL`] bytes, made at the first write.
    memory: Box<[u8]>,
    used: usize,
    pub(crate) messages: Vec<Message>,
    pub(crate) entries: Vec<Entry>,
}

/// The cork's memory: what does not fit flushes it after the current callback instead of after the batch.
const CORK_FULL: usize = 64 << 10;
/// A write at least this long is sent, or queued, by itself: copying it would cost more than a system call.
pub(crate) const CORK_WRITE: usize = 16 << 10;
/// Entries that the cork holds before it is flushed, so that a broadcast does not outgrow the caches.
const CORK_ENTRIES: usize = 1024;

impl Cork {
    /// Whether a write, shorter than [`CORK_WRITE`], needs no flush first.
    pub(crate) fn has_room(&self, len: usize) -> bool {
        self.used + len <= CORK_FULL && self.entries.len() < CORK_ENTRIES
    }

    /// What is in the memory.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[..self.used]
    }

    /// The first write of a connection since the last flush, shorter than [`CORK_WRITE`]. False, and nothing is
    /// done, if the cork is full or has no memory yet.
    #[inline(always)]
    pub(crate) fn begin(&mut self, token: Token, bytes: &[u8]) -> bool {
        let free = self.memory.get_mut(self.used..);
        let Some(room) = free.and_then(|free| free.get_mut(..bytes.len())) else { return false };
        if self.entries.len() == self.entries.capacity() {
            return false;
        }
        self.entries.push(Entry { token, len: bytes.len() as u32 });
        self.used += bytes.len();
        copy(room, bytes);
        true
    }

    /// Makes the memory, and room for more entries.
    pub(crate) fn grow(&mut self) {
        if self.memory.is_empty() {
            self.memory = vec![0; CORK_FULL].into_boxed_slice();
        }
        self.entries.reserve(1);
    }

    /// As [`begin`](Self::begin), for a shared message of any length.
    pub(crate) fn begin_shared(&mut self, token: Token, message: Message) {
        self.messages.push(message);
        self.entries.push(Entry { token, len: SHARED });
    }

    /// Adds to the connection's entry, if it is the last one and can grow.
    #[inline]
    pub(crate) fn extend(&mut self, token: Token, bytes: &[u8]) -> bool {
        let (from, to) = (self.used, self.used + bytes.len());
        match (self.entries.last_mut(), self.memory.get_mut(from..to)) {
            (Some(Entry { token: last, len }), Some(room)) if *last == token && *len != SHARED => {
                room.copy_from_slice(bytes);
                self.used = to;
                *len += bytes.len() as u32;
                true
            }
            _ => false,
        }
    }

    /// Each source's writes, in the order of the entries.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (Token, Corked<'_>)> {
        let (mut memory, mut messages) = (self.bytes(), self.messages.iter());
        self.entries.iter().map_while(move |entry| {
            if entry.len == SHARED {
                return Some((entry.token, Corked::Shared(messages.next()?)));
            }
            let (bytes, after) = memory.split_at(entry.len as usize);
            memory = after;
            Some((entry.token, Corked::Bytes(bytes)))
        })
    }

    /// Forgets everything and keeps the memory.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.used = 0;
        self.messages.clear();
        self.entries.clear();
    }
}

/// What a source wrote into the cork.
#[derive(Clone, Copy)]
pub(crate) enum Corked<'a> {
    Bytes(&'a [u8]),
    Shared(&'a Message),
}

impl Deref for Corked<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Corked::Bytes(bytes) => bytes,
            Corked::Shared(message) => message,
        }
    }
}

impl Corked<'_> {
    /// Queues what begins at byte `from`.
    pub(crate) fn keep(self, from: usize, queue: &mut Extra, now: u32) {
        match self {
            Corked::Bytes(bytes) => queue.push(&bytes[from..], now),
            Corked::Shared(message) => queue.push_shared(message.clone(), from, now),
        }
    }
}

/// Lengths that are copied without a call.
pub(crate) const SHORT: RangeInclusive<usize> = 16..=128;

/// Copies between slices of one length. Short ones take two copies of a fixed size, which may overlap.
#[inline(always)]
fn copy(into: &mut [u8], from: &[u8]) {
    match from.len() {
        16..=32 => copy_ends::<16>(into, from),
        33..=64 => copy_ends::<32>(into, from),
        65..=128 => copy_ends::<64>(into, from),
        _ => into.copy_from_slice(from),
    }
}

#[inline(always)]
fn copy_ends<const N: usize>(into: &mut [u8], from: &[u8]) {
    if let (Some(into), Some(from)) = (into.first_chunk_mut::<N>(), from.first_chunk::<N>()) {
        *into = *from;
    }
    if let (Some(into), Some(from)) = (into.last_chunk_mut::<N>(), from.last_chunk::<N>()) {
        *into = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Token = Token { index: 1, generation: 1 };
    const B: Token = Token { index: 2, generation: 1 };

    #[test]
    fn short_copies_of_every_length_are_whole() {
        let from: Vec<u8> = (0..=200).collect();
        for len in 0..from.len() {
            let mut into = vec![255; len];
            copy(&mut into, &from[..len]);
            assert_eq!(into, from[..len], "{len} bytes");
        }
    }

    #[test]
    fn writes_follow_one_another() {
        let mut cork = Cork::default();
        assert!(!cork.begin(A, b"no memory yet"));
        cork.grow();
        assert!(cork.begin(A, b"one") && cork.extend(A, b"two"));
        assert!(cork.begin(B, b"three") && !cork.extend(A, b"not the last"));
        assert_eq!(cork.bytes(), b"onetwothree");
        assert_eq!(cork.entries.iter().map(|e| e.len).collect::<Vec<_>>(), [6, 5]);
        cork.clear();
        assert!(cork.bytes().is_empty() && cork.entries.is_empty());
    }

    #[test]
    fn a_full_cork_takes_nothing() {
        let mut cork = Cork::default();
        cork.grow();
        let most = vec![1; CORK_FULL - 1];
        assert!(cork.begin(A, &most) && cork.has_room(1) && !cork.has_room(2));
        assert!(!cork.begin(B, b"xy") && !cork.extend(A, b"xy"));
        assert_eq!((cork.bytes().len(), cork.entries.len()), (CORK_FULL - 1, 1));
    }
}
