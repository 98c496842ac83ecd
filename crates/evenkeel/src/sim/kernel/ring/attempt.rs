//! How a request is done: once, or again and again for as long as there is something.

use rustix::io::Errno;

use super::RequestId;
use super::request::{Cancelled, What};
use crate::sim::fault::Fault;
use crate::sim::kernel::{Kernel, ObjectId, Stream, Watcher, bits};
use crate::sys::Fd;
use crate::sys::buffers::Provided;
use crate::sys::ring::seen;

/// How often a receive goes on by itself before others have their turn.
const MOST_AT_ONCE: usize = 32;

/// What an attempt found.
pub(super) enum Found {
    /// Not yet anything.
    Nothing,
    /// What the completion is to say.
    Result(i32, u32),
}

/// What an attempt to transfer something has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing more is there: it goes on when it is told of something.
    Waits,
    /// Others have their turn before it goes on.
    GoesOn,
    /// It is over.
    Ended,
}

impl Kernel {
    /// Does for the first time what a request is there for. What is there afterwards, such as the end behind the last bytes, counts
    /// as told.
    pub(super) fn begin_attempt(&mut self, id: ObjectId, request: RequestId) {
        match self.attempt_transfer(id, request) {
            Outcome::Ended => {}
            Outcome::GoesOn => self.list_request(id, request),
            Outcome::Waits => {
                let Some(it) = self.request(id, request) else { return };
                let (object, interest) = (it.object, it.interest());
                self.list_if_there(id, request, self.mask(object) & interest);
            }
        }
    }

    /// Does what a request is there for, as far as it can be done now. It was told of something.
    pub(super) fn attempt(&mut self, id: ObjectId, request: RequestId) {
        let Some(it) = self.request(id, request) else { return };
        let (what, told) = (it.what, std::mem::take(&mut it.told));
        match what {
            What::Poll { .. } => self.attempt_poll(id, request, told),
            What::Accept | What::Receive => self.attempt_when_told(id, request, told),
        }
    }

    /// Goes on with a transfer. One that is multishot looks first what there is, if it was told of nothing in particular, or of
    /// several things.
    fn attempt_when_told(&mut self, id: ObjectId, request: RequestId, mut told: u32) {
        loop {
            let Some(it) = self.request(id, request) else { return };
            let (object, interest, multishot) = (it.object, it.interest(), it.multishot);
            let again = std::mem::take(&mut it.again);
            let mask = if told == 0 || again { self.mask(object) & interest } else { told };
            if multishot && mask == 0 {
                return;
            }
            match self.attempt_transfer(id, request) {
                Outcome::Ended => return,
                Outcome::GoesOn => return self.list_request(id, request),
                // Of several things that it was told of, the end may be one, which nobody tells it again.
                Outcome::Waits if multishot && again && mask & (bits::HUP | bits::RDHUP) != 0 => told = 0,
                Outcome::Waits if multishot => return,
                Outcome::Waits => return self.wait_anew(id, request),
            }
        }
    }

    /// One that was told, and that found nothing, begins to wait once more, after those who wait in line by now.
    fn wait_anew(&mut self, id: ObjectId, request: RequestId) {
        let Some(it) = self.request(id, request) else { return };
        let (object, exclusive) = (it.object, it.is_exclusive());
        let this = Watcher::Ring { ring: id, request };
        if let Some(object) = self.objects.get_mut(object) {
            object.watchers.retain(|watcher| *watcher != this);
            object.watch(this, exclusive);
        }
    }

    /// Reports what the poll was told of; what there is, if that was nothing in particular, or several things.
    fn attempt_poll(&mut self, id: ObjectId, request: RequestId, told: u32) {
        let Some(it) = self.request(id, request) else { return };
        let (object, interest, multishot, data) = (it.object, it.interest(), it.multishot, it.data);
        let again = std::mem::take(&mut it.again);
        let mask = if told == 0 || again { self.mask(object) } else { told } & interest;
        if mask != 0 && !(multishot && self.complete_one_of_many(id, data, mask as i32, 0)) {
            let result = if multishot { self.last_word(mask) } else { mask as i32 };
            self.end_request(id, request, result, 0);
        } else if mask == 0 && !multishot {
            self.wait_anew(id, request);
        }
    }

    /// What a poll says that does not go on although it should.
    fn last_word(&mut self, mask: u32) -> i32 {
        let may_fail = self.faults.are_on() && self.faults.rate(Fault::MultishotEnds) > 0.0;
        // There was no memory to go on with, and that is all it says.
        let fails = may_fail && self.faults.dice(Fault::MultishotEnds).u8(..4) == 0;
        if fails { -Errno::NOMEM.raw_os_error() } else { mask as i32 }
    }

