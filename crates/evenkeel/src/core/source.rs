//! Sources: one entry of 32 bytes for each descriptor that a loop serves, found by a token that carries a
//! generation, so that an event or a handle of a connection that is gone finds nothing (I6).

use super::out::{Ended, Extra};
use crate::sys::Fd;
use crate::time::wheel::Key;

/// Names one source of one loop for as long as the source lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Token {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl Token {
    /// The form in which the kernel carries it.
    pub(crate) fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// No source's.
    pub(crate) const NONE: Token = Token { index: u32::MAX, generation: 0 };

    pub(crate) fn from_u64(data: u64) -> Self {
        Token { index: data as u32, generation: (data >> 32) as u32 }
    }
}

/// What a source is; the highest bits of its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    Free = 0,
    /// Accepts for a pool of handlers.
    Listener = 1 << 29,
    /// A stream whose bytes go to a handler.
    Callback = 2 << 29,
    /// A stream that tasks read and write.
    Async = 3 << 29,
    /// Accepts for a task.
    TaskListener = 4 << 29,
    /// A descriptor whose readiness is told, and that others read and write: see `core/watch.rs`.
    Watch = 5 << 29,
}

impl Kind {
    #[inline]
    pub(crate) fn of(flags: u32) -> Kind {
        match flags >> flag::KIND.trailing_zeros() {
            1 => Kind::Listener,
            2 => Kind::Callback,
            3 => Kind::Async,
            4 => Kind::TaskListener,
            5 => Kind::Watch,
            _ => Kind::Free,
        }
    }
}

/// Bits of a source's state. One word, so that an event looks at all of it at once.
pub(crate) mod flag {
    pub(crate) const KIND: u32 = 0b111 << 29;
    /// Bytes, or an end, may be there to be read. This and the next are where epoll has them.
    pub(crate) const READABLE: u32 = 1;
    /// A listening socket of which other loops have copies: one of them is to be woken for a newcomer.
    pub(crate) const SHARED: u32 = 1 << 1;
    /// The last attempt to write was not refused.
    pub(crate) const WRITABLE: u32 = 1 << 2;
    /// A short read says that nothing is left: a TCP stream subscribed to RDHUP and PRI.
    pub(crate) const SHORT_READS: u32 = 1 << 3;
    /// On a ring: the receive or the accept that is in flight is being cancelled.
    pub(crate) const CANCELLED: u32 = 1 << 4;
    /// On a ring: so much comes that it is received piece by piece, one in each turn.
    pub(crate) const FLOOD: u32 = 1 << 5;
    /// RDHUP, HUP, ERR or PRI was reported: only a refusal or an end stops reading now.
    pub(crate) const HUNG_UP: u32 = 1 << 6;
    /// The handler does not want bytes for now.
    pub(crate) const PAUSED: u32 = 1 << 7;
    /// On the ready list: its budget ended before its bytes did.
    pub(crate) const LISTED: u32 = 1 << 8;
    /// Has an entry in the cork that has not been sent.
    pub(crate) const CORKED: u32 = 1 << 9;
    /// The out-queue holds bytes.
    pub(crate) const QUEUED: u32 = 1 << 10;
    /// Being connected.
    pub(crate) const CONNECTING: u32 = 1 << 11;
    /// The read half has ended.
    pub(crate) const EOF: u32 = 1 << 12;
    /// The write half is to end, or has ended, once the queue is empty.
    pub(crate) const SHUT: u32 = 1 << 13;
    /// `close` was called: nothing is delivered, what is queued is flushed.
    pub(crate) const CLOSING: u32 = 1 << 14;
    /// Flushed and shut; what still arrives is thrown away until the peer's end or the deadline.
    pub(crate) const LINGER: u32 = 1 << 15;
    /// Ended: only the last call to the handler and the release of the descriptor remain.
    pub(crate) const DEAD: u32 = 1 << 16;
    /// The queue passed the high watermark and has not fallen to the low one since.
    pub(crate) const HOLD: u32 = 1 << 17;
    /// A message is in progress.
    pub(crate) const MESSAGE: u32 = 1 << 18;
    /// The handler frames messages: it said when one started or was done.
    pub(crate) const FRAMED: u32 = 1 << 19;
    /// Read interest is armed in the selector (level-triggered ones only); on a ring, a receive or an accept is in
    /// flight.
    pub(crate) const ARMED_READ: u32 = 1 << 20;
    /// Write interest is armed in the selector (level-triggered ones only); on a ring, a poll for room is in flight.
    pub(crate) const ARMED_WRITE: u32 = 1 << 21;
    /// Registered with the selector.
    pub(crate) const REGISTERED: u32 = 1 << 22;
    /// `on_open` has been called.
    pub(crate) const OPENED: u32 = 1 << 23;
    /// A notification is queued.
    pub(crate) const NOTIFY: u32 = 1 << 24;
    /// A Unix listener whose file is removed when it closes.
    pub(crate) const UNLINK: u32 = 1 << 25;
    /// Of a connection, the same bit: a drain closes it.
    pub(crate) const DRAINING: u32 = UNLINK;
    /// `on_drained` is due.
    pub(crate) const DRAINED: u32 = 1 << 26;
    /// Reset instead of an orderly end.
    pub(crate) const RESET: u32 = 1 << 27;
    /// A Unix socket.
    pub(crate) const UNIX: u32 = 1 << 28;
}

