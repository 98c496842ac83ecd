//! The wire protocols, as pure functions: bytes in, events or bytes out.
//!
//! Nothing here can reach a socket, a clock or the runtime, so every rule of a protocol is tested as a function call.
pub mod auth;
pub mod percent;
