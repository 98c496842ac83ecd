//! The whole server, in process and as a program, against clients that behave and clients that do not.
//!
//! Every test runs on every backend. Each begins a server of its own on a port of its own; when that is dropped, it
//! must have come back to nothing: no connection counted, no task, no descriptor, no panic.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

mod access;
mod admission;
mod drain;
mod frames;
mod handshake;
mod hostile;
mod http;
mod loops;
mod messages;
mod order;
mod program;
mod slow;
mod smuggling;
mod stream;
mod takeover;
mod users;
