//! How descriptors come to another loop: by their numbers where both threads have one table, else by a socket that carries
//! them.
//!
//! The sockets are made with a group, before its loops leave the table in which they are made: each loop has the end at which
//! descriptors arrive for it, and for each loop an end to send to it; the group itself has the latter too. A call in
//! the mailbox goes with each message. Both are put in place under the mailbox's lock, so the order of calls is the order of
//! messages, and no descriptor arrives for which there is no call.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::core::Shared;
use crate::handle::Handle;
use crate::remote::{Call, Inbox, Remote, RemoteError};
use crate::sys::post;
use crate::sys::table::{self, Bound};

/// Messages that wait on their sender's side for one loop at most, when the socket there is full.
const MOST_WAITING: usize = 4096;
/// When the socket is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// The loops between which descriptors can go. Each group has one; it is known by its address.
pub(crate) type Circle = Arc<()>;

/// A loop's ends. Made, used and dropped on its thread.
pub(crate) struct Post {
    circle: Circle,
    arrival: OwnedFd,
    ways: Vec<Way>,
    /// A timer will try again.
    armed: bool,
}

/// To one loop.
struct Way {
    socket: OwnedFd,
    waiting: VecDeque<Message>,
}

/// Descriptors, and the call that goes with them.
struct Message {
    to: Arc<Inbox>,
    /// Before the descriptors, so that what is lost has been counted when a peer sees it closed.
    call: Call,
    /// None with a call that only must not overtake the others.
    fds: Vec<OwnedFd>,
}

/// Why a message was not sent.
enum Unsent {
    /// The socket is full.
    Later(Message),
    Never(RemoteError, Message),
}

/// Descriptors that were not taken, and why.
pub(crate) type Untaken = (RemoteError, Vec<OwnedFd>);

impl Post {
    pub(crate) fn new(circle: Circle, (arrival, ways): (OwnedFd, Vec<OwnedFd>)) -> Self {
        let way = |socket| Way { socket, waiting: VecDeque::new() };
        Post { circle, arrival, ways: ways.into_iter().map(way).collect(), armed: false }
    }

    /// Sends, or keeps for later, what goes to the loop with this index. What can be neither comes back, to be dropped with
    /// nothing borrowed, since it holds what is the user's.
    fn send(&mut self, index: usize, what: Message) -> Result<(), (RemoteError, Message)> {
        let way = &mut self.ways[index];
        let what = if way.waiting.is_empty() {
            match what.send(way.socket.as_fd()) {
                Ok(()) => return Ok(()),
                Err(Unsent::Never(error, what)) => return Err((error, what)),
                Err(Unsent::Later(what)) => what,
            }
        } else {
            what
        };
        if way.waiting.len() >= MOST_WAITING {
            return Err((RemoteError::Full, what));
        }
        way.waiting.push_back(what);
        Ok(())
    }

    /// Sends what waits, as far as there is room. What can never be sent is returned, as by [`send`](Self::send).
    fn retry(&mut self) -> Vec<Message> {
        let mut lost = Vec::new();
        for way in &mut self.ways {
            while let Some(what) = way.waiting.pop_front() {
                match what.send(way.socket.as_fd()) {
                    Ok(()) => {}
                    Err(Unsent::Never(_, what)) => lost.push(what),
                    Err(Unsent::Later(what)) => {
                        way.waiting.push_front(what);
                        break;
                    }
                }
            }
        }
        lost
    }

    fn is_waiting(&self) -> bool {
        self.ways.iter().any(|way| !way.waiting.is_empty())
    }
}

impl Message {
    /// What arrives with the call is handed to it.
    fn new(
        to: &Remote,
        fds: Vec<OwnedFd>,
        call: impl FnOnce(&Handle, io::Result<Vec<OwnedFd>>) + Send + 'static,
    ) -> Self {
        let arrived = move |handle: &Handle| {
            let fds = match &*handle.shared.post.borrow() {
                Some(post) => post::receive(post.arrival.as_fd()),
                None => Err(io::ErrorKind::NotConnected.into()),
            };
            call(handle, fds);
        };
        Message { to: to.inbox.clone(), call: Box::new(arrived), fds }
    }

    fn send(self, socket: BorrowedFd<'_>) -> Result<(), Unsent> {
        let Message { to, call, fds } = self;
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let put = |_: &Call| if borrowed.is_empty() { Ok(()) } else { post::send(socket, &borrowed) };
        match to.calls.push_after(call, put, |call| call) {
            Ok(()) => Ok(()),
            Err((call, Ok(error))) => Err(Unsent::Never(error, Message { to, call, fds })),
            // No room in the socket, or too many are on their way in the whole system.
            Err((
                call,
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::TOOMANYREFS | Errno::INTR),
            )) => Err(Unsent::Later(Message { to, call, fds })),
            Err((call, Err(_))) => Err(Unsent::Never(RemoteError::LoopEnded, Message { to, call, fds })),
        }
    }
}

