//! Small operations on callback connections: pausing, messages in progress, notifications.

use std::time::Duration;

use super::shared::Timer;
use super::{Kind, Shared, Token, flag};

impl Shared {
    pub(crate) fn pause(&self, token: Token) {
        if let Some(s) = self.core.borrow_mut().sources.get_mut(token) {
            s.set(flag::PAUSED);
        }
    }

    pub(crate) fn resume(&self, token: Token) {
        let mut guard = self.core.borrow_mut();
        let core = &mut *guard;
        let Some(s) = core.sources.get_mut(token) else { return };
        if !s.has(flag::PAUSED) {
            return;
        }
        s.clear(flag::PAUSED);
        if s.extra.as_ref().is_some_and(|e| !e.unread.is_empty()) {
            // On the ready list, so that an event of this batch does not overtake them.
            core.pending.push(token);
            if !s.has(flag::LISTED) {
                s.set(flag::LISTED);
                core.ready.push(token);
            }
        }
        drop(guard);
        self.driver.resume(self, token);
    }

    pub(crate) fn message_started(&self, token: Token) {
        let mut core = self.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        s.set(flag::MESSAGE | flag::FRAMED);
        s.stamp = self.now_ms.get();
        if s.kind() == Kind::Callback && self.pools.borrow()[s.pool as usize].limits().min_rate > 0 {
            let extra = s.extra();
            extra.counting = true;
            extra.received = 0;
        }
    }

    pub(crate) fn message_done(&self, token: Token) {
        let mut core = self.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        s.clear(flag::MESSAGE);
        s.set(flag::FRAMED);
        s.stamp = self.now_ms.get();
        if let Some(extra) = &mut s.extra {
            extra.counting = false;
            if extra.is_idle() {
                s.extra = None;
            }
        }
    }

    pub(crate) fn notify(&self, token: Token) {
        let mut core = self.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        if !s.has(flag::NOTIFY | flag::DEAD) {
            s.set(flag::NOTIFY);
            core.pending.push(token);
        }
    }

    pub(crate) fn notify_after(&self, token: Token, delay: Duration) {
        self.timer_after(delay, Timer::Notify(token));
    }
}
