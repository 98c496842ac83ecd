//! A hub on loops that run already.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evenkeel::group::Group;
use evenkeel::net::{Addr, ListenOptions, ListenerId};
use evenkeel::{Handle, Remote};

use super::common::Common;
use super::conn::HubConn;
use super::home::{HOME, Home};
use super::machine::Machine;
use super::service::{accepts, add_app, no_listening, share};
use super::{Drained, Server, connection_limits};
use crate::api::Api;
use crate::config::Config;
use crate::state::Hub;

/// A hub beside whatever else its loops do, such as a program's own server, or in a host of a simulated world. It has no
/// thread of its own and listens to no signals; the configuration's `backend` and `loops` are the loops' business.
///
/// It serves until its loops end. A loop has one at most.
pub struct LocalService {
    server: Rc<Server>,
    addresses: Vec<SocketAddr>,
}

/// What the clients of a hub have not been able to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// What waits for all of them together, in bytes.
    pub queued_bytes: usize,
    /// Subscribers that were dropped so far because they did not read what they were sent.
    pub slow_consumers: u64,
}

/// The listeners of a hub that is no group's.
pub(super) type OwnListeners = RefCell<Vec<ListenerId>>;

impl LocalService {
    /// Begins to listen, on the loop of `handle`.
    ///
    /// ```
    /// use evenkeel::EventLoop;
    /// use evenkeel_hub::config::Config;
    /// use evenkeel_hub::config::Sources;
    /// use evenkeel_hub::server::{LocalService, ThisMachine};
    /// use std::{sync::Arc, time::Duration};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let file = "listen = '127.0.0.1:0'\n";
    /// let config = Config::load(&Sources { file: Some(("hub.toml", file)), ..Sources::default() }).expect("valid");
    /// let mut events = EventLoop::new()?;
    /// let hub = LocalService::start(&events.handle(), config, Arc::new(ThisMachine))?;
    /// assert_ne!(hub.addresses()[0].port(), 0);
    /// events.block_on(async move { hub.drain(Duration::from_secs(1)).await })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When an address cannot be listened on, there are no random numbers, or the configuration names what cannot be;
    /// `AlreadyExists` on a loop that has a hub.
    pub fn start(handle: &Handle, config: Config, machine: Arc<dyn Machine>) -> io::Result<LocalService> {
        has_none(handle)?;
        let (common, home) = common(handle, &[], config, machine)?;
        let server = Server::new(handle, HOME as u16, common, Some(home));
        let addresses = listen(&server).inspect_err(|_| {
            for listener in server.own_listeners.take() {
                handle.close_listener(listener);
            }
        })?;
        server.begin();
        Ok(LocalService { server, addresses })
    }

    /// As [`start`](Self::start), on several loops: that of `handle` has the state, and all serve, shared as the
    /// configuration's `share` says. Awaited in a task of the first. While it is, newcomers are told to come back.
    ///
    /// # Cancel safety
    /// Dropped before it is over, it leaves a hub that tells everybody to come back, until its loops end.
    ///
    /// # Errors
    /// As for [`start`](Self::start), and when one of the others has ended.
    pub async fn start_on(
        handle: &Handle,
        others: &[Remote],
        config: Config,
        machine: Arc<dyn Machine>,
    ) -> io::Result<LocalService> {
        has_none(handle)?;
        let share = share(&config.server.share)?;
        let (common, home) = common(handle, others, config, machine)?;
        // A loop that listens is not to serve for a hub that comes to nothing, since another loop cannot.
        common.starting.store(true, Ordering::Relaxed);
        let server = Server::new(handle, HOME as u16, common.clone(), Some(home));
        server.begin();
        let started = async {
            for (index, other) in (HOME + 1..).zip(others) {
                let common = common.clone();
                let begin = move || async move {
                    let handle = Handle::current();
                    has_none(&handle)?;
                    Server::new(&handle, index as u16, common, None).begin();
                    io::Result::Ok(())
                };
                other.spawn(begin)?.await.map_err(io::Error::other)??;
            }
            let group = Group::over(common.remotes().to_vec());
            let (options, limits) = (ListenOptions::default(), connection_limits(&common.config));
            let mut addresses = Vec::new();
            for address in &common.config.server.listen {
                let listener = group.listen_each_in_task(*address, &options, &limits, share, accepts);
                let listener = listener.await.map_err(|error| no_listening(address, &error))?;
                addresses.extend(listener.addr().socket_addr());
                common.listeners().push(listener);
            }
            io::Result::Ok(addresses)
        };
        let addresses = started.await.inspect_err(|_: &io::Error| give_up(&common))?;
        common.starting.store(false, Ordering::Relaxed);
        Ok(LocalService { server, addresses })
    }

