//! Counters and gauges, written out in Prometheus' text format.
//!
//! Each loop has its own, so they are plain cells, summed when they are written out: an increment is a load and a store, no atomics and no lock. (The crate
//! `prometheus-client` shares atomics between threads and looks label sets up in locked maps, which a loop of its own does
//! not need.) Labels are enums or text from our own code, except for the applications' ids, of which the configuration
//! bounds the number: no peer can add a time series.
//!
//! ```
//! use evenkeel_hub::metrics::{AppSample, Metrics, Sample};
//! let metrics = Metrics::default();
//! metrics.refusals.inc("origin");
//! let app = AppSample { id: "1001".into(), websockets: 1, ..AppSample::default() };
//! let text = metrics.counted().render(&Sample { apps: &[app], ..Sample::default() });
//! assert!(text.contains("evenkeel_hub_connections{app=\"1001\",transport=\"websocket\"} 1\n"));
//! assert!(text.contains("evenkeel_hub_refusals_total{reason=\"origin\"} 1\n"));
//! ```

mod text;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::iter::Sum;
use std::ops::Index;
use text::{Kind, Text};

use crate::state::AppSnapshot;

/// The value of `Content-Type` for [`Counted::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.set(self.0.get().wrapping_add(n));
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// A number of things that are there now.
#[derive(Debug, Default)]
pub struct Gauge(Cell<u64>);

impl Gauge {
    /// One more.
    pub fn inc(&self) {
        self.0.set(self.0.get() + 1);
    }

    /// One less. What was not counted in must not be counted out: that is our own mistake, and a gauge that is stuck at a
    /// huge number would hide it.
    pub fn dec(&self) {
        debug_assert!(self.0.get() > 0, "a gauge was decremented more often than incremented");
        self.0.set(self.0.get().saturating_sub(1));
    }

