//! The hub as a whole: its loops, its listeners, and its end.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel::group::{Group, GroupListener, Share};
use evenkeel::inherit::notify::State;
use evenkeel::net::{Addr, ListenOptions};
use evenkeel::task::Answer;
use evenkeel::{Backend, EventLoop, Handle, Remote};

use super::common::{App, Common};
use super::conn::HubConn;
use super::drain::tell_manager;
use super::home::{HOME, Home};
use super::machine::{Machine, ThisMachine, unix_ms};
use super::outbox::{Codec, Peer};
use super::succession::{Inheritance, Successor, take_over};
use super::{Drained, Server, connection_limits};
use crate::api::Api;
use crate::config::{AppSettings, Config};
use crate::log::{Field, Level, Logger, Value};
use crate::state::Hub;

/// How long loops have to end once they were told to.
const END: Duration = Duration::from_secs(10);

/// A running hub.
pub struct Service {
    group: Group,
    common: Arc<Common>,
    addresses: Vec<SocketAddr>,
    backend: Backend,
    fallback: Option<FallbackNote>,
}

/// Why epoll runs and not io_uring.
#[derive(Clone, Debug)]
pub struct FallbackNote {
    /// What was asked for.
    pub asked: Backend,
    /// Whether that was merely a choice, so that nothing need be done.
    pub by_choice: bool,
    /// Why it does not run.
    pub reason: String,
    /// What helps.
    pub help: &'static str,
}

impl Service {
    /// Starts the loops and begins to listen.
    ///
    /// # Errors
    /// When an address cannot be listened on, a loop cannot be made, or the configuration names what does not exist; the
    /// message says what.
    pub fn start(config: Config) -> io::Result<Service> {
        Service::start_as(config, Inheritance::default(), false)
    }

    /// As [`start`](Self::start), with what this process has inherited: sockets, and perhaps everything that a hub had which
    /// this one replaces. Signals are listened for from the beginning, so that [`run`](Self::run) hears of those that come
    /// as soon as anybody has been told that this process serves.
    ///
    /// # Errors
    /// As for [`start`](Self::start), and when the state of the hub before cannot be taken over; that one goes on then.
    pub fn start_with(config: Config, inherited: Inheritance) -> io::Result<Service> {
        Service::start_as(config, inherited, true)
    }

    fn start_as(config: Config, mut inherited: Inheritance, signals: bool) -> io::Result<Service> {
        let backend: Backend = match config.server.backend.as_str() {
            // The runtime's own variable decides when the hub's configuration leaves the choice open.
            "auto" => Backend::from_env()?,
            name => name.parse()?,
        };
        let mut state = Hub::new(fastrand::Rng::with_seed(ThisMachine.random_seed()?));
        let apps =
            config.apps.iter().map(|app| add_app(&mut state, app, &config)).collect::<io::Result<_>>()?;
        let api = Api::new(&config.apps, &config.server.path_prefix, config.limits.max_body_bytes);
        let loops = match config.server.loops {
            0 => std::thread::available_parallelism()?.get(),
            loops => loops as usize,
        };
        let share = share(&config.server.share)?;
        let arrived =
            inherited.predecessor().map(|old| take_over(old, &mut state, loops as u16)).transpose()?;
        let fronts = arrived.as_ref().map_or(0, |arrived| usize::from(arrived.fronts));
        let common = Arc::new(Common::new(config, apps, loops, Arc::new(ThisMachine))?);
        let group =
            start_loops(&common, backend, (state, api, fronts), arrived.as_ref().map(|a| a.channel()))?;
        common.set_remotes(group.remotes().to_vec());
        let addresses = listen(&group, &common, share, &mut inherited)?;
        if signals {
            let listening = on_home(&group, |server| async move {
                server.home().ok_or(io::ErrorKind::NotFound)?.listen_for_signals()
            });
            listening?.wait().map_err(io::Error::other)??;
        }
        if let Some(mut arrived) = arrived {
            // On this thread, which has opened what this is said by.
            arrived.ready()?;
            let serving = on_home(&group, |server| async move {
                let home = server.home().ok_or(io::ErrorKind::NotFound)?;
                arrived.serve(&server, home)
            });
            serving?.wait().map_err(io::Error::other)??;
        }
        let facts = group.spawn_on(HOME, || async {
            let handle = Handle::current();
            let fallback = handle.fallback().map(|fallback| FallbackNote {
                asked: fallback.asked(),
                by_choice: fallback.by_choice(),
                reason: fallback.reason().to_string(),
                help: fallback.help(),
            });
            (handle.backend(), fallback)
        })?;
        let (backend, fallback) = facts.wait().map_err(io::Error::other)?;
        tell_manager(&[State::Ready]);
        Ok(Service { group, common, addresses, backend, fallback })
    }

