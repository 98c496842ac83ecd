//! When requests that were told of something go on: while the process waits for completions, or sooner.

use rustix::io::Errno;

use super::request::Cancelled;
use super::{RequestId, Ring};
use crate::sim::fault::Fault;
use crate::sim::kernel::{HostId, Kernel, Kind, Object, ObjectId, bits};
use crate::sys::Fd;
use crate::sys::ring::{SQ_TASK_WORK, SetupFlags};

/// Requests that one call serves, if it is to wait for fewer: the others wait for the next call, which nothing tells of.
const AT_ONCE: usize = 20;

impl Kernel {
    /// Something of `mask` is new for what a request watches; 0 stands for everything. True if nobody else need be told who waits
    /// in line for it.
    pub(in crate::sim::kernel) fn ring_notify(
        &mut self,
        id: ObjectId,
        request: RequestId,
        mask: u32,
    ) -> bool {
        let Some(it) = self.request(id, request) else { return false };
        // Urgent data alone wakes nobody: Linux counts it with how a request waits, and not with what it waits for.
        if mask != 0 && mask & it.interest() & !bits::PRI == 0 {
            return false;
        }
        let exclusive = it.is_exclusive() && it.cancelled == Cancelled::No;
        if it.listed {
            // One that does not go on was taken off those who are told, unless nothing in particular was new.
            let hears = it.multishot || it.told == 0;
            it.again |= hears;
            return exclusive && hears;
        }
        it.told = mask;
        self.list_request(id, request);
        exclusive
    }

    /// A request has found this when it was made, whatever becomes of it before it is looked at.
    pub(super) fn list_if_there(&mut self, id: ObjectId, request: RequestId, there: u32) {
        if let Some(it) = self.request(id, request).filter(|_| there != 0) {
            it.told = there;
            self.list_request(id, request);
        }
    }

    /// Puts a request on the list of those that have something to do.
    pub(super) fn list_request(&mut self, id: ObjectId, request: RequestId) {
        let Some(it) = self.request(id, request).filter(|it| !it.listed) else { return };
        it.listed = true;
        let Some(ring) = self.ring(id) else { return };
        ring.work.push_back(request);
        if ring.flags.contains(SetupFlags::TASKRUN_FLAG) {
            ring.queues.tell(SQ_TASK_WORK, true);
        }
        if !ring.is_deferred() && !self.rings.undeferred.contains(&id) {
            self.rings.undeferred.push(id);
        }
    }

    /// Serves at most so many of those that have something to do.
    fn run_work(&mut self, id: ObjectId, most: usize) {
        let shuffled = self.strikes(Fault::Shuffled);
        let Some(Object { kind: Kind::Ring(ring), .. }) = self.objects.get_mut(id) else { return };
        if shuffled {
            self.faults.dice(Fault::Shuffled).shuffle(ring.work.make_contiguous());
        }
        ring.queues.tell(SQ_TASK_WORK, false);
        let (mut most, tells) = (ring.work.len().min(most), ring.flags.contains(SetupFlags::TASKRUN_FLAG));
        if most > 1 && self.strikes(Fault::Truncated) {
            // Fewer than it may leave unsaid, so it says that there are more.
            most = self.faults.dice(Fault::Truncated).usize(1..most);
            if let Some(ring) = self.ring(id) {
                ring.queues.tell(SQ_TASK_WORK, tells);
            }
        }
        for _ in 0..most {
            let Some(request) = self.ring(id).and_then(|ring| ring.work.pop_front()) else { break };
            let Some(it) = self.request(id, request) else { continue };
            it.listed = false;
            if it.cancelled == Cancelled::No && self.strikes(Fault::Coalesced) {
                // Told late, with what comes meanwhile.
                self.list_request(id, request);
                continue;
            }
            self.serve_request(id, request);
        }
    }

    fn serve_request(&mut self, id: ObjectId, request: RequestId) {
        if self.is_cancelled(id, request) {
            return self.end_request(id, request, -Errno::CANCELED.raw_os_error(), 0);
        }
        self.attempt(id, request);
        // One that is to end soon is looked at again.
        if self.request(id, request).is_some_and(|it| it.cancelled != Cancelled::No) {
            self.list_request(id, request);
        }
    }

    /// Rings whose work waits for no call: it is done now, or whenever the process is interrupted next.
    pub(in crate::sim::kernel) fn run_undeferred(&mut self) {
        for id in std::mem::take(&mut self.rings.undeferred) {
            if self.rings.dice.bool() {
                self.run_work(id, usize::MAX);
            } else if self.ring(id).is_some_and(|ring| !ring.work.is_empty()) {
                self.rings.undeferred.push(id);
            }
        }
    }

    /// Does what waits for a process that wants completions, before it is looked at how many there are: of a call that has
    /// submitted something.
    pub(crate) fn ring_work(&mut self, host: HostId, fd: Fd, wait: u32) {
        if let Ok(id) = self.ring_by_number(host, fd)
            && self.ring(id).is_some_and(|ring| ring.is_deferred())
        {
            self.run_work(id, AT_ONCE.max(wait as usize));
        }
    }

    /// Completes what it can. Whether as many completions are there as are waited for.
    pub(crate) fn ring_collect(&mut self, host: HostId, fd: Fd, wait: u32) -> Result<bool, Errno> {
        let id = self.ring_by_number(host, fd)?;
        self.take_over_buffers(id);
        self.tell_untruths(id);
        let deferred = self.ring(id).is_some_and(|ring| ring.is_deferred());
        let most = if deferred { AT_ONCE.max(wait as usize) } else { usize::MAX };
        self.run_work(id, most);
        self.flush_backlog(id);
        let ring = self.ring(id).ok_or(Errno::BADF)?;
        Ok(ring.queues.unseen() >= wait.min(ring.queues.completions()))
    }

    /// Whether a wait for so many completions would end.
    pub(crate) fn ring_has(&mut self, host: HostId, fd: Fd, wait: u32) -> bool {
        let Ok(id) = self.ring_by_number(host, fd) else { return true };
        self.ring(id).is_none_or(|ring| {
            let Ring { queues, work, backlog, .. } = ring;
            queues.unseen() as usize + work.len() + backlog.len() >= wait as usize
        })
    }

    /// Whether the process has completions to take, in whatever number.
    pub(crate) fn ring_has_some(&mut self, host: HostId, fd: Fd) -> bool {
        let id = self.ring_by_number(host, fd).ok();
        id.and_then(|id| self.ring(id)).is_some_and(|ring| ring.queues.unseen() > 0)
    }

    /// Tells a request of something that is not there.
    fn tell_untruths(&mut self, id: ObjectId) {
        for (fault, bit) in [(Fault::SpuriousReadable, bits::IN), (Fault::SpuriousWritable, bits::OUT)] {
            if !self.strikes(fault) {
                continue;
            }
            let Some(ring) = self.ring(id) else { return };
            let all = ring.requests.all().filter(|(_, it)| it.interest() & bit != 0);
            let all: Vec<_> = all.map(|(request, _)| request).collect();
            if let Some(request) = self.faults.dice(fault).choice(all) {
                self.ring_notify(id, request, bit);
            }
        }
    }
}
