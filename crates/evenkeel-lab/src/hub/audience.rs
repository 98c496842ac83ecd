//! Many subscribers that wait for one message.

use std::io::{self, Read};
use std::net::TcpStream;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use super::Framing;
use crate::client::{PATIENCE, uninterrupted};

/// Subscribers, and what each has received of a message that is not whole.
pub(crate) struct Audience {
    framing: Framing,
    epoll: OwnedFd,
    listeners: Vec<(TcpStream, Vec<u8>)>,
    events: Vec<Event>,
    /// Bytes that the last message had at the first listener.
    pub(crate) bytes: usize,
}

impl Audience {
    pub(crate) fn new(streams: Vec<TcpStream>, framing: Framing) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        for (at, stream) in streams.iter().enumerate() {
            stream.set_nonblocking(true)?;
            epoll::add(&epoll, stream, EventData::new_u64(at as u64), EventFlags::IN | EventFlags::ET)?;
        }
        let listeners = streams.into_iter().map(|stream| (stream, Vec::new())).collect();
        Ok(Audience { framing, epoll, listeners, events: Vec::with_capacity(1024), bytes: 0 })
    }

    pub(crate) fn len(&self) -> usize {
        self.listeners.len()
    }

    /// Waits until as many messages have arrived as there are listeners.
    pub(crate) fn hear_one_each(&mut self) -> io::Result<()> {
        self.hear(1)
    }

    /// Waits until so many messages for each listener have arrived.
    pub(crate) fn hear(&mut self, each: usize) -> io::Result<()> {
        let mut missing = each * self.listeners.len();
        while missing > 0 {
            self.events.clear();
            let time = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
            match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&time)) {
                Ok(0) => {
                    let what = format!("{missing} messages have not come");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, what));
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for i in 0..self.events.len() {
                let at = { self.events[i].data }.u64() as usize;
                let heard = self.read(at)?;
                missing =
                    missing.checked_sub(heard).ok_or_else(|| io::Error::other("a message came twice"))?;
            }
        }
        Ok(())
    }

    /// Reads what a listener has, and counts whole messages.
    fn read(&mut self, at: usize) -> io::Result<usize> {
        let (stream, rest) = &mut self.listeners[at];
        let mut messages = 0;
        let mut buffer = [0; 4096];
        loop {
            let n = match uninterrupted(|| stream.read(&mut buffer)) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a subscriber was closed")),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(messages),
                Err(e) => return Err(e),
            };
            let (counted, used) = if rest.is_empty() {
                let found = self.framing.count(&buffer[..n]);
                rest.extend_from_slice(&buffer[found.1..n]);
                found
            } else {
                rest.extend_from_slice(&buffer[..n]);
                let found = self.framing.count(rest);
                rest.drain(..found.1);
                found
            };
            messages += counted;
            if at == 0 && counted == 1 {
                self.bytes = used;
            }
            // A short read leaves nothing behind, and what comes later is a new edge.
            if n < buffer.len() {
                return Ok(messages);
            }
        }
    }
}
