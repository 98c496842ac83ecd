//! How the outcome of a request reaches the process: in the queue, or in the backlog while that is full.

use super::RequestId;
use crate::sim::fault::Fault;
use crate::sim::kernel::{Kernel, ObjectId};
use crate::sys::ring::{Done, SQ_OVERFLOWED, seen};

impl Kernel {
    /// Posts a completion, and never loses one.
    pub(super) fn post_completion(&mut self, id: ObjectId, data: u64, result: i32, flags: u32) {
        let done = Done::new(data, result, flags);
        self.ring_aside(id, format_args!("completion {data:x}: {result}, {flags:x}"));
        let late = self.strikes(Fault::CompletionOverflow);
        let Some(ring) = self.ring(id) else { return };
        let full = ring.queues.is_full();
        // None overtakes those that wait.
        if late || full || !ring.backlog.is_empty() {
            ring.backlog.push_back(done);
            ring.queues.tell(SQ_OVERFLOWED, true);
        } else {
            ring.queues.post(done);
        }
        if full && !late {
            self.faults.hit(Fault::CompletionOverflow);
        }
    }

    /// Posts a completion of a request that goes on. False if there is no room for it: then the request ends with it.
    pub(super) fn complete_one_of_many(&mut self, id: ObjectId, data: u64, result: i32, flags: u32) -> bool {
        if self.strikes(Fault::MultishotEnds) {
            return false;
        }
        let Some(ring) = self.ring(id) else { return false };
        if ring.queues.is_full() || !ring.backlog.is_empty() {
            return false;
        }
        ring.queues.post(Done::new(data, result, flags | seen::MORE));
        self.ring_aside(id, format_args!("completion {data:x}: {result}, {:x}", flags | seen::MORE));
        true
    }

    /// A request ends with this.
    pub(super) fn end_request(&mut self, id: ObjectId, request: RequestId, result: i32, flags: u32) {
        let Some(ended) = self.ring(id).and_then(|ring| ring.requests.remove(request)) else { return };
        self.post_completion(id, ended.data, result, flags);
        self.let_go(id, request, ended.object);
    }

    /// Brings what the backlog has into the queue, as far as there is room.
    pub(super) fn flush_backlog(&mut self, id: ObjectId) {
        let Some(ring) = self.ring(id) else { return };
        while !ring.queues.is_full()
            && let Some(done) = ring.backlog.pop_front()
        {
            ring.queues.post(done);
        }
        if ring.backlog.is_empty() {
            ring.queues.tell(SQ_OVERFLOWED, false);
        }
    }
}
