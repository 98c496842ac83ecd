//! Sockets: addresses and options, pools of callback connections, streams for tasks, and datagrams.
//!
//! Both kinds of connection are the same thing underneath, and one can become the other: a task that reads an HTTP
//! upgrade hands the [`Stream`] to a [`Pool`], and an idle WebSocket holds no buffer from then on.
//!
//! ```
//! use evenkeel::{EventLoop, net::{TcpListener, TcpStream}};
//! let mut events = EventLoop::new()?;
//! let reply = events.block_on(async {
//!     let mut listener = TcpListener::bind("127.0.0.1:0")?;
//!     let addr = listener.local_addr()?;
//!     let client = evenkeel::spawn(async move {
//!         let mut stream = TcpStream::connect(addr).await?;
//!         stream.write_all(b"ping").await?;
//!         let mut reply = [0; 4];
//!         stream.read_exact(&mut reply).await?;
//!         Ok::<_, std::io::Error>(reply)
//!     });
//!     let (mut stream, _peer) = listener.accept().await?;
//!     // The bytes are lent from the loop's own memory; the answer leaves with this turn's other writes.
//!     stream.read_with(|bytes, reply| reply.write(bytes)).await?;
//!     client.await.map_err(std::io::Error::other)?
//! })??;
//! assert_eq!(&reply, b"ping");
//! # Ok::<(), std::io::Error>(())
//! ```

mod addr;
pub(crate) mod drain;
mod forward;
mod listener;
mod options;
mod parcel;
pub(crate) mod pool;
mod send_file;
mod split;
mod stream;
mod udp;
pub mod unix;

pub use addr::{Addr, IntoAddr};
pub use drain::{Drain, Drained};
pub use forward::{forward, forward_both};
pub use listener::Listener;
pub use options::{Closing, ConnectOptions, KeepAlive, Limits, ListenOptions, SocketOption};
pub use parcel::{Parcel, Refused};
pub use pool::{ListenerId, Pool};
pub use split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};
pub use stream::{Reply, Stream, StreamParts};
#[cfg(feature = "udp-offload")]
pub use udp::{Ecn, RecvMeta, Transmit, UdpBatches};
pub use udp::{UdpOption, UdpOptions, UdpSocket};

/// A [`Stream`] over TCP. The address decides what kind a stream is.
pub type TcpStream = Stream;
/// A [`Listener`] over TCP. The address decides what kind a listener is.
pub type TcpListener = Listener;
/// A [`Stream`] over a Unix socket, made by an address of the form `unix:PATH` or a path.
pub type UnixStream = Stream;
/// A [`Listener`] over a Unix socket, made by an address of the form `unix:PATH` or a path.
pub type UnixListener = Listener;
