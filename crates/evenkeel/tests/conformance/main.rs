//! One contract on every kernel interface: each body in here runs on every backend of `Backend::ALL`, as a test of
//! its own. A test that proves an invariant carries its number in its name.
//!
//! Peers are sockets of the standard library. Where the order of events matters they live on the test's own
//! thread and the loop is driven step by step; where only a loop that sleeps and wakes proves something, they
//! live on a thread of their own and the loop runs freely. No test sleeps to let something happen.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

#[macro_use]
mod support;

mod accepting;
mod addresses;
mod asynchronous;
#[cfg(feature = "udp-offload")]
mod batches;
mod cancelling;
mod child_streams;
mod children;
mod closing;
mod connecting;
mod datagram_edges;
mod datagrams;
mod delivery;
mod draining;
mod endings;
mod fallback;
mod file_edges;
mod files;
mod flow;
mod forking;
mod forwarding;
mod halves;
mod handover;
mod inheriting;
mod interrupting;
mod limits;
mod loop_state;
mod model;
mod moving;
mod numbers;
mod offloading;
mod ownership;
mod panics;
mod pipes;
mod probe;
mod process;
mod reentrancy;
mod releasing;
mod remote;
mod ring;
mod sending_files;
mod signals;
mod small_writes;
mod standard_streams;
mod timer_borders;
mod timers;
mod unix_sockets;
mod wakers;
mod waking;
mod watch_kinds;
mod watching;
mod writing;
