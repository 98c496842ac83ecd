//! The server: sockets, time and the console around the pure parts of the hub.
//!
//! Every connection begins at the front door (`front`), a callback connection that holds no more than the request's
//! head. A WebSocket or an event stream stays a callback connection and becomes a small struct without a buffer; any
//! other request is handed over to a task that runs hyper, and comes back to the front door when a later request on the
//! same connection asks for a subscription.

mod access;
mod assets;
mod broker;
mod conn;
mod console;
mod drain;
mod front;
mod guarded;
mod http;
mod outbox;
mod process;
mod seats;
mod stream;
mod websocket;

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use evenkeel::net::{Limits, ListenOptions, ListenerId, Pool};
use evenkeel::{Backend, Fallback, Handle};

use crate::api::Api;
use crate::config::{AppSettings, Config};
use crate::log::{Field, Level, Logger, Value};
use crate::metrics::Metrics;
use crate::proto::auth::AppKey;
use crate::proto::origin::Origins;
use crate::proto::{head, ws};
use crate::state::{AppId, Hub};

use conn::HubConn;
use outbox::{Codec, Effects, Peer};
use seats::Seats;

pub use drain::Drained;

/// How often the hub looks after what is due, in milliseconds: delayed counts, old history, queues that are too large.
const TICK: Duration = Duration::from_millis(250);
/// Descriptors that connections may not use: listeners, the loop's own, files, requests to come.
const RESERVED_DESCRIPTORS: u64 = 64;
/// What all request bodies together may hold in memory.
const MAX_BODIES: usize = 64 << 20;

/// What the server knows of one application beside the hub's state.
struct App {
    id: AppId,
    key: AppKey,
    origins: Origins,
}

/// The hub on one event loop.
pub struct Server {
    handle: Handle,
    pool: OnceCell<Pool<HubConn>>,
    hub: RefCell<Hub<Peer, Codec>>,
    api: RefCell<Api>,
    apps: Vec<App>,
    config: Config,
    head_limits: head::Limits,
    message_limits: ws::Limits,
    metrics: Metrics,
    log: Logger,
    /// Memory that messages are unmasked into, shared by all connections.
    scratch: Cell<Vec<u8>>,
    seats: RefCell<Seats>,
    max_connections: usize,
    connections: Cell<usize>,
    bodies: Cell<usize>,
    listeners: RefCell<Vec<ListenerId>>,
    draining: Cell<bool>,
    /// While draining, and every subscriber has been told: connections between requests are closed.
    closing_idle: Cell<bool>,
    /// The connections that hyper serves, to be woken then.
    http: RefCell<http::Serving>,
    started: Instant,
    /// Itself, for handlers that are made later.
    this: Weak<Server>,
}

impl Server {
    /// Makes the server on a loop and begins to listen.
    ///
    /// # Errors
    /// When an address cannot be listened on, or the configuration names what does not exist; the message says what.
    pub fn start(handle: &Handle, config: Config) -> io::Result<Rc<Server>> {
        let log = Logger::new(config.log.format, config.log.level, Box::new(io::stderr()));
        let mut hub = Hub::new(fastrand::Rng::with_seed(process::random_seed()?));
        let apps =
            config.apps.iter().map(|app| add_app(&mut hub, app, &config)).collect::<io::Result<_>>()?;
        let max_connections = match config.limits.max_connections {
            0 => process::max_descriptors().saturating_sub(RESERVED_DESCRIPTORS) as usize,
            limit => limit as usize,
        };
        let server = Rc::new_cyclic(|this| Server {
            handle: handle.clone(),
            pool: OnceCell::new(),
            hub: RefCell::new(hub),
            api: RefCell::new(Api::new(
                &config.apps,
                &config.server.path_prefix,
                config.limits.max_body_bytes,
            )),
            apps,
            head_limits: head::Limits { max_head: config.limits.max_head_bytes, ..head::Limits::default() },
            message_limits: ws::Limits {
                max_message: config.limits.max_message_bytes,
                ..ws::Limits::default()
            },
            metrics: Metrics::default(),
            log,
            scratch: Cell::default(),
            seats: RefCell::new(Seats::new(&config.limits, process::random_seed_pair())),
            max_connections,
            connections: Cell::new(0),
            bodies: Cell::new(0),
            listeners: RefCell::default(),
            draining: Cell::new(false),
            closing_idle: Cell::new(false),
            http: RefCell::default(),
            started: handle.now(),
            config,
            this: this.clone(),
        });
        server.listen()?;
        server.schedule_tick();
        Ok(server)
    }

    fn listen(&self) -> io::Result<()> {
        let pool = self.handle.pool(connection_limits(&self.config));
        let pool = self.pool.get_or_init(|| pool);
        for address in &self.config.server.listen {
            let this = self.this.clone();
            let made = pool.listen(*address, &ListenOptions::default(), move |peer| {
                HubConn::new(this.upgrade(), peer.socket_addr())
            });
            let listener = made.map_err(|error| {
                io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
            })?;
            self.listeners.borrow_mut().push(listener);
        }
        Ok(())
    }

