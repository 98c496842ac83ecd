//! Bridges to the ecosystem: its I/O, timer and executor traits, on this runtime's own types.
//!
//! A protocol library that is written against one of these traits runs here unchanged, on every backend. Each
//! bridge is behind a feature of its name, off by default, and brings traits only: no other reactor, timer or
//! scheduler runs beneath.
//!
//! | feature | what it brings | who needs it |
//! |---|---|---|
//! | `futures-io` | `AsyncRead` and `AsyncWrite` of `futures_io` | async-tungstenite, futures-rustls, futures-util |
//! | `tokio-io` | `AsyncRead` and `AsyncWrite` of `tokio::io` | tokio-util's codecs, tokio-rustls, tokio-tungstenite |
//! | `hyper` | `Read` and `Write` of `hyper::rt`, [`hyper::LocalExec`], [`hyper::LoopTimer`] | hyper's clients and servers |
//! | `futures-core` | `Stream` of `futures_core` for [`Interval`](crate::time::Interval) and [`Incoming`] | stream combinators |
//!
//! The traits of the first three are implemented by [`Stream`]; those of the first two also by its halves. All of
//! these behave alike:
//!
//! - **Cancel safety.** Each poll either does what it says and returns ready, or has done nothing. No byte is lost
//!   when whoever polls goes away.
//! - **Writing** hands bytes to the kernel at once and buffers nothing. Flushing waits for what was queued by
//!   [`Stream::send`] or a [`Reply`](crate::net::Reply), if anything.
//! - **Closing**, called `shutdown` by some, ends the write half: the peer reads the end of the stream. Reading goes
//!   on. The socket closes when the stream is dropped.
//! - **Errors** are the kernel's; `BrokenPipe` for a write after closing.
//! - **Readers and writers** wait one at a time: of two tasks that wait to read the same stream, the last to poll is
//!   woken.

#[cfg(any(feature = "futures-io", feature = "tokio-io", feature = "hyper"))]
mod as_stream;
#[cfg(feature = "futures-core")]
mod futures_core;
#[cfg(feature = "futures-io")]
mod futures_io;
#[cfg(feature = "hyper")]
pub mod hyper;
#[cfg(feature = "tokio-io")]
mod tokio_io;

#[cfg(feature = "futures-core")]
pub use self::futures_core::Incoming;
