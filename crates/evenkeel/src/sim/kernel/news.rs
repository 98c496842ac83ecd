//! What is new to a loop whose driver hears of changes from the model itself, without any of the interfaces of a kernel.

use std::collections::BTreeSet;

use rustix::io::Errno;

use super::{HostId, Kernel, ObjectId, Watcher};
use crate::sim::fault::Fault;
use crate::sys::Fd;

impl Kernel {
    /// Tells a loop of every change of an object from now on, and of its state at once.
    pub(crate) fn watch(&mut self, host: HostId, fd: Fd, reader: usize) -> Result<ObjectId, Errno> {
        let id = self.lookup(host, fd)?;
        if let Some(object) = self.objects.get_mut(id) {
            object.watchers.push(Watcher::Loop(reader));
        }
        self.tell_loop(reader, id);
        Ok(id)
    }

    pub(crate) fn unwatch(&mut self, id: ObjectId, reader: usize) {
        if let Some(object) = self.objects.get_mut(id) {
            object.watchers.retain(|watcher| *watcher != Watcher::Loop(reader));
        }
        if let Some(news) = self.news.get_mut(reader) {
            news.remove(&id);
        }
    }

    /// An object is to be looked at by a loop.
    pub(crate) fn tell_loop(&mut self, reader: usize, id: ObjectId) {
        if self.news.len() <= reader {
            self.news.resize_with(reader + 1, BTreeSet::new);
        }
        self.news[reader].insert(id);
    }

    /// A wait of this loop would find something.
    pub(crate) fn has_news(&self, reader: usize) -> bool {
        self.news.get(reader).is_some_and(|news| !news.is_empty())
    }

    /// What a loop is to look at; none if nothing has changed.
    pub(crate) fn take_news(&mut self, reader: usize) -> Option<Vec<ObjectId>> {
        let news = self.news.get_mut(reader)?;
        let mut taken: Vec<ObjectId> = std::mem::take(news).into_iter().collect();
        if taken.len() > 1 && self.strikes(Fault::Truncated) {
            let kept = self.faults.dice(Fault::Truncated).usize(1..taken.len());
            let rest = taken.split_off(kept);
            self.news[reader].extend(rest);
        }
        if !taken.is_empty() && self.strikes(Fault::Coalesced) {
            let late = self.faults.dice(Fault::Coalesced).usize(..taken.len());
            self.notify_soon(taken.swap_remove(late), 0);
        }
        if taken.len() > 1 && self.strikes(Fault::Shuffled) {
            self.faults.dice(Fault::Shuffled).shuffle(&mut taken);
        }
        (!taken.is_empty()).then_some(taken)
    }
}
