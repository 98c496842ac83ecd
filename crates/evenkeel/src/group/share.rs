//! Listening on all loops of a group: the three ways to share a port.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::tally::{Counted, Counter, Live, Tally};
use super::{LoopCounts, LoopIndex};
use crate::core::pool::{Made, Make};
use crate::core::shared::Listener;
use crate::core::{Shared, caught, flag};
use crate::handle::Handle;
use crate::handler::Handler;
use crate::net::pool::{AcceptedSetup, check_running, listen};
use crate::net::{Addr, Closing, Limits, ListenOptions, ListenerId, SocketOption};
use crate::remote::{Remote, RemoteError};
use crate::sys::{Fd, Real, Sys};
use crate::task::Answer;

/// How the loops of a group share what they listen at. The [module](super) says which to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Share {
    /// Each loop has a listening socket of its own, with `SO_REUSEPORT`; the kernel deals out newcomers by a hash of the
    /// addresses. Where the port is 0, all get the port that the kernel gave the first. TCP only.
    ReusePort,
    /// Loop 0 accepts, and hands each connection to the loop that has the fewest of this listener's. A connection that
    /// cannot be handed over is reset, and counted as [`refused`](LoopCounts::refused).
    Acceptor,
    /// All loops accept from one listening socket. With epoll and io_uring one loop is woken for a newcomer
    /// (`EPOLLEXCLUSIVE`), with select and poll all that wait are, and the first takes it.
    Shared,
}

/// A listening socket on one loop.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) remote: Remote,
    pub(super) id: ListenerId,
    /// Another loop's is the same socket, and comes before this one.
    pub(super) copy: bool,
}

/// A listener of a whole group. Dropping it does not close it; the end of the group does.
#[derive(Debug)]
pub struct GroupListener {
    pub(super) addr: Addr,
    pub(super) sockets: Vec<Socket>,
    /// On the loops that connections are handed to: where they keep what makes their handlers.
    pub(super) places: Vec<(Remote, u32)>,
    pub(super) tallies: Arc<[Arc<Tally>]>,
}

impl GroupListener {
    /// The address at which it listens, with the port that the kernel chose.
    pub fn addr(&self) -> &Addr {
        &self.addr
    }

    /// What each loop has served of this listener, now.
    pub fn counts(&self) -> Vec<LoopCounts> {
        self.tallies.iter().map(|tally| tally.counts()).collect()
    }

    /// Another descriptor of each listening socket, for a process that is to take them over: all of them, so that none is
    /// closed with connections in its queue. A socket that several loops share comes once. They stay open whatever becomes of
    /// this listener.
    ///
    /// Each loop duplicates its own, so none of them is held up. A task awaits this; a thread without a loop calls
    /// [`wait_sockets`](Self::wait_sockets).
    ///
    /// # Errors
    /// When a loop's mailbox is full or a loop has ended; the kernel's, when descriptors have run out.
    pub async fn sockets(&self) -> io::Result<Vec<OwnedFd>> {
        let mut all = Vec::new();
        for answer in self.duplicates()? {
            all.push(answer.await.map_err(io::Error::other)??);
        }
        Ok(all)
    }

    /// As [`sockets`](Self::sockets), blocking the thread until the loops have answered.
    ///
    /// # Errors
    /// As for [`sockets`](Self::sockets).
    ///
    /// # Panics
    /// On a thread whose loop is running.
    pub fn wait_sockets(&self) -> io::Result<Vec<OwnedFd>> {
        let answers = self.duplicates()?.into_iter();
        answers.map(|answer| answer.wait().map_err(io::Error::other)?).collect()
    }

    /// The loops' descriptors are of one table, so that what one of them duplicates is valid on every thread. Where loops have
    /// tables of their own, this is the place where it must be sent instead, by SCM_RIGHTS.
    fn duplicates(&self) -> io::Result<Vec<Answer<io::Result<OwnedFd>>>> {
        let sockets = self.sockets.iter().filter(|socket| !socket.copy);
        let ask = |Socket { remote, id, .. }: &Socket| {
            let id = *id;
            Ok(remote.spawn(move || async move { Handle::current().listener_socket(id) })?)
        };
        sockets.map(ask).collect()
    }

    /// What counts connections on a loop that have moved there, as [`Parcel`](crate::net::Parcel)s: `Share::Acceptor` balances
    /// by these counts. A connection that leaves its loop is no longer counted there; where it comes to, nobody knows whose
    /// it was, so its new handler says.
    ///
    /// # Panics
    /// If there is no such loop.
    pub fn counter(&self, index: LoopIndex) -> Counter {
        Counter { tally: self.tallies[index].clone() }
    }