    /// The addresses that are listened on, with the ports that the kernel chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Connections that are open, of every kind.
    pub fn connections(&self) -> usize {
        self.server.common().connections()
    }

    /// What clients have not been able to take, on all loops.
    ///
    /// # Errors
    /// When a loop does not answer within two seconds of its clock.
    pub async fn backlog(&self) -> io::Result<Backlog> {
        let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "a loop of the hub does not answer");
        let loops = self.server.all_loops().await.map_err(silent)?;
        let queued_bytes = loops.iter().map(|of| of.queued_bytes).sum();
        let slow_consumers = loops.iter().map(|of| of.counted.slow_consumers()).sum();
        Ok(Backlog { queued_bytes, slow_consumers })
    }

    /// Stops listening, tells the subscribers to come back, one after the other over most of `deadline`, and waits for all
    /// connections to end.
    pub async fn drain(&self, deadline: Duration) -> Drained {
        self.server.drain(deadline).await
    }
}

/// A loop has one hub.
fn has_none(handle: &Handle) -> io::Result<()> {
    match handle.local::<Server>() {
        Some(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "the loop has a hub already")),
        None => Ok(()),
    }
}

/// What the loops share, and the state.
fn common(
    handle: &Handle,
    others: &[Remote],
    config: Config,
    machine: Arc<dyn Machine>,
) -> io::Result<(Arc<Common>, Home)> {
    let mut state = Hub::new(fastrand::Rng::with_seed(machine.random_seed()?));
    let apps = config.apps.iter().map(|app| add_app(&mut state, app, &config)).collect::<io::Result<_>>()?;
    let api = Api::new(&config.apps, &config.server.path_prefix, config.limits.max_body_bytes);
    let common = Arc::new(Common::new(config, apps, 1 + others.len(), machine)?);
    common.set_remotes(std::iter::once(handle.remote()).chain(others.iter().cloned()).collect());
    let home = Home::new(state, api, 0, common.clone());
    Ok((common, home))
}

/// A hub that could not be started leaves nothing on its loops.
fn give_up(common: &Arc<Common>) {
    for listener in std::mem::take(&mut *common.listeners()) {
        // A loop that is not told has a full mailbox, and finds no server for whoever comes.
        let _ = listener.close();
    }
    for remote in common.remotes() {
        let common = common.clone();
        let forget = move |handle: &Handle| {
            if handle.local::<Server>().is_some_and(|server| Arc::ptr_eq(&server.common, &common)) {
                drop(handle.take_local::<Server>());
            }
        };
        let _ = remote.run(forget);
    }
}

/// Listens at every address of the configuration.
fn listen(server: &Rc<Server>) -> io::Result<Vec<SocketAddr>> {
    let pool = server.handle().pool(connection_limits(server.config()));
    let mut addresses = Vec::new();
    for address in &server.config().server.listen {
        let of = server.clone();
        let make = move |peer: &Addr| HubConn::new(Some(of.clone()), peer.socket_addr());
        let listener = pool
            .listen(*address, &ListenOptions::default(), make)
            .map_err(|error| no_listening(address, &error))?;
        server.own_listeners.borrow_mut().push(listener);
        addresses.extend(server.handle().listener_addr(listener)?.socket_addr());
    }
    Ok(addresses)
}

impl fmt::Debug for LocalService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalService").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}
