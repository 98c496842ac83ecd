use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use super::hub::signed;
use super::{End, connect, read_more, read_to_end};

/// A connection that speaks HTTP, and reads no further than a response goes.
pub(crate) struct Http {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// A header field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Http {
    pub(crate) fn connect(to: SocketAddr) -> Http {
        Http::on(connect(to))
    }

    pub(crate) fn on(stream: TcpStream) -> Http {
        Http { stream, buffer: Vec::new() }
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes());
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.response()
    }

    /// Sends a signed request of the first application.
    pub(crate) fn send_api(&mut self, method: &str, path: &str, body: &str) {
        let text = api_request(method, path, body);
        self.send(&text);
    }

    pub(crate) fn api(&mut self, method: &str, path: &str, body: &str) -> Response {
        self.send_api(method, path, body);
        self.response()
    }

    pub(crate) fn response(&mut self) -> Response {
        self.read_response(true)
    }

    /// The response to HEAD, which announces a body and has none.
    pub(crate) fn response_to_head(&mut self) -> Response {
        self.read_response(false)
    }

    /// The head of a response, and nothing behind it.
    pub(crate) fn response_head(&mut self) -> String {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            let ended = read_more(&mut self.stream, &mut self.buffer);
            assert!(ended.is_none(), "{ended:?} instead of a response; {:?}", self.unread());
        };
        let rest = self.buffer.split_off(end);
        String::from_utf8(std::mem::replace(&mut self.buffer, rest)).unwrap()
    }

    fn read_response(&mut self, with_body: bool) -> Response {
        let head = self.response_head();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut response = Response { status: status.expect(&head), head, body: Vec::new() };
        if !with_body || response.status < 200 || response.status == 304 {
            return response;
        }
        let length: usize = response.field("content-length").expect("a length").parse().unwrap();
        while self.buffer.len() < length {
            let ended = read_more(&mut self.stream, &mut self.buffer);
            assert!(ended.is_none(), "{ended:?} within a body");
        }
        let rest = self.buffer.split_off(length);
        response.body = std::mem::replace(&mut self.buffer, rest);
        response
    }

    fn unread(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    /// What was read and belongs to no response yet.
    pub(crate) fn take_unread(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// The server ends the connection and says nothing more.
    pub(crate) fn ends(&mut self) -> End {
        let (more, end) = read_to_end(&mut self.stream);
        self.buffer.extend(more);
        assert!(self.buffer.is_empty(), "more than was due: {:?}", self.unread());
        end
    }
}

/// The text of a signed request of the first application.
pub(crate) fn api_request(method: &str, path: &str, body: &str) -> String {
    format!(
        "{method} {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        signed(method, path, body),
        body.len()
    )
}
