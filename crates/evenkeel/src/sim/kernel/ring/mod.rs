//! `io_uring`: two queues in memory that the kernel shares with its process, and requests that stay in flight.
//!
//! The driver's own code runs over this unchanged. What a request is armed for it hears as a watcher of the object, which it
//! keeps open; what it has to do then is work for the loop's thread, done when that enters the kernel and wants completions,
//! as with deferred task work, or at any time without it.
//!
//! | file | question |
//! |---|---|
//! | `memory.rs` | what memory both sides see |
//! | `queues.rs` | how entries come in, and completions out |
//! | `setup.rs` | what this kernel's ring is like |
//! | `request.rs` | what is in flight |
//! | `submit.rs` | what an entry asks for |
//! | `attempt.rs` | how a request is done, once or again and again |
//! | `work.rs` | when |
//! | `complete.rs` | how its outcome reaches the process |
//! | `cancel.rs` | how it ends before its time |
//! | `buffers.rs` | which buffers are the kernel's |

mod attempt;
mod buffers;
mod cancel;
mod complete;
mod memory;
mod queues;
mod request;
mod setup;
mod submit;
#[cfg(test)]
mod tests;
mod work;

use std::collections::{BTreeSet, VecDeque};

use fastrand::Rng;
use rustix::io::Errno;

pub(crate) use request::RequestId;
pub(crate) use setup::Offer;

use buffers::Group;
use memory::Memory;
use queues::Queues;
use request::{Request, Requests};

use super::{HostId, Kernel, Kind, Object, ObjectId, bits};
use crate::sys::Fd;
use crate::sys::ring::{Done, SetupFlags};

/// What all rings of a world share.
#[derive(Debug)]
pub(crate) struct Rings {
    pub(super) memory: Memory,
    open: BTreeSet<ObjectId>,
    /// Chooses what a host's rings are like.
    dice: Rng,
    /// Hosts have kernels of several versions; else all have the newest.
    pub(crate) vary: bool,
    /// Rings with work that waits for no call.
    undeferred: Vec<ObjectId>,
    /// Addresses of memory that a ring was using when it was closed.
    doomed: BTreeSet<u64>,
}

impl Rings {
    pub(crate) fn new(seed: u64) -> Self {
        Rings {
            memory: Memory::default(),
            open: BTreeSet::new(),
            dice: Rng::with_seed(seed ^ 0x7269_6e67),
            vary: false,
            undeferred: Vec::new(),
            doomed: BTreeSet::new(),
        }
    }
}

/// An `io_uring`.
#[derive(Debug)]
pub(crate) struct Ring {
    host: HostId,
    offer: Offer,
    flags: SetupFlags,
    queues: Queues,
    requests: Requests,
    /// Requests that have something to do, or to be told, in the order in which that came.
    work: VecDeque<RequestId>,
    /// Completions for which there was no room.
    backlog: VecDeque<Done>,
    group: Option<Group>,
}

impl Ring {
    pub(super) fn mask(&self) -> u32 {
        if self.queues.unseen() > 0 || !self.backlog.is_empty() { bits::IN } else { 0 }
    }

    /// Task work waits until the process wants completions.
    fn is_deferred(&self) -> bool {
        self.flags.contains(SetupFlags::DEFER_TASKRUN)
    }
}

impl Kernel {
    fn ring(&mut self, id: ObjectId) -> Option<&mut Ring> {
        match self.objects.get_mut(id) {
            Some(Object { kind: Kind::Ring(ring), .. }) => Some(ring),
            _ => None,
        }
    }

    fn ring_by_number(&self, host: HostId, fd: Fd) -> Result<ObjectId, Errno> {
        let id = self.lookup(host, fd)?;
        match self.objects.get(id) {
            Some(Object { kind: Kind::Ring(_), .. }) => Ok(id),
            _ => Err(Errno::OPNOTSUPP),
        }
    }

    /// What a replay shows of a ring.
    fn ring_aside(&mut self, id: ObjectId, what: std::fmt::Arguments<'_>) {
        let Some(object) = self.objects.get(id) else { return };
        let name = &self.hosts[object.host.0 as usize].name;
        self.trace.aside(self.now, format_args!("{name}: {what}"));
    }

    /// Whether it is enough to tell this request alone, out of all who share an object in this way.
    pub(super) fn ring_is_exclusive(&mut self, ring: ObjectId, id: RequestId) -> bool {
        self.request(ring, id).is_some_and(|it| it.is_exclusive())
    }

    fn request(&mut self, ring: ObjectId, id: RequestId) -> Option<&mut Request> {
        self.ring(ring)?.requests.get_mut(id)
    }
}