    /// Exactly `n`.
    pub fn set(&self, n: u64) {
        self.0.set(n);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// A closed set of label values.
pub trait Label: Copy + 'static {
    /// All of them, in the order of their [`Label::index`].
    const ALL: &'static [Self];
    /// The position in [`Label::ALL`].
    fn index(self) -> usize;
    /// The text of the label.
    fn name(self) -> &'static str;
}

macro_rules! label {
    ($(#[doc = $about:literal])* $type:ident { $( $(#[doc = $doc:literal])* $variant:ident = $name:literal, )* }) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type { $( $(#[doc = $doc])* $variant, )* }

        impl Label for $type {
            const ALL: &'static [Self] = &[$(Self::$variant),*];
            fn index(self) -> usize {
                self as usize
            }
            fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

label! {
    /// Why a slow consumer was dropped: what its outgoing queue had too much of.
    Slow {
        /// Bytes.
        Bytes = "bytes",
        /// Messages.
        Messages = "messages",
        /// Seconds since its oldest message.
        Age = "age",
        /// Its share of what all queues together may hold.
        Memory = "memory",
    }
}

/// One value for each label of a closed set.
#[derive(Debug)]
pub struct Each<L, V>(Vec<V>, std::marker::PhantomData<L>);

impl<L: Label, V: Default> Default for Each<L, V> {
    fn default() -> Self {
        Self(L::ALL.iter().map(|_| V::default()).collect(), std::marker::PhantomData)
    }
}

impl<L: Label, V> Index<L> for Each<L, V> {
    type Output = V;

    fn index(&self, label: L) -> &V {
        &self.0[label.index()]
    }
}

/// Counters by a label from our own code, such as [`crate::api::ApiError::label`]. There are a few dozen at most, so a list
/// is searched.
#[derive(Debug)]
pub struct ByLabel<K>(RefCell<Vec<(K, u64)>>);

impl<K> Default for ByLabel<K> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<K: Copy + Ord> ByLabel<K> {
    /// One more of `label`.
    pub fn inc(&self, label: K) {
        let mut counters = self.0.borrow_mut();
        match counters.iter_mut().find(|(known, _)| *known == label) {
            Some((_, count)) => *count = count.wrapping_add(1),
            None => counters.push((label, 1)),
        }
    }

    /// The count of `label`.
    pub fn get(&self, label: K) -> u64 {
        self.0.borrow().iter().find(|(known, _)| *known == label).map_or(0, |&(_, count)| count)
    }

    /// Every label and its count, in order.
    pub fn sorted(&self) -> Vec<(K, u64)> {
        let mut counters = self.0.borrow().clone();
        counters.sort_unstable();
        counters
    }
}

/// What one application's state has counted, at the moment of a scrape.
#[derive(Clone, Debug, Default)]
pub struct AppSample {
    /// The application's id.
    pub id: String,
    /// WebSockets connected now.
    pub websockets: u64,
    /// Event streams connected now.
    pub streams: u64,
    /// Subscribers that ever connected.
    pub connections_opened: u64,
    /// Channels occupied now.
    pub channels: u64,
    /// Users signed in now.
    pub users: u64,
    /// Events published over HTTP, once for each channel.
    pub events_published: u64,
    /// Client events passed on.
    pub client_events: u64,
    /// Messages received from clients.
    pub messages_received: u64,
    /// Messages queued to clients, one for each receiver.
    pub messages_sent: u64,
    /// Events sent again to streams that came back.
    pub replayed: u64,
    /// Memory of the history, in bytes.
    pub history_bytes: u64,
    /// What the application's clients were refused, by reason.
    pub refusals: Vec<(&'static str, u64)>,
}

impl From<&AppSnapshot> for AppSample {
    fn from(app: &AppSnapshot) -> Self {
        let AppSnapshot { counters, .. } = app;
        AppSample {
            id: app.id.clone(),
            websockets: u64::from(app.connections - app.streams),
            streams: u64::from(app.streams),
            connections_opened: counters.connections,
            channels: u64::from(app.channels),
            users: u64::from(app.users),
            events_published: counters.published,
            client_events: counters.client_events,
            messages_received: counters.messages_in,
            messages_sent: counters.messages_out,
            replayed: counters.replayed,
            history_bytes: app.history_bytes as u64,
            refusals: app.refusals.iter().map(|(refusal, n)| (refusal.name(), *n)).collect(),
        }
    }
}

/// What the server counts itself.
#[derive(Debug, Default)]
pub struct Metrics {
    /// HTTP connections open now: those that neither are nor may become WebSockets or event streams at the moment.
    pub http_connections: Gauge,
    /// What the server refused, by reason: connections, requests, handshakes.
    pub refusals: ByLabel<&'static str>,
    /// Requests to the HTTP API, by operation and status.
    pub api_requests: ByLabel<(&'static str, u16)>,
    /// Slow consumers that were dropped.
    pub slow_consumers: Each<Slow, Counter>,
}

/// What is measured at the moment of a scrape, by whoever can.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample<'a> {
    /// The applications.
    pub apps: &'a [AppSample],
    /// The connections of each loop.
    pub loops: &'a [u64],
    /// How long turns of the loops took: for each bucket its upper bound in seconds, ascending, and how many turns fell
    /// into it alone. The last bound may be infinite.
    pub turns: &'a [(f64, u64)],
    /// The sum of all turns, in seconds.
    pub turns_seconds: f64,
    /// Connections accepted.
    pub accepted: u64,
    /// Failed attempts to accept, as for want of descriptors.
    pub accept_errors: u64,
    /// Connections that were accepted only to be reset, because descriptors had run out.
    pub shed: u64,
    /// Bytes received from all clients.
    pub bytes_in: u64,
    /// Bytes sent to all clients.
    pub bytes_out: u64,
    /// Panics that were caught.
    pub panics: u64,
    /// The resident memory of the process, in bytes.
    pub resident_bytes: Option<u64>,
    /// The descriptors that the process has open.
    pub open_fds: Option<u64>,
    /// How many it may have.
    pub max_fds: Option<u64>,
    /// Log lines that could not be written.
    pub log_lines_lost: u64,
    /// The kernel interface that runs.
    pub backend: &'static str,
    /// Why it is not io_uring, if that was asked for or might have been chosen; else empty.
    pub fallback: &'a str,
}

impl Metrics {
    /// The values as they are now, to be summed with other loops' and written out.
    pub fn counted(&self) -> Counted {
        Counted {
            http_connections: self.http_connections.get(),
            refusals: self.refusals.sorted().into_iter().collect(),
            api_requests: self.api_requests.sorted().into_iter().collect(),
            slow_consumers: Slow::ALL.iter().map(|why| self.slow_consumers[*why].get()).collect(),
        }
    }
}

/// What one server or several have counted.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// HTTP connections open.
    pub http_connections: u64,
    /// What was refused, by reason.
    pub refusals: BTreeMap<&'static str, u64>,
    /// Requests to the HTTP API, by operation and status.
    pub api_requests: BTreeMap<(&'static str, u16), u64>,
    /// By the order of [`Slow`]'s labels.
    slow_consumers: Vec<u64>,
}

impl Counted {
    /// Subscribers that were dropped because they did not read, for whatever limit.
    pub fn slow_consumers(&self) -> u64 {
        self.slow_consumers.iter().sum()
    }
}

impl Sum for Counted {
    fn sum<I: Iterator<Item = Counted>>(all: I) -> Counted {
        let mut sum = Counted { slow_consumers: vec![0; Slow::ALL.len()], ..Counted::default() };
        for one in all {
            sum.http_connections += one.http_connections;
            for (reason, n) in one.refusals {
                *sum.refusals.entry(reason).or_default() += n;
            }
            for (request, n) in one.api_requests {
                *sum.api_requests.entry(request).or_default() += n;
            }
            for (sum, n) in sum.slow_consumers.iter_mut().zip(one.slow_consumers) {
                *sum += n;
            }
        }
        sum
    }
}

impl Counted {
    /// Everything in Prometheus' text exposition format, version 0.0.4.
    pub fn render(&self, sample: &Sample<'_>) -> String {
        let mut text = Text::default();
        self.render_connections(&mut text, sample);
        render_apps(&mut text, sample.apps);
        self.render_refusals(&mut text, sample.apps);
        render_turns(&mut text, sample);
        render_process(&mut text, sample);
        text.finish()
    }

    fn render_connections(&self, text: &mut Text, sample: &Sample<'_>) {
        text.family("evenkeel_hub_connections", Kind::Gauge, "Subscribers connected now.");
        for app in sample.apps {
            for (transport, n) in [("websocket", app.websockets), ("sse", app.streams)] {
                text.sample("", &[("app", &app.id), ("transport", transport)], n);
            }
        }
        let http = self.http_connections;
        text.one("evenkeel_hub_http_connections", Kind::Gauge, "HTTP connections open now.", http);
        let help = "Connections of every kind that each loop has now.";
        text.family("evenkeel_hub_loop_connections", Kind::Gauge, help);
        for (index, n) in sample.loops.iter().enumerate() {
            text.sample("", &[("loop", &index.to_string())], *n);
        }
        for (name, help, n) in [
            ("evenkeel_hub_accepted_total", "Connections accepted.", sample.accepted),
            ("evenkeel_hub_accept_errors_total", "Failed attempts to accept.", sample.accept_errors),
            ("evenkeel_hub_shed_total", "Connections reset for want of descriptors.", sample.shed),
            ("evenkeel_hub_received_bytes_total", "Bytes received from clients.", sample.bytes_in),
            ("evenkeel_hub_sent_bytes_total", "Bytes sent to clients.", sample.bytes_out),
            ("evenkeel_hub_panics_total", "Panics that were caught.", sample.panics),
        ] {
            text.one(name, Kind::Counter, help, n);
        }
    }

    fn render_refusals(&self, text: &mut Text, apps: &[AppSample]) {
        text.family("evenkeel_hub_refusals_total", Kind::Counter, "What the server refused, by reason.");
        for (reason, count) in &self.refusals {
            text.sample("", &[("reason", reason)], *count);
        }
        let help = "What the clients of an application were refused, by reason.";
        text.family("evenkeel_hub_app_refusals_total", Kind::Counter, help);
        for app in apps {
            for (reason, count) in &app.refusals {
                text.sample("", &[("app", &app.id), ("reason", reason)], *count);
            }
        }
        text.family("evenkeel_hub_api_requests_total", Kind::Counter, "Requests to the HTTP API.");
        for ((operation, status), count) in &self.api_requests {
            text.sample("", &[("operation", operation), ("status", &status.to_string())], *count);
        }
        text.family("evenkeel_hub_slow_consumers_total", Kind::Counter, "Slow consumers that were dropped.");
        for (reason, count) in Slow::ALL.iter().zip(&self.slow_consumers) {
            text.sample("", &[("reason", reason.name())], *count);
        }
    }
}

fn render_apps(text: &mut Text, apps: &[AppSample]) {
    use Kind::{Counter as C, Gauge as G};
    type Row = (&'static str, Kind, &'static str, fn(&AppSample) -> u64);
    let rows: [Row; 9] = [
        ("evenkeel_hub_connections_opened_total", C, "Subscribers that ever connected.", |app| {
            app.connections_opened
        }),
        ("evenkeel_hub_channels", G, "Channels occupied now.", |app| app.channels),
        ("evenkeel_hub_users", G, "Users signed in now.", |app| app.users),
        ("evenkeel_hub_events_published_total", C, "Events published over HTTP.", |app| app.events_published),
        ("evenkeel_hub_client_events_total", C, "Client events passed on.", |app| app.client_events),
        ("evenkeel_hub_messages_received_total", C, "Messages received from clients.", |app| {
            app.messages_received
        }),
        ("evenkeel_hub_messages_sent_total", C, "Messages queued to clients.", |app| app.messages_sent),
        ("evenkeel_hub_replayed_total", C, "Events sent again to streams that came back.", |app| {
            app.replayed
        }),
        ("evenkeel_hub_history_bytes", G, "Memory of the history.", |app| app.history_bytes),
    ];
    for (name, kind, help, value) in rows {
        text.family(name, kind, help);
        for app in apps {
            text.sample("", &[("app", &app.id)], value(app));
        }
    }
}

fn render_turns(text: &mut Text, sample: &Sample<'_>) {
    text.family("evenkeel_hub_turn_seconds", Kind::Histogram, "How long turns of the event loop took.");
    let mut total = 0;
    for &(bound, count) in sample.turns {
        total += count;
        if bound.is_finite() {
            text.sample("_bucket", &[("le", &bound.to_string())], total);
        }
    }
    text.sample("_bucket", &[("le", "+Inf")], total);
    text.sample("_sum", &[], sample.turns_seconds);
    text.sample("_count", &[], total);
}

fn render_process(text: &mut Text, sample: &Sample<'_>) {
    let lost = sample.log_lines_lost;
    text.one(
        "evenkeel_hub_log_lines_lost_total",
        Kind::Counter,
        "Log lines that could not be written.",
        lost,
    );
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Resident memory.", sample.resident_bytes),
        ("process_open_fds", "Open descriptors.", sample.open_fds),
        ("process_max_fds", "The most descriptors that may be open.", sample.max_fds),
    ] {
        // What cannot be measured here is left out: a zero would be a lie.
        if let Some(value) = value {
            text.one(name, Kind::Gauge, help, value);
        }
    }
    text.family("evenkeel_hub_build_info", Kind::Gauge, "The version that runs.");
    text.sample("", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.family("evenkeel_hub_backend_info", Kind::Gauge, "The kernel interface that runs.");
    text.sample("", &[("backend", sample.backend), ("fallback", sample.fallback)], 1);
}

#[cfg(test)]
mod tests;
