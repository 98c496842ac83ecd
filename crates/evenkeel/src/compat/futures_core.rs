//! `futures_core::Stream` for what comes one after another: connections and ticks.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_core::Stream;

use crate::net::{self, Addr, Listener};
use crate::time::Interval;

/// Ticks, without end, as [`Interval::tick`] gives them. Cancel safe.
impl Stream for Interval {
    type Item = Instant;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Instant>> {
        self.poll_tick(cx).map(Some)
    }
}

/// The connections of a listener, without end, made by [`Listener::incoming`].
///
/// Cancel safe: a connection comes out, or stays in the backlog.
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct Incoming<'a> {
    listener: &'a mut Listener,
}

impl Listener {
    /// The connections, as a stream that does not end. Errors are those of [`accept`](Self::accept); more may come
    /// after one.
    pub fn incoming(&mut self) -> Incoming<'_> {
        Incoming { listener: self }
    }
}

impl Stream for Incoming<'_> {
    type Item = io::Result<(net::Stream, Addr)>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.listener.poll_accept(cx).map(Some)
    }
}
