//! The hub.

pub mod proto;
