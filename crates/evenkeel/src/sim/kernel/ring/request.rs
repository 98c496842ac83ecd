//! Requests in flight.

use crate::sim::kernel::{HostId, Kernel, ObjectId, Watcher, bits};
use crate::sys::Fd;

/// A request of a ring. Its name is never used for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RequestId {
    index: u32,
    generation: u32,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Poll { events: u32 },
    Accept,
    Receive,
}

/// How far its cancellation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cancelled {
    No,
    /// It ends when it is looked at next.
    Now,
    /// It was said to be ending, and goes on for so many looks.
    Later(u8),
}

#[derive(Debug)]
pub(super) struct Request {
    /// What its completions carry.
    pub(super) data: u64,
    /// The number by which it was named, and what that meant then.
    pub(super) fd: Fd,
    pub(super) object: ObjectId,
    pub(super) what: What,
    /// It goes on by itself.
    pub(super) multishot: bool,
    /// What it was told of first since it was looked at; 0 is to look for itself.
    pub(super) told: u32,
    /// Of a receive: the least that was left in a buffer that it has found. It takes no more before it has completed.
    pub(super) most: Option<u32>,
    /// It was told of more since.
    pub(super) again: bool,
    /// It is on the list of those that have something to do.
    pub(super) listed: bool,
    pub(super) cancelled: Cancelled,
}

impl Request {
    pub(super) fn is_receive(&self) -> bool {
        self.what == What::Receive
    }

    /// How much it takes of what is left in a buffer.
    pub(super) fn room(&mut self, left: u32) -> u32 {
        let most = self.most.map_or(left, |most| most.min(left));
        self.most = Some(most);
        most
    }

    /// A connection is for one of those who would accept it.
    pub(super) fn is_exclusive(&self) -> bool {
        self.what == What::Accept
    }

    /// What it wants to be told of. Errors, hang-ups and the peer's end wake it, whatever was asked for.
    pub(super) fn interest(&self) -> u32 {
        const ANYWAY: u32 = bits::ALWAYS | bits::RDHUP;
        match self.what {
            What::Poll { events } => events | ANYWAY,
            What::Accept => bits::IN | ANYWAY,
            What::Receive => bits::IN | bits::PRI | ANYWAY,
        }
    }
}

impl Kernel {
    /// Whether a request is in flight that was made for this number.
    pub(crate) fn is_in_flight(&mut self, host: HostId, fd: Fd) -> bool {
        let Ok(object) = self.object(host, fd) else { return false };
        let watchers = object.watchers.clone();
        watchers.into_iter().any(|watcher| match watcher {
            Watcher::Ring { ring, request } => self.request(ring, request).is_some_and(|it| it.fd == fd),
            Watcher::Epoll { .. } | Watcher::Loop(_) => false,
        })
    }
}

/// All of a ring.
#[derive(Debug, Default)]
pub(super) struct Requests {
    slots: Vec<(u32, Option<Request>)>,
    free: Vec<u32>,
}

impl Requests {
    pub(super) fn insert(&mut self, request: Request) -> RequestId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.1 = Some(request);
        RequestId { index, generation: slot.0 }
    }

    pub(super) fn get_mut(&mut self, id: RequestId) -> Option<&mut Request> {
        let (generation, request) = self.slots.get_mut(id.index as usize)?;
        request.as_mut().filter(|_| *generation == id.generation)
    }

    pub(super) fn remove(&mut self, id: RequestId) -> Option<Request> {
        let (generation, request) = self.slots.get_mut(id.index as usize)?;
        if *generation != id.generation {
            return None;
        }
        let request = request.take()?;
        *generation += 1;
        self.free.push(id.index);
        Some(request)
    }

    /// In the order of their places.
    pub(super) fn all(&self) -> impl Iterator<Item = (RequestId, &Request)> {
        (0..).zip(&self.slots).filter_map(|(index, (generation, request))| {
            Some((RequestId { index, generation: *generation }, request.as_ref()?))
        })
    }
}
