//! Counters and gauges, written out in Prometheus' text format.
//!
//! One loop owns them, so they are plain cells: an increment is a load and a store, no atomics and no lock. (The crate
//! `prometheus-client` shares atomics between threads and looks label sets up in locked maps, which a loop of its own does
//! not need.) Labels are enums or text from our own code, except for the applications' ids, of which the configuration
//! bounds the number: no peer can add a time series.
//!
//! ```
//! use evenkeel_hub::metrics::{Metrics, Sample, Transport};
//! let metrics = Metrics::default();
//! let app = metrics.app("1001");
//! app.connections[Transport::WebSocket].inc();
//! metrics.refusals.inc("auth_signature");
//! let text = metrics.render(&Sample::default());
//! assert!(text.contains("evenkeel_hub_connections{app=\"1001\",transport=\"websocket\"} 1\n"));
//! assert!(text.contains("evenkeel_hub_refusals_total{reason=\"auth_signature\"} 1\n"));
//! ```

mod text;

use std::cell::{Cell, RefCell};
use std::ops::Index;
use std::rc::Rc;

use text::{Kind, Text};

/// The value of `Content-Type` for [`Metrics::render`].
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
    /// How a subscriber is connected.
    Transport {
        /// A WebSocket.
        WebSocket = "websocket",
        /// An event stream.
        Sse = "sse",
    }
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

