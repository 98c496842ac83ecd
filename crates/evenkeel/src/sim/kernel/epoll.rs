//! `epoll`: who is watched, who is queued to be reported, and what is reported, by Linux's rules.

use std::collections::{BTreeMap, VecDeque};

use rustix::io::Errno;

use super::{HostId, Kernel, Kind, Object, ObjectId, Watcher, bits};
use crate::sim::fault::Fault;
use crate::sys::{EpollOp, Fd};

/// A watched descriptor: the number and the object that it meant when it was added.
type Key = (Fd, ObjectId);

#[derive(Debug)]
struct Item {
    data: u64,
    flags: u32,
    queued: bool,
    /// A one-shot item that has been reported.
    disarmed: bool,
}

impl Item {
    /// What is reported of it: nothing, once it was to be reported once.
    fn asked(&self) -> u32 {
        if self.disarmed { 0 } else { self.flags }
    }
}

/// An instance.
#[derive(Debug, Default)]
pub(crate) struct Epoll {
    items: BTreeMap<Key, Item>,
    ready: VecDeque<Key>,
    /// Loops that sleep in a wait on it.
    pub(crate) sleepers: u32,
}

/// What a wait reports of one descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) data: u64,
    pub(crate) mask: u32,
    pub(crate) fd: Fd,
}

impl Epoll {
    fn queue(&mut self, key: Key) -> bool {
        let Some(item) = self.items.get_mut(&key) else { return false };
        if item.disarmed {
            return false;
        }
        if !item.queued {
            item.queued = true;
            self.ready.push_back(key);
        }
        true
    }
}

impl Kernel {
    pub(crate) fn epoll_create(&mut self, host: HostId) -> Result<Fd, Errno> {
        self.open(host, Kind::Epoll(Epoll::default()))
    }

    fn epoll(&mut self, id: ObjectId) -> Result<&mut Epoll, Errno> {
        match self.objects.get_mut(id) {
            Some(Object { kind: Kind::Epoll(epoll), .. }) => Ok(epoll),
            _ => Err(Errno::INVAL),
        }
    }

    pub(crate) fn epoll_ctl(
        &mut self,
        host: HostId,
        ep: Fd,
        op: EpollOp,
        fd: Fd,
        data: u64,
        flags: u32,
    ) -> Result<(), Errno> {
        let id = self.lookup(host, ep)?;
        let object = self.lookup(host, fd)?;
        if id == object {
            return Err(Errno::INVAL);
        }
        let key = (fd, object);
        let mask = self.mask(object);
        let inside = self.epoll(object).is_ok();
        let epoll = self.epoll(id)?;
        if flags & bits::EXCLUSIVE != 0 {
            // Said once, and of nothing that needs more than one to look.
            let refused = op == EpollOp::Modify || inside || flags & !bits::MAY_BE_EXCLUSIVE != 0;
            if refused && op != EpollOp::Delete {
                return Err(Errno::INVAL);
            }
        }
        let flags_always = flags | bits::ALWAYS;
        match op {
            EpollOp::Add => {
                if epoll.items.contains_key(&key) {
                    return Err(Errno::EXIST);
                }
                epoll.items.insert(key, Item { data, flags: flags_always, queued: false, disarmed: false });
            }
            EpollOp::Modify => {
                let item = epoll.items.get_mut(&key).ok_or(Errno::NOENT)?;
                if item.flags & bits::EXCLUSIVE != 0 {
                    return Err(Errno::INVAL);
                }
                (item.data, item.flags, item.disarmed) = (data, flags_always, false);
            }
            EpollOp::Delete => {
                epoll.items.remove(&key).ok_or(Errno::NOENT)?;
                epoll.ready.retain(|queued| *queued != key);
            }
        }
        // What is there already is reported: adding and changing look at the state (I4).
        if op != EpollOp::Delete && mask & flags_always != 0 {
            epoll.queue(key);
            self.host(host).stirred = true;
        }
        let watcher = Watcher::Epoll { epoll: id, fd };
        if let Some(object) = self.objects.get_mut(object) {
            match op {
                EpollOp::Add => object.watch(watcher, flags & bits::EXCLUSIVE != 0),
                EpollOp::Delete => object.watchers.retain(|w| *w != watcher),
                EpollOp::Modify => {}
            }
        }
        Ok(())
    }

    pub(super) fn epoll_is_exclusive(&mut self, epoll: ObjectId, fd: Fd, object: ObjectId) -> bool {
        let item = self.epoll(epoll).ok().and_then(|epoll| epoll.items.get(&(fd, object)));
        item.is_some_and(|item| item.flags & bits::EXCLUSIVE != 0)
    }

    /// Queues a watched object for the next wait. False if that is not asked for, or nobody sleeps who is woken by it.
    pub(super) fn epoll_notify(&mut self, epoll: ObjectId, fd: Fd, object: ObjectId, mask: u32) -> bool {
        let Ok(epoll) = self.epoll(epoll) else { return false };
        let Some(item) = epoll.items.get(&(fd, object)) else { return false };
        if mask != bits::STATE && mask & item.flags == 0 {
            return false;
        }
        epoll.queue((fd, object)) && epoll.sleepers > 0
    }

