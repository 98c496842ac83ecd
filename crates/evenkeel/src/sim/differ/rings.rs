//! An io_uring in a program: what is asked of it, and its completions in words that do not depend on which kernel it is.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use super::program::Handle;
use super::side::pattern;
use crate::sys::buffers::{Buffers, Provision, Span};
use crate::sys::ring::{Done, Entry, Ring, Setup, SetupFlags};
use crate::sys::{Fd, Sys};

/// What an entry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Receive {
        multishot: bool,
    },
    Accept {
        multishot: bool,
    },
    Poll {
        events: i16,
        multishot: bool,
    },
    Send {
        bytes: usize,
        tag: u8,
    },
    /// What another entry has asked for.
    Cancel {
        of: u16,
    },
    CancelAll,
}

/// One completion.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Completion {
    data: u16,
    pub(super) result: i32,
    more: bool,
    /// Of a receive: whether something more waits.
    nonempty: bool,
    buffer: Option<(u16, bool)>,
    bytes: Vec<u8>,
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Completion { data, result, more, nonempty, buffer, bytes } = self;
        write!(f, "{data}: {result}")?;
        if let Some((id, goes_on)) = buffer {
            write!(
                f,
                ", {} bytes in buffer {id}{}",
                bytes.len(),
                if *goes_on { ", more to come" } else { "" }
            )?;
        }
        write!(f, "{}", if *nonempty { ", more waits" } else { "" })?;
        write!(f, "{}", if *more { ", goes on" } else { "" })
    }
}

/// What is in flight.
struct Flight {
    number: Fd,
    accepts: bool,
    polls: bool,
    /// Of one that accepts: it goes on.
    multishot: bool,
}

/// A ring and its buffers.
pub(super) struct Rings {
    ring: Ring,
    buffers: Buffers,
    /// Received pieces that have not been given back.
    held: Vec<Span>,
    flights: BTreeMap<u16, Flight>,
}

/// So few and so small that they run out.
const BUFFERS: u16 = 8;
const SIZE: u32 = 512;

impl Rings {
    pub(super) fn new<Y: Sys>(sys: &Y, incremental: bool) -> io::Result<Self> {
        let flags = SetupFlags::SUBMIT_ALL
            | SetupFlags::TASKRUN_FLAG
            | SetupFlags::SINGLE_ISSUER
            | SetupFlags::DEFER_TASKRUN;
        let ring = Ring::new(sys, Setup { submissions: 16, completions: 256, flags })?;
        match Buffers::new(sys, &ring, Provision { count: BUFFERS, size: SIZE, incremental }) {
            Ok(buffers) => Ok(Rings { ring, buffers, held: Vec::new(), flights: BTreeMap::new() }),
            Err(e) => {
                ring.close(sys);
                Err(e)
            }
        }
    }

    pub(super) fn number(&self) -> Fd {
        self.ring.fd
    }

    /// Whether a request is in flight that was made for this number.
    pub(super) fn uses(&self, number: Fd) -> bool {
        self.flights.values().any(|flight| flight.number == number)
    }

    /// Whether a request is in flight that accepts one connection from this number.
    pub(super) fn accepts_one(&self, number: Fd) -> bool {
        self.flights.values().any(|flight| flight.number == number && flight.accepts && !flight.multishot)
    }

    /// Whether another request of the same kind is in flight for this number: who of several is served is nothing to rely on.
    pub(super) fn repeats(&self, ask: &Ask, number: Fd) -> bool {
        let polls = matches!(ask, Ask::Poll { .. });
        let waits = polls || matches!(ask, Ask::Receive { .. } | Ask::Accept { .. });
        waits && self.flights.values().any(|flight| flight.number == number && flight.polls == polls)
    }

    /// Asks, and takes what completes. Numbers of accepted connections are results.
    pub(super) fn ask<Y: Sys>(
        &mut self,
        sys: &Y,
        ask: &Ask,
        on: Fd,
        data: Handle,
    ) -> io::Result<Vec<Completion>> {
        let memory;
        let entry = match ask {
            Ask::Receive { multishot } => Entry::recv(on, *multishot),
            Ask::Accept { multishot } => Entry::accept(on, *multishot),
            Ask::Poll { events, multishot } => Entry::poll(on, *events, *multishot),
            Ask::Cancel { of } => Entry::cancel(u64::from(*of)),
            Ask::CancelAll => Entry::cancel_all(on),
            Ask::Send { bytes, tag } => {
                memory = pattern(*tag, *bytes);
                // SAFETY: the memory lives until this function returns, after the entry was submitted.
                unsafe { Entry::send(on, &memory, false) }
            }
        };
        if matches!(ask, Ask::Receive { .. } | Ask::Accept { .. } | Ask::Poll { .. }) {
            let accepts = matches!(ask, Ask::Accept { .. });
            let polls = matches!(ask, Ask::Poll { .. });
            let multishot = matches!(ask, Ask::Accept { multishot: true });
            self.flights.insert(data, Flight { number: on, accepts, polls, multishot });
        }
        assert!(self.ring.push(&entry.with(u64::from(data))), "each entry is submitted at once");
        self.enter(sys)
    }

    /// Gives back what is held, and takes what has completed since.
    pub(super) fn turn<Y: Sys>(&mut self, sys: &Y) -> io::Result<Vec<Completion>> {
        self.held.drain(..).for_each(|span| self.buffers.release(span));
        self.enter(sys)
    }

    fn enter<Y: Sys>(&mut self, sys: &Y) -> io::Result<Vec<Completion>> {
        self.ring.enter(sys, 0, true, None)?;
        let mut all = Vec::new();
        let Rings { ring, buffers, held, flights } = self;
        ring.reap(|done: Done| {
            let span = buffers.take(&done);
            all.push(Completion {
                data: done.data as u16,
                result: done.result,
                more: done.more(),
                nonempty: done.nonempty(),
                buffer: done.buffer(),
                bytes: span.as_ref().map_or_else(Vec::new, |span| buffers.bytes(span).to_vec()),
            });
            held.extend(span);
        });
        // What a cancellation ends it ends in no order that could be relied on.
        all.sort_by_key(|done| done.data);
        // Who is over is known when all have been looked at.
        for done in all.iter().filter(|done| !done.more) {
            if flights.get(&done.data).is_some_and(|flight| !flight.accepts || done.result < 0) {
                flights.remove(&done.data);
            }
        }
        Ok(all)
    }

    /// Whether a completion is of a request to accept, and the last one of it.
    pub(super) fn accepted(&mut self, done: &Completion) -> bool {
        let accepts = self.flights.get(&done.data).is_some_and(|flight| flight.accepts) && done.result >= 0;
        if accepts && !done.more {
            self.flights.remove(&done.data);
        }
        accepts
    }

    /// Ends everything that is in flight, and the ring. Connections that were accepted meanwhile are returned.
    pub(super) fn end<Y: Sys>(mut self, sys: &Y) -> Vec<Fd> {
        let mut accepted = Vec::new();
        for _ in 0..1000 {
            let Some(data) = self.flights.keys().next().copied() else { break };
            assert!(self.ring.push(&Entry::cancel(u64::from(data)).with(u64::MAX)), "it was empty");
            let all = self.turn(sys).unwrap_or_default();
            for done in all {
                if self.accepted(&done) {
                    accepted.push(done.result);
                }
            }
        }
        assert!(self.flights.is_empty(), "a request does not end when it is cancelled");
        // Buffers that the two disagree about may be away, which the model would take for a mistake of the ring's owner.
        self.buffers.free(sys);
        self.ring.close(sys);
        accepted
    }
}
