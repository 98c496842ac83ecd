//! What an idle connection does not have: its out-queue and the count of a slow message. Boxed, made when
//! needed and freed when empty.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use crate::message::Message;
use crate::time::wheel::Key;

/// Bytes that wait to be sent.
#[derive(Debug)]
enum Bytes {
    /// Written by one handler or task; later small writes are added to it.
    Own(Vec<u8>),
    /// Shared with other connections.
    Shared(Message),
}

#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    /// Milliseconds of the loop's clock when it was queued.
    since: u32,
    /// How many messages share it.
    messages: u32,
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Own(v) => v,
            Bytes::Shared(m) => m,
        }
    }
}

/// What each queued message is charged for beside its bytes: the queue's own entry and a share of its growth.
const OVERHEAD: usize = size_of::<Chunk>() * 2;
/// Small writes share a chunk up to this size, so that many of them cost neither memory nor vectors.
const JOIN: usize = 4096;
/// Vectors in one gathered send.
const VECTORS: usize = 64;

/// State that only some connections have, some of the time.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    queue: VecDeque<Chunk>,
    /// Bytes of the first chunk that are sent already.
    sent: usize,
    /// Bytes queued and not sent.
    bytes: usize,
    /// Messages queued, those that share a chunk counted one by one.
    messages: usize,
    /// Bytes received of the message in progress; while it lingers, bytes thrown away.
    pub(crate) received: u64,
    /// Whether `received` is being counted.
    pub(crate) counting: bool,
    /// Bytes that came with the connection from its last owner and are to be read first.
    pub(crate) unread: Vec<u8>,
    /// What comes after the unread bytes: the end of the stream, or a failure.
    pub(crate) ended: Option<Ended>,
    /// The timer by which connecting, or closing, must be over.
    pub(crate) deadline: Option<Key>,
    /// It closes, and waits for the peer's end whether anything is unread or not.
    pub(crate) lingers: bool,
}

/// How reading ended, while its owner has not been told.
#[derive(Debug)]
pub(crate) enum Ended {
    Eof,
    Failed(io::Error),
}

impl Extra {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Nothing in here is needed any more.
    pub(crate) fn is_idle(&self) -> bool {
        let owing = self.counting || self.deadline.is_some() || self.lingers;
        self.bytes == 0 && !owing && self.unread.is_empty() && self.ended.is_none()
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the queue costs in memory: its bytes and its entries.
    pub(crate) fn cost(&self) -> usize {
        self.bytes + self.queue.len() * OVERHEAD
    }

    pub(crate) fn messages(&self) -> usize {
        self.messages
    }

    /// When the oldest queued byte was queued.
    pub(crate) fn oldest(&self) -> Option<u32> {
        self.queue.front().map(|c| c.since)
    }

    /// Queues a copy of `bytes`.
    pub(crate) fn push(&mut self, bytes: &[u8], now: u32) {
        if bytes.is_empty() {
            return;
        }
        self.bytes += bytes.len();
        self.messages += 1;
        if let Some(Chunk { bytes: Bytes::Own(last), messages, .. }) = self.queue.back_mut()
            && last.len() + bytes.len() <= JOIN
        {
            last.extend_from_slice(bytes);
            *messages += 1;
            return;
        }
        self.queue.push_back(Chunk { bytes: Bytes::Own(bytes.to_vec()), since: now, messages: 1 });
    }

    /// Queues a shared message, from its byte `from` on.
    pub(crate) fn push_shared(&mut self, message: Message, from: usize, now: u32) {
        if from >= message.len() {
            return;
        }
        self.bytes += message.len() - from;
        self.messages += 1;
        if self.queue.is_empty() {
            self.sent = from;
        } else if from > 0 {
            // Only the first chunk can be partly sent; this cannot happen for a message that was not tried.
            self.queue.push_back(Chunk {
                bytes: Bytes::Own(message[from..].to_vec()),
                since: now,
                messages: 1,
            });
            return;
        }
        self.queue.push_back(Chunk { bytes: Bytes::Shared(message), since: now, messages: 1 });
    }

    /// Puts all of `first`, of which nothing is sent, in front of what is queued, of which nothing is sent.
    pub(crate) fn put_in_front(&mut self, first: Extra) {
        self.bytes += first.bytes;
        self.messages += first.messages;
        self.sent = first.sent;
        for chunk in first.queue.into_iter().rev() {
            self.queue.push_front(chunk);
        }
    }

    /// The first bytes to be sent, as vectors; at most [`VECTORS`] with those already in `out`.
    pub(crate) fn vectors<'a>(&'a self, out: &mut Vec<IoSlice<'a>>) {
        let mut skip = self.sent;
        for chunk in self.queue.iter().take(VECTORS - out.len()) {
            out.push(IoSlice::new(&chunk.bytes()[skip..]));
            skip = 0;
        }
    }

    /// The loop's clock has another zero from now on: adds `by` milliseconds, wrapping, to all times.
    pub(crate) fn shift(&mut self, by: u32) {
        for chunk in &mut self.queue {
            chunk.since = chunk.since.wrapping_add(by);
        }
    }

    /// Takes `n` sent bytes off the front.
    pub(crate) fn advance(&mut self, mut n: usize) {
        self.bytes -= n;
        while let Some(first) = self.queue.front() {
            let left = first.bytes().len() - self.sent;
            if n < left {
                self.sent += n;
                return;
            }
            n -= left;
            self.sent = 0;
            self.messages -= first.messages as usize;
            self.queue.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(e: &Extra) -> String {
        let mut v = Vec::new();
        e.vectors(&mut v);
        v.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect()
    }

    #[test]
    fn bytes_leave_in_the_order_in_which_they_were_queued() {
        let mut e = Extra::default();
        e.push(b"one ", 1);
        e.push(b"two ", 2);
        e.push_shared(Message::from("three "), 0, 3);
        e.push(b"four", 4);
        assert_eq!((text(&e).as_str(), e.bytes(), e.messages()), ("one two three four", 18, 4));
        for sent in 0..18 {
            assert_eq!(text(&e), "one two three four"[sent..]);
            e.advance(1);
        }
        assert!(e.is_idle() && e.messages() == 0 && e.oldest().is_none());
    }

    #[test]
    fn a_shared_message_can_begin_part_way() {
        let mut e = Extra::default();
        e.push_shared(Message::from("hello"), 2, 1);
        e.push_shared(Message::from("x"), 1, 1);
        assert_eq!((text(&e).as_str(), e.bytes(), e.oldest()), ("llo", 3, Some(1)));
        e.advance(3);
        assert!(e.is_empty());
    }

    #[test]
    fn i41_entries_are_charged_for() {
        let mut e = Extra::default();
        for _ in 0..10 {
            e.push_shared(Message::from("x"), 0, 0);
        }
        assert!(e.cost() >= 10 + 10 * size_of::<Chunk>());
    }
}