    fn attempt_transfer(&mut self, id: ObjectId, request: RequestId) -> Outcome {
        for _ in 0..MOST_AT_ONCE {
            let Found::Result(result, flags) = self.find_result(id, request) else { return Outcome::Waits };
            let Some(it) = self.request(id, request) else { return Outcome::Ended };
            let (multishot, data, what) = (it.multishot, it.data, it.what);
            let goes_on = multishot && (result > 0 || result == 0 && what == What::Accept);
            if !(goes_on && self.complete_one_of_many(id, data, result, flags)) {
                self.end_request(id, request, result, flags);
                return Outcome::Ended;
            }
            let Some(it) = self.request(id, request) else { return Outcome::Ended };
            it.most = None;
            // It looks for no other buffer before it is told of something.
            if what == What::Receive && flags & seen::NONEMPTY == 0 {
                return Outcome::Waits;
            }
        }
        Outcome::GoesOn
    }

    /// Takes one result, if there is one.
    pub(super) fn find_result(&mut self, id: ObjectId, request: RequestId) -> Found {
        let Some(it) = self.request(id, request) else { return Found::Nothing };
        let (what, object, fd, interest) = (it.what, it.object, it.fd, it.interest());
        let found = match what {
            What::Poll { .. } => match self.mask(object) & interest {
                0 => Err(Errno::AGAIN),
                mask => Ok((mask as i32, 0)),
            },
            What::Accept => self.accept_one(id, object),
            What::Receive => self.receive_one(id, request, object, fd),
        };
        match found {
            Ok((result, flags)) => Found::Result(result, flags),
            Err(Errno::AGAIN) => Found::Nothing,
            Err(error) => Found::Result(-error.raw_os_error(), 0),
        }
    }

    fn accept_one(&mut self, id: ObjectId, object: ObjectId) -> Result<(i32, u32), Errno> {
        let host = self.ring(id).map(|ring| ring.host).ok_or(Errno::BADF)?;
        let (fd, _) = self.accept_from(host, object)?;
        // A listener for Unix does not say.
        let more =
            self.listener(object).is_some_and(|listener| !listener.is_unix() && !listener.queue.is_empty());
        Ok((fd, if more { seen::NONEMPTY } else { 0 }))
    }

    /// Receives into the next buffer.
    fn receive_one(
        &mut self,
        id: ObjectId,
        request: RequestId,
        object: ObjectId,
        fd: Fd,
    ) -> Result<(i32, u32), Errno> {
        self.take_over_buffers(id);
        let missing = self.strikes(Fault::NoRingBuffers);
        let ring = self.ring(id).ok_or(Errno::BADF)?;
        let end_has_buffer = ring.offer.end_has_buffer;
        // It looks for a buffer first, whether there are bytes or not.
        let selected = ring.group.as_ref().and_then(|group| group.select()).filter(|_| !missing);
        let Some(Provided { address, len, .. }) = selected else { return Err(Errno::NOBUFS) };
        let len = self.request(id, request).map_or(len, |it| it.room(len));
        let there = self.objects.get(object).and_then(|object| object.stream()).map_or(0, |s| s.unread());
        let mut piece = vec![0; there.clamp(1, len as usize)];
        let got = self.recv_from(object, fd, &mut piece)?;
        let more = self.objects.get(object).and_then(|object| object.stream()).is_some_and(Stream::has_more);
        let (region, at) = self.rings.memory.find(address, got).ok_or(Errno::FAULT)?;
        region.write(at, &piece[..got]);
        let mut flags = if more { seen::NONEMPTY } else { 0 };
        if (got > 0 || end_has_buffer)
            && let Some(group) = self.ring(id).and_then(|ring| ring.group.as_mut())
        {
            flags |= group.give(got);
        }
        Ok((got as i32, flags))
    }

    /// Looks at what the process has provided.
    pub(super) fn take_over_buffers(&mut self, id: ObjectId) {
        let memory = std::mem::take(&mut self.rings.memory);
        if let Some(group) = self.ring(id).and_then(|ring| ring.group.as_mut()) {
            group.take_over(&memory);
        }
        self.rings.memory = memory;
    }

    /// Whether a request was told to end.
    pub(super) fn is_cancelled(&mut self, id: ObjectId, request: RequestId) -> bool {
        let Some(it) = self.request(id, request) else { return false };
        match &mut it.cancelled {
            Cancelled::No => false,
            Cancelled::Now | Cancelled::Later(0) => true,
            Cancelled::Later(looks) => {
                *looks -= 1;
                false
            }
        }
    }
}
