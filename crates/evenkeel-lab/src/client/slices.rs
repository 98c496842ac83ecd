//! Load in slices of time: all that was sent in a slice comes back before it ends, so that several servers can take
//! turns and each slice's cost is its own.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use super::{PATIENCE, open_echo};
use crate::machine::Process;

/// What one slice cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slice {
    /// The server's processor time for each message, in nanoseconds.
    pub(crate) cpu: f64,
    /// Messages a second.
    pub(crate) rate: f64,
    /// At least one.
    pub(crate) messages: u64,
}

struct Conn {
    stream: TcpStream,
    /// Bytes of the message in flight that are still to be sent, and still to come back.
    to_send: usize,
    to_come: usize,
    sent_at: Instant,
}

/// One server's connections. Those that `idle` holds exchange nothing.
pub(crate) struct Side {
    server: Process,
    epoll: OwnedFd,
    conns: Vec<Conn>,
    _idle: Vec<TcpStream>,
    message: Vec<u8>,
    buffer: Vec<u8>,
    events: Vec<Event>,
    /// Round trips in nanoseconds. They hold the wait for the other connections' messages, too.
    pub(crate) latency: Histogram<u64>,
}

impl Side {
    /// Opens `idle` connections that stay idle, then `busy` ones.
    pub(crate) fn open(
        server: &crate::server::Running,
        busy: usize,
        idle: usize,
        size: usize,
    ) -> io::Result<Self> {
        let idle_streams = open_echo(server.addr, 0, idle)?;
        let streams = open_echo(server.addr, idle, busy)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut conns = Vec::with_capacity(busy);
        for (at, stream) in streams.into_iter().enumerate() {
            stream.set_nonblocking(true)?;
            let interest = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
            epoll::add(&epoll, &stream, EventData::new_u64(at as u64), interest)?;
            conns.push(Conn { stream, to_send: 0, to_come: 0, sent_at: Instant::now() });
        }
        let latency = Histogram::new_with_bounds(100, 60_000_000_000, 3).map_err(io::Error::other)?;
        Ok(Side {
            server: server.process,
            epoll,
            conns,
            _idle: idle_streams,
            message: vec![b'x'; size],
            buffer: vec![0; 256 << 10],
            events: Vec::with_capacity(1024),
            latency,
        })
    }

    /// Keeps every connection busy for `time`, then waits for what is in flight.
    pub(crate) fn slice(&mut self, time: Duration) -> io::Result<Slice> {
        let (start, cpu) = (Instant::now(), self.server.cpu()?);
        let (mut messages, mut in_flight) = (0_u64, self.conns.len());
        for at in 0..self.conns.len() {
            self.begin(at)?;
        }
        while in_flight > 0 {
            self.wait()?;
            for i in 0..self.events.len() {
                let at = { self.events[i].data }.u64() as usize;
                if !self.progress(at)? {
                    continue;
                }
                messages += 1;
                if start.elapsed() < time {
                    self.begin(at)?;
                } else {
                    in_flight -= 1;
                }
            }
        }
        let used = (self.server.cpu()? - cpu) as f64;
        let messages = messages.max(1);
        let rate = messages as f64 / start.elapsed().as_secs_f64();
        Ok(Slice { cpu: used / messages as f64, rate, messages })
    }

    fn wait(&mut self) -> io::Result<()> {
        self.events.clear();
        let time = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&time)) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::TimedOut, "the server has stopped answering")),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn begin(&mut self, at: usize) -> io::Result<()> {
        let conn = &mut self.conns[at];
        (conn.to_send, conn.to_come, conn.sent_at) = (self.message.len(), self.message.len(), Instant::now());
        conn.send(&self.message)
    }

    /// True when a message has come back whole.
    fn progress(&mut self, at: usize) -> io::Result<bool> {
        let conn = &mut self.conns[at];
        conn.send(&self.message)?;
        if conn.to_come == 0 {
            return Ok(false);
        }
        // One read is enough: the buffer holds more than is in flight, and what comes later is a new edge.
        match conn.stream.read(&mut self.buffer) {
            Ok(0) => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed a connection"));
            }
            Ok(n) if n > conn.to_come => {
                return Err(io::Error::other("the server sent more than it was sent"));
            }
            Ok(n) => conn.to_come -= n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        if conn.to_come == 0 {
            self.latency.saturating_record(conn.sent_at.elapsed().as_nanos() as u64);
        }
        Ok(conn.to_come == 0)
    }
}

impl Conn {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        while self.to_send > 0 {
            match self.stream.write(&message[message.len() - self.to_send..]) {
                Ok(n) => self.to_send -= n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