    /// The addresses that are listened on, with the ports that the kernel chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The kernel interface that runs.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Why that is epoll, if io_uring was asked for or might have been chosen.
    pub fn fallback(&self) -> Option<&FallbackNote> {
        self.fallback.as_ref()
    }

    /// How many loops serve.
    pub fn loops(&self) -> usize {
        self.group.len()
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.common.config
    }

    /// The mailboxes of the loops.
    pub fn remotes(&self) -> &[Remote] {
        self.group.remotes()
    }

    /// Connections that are open, of every kind.
    pub fn connections(&self) -> usize {
        self.common.connections()
    }

    /// Writes one line to the log.
    pub fn note(&self, level: Level, message: &str, fields: &[Field<'_>]) {
        note(self.config(), level, message, fields);
    }

    /// Serves until SIGTERM or SIGINT, then drains; a second signal ends the drain. Blocks this thread.
    ///
    /// # Errors
    /// When signals cannot be listened for, or a loop has ended by itself.
    pub fn run(self) -> io::Result<Drained> {
        self.run_replaceable(None)
    }

    /// As [`run`](Self::run), and on SIGUSR2 the program is started anew with the same arguments, and takes over. This
    /// returns when the last connection of this process has gone.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn run_replaceable(self, program: Option<(PathBuf, Vec<OsString>)>) -> io::Result<Drained> {
        let successor = program.map(|(program, arguments)| Successor { program, arguments });
        let answer = self.on_home(|server| server.run_until_signal(successor))?;
        let outcome = answer.wait();
        // How a loop has failed says more than that it gave no answer.
        self.stop()?;
        outcome.map_err(io::Error::other)?
    }

    /// Ends the loops at once, and every connection with them.
    ///
    /// # Errors
    /// When a loop has not ended after ten seconds, or has ended by itself before.
    pub fn stop(self) -> io::Result<()> {
        self.group.stop(END)?;
        self.group.join().into_iter().try_for_each(|end| Ok(end?))
    }

    /// Begins to drain; the answer is how it ended.
    ///
    /// # Errors
    /// When the loops have ended.
    pub fn drain(&self, deadline: Duration) -> io::Result<Answer<Drained>> {
        self.on_home(move |server| async move { server.drain(deadline).await })
    }

    fn on_home<T, F>(&self, make: impl FnOnce(Rc<Server>) -> F + Send + 'static) -> io::Result<Answer<T>>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        on_home(&self.group, make)
    }
}

/// Writes one line to the log.
fn note(config: &Config, level: Level, message: &str, fields: &[Field<'_>]) {
    let log = Logger::new(config.log.format, config.log.level, ThisMachine.log());
    log.event(level, unix_ms(&ThisMachine), message, fields);
}

/// Runs a task on the loop that has the state.
fn on_home<T, F>(group: &Group, make: impl FnOnce(Rc<Server>) -> F + Send + 'static) -> io::Result<Answer<T>>
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let answer = group.spawn_on(HOME, || async {
        let server = Handle::current().local::<Server>().expect("set up before the loop runs");
        make(server).await
    })?;
    Ok(answer)
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// The way of sharing by its name in the configuration.
pub(super) fn share(name: &str) -> io::Result<Share> {
    match name {
        "acceptor" => Ok(Share::Acceptor),
        "reuse-port" => Ok(Share::ReusePort),
        "shared" => Ok(Share::Shared),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("share: there is no way {name:?}"))),
    }
}

