//! What the fuzz targets do with an input, one module for each target.
//!
//! A parser's contract is more than that it does not crash: how its input is cut into pieces changes nothing, it holds no
//! more memory than it says, and it accepts exactly what its grammar accepts. So each module has an oracle: a second,
//! slow and simple reader of the same grammar, an implementation by others, or a round trip. A broken promise panics,
//! which is what a fuzzer looks for.

pub mod address;
pub mod auth;
pub mod config;
pub mod forwarded;
pub mod handover;
pub mod inherit;
pub mod listen_fds;
pub mod message;
pub mod pieces;
pub mod proxy;
pub mod requests;
pub mod restart;
pub mod sequences;
pub mod sse;
pub mod upgrade;
pub mod websocket;

/// A fuzz target: its name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("address", address::run),
    ("auth", auth::run),
    ("config", config::run),
    ("forwarded", forwarded::run),
    ("handover", handover::run),
    ("inherit", inherit::run),
    ("listen_fds", listen_fds::run),
    ("message", message::run),
    ("proxy", proxy::run),
    ("requests", requests::run),
    ("restart", restart::run),
    ("sequences", sequences::run),
    ("sse", sse::run),
    ("upgrade", upgrade::run),
    ("websocket", websocket::run),
];
