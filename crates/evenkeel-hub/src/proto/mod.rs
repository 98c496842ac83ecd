//! The protocols, sans-IO: bytes and text in, typed values out, and back. Nothing here can reach a socket or a clock.

pub mod channel;
pub mod message;
