//! The server: sockets, time and the console around the pure parts of the hub.
//!
//! Every connection begins at the front door (`front`), a callback connection that holds no more than the request's
//! head. A WebSocket or an event stream stays a callback connection and becomes a small struct without a buffer; any
//! other request is handed over to a task that runs hyper, and comes back to the front door when a later request on the
//! same connection asks for a subscription.
//!
//! The hub runs on several loops. Each serves its own connections; the state is on one of them (`home`), and the others
//! reach it by messages (`link`, `crossing`).

mod access;
mod assets;
mod broker;
mod common;
mod conn;
mod console;
mod crossing;
mod drain;
mod front;
mod gather;
mod guarded;
mod home;
mod http;
mod link;
mod local;
mod machine;
mod opening;
mod outbox;
mod parting;
mod process;
mod seats;
mod service;
mod stream;
mod succession;
mod websocket;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evenkeel::net::{Limits, Pool};
use evenkeel::{ConnId, Handle};

use crate::config::Config;
use crate::log::{Field, Level, Logger, Value};
use crate::metrics::Metrics;

use common::Common;
use conn::HubConn;
use home::Home;
use link::Link;
use local::OwnListeners;

pub use drain::Drained;
pub use local::{Backlog, LocalService};
pub use machine::{Machine, ThisMachine};
pub use service::Service;
pub use succession::Inheritance;
#[cfg(fuzzing)]
pub(crate) use succession::fuzzing;

/// How often a loop looks after what is due, in milliseconds: delayed counts, old history, queues that are too large.
const TICK: Duration = Duration::from_millis(250);
/// What all request bodies together may hold in memory.
const MAX_BODIES: usize = 64 << 20;

/// One loop's part of the hub.
struct Server {
    common: Arc<Common>,
    handle: Handle,
    /// Which loop this is.
    index: u16,
    /// The state, on the loop that has it.
    home: Option<Home>,
    /// The way there, on the others.
    link: Link,
    /// For connections that come back from the HTTP server.
    pool: Pool<HubConn>,
    metrics: Metrics,
    log: Logger,
    /// The listeners, if the loop is not a group's.
    own_listeners: OwnListeners,
    /// Memory that messages are unmasked into, shared by all connections.
    scratch: Cell<Vec<u8>>,
    /// The connections that hyper serves, to be woken when the server stops.
    http: RefCell<http::Serving>,
    /// Itself, for handlers that are made later.
    this: Weak<Server>,
}

impl Server {
    /// Makes a loop's part.
    fn new(handle: &Handle, index: u16, common: Arc<Common>, home: Option<Home>) -> Rc<Server> {
        common.started(handle.now());
        let pool = handle.pool(connection_limits(&common.config));
        Rc::new_cyclic(|this| Server {
            handle: handle.clone(),
            index,
            home,
            link: Link::default(),
            own_listeners: OwnListeners::default(),
            pool,
            metrics: Metrics::default(),
            log: Logger::new(common.config.log.format, common.config.log.level, common.machine.log()),
            scratch: Cell::default(),
            http: RefCell::default(),
            common,
            this: this.clone(),
        })
    }

    /// From now on the loop keeps it.
    fn begin(self: &Rc<Self>) {
        self.handle.set_local(self.clone());
        self.schedule_tick();
    }

    fn config(&self) -> &Config {
        &self.common.config
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn handle(&self) -> &Handle {
        &self.handle
    }

    fn index(&self) -> u16 {
        self.index
    }

    fn home(&self) -> Option<&Home> {
        self.home.as_ref()
    }

    fn link(&self) -> &Link {
        &self.link
    }

    fn weak(&self) -> Weak<Server> {
        self.this.clone()
    }

    fn pool(&self) -> &Pool<HubConn> {
        &self.pool
    }

    fn is_closing_idle(&self) -> bool {
        self.common.closing_idle.load(Ordering::Relaxed)
    }

    /// Milliseconds since the hub began, by this loop's clock.
    fn now(&self) -> u64 {
        let now = self.handle.now();
        now.saturating_duration_since(self.common.started(now)).as_millis() as u64
    }

    /// The wall clock in milliseconds since 1970, for logs and signatures only.
    fn unix_ms(&self) -> u64 {
        machine::unix_ms(&*self.common.machine)
    }

    /// Counts a refusal and writes one line about it.
    fn refuse(&self, reason: &'static str, fields: &[Field<'_>]) {
        self.metrics.refusals.inc(reason);
        let mut all = vec![("reason", Value::Text(reason))];
        all.extend_from_slice(fields);
        self.log.limited(reason, Level::Warn, self.unix_ms(), "refused", &all);
    }

    /// Writes one line.
    fn note(&self, level: Level, message: &str, fields: &[Field<'_>]) {
        self.log.event(level, self.unix_ms(), message, fields);
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
        if let Some(home) = self.home.as_ref().filter(|home| !home.has_moved()) {
            let now = self.now();
            let due = home.state.borrow().next_tick(now);
            if due.is_some_and(|due| due <= now) {
                self.with_state(home, |hub, out| hub.tick(now, out));
            }
        }
        self.shed_queues();
        self.log.tick(self.unix_ms());
    }

    /// When the queues of this loop together hold more than its part of the memory that queues may have, the longest end
    /// first. A message on many queues counts for each, so the bound is met early rather than late.
    fn shed_queues(&self) {
        let share = u64::from(self.config().limits.queue_memory_percent);
        let memory = self.common().machine.total_memory().unwrap_or(u64::MAX);
        let most = (memory / 100).saturating_mul(share) / self.common.loops() as u64;
        let mut queues: Vec<(ConnId, usize)> = self.handle.queues();
        let mut total: u64 = queues.iter().map(|(_, bytes)| *bytes as u64).sum();
        if total <= most {
            return;
        }
        queues.sort_unstable_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        for (id, bytes) in queues {
            if total <= most {
                break;
            }
            total -= bytes as u64;
            self.metrics.slow_consumers[crate::metrics::Slow::Memory].inc();
            self.refuse("queue_memory", &[("bytes", Value::Number(bytes as u64))]);
            // It may be gone already.
            let _ = self.handle.abort(id);
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("index", &self.index).finish_non_exhaustive()
    }
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