label! {
    /// Why a connection could not be accepted.
    AcceptError {
        /// No descriptor was left.
        Descriptors = "descriptors",
        /// The kernel had no memory.
        Memory = "memory",
        /// The client was gone before.
        Aborted = "aborted",
        /// Anything else.
        Other = "other",
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

    fn sorted(&self) -> Vec<(K, u64)> {
        let mut counters = self.0.borrow().clone();
        counters.sort_unstable();
        counters
    }
}

/// What is counted for one application.
#[derive(Debug, Default)]
pub struct AppMetrics {
    id: String,
    /// Subscribers connected now.
    pub connections: Each<Transport, Gauge>,
    /// Subscribers that ever connected.
    pub connections_opened: Each<Transport, Counter>,
    /// Channels occupied now.
    pub channels: Gauge,
    /// Events published over HTTP, each once.
    pub events_published: Counter,
    /// Messages received from clients.
    pub messages_received: Counter,
    /// Messages queued to clients, one for each receiver.
    pub messages_sent: Counter,
    /// Bytes of messages received from clients.
    pub bytes_received: Counter,
    /// Bytes of messages queued to clients.
    pub bytes_sent: Counter,
}

/// All metrics of one loop.
#[derive(Debug, Default)]
pub struct Metrics {
    apps: RefCell<Vec<Rc<AppMetrics>>>,
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections that could not be accepted.
    pub accept_errors: Each<AcceptError, Counter>,
    /// HTTP connections open now: those that are, or are not yet, neither WebSockets nor event streams.
    pub http_connections: Gauge,
    /// What was refused, by reason, whatever it was: connections, subscriptions, requests, messages.
    pub refusals: ByLabel<&'static str>,
    /// Requests to the HTTP API, by operation and status.
    pub api_requests: ByLabel<(&'static str, u16)>,
    /// Slow consumers that were dropped.
    pub slow_consumers: Each<Slow, Counter>,
}

/// What is measured at the moment of a scrape, by whoever can.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample<'a> {
    /// How long turns of the loop took: for each bucket its upper bound in seconds, ascending, and how many turns fell
    /// into it alone. The last bound may be infinite.
    pub turns: &'a [(f64, u64)],
    /// The sum of all turns, in seconds.
    pub turns_seconds: f64,
    /// The resident memory of the process, in bytes.
    pub resident_bytes: Option<u64>,
    /// The descriptors that the process has open.
    pub open_fds: Option<u64>,
    /// How many it may have.
    pub max_fds: Option<u64>,
    /// Log lines that could not be written.
    pub log_lines_lost: u64,
}

impl Metrics {
    /// The metrics of the application with this id, made when they are first asked for. Keep them: this searches.
    pub fn app(&self, id: &str) -> Rc<AppMetrics> {
        let mut apps = self.apps.borrow_mut();
        if let Some(app) = apps.iter().find(|app| app.id == id) {
            return Rc::clone(app);
        }
        let app = Rc::new(AppMetrics { id: id.to_owned(), ..AppMetrics::default() });
        apps.push(Rc::clone(&app));
        app
    }

    /// Everything in Prometheus' text exposition format, version 0.0.4.
    pub fn render(&self, sample: &Sample<'_>) -> String {
        let mut text = Text::default();
        self.render_connections(&mut text);
        self.render_messages(&mut text);
        self.render_refusals(&mut text);
        render_turns(&mut text, sample);
        render_process(&mut text, sample);
        text.finish()
    }

    fn render_connections(&self, text: &mut Text) {
        text.family("evenkeel_hub_connections", Kind::Gauge, "Subscribers connected now.");
        self.each_app(|app| {
            for transport in Transport::ALL {
                let labels = [("app", app.id.as_str()), ("transport", transport.name())];
                text.sample("", &labels, app.connections[*transport].get());
            }
        });
        text.family(
            "evenkeel_hub_connections_opened_total",
            Kind::Counter,
            "Subscribers that ever connected.",
        );
        self.each_app(|app| {
            for transport in Transport::ALL {
                let labels = [("app", app.id.as_str()), ("transport", transport.name())];
                text.sample("", &labels, app.connections_opened[*transport].get());
            }
        });
        text.one(
            "evenkeel_hub_http_connections",
            Kind::Gauge,
            "HTTP connections open now.",
            self.http_connections.get(),
        );
        text.one("evenkeel_hub_accepted_total", Kind::Counter, "Connections accepted.", self.accepted.get());
        text.family(
            "evenkeel_hub_accept_errors_total",
            Kind::Counter,
            "Connections that could not be accepted.",
        );
        for kind in AcceptError::ALL {
            text.sample("", &[("kind", kind.name())], self.accept_errors[*kind].get());
        }
    }

    fn render_messages(&self, text: &mut Text) {
        let mut per_app = |name, kind, help, value: fn(&AppMetrics) -> u64| {
            text.family(name, kind, help);
            self.each_app(|app| text.sample("", &[("app", app.id.as_str())], value(app)));
        };
        let counter = Kind::Counter;
        per_app("evenkeel_hub_channels", Kind::Gauge, "Channels occupied now.", |app| app.channels.get());
        per_app("evenkeel_hub_events_published_total", counter, "Events published over HTTP.", |app| {
            app.events_published.get()
        });
        per_app("evenkeel_hub_messages_received_total", counter, "Messages received from clients.", |app| {
            app.messages_received.get()
        });
        per_app("evenkeel_hub_messages_sent_total", counter, "Messages queued to clients.", |app| {
            app.messages_sent.get()
        });
        per_app(
            "evenkeel_hub_bytes_received_total",
            counter,
            "Bytes of messages received from clients.",
            |app| app.bytes_received.get(),
        );
        per_app("evenkeel_hub_bytes_sent_total", counter, "Bytes of messages queued to clients.", |app| {
            app.bytes_sent.get()
        });
    }

    fn render_refusals(&self, text: &mut Text) {
        text.family("evenkeel_hub_refusals_total", Kind::Counter, "What was refused, by reason.");
        for (reason, count) in self.refusals.sorted() {
            text.sample("", &[("reason", reason)], count);
        }
        text.family("evenkeel_hub_api_requests_total", Kind::Counter, "Requests to the HTTP API.");
        for ((operation, status), count) in self.api_requests.sorted() {
            text.sample("", &[("operation", operation), ("status", &status.to_string())], count);
        }
        text.family("evenkeel_hub_slow_consumers_total", Kind::Counter, "Slow consumers that were dropped.");
        for reason in Slow::ALL {
            text.sample("", &[("reason", reason.name())], self.slow_consumers[*reason].get());
        }
    }

    fn each_app(&self, mut render: impl FnMut(&AppMetrics)) {
        for app in self.apps.borrow().iter() {
            render(app);
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
}

#[cfg(test)]
mod tests;
