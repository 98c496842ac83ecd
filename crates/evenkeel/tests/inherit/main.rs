//! Processes: a service manager's sockets, its notifications, and a server that hands over to its successor.
//!
//! This program is run again as the other processes: `roles::role` is what they do.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod activation;
mod roles;
mod succession;