/// One descriptor that the loop serves.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) generation: u32,
    pub(crate) fd: Fd,
    pub(crate) flags: u32,
    /// Where the owner keeps its part: a pool's slot, or the asynchronous side's.
    pub(crate) slot: u32,
    /// Milliseconds of the loop's clock at the last activity; while a message is in progress, at its start. Of a watch:
    /// the number of reports so far.
    pub(crate) stamp: u32,
    /// The pool that the slot is in. Of a watch: what it may be asked for, as `Interest` has it.
    pub(crate) pool: u16,
    pub(crate) extra: Option<Box<Extra>>,
}

const _: () = assert!(size_of::<Source>() == 32);

impl Source {
    #[inline]
    pub(crate) fn has(&self, bits: u32) -> bool {
        self.flags & bits != 0
    }

    #[inline]
    pub(crate) fn set(&mut self, bits: u32) {
        self.flags |= bits;
    }

    #[inline]
    pub(crate) fn clear(&mut self, bits: u32) {
        self.flags &= !bits;
    }

    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        Kind::of(self.flags)
    }

    pub(crate) fn set_kind(&mut self, kind: Kind) {
        self.flags = self.flags & !flag::KIND | kind as u32;
    }

    /// Puts bytes before all others that are to be read.
    pub(crate) fn put_unread(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let mut first = bytes.to_vec();
            let extra = self.extra();
            first.append(&mut extra.unread);
            extra.unread = first;
        }
    }

    /// Copies out what came with the source from its last owner; none if that was nothing, or has been read.
    pub(crate) fn take_unread(&mut self, into: &mut [u8]) -> Option<usize> {
        let extra = self.extra.as_mut().filter(|e| !e.unread.is_empty())?;
        let n = extra.unread.len().min(into.len());
        into[..n].copy_from_slice(&extra.unread[..n]);
        extra.unread.drain(..n);
        if extra.is_idle() {
            self.extra = None;
        }
        Some(n)
    }

    /// What comes after the unread bytes, if that is known: the owner is told now.
    pub(crate) fn take_ended(&mut self) -> Option<Ended> {
        let extra = self.extra.as_mut()?;
        let ended = extra.ended.take();
        if extra.is_idle() {
            self.extra = None;
        }
        ended
    }

    /// Whether its close is to wait for the peer's end.
    pub(crate) fn lingers(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.lingers)
    }

    /// From now on the peer's end is waited for, and what comes before it is thrown away.
    pub(crate) fn begin_to_linger(&mut self) {
        self.set(flag::LINGER);
        if let Some(extra) = &mut self.extra {
            (extra.unread, extra.counting, extra.received) = (Vec::new(), false, 0);
        }
    }

    /// The timer by which it must be connected, or closed: it is not needed any more.
    pub(crate) fn take_deadline(&mut self) -> Option<Key> {
        let extra = self.extra.as_mut()?;
        let deadline = extra.deadline.take();
        if extra.is_idle() {
            self.extra = None;
        }
        deadline
    }

    /// The box for what an idle connection does not have.
    pub(crate) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }
}

/// All sources of a loop. A freed entry is used again, last freed first, under its next generation.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    entries: Vec<Source>,
    free: Vec<u32>,
    retired: usize,
}

