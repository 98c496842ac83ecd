//! A backend that publishes: signed requests on one kept connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::SystemTime;

use evenkeel_hub::proto::auth::AppKey;

use super::{APP, CHANNEL, KEY, SECRET};
use crate::client::{connect, uninterrupted};

/// A publisher.
pub(crate) struct Publisher {
    stream: TcpStream,
    app: AppKey,
    host: SocketAddr,
}

impl Publisher {
    pub(crate) fn connect(to: SocketAddr) -> io::Result<Self> {
        Ok(Publisher { stream: connect(to, 0)?, app: AppKey::new(KEY, SECRET), host: to })
    }

    /// Sends one event with `data` to the channel; [`answer`](Self::answer) waits for the response.
    pub(crate) fn publish(&mut self, data: &str) -> io::Result<()> {
        let body = format!(r#"{{"name":"lab","channel":"{CHANNEL}","data":"{data}"}}"#);
        let path = format!("/apps/{APP}/events");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?;
        let query = self.app.sign_request("POST", &path, &[], body.as_bytes(), now.as_secs());
        let head = format!(
            "POST {path}?{query} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        self.stream.write_all((head + &body).as_bytes())
    }

    /// Waits for the response to what was published.
    pub(crate) fn answer(&mut self) -> io::Result<()> {
        answer(&mut self.stream)
    }
}

/// Waits for a response, which must be a good one.
pub(super) fn answer(stream: &mut TcpStream) -> io::Result<()> {
    let mut text = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        if let Some(whole) = response(&text) {
            return match whole {
                200 => Ok(()),
                _ => Err(io::Error::other(String::from_utf8_lossy(&text).into_owned())),
            };
        }
        match uninterrupted(|| stream.read(&mut buffer))? {
            0 => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the hub closed the connection"));
            }
            n => text.extend_from_slice(&buffer[..n]),
        }
    }
}

/// The status of a response with a length, once it is whole. One without a length counts as broken: 0.
fn response(bytes: &[u8]) -> Option<u16> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let Some(length) = length else { return Some(0) };
    (bytes.len() >= end + 4 + length).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_counts_when_it_is_whole() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        for end in 0..text.len() {
            assert_eq!(response(&text[..end]), None, "{end}");
        }
        assert_eq!(response(text), Some(200));
        assert_eq!(response(b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n"), Some(401));
        assert_eq!(response(b"HTTP/1.1 200 OK\r\n\r\n"), Some(0));
    }
}
