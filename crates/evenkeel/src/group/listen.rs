//! Opening a listener on all loops of a group, in each of the three ways.

use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, PoisonError};

use super::adopt::Lot;
use super::share::{Acceptor, GroupListener, Part, Share, Socket, Target, listen_at, open};
use super::tally::Tally;
use super::{Group, LoopIndex};
use crate::core::caught;
use crate::core::pool::Make;
use crate::handle::Handle;
use crate::handler::Handler;
use crate::net::{Addr, IntoAddr, Limits, ListenOptions, ListenerId};
use crate::sys::{Real, Sys};

/// What is to be opened: the same for every loop, and shared by their threads.
pub(super) struct Plan<F> {
    pub(super) at: Addr,
    pub(super) options: ListenOptions,
    limits: Limits,
    each: F,
    tallies: Arc<[Arc<Tally>]>,
}

impl<F> Plan<F> {
    /// One loop's part, and what makes its handlers.
    pub(super) fn part<H, M>(&self, handle: &Handle, index: LoopIndex, share: Share) -> (Part, M)
    where
        H: Handler,
        M: Fn(&Addr) -> H + 'static,
        F: Fn(&Handle, LoopIndex) -> M,
    {
        let make = (self.each)(handle, index);
        let expected = share == Share::Acceptor;
        let mut limits = self.limits.clone();
        if expected {
            // Whoever accepts keeps to the limit, for all loops.
            limits.max_connections = None;
        }
        let part =
            Part { limits, options: self.options.clone(), tally: self.tallies[index].clone(), expected };
        (part, make)
    }
}

impl Group {
    /// Accepts connections at `at` on all loops, shared in the way of `share`. A handler is made by `make`, from its peer's
    /// address, on the loop that serves it. Returns when all loops listen.
    ///
    /// A panic in `make` closes that connection and is counted by that loop.
    ///
    /// # Errors
    /// The kernel's, such as an address in use; `InvalidInput` for what does not go together: `ReusePort` and a Unix socket,
    /// `Shared` and [`Limits::max_connections`]. `WouldBlock` when a loop's mailbox is full, `NotConnected` when a loop has
    /// ended, `Deadlock` on the thread of one of the loops. No loop goes on listening then.
    pub fn listen<H: Handler>(
        &self,
        at: impl IntoAddr,
        options: &ListenOptions,
        limits: &Limits,
        share: Share,
        make: impl Fn(&Addr, LoopIndex) -> H + Send + Sync + 'static,
    ) -> io::Result<GroupListener> {
        let make = Arc::new(make);
        self.listen_each(at, options, limits, share, move |_, index| {
            let make = make.clone();
            move |peer: &Addr| make(peer, index)
        })
    }

    /// As [`listen`](Self::listen), for handlers that share what is not `Send`: `each` runs once on each loop, and what it
    /// returns makes the handlers there.
    ///
    /// ```
    /// # use evenkeel::{Conn, Handler, group::{Group, Share}, net::{Limits, ListenOptions}};
    /// use std::{cell::Cell, rc::Rc};
    ///
    /// struct Counting(Rc<Cell<u64>>);
    /// impl Handler for Counting {
    ///     fn on_data(&mut self, _: &mut Conn<'_>, bytes: &[u8]) {
    ///         self.0.set(self.0.get() + bytes.len() as u64);
    ///     }
    /// }
    ///
    /// # let group = Group::builder().loops(2).build(|_, _| Ok(()))?;
    /// let (options, limits) = (ListenOptions::default(), Limits::default());
    /// group.listen_each("127.0.0.1:0", &options, &limits, Share::ReusePort, |_handle, _index| {
    ///     let received = Rc::new(Cell::new(0));
    ///     move |_peer: &_| Counting(received.clone())
    /// })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`listen`](Self::listen); `Other` when `each` panics.
    pub fn listen_each<H, M>(
        &self,
        at: impl IntoAddr,
        options: &ListenOptions,
        limits: &Limits,
        share: Share,
        each: impl Fn(&Handle, LoopIndex) -> M + Send + Sync + 'static,
    ) -> io::Result<GroupListener>
    where
        H: Handler,
        M: Fn(&Addr) -> H + 'static,
    {
        let at = at.into_addr()?;
        self.check(&at, limits, share)?;
        let mut options = options.clone();
        options.reuse_port |= share == Share::ReusePort;
        self.open(at, options, limits, each, |plan, listener| match share {
            Share::ReusePort => self.reuse_port(plan, 0..self.len(), listener),
            Share::Acceptor => self.accept_for_all(plan, listener, |handle, plan, serving| {
                let (id, addr) = listen_at(handle, &plan.at, &plan.options, serving)?;
                Ok((vec![id], addr))
            }),
            Share::Shared => self.share_socket(plan, listener),
        })
    }

    /// Makes a listener by `open`, on all loops or on none.
    pub(super) fn open<F>(
        &self,
        at: Addr,
        options: ListenOptions,
        limits: &Limits,
        each: F,
        open: impl FnOnce(&Arc<Plan<F>>, &mut GroupListener) -> io::Result<()>,
    ) -> io::Result<GroupListener> {
        let tallies: Arc<[_]> = (0..self.len()).map(|_| Arc::default()).collect();
        let mut listener = GroupListener {
            addr: at.clone(),
            sockets: Vec::new(),
            places: Vec::new(),
            tallies: tallies.clone(),
        };
        let plan = Arc::new(Plan { at, options, limits: limits.clone(), each, tallies });
        if let Err(error) = open(&plan, &mut listener) {
            // A loop that is not told because its mailbox is full has been told to listen a moment ago.
            let _ = listener.close();
            return Err(error);
        }
        let mut all = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(listener.tallies.clone());
        Ok(listener)
    }