/// Starts the loops, of which the first gets the state, with so many loops of a process before this one to send to. The
/// channel to that process is to be there, too.
fn start_loops(
    common: &Arc<Common>,
    backend: Backend,
    state: (Hub<Peer, Codec>, Api, usize),
    channel: Option<BorrowedFd<'_>>,
) -> io::Result<Group> {
    let (of_loops, state) = (common.clone(), Mutex::new(Some(state)));
    // The log says it, in its format, when there is one.
    let mut each = EventLoop::builder().backend(backend).on_fallback(|_| {});
    if let Some(channel) = channel {
        each = each.keep_descriptor(channel);
    }
    let refusal = common.clone();
    let each = each.on_descriptors_refused(move |refused| {
        note(
            &refusal.config,
            Level::Warn,
            "loops share a descriptor table",
            &[("why", Value::Display(refused))],
        );
    });
    let mut group = Group::builder().loops(common.loops()).name("hub").event_loop(each);
    if common.config.server.private_descriptors {
        // SAFETY: what the loops' threads open by other means than the runtime is the files of /proc, which are closed where
        // they are opened, and the sockets of a succession, which belong to the first loop. Of what was opened before, they
        // use standard error, the random source's calls, which have no descriptor, and the channel, which is kept; listening
        // sockets and connections come to them by the runtime.
        group = unsafe { group.private_descriptors() };
    }
    let group = group.build(move |handle, index| {
        let home = match index {
            HOME => state.lock().unwrap_or_else(PoisonError::into_inner).take(),
            _ => None,
        };
        let home = home.map(|(state, api, fronts)| Home::new(state, api, fronts, of_loops.clone()));
        Server::new(handle, index as u16, of_loops.clone(), home).begin();
        Ok(())
    })?;
    Ok(group)
}

/// Listens at every address, on all loops: at the sockets that were inherited for it, else at new ones.
fn listen(
    group: &Group,
    common: &Common,
    share: Share,
    inherited: &mut Inheritance,
) -> io::Result<Vec<SocketAddr>> {
    let limits = connection_limits(&common.config);
    let options = ListenOptions::default();
    let mut addresses = Vec::new();
    let mut keep = |listener: GroupListener| {
        addresses.extend(listener.addr().socket_addr());
        common.listeners().push(listener);
    };
    for address in &common.config.server.listen {
        let listener = match inherited.sockets(*address) {
            none if none.is_empty() => group.listen_each(*address, &options, &limits, share, accepts),
            sockets => group.adopt_each(sockets, &options, &limits, share, accepts),
        };
        keep(listener.map_err(|error| no_listening(address, &error))?);
    }
    for sockets in inherited.rest() {
        keep(group.adopt_each(sockets, &options, &limits, share, accepts)?);
    }
    Ok(addresses)
}

/// What makes the handlers of a loop.
pub(super) fn accepts(handle: &Handle, _: usize) -> impl Fn(&Addr) -> HubConn + use<> {
    let server = handle.local::<Server>();
    move |peer| HubConn::new(server.clone(), peer.socket_addr())
}

/// Why an address is not listened on.
pub(super) fn no_listening(address: &SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
}

/// Adds an application to the hub.
pub(super) fn add_app(hub: &mut Hub<Peer, Codec>, app: &AppSettings, config: &Config) -> io::Result<App> {
    let wrong = |what| io::Error::new(io::ErrorKind::InvalidInput, format!("application {}: {what}", app.id));
    let id = hub.add_app(config.app_config(app)).map_err(wrong)?;
    Ok(App { id, key: app.app_key(), origins: app.allowed_origins.clone() })
}
