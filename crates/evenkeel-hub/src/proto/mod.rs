//! The protocols that the hub speaks, without input or output.
//!
//! Everything here turns bytes into values and values into bytes. Nothing here can import a socket, a clock or the
//! runtime, so every parser is tested at every split of its input, and a simulation drives the same code as the
//! network does. Whatever a peer sends ends in a value or in a typed error, never in a panic, and no parser holds
//! more memory than its stated limit.

pub mod addr;
pub mod auth;
pub mod channel;
pub mod guard;
pub mod head;
pub mod json;
pub mod message;
pub mod origin;
pub mod percent;
pub mod proxy;
pub mod reply;
pub mod sse;
pub mod ws;

#[cfg(test)]
mod fuzz;
