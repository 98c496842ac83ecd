//! Listening on all loops of a group: the three ways to share a port.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use super::tally::{Live, Served, Tally};
use super::{LoopCounts, LoopIndex};
use crate::core::pool::{Made, Make};
use crate::core::shared::Listener;
use crate::core::{Shared, caught, flag};
use crate::handle::Handle;
use crate::handler::Handler;
use crate::net::pool::{AcceptedSetup, add_listener, check_running, listen};
use crate::net::{Addr, Limits, ListenOptions, ListenerId, SocketOption};
use crate::remote::{Remote, RemoteError};
use crate::sys::{Fd, Real, Sys};

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

/// A listener of a whole group. Dropping it does not close it; the end of the group does.
#[derive(Debug)]
pub struct GroupListener {
    pub(super) addr: Addr,
    pub(super) sockets: Vec<(Remote, ListenerId)>,
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

    /// Stops listening: each loop does in its next turn. Connections that were accepted stay.
    ///
    /// # Errors
    /// `Full` when a loop's mailbox is full; that loop goes on listening then. A loop that has ended listens no more.
    pub fn close(self) -> Result<(), RemoteError> {
        let mut result = Ok(());
        let mut places = self.places;
        for (remote, id) in self.sockets {
            let places = std::mem::take(&mut places);
            let sent = remote.run(move |handle| {
                handle.close_listener(id);
                // Sent by the loop that accepts, so that these come after all that it has handed over.
                for (remote, place) in places {
                    // What cannot be told is kept by its loop until it ends.
                    let forget = move |handle: &Handle| handle.shared.forget_listener(place);
                    let _ = handle.shared.run_after_handed(&remote, forget);
                }
            });
            if sent == Err(RemoteError::Full) {
                result = sent;
            }
        }
        result
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
        let pool = handle.pool::<Served<H>>(self.limits);
        let place = pool.typed.place.get();
        let typed = Rc::downgrade(&pool.typed);
        let setup = AcceptedSetup::new(&self.options);
        let (tally, expected) = (self.tally, self.expected);
        let make = move |shared: &Rc<Shared>, fd: Fd, peer: &Addr| {
            let live = if expected { Live::expected(&tally) } else { Live::arrived(&tally) };
            setup.apply(shared, fd, peer);
            let made = caught(|| Served { handler: make(peer), _live: live }).zip(typed.upgrade());
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
        sys.remove_socket_file(path);
    }
    let fd = sys.listen(at, options)?;
    let addr = sys.local_addr(fd);
    let fd = sys.export(fd)?;
    Ok((fd, addr?))
}

/// Accepts on a loop from its copy of a listening socket. `unlink`: a Unix socket's file is removed when this loop closes its
/// copy.
pub(super) fn listen_on(
    handle: &Handle,
    socket: OwnedFd,
    (addr, unlink): (&Addr, bool),
    (make, pool): (Rc<Make>, u16),
) -> io::Result<ListenerId> {
    let shared = &handle.shared;
    check_running(shared)?;
    let unix = if addr.unix_path().is_none() { 0 } else { flag::UNIX };
    let unlink = if unix != 0 && unlink { flag::UNLINK } else { 0 };
    let fd = shared.driver.sys().import(socket)?;
    let token = add_listener(shared, fd, flag::SHARED | unix | unlink, Listener { make, pool, token: None })?;
    Ok(ListenerId { token, owner: shared.id })
}

/// A copy of a listening socket, for another loop.
pub(super) fn copy_listener(handle: &Handle, id: ListenerId) -> io::Result<OwnedFd> {
    let shared = &handle.shared;
    shared.driver.sys().copy(shared.fd(shared.own(id.token, id.owner)?)?)
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
                Ok(fd) => Handed { fd: Some(fd), expected: Some(tally.clone()) }.send(shared, target, peer),
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
    /// None once it has arrived, and while a socket carries it.
    fd: Option<OwnedFd>,
    /// None once it has arrived: until then it is counted as lost if it is dropped.
    expected: Option<Arc<Tally>>,
}

impl Handed {
    /// A refusal drops it, which is all that is to be done.
    fn send(mut self, shared: &Rc<Shared>, target: &Target, peer: &Addr) {
        let (remote, place, peer) = (&target.remote, target.place, peer.clone());
        if shared.shares_table_with(remote) {
            let _ = remote.run(move |handle| self.arrive(handle, place, &peer));
        } else if let Some(fd) = self.fd.take() {
            // On the socket that carries it nobody else can see to the reset.
            let _ = Real.set_option(fd.as_raw_fd(), SocketOption::ResetOnClose);
            let _ = shared.hand_over(remote, fd, move |handle, fd| {
                let Ok(fd) = fd else { return };
                let _ = Real.set_option(fd.as_raw_fd(), SocketOption::FlushOnClose);
                self.fd = Some(fd);
                self.arrive(handle, place, &peer);
            });
        }
    }

    fn arrive(mut self, handle: &Handle, place: u32, peer: &Addr) {
        let shared = &handle.shared;
        let core = shared.core.borrow();
        let listener = core.listeners.get(place as usize).and_then(Option::as_ref);
        let Some((make, pool)) = listener.map(|listener| (listener.make.clone(), listener.pool)) else {
            return;
        };
        drop(core);
        let (Some(fd), Some(tally)) = (self.fd.take(), self.expected.take()) else { return };
        match shared.driver.sys().import(fd) {
            Ok(fd) => {
                shared.welcome(fd, peer, pool, &*make);
            }
            Err(_) => tally.lose(),
        }
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if let Some(tally) = self.expected.take() {
            tally.lose();
        }
        if let Some(fd) = &self.fd {
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
