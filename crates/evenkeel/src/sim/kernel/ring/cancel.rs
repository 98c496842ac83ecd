//! How requests end before their time, and the ways in which that can meet what they were about to do anyway (I10).

use rustix::io::Errno;

use super::RequestId;
use super::attempt::Found;
use super::request::Cancelled;
use crate::sim::fault::Fault;
use crate::sim::kernel::{HostId, Kernel, ObjectId};
use crate::sys::ring::{Entry, cancel};

impl Kernel {
    /// Cancels what an entry names. Returns how many that were, if it asked for all; else 0.
    ///
    /// # Errors
    /// `ENOENT` if there is none; `EALREADY` if it is about to end.
    pub(super) fn cancel_requests(
        &mut self,
        id: ObjectId,
        host: HostId,
        entry: &Entry,
    ) -> Result<i32, Errno> {
        let flags = entry.op_flags();
        if flags & !(cancel::ALL | cancel::BY_FD) != 0 {
            return Err(Errno::INVAL);
        }
        let (all, by_fd) = (flags & cancel::ALL != 0, flags & cancel::BY_FD != 0);
        let object = if by_fd { Some(self.lookup(host, entry.fd())?) } else { None };
        let ring = self.ring(id).ok_or(Errno::BADF)?;
        let named = ring.requests.all().filter(|(_, it)| {
            it.cancelled == Cancelled::No
                && object.map_or(it.data == entry.address(), |object| it.object == object)
        });
        let named = named.map(|(request, _)| request);
        let named: Vec<_> = if all { named.collect() } else { named.take(1).collect() };
        let mut ended = 0;
        let mut outcome = Err(Errno::NOENT);
        for request in named {
            outcome = self.cancel_request(id, request);
            ended += i32::from(outcome.is_ok());
        }
        if all { Ok(ended) } else { outcome.map(|()| 0) }
    }

    /// Mostly it ends when the process wants completions; what it was there for goes undone.
    fn cancel_request(&mut self, id: ObjectId, request: RequestId) -> Result<(), Errno> {
        const CANCELED: i32 = -Errno::CANCELED.raw_os_error();
        let raced = self.strikes(Fault::CancelRace);
        let how = if raced { self.faults.dice(Fault::CancelRace).u8(..5) } else { u8::MAX };
        let outcome = match how {
            // It ended just before, with what it had.
            0 if self.end_with_what_is_there(id, request) => Err(Errno::NOENT),
            // The cancellation succeeds, and comes too late all the same.
            1 if self.end_with_what_is_there(id, request) => Ok(()),
            // It ends at once, so that its completion comes before the cancellation's.
            2 => {
                self.end_request(id, request, CANCELED, 0);
                Ok(())
            }
            // It is being done, and will be over in a while.
            0..5 => Err(Errno::ALREADY),
            _ => Ok(()),
        };
        let end = match outcome {
            Ok(()) => Cancelled::Now,
            Err(_) => Cancelled::Later(self.faults.dice(Fault::CancelRace).u8(1..5)),
        };
        if let Some(it) = self.request(id, request) {
            it.cancelled = end;
            self.list_request(id, request);
        }
        outcome
    }

    /// False if nothing is there for it.
    fn end_with_what_is_there(&mut self, id: ObjectId, request: RequestId) -> bool {
        let Found::Result(result, flags) = self.find_result(id, request) else { return false };
        self.end_request(id, request, result, flags);
        true
    }
}
