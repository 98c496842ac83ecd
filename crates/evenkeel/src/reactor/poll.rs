//! `poll(2)`: an array of descriptors that the kernel walks in every call.

use std::io;
use std::time::Duration;

use super::{Event, Ready, Selector};
use crate::core::Token;
use crate::core::watch::Interest;
use crate::sys::{Fd, PollEntry, Sys, poll_bits as bit};

/// The array, with the tokens beside it and the place of each descriptor in it.
#[derive(Debug, Default)]
pub(crate) struct Poll {
    entries: Vec<PollEntry>,
    tokens: Vec<Token>,
    /// By descriptor: its place in `entries`, plus one; 0 for none.
    places: Vec<u32>,
}

fn wanted(interest: Ready) -> i16 {
    let read = if interest.read { bit::IN | bit::PRI | bit::RDHUP } else { 0 };
    read | if interest.write { bit::OUT } else { 0 }
}

impl Poll {
    fn place(&self, fd: Fd) -> Option<usize> {
        let place = *self.places.get(usize::try_from(fd).ok()?)?;
        (place as usize).checked_sub(1)
    }

    fn put(&mut self, fd: Fd, token: Token, events: i16) -> io::Result<()> {
        let at = usize::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        if self.place(fd).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if self.places.len() <= at {
            self.places.resize(at + 1, 0);
        }
        self.entries.push(PollEntry { fd, events, revents: 0 });
        self.tokens.push(token);
        self.places[at] = self.entries.len() as u32;
        Ok(())
    }
}

impl<Y: Sys> Selector<Y> for Poll {
    const EDGE: bool = false;
    type Event = Event;

    fn new(_: &Y) -> io::Result<Self> {
        Ok(Self::default())
    }

    fn add(&mut self, _: &Y, fd: Fd, token: Token, interest: Ready) -> io::Result<()> {
        self.put(fd, token, wanted(interest))
    }

    fn modify(&mut self, _: &Y, fd: Fd, token: Token, interest: Ready) -> io::Result<()> {
        let at = self.place(fd).ok_or(io::ErrorKind::NotFound)?;
        self.entries[at].events = wanted(interest);
        self.tokens[at] = token;
        Ok(())
    }

    fn watch(&mut self, _: &Y, fd: Fd, token: Token, want: Interest, known: bool) -> io::Result<()> {
        let events = if want.read { bit::IN | bit::RDHUP } else { 0 }
            | if want.write { bit::OUT } else { 0 }
            | if want.urgent { bit::PRI } else { 0 };
        if !known {
            return self.put(fd, token, events);
        }
        let at = self.place(fd).ok_or(io::ErrorKind::NotFound)?;
        self.entries[at].events = events;
        Ok(())
    }

    fn remove(&mut self, _: &Y, fd: Fd) {
        let Some(at) = self.place(fd) else { return };
        self.entries.swap_remove(at);
        self.tokens.swap_remove(at);
        self.places[fd as usize] = 0;
        if let Some(moved) = self.entries.get(at) {
            self.places[moved.fd as usize] = at as u32 + 1;
        }
    }

    fn wait(&mut self, sys: &Y, batch: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        batch.clear();
        let mut left = match sys.poll(&mut self.entries, timeout) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(e) => return Err(e),
        };
        for (entry, token) in self.entries.iter().zip(&self.tokens) {
            if left == 0 {
                break;
            }
            let got = entry.revents;
            if got == 0 {
                continue;
            }
            left -= 1;
            debug_assert_eq!(got & bit::NVAL, 0, "a registered descriptor was closed behind the loop's back");
            let hung_up = got & (bit::RDHUP | bit::HUP | bit::ERR | bit::PRI | bit::NVAL) != 0;
            let ready = Ready {
                read: hung_up || got & bit::IN != 0,
                write: got & (bit::OUT | bit::HUP | bit::ERR) != 0,
                hung_up,
            };
            batch.push(Event::new(*token, ready));
        }
        Ok(())
    }

    fn end(&mut self, _: &Y) {}

    fn decode(event: Event) -> Event {
        event
    }
}
