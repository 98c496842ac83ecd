//! The load generator: opens connections to a server on the loopback address and exchanges messages with it.
//!
//! It runs on this program's own thread and processor. Each connection has at most one message outstanding, so what
//! a server costs does not depend on how fast the lab is.

mod rounds;
mod slices;

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, Socket, Type};

pub(crate) use rounds::rounds;
pub(crate) use slices::{Side, Slice};

/// Connections from one loopback address. The kernel looks for a free port the longer the more of them are used.
const PER_ADDRESS: usize = 1000;
/// Connections that are opened before each has proved that it was accepted; less than any server's backlog.
const CHUNK: usize = 256;
/// A server that is silent for so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One connection, the `at`th of many: every thousand has another source address. Closing it resets it, so that no
/// port stays in use.
pub(crate) fn connect(to: SocketAddr, at: usize) -> io::Result<TcpStream> {
    connect_from(to, Ipv4Addr::new(127, 0, 1, u8::try_from(1 + at / PER_ADDRESS % 250).unwrap_or(1)))
}

/// As [`connect`], from an address that is chosen.
pub(crate) fn connect_from(to: SocketAddr, from: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_tcp_nodelay(true)?;
    setsockopt(&socket, IpBindAddressNoPort, &true)?;
    socket.bind(&SocketAddr::new(IpAddr::V4(from), 0).into())?;
    socket.connect(&to.into())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// Repeats a call while a signal interrupts it: a loop is woken by one where it has a descriptor table of its own, and a
/// call with a time limit is not restarted by the kernel.
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Opens connections number `from` to `from + count`, each of which `greet` brings to where it shall be; that also
/// proves that the server has accepted it. `greet` is called in two steps, send and receive, over a chunk of
/// connections at a time.
pub(crate) fn open(
    to: SocketAddr,
    from: usize,
    count: usize,
    send: &mut dyn FnMut(&mut TcpStream) -> io::Result<()>,
    receive: &mut dyn FnMut(&mut TcpStream) -> io::Result<()>,
) -> io::Result<Vec<TcpStream>> {
    let mut streams = Vec::with_capacity(count);
    while streams.len() < count {
        let done = streams.len();
        for at in done..count.min(done + CHUNK) {
            let mut stream = connect(to, from + at)
                .map_err(|e| io::Error::new(e.kind(), format!("connection {} to {to}: {e}", from + at)))?;
            send(&mut stream)?;
            streams.push(stream);
        }
        for stream in &mut streams[done..] {
            receive(stream)?;
        }
    }
    Ok(streams)
}

/// Opens connections to an echo server; each has exchanged one message of 64 bytes.
pub(crate) fn open_echo(to: SocketAddr, from: usize, count: usize) -> io::Result<Vec<TcpStream>> {
    let message: [u8; 64] = std::array::from_fn(|i| i as u8);
    let receive = &mut |stream: &mut TcpStream| {
        let mut echo = [0; 64];
        stream.read_exact(&mut echo)?;
        if echo == message { Ok(()) } else { Err(io::Error::other("the echo is not what was sent")) }
    };
    open(to, from, count, &mut |stream| stream.write_all(&message), receive)
}

/// Exchanges so many bytes, or a few more, in messages of 16 KiB.
pub(crate) fn exchange(stream: &mut TcpStream, bytes: usize) -> io::Result<()> {
    let mut message = [b'x'; 16 << 10];
    for _ in 0..bytes.div_ceil(message.len()) {
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
    }
    Ok(())
}
