//! Accepting on all loops of a group from sockets that listen already.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::listen::Plan;
use super::share::{GroupListener, Share, Way, listen_on};
use super::{Group, LoopIndex};
use crate::handle::Handle;
use crate::handler::Handler;
use crate::net::{Addr, Limits, ListenOptions};
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
    /// As for [`listen`](Self::listen); `InvalidInput` also when there is no socket, when one is no listening stream socket,
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

    /// As [`adopt`](Self::adopt), with `each` as for [`listen_each`](Self::listen_each). It runs once for each socket that
    /// a loop accepts from.
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
        let check = if short { Share::Shared } else { share };
        // A Unix socket that is there already can be dealt out like any other.
        self.check(
            &addr,
            limits,
            if check == Share::ReusePort && !reuse_port { Share::Acceptor } else { check },
        )?;
        let mut options = options.clone();
        options.reuse_port |= reuse_port;
        self.open(addr.clone(), options, limits, each, |plan, listener| match share {
            Share::ReusePort if short => {
                let loops = self.len();
                let count = sockets.len();
                sockets.iter().enumerate().try_for_each(|(at, socket)| {
                    self.copy_socket(plan, socket, (at..loops).step_by(count), listener)
                })
            }
            Share::ReusePort => self.deal_out(plan, sockets, listener),
            Share::Acceptor => self.accept_for_all(plan, listener, move |handle, plan, serving| {
                let mut ids = Vec::new();
                for socket in sockets {
                    let way = Way { shared: false, unlink: plan.options.unlink };
                    match listen_on(handle, socket, way, serving.clone()) {
                        Ok(id) => ids.push(id),
                        Err(error) => {
                            ids.into_iter().for_each(|id| _ = handle.close_listener(id));
                            return Err(error);
                        }
                    }
                }
                Ok((ids, addr))
            }),
            Share::Shared => {
                sockets.iter().try_for_each(|socket| self.copy_socket(plan, socket, 0..self.len(), listener))
            }
        })
    }

    /// Each socket to one loop, and a further one for each loop that has none.
    fn deal_out<H, M, F>(
        &self,
        plan: &Arc<Plan<F>>,
        sockets: Vec<OwnedFd>,
        listener: &mut GroupListener,
    ) -> io::Result<()>
    where
        H: Handler,
        M: Fn(&Addr) -> H + 'static,
        F: Fn(&Handle, LoopIndex) -> M + Send + Sync + 'static,
    {
        let (loops, count) = (self.len(), sockets.len());
        for (at, socket) in sockets.iter().enumerate() {
            self.copy_socket(plan, socket, std::iter::once(at % loops), listener)?;
        }
        // Their connections are counted by each loop's own tally, like those of the others.
        self.reuse_port(plan, count.min(loops)..loops, listener)
    }
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
