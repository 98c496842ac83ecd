//! Stopping: no new connections, and those that are there are told to come back, spread over the deadline.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use evenkeel::signal::{Signal, Signals};

use super::home::Home;
use super::outbox::Peer;
use super::{Server, seconds};
use crate::log::{Level, Value};
use crate::state::Outbox;

/// How often a part of the connections is closed.
const STEP: Duration = Duration::from_millis(50);
/// The close code of a drain: clients come back at once, and the spreading keeps them from coming all together.
const COME_BACK: u16 = 4200;

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every connection was closed in time.
    Completely,
    /// The deadline passed, or a second signal came, with connections still open.
    Forced {
        /// How many they were.
        left: usize,
    },
}

impl Server {
    /// Serves until SIGTERM or SIGINT, then drains. A second signal ends the drain.
    ///
    /// # Errors
    /// When signals cannot be listened for.
    pub(super) async fn run_until_signal(self: &Rc<Self>) -> std::io::Result<Drained> {
        let mut signals = Signals::new(&[Signal::Terminate, Signal::Interrupt])?;
        let first = signals.recv().await;
        let deadline = seconds(self.config().server.drain_deadline_seconds);
        let fields = [
            ("signal", Value::Display(&format_args!("{first:?}"))),
            ("connections", Value::Number(self.common().connections() as u64)),
            ("seconds", Value::Number(deadline.as_secs())),
        ];
        self.note(Level::Info, "draining", &fields);
        let mut drain = std::pin::pin!(self.drain(deadline));
        let outcome = std::future::poll_fn(|cx| {
            if let std::task::Poll::Ready(outcome) = drain.as_mut().poll(cx) {
                return std::task::Poll::Ready(outcome);
            }
            signals.poll_recv(cx).map(|_| self.forced())
        })
        .await;
        self.note(Level::Info, "stopped", &[("how", Value::Display(&format_args!("{outcome:?}")))]);
        Ok(outcome)
    }

    fn forced(&self) -> Drained {
        match self.common().connections() {
            0 => Drained::Completely,
            left => Drained::Forced { left },
        }
    }

    /// Stops accepting, closes the subscribers one after another over most of the deadline, then HTTP connections without
    /// a request under way, and waits for the rest.
    pub(super) async fn drain(self: &Rc<Self>, deadline: Duration) -> Drained {
        let Some(home) = self.home() else { return self.forced() };
        self.common().draining.store(true, Ordering::Relaxed);
        let listeners = std::mem::take(&mut *self.common().listeners());
        for listener in listeners {
            // A loop with a full mailbox listens on; its newcomers are told that the server is going away.
            let _ = listener.close();
        }
        home.state.borrow_mut().begin_drain();
        let started = evenkeel::time::now();
        let end = started + deadline;
        // The last tenth is for what is still being sent.
        let spread = deadline * 9 / 10;
        let mut peers: VecDeque<Peer> = home.state.borrow().sessions().map(|(_, peer, _)| peer).collect();
        let total = peers.len();
        while self.common().connections() > 0 && evenkeel::time::now() < end {
            let closed_by_now = due(total, evenkeel::time::now().saturating_duration_since(started), spread);
            while total - peers.len() < closed_by_now {
                let Some(peer) = peers.pop_front() else { break };
                self.close_peer(home, peer, COME_BACK, "the server is going away");
            }
            if peers.is_empty() && !self.common().closing_idle.swap(true, Ordering::Relaxed) {
                self.on_all_loops(|server| server.http.borrow().wake());
            }
            wait(end).await;
        }
        self.forced()
    }

    /// Closes a subscriber with a code that tells it what to do.
    fn close_peer(&self, home: &Home, peer: Peer, code: u16, reason: &'static str) {
        self.with_state(home, |_, out| out.close(peer, code, reason));
    }
}

/// How many of `total` are to be closed after `elapsed` of `spread`.
fn due(total: usize, elapsed: Duration, spread: Duration) -> usize {
    if spread.is_zero() || elapsed >= spread {
        return total;
    }
    (total as u128 * elapsed.as_nanos() / spread.as_nanos()) as usize + 1
}

async fn wait(end: Instant) {
    let step = evenkeel::time::now() + STEP;
    evenkeel::time::sleep_until(step.min(end)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i48_closing_is_spread_evenly_over_the_time() {
        let second = Duration::from_secs(1);
        assert_eq!(due(100, Duration::ZERO, 10 * second), 1);
        assert_eq!(due(100, 5 * second, 10 * second), 51);
        assert_eq!(due(100, 10 * second, 10 * second), 100);
        assert_eq!(due(100, Duration::ZERO, Duration::ZERO), 100, "without time, all at once");
        assert_eq!(due(0, 20 * second, 10 * second), 0);
    }
}
