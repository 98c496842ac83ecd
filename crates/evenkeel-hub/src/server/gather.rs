//! Asking other loops: the one that has the state, or all of them.

use std::rc::Rc;
use std::time::Duration;

use evenkeel::{Descriptors, Handle, LoopStats};

use super::Server;
use super::home::{HOME, Home};
use crate::metrics::Counted;

/// How long a loop may take to answer what only a person or a monitor asks: whoever looks after a hub of which a loop is
/// stuck is to be told so, rather than nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// A loop did not answer: it is overloaded, or has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoAnswer;

/// What one loop knows of itself.
pub(super) struct OfLoop {
    pub(super) stats: LoopStats,
    pub(super) connections: usize,
    /// What its clients have not taken.
    pub(super) queued_bytes: usize,
    pub(super) counted: Counted,
    pub(super) log_lines_lost: u64,
    /// In the loop's own table; nothing if it shares the process's.
    pub(super) descriptors: Option<u64>,
}

async fn soon<T>(answer: impl Future<Output = T>) -> Result<T, NoAnswer> {
    evenkeel::time::timeout(PATIENCE, answer).await.map_err(|_| NoAnswer)
}

impl Server {
    /// Calls where the state is. On that loop itself it is called at once. One that does not answer soon may still do it.
    pub(super) async fn at_home<R: Send + 'static>(
        self: &Rc<Self>,
        call: impl FnOnce(&Rc<Server>, &Home) -> R + Send + 'static,
    ) -> Result<R, NoAnswer> {
        if let Some(home) = self.home() {
            return if home.has_moved() { Err(NoAnswer) } else { Ok(call(self, home)) };
        }
        let here = || async move {
            let server = Handle::current().local::<Server>()?;
            let home = server.home().filter(|home| !home.has_moved())?;
            Some(call(&server, home))
        };
        let remote = self.common().remotes().get(HOME).ok_or(NoAnswer)?;
        let answer = remote.spawn(here).map_err(|_| NoAnswer)?;
        soon(answer).await?.ok().flatten().ok_or(NoAnswer)
    }

    /// Runs a task where the state is, or was.
    pub(super) async fn task_at_home<R: Send + 'static, F: Future<Output = R> + 'static>(
        self: &Rc<Self>,
        make: impl FnOnce(Rc<Server>) -> F + Send + 'static,
    ) -> Result<R, NoAnswer> {
        if self.home().is_some() {
            return Ok(make(self.clone()).await);
        }
        let there = || async move {
            let server = Handle::current().local::<Server>()?;
            Some(make(server).await)
        };
        let remote = self.common().remotes().get(HOME).ok_or(NoAnswer)?;
        let answer = remote.spawn(there).map_err(|_| NoAnswer)?;
        answer.await.ok().flatten().ok_or(NoAnswer)
    }

    /// What each loop knows of itself, in their order.
    pub(super) async fn all_loops(self: &Rc<Self>) -> Result<Vec<OfLoop>, NoAnswer> {
        // All are asked before any answer is waited for.
        let ask = |remote: &evenkeel::Remote| {
            remote.spawn(|| async { Handle::current().local::<Server>().map(|server| server.of_loop()) })
        };
        let answers: Vec<_> = self.common().remotes().iter().map(ask).collect();
        soon(async {
            let mut all = Vec::with_capacity(answers.len());
            for answer in answers {
                let answer = answer.map_err(|_| NoAnswer)?.await;
                all.push(answer.ok().flatten().ok_or(NoAnswer)?);
            }
            Ok(all)
        })
        .await?
    }

    fn of_loop(&self) -> OfLoop {
        OfLoop {
            stats: self.handle().stats(),
            connections: self.common().connections_of(self.index()),
            queued_bytes: self.handle().queues().iter().map(|(_, bytes)| bytes).sum(),
            counted: self.metrics.counted(),
            log_lines_lost: self.log.lost(),
            descriptors: match self.handle().descriptors() {
                Descriptors::Private => self.common().machine.descriptors_here(),
                _ => None,
            },
        }
    }

    /// Waits until every loop has done what it was sent before.
    pub(super) async fn all_loops_have_turned(&self) {
        let ask = |remote: &evenkeel::Remote| remote.spawn(|| async {});
        let answers: Vec<_> = self.common().remotes().iter().map(ask).collect();
        for answer in answers.into_iter().flatten() {
            // One that has ended does nothing any more.
            let _ = answer.await;
        }
    }

    /// Calls on every loop that listens to its mailbox.
    pub(super) fn on_all_loops(&self, call: fn(&Server)) {
        for remote in self.common().remotes() {
            // One whose mailbox is full has more urgent things to do than what this is used for.
            let _ = remote.run(move |handle| {
                if let Some(server) = handle.local::<Server>() {
                    call(&server);
                }
            });
        }
    }
}
