//! What wakes a loop from any thread. Wakes come from outside the model, and are taken into it when it looks next.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::{HostId, Kernel, Kind, ObjectId, bits};
use crate::sys::{Fd, WakeFn};

/// Where wakes wait for the model.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    rung: Mutex<Vec<(ObjectId, Arc<Wakes>)>>,
    /// For a thread that runs the model and has nothing to do before somebody outside has.
    pub(crate) heard: Condvar,
}

impl Doorbell {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<(ObjectId, Arc<Wakes>)>> {
        // Nothing panics under it.
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A counter, as those see it who wake.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    /// It has been written to since it was last read.
    set: AtomicBool,
    /// It waits to be taken into the model. Each write is news, whether the one before was read or not.
    waits: AtomicBool,
}

/// A counter that wakes a loop.
#[derive(Debug)]
pub(crate) struct Bell {
    wakes: Arc<Wakes>,
}

impl Bell {
    pub(super) fn mask(&self) -> u32 {
        if self.wakes.set.load(Ordering::Acquire) { bits::IN } else { 0 }
    }
}

impl Kernel {
    pub(crate) fn bell(&mut self, host: HostId) -> Result<(Fd, WakeFn), Errno> {
        let wakes = Arc::new(Wakes::default());
        let fd = self.open(host, Kind::Bell(Bell { wakes: wakes.clone() }))?;
        let id = self.lookup(host, fd)?;
        let doorbell = self.doorbell.clone();
        let wake = move || {
            wakes.set.store(true, Ordering::Release);
            if !wakes.waits.swap(true, Ordering::AcqRel) {
                doorbell.lock().push((id, wakes.clone()));
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
            bell.wakes.set.store(false, Ordering::Release);
        }
    }

    /// Tells those who watch a bell that was rung.
    pub(super) fn ring_doorbell(&mut self) {
        let rung = std::mem::take(&mut *self.doorbell.lock());
        for (id, wakes) in rung {
            wakes.waits.store(false, Ordering::Release);
            self.notify(id, bits::IN);
        }
    }
}
