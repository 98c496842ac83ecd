//! A server in a thread, and clients that speak to it byte by byte.

mod http;
mod hub;
mod sse;
mod ws;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use evenkeel::Backend;
use evenkeel_hub::proto::auth::AppKey;

pub(crate) use http::{Http, Response, api_request};
pub(crate) use hub::{Hub, TOKEN, config, event};
pub(crate) use sse::{Record, Sse, request as sse_request};
pub(crate) use ws::{Canary, Frame, Ws, client_frame, upgrade};

/// How long a test waits for what must come. It is never waited out but in a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test on every backend, at once: most of its time is waiting.
pub(crate) fn on_every_backend(test: impl Fn(Backend) + Send + Sync) {
    std::thread::scope(|scope| {
        for &backend in Backend::ALL {
            let test = &test;
            std::thread::Builder::new()
                .name(backend.name().to_owned())
                .spawn_scoped(scope, move || test(backend))
                .unwrap();
        }
    });
}

/// Runs a test on every backend, one after another: it holds many descriptors, of which select can serve but 1,024.
pub(crate) fn on_each_backend(test: impl Fn(Backend)) {
    for &backend in Backend::ALL {
        eprintln!("on {backend}");
        test(backend);
    }
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "never came true: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) fn app_key() -> AppKey {
    AppKey::new("key-a", "secret-a")
}

pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    prepare(&stream);
    stream
}

/// A connection through which little passes at a time, so that the server is soon left with what it has to say: small
/// segments keep both kernels' buffers small.
pub(crate) fn connect_narrowly(to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_tcp_mss(536).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    prepare(&stream);
    stream
}

pub(crate) fn prepare(stream: &TcpStream) {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
}

/// How a connection ended, as its client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Orderly,
    Reset,
}

/// Reads more into `buffer`. None: there is more to come.
pub(crate) fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<End> {
    let mut piece = [0; 16 << 10];
    loop {
        return match stream.read(&mut piece) {
            Ok(0) => Some(End::Orderly),
            Ok(n) => {
                buffer.extend_from_slice(&piece[..n]);
                None
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                Some(End::Reset)
            }
            Err(e) => panic!("the server is silent: {e}; so far {:?}", String::from_utf8_lossy(buffer)),
        };
    }
}

/// Everything that comes until the end.
pub(crate) fn read_to_end(stream: &mut TcpStream) -> (Vec<u8>, End) {
    let mut all = Vec::new();
    loop {
        if let Some(end) = read_more(stream, &mut all) {
            return (all, end);
        }
    }
}

/// Writes what the server may refuse to take any more.
pub(crate) fn try_write(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    stream.write_all(bytes).is_ok()
}

/// Ends a connection with a reset.
pub(crate) fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}
