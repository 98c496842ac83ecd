//! The hub.

pub mod proto;
pub mod state;
