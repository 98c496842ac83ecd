//! How a descriptor comes to another loop: by its number where both loops have one table, else by a socket that carries it.
//!
//! The sockets are made with a group, before its loops leave the table in which they are made: each loop has the end at which
//! descriptors arrive for it, and for each loop an end to send to it. A call in the mailbox goes with each
//! descriptor. Both are put in place under the mailbox's lock, so the order of calls is the order of descriptors, and no
//! descriptor arrives for which there is no call.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::core::Shared;
use crate::handle::Handle;
use crate::remote::{Call, Inbox, Remote, RemoteError};
use crate::sys::post;

/// Descriptors that wait on their sender's side for one loop at most, when the socket there is full.
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
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    to: Arc<Inbox>,
    /// Before the descriptor, so that what is lost has been counted when a peer sees it closed.
    call: Call,
    /// None for a call that only must not overtake the others.
    fd: Option<OwnedFd>,
}

/// Why nothing was sent.
enum Unsent {
    /// The socket is full: what was to be sent comes back.
    Later(Waiting),
    Never(RemoteError, Waiting),
}

impl Post {
    pub(crate) fn new(circle: Circle, (arrival, ways): (OwnedFd, Vec<OwnedFd>)) -> Self {
        let way = |socket| Way { socket, waiting: VecDeque::new() };
        Post { circle, arrival, ways: ways.into_iter().map(way).collect(), armed: false }
    }

    /// Sends, or keeps for later, what goes to the loop with this index. What can be neither comes back, to be dropped with
    /// nothing borrowed, since it holds what is the user's.
    fn send(&mut self, index: usize, what: Waiting) -> Result<(), (RemoteError, Waiting)> {
        let way = &mut self.ways[index];
        let what = if way.waiting.is_empty() {
            match what.send(&way.socket) {
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
    fn retry(&mut self) -> Vec<Waiting> {
        let mut lost = Vec::new();
        for way in &mut self.ways {
            while let Some(what) = way.waiting.pop_front() {
                match what.send(&way.socket) {
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

impl Waiting {
    fn send(self, socket: &OwnedFd) -> Result<(), Unsent> {
        let Waiting { to, fd, call } = self;
        let put = || fd.as_ref().map_or(Ok(()), |fd| post::send(socket, fd.as_fd()));
        match to.push_after(call, put) {
            Ok(()) => Ok(()),
            Err((call, Ok(error))) => Err(Unsent::Never(error, Waiting { to, fd, call })),
            // No room in the socket, or too many are on their way in the whole system.
            Err((
                call,
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::TOOMANYREFS | Errno::INTR),
            )) => Err(Unsent::Later(Waiting { to, fd, call })),
            Err((call, Err(_))) => Err(Unsent::Never(RemoteError::LoopEnded, Waiting { to, fd, call })),
        }
    }
}

impl Shared {
    /// Whether numbers mean the same to that loop as to this one.
    pub(crate) fn shares_table_with(&self, to: &Remote) -> bool {
        self.inbox.table == to.inbox.table
    }

    /// Calls `call` on that loop with the descriptor, or with the kernel's error if it has no number free there. If this
    /// fails, or that loop ends, `call` is dropped and the copies of the descriptor are closed.
    ///
    /// # Errors
    /// When the mailbox, or the way to it, is full, the loop has ended, or there is no way from this loop to it.
    pub(crate) fn hand_over(
        self: &Rc<Self>,
        to: &Remote,
        fd: OwnedFd,
        call: impl FnOnce(&Handle, io::Result<OwnedFd>) + Send + 'static,
    ) -> Result<(), RemoteError> {
        if self.shares_table_with(to) {
            return to.run(move |handle| call(handle, Ok(fd)));
        }
        let arrived = Box::new(move |handle: &Handle| {
            let fd = match &*handle.shared.post.borrow() {
                Some(post) => post::receive(&post.arrival),
                None => Err(io::ErrorKind::NotConnected.into()),
            };
            call(handle, fd);
        });
        self.post_to(to, Waiting { to: to.inbox.clone(), fd: Some(fd), call: arrived })
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
        self.post_to(to, Waiting { to: to.inbox.clone(), fd: None, call: Box::new(call) })
    }

    fn post_to(self: &Rc<Self>, to: &Remote, what: Waiting) -> Result<(), RemoteError> {
        let mut borrowed = self.post.borrow_mut();
        let way = borrowed.as_mut().zip(to.inbox.member.get());
        let Some((post, (_, index))) = way.filter(|(post, (circle, _))| Arc::ptr_eq(circle, &post.circle))
        else {
            drop(borrowed);
            return Err(RemoteError::NoWay);
        };
        let sent = post.send(*index, what);
        let arm = post.is_waiting() && !post.armed;
        post.armed |= arm;
        drop(borrowed);
        if arm {
            self.retry_later();
        }
        sent.map_err(|(error, _)| error)
    }

    fn retry_later(self: &Rc<Self>) {
        let shared = Rc::downgrade(self);
        let retry = move || {
            let Some(shared) = shared.upgrade() else { return };
            let mut post = shared.post.borrow_mut();
            let Some(way) = post.as_mut() else { return };
            let lost = way.retry();
            way.armed = way.is_waiting();
            let again = way.armed;
            drop(post);
            if again {
                shared.retry_later();
            }
            drop(lost);
        };
        Handle::from_shared(self.clone()).after(RETRY, retry);
    }
}
