//! Which loops of a group run, and that they end together.

use std::sync::PoisonError;
use std::time::Duration;

use super::LoopIndex;
use crate::remote::Remote;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// The loops of a group. Looked at when a loop begins or ends, never in between.
pub(super) struct Roster {
    state: Mutex<State>,
    ended: Condvar,
}

struct State {
    /// The loops that run.
    running: Vec<Option<Remote>>,
    /// Threads that have been started and have not ended.
    threads: Vec<bool>,
    stopping: bool,
}

impl Roster {
    pub(super) fn new(loops: usize) -> Self {
        let state = State { running: vec![None; loops], threads: vec![false; loops], stopping: false };
        Roster { state: Mutex::new(state), ended: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread is about to be started: it counts until [`has_ended`](Self::has_ended).
    pub(super) fn starts(&self, index: LoopIndex) {
        self.lock().threads[index] = true;
    }

    /// A loop can be reached. It is stopped at once if the group is.
    pub(super) fn runs(&self, index: LoopIndex, remote: &Remote) {
        let mut state = self.lock();
        state.running[index] = Some(remote.clone());
        if state.stopping {
            remote.stop();
        }
    }

    /// Asks every loop to stop, those that have yet to begin included.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        for remote in state.running.iter().flatten() {
            remote.stop();
        }
    }

    /// A loop's thread has nothing left to do but to end. The others are stopped.
    pub(super) fn has_ended(&self, index: LoopIndex) {
        self.stop();
        let mut state = self.lock();
        state.running[index] = None;
        state.threads[index] = false;
        drop(state);
        self.ended.notify_all();
    }

    /// Waits at most `within` for all threads to end, and returns those that have not.
    pub(super) fn wait(&self, within: Duration) -> Vec<LoopIndex> {
        let some = |state: &mut State| state.threads.contains(&true);
        let waited = self.ended.wait_timeout_while(self.lock(), within, some);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (0..state.threads.len()).filter(|index| state.threads[*index]).collect()
    }
}

#[cfg(all(test, loom))]
mod models;
