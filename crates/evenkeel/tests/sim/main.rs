//! Worlds: the runtime's own programs under seeded faults and virtual time.

#![allow(clippy::unwrap_used)]
#![cfg(feature = "sim")]

mod rings;
mod streams;
