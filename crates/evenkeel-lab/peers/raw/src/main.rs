//! The floor: one loop over edge-triggered epoll, one buffer for all connections, nothing general. A read that does
//! not fill the buffer ends an event, unless the peer has hung up; that saves one system call a message.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};

use lab_work::Echo;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::{Errno, read, write};
use rustix::net::{SocketFlags, accept_with};

const LISTENER: u64 = u64::MAX;

struct Conn {
    socket: OwnedFd,
    /// What the kernel would not take yet.
    unsent: Vec<u8>,
}

impl Conn {
    /// False: the connection is over.
    fn ready(&mut self, buffer: &mut [u8], hung_up: bool) -> bool {
        if !self.unsent.is_empty() && !self.flush() {
            return false;
        }
        while self.unsent.is_empty() {
            let n = match read(&self.socket, &mut *buffer) {
                Ok(0) => return false,
                Ok(n) => n,
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            };
            match write(&self.socket, &buffer[..n]) {
                Ok(sent) => self.unsent.extend_from_slice(&buffer[sent..n]),
                Err(Errno::AGAIN) => self.unsent.extend_from_slice(&buffer[..n]),
                Err(_) => return false,
            }
            if !self.unsent.is_empty() && !self.flush() {
                return false;
            }
            if n < buffer.len() && !hung_up {
                return true;
            }
        }
        true
    }

    /// Sends until nothing is left or the kernel takes no more; reading goes on then, at the next edge.
    fn flush(&mut self) -> bool {
        while !self.unsent.is_empty() {
            match write(&self.socket, &self.unsent) {
                Ok(n) => drop(self.unsent.drain(..n)),
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}

fn serve(listener: TcpListener, _: Echo) -> io::Result<()> {
    let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut conns: Vec<Option<Conn>> = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let mut events = Vec::<Event>::with_capacity(1024);
    loop {
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let (key, flags) = ({ event.data }.u64(), { event.flags });
            if key == LISTENER {
                while let Ok(socket) = accept_with(&listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                    let at = socket.as_raw_fd() as usize;
                    epoll::add(&epoll, &socket, EventData::new_u64(at as u64), interest)?;
                    conns.resize_with(conns.len().max(at + 1), || None);
                    conns[at] = Some(Conn { socket, unsent: Vec::new() });
                }
                continue;
            }
            let place = &mut conns[key as usize];
            let hung_up = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
            if place.as_mut().is_some_and(|conn| !conn.ready(&mut buffer, hung_up)) {
                *place = None;
            }
        }
    }
}

fn main() -> io::Result<()> {
    lab_work::serve(std::env::args().skip(2), serve)
}
