//! Descriptors: numbers of a process, the lowest free one first, so that a number comes back as soon as it can.

use std::collections::BTreeSet;

use rustix::io::Errno;

use super::{Event, HostId, Kernel, Kind, Object, ObjectId};
use crate::sim::fault::Fault;
use crate::sys::Fd;

/// The numbers of one process.
#[derive(Debug)]
pub(crate) struct Table {
    /// By number. The standard streams have the first three.
    numbers: Vec<Option<ObjectId>>,
    /// As many numbers as the process may have.
    pub(crate) limit: usize,
    /// Numbers that the last wait has reported.
    reported: BTreeSet<Fd>,
    /// Those of them that were closed since.
    stale: BTreeSet<Fd>,
}

const STANDARD: usize = 3;

impl Default for Table {
    fn default() -> Self {
        let numbers = vec![None; STANDARD];
        Table { numbers, limit: 20_000, reported: BTreeSet::new(), stale: BTreeSet::new() }
    }
}

impl Table {
    /// How many numbers are taken, without the standard streams.
    pub(crate) fn used(&self) -> usize {
        self.numbers.iter().skip(STANDARD).flatten().count()
    }

    fn lowest_free(&self) -> Option<usize> {
        let taken = |at: &usize| self.numbers.get(*at).is_some_and(Option::is_some);
        let at = (STANDARD..self.numbers.len() + 1).find(|at| !taken(at))?;
        (at < self.limit).then_some(at)
    }

    /// All open numbers.
    pub(crate) fn open(&self) -> impl Iterator<Item = (Fd, ObjectId)> {
        let numbered = self.numbers.iter().enumerate();
        numbered.filter_map(|(at, object)| Some((at as Fd, (*object)?)))
    }

    /// A wait begins to serve what it reports.
    pub(super) fn begin_batch(&mut self, reported: impl Iterator<Item = Fd>) {
        self.reported = reported.collect();
        self.stale.clear();
    }
}

impl Kernel {
    /// The object behind a number.
    pub(crate) fn lookup(&self, host: HostId, fd: Fd) -> Result<ObjectId, Errno> {
        let table = &self.hosts[host.0 as usize].table;
        let number = usize::try_from(fd).map_err(|_| Errno::BADF)?;
        table.numbers.get(number).copied().flatten().ok_or(Errno::BADF)
    }

    pub(crate) fn object(&self, host: HostId, fd: Fd) -> Result<&Object, Errno> {
        self.objects.get(self.lookup(host, fd)?).ok_or(Errno::BADF)
    }

    /// Whether there is a number for one more.
    pub(crate) fn has_number(&mut self, host: HostId) -> Result<(), Errno> {
        if self.host(host).table.lowest_free().is_none() {
            self.faults.hit(Fault::TooManyFiles);
            return Err(Errno::MFILE);
        }
        if self.strikes(Fault::TooManyFiles) {
            return Err(Errno::MFILE);
        }
        if self.strikes(Fault::FileTableFull) {
            return Err(Errno::NFILE);
        }
        Ok(())
    }

    /// Gives an object that is open already one more number.
    pub(crate) fn assign(&mut self, host: HostId, id: ObjectId) -> Result<Fd, Errno> {
        let table = &mut self.host(host).table;
        let at = table.lowest_free().ok_or(Errno::MFILE)?;
        if table.numbers.len() == at {
            table.numbers.push(None);
        }
        table.numbers[at] = Some(id);
        if table.stale.remove(&(at as Fd)) {
            self.faults.hit(Fault::NumberReused);
        }
        if let Some(object) = self.objects.get_mut(id) {
            object.numbers += 1;
        }
        Ok(at as Fd)
    }

    /// Opens an object under a new number.
    pub(crate) fn open(&mut self, host: HostId, kind: Kind) -> Result<Fd, Errno> {
        self.has_number(host)?;
        let id = self.objects.insert(host, kind);
        self.assign(host, id)
    }

    /// Closes a number. The object ends with its last one.
    pub(crate) fn close(&mut self, host: HostId, fd: Fd) -> Result<(), Errno> {
        let id = self.lookup(host, fd)?;
        let table = &mut self.host(host).table;
        table.numbers[fd as usize] = None;
        if table.reported.remove(&fd) {
            table.stale.insert(fd);
            self.faults.hit(Fault::StaleEvent);
        }
        self.drop_reference(id);
        Ok(())
    }

    /// One reference less: an object ends with its last one.
    pub(super) fn drop_reference(&mut self, id: ObjectId) {
        let Some(object) = self.objects.get_mut(id) else { return };
        object.numbers -= 1;
        if object.numbers == 0 {
            self.end(id);
        }
    }

    /// Closes everything that a process has, as its end does.
    pub(crate) fn close_all(&mut self, host: HostId) {
        let open: Vec<Fd> = self.host(host).table.open().map(|(fd, _)| fd).collect();
        for fd in open {
            // Open just now.
            let _ = self.close(host, fd);
        }
    }

    /// An object that nothing refers to any more.
    pub(crate) fn end(&mut self, id: ObjectId) {
        let Some(object) = self.objects.remove(id) else { return };
        for watcher in &object.watchers {
            self.forget_watched(*watcher, id);
        }
        match object.kind {
            Kind::Stream(stream) => self.end_stream(id, stream),
            Kind::Listener(listener) => self.end_listener(object.host, id, listener),
            Kind::Epoll(epoll) => self.end_epoll(id, epoll),
            Kind::Udp(_) => self.remove_binding(object.host, id),
            Kind::UnixPacket(socket) => self.end_unix(object.host, id, socket),
            Kind::Pipe(pipe) => self.close_pipe(pipe),
            Kind::Ring(ring) => self.end_ring(id, *ring),
            Kind::Bell(_) | Kind::Spare => {}
        }
    }

    /// Tells those who watch an object again, soon: what a call has kept back is still there.
    pub(super) fn notify_soon(&mut self, id: ObjectId, mask: u32) {
        let delay = self.dice.u64(1_000..200_000);
        self.after(delay, Event::Notify(id, mask));
    }
}