impl Sources {
    pub(crate) fn insert(
        &mut self,
        fd: Fd,
        kind: Kind,
        flags: u32,
        pool: u16,
        slot: u32,
        stamp: u32,
    ) -> Token {
        let flags = flags | kind as u32;
        if let Some(index) = self.free.pop() {
            let s = &mut self.entries[index as usize];
            let generation = s.generation;
            *s = Source { generation, fd, flags, slot, stamp, pool, extra: None };
            return Token { index, generation };
        }
        let index = self.entries.len() as u32;
        // Generation 0 is never given out, so that a zeroed token is stale.
        self.entries.push(Source { generation: 1, fd, flags, slot, stamp, pool, extra: None });
        Token { index, generation: 1 }
    }

    /// The source, if it is still the one that the token was made for.
    #[inline]
    pub(crate) fn get(&self, token: Token) -> Option<&Source> {
        self.entries.get(token.index as usize).filter(|s| s.generation == token.generation)
    }

    /// The source, if it is still the one that the token was made for.
    #[inline]
    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut Source> {
        self.entries.get_mut(token.index as usize).filter(|s| s.generation == token.generation)
    }

    /// Ends a source: every copy of its token is stale from here on.
    pub(crate) fn remove(&mut self, token: Token) -> Option<Source> {
        let s = self.get_mut(token)?;
        let next = s.generation.wrapping_add(1).max(1);
        let empty = Source { generation: next, fd: -1, flags: 0, slot: 0, stamp: 0, pool: 0, extra: None };
        let old = std::mem::replace(s, empty);
        self.free.push(token.index);
        Some(old)
    }

    /// Ends a source that the kernel still has operations of: its tokens are stale, and its place and its
    /// descriptor stay taken until [`bury`](Self::bury) (I11).
    pub(crate) fn retire(&mut self, token: Token) -> Option<Source> {
        let s = self.get_mut(token)?;
        let next = s.generation.wrapping_add(1).max(1);
        // Free, and not among those that are given out again.
        let rest = Source { generation: next, flags: s.flags & !flag::KIND, extra: None, ..*s };
        let old = std::mem::replace(s, rest);
        self.retired += 1;
        Some(old)
    }

    /// The last operation of a retired source has ended: its place is free. Returns its descriptor.
    pub(crate) fn bury(&mut self, index: u32) -> Option<Fd> {
        let s = self.entries.get_mut(index as usize).filter(|s| s.kind() == Kind::Free && s.fd >= 0)?;
        s.flags = 0;
        self.retired -= 1;
        self.free.push(index);
        Some(std::mem::replace(&mut s.fd, -1))
    }

    /// Retired sources.
    pub(crate) fn retired(&self) -> usize {
        self.retired
    }

    /// Whatever is at a place, retired ones too.
    #[inline]
    pub(crate) fn place(&mut self, index: u32) -> Option<&mut Source> {
        self.entries.get_mut(index as usize)
    }

    /// Places in use or free; indices below this are valid for [`Sources::at`].
    pub(crate) fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// Sources alive.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len() - self.retired
    }

    /// The source at a place, whichever it is now, with its token.
    pub(crate) fn at(&mut self, index: usize) -> Option<(Token, &mut Source)> {
        let s = self.entries.get_mut(index).filter(|s| s.kind() != Kind::Free)?;
        Some((Token { index: index as u32, generation: s.generation }, s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i06_a_token_of_a_removed_source_finds_nothing() {
        let mut all = Sources::default();
        let a = all.insert(7, Kind::Callback, 0, 0, 0, 0);
        assert_eq!(all.get(a).map(|s| s.fd), Some(7));
        assert!(all.remove(a).is_some());
        let b = all.insert(7, Kind::Callback, 0, 0, 0, 0);
        assert_eq!(a.index, b.index, "the place is used again");
        assert!(all.get(a).is_none() && all.get_mut(a).is_none() && all.remove(a).is_none());
        assert_eq!(all.get(b).map(|s| s.fd), Some(7));
        assert_eq!(all.len(), 1);
    }

    #[test]
    fn a_generation_that_wraps_never_becomes_the_null_one() {
        let mut all = Sources::default();
        let a = all.insert(3, Kind::TaskListener, 0, 0, 0, 0);
        all.entries[a.index as usize].generation = u32::MAX;
        all.remove(Token { index: a.index, generation: u32::MAX });
        assert_eq!(all.insert(3, Kind::TaskListener, 0, 0, 0, 0).generation, 1);
    }

    #[test]
    fn a_token_survives_the_kernel() {
        let t = Token { index: 0xdead_beef, generation: 0x8000_0001 };
        assert_eq!(Token::from_u64(t.to_u64()), t);
    }
}
