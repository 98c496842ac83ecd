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
//! | `hyper` | `Read` and `Write` of `hyper::rt`, `compat::hyper`: an executor and a timer | hyper's clients and servers |
//! | `futures-core` | `Stream` of `futures_core` for [`Interval`](crate::time::Interval) and, by `Listener::incoming`, connections | stream combinators |
//!
//! The traits of the first three are implemented by [`Stream`](crate::net::Stream); those of the first two also by
//! its halves, by the ends of [`pipe`](crate::pipe)s and by the standard streams of [`stdio`](crate::stdio). All of these
//! behave alike:
//!
//! - **Cancel safety.** Each poll either does what it says and returns ready, or has done nothing. No byte is lost
//!   when whoever polls goes away.
//! - **Writing** hands bytes to the kernel at once and buffers nothing. Flushing waits for what was queued by
//!   [`Stream::send`](crate::net::Stream::send) or a [`Reply`](crate::net::Reply), if anything.
//! - **Closing**, called `shutdown` by some, ends the write half: the peer reads the end of the stream. Reading goes
//!   on. The socket closes when the stream is dropped.
//! - **Errors** are the kernel's; `BrokenPipe` for a write after closing.
//! - **Splitting**: `futures_util` has a `split` of its own, which takes the stream by value and is found first where
//!   its trait is in scope. Ours are [`Stream::into_split`](crate::net::Stream::into_split), or
//!   `Stream::split(&mut stream)`.
//! - **Readers and writers** wait one at a time: of two tasks that wait to read the same stream, the last to poll is
//!   woken.
//!
//! A WebSocket of tungstenite, by `futures-io`:
//!
#![cfg_attr(feature = "futures-io", doc = "```")]
#![cfg_attr(not(feature = "futures-io"), doc = "```ignore")]
//! use async_tungstenite::tungstenite::Message;
//! use async_tungstenite::{accept_async, client_async};
//! use evenkeel::net::{TcpListener, TcpStream};
//! use futures_util::StreamExt;
//!
//! let mut events = evenkeel::EventLoop::new()?;
//! let answer = events.block_on(async {
//!     let mut listener = TcpListener::bind("127.0.0.1:0")?;
//!     let addr = listener.local_addr()?;
//!     evenkeel::spawn(async move {
//!         let (stream, _peer) = listener.accept().await.ok()?;
//!         let mut socket = accept_async(stream).await.ok()?;
//!         let asked = socket.next().await?.ok()?;
//!         socket.send(Message::text(asked.to_text().ok()?.to_uppercase())).await.ok()
//!     });
//!     let stream = TcpStream::connect(addr).await?;
//!     let (mut socket, _response) =
//!         client_async("ws://localhost/", stream).await.map_err(std::io::Error::other)?;
//!     socket.send(Message::text("hello")).await.map_err(std::io::Error::other)?;
//!     socket.next().await.transpose().map_err(std::io::Error::other)
//! })??;
//! assert_eq!(answer, Some(Message::text("HELLO")));
//! # Ok::<(), std::io::Error>(())
//! ```

#[cfg(any(feature = "futures-io", feature = "tokio-io", feature = "hyper"))]
mod as_stream;
#[cfg(feature = "futures-core")]
mod futures_core;
#[cfg(feature = "futures-io")]
mod futures_io;
#[cfg(feature = "hyper")]
pub mod hyper;
#[cfg(any(feature = "futures-io", feature = "tokio-io"))]
mod pipes;
#[cfg(feature = "tokio-io")]
mod tokio_io;

#[cfg(feature = "futures-core")]
pub use self::futures_core::Incoming;