impl Shared {
    /// Whether numbers mean the same to that loop as to this one.
    pub(crate) fn shares_table_with(&self, to: &Remote) -> bool {
        self.inbox.table == to.inbox.table
    }

    /// Calls `call` on that loop, which has another table, with the descriptors, or with the kernel's error if it has no
    /// numbers free there. If this fails, or that loop ends, `call` is dropped.
    pub(crate) fn post(
        self: &Rc<Self>,
        to: &Remote,
        fds: Vec<OwnedFd>,
        call: impl FnOnce(&Handle, io::Result<Vec<OwnedFd>>) + Send + 'static,
    ) -> Result<(), Untaken> {
        self.post_to(to, Message::new(to, fds, call))
    }

    /// As [`Remote::run`], but after all that this loop has handed over to that one.
    pub(crate) fn run_after_handed(
        self: &Rc<Self>,
        to: &Remote,
        call: impl FnOnce(&Handle) + Send + 'static,
    ) -> Result<(), RemoteError> {
        if self.shares_table_with(to) {
            return to.run(call);
        }
        let message = Message { to: to.inbox.clone(), call: Box::new(call), fds: Vec::new() };
        self.post_to(to, message).map_err(|(error, _)| error)
    }

    fn post_to(self: &Rc<Self>, to: &Remote, what: Message) -> Result<(), Untaken> {
        let mut borrowed = self.post.borrow_mut();
        let way = borrowed.as_mut().zip(to.inbox.member.get());
        let Some((post, (_, index))) = way.filter(|(post, (circle, _))| Arc::ptr_eq(circle, &post.circle))
        else {
            drop(borrowed);
            return Err((RemoteError::NoWay, what.fds));
        };
        let sent = post.send(*index, what);
        let arm = post.is_waiting() && !post.armed;
        post.armed |= arm;
        drop(borrowed);
        if arm {
            self.retry_later();
        }
        sent.map_err(|(error, what)| (error, what.fds))
    }

    fn retry_later(self: &Rc<Self>) {
        let shared = Rc::downgrade(self);
        let retry = move || {
            let Some(shared) = shared.upgrade() else { return };
            let mut borrowed = shared.post.borrow_mut();
            let Some(post) = borrowed.as_mut() else { return };
            let lost = post.retry();
            post.armed = post.is_waiting();
            let again = post.armed;
            drop(borrowed);
            if again {
                shared.retry_later();
            }
            drop(lost);
        };
        Handle::from_shared(self.clone()).after(RETRY, retry);
    }
}

/// The ends of those who are no loop of the group: of its own handle, in the table in which the group was built.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    ways: Vec<Bound>,
}

impl Outside {
    /// On the thread that builds the group.
    pub(crate) fn new(ways: impl Iterator<Item = OwnedFd>) -> Self {
        Outside { ways: ways.map(Bound::new).collect() }
    }

    /// Calls `call` on a loop with descriptors of the calling thread.
    ///
    /// # Errors
    /// `Unsupported` if this thread has neither the loop's table, nor that in which the loop's group was built, nor runs a loop of
    /// that group; `WouldBlock` when too much is on its way; as for [`Remote::run`].
    pub(crate) fn send(
        &self,
        to: &Remote,
        fds: Vec<OwnedFd>,
        call: impl FnOnce(&Handle, io::Result<Vec<OwnedFd>>) + Send + 'static,
    ) -> io::Result<()> {
        if fds.is_empty() || table::is_here(to.inbox.table) {
            return Ok(to.run(move |handle| call(handle, Ok(fds)))?);
        }
        if fds.len() > post::MOST {
            let what = "at most 128 descriptors at once go to a loop with a table of its own";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let index = to.inbox.member.get().map(|(_, index)| *index);
        if let Some(way) = index.and_then(|index| self.ways.get(index)?.get()) {
            return Message::new(to, fds, call).send(way).map_err(|unsent| match unsent {
                Unsent::Later(_) => io::ErrorKind::WouldBlock.into(),
                Unsent::Never(error, _) => error.into(),
            });
        }
        let here = Handle::try_current().ok_or(RemoteError::NoWay)?;
        here.shared.post(to, fds, call).map_err(|(error, _)| error.into())
    }
}
