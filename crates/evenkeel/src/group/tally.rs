//! Live counts: how many connections each loop has, has had and could not take.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::handler::{CloseReason, Conn, ConnId, Handler};
use crate::sync::{AtomicU64, AtomicUsize};

/// What one loop has served, of one listener or of all listeners of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoopCounts {
    /// Connections now: those that have a handler, and those on their way from the accepting loop to this one. One that has
    /// become a stream is none of them any more, and one that has moved counts where it is only by a [`Counter`].
    pub connections: usize,
    /// Connections that have come to this loop in all.
    pub accepted: u64,
    /// Connections that were accepted for this loop and reset, because its mailbox was full, or it had ended, or it had as
    /// many as it may. Only under [`Share::Acceptor`](super::Share::Acceptor).
    pub refused: u64,
}

impl LoopCounts {
    pub(super) fn add(&mut self, other: LoopCounts) {
        self.connections += other.connections;
        self.accepted += other.accepted;
        self.refused += other.refused;
    }
}

/// The counts of one listener on one loop. Changed once or twice for each connection, by its loop and by the one that
/// accepts; a memory line of its own, so that loops do not disturb each other.
///
/// All is relaxed: a count says nothing about other memory.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Tally {
    connections: AtomicUsize,
    accepted: AtomicU64,
    refused: AtomicU64,
}

impl Tally {
    pub(super) fn counts(&self) -> LoopCounts {
        LoopCounts {
            connections: self.connections(),
            accepted: self.accepted.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// A connection is on its way to the loop.
    pub(super) fn expect(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// An expected connection does not come.
    pub(super) fn lose(&self) {
        self.refuse();
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// A connection was turned away.
    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// One connection that counts, for as long as this lives.
#[derive(Debug)]
pub(super) struct Live {
    tally: Arc<Tally>,
}

impl Live {
    /// A connection has come to its loop.
    pub(super) fn arrived(tally: &Arc<Tally>) -> Self {
        tally.expect();
        Self::expected(tally)
    }

    /// A connection has come to its loop that counts already, by [`Tally::expect`].
    pub(super) fn expected(tally: &Arc<Tally>) -> Self {
        tally.accepted.fetch_add(1, Ordering::Relaxed);
        Live { tally: tally.clone() }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.tally.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts connections that have moved to a loop among those of a listener; see
/// [`GroupListener::counter`](super::GroupListener::counter).
#[derive(Clone, Debug)]
pub struct Counter {
    pub(super) tally: Arc<Tally>,
}

impl Counter {
    /// The handler's connection counts from now on, and for as long as the handler lives.
    pub fn count<H: Handler>(&self, handler: H) -> Counted<H> {
        self.tally.expect();
        Counted { handler, _live: Live { tally: self.tally.clone() } }
    }
}

/// A handler whose connection counts until it is dropped; [`Counter::count`] makes it.
#[derive(Debug)]
pub struct Counted<H> {
    pub(super) handler: H,
    /// After the handler, so that whoever sees the count fall knows that the handler is gone.
    pub(super) _live: Live,
}

impl<H: Handler> Handler for Counted<H> {
    #[inline]
    fn on_open(&mut self, conn: &mut Conn<'_>) {
        self.handler.on_open(conn);
    }

    #[inline]
    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        self.handler.on_data(conn, bytes);
    }

    #[inline]
    fn on_eof(&mut self, conn: &mut Conn<'_>) {
        self.handler.on_eof(conn);
    }

    #[inline]
    fn on_drained(&mut self, conn: &mut Conn<'_>) {
        self.handler.on_drained(conn);
    }

    #[inline]
    fn on_notify(&mut self, conn: &mut Conn<'_>) {
        self.handler.on_notify(conn);
    }

    #[inline]
    fn on_drain(&mut self, conn: &mut Conn<'_>) {
        self.handler.on_drain(conn);
    }

    #[inline]
    fn on_close(&mut self, id: ConnId, reason: &CloseReason) {
        self.handler.on_close(id, reason);
    }
}

#[cfg(all(test, loom))]
mod models;
