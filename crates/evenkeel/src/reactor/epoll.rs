//! `epoll(7)`: the kernel keeps the interest set and answers with the ready descriptors only.

use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use super::{Event, Ready, Selector};
use crate::core::watch::Interest;
use crate::core::{Token, flag};
use crate::sys::{EpollEvent, EpollFlags, EpollOp, Fd, Sys};

/// Edge-triggered: everything is asked for once, for the life of the descriptor.
#[derive(Debug)]
pub(crate) struct Edge;
/// Level-triggered: interest follows what is wanted.
#[derive(Debug)]
pub(crate) struct Level;

/// Edge-triggered epoll.
pub(crate) type Epoll = EpollBy<Edge>;
/// Level-triggered epoll.
pub(crate) type EpollLevel = EpollBy<Level>;

/// An epoll instance; the loop closes its descriptor by ending.
#[derive(Debug)]
pub(crate) struct EpollBy<T> {
    ep: Fd,
    trigger: PhantomData<T>,
}

/// How the two ways differ.
pub(crate) trait Trigger: 'static {
    const EDGE: bool;
}

impl Trigger for Edge {
    const EDGE: bool = true;
}

impl Trigger for Level {
    const EDGE: bool = false;
}

/// Events that one wait can bring; more stay in the kernel, which rotates them.
const BATCH: usize = 1024;

const HUNG_UP: EpollFlags =
    EpollFlags::RDHUP.union(EpollFlags::HUP).union(EpollFlags::ERR).union(EpollFlags::PRI);

impl<T: Trigger> EpollBy<T> {
    fn flags(interest: Ready) -> EpollFlags {
        if T::EDGE {
            return EpollFlags::ET | EpollFlags::IN | EpollFlags::OUT | EpollFlags::RDHUP | EpollFlags::PRI;
        }
        let mut flags = EpollFlags::empty();
        if interest.read {
            flags |= EpollFlags::IN | EpollFlags::RDHUP | EpollFlags::PRI;
        }
        if interest.write {
            flags |= EpollFlags::OUT;
        }
        flags
    }
}

impl<T: Trigger, Y: Sys> Selector<Y> for EpollBy<T> {
    const EDGE: bool = T::EDGE;
    type Event = EpollEvent;

    fn new(sys: &Y) -> io::Result<Self> {
        Ok(Self { ep: sys.epoll_create()?, trigger: PhantomData })
    }

    fn add(&mut self, sys: &Y, fd: Fd, token: Token, interest: Ready) -> io::Result<()> {
        sys.epoll_ctl(self.ep, EpollOp::Add, fd, token.to_u64(), Self::flags(interest))
    }

    fn add_shared(&mut self, sys: &Y, fd: Fd, token: Token) -> io::Result<()> {
        // No other events may be asked for with it.
        let trigger = if T::EDGE { EpollFlags::ET } else { EpollFlags::empty() };
        let flags = trigger | EpollFlags::IN | EpollFlags::EXCLUSIVE;
        sys.epoll_ctl(self.ep, EpollOp::Add, fd, token.to_u64(), flags)
    }

    fn modify(&mut self, sys: &Y, fd: Fd, token: Token, interest: Ready) -> io::Result<()> {
        sys.epoll_ctl(self.ep, EpollOp::Modify, fd, token.to_u64(), Self::flags(interest))
    }

    fn watch(&mut self, sys: &Y, fd: Fd, token: Token, want: Interest, known: bool) -> io::Result<()> {
        let ask = |wanted, flags| if wanted { flags } else { EpollFlags::empty() };
        let flags = ask(T::EDGE, EpollFlags::ET)
            | ask(want.read, EpollFlags::IN | EpollFlags::RDHUP)
            | ask(want.write, EpollFlags::OUT)
            | ask(want.urgent, EpollFlags::PRI);
        let op = if known { EpollOp::Modify } else { EpollOp::Add };
        sys.epoll_ctl(self.ep, op, fd, token.to_u64(), flags)
    }

    fn remove(&mut self, sys: &Y, fd: Fd) {
        // Needed although closing would do it: a copy of the descriptor in a child keeps the registration (I6).
        // Fails only for a descriptor that is not in the set, which is the state that is wanted.
        let _ = sys.epoll_ctl(self.ep, EpollOp::Delete, fd, 0, EpollFlags::empty());
    }

    fn wait(&mut self, sys: &Y, batch: &mut Vec<EpollEvent>, timeout: Option<Duration>) -> io::Result<()> {
        // Room beside the last batch would let each batch be larger than the one before.
        batch.clear();
        batch.reserve(BATCH);
        match sys.epoll_wait(self.ep, batch, timeout) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other,
        }
    }

    fn end(&mut self, sys: &Y) {
        sys.close(self.ep);
    }

    #[inline]
    fn decode(event: EpollEvent) -> Event {
        let EpollEvent { flags, data, .. } = event;
        let token = Token::from_u64(data.u64());
        let bits = flags.bits();
        if bits & HUNG_UP.bits() != 0 {
            return hung_up(token, flags);
        }
        // Mostly it is data, room, or both: the kernel's bits, which a source has in the same places.
        const { assert!(flag::READABLE == EpollFlags::IN.bits() && flag::WRITABLE == EpollFlags::OUT.bits()) };
        Event { token, flags: bits & (flag::READABLE | flag::WRITABLE) }
    }
}

/// ERR and HUP end both directions: whoever waits must come and look (I31).
#[cold]
fn hung_up(token: Token, flags: EpollFlags) -> Event {
    let write = flags.intersects(EpollFlags::OUT.union(EpollFlags::HUP).union(EpollFlags::ERR));
    Event::new(token, Ready { read: true, write, hung_up: true })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::sys::Real;

    #[test]
    fn i24_a_batch_does_not_grow_by_those_before_it() {
        let sys = Real;
        let mut epoll = EpollLevel::new(&sys).unwrap();
        let read = Ready { read: true, ..Ready::default() };
        let (fd, wake) = sys.wake_pair().unwrap();
        wake();
        epoll.add(&sys, fd, Token { index: 0, generation: 1 }, read).unwrap();
        let mut batch = Vec::new();
        for _ in 0..4 {
            Selector::<Real>::wait(&mut epoll, &sys, &mut batch, Some(Duration::ZERO)).unwrap();
            assert_eq!((batch.len(), batch.capacity()), (1, BATCH), "what has room is what may come");
            // As if that many had come.
            batch.resize(BATCH, batch[0]);
        }
        sys.close(fd);
        Selector::<Real>::end(&mut epoll, &sys);
    }
}
