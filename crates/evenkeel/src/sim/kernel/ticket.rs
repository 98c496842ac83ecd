//! Simulated descriptors outside of the model, where code owns descriptors of the real kernel.
//!
//! A *ticket* stands for an open object: the writing end of a pipe, whose file tells which it is, whatever number it has got.
//! While it is open the object is; when it is closed without having come back, so is the object.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::{HostId, Kernel, ObjectId};
use crate::sys::Fd;

/// Tickets that are out, by the numbers of their files.
#[derive(Debug, Default)]
pub(crate) struct Tickets(BTreeMap<u64, (OwnedFd, ObjectId)>);

impl Kernel {
    /// A ticket for what a descriptor refers to.
    pub(crate) fn ticket(&mut self, host: HostId, fd: Fd) -> Result<OwnedFd, Errno> {
        let id = self.lookup(host, fd)?;
        let (ours, ticket) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let file = fstat(&ours)?.st_ino;
        self.tickets.0.insert(file, (ours, id));
        if let Some(object) = self.objects.get_mut(id) {
            object.numbers += 1;
        }
        Ok(ticket)
    }

    fn ticket_of(&self, ticket: BorrowedFd<'_>) -> Result<(u64, ObjectId), Errno> {
        let file = fstat(ticket)?.st_ino;
        self.tickets.0.get(&file).map(|(_, id)| (file, *id)).ok_or(Errno::BADF)
    }

    /// What a ticket stands for. `EBADF` if it is a descriptor of the real kernel.
    pub(crate) fn ticketed(&self, ticket: BorrowedFd<'_>) -> Result<ObjectId, Errno> {
        self.ticket_of(ticket).map(|(_, id)| id)
    }

    /// A ticket comes back: its object gets a number.
    pub(crate) fn redeem(&mut self, host: HostId, ticket: OwnedFd) -> Result<Fd, Errno> {
        let (file, id) = self.ticket_of(ticket.as_fd())?;
        let fd = self.assign(host, id)?;
        self.tickets.0.remove(&file);
        self.drop_reference(id);
        Ok(fd)
    }

    /// Closes the objects of tickets that were closed.
    pub(super) fn collect_tickets(&mut self) {
        if self.tickets.0.is_empty() {
            return;
        }
        let closed = |ours: &OwnedFd| {
            let mut one = [PollFd::new(ours, PollFlags::empty())];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            let polled = rustix::event::poll(&mut one, Some(&now));
            polled.is_ok() && one[0].revents().contains(PollFlags::HUP)
        };
        let gone: Vec<u64> =
            self.tickets.0.iter().filter(|(_, (ours, _))| closed(ours)).map(|(file, _)| *file).collect();
        for file in gone {
            if let Some((_, id)) = self.tickets.0.remove(&file) {
                // What a connection was to take along may be lost, which its peer must not take for the end.
                self.abort_stream(id);
                self.drop_reference(id);
            }
        }
    }
}
