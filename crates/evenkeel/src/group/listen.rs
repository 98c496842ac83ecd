//! Opening a listener on all loops of a group, in each of the three ways.

use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use super::share::{
    Acceptor, GroupListener, Part, Share, Socket, Target, Way, copy_listener, listen_at, listen_on, open,
};
use super::tally::Tally;
use super::{Group, LoopIndex};
use crate::core::caught;
use crate::core::pool::Make;
use crate::handle::Handle;
use crate::handler::Handler;
use crate::net::{Addr, IntoAddr, Limits, ListenOptions, ListenerId};
use crate::sys::{Real, Sys};
use crate::task::answer;

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

/// What makes a connection's handler, and its pool.
type Serving = (Rc<Make>, u16);

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
        self.may_block()?;
        wait(self.listen_each_in_task(at, options, limits, share, each))
    }

    /// As [`listen_each`](Self::listen_each), for a task, which may run on a loop of the group: it awaits what a thread without a
    /// loop blocks for.
    ///
    /// # Cancel safety
    /// Dropped before it is over, loops that listen already go on.
    ///
    /// # Errors
    /// As for [`listen_each`](Self::listen_each), but for `Deadlock`.
    pub async fn listen_each_in_task<H, M>(
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
        check(&at, limits, share)?;
        let mut options = options.clone();
        options.reuse_port |= share == Share::ReusePort;
        let open = async |plan: &_, listener: &mut _| match share {
            Share::ReusePort => self.reuse_port(plan, 0..self.len(), listener).await,
            Share::Acceptor => {
                let opening = |handle: &Handle, plan: &Plan<_>, _, serving| {
                    let (id, addr) = listen_at(handle, &plan.at, &plan.options, serving)?;
                    Ok((vec![id], addr))
                };
                self.accept_for_all(plan, listener, Vec::new(), opening).await
            }
            Share::Shared => self.share_socket(plan, listener).await,
        };
        self.open(at, options, limits, each, open).await
    }

    /// Makes a listener by `open`, on all loops or on none.
    pub(super) async fn open<F>(
        &self,
        at: Addr,
        options: ListenOptions,
        limits: &Limits,
        each: F,
        open: impl AsyncFnOnce(&Arc<Plan<F>>, &mut GroupListener) -> io::Result<()>,
    ) -> io::Result<GroupListener> {
        let tallies: Arc<[_]> = (0..self.len()).map(|_| Arc::default()).collect();
        let mut listener = GroupListener {
            addr: at.clone(),
            sockets: Vec::new(),
            places: Vec::new(),
            tallies: tallies.clone(),
            outside: self.outside.clone(),
        };
        let plan = Arc::new(Plan { at, options, limits: limits.clone(), each, tallies });
        if let Err(error) = open(&plan, &mut listener).await {
            // A loop that is not told because its mailbox is full has been told to listen a moment ago.
            let _ = listener.close();
            return Err(error);
        }
        let mut all = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(listener.tallies.clone());
        Ok(listener)
    }

    /// Whether this thread may block until the loops have answered.
    pub(super) fn may_block(&self) -> io::Result<()> {
        let current = Handle::try_current().map(|handle| handle.remote());
        let own =
            current.is_some_and(|own| self.remotes.iter().any(|one| Arc::ptr_eq(&one.inbox, &own.inbox)));
        if own || self.is_own_thread() {
            let what = "a loop would wait for itself: listen from a thread that is none of the group's, or in a task";
            return Err(io::Error::new(io::ErrorKind::Deadlock, what));
        }
        if crate::sim::machine().is_some() {
            let what = "in a simulated host all loops have one thread: listen in a task";
            return Err(io::Error::new(io::ErrorKind::Deadlock, what));
        }
        Ok(())
    }

    /// Runs `call` on a loop and waits for what it returns.
    pub(super) async fn ask<R: Send + 'static>(
        &self,
        index: LoopIndex,
        call: impl FnOnce(&Handle) -> io::Result<R> + Send + 'static,
    ) -> io::Result<R> {
        self.ask_with(index, Vec::new(), |handle, _| call(handle)).await
    }

    /// As [`ask`](Self::ask), with descriptors of this thread, which may have other numbers on the loop.
    pub(super) async fn ask_with<R: Send + 'static>(
        &self,
        index: LoopIndex,
        fds: Vec<OwnedFd>,
        call: impl FnOnce(&Handle, Vec<OwnedFd>) -> io::Result<R> + Send + 'static,
    ) -> io::Result<R> {
        let (sender, answer) = answer::channel();
        self.outside.send(&self.remotes[index], fds, move |handle, fds| {
            let result = caught(|| call(handle, fds?));
            sender.send(Ok(result.unwrap_or_else(|| Err(panicked()))));
        })?;
        // What is not answered was dropped with its loop.
        answer.await.unwrap_or_else(|_| Err(crate::RemoteError::LoopEnded.into()))
    }

    /// A listening socket on each of these loops. The first one's address is that of the others.
    pub(super) async fn reuse_port<H, M, F>(
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
            let opened = self.ask(index, move |handle| {
                let (part, make) = plan.part(handle, index, Share::ReusePort);
                listen_at(handle, &at, &plan.options, part.install(handle, make))
            });
            let (id, addr) = opened.await?;
            listener.sockets.push(Socket { remote: self.remote(index), id, copy: false });
            listener.addr = addr;
        }
        Ok(())
    }

    /// Listening sockets on the first loop, which `open` opens or makes of `sockets`, and on each other a place for what is handed to it.
    pub(super) async fn accept_for_all<H, M, F>(
        &self,
        plan: &Arc<Plan<F>>,
        listener: &mut GroupListener,
        sockets: Vec<OwnedFd>,
        open: impl FnOnce(&Handle, &Plan<F>, Vec<OwnedFd>, Serving) -> io::Result<(Vec<ListenerId>, Addr)>
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
            });
            listener.places.push((self.remote(index), place.await?));
        }
        let target =
            |(remote, place): &(crate::Remote, u32)| Target { remote: remote.clone(), place: *place };
        let targets: Vec<_> = listener.places.iter().map(target).collect();
        let plan = plan.clone();
        let opened = self.ask_with(0, sockets, move |handle, sockets| {
            let (part, make) = plan.part(handle, 0, Share::Acceptor);
            let (own, pool) = part.install(handle, make);
            let most = plan.limits.max_connections.unwrap_or(usize::MAX);
            let acceptor = Acceptor { tallies: plan.tallies.clone(), most, targets, next: Cell::new(0) };
            open(handle, &plan, sockets, (acceptor.into_make(own), pool))
        });
        let (ids, addr) = opened.await?;
        let socket = |id| Socket { remote: self.remote(0), id, copy: false };
        listener.sockets.extend(ids.into_iter().map(socket));
        listener.addr = addr;
        Ok(())
    }

    /// One listening socket, which the first loop opens, and of which it hands each other loop a copy.
    async fn share_socket<H, M, F>(&self, plan: &Arc<Plan<F>>, listener: &mut GroupListener) -> io::Result<()>
    where
        H: Handler,
        M: Fn(&Addr) -> H + 'static,
        F: Fn(&Handle, LoopIndex) -> M + Send + Sync + 'static,
    {
        let opening = plan.clone();
        let opened = self.ask(0, move |handle| {
            let (socket, addr) = open(handle, &opening.at, &opening.options)?;
            let mut file = Left(addr.unix_path().filter(|_| opening.options.unlink));
            let id = opening.accept_copy(handle, 0, socket)?;
            file.0 = None;
            drop(file);
            Ok((id, addr))
        });
        let (first, addr) = opened.await?;
        listener.addr = addr;
        listener.sockets.push(Socket { remote: self.remote(0), id: first, copy: false });
        for index in 1..self.len() {
            let (plan, remote) = (plan.clone(), self.remote(index));
            let (sender, answer) = answer::channel();
            let handing = self.ask(0, move |handle| {
                let copy = copy_listener(handle, first)?;
                let accept = move |handle: &Handle, copy: io::Result<OwnedFd>| {
                    let opened = caught(|| plan.accept_copy(handle, index, copy?));
                    sender.send(Ok(opened.unwrap_or_else(|| Err(panicked()))));
                };
                Ok(handle.hand_over(&remote, copy, accept)?)
            });
            handing.await?;
            let id = answer.await.unwrap_or_else(|_| Err(crate::RemoteError::LoopEnded.into()))?;
            listener.sockets.push(Socket { remote: self.remote(index), id, copy: true });
        }
        Ok(())
    }
}

