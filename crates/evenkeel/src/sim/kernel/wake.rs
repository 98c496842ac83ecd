//! What wakes a loop from any thread. Wakes come from outside the model, and are taken into it when it looks next.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::{HostId, Kernel, Kind, Object, ObjectId, bits};
use crate::sys::{Fd, WakeFn};

/// Where wakes wait for the model.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    rung: Mutex<Vec<ObjectId>>,
    /// For a thread that runs the model and has nothing to do before somebody outside has.
    pub(crate) heard: Condvar,
}

impl Doorbell {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<ObjectId>> {
        // Nothing panics under it.
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
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
            let mut rung = doorbell.lock();
            if !rung.contains(&id) {
                rung.push(id);
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
        let rung = std::mem::take(&mut *self.doorbell.lock());
        for id in rung {
            self.notify(id, bits::IN);
        }
    }
}