    /// A wait on this instance would report something.
    pub(crate) fn epoll_has(&mut self, host: HostId, ep: Fd) -> bool {
        let Ok(id) = self.lookup(host, ep) else { return true };
        match self.objects.get(id) {
            Some(Object { kind: Kind::Epoll(epoll), .. }) => self.epoll_is_ready(epoll),
            _ => true,
        }
    }

    pub(super) fn epoll_is_ready(&self, epoll: &Epoll) -> bool {
        let flags = |key| epoll.items.get(key).map_or(0, Item::asked);
        epoll.ready.iter().any(|key| self.mask(key.1) & flags(key) != 0)
    }

    /// Forgets what is queued and not ready, up to the first that is: what a look at an instance from outside does.
    pub(super) fn epoll_prune(&mut self, id: ObjectId) {
        while let Some(Object { kind: Kind::Epoll(epoll), .. }) = self.objects.get(id)
            && let Some(key) = epoll.ready.front().copied()
        {
            let flags = epoll.items.get(&key).map_or(0, Item::asked);
            if self.mask(key.1) & flags != 0 {
                return;
            }
            if let Ok(epoll) = self.epoll(id) {
                epoll.ready.pop_front();
                if let Some(item) = epoll.items.get_mut(&key) {
                    item.queued = false;
                }
            }
        }
    }

    /// A loop goes to sleep in a wait on it, or wakes up.
    pub(crate) fn epoll_sleeps(&mut self, host: HostId, ep: Fd, sleeps: bool) {
        if let Ok(id) = self.lookup(host, ep)
            && let Ok(epoll) = self.epoll(id)
        {
            epoll.sleepers = if sleeps { epoll.sleepers + 1 } else { epoll.sleepers.saturating_sub(1) };
        }
    }

    /// Reports at most `most` descriptors that are ready.
    pub(crate) fn epoll_collect(&mut self, host: HostId, ep: Fd, most: usize) -> Result<Vec<Report>, Errno> {
        let id = self.lookup(host, ep)?;
        let queued = self.epoll(id)?.ready.len();
        let mut most = most;
        if queued > 1 && self.strikes(Fault::Truncated) {
            most = most.min(self.faults.dice(Fault::Truncated).usize(1..queued));
        }
        let mut reports = Vec::new();
        for _ in 0..queued {
            if reports.len() == most {
                break;
            }
            let Some(key) = self.epoll(id)?.ready.pop_front() else { break };
            if self.strikes(Fault::Coalesced) {
                // It stays queued, behind the others; somebody must look again for it.
                self.epoll(id)?.ready.push_back(key);
                self.notify_soon(key.1, 0);
                continue;
            }
            let mask = self.mask(key.1);
            let epoll = self.epoll(id)?;
            let Some(item) = epoll.items.get_mut(&key) else { continue };
            item.queued = false;
            let mask = mask & item.asked();
            if mask == 0 {
                continue;
            }
            reports.push(Report { data: item.data, mask, fd: key.0 });
            if item.flags & bits::ONESHOT != 0 {
                item.disarmed = true;
            } else if item.flags & bits::EDGE == 0 {
                epoll.queue(key);
            }
        }
        self.epoll_spurious(id, &mut reports, most)?;
        if reports.len() > 1 && self.strikes(Fault::Shuffled) {
            self.faults.dice(Fault::Shuffled).shuffle(&mut reports);
        }
        self.host(host).table.begin_batch(reports.iter().map(|report| report.fd));
        Ok(reports)
    }

    /// Reports what is not so: a descriptor that is not ready may be reported at any time (I5).
    fn epoll_spurious(&mut self, id: ObjectId, reports: &mut Vec<Report>, most: usize) -> Result<(), Errno> {
        for (fault, bit) in [(Fault::SpuriousReadable, bits::IN), (Fault::SpuriousWritable, bits::OUT)] {
            if reports.len() == most || !self.strikes(fault) {
                continue;
            }
            let asked: Vec<(Key, Report)> = self
                .epoll(id)?
                .items
                .iter()
                .filter(|(_, item)| item.flags & bit != 0 && !item.disarmed)
                .map(|(key, item)| (*key, Report { data: item.data, mask: bit, fd: key.0 }))
                .filter(|(_, spurious)| reports.iter().all(|report| report.fd != spurious.fd))
                .collect();
            let Some((key, report)) = self.faults.dice(fault).choice(asked) else { continue };
            reports.push(report);
            if let Some(item) = self.epoll(id)?.items.get_mut(&key) {
                // Who is told once is not told again, whatever it was told.
                item.disarmed = item.flags & bits::ONESHOT != 0;
            }
        }
        Ok(())
    }

    /// A watched object has ended.
    pub(super) fn forget_watched(&mut self, watcher: Watcher, object: ObjectId) {
        if let Watcher::Epoll { epoll, fd } = watcher
            && let Ok(epoll) = self.epoll(epoll)
        {
            epoll.items.remove(&(fd, object));
            epoll.ready.retain(|queued| *queued != (fd, object));
        }
    }

    pub(super) fn end_epoll(&mut self, id: ObjectId, epoll: Epoll) {
        for (fd, object) in epoll.items.into_keys() {
            if let Some(object) = self.objects.get_mut(object) {
                object.watchers.retain(|w| *w != Watcher::Epoll { epoll: id, fd });
            }
        }
    }
}