/// What goes together.
pub(super) fn check(at: &Addr, limits: &Limits, share: Share) -> io::Result<()> {
    let invalid = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    if share == Share::ReusePort && at.socket_addr().is_none() {
        return invalid("Unix sockets have no SO_REUSEPORT; share by Acceptor or Shared");
    }
    if share == Share::Shared && limits.max_connections.is_some() {
        return invalid("max_connections does not go with a shared socket; share by Acceptor or ReusePort");
    }
    Ok(())
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Blocks this thread until a future, which needs no loop of it, is over.
pub(super) fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut cx) {
            return result;
        }
        thread::park();
    }
}

/// The file of a Unix socket that no loop accepts from as yet: removed if none comes to. A loop's listener takes it along.
struct Left<'a>(Option<&'a Path>);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            Real.remove_socket_file(path, None);
        }
    }
}

impl<F> Plan<F> {
    /// Accepts on a loop from its copy of the shared socket.
    fn accept_copy<H, M>(&self, handle: &Handle, index: LoopIndex, copy: OwnedFd) -> io::Result<ListenerId>
    where
        H: Handler,
        M: Fn(&Addr) -> H + 'static,
        F: Fn(&Handle, LoopIndex) -> M,
    {
        let (part, make) = self.part(handle, index, Share::Shared);
        let way = Way { shared: true, unlink: index == 0 && self.options.unlink };
        listen_on(handle, copy, way, part.install(handle, make))
    }
}

fn panicked() -> io::Error {
    io::Error::other("what makes the handlers panicked")
}
