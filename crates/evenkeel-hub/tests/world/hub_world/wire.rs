//! What clients say and hear, byte for byte: HTTP, WebSocket frames, event streams, over the runtime's own sockets.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use evenkeel::net::Stream;
use evenkeel::sim;
use evenkeel::time;

/// How long a client waits for the other side to take or to answer something before it gives the connection up.
pub const PATIENCE: Duration = Duration::from_secs(25);

/// A connection with what was received and not looked at.
pub struct Wire {
    pub stream: Stream,
    pub unread: Vec<u8>,
}

/// What a wait for bytes came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    Bytes,
    Nothing,
    End,
}

/// What a server sends on a WebSocket.
#[derive(Debug)]
pub enum Frame {
    Text(String),
    Ping(Vec<u8>),
    Pong,
    Close(u16),
}

/// A frame as a client sends it: masked. `first` is its first byte.
pub fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];
    let mut out = vec![first];
    match payload.len() {
        n @ 0..=125 => out.push(0x80 | n as u8),
        n @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend((n as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// The request for a WebSocket of an application.
pub fn upgrade(key: &str) -> String {
    format!(
        "GET /app/{key}?protocol=7&client=world&version=1 HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// An answer's head, and its body where it has a length.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// How long the server asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        Some(Duration::from_secs(self.field("Retry-After")?.parse().ok()?))
    }
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn late() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

impl Wire {
    pub async fn connect(to: SocketAddr) -> io::Result<Wire> {
        let stream = time::timeout(PATIENCE, Stream::connect(to)).await.map_err(|_| late())??;
        Ok(Wire { stream, unread: Vec::new() })
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        time::timeout(PATIENCE, self.stream.write_all(bytes)).await.map_err(|_| late())?
    }

    /// Sends a request. A server that answers before it has come may have ended the connection, and its answer is there all the
    /// same.
    pub async fn request(&mut self, bytes: &[u8]) {
        let _ = self.send(bytes).await;
    }

    pub async fn send_text(&mut self, text: &str) -> io::Result<()> {
        self.send(&client_frame(0x81, text.as_bytes())).await
    }

    /// Waits for bytes, until a time at most.
    pub async fn hear(&mut self, until: Instant) -> io::Result<Heard> {
        let wait = until.saturating_duration_since(time::now());
        let mut piece = [0; 4096];
        let most = 1 + sim::random(piece.len() as u64 - 1) as usize;
        match time::timeout(wait, self.stream.read(&mut piece[..most])).await {
            Err(_) => Ok(Heard::Nothing),
            Ok(Ok(0)) => Ok(Heard::End),
            Ok(Ok(n)) => {
                self.unread.extend_from_slice(&piece[..n]);
                Ok(Heard::Bytes)
            }
            Ok(Err(e)) => Err(e),
        }
    }

    async fn hear_more(&mut self, until: Instant) -> io::Result<()> {
        match self.hear(until).await? {
            Heard::Bytes => Ok(()),
            Heard::Nothing => Err(late()),
            Heard::End => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The head of an answer.
    pub async fn head(&mut self) -> io::Result<Answer> {
        let until = time::now() + PATIENCE;
        let end = loop {
            if let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.hear_more(until).await?;
        };
        let head: Vec<u8> = self.unread.drain(..end).collect();
        let head = String::from_utf8(head).map_err(|_| broken("a head that is no text"))?;
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| broken("no status line"))?;
        Ok(Answer { status, head, body: Vec::new() })
    }

    /// A whole answer, with a length.
    pub async fn answer(&mut self) -> io::Result<Answer> {
        let until = time::now() + PATIENCE;
        let mut answer = self.head().await?;
        let length: usize = answer.field("Content-Length").and_then(|n| n.parse().ok()).unwrap_or(0);
        while self.unread.len() < length {
            self.hear_more(until).await?;
        }
        answer.body = self.unread.drain(..length).collect();
        Ok(answer)
    }

    /// A frame that has come as a whole.
    pub fn frame(&mut self) -> io::Result<Option<Frame>> {
        let Some((first, payload, end)) = parts(&self.unread)? else { return Ok(None) };
        let payload = self.unread[payload..end].to_vec();
        self.unread.drain(..end);
        Ok(Some(match first & 0x0f {
            1 => Frame::Text(String::from_utf8(payload).map_err(|_| broken("a message that is no text"))?),
            8 => Frame::Close(payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]))),
            9 => Frame::Ping(payload),
            10 => Frame::Pong,
            _ => return Err(broken("a frame that no server sends")),
        }))
    }

    /// A block of an event stream that has come as a whole.
    pub fn block(&mut self) -> Option<String> {
        let end = self.unread.windows(2).position(|two| two == b"\n\n")?;
        let block: Vec<u8> = self.unread.drain(..end + 2).collect();
        Some(String::from_utf8_lossy(&block).into_owned())
    }
}

/// The first byte of the frame at the beginning, and where its payload begins and ends, if all of it is there.
fn parts(bytes: &[u8]) -> io::Result<Option<(u8, usize, usize)>> {
    let (Some(&first), Some(&second)) = (bytes.first(), bytes.get(1)) else { return Ok(None) };
    if second & 0x80 != 0 || first & 0xf0 != 0x80 {
        return Err(broken("a frame that no server sends"));
    }
    let (start, len) = match second {
        126 => match bytes.get(2..4) {
            Some(len) => (4, usize::from(u16::from_be_bytes([len[0], len[1]]))),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|len| <[u8; 8]>::try_from(len).ok()) {
            Some(len) => (10, u64::from_be_bytes(len) as usize),
            None => return Ok(None),
        },
        n => (2, usize::from(n)),
    };
    Ok((bytes.len() >= start + len).then_some((first, start, start + len)))
}
