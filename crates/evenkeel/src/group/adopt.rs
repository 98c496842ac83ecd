//! Accepting on all loops of a group from sockets that listen already.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use super::listen::{Plan, check, wait};
use super::share::{GroupListener, Share, Socket, Way, listen_on};
use super::{Group, LoopIndex};
use crate::core::pool::Make;
use crate::handle::Handle;
use crate::handler::Handler;
use crate::net::{Addr, Limits, ListenOptions, ListenerId};
use crate::sys::{Listening, Real, Sys};

impl Group {
    /// As [`listen`](Self::listen), at sockets that listen already, such as those that this process has
    /// [inherited](crate::inherit). Every one of them is accepted from, however many there are, so that whoever waits in the
    /// queue of any is served:
    ///
    /// - [`ReusePort`](Share::ReusePort): they are dealt out to the loops. A loop for which none is left opens a further one,
    ///   if these have `SO_REUSEPORT`, and otherwise shares one with another loop.
    /// - [`Acceptor`](Share::Acceptor): loop 0 accepts from all.
    /// - [`Shared`](Share::Shared): all loops accept from all.
    ///
    /// Of `options`, those count that are about accepted connections, and [`unlink`](ListenOptions::unlink) for when the
    /// listener closes; a further socket is opened by all of them. For handlers that share what is not `Send` there is
    /// [`adopt_each`](Self::adopt_each).
    ///
    /// # Errors
    /// As for [`listen`](Self::listen), where a further socket can be opened only by the user who has opened the first; else
    /// share by `Acceptor` or `Shared`. `InvalidInput` also when there is no socket, when one is no listening stream socket,
    /// and when they do not listen at the same address. All are closed then.
    pub fn adopt<H: Handler>(
        &self,
        sockets: Vec<OwnedFd>,
        options: &ListenOptions,
        limits: &Limits,
        share: Share,
        make: impl Fn(&Addr, LoopIndex) -> H + Send + Sync + 'static,
    ) -> io::Result<GroupListener> {
        let make = Arc::new(make);
        self.adopt_each(sockets, options, limits, share, move |_, index| {
            let make = make.clone();
            move |peer: &Addr| make(peer, index)
        })
    }

    /// As [`adopt`](Self::adopt), with `each` as for [`listen_each`](Self::listen_each).
    ///
    /// # Errors
    /// As for [`adopt`](Self::adopt); `Other` when `each` panics.
    pub fn adopt_each<H, M>(
        &self,
        sockets: Vec<OwnedFd>,
        options: &ListenOptions,
        limits: &Limits,
        share: Share,
        each: impl Fn(&Handle, LoopIndex) -> M + Send + Sync + 'static,
    ) -> io::Result<GroupListener>
    where
        H: Handler,
        M: Fn(&Addr) -> H + 'static,
    {
        let Listening { addr, reuse_port } = one_place(&sockets)?;
        // Fewer sockets than loops, of which no further can be opened, are shared.
        let short = share == Share::ReusePort && sockets.len() < self.len() && !reuse_port;
        let checked = match share {
            _ if short => Share::Shared,
            // A Unix socket that is there already can be dealt out like any other.
            Share::ReusePort => Share::Acceptor,
            share => share,
        };
        self.may_block()?;
        check(&addr, limits, checked)?;
        let mut options = options.clone();
        options.reuse_port |= reuse_port;
        let at = addr.clone();
        let open = async |plan: &Arc<Plan<_>>, listener: &mut GroupListener| match share {
            Share::ReusePort => self.deal_out(plan, &sockets, reuse_port, listener).await,
            Share::Acceptor => {
                let opening = move |handle: &Handle, plan: &Plan<_>, sockets: Vec<OwnedFd>, serving| {
                    let lot = |socket| Lot { socket, shared: false, copy: false };
                    let lots = sockets.into_iter().map(lot);
                    Ok((accept_from(handle, lots, plan.options.unlink, &serving)?, addr))
                };
                self.accept_for_all(plan, listener, sockets, opening).await
            }
            Share::Shared => {
                for index in 0..self.len() {
                    let lot = |socket: &OwnedFd| {
                        Ok(Lot { socket: socket.try_clone()?, shared: true, copy: index > 0 })
                    };
                    let lots: io::Result<_> = sockets.iter().map(lot).collect();
                    self.give(plan, index, lots?, listener).await?;
                }
                Ok(())
            }
        };
        wait(self.open(at, options, limits, each, open))
    }