    /// Stops listening: each loop does in its next turn. Connections that were accepted stay.
    ///
    /// # Errors
    /// `Full` when a loop's mailbox is full; that loop goes on listening then. A loop that has ended listens no more.
    pub fn close(self) -> Result<(), RemoteError> {
        self.close_as(Closing::Now)
    }

    /// Stops listening, in the way of `closing`: see [`Handle::close_listener_as`].
    ///
    /// # Errors
    /// As for [`close`](Self::close).
    pub fn close_as(self, closing: Closing) -> Result<(), RemoteError> {
        let mut result = Ok(());
        let mut places = self.places;
        let mut left = self.sockets.len();
        for Socket { remote, id, .. } in self.sockets {
            left -= 1;
            // With the last: one loop accepts from all of them.
            let places = if left == 0 { std::mem::take(&mut places) } else { Vec::new() };
            let sent = remote.run(move |handle| {
                handle.close_listener_as(id, closing);
                forget_places(handle, id, places);
            });
            if sent == Err(RemoteError::Full) {
                result = sent;
            }
        }
        result
    }
}

/// How often a listener that ends is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Lets other loops forget how to serve what this one accepts, once it accepts no more. Sent by the loop that accepts, so that
/// these calls come after all that it has handed over.
fn forget_places(handle: &Handle, listener: ListenerId, places: Vec<(Remote, u32)>) {
    if places.is_empty() {
        return;
    }
    if handle.listens(listener) {
        let again = handle.clone();
        // A loop that ends first has told nobody; they keep what they have until they end, too, which is soon.
        handle.after(LOOK, move || forget_places(&again, listener, places));
        return;
    }
    for (remote, place) in places {
        // What cannot be told is kept by its loop until it ends.
        let _ = remote.run(move |handle| handle.shared.forget_listener(place));
    }
}

/// One loop's part of a listener: a pool, and what makes its handlers.
pub(super) struct Part {
    pub(super) limits: Limits,
    pub(super) options: ListenOptions,
    pub(super) tally: Arc<Tally>,
    /// Whoever accepts counts the connections.
    pub(super) expected: bool,
}

impl Part {
    /// What the loop needs to serve connections, wherever they were accepted.
    pub(super) fn install<H: Handler>(
        self,
        handle: &Handle,
        make: impl Fn(&Addr) -> H + 'static,
    ) -> (Rc<Make>, u16) {
        let pool = handle.pool::<Counted<H>>(self.limits);
        let place = pool.typed.place.get();
        let typed = Rc::downgrade(&pool.typed);
        let setup = AcceptedSetup::new(&self.options);
        let (tally, expected) = (self.tally, self.expected);
        let make = move |shared: &Rc<Shared>, fd: Fd, peer: &Addr| {
            let live = if expected { Live::expected(&tally) } else { Live::arrived(&tally) };
            setup.apply(shared, fd, peer);
            let made = caught(|| Counted { handler: make(peer), _live: live }).zip(typed.upgrade());
            made.map_or(Made::Failed, |(handler, typed)| Made::Here(typed.insert(handler)))
        };
        (Rc::new(make), place)
    }
}

/// Opens a listening socket on a loop, which accepts from it.
pub(super) fn listen_at(
    handle: &Handle,
    at: &Addr,
    options: &ListenOptions,
    (make, pool): (Rc<Make>, u16),
) -> io::Result<(ListenerId, Addr)> {
    let shared = &handle.shared;
    let token = listen(shared, at, options, Some(Listener { make, pool, token: None }))?;
    let id = ListenerId { token, owner: shared.id };
    match handle.listener_addr(id) {
        Ok(addr) => Ok((id, addr)),
        Err(error) => {
            handle.close_listener(id);
            Err(error)
        }
    }
}

/// Opens a listening socket that all loops are to accept from.
pub(super) fn open(handle: &Handle, at: &Addr, options: &ListenOptions) -> io::Result<(OwnedFd, Addr)> {
    check_running(&handle.shared)?;
    let sys = handle.shared.driver.sys();
    if let (true, Some(path)) = (options.unlink, at.unix_path()) {
        sys.remove_socket_file(path, None);
    }
    let fd = sys.listen(at, options)?;
    let addr = sys.local_addr(fd);
    let fd = sys.export(fd)?;
    Ok((fd, addr?))
}

