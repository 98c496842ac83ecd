//! What comes from other threads: wakes of loops, and calls of threads that are part of a world. Both are taken into the model
//! when it looks next.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::{HostId, Kernel, Kind, Object, ObjectId, bits};
use crate::sys::{Fd, WakeFn};

/// Where other threads leave what is for the model.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    outside: Mutex<Outside>,
    /// For a thread that runs the model and has nothing to do before somebody outside has.
    heard: Condvar,
}

/// What other threads have left.
#[derive(Default)]
pub(crate) struct Outside {
    rung: Vec<ObjectId>,
    /// Calls of threads that belong to the world.
    pub(crate) calls: Vec<Call>,
    /// Threads of the world that are doing something: time stands still for as long as there are any.
    pub(crate) running: usize,
    /// Whether one has begun to wait, or has ended, since this was last looked at.
    pub(crate) stirred: bool,
    /// The world has ended.
    pub(crate) over: bool,
}

/// What other threads are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doings {
    /// They have left something for the model.
    News,
    /// One that belongs to the world does something.
    Running,
    /// Those that belong to the world wait for it.
    Nothing,
}

/// One try of a call, true if it has answered. The second argument says that it is the last chance.
type Attempt = dyn FnMut(&mut Kernel, bool) -> bool + Send;

/// A call of another thread, which waits for its answer. It is tried until it has answered.
pub(crate) struct Call {
    pub(crate) attempt: Box<Attempt>,
    /// How long it may wait, in nanoseconds.
    pub(crate) patience: Option<u64>,
    /// Its thread counts as running again once it is answered.
    pub(crate) counted: bool,
}

impl Outside {
    fn has_news(&self) -> bool {
        !self.rung.is_empty() || !self.calls.is_empty()
    }
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outside")
            .field("rung", &self.rung)
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}

impl Doorbell {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Outside> {
        // Nothing panics under it.
        self.outside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is outside, and has the world look.
    pub(crate) fn ring(&self, change: impl FnOnce(&mut Outside)) {
        change(&mut self.lock());
        self.heard.notify_all();
    }

    pub(crate) fn state(&self) -> Doings {
        let outside = self.lock();
        match outside.running {
            _ if outside.has_news() => Doings::News,
            0 => Doings::Nothing,
            _ => Doings::Running,
        }
    }

    /// Waits until there is something for the model, or a thread has stopped doing things.
    pub(crate) fn wait(&self) {
        let mut outside = self.lock();
        while !outside.has_news() && !outside.stirred {
            outside = match self.heard.wait(outside) {
                Ok(outside) => outside,
                Err(poisoned) => poisoned.into_inner(),
            };
        }
        outside.stirred = false;
    }
}

/// A counter that wakes a loop.
#[derive(Debug)]
pub(crate) struct Bell {
    set: Arc<AtomicBool>,
}

impl Bell {
    pub(super) fn mask(&self) -> u32 {
        // A counter can always be added to.
        bits::OUT | if self.set.load(Ordering::Acquire) { bits::IN } else { 0 }
    }
}

impl Kernel {
    pub(crate) fn bell(&mut self, host: HostId) -> Result<(Fd, WakeFn), Errno> {
        let set = Arc::new(AtomicBool::new(false));
        let fd = self.open(host, Kind::Bell(Bell { set: set.clone() }))?;
        let id = self.lookup(host, fd)?;
        let doorbell = self.doorbell.clone();
        let wake = move || {
            set.store(true, Ordering::Release);
            // Each one is news to those who hear of changes only, but nobody hears of it before the model looks.
            let mut outside = doorbell.lock();
            if !outside.rung.contains(&id) {
                outside.rung.push(id);
                doorbell.heard.notify_all();
            }
        };
        Ok((fd, Arc::new(wake)))
    }

    /// Takes back all wakes so far.
    pub(crate) fn clear_bell(&mut self, host: HostId, fd: Fd) {
        // What was rung before this is over was heard by it.
        self.ring_doorbell();
        let Ok(id) = self.lookup(host, fd) else { return };
        if let Some(Object { kind: Kind::Bell(bell), .. }) = self.objects.get(id)
            && bell.set.swap(false, Ordering::AcqRel)
        {
            self.notify(id, bits::OUT);
        }
    }

    /// Tells those who watch a bell that was rung.
    pub(super) fn ring_doorbell(&mut self) {
        let rung = std::mem::take(&mut self.doorbell.lock().rung);
        for id in rung {
            self.notify(id, bits::IN);
        }
    }
}