    pub(super) fn check(&self, at: &Addr, limits: &Limits, share: Share) -> io::Result<()> {
        let invalid = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        if self.is_own_thread() {
            let what = "a loop would wait for itself: listen from a thread that is none of the group's";
            return Err(io::Error::new(io::ErrorKind::Deadlock, what));
        }
        if share == Share::ReusePort && at.socket_addr().is_none() {
            return invalid("Unix sockets have no SO_REUSEPORT; share by Acceptor or Shared");
        }
        if share == Share::Shared && limits.max_connections.is_some() {
            return invalid(
                "max_connections does not go with a shared socket; share by Acceptor or ReusePort",
            );
        }
        Ok(())
    }

    /// Runs `call` on a loop and waits for what it returns.
    pub(super) fn ask<R: Send + 'static>(
        &self,
        index: LoopIndex,
        call: impl FnOnce(&Handle) -> io::Result<R> + Send + 'static,
    ) -> io::Result<R> {
        let (answer, wait) = sync_channel(1);
        let sent = self.remotes[index].run(move |handle| {
            let result = caught(|| call(handle));
            let result = result.unwrap_or_else(|| Err(io::Error::other("what makes the handlers panicked")));
            // Who asked waits, and there is room for one.
            let _ = answer.send(result);
        });
        sent.map_err(io::Error::from)?;
        wait.recv().unwrap_or_else(|_| Err(crate::RemoteError::LoopEnded.into()))
    }

    /// A listening socket on each of these loops. The first one's address is that of the others.
    pub(super) fn reuse_port<H, M, F>(
        &self,
        plan: &Arc<Plan<F>>,
        loops: Range<LoopIndex>,
        listener: &mut GroupListener,
    ) -> io::Result<()>
    where
        H: Handler,
        M: Fn(&Addr) -> H + 'static,
        F: Fn(&Handle, LoopIndex) -> M + Send + Sync + 'static,
    {
        for index in loops {
            let (plan, at) = (plan.clone(), listener.addr.clone());
            let (id, addr) = self.ask(index, move |handle| {
                let (part, make) = plan.part(handle, index, Share::ReusePort);
                listen_at(handle, &at, &plan.options, part.install(handle, make))
            })?;
            listener.sockets.push(Socket { remote: self.remote(index), id, copy: false });
            listener.addr = addr;
        }
        Ok(())
    }

    /// Listening sockets on the first loop, which `open` opens, and on each other a place for what is handed to it.
    pub(super) fn accept_for_all<H, M, F>(
        &self,
        plan: &Arc<Plan<F>>,
        listener: &mut GroupListener,
        open: impl FnOnce(&Handle, &Plan<F>, (Rc<Make>, u16)) -> io::Result<(Vec<ListenerId>, Addr)>
        + Send
        + 'static,
    ) -> io::Result<()>
    where
        H: Handler,
        M: Fn(&Addr) -> H + 'static,
        F: Fn(&Handle, LoopIndex) -> M + Send + Sync + 'static,
    {
        for index in 1..self.len() {
            let plan = plan.clone();
            let place = self.ask(index, move |handle| {
                let (part, make) = plan.part(handle, index, Share::Acceptor);
                Ok(handle.shared.keep_listener(part.install(handle, make)))
            })?;
            listener.places.push((self.remote(index), place));
        }
        let target =
            |(remote, place): &(crate::Remote, u32)| Target { remote: remote.clone(), place: *place };
        let targets: Vec<_> = listener.places.iter().map(target).collect();
        let plan = plan.clone();
        let (ids, addr) = self.ask(0, move |handle| {
            let (part, make) = plan.part(handle, 0, Share::Acceptor);
            let (own, pool) = part.install(handle, make);
            let most = plan.limits.max_connections.unwrap_or(usize::MAX);
            let acceptor = Acceptor { tallies: plan.tallies.clone(), most, targets, next: Cell::new(0) };
            open(handle, &plan, (acceptor.into_make(own), pool))
        })?;
        let socket = |id| Socket { remote: self.remote(0), id, copy: false };
        listener.sockets.extend(ids.into_iter().map(socket));
        listener.addr = addr;
        Ok(())
    }

    /// One listening socket, of which each loop has a copy.
    fn share_socket<H, M, F>(&self, plan: &Arc<Plan<F>>, listener: &mut GroupListener) -> io::Result<()>
    where
        H: Handler,
        M: Fn(&Addr) -> H + 'static,
        F: Fn(&Handle, LoopIndex) -> M + Send + Sync + 'static,
    {
        let opening = plan.clone();
        let (socket, addr) = self.ask(0, move |handle| open(handle, &opening.at, &opening.options))?;
        listener.addr = addr;
        let copied = (0..self.len()).try_for_each(|index| {
            let lot = Lot { socket: socket.try_clone()?, shared: true, copy: index > 0 };
            self.give(plan, index, vec![lot], listener)
        });
        // The first loop's copy takes the file of a Unix socket with it; if there is none, nobody else does.
        if let (true, true, Some(path)) =
            (listener.sockets.is_empty(), plan.options.unlink, listener.addr.unix_path())
        {
            Real.remove_socket_file(path, None);
        }
        copied
    }
}