/// How a loop accepts from a socket that listens already.
#[derive(Clone, Copy)]
pub(super) struct Way {
    /// Other loops have copies of it.
    pub(super) shared: bool,
    /// A Unix socket's file is removed when this loop closes it.
    pub(super) unlink: bool,
}

/// Accepts on a loop from a socket that listens already, of which others may have copies.
pub(super) fn listen_on(
    handle: &Handle,
    socket: OwnedFd,
    way: Way,
    (make, pool): (Rc<Make>, u16),
) -> io::Result<ListenerId> {
    let shared = &handle.shared;
    let flags = if way.shared { flag::SHARED } else { 0 };
    let listener = Some(Listener { make, pool, token: None });
    let token = crate::net::pool::listen_on(shared, socket, way.unlink, flags, listener)?;
    Ok(ListenerId { token, owner: shared.id })
}

/// A loop that connections can be handed to.
pub(super) struct Target {
    pub(super) remote: Remote,
    /// Where it keeps what makes its handlers.
    pub(super) place: u32,
}

/// The accepting loop's view of all loops.
pub(super) struct Acceptor {
    pub(super) tallies: Arc<[Arc<Tally>]>,
    /// How many connections each loop may have.
    pub(super) most: usize,
    /// The other loops, by their index less one.
    pub(super) targets: Vec<Target>,
    /// The loop at which the next search begins, so that loops with equally many take turns.
    pub(super) next: Cell<LoopIndex>,
}

impl Acceptor {
    /// Serves with `make` what is this loop's own, and hands over the rest.
    pub(super) fn into_make(self, make: Rc<Make>) -> Rc<Make> {
        Rc::new(move |shared: &Rc<Shared>, fd: Fd, peer: &Addr| {
            let index = self.choose();
            let tally = &self.tallies[index];
            if tally.connections() >= self.most {
                tally.refuse();
                let _ = shared.driver.sys().set_option(fd, SocketOption::ResetOnClose);
                shared.driver.sys().close(fd);
                return Made::GivenAway;
            }
            tally.expect();
            let Some(target) = index.checked_sub(1).map(|at| &self.targets[at]) else {
                return make(shared, fd, peer);
            };
            match shared.driver.sys().export(fd) {
                Ok(fd) => {
                    let handed = Handed { fd: Some(fd), tally: tally.clone() };
                    let (place, peer) = (target.place, peer.clone());
                    // A refusal drops it, which is all that is to be done.
                    let _ = target.remote.run(move |handle| handed.arrive(handle, place, &peer));
                }
                Err(_) => {
                    tally.lose();
                    shared.driver.sys().close(fd);
                }
            }
            Made::GivenAway
        })
    }

    /// The loop with the fewest connections.
    fn choose(&self) -> LoopIndex {
        let loops = self.tallies.len();
        let from = self.next.get();
        let order = (0..loops).map(|step| (from + step) % loops);
        let index = order.min_by_key(|index| self.tallies[*index].connections()).unwrap_or(0);
        self.next.set((index + 1) % loops);
        index
    }
}

/// A connection on its way to another loop. Dropped there or before, it is reset.
struct Handed {
    /// None once it has arrived.
    fd: Option<OwnedFd>,
    tally: Arc<Tally>,
}

impl Handed {
    fn arrive(mut self, handle: &Handle, place: u32, peer: &Addr) {
        let shared = &handle.shared;
        let core = shared.core.borrow();
        let listener = core.listeners.get(place as usize).and_then(Option::as_ref);
        let Some((make, pool)) = listener.map(|listener| (listener.make.clone(), listener.pool)) else {
            return;
        };
        drop(core);
        let Some(fd) = self.fd.take() else { return };
        match shared.driver.sys().import(fd) {
            Ok(fd) => {
                shared.welcome(fd, peer, pool, &*make);
            }
            Err(_) => self.tally.lose(),
        }
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if let Some(fd) = &self.fd {
            self.tally.lose();
            // A Unix socket cannot be reset; closing tells its peer as well.
            let _ = Real.set_option(fd.as_raw_fd(), SocketOption::ResetOnClose);
        }
    }
}

impl Shared {
    /// Keeps what makes handlers for connections that others accept.
    pub(super) fn keep_listener(&self, (make, pool): (Rc<Make>, u16)) -> u32 {
        self.core.borrow_mut().add_listener(Listener { make, pool, token: None })
    }

    fn forget_listener(&self, place: u32) {
        let listener = self.core.borrow_mut().listeners.get_mut(place as usize).and_then(Option::take);
        // The user's function, and whatever it holds; the caller guards.
        drop(listener);
    }
}
