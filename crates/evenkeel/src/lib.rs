//! Event-based concurrency: one handler contract over every kernel interface.
//!
//! One thread runs an [`EventLoop`]. It asks the kernel what is ready, calls the [`Handler`] of each connection with
//! the bytes that came, and goes back to waiting. A connection is a small struct and holds no buffer while it is
//! idle. Tasks (`async`/`await`) run on the same loop, on the same operations, and a connection can change from one
//! model to the other.
//!
//! ```no_run
//! use evenkeel::{Conn, EventLoop, Flow, Handler};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
//!         if conn.write(bytes) == Flow::Hold {
//!             conn.pause();
//!         }
//!     }
//!
//!     fn on_drained(&mut self, conn: &mut Conn<'_>) {
//!         conn.resume();
//!     }
//! }
//!
//! fn main() -> std::io::Result<()> {
//!     let mut events = EventLoop::new()?;
//!     events.handle().listen("127.0.0.1:7000", |_peer| Echo)?;
//!     events.run()
//! }
//! ```
//!
//! | you want | look at |
//! |---|---|
//! | callbacks: state machines, the least memory | [`Handler`], [`Conn`], [`net::Pool`] |
//! | tasks: straight-line code | [`spawn`], [`net::Stream`], [`time`], [`task`] |
//! | files, without blocking the loop | [`fs`] |
//! | computation, without blocking the loop | [`pool`] |
//! | names, and connecting to them | [`dns`] |
//! | datagrams | [`net::UdpSocket`], [`net::unix`] |
//! | descriptors: of other libraries, or handed to another process | [`fd`], [`net::unix`] |
//! | another kernel interface | [`Backend`], [`backends`] |
//! | a loop for each processor | [`group`] |
//! | work from other threads | [`Remote`] |
//! | the operating system's signals | [`signal`] |
//! | inherited sockets, hot restart, readiness | [`inherit`] |
//! | child processes, pipes, standard streams | [`process`], [`pipe`], [`stdio`] |
//! | a program's failures, found by seeds | `sim`, with the feature of that name |
//! | hyper, tungstenite, rustls and other libraries | [`compat`] |
//!
//! # Rules of the loop
//!
//! Handlers and tasks must not block: all else waits meanwhile. They never run inside one another's calls: what one
//! causes is dispatched after it. What a peer can cause is an error value; a panic in a handler ends that
//! connection and is counted.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
#[doc = include_str!("backends.md")]
pub mod backends {}
mod choice;
pub mod compat;
mod core;
mod descriptors;
pub mod dns;
mod event_loop;
pub mod fd;
pub mod fs;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod group;
mod handle;
mod handler;
mod handover;
pub mod inherit;
mod local;
mod mailbox;
mod message;
pub mod net;
pub mod pipe;
pub mod pool;
mod proactor;
pub mod process;
mod reactor;
mod remote;
pub mod signal;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(not(feature = "sim"))]
#[path = "sim/absent.rs"]
mod sim;
mod stand_in;
mod stats;
pub mod stdio;
mod sync;
mod sys;
pub mod task;
pub mod time;

pub use backend::Backend;
pub use choice::Fallback;
pub use descriptors::{Descriptors, DescriptorsRefused};
pub use event_loop::{Builder, EventLoop};
pub use handle::{Handle, TimerId};
pub use handler::{CloseReason, Conn, ConnId, Flow, Handler, StaleConn};
pub use message::Message;
pub use remote::{Remote, RemoteError};
pub use stats::{LoopStats, TURN_BUCKETS};
pub use task::spawn;
