//! Stopping, or being replaced: no new connections, and those that are there are told to come back, spread over the deadline.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use evenkeel::inherit::notify::{State, notify};
use evenkeel::net::Closing;
use evenkeel::signal::{Signal, Signals};
use evenkeel::task::JoinHandle;

use super::home::Home;
use super::outbox::Peer;
use super::succession::{Elsewhere, Replaced, Successor, replace};
use super::{Server, seconds};
use crate::log::{Level, Value};
use crate::state::Outbox;

/// Turns of all loops after which listeners that were told to close are closed, with some to spare.
const CLOSED_AFTER: usize = 8;
/// How often a part of the connections is closed.
const STEP: Duration = Duration::from_millis(50);
/// How long clients have to leave that are told to at once.
const AT_ONCE: Duration = Duration::from_secs(5);
/// How often nobody must be seen before nobody is there: one whom a loop has just accepted may be on the way to another.
const QUIET: u32 = 4;
/// The close code of a drain: clients come back at once, and the spreading keeps them from coming all together.
pub(super) const COME_BACK: u16 = 4200;

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

/// Why a server ends.
enum End {
    Signal(Signal),
    Replaced(Replaced),
}

impl Server {
    /// Serves until SIGTERM or SIGINT, then drains; a second signal ends the drain. SIGUSR2 replaces this process by a new
    /// one; then this ends when its last connection has.
    ///
    /// # Errors
    /// When signals cannot be listened for, or the new process is lost while this one has connections.
    pub(super) async fn run_until_signal(
        self: Rc<Self>,
        successor: Option<Successor>,
    ) -> io::Result<Drained> {
        let mut signals = self.home().ok_or(io::ErrorKind::NotFound)?.signals()?;
        let outcome = match self.until_the_end(&mut signals, successor).await {
            End::Signal(signal) => self.end_by(signal, &mut signals).await,
            End::Replaced(replaced) => self.end_replaced(replaced, &mut signals).await?,
        };
        self.note(Level::Info, "stopped", &[("how", Value::Display(&format_args!("{outcome:?}")))]);
        Ok(outcome)
    }

    /// Serves until there is a reason to end. While a new process starts, this one serves on.
    async fn until_the_end(self: &Rc<Self>, signals: &mut Signals, successor: Option<Successor>) -> End {
        let mut replacing: Option<Pin<Box<dyn Future<Output = io::Result<Replaced>>>>> = None;
        loop {
            let happened = poll_fn(|cx| {
                if let Poll::Ready(signal) = signals.poll_recv(cx) {
                    return Poll::Ready(Ok(signal));
                }
                let Some(replacing) = &mut replacing else { return Poll::Pending };
                replacing.as_mut().poll(cx).map(Err)
            });
            match happened.await {
                Ok(Signal::User2) => match self.may_be_replaced(replacing.is_some(), &successor) {
                    Ok(successor) => replacing = Some(Box::pin(replace(self.clone(), successor))),
                    Err(why) => self.note(Level::Warn, "not replaced", &[("why", Value::Text(why))]),
                },
                // A new process that has not finished starting is given up.
                Ok(signal) => return End::Signal(signal),
                Err(Ok(replaced)) => return End::Replaced(replaced),
                Err(Err(error)) => {
                    replacing = None;
                    self.note(Level::Error, "not replaced", &[("why", Value::Display(&error))]);
                }
            }
        }
    }

