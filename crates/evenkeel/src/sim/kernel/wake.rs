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
    /// Rung, and not taken back.
    set: Arc<AtomicBool>,
    /// Rung, and the model has not heard it yet.
    unheard: Arc<AtomicBool>,
}

impl Bell {
    pub(super) fn mask(&self) -> u32 {
        if self.set.load(Ordering::Acquire) { bits::IN } else { 0 }
    }
}

impl Kernel {
    pub(crate) fn bell(&mut self, host: HostId) -> Result<(Fd, WakeFn), Errno> {
        let set = Arc::new(AtomicBool::new(false));
        let unheard = Arc::new(AtomicBool::new(false));
        let bell = Bell { set: set.clone(), unheard: unheard.clone() };
        let fd = self.open(host, Kind::Bell(bell))?;
        let id = self.lookup(host, fd)?;
        let doorbell = self.doorbell.clone();
        let wake = move || {
            set.store(true, Ordering::Release);
            // Each is a change of its own, whether the last one was taken back or not; so nothing need be, as the kernel's
            // counter has it.
            if !unheard.swap(true, Ordering::AcqRel) {
                doorbell.lock().push(id);
                doorbell.heard.notify_all();
            }
        };
        Ok((fd, Arc::new(wake)))
    }

    /// Takes back all wakes so far.
    pub(crate) fn clear_bell(&mut self, host: HostId, fd: Fd) {
        if let Ok(object) = self.object(host, fd)
            && let Kind::Bell(bell) = &object.kind
        {
            bell.set.store(false, Ordering::Release);
        }
    }

    /// Tells those who watch a bell that was rung.
    pub(super) fn ring_doorbell(&mut self) {
        let rung = std::mem::take(&mut *self.doorbell.lock());
        for id in rung {
            if let Some(Object { kind: Kind::Bell(bell), .. }) = self.objects.get(id) {
                bell.unheard.store(false, Ordering::Release);
            }
            self.notify(id, bits::IN);
        }
    }
}
