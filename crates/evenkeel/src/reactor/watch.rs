//! Watches: what is asked for follows who waits.
//!
//! On a level-triggered interface a direction is asked for while somebody waits for it, or until it was reported twice
//! with nobody to take it. On an edge-triggered one it is asked for from the first wait on: asking again would cost a call
//! and bring nothing.

use std::io;
use std::rc::Rc;

use super::{Readiness, Ready, Selector};
use crate::core::async_io::Half;
use crate::core::shared::Timer;
use crate::core::watch::{Interest, REST};
use crate::core::{Shared, Source, Token, flag};
use crate::sys::Sys;

const ARMED: u32 = flag::ARMED_READ | flag::ARMED_WRITE;

fn armed_by(half: Half) -> u32 {
    if half == Half::Read { flag::ARMED_READ } else { flag::ARMED_WRITE }
}

impl<P: Selector<Y>, Y: Sys> Readiness<P, Y> {
    /// A new watch: most are read first.
    pub(super) fn begin_watch(&self, s: &mut Source, token: Token) -> io::Result<()> {
        self.ask(s, token, flag::ARMED_READ)
    }

    /// Asks the kernel for the directions in `armed` and no others.
    fn ask(&self, s: &mut Source, token: Token, armed: u32) -> io::Result<()> {
        let want =
            Interest::from_bits(s.pool).only(armed & flag::ARMED_READ != 0, armed & flag::ARMED_WRITE != 0);
        self.selector.borrow_mut().watch(&self.sys, s.fd, token, want, s.has(flag::REGISTERED))?;
        s.clear(ARMED);
        s.set(flag::REGISTERED | armed);
        Ok(())
    }

    /// Takes a watch out altogether, since errors are reported whatever is asked for.
    fn mute(&self, s: &mut Source) {
        if s.has(flag::REGISTERED) {
            self.selector.borrow_mut().remove(&self.sys, s.fd);
        }
        s.clear(flag::REGISTERED | ARMED);
    }

    /// Somebody waits for one direction.
    pub(super) fn watch_for(&self, lp: &Shared, token: Token, half: Half) -> io::Result<()> {
        let mut core = lp.core.borrow_mut();
        let vain = !P::EDGE && core.watch_is_vain(token, half);
        let Some(s) = core.sources.get_mut(token).filter(|s| !s.has(flag::PAUSED)) else { return Ok(()) };
        if vain {
            // An error that is reported for ever and that no operation takes must not keep the processor busy (I31).
            s.set(flag::PAUSED);
            self.mute(s);
            drop(core);
            lp.timer_after(REST, Timer::Watch(token));
            return Ok(());
        }
        if s.has(armed_by(half)) {
            return Ok(());
        }
        let armed = s.flags & ARMED | armed_by(half);
        self.ask(s, token, armed)
    }

    /// The rest of a watch is over: it is reported again to whoever waits.
    pub(super) fn watch_rested(&self, lp: &Shared, token: Token) {
        let mut core = lp.core.borrow_mut();
        let mut awaited = |half| if core.watch_is_awaited(token, half) { armed_by(half) } else { 0 };
        let armed = awaited(Half::Read) | awaited(Half::Write);
        let Some(s) = core.sources.get_mut(token) else { return };
        s.clear(flag::PAUSED);
        if armed != 0
            && let Err(e) = self.ask(s, token, armed)
        {
            core.watch_failed(token, e);
        }
        drop(core);
        lp.run_wakes();
    }

    /// A watch was reported. `was` is its state before.
    pub(super) fn watch_reported(&self, lp: &Rc<Shared>, token: Token, got: Ready, was: u32) {
        let mut core = lp.core.borrow_mut();
        let Some(s) = core.sources.get_mut(token) else { return };
        if !got.hung_up {
            s.clear(flag::HUNG_UP);
        }
        let mut result = Ok(());
        if !P::EDGE {
            let read = got.read && was & flag::READABLE != 0;
            let left = s.flags
                & ARMED
                & !if read { flag::ARMED_READ } else { 0 }
                & !if got.write { flag::ARMED_WRITE } else { 0 };
            if left == 0 && got.hung_up && was & flag::HUNG_UP != 0 {
                self.mute(s);
            } else if left != s.flags & ARMED {
                result = self.ask(s, token, left);
            }
        }
        core.watch_told(token, got.flags());
        if let Err(e) = result {
            core.watch_failed(token, e);
        }
        drop(core);
        lp.run_wakes();
    }
}
