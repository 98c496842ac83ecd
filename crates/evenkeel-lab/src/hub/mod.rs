//! What it takes to measure the hub from outside: subscribers, a publisher, and the counting of what arrives.

mod audience;
mod buffers;
mod framing;
mod metrics;
mod program;
mod publisher;
mod subscribe;

pub(crate) use audience::Audience;
pub(crate) use buffers::fill_buffers;
pub(crate) use framing::Framing;
pub(crate) use metrics::connections_of_loops;
pub(crate) use program::command;
pub(crate) use publisher::Publisher;
pub(crate) use subscribe::{Transport, subscribe};

/// The demonstration application, which a hub without configuration has on loopback.
pub(crate) const KEY: &str = "demo-key";
const SECRET: &str = "demo-secret";
const APP: &str = "1001";
/// The channel that every subscriber is on.
const CHANNEL: &str = "lab";
