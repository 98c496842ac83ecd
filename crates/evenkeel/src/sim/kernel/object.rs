//! What descriptors refer to: open sockets and the like, which live as long as a descriptor or a queue refers to them.

use super::HostId;
use super::epoll::Epoll;
use super::listener::Listener;
use super::pipe::Pipe;
use super::ring::{RequestId, Ring};
use super::stream::Stream;
use super::udp::Udp;
use super::unix_packet::UnixPacket;
use super::wake::Bell;
use crate::sys::Fd;

/// An open object. Its number is never used for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ObjectId {
    index: u32,
    generation: u32,
}

/// One who is to hear of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watcher {
    /// An `epoll`, which knows the object by a number.
    Epoll { epoll: ObjectId, fd: Fd },
    /// A request of an `io_uring`.
    Ring { ring: ObjectId, request: RequestId },
    /// A loop, by its number, whose driver hears of changes from the model itself.
    Loop(usize),
}

/// What it is.
#[derive(Debug)]
pub(crate) enum Kind {
    Stream(Stream),
    Listener(Listener),
    Udp(Udp),
    UnixPacket(UnixPacket),
    Pipe(Pipe),
    Epoll(Epoll),
    /// A counter that wakes a loop.
    Bell(Bell),
    /// Does nothing but occupy a number.
    Spare,
    Ring(Box<Ring>),
}

impl Kind {
    /// What it is called in a list of descriptors.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Kind::Stream(_) => "stream",
            Kind::Listener(_) => "listener",
            Kind::Udp(_) => "udp",
            Kind::UnixPacket(_) => "unix packets",
            Kind::Pipe(_) => "pipe",
            Kind::Epoll(_) => "epoll",
            Kind::Bell(_) => "bell",
            Kind::Spare => "spare",
            Kind::Ring(_) => "ring",
        }
    }
}

/// An open object.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) host: HostId,
    /// Descriptors that refer to it.
    pub(crate) numbers: u32,
    pub(crate) kind: Kind,
    pub(crate) watchers: Vec<Watcher>,
}

impl Object {
    /// Tells one more of changes: as on Linux before all others, unless one of several is enough, who wait in line.
    pub(crate) fn watch(&mut self, watcher: Watcher, exclusive: bool) {
        let at = if exclusive { self.watchers.len() } else { 0 };
        self.watchers.insert(at, watcher);
    }

    pub(crate) fn stream(&self) -> Option<&Stream> {
        if let Kind::Stream(stream) = &self.kind { Some(stream) } else { None }
    }
}

/// All open objects of all hosts.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    slots: Vec<(u32, Option<Object>)>,
    free: Vec<u32>,
}

impl Objects {
    pub(crate) fn insert(&mut self, host: HostId, kind: Kind) -> ObjectId {
        let object = Object { host, numbers: 0, kind, watchers: Vec::new() };
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.1 = Some(object);
        ObjectId { index, generation: slot.0 }
    }

    pub(crate) fn get(&self, id: ObjectId) -> Option<&Object> {
        let (generation, object) = self.slots.get(id.index as usize)?;
        object.as_ref().filter(|_| *generation == id.generation)
    }

    pub(crate) fn get_mut(&mut self, id: ObjectId) -> Option<&mut Object> {
        let (generation, object) = self.slots.get_mut(id.index as usize)?;
        object.as_mut().filter(|_| *generation == id.generation)
    }

    pub(crate) fn remove(&mut self, id: ObjectId) -> Option<Object> {
        let (generation, object) = self.slots.get_mut(id.index as usize)?;
        if *generation != id.generation {
            return None;
        }
        let object = object.take()?;
        *generation += 1;
        self.free.push(id.index);
        Some(object)
    }

    /// All that are open, to be changed.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Object> {
        self.slots.iter_mut().filter_map(|(_, object)| object.as_mut())
    }

    /// All that are open.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ObjectId, &Object)> {
        let numbered = self.slots.iter().enumerate();
        numbered.filter_map(|(index, (generation, object))| {
            let id = ObjectId { index: index as u32, generation: *generation };
            object.as_ref().map(|object| (id, object))
        })
    }
}
