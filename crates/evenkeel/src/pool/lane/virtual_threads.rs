//! The threads of a lane in a simulated host: what [`live`](Inner::live) does in one call that waits, in steps that do not.
//!
//! A virtual thread is one event of the world that is to come: its beginning, the code of its job, the end of its job, or
//! the end of its patience. Bounds, order and counts are the lane's own, as for real threads.

use super::{Deadline, Inner, Job, wake};
use crate::core::caught;
use crate::stand_in::{Host, StandIn};
use crate::sync::Arc;

impl Inner {
    /// A thread looks for a job, or ends with the lane.
    pub(super) fn step(this: &Arc<Self>, host: &Host) {
        let mut state = this.lock();
        if this.has_ended() {
            state.threads -= 1;
            return;
        }
        let Some((_, job)) = state.queue.pop_first() else {
            state.idle += 1;
            let number = state.number();
            state.waits.push(number);
            drop(state);
            let (lane, there) = (this.clone(), host.clone());
            return host.after(this.idle_for, Box::new(move || Self::waited(&lane, number, &there)));
        };
        state.running += 1;
        let next = state.grant(this.most_queued);
        drop(state);
        wake(next);
        Self::perform(this, job, host);
    }

    fn perform(this: &Arc<Self>, mut job: Box<dyn Job>, host: &Host) {
        let (before, then) = host.job_takes(this.name);
        let (lane, there) = (this.clone(), host.clone());
        let begin = move || {
            let fine = job.run();
            let host = there.clone();
            let end = move || {
                lane.finished(fine);
                caught(|| job.deliver());
                Self::step(&lane, &there);
            };
            host.after(then, Box::new(end));
        };
        host.after(before, Box::new(begin));
    }

    /// An idle thread has waited as long as one does.
    fn waited(this: &Arc<Self>, number: u64, host: &Host) {
        let mut state = this.lock();
        let Some(at) = state.waits.iter().position(|wait| *wait == number) else { return };
        state.waits.remove(at);
        state.idle -= 1;
        if state.queue.is_empty() {
            state.threads -= 1;
            return;
        }
        drop(state);
        Self::step(this, host);
    }

    /// Wakes the idle thread that has waited longest, which counts as idle until it runs.
    pub(super) fn wake_virtual(this: &Arc<Self>, host: &Host) {
        let (lane, there) = (this.clone(), host.clone());
        let woken = move || {
            let mut state = lane.lock();
            if state.waits.is_empty() {
                return;
            }
            state.waits.remove(0);
            state.idle -= 1;
            drop(state);
            Self::step(&lane, &there);
        };
        host.after(std::time::Duration::ZERO, Box::new(woken));
    }

    /// The lane has ended: idle threads do so too.
    pub(super) fn end_virtual(&self) {
        let mut state = self.lock();
        let idle = state.waits.len();
        state.waits.clear();
        state.idle -= idle;
        state.threads -= idle;
    }

    /// Lets time pass until no thread is left. True if none is.
    pub(super) fn wait_virtual(&self, host: &dyn StandIn, deadline: Deadline) -> bool {
        host.pass(deadline.0, &mut || self.lock().threads == 0);
        self.lock().threads == 0
    }
}
