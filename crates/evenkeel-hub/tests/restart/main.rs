//! The running program is replaced by a new process, with clients of every kind connected: nobody is refused, cut off or
//! passed over, and whatever goes wrong, somebody serves.
//!
//! In a process of its own, because its crowds take more descriptors than `select` can watch, which other tests use.

#![allow(clippy::unwrap_used, missing_docs)]

#[allow(dead_code, unused_imports, reason = "the clients are those of all tests of the server")]
#[path = "../server/support/mod.rs"]
mod support;

mod changes;
mod clients;
mod failures;
mod manager;
mod overlap;
mod site;
mod storm;
mod tally;
