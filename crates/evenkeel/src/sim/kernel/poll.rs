//! What an object is ready for, and `poll` and `select`, which ask just that.

use rustix::event::{FdSetIter, fd_set_remove};
use rustix::io::Errno;

use super::{HostId, Kernel, Kind, ObjectId, bits};
use crate::sim::fault::Fault;
use crate::sys::{Fd, FdSetElement, PollEntry, poll_bits};

impl Kernel {
    /// What an object is ready for now.
    pub(crate) fn mask(&self, id: ObjectId) -> u32 {
        let Some(object) = self.objects.get(id) else { return 0 };
        match &object.kind {
            Kind::Stream(stream) => self.stream_mask(stream),
            Kind::Listener(listener) => listener.mask(),
            Kind::Udp(udp) => udp.mask(),
            Kind::UnixPacket(socket) => self.unix_mask(id, socket),
            Kind::Pipe(pipe) => self.pipe_mask(pipe),
            Kind::Bell(bell) => bell.mask(),
            Kind::Epoll(epoll) => {
                if self.epoll_is_ready(epoll) {
                    bits::IN
                } else {
                    0
                }
            }
            // A counter, as a real one is.
            Kind::Spare => bits::OUT,
            Kind::Ring(ring) => ring.mask(),
        }
    }

    /// What an object is ready for, to whoever asks for it by its number.
    fn look(&mut self, id: ObjectId) -> u32 {
        self.epoll_prune(id);
        self.mask(id)
    }

    /// Fills in what is there, and returns how many have something.
    pub(crate) fn poll(&mut self, host: HostId, entries: &mut [PollEntry]) -> usize {
        let mut found = 0;
        for entry in entries.iter_mut() {
            entry.revents = 0;
            if entry.fd < 0 {
                continue;
            }
            entry.revents = match self.lookup(host, entry.fd) {
                Ok(id) => (self.look(id) & (entry.events as u16 as u32 | bits::ALWAYS)) as u16 as i16,
                Err(_) => poll_bits::NVAL,
            };
            found += usize::from(entry.revents != 0);
        }
        found
    }

    /// What a call to `poll` returns: what is there, and sometimes more.
    pub(crate) fn poll_with_faults(&mut self, host: HostId, entries: &mut [PollEntry]) -> usize {
        let mut found = self.poll(host, entries);
        for (fault, bit) in
            [(Fault::SpuriousReadable, poll_bits::IN), (Fault::SpuriousWritable, poll_bits::OUT)]
        {
            if entries.is_empty() || !self.strikes(fault) {
                continue;
            }
            let at = self.faults.dice(fault).usize(..entries.len());
            let entry = &mut entries[at];
            if entry.fd >= 0 && entry.events & bit != 0 {
                found += usize::from(entry.revents == 0);
                entry.revents |= bit;
            }
        }
        let reported = entries.iter().filter(|entry| entry.revents != 0).map(|entry| entry.fd);
        let reported: Vec<Fd> = reported.collect();
        self.host(host).table.begin_batch(reported.into_iter());
        found
    }

    /// Leaves in the three sets what is there of what they ask, and returns how many bits that are.
    pub(crate) fn select(
        &mut self,
        host: HostId,
        bound: i32,
        sets: &mut [[FdSetElement; 16]; 3],
    ) -> Result<usize, Errno> {
        const LOOKED_FOR: [u32; 3] = [bits::IN | bits::HUP | bits::ERR, bits::OUT | bits::ERR, bits::PRI];
        let mut found = 0;
        for fd in 0..bound.min(1024) {
            let asked = [0, 1, 2].map(|i| contains(&sets[i], fd));
            if asked == [false; 3] {
                continue;
            }
            let id = self.lookup(host, fd)?;
            let mask = self.look(id);
            for (i, set) in sets.iter_mut().enumerate() {
                if !asked[i] {
                    continue;
                }
                if mask & LOOKED_FOR[i] == 0 {
                    fd_set_remove(set, fd);
                } else {
                    found += 1;
                }
            }
        }
        Ok(found)
    }
}

fn contains(set: &[FdSetElement; 16], fd: Fd) -> bool {
    let at = fd as usize;
    FdSetIter::new(&set[at / 64..at / 64 + 1]).any(|bit| bit as usize == at % 64)
}
