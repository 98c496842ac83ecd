//! A hub on a loop that runs already.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use evenkeel::Handle;
use evenkeel::net::{Addr, ListenOptions, ListenerId};

use super::common::Common;
use super::conn::HubConn;
use super::home::Home;
use super::machine::Machine;
use super::service::{add_app, no_listening};
use super::{Drained, Server, connection_limits};
use crate::api::Api;
use crate::config::Config;
use crate::metrics::{Label, Slow};
use crate::state::Hub;

/// A hub beside whatever else its loop does, such as a program's own server, or in a host of a simulated world. It has no
/// thread of its own and listens to no signals; the configuration's `backend`, `loops` and `share` are the loop's business.
///
/// It serves until its loop ends. A loop has one at most.
pub struct LocalService {
    server: Rc<Server>,
    addresses: Vec<SocketAddr>,
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
        if handle.local::<Server>().is_some() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the loop has a hub already"));
        }
        let mut state = Hub::new(fastrand::Rng::with_seed(machine.random_seed()?));
        let apps =
            config.apps.iter().map(|app| add_app(&mut state, app, &config)).collect::<io::Result<_>>()?;
        let api = Api::new(&config.apps, &config.server.path_prefix, config.limits.max_body_bytes);
        let common = Arc::new(Common::new(config, apps, 1, machine)?);
        common.set_remotes(vec![handle.remote()]);
        let home = Home::new(state, api, 0, common.clone());
        let server = Server::new(handle, 0, common, Some(home));
        let addresses = listen(&server).inspect_err(|_| {
            for listener in server.own_listeners.take() {
                handle.close_listener(listener);
            }
        })?;
        server.begin();
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

    /// What all clients together have not been able to take, in bytes.
    pub fn queued_bytes(&self) -> usize {
        self.server.handle().queues().iter().map(|(_, bytes)| bytes).sum()
    }

    /// Subscribers that were dropped because they did not read what they were sent.
    pub fn slow_consumers(&self) -> u64 {
        Slow::ALL.iter().map(|why| self.server.metrics.slow_consumers[*why].get()).sum()
    }

    /// Stops listening, tells the subscribers to come back, one after the other over most of `deadline`, and waits for all
    /// connections to end.
    pub async fn drain(&self, deadline: Duration) -> Drained {
        self.server.drain(deadline).await
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
