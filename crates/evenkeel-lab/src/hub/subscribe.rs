//! Subscribers of the hub, over a WebSocket or an event stream, up to the moment from which they only wait.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::framing::frame;
use super::{CHANNEL, Framing, KEY};
use crate::client::{open, uninterrupted};

/// How a subscriber is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Transport {
    /// WebSocket, with the Pusher Channels protocol.
    Ws,
    /// Server-sent events.
    Sse,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Ws => "WebSocket",
            Transport::Sse => "event stream",
        })
    }
}

impl Transport {
    pub(crate) fn framing(self) -> Framing {
        match self {
            Transport::Ws => Framing::WebSocket,
            Transport::Sse => Framing::EventStream,
        }
    }
}

/// Subscribers number `from` to `from + count`.
pub(crate) fn subscribe(
    to: SocketAddr,
    transport: Transport,
    from: usize,
    count: usize,
) -> io::Result<Vec<TcpStream>> {
    let (path, fields) = match transport {
        Transport::Ws => (
            format!("/app/{KEY}?protocol=7&client=evenkeel-lab&version=1.0"),
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: ZXZlbmtlZWwgbWVhc3VyZQ==\r\n",
        ),
        Transport::Sse => (format!("/sse/{KEY}?channel={CHANNEL}"), "Accept: text/event-stream\r\n"),
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\n{fields}\r\n");
    let send = &mut |stream: &mut TcpStream| stream.write_all(request.as_bytes());
    match transport {
        Transport::Ws => open(to, from, count, send, &mut join),
        Transport::Sse => open(to, from, count, send, &mut |stream| {
            let mut input = Input::default();
            input.head(stream, "200")
        }),
    }
}

/// From the answer to the handshake to the confirmed subscription.
fn join(stream: &mut TcpStream) -> io::Result<()> {
    let mut input = Input::default();
    input.head(stream, "101")?;
    input.text(stream, "pusher:connection_established")?;
    let text = format!(r#"{{"event":"pusher:subscribe","data":{{"auth":"","channel":"{CHANNEL}"}}}}"#);
    let length = u8::try_from(text.len()).ok().filter(|n| *n < 126);
    let length = length.ok_or_else(|| io::Error::other("a subscription fits into a short frame"))?;
    // Masked, as a client must, by a mask that changes nothing.
    let message = [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat();
    stream.write_all(&message)?;
    input.text(stream, "subscription_succeeded")
}

/// What has been read and not been used.
#[derive(Default)]
struct Input(Vec<u8>);

impl Input {
    fn more(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        let mut buffer = [0; 2048];
        match uninterrupted(|| stream.read(&mut buffer))? {
            0 => {
                let said = String::from_utf8_lossy(&self.0).into_owned();
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the hub closed after: {said}")))
            }
            n => {
                self.0.extend_from_slice(&buffer[..n]);
                Ok(())
            }
        }
    }

    /// The head of the response, which must have this status.
    fn head(&mut self, stream: &mut TcpStream, status: &str) -> io::Result<()> {
        loop {
            if let Some(end) = self.0.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.0[..end]).into_owned();
                self.0.drain(..end + 4);
                let right = head.split(' ').nth(1) == Some(status);
                return if right {
                    Ok(())
                } else {
                    Err(io::Error::other(format!("the hub refuses: {head}")))
                };
            }
            self.more(stream)?;
        }
    }

    /// The next frame, which must hold `wanted`.
    fn text(&mut self, stream: &mut TcpStream, wanted: &str) -> io::Result<()> {
        loop {
            if let Some((head, length)) = frame(&self.0)
                && self.0.len() >= head + length
            {
                let text = String::from_utf8_lossy(&self.0[head..head + length]).into_owned();
                self.0.drain(..head + length);
                let right = text.contains(wanted);
                return if right { Ok(()) } else { Err(io::Error::other(format!("the hub says: {text}"))) };
            }
            self.more(stream)?;
        }
    }
}
