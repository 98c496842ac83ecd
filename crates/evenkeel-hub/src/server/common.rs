//! What all loops of one hub share: the configuration, and the few counts that limits for the whole process need.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use evenkeel::Remote;
use evenkeel::group::GroupListener;

use super::machine::Machine;
use super::seats::Seats;
use crate::config::Config;
use crate::proto::auth::AppKey;
use crate::proto::origin::Origins;
use crate::proto::{head, ws};
use crate::state::AppId;

/// Descriptors that connections may not use: listeners, the loops' own, files, requests to come.
const RESERVED_DESCRIPTORS: u64 = 64;
/// Connections that are turned away and waited for at the same time. Their descriptors are of the reserved ones.
const MAX_TURNED_AWAY: usize = 32;

/// What the server knows of one application beside the hub's state.
pub(super) struct App {
    pub(super) id: AppId,
    pub(super) key: AppKey,
    pub(super) origins: Origins,
}

/// Shared by the loops. Counts are relaxed: they say nothing about other memory.
pub(super) struct Common {
    pub(super) config: Config,
    pub(super) machine: Arc<dyn Machine>,
    /// In the order of the configuration, which is that of their ids.
    pub(super) apps: Vec<App>,
    by_key: HashMap<String, usize>,
    pub(super) head_limits: head::Limits,
    pub(super) message_limits: ws::Limits,
    pub(super) max_connections: usize,
    /// Locked for a moment when a connection comes and when it goes: an address is known to all loops.
    seats: Mutex<Seats>,
    loops: Box<[OfLoop]>,
    /// What request bodies hold in memory.
    pub(super) bodies: AtomicUsize,
    /// Connections that were turned away, and are waited for until they have read so.
    turned_away: AtomicUsize,
    /// Not all loops listen yet, and perhaps they never will: whoever comes is to come back.
    pub(super) starting: AtomicBool,
    pub(super) draining: AtomicBool,
    /// Another process serves, and this one is a front of it.
    pub(super) replaced: AtomicBool,
    /// While draining, and every subscriber has been told: connections between requests are closed.
    pub(super) closing_idle: AtomicBool,
    /// When the first loop began.
    started: OnceLock<Instant>,
    remotes: OnceLock<Vec<Remote>>,
    listeners: Mutex<Vec<GroupListener>>,
}

/// The counts of one loop, on memory lines of their own.
#[derive(Default)]
#[repr(align(64))]
struct OfLoop {
    connections: AtomicUsize,
    /// What the state has for the loop's connections and they have not been given, in bytes.
    undelivered: AtomicUsize,
}

impl Common {
    /// # Errors
    /// When there are no random numbers.
    pub(super) fn new(
        config: Config,
        apps: Vec<App>,
        loops: usize,
        machine: Arc<dyn Machine>,
    ) -> io::Result<Common> {
        let tables = if config.server.private_descriptors { loops } else { 1 };
        let max_connections = match config.limits.max_connections {
            0 => machine.max_descriptors().saturating_sub(RESERVED_DESCRIPTORS) as usize * tables,
            limit => limit as usize,
        };
        let keys = [machine.random_seed()?, machine.random_seed()?];
        Ok(Common {
            by_key: config.apps.iter().enumerate().map(|(i, app)| (app.key.clone(), i)).collect(),
            apps,
            head_limits: head::Limits { max_head: config.limits.max_head_bytes, ..head::Limits::default() },
            message_limits: ws::Limits {
                max_message: config.limits.max_message_bytes,
                ..ws::Limits::default()
            },
            max_connections,
            seats: Mutex::new(Seats::new(&config.limits, keys)),
            loops: (0..loops).map(|_| OfLoop::default()).collect(),
            bodies: AtomicUsize::new(0),
            turned_away: AtomicUsize::new(0),
            starting: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            replaced: AtomicBool::new(false),
            closing_idle: AtomicBool::new(false),
            started: OnceLock::new(),
            remotes: OnceLock::new(),
            listeners: Mutex::default(),
            machine,
            config,
        })
    }

    /// The application that clients connect to by this key.
    pub(super) fn app_by_key(&self, key: &str) -> Option<&App> {
        self.by_key.get(key).map(|at| &self.apps[*at])
    }

    /// The application that the HTTP API names by this id.
    pub(super) fn app_by_id(&self, id: &str) -> Option<&App> {
        let at = self.config.apps.iter().position(|app| app.id == id)?;
        self.apps.get(at)
    }

    pub(super) fn seats(&self) -> MutexGuard<'_, Seats> {
        // Whole after each of its methods.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the hub began, by the clock of the first loop that asked.
    pub(super) fn started(&self, now: Instant) -> Instant {
        *self.started.get_or_init(|| now)
    }

    pub(super) fn listeners(&self) -> MutexGuard<'_, Vec<GroupListener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- the loops ----

    pub(super) fn loops(&self) -> usize {
        self.loops.len()
    }

    /// The loops' mailboxes. Empty until all loops run, which is before any connection comes.
    pub(super) fn remotes(&self) -> &[Remote] {
        self.remotes.get().map_or(&[], Vec::as_slice)
    }

    pub(super) fn set_remotes(&self, remotes: Vec<Remote>) {
        // Set once, by who starts the loops.
        let _ = self.remotes.set(remotes);
    }

    /// Connections of all loops.
    pub(super) fn connections(&self) -> usize {
        self.loops.iter().map(|of| of.connections.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn connections_of(&self, index: u16) -> usize {
        self.loops[usize::from(index)].connections.load(Ordering::Relaxed)
    }

    pub(super) fn came(&self, index: u16) {
        self.loops[usize::from(index)].connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn left(&self, index: u16) {
        self.loops[usize::from(index)].connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes a place for one that is turned away and waited for, if there is one left. They are few, and none of those that
    /// connections have: whoever keeps them taken only has others closed at once.
    pub(super) fn turn_away(&self) -> bool {
        let place = |taken: usize| (taken < MAX_TURNED_AWAY).then_some(taken + 1);
        self.turned_away.fetch_update(Ordering::Relaxed, Ordering::Relaxed, place).is_ok()
    }

    /// One of them has ended.
    pub(super) fn turned_away_is_gone(&self) {
        self.turned_away.fetch_sub(1, Ordering::Relaxed);
    }

    /// So many more bytes are to go to a loop. What is to go to another process's is not counted.
    pub(super) fn to_deliver(&self, index: u16, n: usize) {
        if let Some(of) = self.loops.get(usize::from(index)) {
            of.undelivered.fetch_add(n, Ordering::Relaxed);
        }
    }

    pub(super) fn delivered(&self, index: u16, n: usize) {
        self.loops[usize::from(index)].undelivered.fetch_sub(n, Ordering::Relaxed);
    }

    /// The most bytes that are on their way to any one loop.
    pub(super) fn undelivered(&self) -> usize {
        self.loops.iter().map(|of| of.undelivered.load(Ordering::Relaxed)).max().unwrap_or(0)
    }

    /// Nobody is served any more who comes now.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Connections are to end, as soon as that disturbs nobody.
    pub(super) fn is_ending(&self) -> bool {
        self.is_draining() || self.replaced.load(Ordering::Relaxed)
    }
}
