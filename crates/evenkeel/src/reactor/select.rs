//! `select(2)`: three bitmaps that are handed over and walked in every call, for descriptors up to 1,023.

use std::io;
use std::time::Duration;

use rustix::event::{FdSetElement, fd_set_insert, fd_set_remove};

use super::{Event, Ready, Selector};
use crate::core::Token;
use crate::core::watch::Interest;
use crate::sys::{Fd, Sys};

/// The bits that one set has.
const SET: usize = 1024;
type Sets = [[FdSetElement; 16]; 3];

/// The sets as they are handed over, and the token of each descriptor.
pub(crate) struct Select {
    wanted: Sets,
    tokens: Vec<Option<Token>>,
}

fn contains(set: &[FdSetElement; 16], fd: usize) -> bool {
    // `FdSetElement` is opaque; its iterator is the one way to look into it, so a set is read word by word.
    rustix::event::FdSetIter::new(&set[fd / 64..fd / 64 + 1]).any(|bit| bit as usize == fd % 64)
}

impl Select {
    fn make_room(&mut self, fd: Fd) -> io::Result<()> {
        let at = usize::try_from(fd).ok().filter(|at| *at < SET).ok_or_else(|| {
            let what =
                format!("descriptor {fd} is past the 1,023 that select can watch; choose poll or epoll");
            io::Error::new(io::ErrorKind::Unsupported, what)
        })?;
        if self.tokens.len() <= at {
            self.tokens.resize(at + 1, None);
        }
        Ok(())
    }

    /// `on` tells which of the three sets the descriptor is in.
    fn put(&mut self, fd: Fd, token: Token, on: [bool; 3]) -> io::Result<()> {
        let place = self.tokens.get_mut(fd as usize).ok_or(io::ErrorKind::NotFound)?;
        *place = Some(token);
        for (set, on) in self.wanted.iter_mut().zip(on) {
            if on { fd_set_insert(set, fd) } else { fd_set_remove(set, fd) }
        }
        Ok(())
    }
}

impl<Y: Sys> Selector<Y> for Select {
    const EDGE: bool = false;
    type Event = Event;

    fn new(_: &Y) -> io::Result<Self> {
        Ok(Self { wanted: Sets::default(), tokens: Vec::new() })
    }

    fn add(&mut self, sys: &Y, fd: Fd, token: Token, interest: Ready) -> io::Result<()> {
        self.make_room(fd)?;
        self.modify(sys, fd, token, interest)
    }

    fn modify(&mut self, _: &Y, fd: Fd, token: Token, interest: Ready) -> io::Result<()> {
        // Urgent data is reported with reading: it makes reads short (see the contract).
        self.put(fd, token, [interest.read, interest.write, interest.read])
    }

    fn watch(&mut self, _: &Y, fd: Fd, token: Token, want: Interest, known: bool) -> io::Result<()> {
        if !known {
            self.make_room(fd)?;
        }
        self.put(fd, token, [want.read, want.write, want.urgent])
    }

    fn remove(&mut self, _: &Y, fd: Fd) {
        let Some(place) = self.tokens.get_mut(fd as usize) else { return };
        *place = None;
        for set in &mut self.wanted {
            fd_set_remove(set, fd);
        }
        while let Some(None) = self.tokens.last() {
            self.tokens.pop();
        }
    }

    fn wait(&mut self, sys: &Y, batch: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        batch.clear();
        let mut sets = self.wanted;
        let mut left = match sys.select(self.tokens.len() as i32, &mut sets, timeout) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(e) => return Err(e),
        };
        for (fd, token) in self.tokens.iter().enumerate() {
            if left == 0 {
                break;
            }
            let Some(token) = *token else { continue };
            let [read, write, urgent] = [0, 1, 2].map(|i| contains(&sets[i], fd));
            left -= usize::from(read) + usize::from(write) + usize::from(urgent);
            if read || write || urgent {
                // A set does not tell an end from data, so after a short read the next call decides.
                let ready = Ready { read: read || urgent, write, hung_up: urgent };
                batch.push(Event::new(token, ready));
            }
        }
        Ok(())
    }

    fn end(&mut self, _: &Y) {}

    fn decode(event: Event) -> Event {
        event
    }
}
