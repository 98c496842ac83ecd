//! What an entry asks for.

use rustix::io::Errno;

use super::request::{Cancelled, Request, What};
use super::setup::Version;
use crate::sim::fault::Fault;
use crate::sim::kernel::{HostId, Kernel, Kind, ObjectId, Watcher, bits};
use crate::sys::Fd;
use crate::sys::ring::{Entry, SetupFlags, op};

impl Kernel {
    /// Takes at most so many entries, and begins what they ask for. Returns how many it took.
    ///
    /// # Errors
    /// `EAGAIN`, `EBUSY` or `EINTR`, if chance has it that none is taken.
    pub(crate) fn ring_submit(&mut self, host: HostId, fd: Fd, submit: u32) -> Result<u32, Errno> {
        let id = self.ring_by_number(host, fd)?;
        self.take_over_buffers(id);
        let Some(ring) = self.ring(id) else { return Err(Errno::BADF) };
        let (mut most, stops) =
            (submit.min(ring.queues.waiting()), !ring.flags.contains(SetupFlags::SUBMIT_ALL));
        if most > 0 && self.strikes(Fault::SubmitFails) {
            let dice = self.faults.dice(Fault::SubmitFails);
            most = match dice.u8(..5) {
                0 => return Err(Errno::AGAIN),
                1 => return Err(Errno::BUSY),
                2 => return Err(Errno::INTR),
                _ => dice.u32(..most),
            };
            if most == 0 {
                return Err(Errno::AGAIN);
            }
        }
        let mut taken = 0;
        while taken < most {
            let Some(entry) = self.ring(id).map(|ring| ring.queues.take()) else { break };
            taken += 1;
            // What names no entry is dropped.
            let Some(entry) = entry else { continue };
            if let Err(error) = self.begin_entry(id, host, &entry) {
                self.post_completion(id, entry.data, -error.raw_os_error(), 0);
                if stops {
                    break;
                }
            }
        }
        if let Some(ring) = self.ring(id) {
            ring.queues.show_taken();
        }
        Ok(taken)
    }

    /// # Errors
    /// Of an entry that cannot even be begun.
    fn begin_entry(&mut self, id: ObjectId, host: HostId, entry: &Entry) -> Result<(), Errno> {
        let (op, data, fd) = (entry.opcode(), entry.data, entry.fd());
        self.ring_aside(id, format_args!("entry {op} {data:x} on {fd}"));
        let skips = entry.skips_success();
        let result = match entry.opcode() {
            op::NOP => 0,
            op::CLOSE => self.close(host, entry.fd()).map(|()| 0)?,
            op::SEND => {
                let sent = self.send(host, entry.fd(), &[entry.bytes()])?;
                // Short of what was to be sent is a failure, of which it tells.
                if sent < entry.bytes().len() {
                    self.post_completion(id, entry.data, sent as i32, 0);
                    return Ok(());
                }
                sent as i32
            }
            op::ASYNC_CANCEL => self.cancel_requests(id, host, entry)?,
            op::POLL_ADD => return self.begin_poll(id, host, entry),
            op::ACCEPT => return self.begin_accept(id, host, entry),
            op::RECV => return self.begin_receive(id, host, entry),
            _ => return Err(Errno::INVAL),
        };
        if !skips {
            self.post_completion(id, entry.data, result, 0);
        }
        Ok(())
    }

    fn begin_poll(&mut self, id: ObjectId, host: HostId, entry: &Entry) -> Result<(), Errno> {
        const MULTISHOT: u32 = 1;
        let object = self.lookup(host, entry.fd())?;
        if entry.len() & !MULTISHOT != 0 {
            return Err(Errno::INVAL);
        }
        let multishot = entry.len() & MULTISHOT != 0;
        if self.strikes(Fault::NoBuffers) {
            return Err(Errno::NOMEM);
        }
        let what = What::Poll { events: entry.events() };
        let request = Request { what, multishot, ..of(entry, object) };
        let there = self.mask(object) & request.interest();
        if there != 0 && !multishot {
            self.post_completion(id, entry.data, there as i32, 0);
            return Ok(());
        }
        if let Some(request) = self.put_in_flight(id, request) {
            self.list_if_there(id, request, there);
        }
        Ok(())
    }

    fn begin_accept(&mut self, id: ObjectId, host: HostId, entry: &Entry) -> Result<(), Errno> {
        const MULTISHOT: u16 = 1 << 0;
        let object = self.lookup(host, entry.fd())?;
        match self.objects.get(object).map(|object| &object.kind) {
            Some(Kind::Listener(_)) => {}
            Some(Kind::Stream(_)) => return Err(Errno::INVAL),
            _ => return Err(Errno::NOTSOCK),
        }
        if entry.ioprio() & !MULTISHOT != 0 {
            return Err(Errno::INVAL);
        }
        let multishot = entry.ioprio() & MULTISHOT != 0;
        self.begin_transfer(id, Request { what: What::Accept, multishot, ..of(entry, object) });
        Ok(())
    }

    fn begin_receive(&mut self, id: ObjectId, host: HostId, entry: &Entry) -> Result<(), Errno> {
        const MULTISHOT: u16 = 1 << 1;
        let object = self.lookup(host, entry.fd())?;
        match self.objects.get(object).map(|object| &object.kind) {
            Some(Kind::Stream(_)) => {}
            Some(Kind::Listener(listener)) => return Err(listener.recv_error()),
            _ => return Err(Errno::NOTSOCK),
        }
        let version = self.ring(id).map(|ring| ring.offer.version).ok_or(Errno::BADF)?;
        let known = if version >= Version::V6_0 { MULTISHOT } else { 0 };
        if entry.ioprio() & !known != 0 || !entry.selects_buffer() {
            return Err(Errno::INVAL);
        }
        let multishot = entry.ioprio() & MULTISHOT != 0;
        self.begin_transfer(id, Request { what: What::Receive, multishot, ..of(entry, object) });
        Ok(())
    }

    fn begin_transfer(&mut self, id: ObjectId, request: Request) {
        if let Some(request) = self.put_in_flight(id, request) {
            self.begin_attempt(id, request);
        }
    }

    /// Puts a request in flight. It hears of what changes, and keeps the object open.
    fn put_in_flight(&mut self, ring: ObjectId, request: Request) -> Option<super::RequestId> {
        let (object, exclusive) = (request.object, request.is_exclusive());
        let request = self.ring(ring)?.requests.insert(request);
        if let Some(object) = self.objects.get_mut(object) {
            object.numbers += 1;
            object.watch(Watcher::Ring { ring, request }, exclusive);
        }
        Some(request)
    }

    /// A request is no more: its object does not keep open for it.
    pub(super) fn let_go(&mut self, ring: ObjectId, request: super::RequestId, object: ObjectId) {
        if let Some(object) = self.objects.get_mut(object) {
            object.watchers.retain(|watcher| *watcher != Watcher::Ring { ring, request });
        }
        self.drop_reference(object);
    }
}

/// A request for what an entry names, of no kind as yet.
fn of(entry: &Entry, object: ObjectId) -> Request {
    Request {
        data: entry.data,
        fd: entry.fd(),
        object,
        what: What::Poll { events: bits::IN },
        multishot: false,
        told: 0,
        most: None,
        again: false,
        listed: false,
        cancelled: Cancelled::No,
    }
}
