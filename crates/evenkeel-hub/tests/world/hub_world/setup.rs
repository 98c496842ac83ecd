//! The hub of a world: its configuration, its machine, and its program.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evenkeel::{Handle, sim, time};
use evenkeel_hub::config::{AppSettings, Config, Secret};
use evenkeel_hub::proto::auth::AppKey;
use evenkeel_hub::server::{Backlog, Drained, LocalService, Machine};

use super::history::History;

/// Where the hub listens.
pub const PORT: u16 = 6001;

/// The applications of every world. They have channels of the same names, and nothing else in common.
pub const APPS: usize = 2;

pub fn app_id(app: usize) -> String {
    format!("{}", 100 + app)
}

pub fn app_key(app: usize) -> AppKey {
    AppKey::new(&format!("key-{app}"), &format!("secret-{app}"))
}

/// What everybody in a world is to do at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Faults strike, clients come and go, messages are published.
    Storm,
    /// No faults any more. Clients subscribe to what they are to have in the end.
    Settle,
    /// Nothing changes any more.
    Still,
    /// Clients close their connections and end.
    Leave,
}

/// What the programs of one world share, as only a simulation can.
pub struct Shared {
    pub phase: Cell<Phase>,
    pub history: RefCell<History>,
    pub config: Config,
    /// The hub that runs, if one does.
    pub hub: RefCell<Weak<LocalService>>,
    /// How many hubs there have been.
    pub lives: Cell<u32>,
    /// What the hub said last of what its clients have not taken. It says so again and again.
    pub backlog: Cell<Option<Backlog>>,
    /// The loops of hubs that have had connections, as bits.
    pub serving: Cell<u64>,
    /// Set by who wants the hub to drain; taken by the hub.
    pub drain: Cell<Option<Duration>>,
    /// When draining began, and how and when it ended.
    pub draining: Cell<Option<Duration>>,
    pub drained: Cell<Option<(Drained, Duration)>>,
    /// The wall clock may have jumped between a signature and its check.
    pub clock_jumps: bool,
    /// Machines sleep for hours at times.
    pub sleeps: bool,
    /// The network breaks nothing and delays nothing.
    pub steady: bool,
}

impl Shared {
    pub fn new(config: Config) -> Self {
        Shared {
            phase: Cell::new(Phase::Storm),
            history: RefCell::default(),
            config,
            hub: RefCell::default(),
            lives: Cell::new(0),
            backlog: Cell::new(None),
            serving: Cell::new(0),
            drain: Cell::new(None),
            draining: Cell::new(None),
            drained: Cell::new(None),
            clock_jumps: false,
            sleeps: false,
            steady: false,
        }
    }

    pub fn is(&self, phase: Phase) -> bool {
        self.phase.get() == phase
    }

    pub fn service(&self) -> Option<Rc<LocalService>> {
        self.hub.borrow().upgrade()
    }
}

/// A configuration with short times, so that little virtual time is much.
pub fn config() -> Config {
    let mut config = Config::default();
    config.server.listen = vec![SocketAddr::from(([0, 0, 0, 0], PORT))];
    config.server.activity_timeout_seconds = 30;
    config.server.ping_interval_seconds = 5;
    config.server.pong_timeout_seconds = 5;
    config.limits.handshake_deadline_seconds = 5;
    config.limits.max_connections_per_address = 0;
    config.sse.heartbeat_seconds = 5;
    config.sse.retry_milliseconds = 1000;
    config.apps = (0..APPS).map(app).collect();
    config
}

fn app(app: usize) -> AppSettings {
    AppSettings {
        id: app_id(app),
        key: format!("key-{app}"),
        secret: Secret::new(&format!("secret-{app}")),
        client_events: true,
        history_messages: 10_000,
        history_bytes: 16 << 20,
        history_seconds: 3_600,
        subscription_counts: app == 0,
        ..AppSettings::default()
    }
}

/// The machine of a simulated host.
struct SimulatedMachine;

impl Machine for SimulatedMachine {
    fn wall_clock(&self) -> SystemTime {
        sim::wall_clock()
    }

    fn random_seed(&self) -> io::Result<u64> {
        Ok(sim::random(u64::MAX))
    }

    fn max_descriptors(&self) -> u64 {
        1 << 16
    }

    fn total_memory(&self) -> Option<u64> {
        Some(1 << 30)
    }

    fn resident(&self) -> Option<u64> {
        None
    }

    fn descriptors(&self) -> Option<u64> {
        None
    }

    fn descriptors_here(&self) -> Option<u64> {
        None
    }

    fn log(&self) -> Box<dyn Write> {
        Box::new(Trace)
    }
}

/// Lines of the hub's log are lines of the world's trace.
struct Trace;

impl Write for Trace {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sim::note(format_args!("hub: {}", String::from_utf8_lossy(bytes).trim_end()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The hub's program. It serves until the process is killed, and drains when it is asked to.
pub async fn serve(shared: Rc<Shared>) -> io::Result<()> {
    let service = loop {
        match start(&shared).await {
            Ok(service) => break Rc::new(service),
            // As a supervisor does.
            Err(e) => sim::note(format_args!("the hub does not start: {e}")),
        }
        time::sleep(Duration::from_millis(200)).await;
    };
    shared.lives.set(shared.lives.get() + 1);
    *shared.hub.borrow_mut() = Rc::downgrade(&service);
    evenkeel::spawn(tell_backlog(shared.clone(), service.clone())).detach();
    loop {
        if let Some(deadline) = shared.drain.take() {
            shared.draining.set(Some(sim::elapsed()));
            let drained = service.drain(deadline).await;
            shared.drained.set(Some((drained, sim::elapsed())));
        }
        time::sleep(Duration::from_millis(250)).await;
    }
}

/// Starts a hub on all loops of its host.
async fn start(shared: &Shared) -> io::Result<LocalService> {
    let (handle, config, machine) = (Handle::current(), shared.config.clone(), Arc::new(SimulatedMachine));
    let (loops, share) = (sim::remotes(), &config.server.share);
    sim::note(format_args!("the hub starts on {} loops, shared by {share}", loops.len()));
    match loops.split_first() {
        Some((_, others)) if !others.is_empty() => {
            LocalService::start_on(&handle, others, config, machine).await
        }
        _ => LocalService::start(&handle, config, machine),
    }
}

/// Says again and again what waits.
async fn tell_backlog(shared: Rc<Shared>, service: Rc<LocalService>) {
    loop {
        // A loop that is late tells it the next time.
        if let Ok(backlog) = service.backlog().await {
            shared.backlog.set(Some(backlog));
        }
        for (index, remote) in sim::remotes().iter().enumerate() {
            let sent = remote.spawn(|| async { Handle::current().stats().bytes_out });
            if let Ok(sent) = sent
                && sent.await.is_ok_and(|bytes| bytes > 0)
            {
                shared.serving.set(shared.serving.get() | 1 << index);
            }
        }
        time::sleep(Duration::from_millis(100)).await;
    }
}