    /// The addresses that are listened on, with the ports that the kernel chose.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let listeners = self.listeners.borrow();
        listeners.iter().filter_map(|l| self.handle.listener_addr(*l).ok()?.socket_addr()).collect()
    }

    /// The kernel interface that runs.
    pub fn backend(&self) -> Backend {
        self.handle.backend()
    }

    /// Why that is epoll, if io_uring was asked for or might have been chosen.
    pub fn fallback(&self) -> Option<&Fallback> {
        self.handle.fallback()
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    // ---- for the parts of the server ----

    fn pool(&self) -> &Pool<HubConn> {
        self.pool.get().expect("listen made the pool before any connection")
    }

    /// Milliseconds since the start, by the loop's clock.
    fn now(&self) -> u64 {
        self.handle.now().saturating_duration_since(self.started).as_millis() as u64
    }

    /// Calls the hub with somewhere to put its effects.
    fn with_hub<R>(&self, call: impl FnOnce(&mut Hub<Peer, Codec>, &mut Effects<'_>) -> R) -> R {
        call(&mut self.hub.borrow_mut(), &mut Effects::new(self))
    }

    /// Counts a refusal and writes one line about it.
    fn refuse(&self, reason: &'static str, fields: &[Field<'_>]) {
        self.metrics.refusals.inc(reason);
        let mut all = vec![("reason", Value::Text(reason))];
        all.extend_from_slice(fields);
        self.log.limited(reason, Level::Warn, unix_ms(), "refused", &all);
    }

    /// Writes one line.
    pub fn note(&self, level: Level, message: &str, fields: &[Field<'_>]) {
        self.log.event(level, unix_ms(), message, fields);
    }

    fn app(&self, id: AppId) -> Option<&App> {
        self.apps.iter().find(|app| app.id == id)
    }

    /// The application that clients connect to by this key.
    fn app_by_key(&self, key: &str) -> Option<&App> {
        let id = self.hub.borrow().app_by_key(key)?;
        self.app(id)
    }

    fn schedule_tick(&self) {
        let this = self.this.clone();
        self.handle.after(TICK, move || {
            let Some(server) = this.upgrade() else { return };
            server.tick();
            server.schedule_tick();
        });
    }

    fn tick(&self) {
        let now = self.now();
        if self.hub.borrow().next_tick(now).is_some_and(|due| due <= now) {
            self.with_hub(|hub, out| hub.tick(now, out));
        }
        self.shed_queues();
        self.log.tick(unix_ms());
    }

    /// When all queues together hold more than their share of the machine's memory, the longest end first. A message
    /// on many queues counts for each, so the bound is met early rather than late.
    fn shed_queues(&self) {
        let share = u64::from(self.config.limits.queue_memory_percent);
        let most = (process::total_memory().unwrap_or(u64::MAX) / 100).saturating_mul(share);
        let queued = |peer: &Peer| self.handle.queued(peer.id).unwrap_or(0);
        let mut queues: Vec<(usize, Peer)> = {
            let hub = self.hub.borrow();
            hub.sessions().map(|(_, peer, _)| (queued(&peer), peer)).filter(|(bytes, _)| *bytes > 0).collect()
        };
        let mut total: u64 = queues.iter().map(|(bytes, _)| *bytes as u64).sum();
        if total <= most {
            return;
        }
        queues.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        for (bytes, peer) in queues {
            if total <= most {
                break;
            }
            total -= bytes as u64;
            self.metrics.slow_consumers[crate::metrics::Slow::Memory].inc();
            self.refuse("queue_memory", &[("bytes", Value::Number(bytes as u64))]);
            // It may be gone already.
            let _ = self.handle.abort(peer.id);
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("connections", &self.connections).finish_non_exhaustive()
    }
}

/// The wall clock, for logs and signatures only.
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

/// The limits of the runtime that all connections share. A connection that owes the rest of a request, or of a message,
/// has the handshake's deadline for it; silence is met by pings and heartbeats.
fn connection_limits(config: &Config) -> Limits {
    let mut limits = Limits::default();
    limits.idle_timeout = None;
    limits.message_deadline = Some(seconds(config.limits.handshake_deadline_seconds));
    limits.min_rate = 0;
    limits.max_queue_bytes = config.limits.max_queue_bytes;
    limits.max_queue_messages = config.limits.max_queue_messages as usize;
    limits.max_queue_age = Some(seconds(config.limits.max_queue_age_seconds));
    limits.high_watermark = config.limits.max_queue_bytes / 2;
    limits.low_watermark = config.limits.max_queue_bytes / 8;
    limits.close_deadline = Duration::from_secs(5);
    limits
}

fn seconds(n: u32) -> Duration {
    Duration::from_secs(u64::from(n))
}

/// Adds an application to the hub.
fn add_app(hub: &mut Hub<Peer, Codec>, app: &AppSettings, config: &Config) -> io::Result<App> {
    let wrong = |what| io::Error::new(io::ErrorKind::InvalidInput, format!("application {}: {what}", app.id));
    let id = hub.add_app(config.app_config(app)).map_err(wrong)?;
    Ok(App { id, key: app.app_key(), origins: app.allowed_origins.clone() })
}
