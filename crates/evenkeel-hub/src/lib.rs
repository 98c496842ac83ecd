//! The hub: a self-hosted realtime push server that speaks the Pusher Channels protocol.

pub mod api;
pub mod config;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod log;
pub mod metrics;
pub mod proto;
pub mod server;
pub mod state;
pub mod text;