    /// Each socket to one loop, and to each loop that got none a further one, or another loop's.
    async fn deal_out<H, M, F>(
        &self,
        plan: &Arc<Plan<F>>,
        sockets: &[OwnedFd],
        reuse_port: bool,
        listener: &mut GroupListener,
    ) -> io::Result<()>
    where
        H: Handler,
        M: Fn(&Addr) -> H + 'static,
        F: Fn(&Handle, LoopIndex) -> M + Send + Sync + 'static,
    {
        let (loops, count) = (self.len(), sockets.len());
        for index in 0..if reuse_port { loops.min(count) } else { loops } {
            let lot = |at: usize| {
                // Loop `at`, and every `count`-th after it, has a copy, if no further sockets can be opened.
                let shared = !reuse_port && at + count < loops;
                Ok(Lot { socket: sockets[at].try_clone()?, shared, copy: index >= count })
            };
            let own = (index % count..count).step_by(loops);
            let lots: io::Result<_> = own.map(lot).collect();
            self.give(plan, index, lots?, listener).await?;
        }
        if reuse_port && count < loops {
            self.reuse_port(plan, count..loops, listener).await?;
        }
        Ok(())
    }

    /// Lets a loop accept from some sockets.
    pub(super) async fn give<H, M, F>(
        &self,
        plan: &Arc<Plan<F>>,
        index: LoopIndex,
        lots: Vec<Lot>,
        listener: &mut GroupListener,
    ) -> io::Result<()>
    where
        H: Handler,
        M: Fn(&Addr) -> H + 'static,
        F: Fn(&Handle, LoopIndex) -> M + Send + Sync + 'static,
    {
        let plan = plan.clone();
        let copies: Vec<bool> = lots.iter().map(|lot| lot.copy).collect();
        let (sockets, hows): (Vec<_>, Vec<_>) =
            lots.into_iter().map(|Lot { socket, shared, copy }| (socket, (shared, copy))).unzip();
        let accepting = self.ask_with(index, sockets, move |handle, sockets| {
            let (part, make) = plan.part(handle, index, Share::Shared);
            let lots = sockets.into_iter().zip(hows);
            let lots = lots.map(|(socket, (shared, copy))| Lot { socket, shared, copy });
            accept_from(handle, lots, plan.options.unlink, &part.install(handle, make))
        });
        let sockets = accepting.await?.into_iter().zip(copies);
        listener.sockets.extend(sockets.map(|(id, copy)| Socket { remote: self.remote(index), id, copy }));
        Ok(())
    }
}

/// A socket that a loop is to accept from.
pub(super) struct Lot {
    pub(super) socket: OwnedFd,
    /// Other loops have copies of it.
    pub(super) shared: bool,
    /// A loop before this one has it, and removes a Unix socket's file when it closes it.
    pub(super) copy: bool,
}

/// Accepts from all of these, by one pool, or from none.
fn accept_from(
    handle: &Handle,
    lots: impl Iterator<Item = Lot>,
    unlink: bool,
    serving: &(Rc<Make>, u16),
) -> io::Result<Vec<ListenerId>> {
    let mut ids = Vec::new();
    for Lot { socket, shared, copy } in lots {
        let way = Way { shared, unlink: unlink && !copy };
        match listen_on(handle, socket, way, serving.clone()) {
            Ok(id) => ids.push(id),
            Err(error) => {
                ids.into_iter().for_each(|id| _ = handle.close_listener(id));
                return Err(error);
            }
        }
    }
    Ok(ids)
}

/// What all of the sockets are.
fn one_place(sockets: &[OwnedFd]) -> io::Result<Listening> {
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
    let (first, others) =
        sockets.split_first().ok_or_else(|| invalid("there is no socket to accept from"))?;
    let mut all = Real.listening(first.as_fd())?;
    for socket in others {
        let one = Real.listening(socket.as_fd())?;
        if one.addr != all.addr {
            return Err(invalid(
                "these sockets listen at different addresses: adopt those of each by themselves",
            ));
        }
        all.reuse_port &= one.reuse_port;
    }
    Ok(all)
}
