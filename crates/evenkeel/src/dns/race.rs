//! Happy eyeballs (RFC 8305): which addresses are tried in which order, and which connection wins.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use std::vec;

use super::error::Attempt;
use crate::time::{Sleep, sleep};

/// Addresses that are tried at most: more cannot be had in time, and the list came from a name server.
pub(super) const MOST_ATTEMPTS: usize = 32;

/// The order in which addresses are tried: families by turns, first that of the first address, and within a family as the
/// resolver has it; each once.
pub(super) fn interleave(found: &[SocketAddr]) -> Vec<SocketAddr> {
    let Some(first) = found.first() else { return Vec::new() };
    let mut seen = BTreeSet::new();
    let each_once = found.iter().copied().filter(|address| seen.insert(*address));
    let (preferred, other): (Vec<_>, Vec<_>) =
        each_once.partition(|address| address.is_ipv4() == first.is_ipv4());
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    let mut order = Vec::with_capacity(preferred.len() + other.len());
    while preferred.len() + other.len() > 0 {
        order.extend(preferred.next());
        order.extend(other.next());
    }
    order
}

/// Attempts of which the first that succeeds wins. The next one begins when one has failed, or the last one has been in
/// progress for a while. Dropping the race drops those that are in progress.
pub(super) struct Race<F> {
    /// What has not been tried.
    left: vec::IntoIter<SocketAddr>,
    running: Vec<(SocketAddr, Pin<Box<F>>)>,
    failed: Vec<Attempt>,
    delay: Duration,
    /// When the next attempt begins, whatever comes of those in progress.
    next: Option<Sleep>,
}

impl<F, S> Race<F>
where
    F: Future<Output = io::Result<S>>,
{
    pub(super) fn new(order: Vec<SocketAddr>, delay: Duration) -> Self {
        Race { left: order.into_iter(), running: Vec::new(), failed: Vec::new(), delay, next: None }
    }

    /// The winner; none if every attempt has failed. `begin` makes an attempt.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        begin: &mut impl FnMut(SocketAddr) -> F,
    ) -> Poll<Option<S>> {
        loop {
            let failed = self.failed.len();
            if let Some(winner) = self.poll_running(cx) {
                return Poll::Ready(Some(winner));
            }
            let waited = self.next.as_mut().is_some_and(|next| Pin::new(next).poll(cx).is_ready());
            if !self.running.is_empty() && !waited && self.failed.len() == failed {
                return Poll::Pending;
            }
            match self.left.next() {
                Some(to) => self.running.push((to, Box::pin(begin(to)))),
                None if self.running.is_empty() => return Poll::Ready(None),
                None => {
                    self.next = None;
                    return Poll::Pending;
                }
            }
            self.next = (self.left.len() > 0).then(|| sleep(self.delay));
        }
    }

    fn poll_running(&mut self, cx: &mut Context<'_>) -> Option<S> {
        let mut at = 0;
        while let Some((to, attempt)) = self.running.get_mut(at) {
            let Poll::Ready(end) = attempt.as_mut().poll(cx) else {
                at += 1;
                continue;
            };
            let to = *to;
            drop(self.running.remove(at));
            match end {
                Ok(winner) => return Some(winner),
                Err(error) => self.failed.push(Attempt { to, error }),
            }
        }
        None
    }

    /// Ends the race: what was tried, and how many addresses were not.
    pub(super) fn give_up(self) -> (Vec<Attempt>, usize) {
        let late = self.running.into_iter().map(|(to, _)| {
            let error = io::Error::new(io::ErrorKind::TimedOut, "no answer until the deadline");
            Attempt { to, error }
        });
        (self.failed.into_iter().chain(late).collect(), self.left.len())
    }
}

#[cfg(test)]
mod tests;