    fn may_be_replaced(
        &self,
        replacing: bool,
        successor: &Option<Successor>,
    ) -> Result<Successor, &'static str> {
        let successor = successor.as_ref().ok_or("this process does not know how it was started")?;
        if replacing {
            return Err("a new process is starting already");
        }
        if self.home().is_some_and(Home::has_predecessor) {
            return Err("the process before this one still has connections; try again when it has ended");
        }
        self.note(Level::Info, "replacing", &[("program", Value::Display(&successor.program.display()))]);
        Ok(successor.clone())
    }

    /// Drains, unless a second signal comes.
    async fn end_by(self: &Rc<Self>, signal: Signal, signals: &mut Signals) -> Drained {
        let deadline = seconds(self.config().server.drain_deadline_seconds);
        let fields = [
            ("signal", Value::Display(&format_args!("{signal:?}"))),
            ("connections", Value::Number(self.common().connections() as u64)),
            ("seconds", Value::Number(deadline.as_secs())),
        ];
        self.note(Level::Info, "draining", &fields);
        tell_manager(&[State::Stopping]);
        let drained = self.unless_signalled(self.drain(deadline), signals, "this process is stopping").await;
        drained.unwrap_or_else(|| self.forced())
    }

    /// Waits for the last connection to leave, as the new process tells each. After a signal they leave at once; after
    /// another, what is left is cut off.
    async fn end_replaced(self: &Rc<Self>, replaced: Replaced, signals: &mut Signals) -> io::Result<Drained> {
        const WHY: &str = "this process has been replaced";
        let connections = || Value::Number(self.common().connections() as u64);
        let elsewhere = replaced.elsewhere();
        let mut serving = evenkeel::spawn(replaced.serve(self.clone()));
        // The listeners are told to close, stop waiting for newcomers, serve those who wait, and are closed.
        for _ in 0..CLOSED_AFTER {
            self.all_loops_have_turned().await;
        }
        self.note(Level::Info, "replaced", &[("connections", connections())]);
        let mut left = self.unless_signalled(self.until_all_left(&mut serving, None), signals, WHY).await;
        if left.is_none() {
            self.note(Level::Info, "ending at once", &[("connections", connections())]);
            elsewhere.hurry();
            let end = evenkeel::time::now() + AT_ONCE;
            left = self.unless_signalled(self.until_all_left(&mut serving, Some(end)), signals, WHY).await;
        }
        match left.unwrap_or_else(|| Ok(self.forced())) {
            Ok(drained) => Ok(drained),
            Err(why) => {
                self.orphaned(&elsewhere, &why).await;
                let what =
                    format!("the process that has replaced this one is lost, and its last clients: {why}");
                Err(io::Error::other(what))
            }
        }
    }

    /// Waits until the new process has brought over the last client, at most until `end`. An error when that process is gone
    /// before.
    async fn until_all_left(
        &self,
        serving: &mut JoinHandle<io::Result<()>>,
        end: Option<Instant>,
    ) -> io::Result<Drained> {
        let mut quiet = 0;
        while quiet < QUIET && end.is_none_or(|end| evenkeel::time::now() < end) {
            if serving.is_finished() && self.common().connections() > 0 {
                serving.await.map_err(io::Error::other)??;
                return Err(io::Error::other("it has ended"));
            }
            self.all_loops_have_turned().await;
            quiet = if self.common().connections() == 0 { quiet + 1 } else { 0 };
            step().await;
        }
        Ok(self.forced())
    }

    /// The new process is gone, and with it the state: nobody is served here any more.
    async fn orphaned(self: &Rc<Self>, elsewhere: &Elsewhere, why: &io::Error) {
        self.note(Level::Error, "the new process is lost", &[("why", Value::Display(why))]);
        let Some(home) = self.home() else { return };
        for peer in home.peers().into_iter().chain(elsewhere.newcomers()) {
            self.close_peer(home, peer, COME_BACK, "the server is going away");
        }
        self.close_idle();
        let end = evenkeel::time::now() + AT_ONCE;
        while self.common().connections() > 0 && evenkeel::time::now() < end {
            step().await;
        }
    }

    /// None when a signal ends it before. Another process is not started any more, for this reason.
    async fn unless_signalled<T>(
        &self,
        ending: impl Future<Output = T>,
        signals: &mut Signals,
        why: &str,
    ) -> Option<T> {
        let mut ending = pin!(ending);
        poll_fn(|cx| {
            if let Poll::Ready(outcome) = ending.as_mut().poll(cx) {
                return Poll::Ready(Some(outcome));
            }
            loop {
                match signals.poll_recv(cx) {
                    Poll::Ready(Signal::User2) => {
                        self.note(Level::Warn, "not replaced", &[("why", Value::Text(why))]);
                    }
                    Poll::Ready(_) => return Poll::Ready(None),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// Closes connections that have no request under way.
    pub(super) fn close_idle(&self) {
        if !self.common().closing_idle.swap(true, Ordering::Relaxed) {
            self.on_all_loops(|server| server.http.borrow().wake());
        }
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
            let _ = listener.close_as(Closing::Drained);
        }
        for listener in self.own_listeners.take() {
            self.handle().close_listener_as(listener, Closing::Drained);
        }
        home.state.borrow_mut().begin_drain();
        let started = evenkeel::time::now();
        let end = started + deadline;
        // The last tenth is for what is still being sent.
        let spread = deadline * 9 / 10;
        let mut peers = home.peers();
        // In no order that the clients had before: neighbours in time are often neighbours elsewhere, too.
        // Without random numbers the order is one that could be guessed, which harms nobody.
        let seed = self.common().machine.random_seed().unwrap_or_default();
        fastrand::Rng::with_seed(seed).shuffle(&mut peers);
        let mut peers = VecDeque::from(peers);
        let total = peers.len();
        // The clients of a process that this one has replaced are this one's.
        let anybody = || self.common().connections() > 0 || home.has_predecessor();
        while anybody() && evenkeel::time::now() < end {
            let closed_by_now = due(total, evenkeel::time::now().saturating_duration_since(started), spread);
            while total - peers.len() < closed_by_now {
                let Some(peer) = peers.pop_front() else { break };
                self.close_peer(home, peer, COME_BACK, "the server is going away");
            }
            if peers.is_empty() {
                self.close_idle();
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
pub(super) fn due(total: usize, elapsed: Duration, spread: Duration) -> usize {
    if spread.is_zero() || elapsed >= spread {
        return total;
    }
    (total as u128 * elapsed.as_nanos() / spread.as_nanos()) as usize + 1
}

/// Waits until the next part is due.
pub(super) async fn step() {
    evenkeel::time::sleep(STEP).await;
}

/// Tells the service manager, if there is one.
pub(super) fn tell_manager(states: &[State<'_>]) {
    // One that does not listen is not our concern.
    let _ = notify(states);
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
