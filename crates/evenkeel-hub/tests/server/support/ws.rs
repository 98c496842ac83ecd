use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::{End, Http, Response, app_key, connect, read_more};

/// A WebSocket client that can do everything wrong.
pub(crate) struct Ws {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
    pub(crate) socket_id: String,
}

/// What the server sent, or how it ended.
#[derive(Debug, PartialEq)]
pub(crate) enum Frame {
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(u16, String),
    End(End),
}

/// A frame as a client sends it: masked, of the shortest length. `first` is its first byte.
pub(crate) fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
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

/// The request for a WebSocket.
pub(crate) fn upgrade(path: &str, fields: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    )
}

impl Ws {
    /// Connects and waits for the greeting.
    pub(crate) fn open(to: SocketAddr, key: &str) -> Ws {
        Ws::on(Http::connect(to), &format!("/app/{key}?protocol=7&client=js&version=8.6.0"), "")
    }

    /// Upgrades a connection and waits for the greeting.
    pub(crate) fn on(http: Http, path: &str, fields: &str) -> Ws {
        let mut ws = Ws::upgraded(http, path, fields).unwrap_or_else(|refused| panic!("{refused:?}"));
        ws.greeted();
        ws
    }

    /// Upgrades a connection.
    pub(crate) fn upgraded(mut http: Http, path: &str, fields: &str) -> Result<Ws, Response> {
        http.send(&upgrade(path, fields));
        Ws::answered(http)
    }

    /// The upgrade was sent; reads the answer.
    pub(crate) fn answered(mut http: Http) -> Result<Ws, Response> {
        let response = http.response();
        if response.status != 101 {
            return Err(response);
        }
        assert_eq!(response.field("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        let buffer = http.take_unread();
        Ok(Ws { stream: http.stream, buffer, socket_id: String::new() })
    }

    pub(crate) fn greeted(&mut self) {
        let greeting = self.event("pusher:connection_established");
        let data: Value = serde_json::from_str(greeting["data"].as_str().unwrap()).unwrap();
        self.socket_id = data["socket_id"].as_str().unwrap().to_owned();
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.send_bytes(&client_frame(0x81, text.as_bytes()));
    }

    pub(crate) fn send_event(&mut self, event: &str, data: &Value) {
        self.send(&serde_json::json!({ "event": event, "data": data }).to_string());
    }

    /// The next frame.
    pub(crate) fn next(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.parse() {
                return frame;
            }
            if let Some(end) = read_more(&mut self.stream, &mut self.buffer) {
                return Frame::End(end);
            }
        }
    }

    /// A frame that has been read already.
    pub(crate) fn parse(&mut self) -> Option<Frame> {
        let (&first, &second) = (self.buffer.first()?, self.buffer.get(1)?);
        assert_eq!(second & 0x80, 0, "a server does not mask");
        assert_eq!(first & 0xf0, 0x80, "one frame, no reserved bits");
        let (start, len) = match second {
            126 => (4, usize::from(u16::from_be_bytes(self.buffer.get(2..4)?.try_into().unwrap()))),
            127 => (10, u64::from_be_bytes(self.buffer.get(2..10)?.try_into().unwrap()) as usize),
            n => (2, usize::from(n)),
        };
        let payload = self.buffer.get(start..start + len)?.to_vec();
        self.buffer.drain(..start + len);
        Some(match first & 0x0f {
            1 => Frame::Text(String::from_utf8(payload).unwrap()),
            8 => {
                let code = payload.get(..2).map_or(1005, |code| u16::from_be_bytes(code.try_into().unwrap()));
                Frame::Close(code, String::from_utf8(payload.get(2..).unwrap_or_default().to_vec()).unwrap())
            }
            9 => Frame::Ping(payload),
            10 => Frame::Pong(payload),
            other => panic!("opcode {other}"),
        })
    }

    /// The next message; pings are answered.
    pub(crate) fn message(&mut self) -> Value {
        loop {
            match self.next() {
                Frame::Text(text) => return serde_json::from_str(&text).unwrap(),
                Frame::Ping(payload) => self.send_bytes(&client_frame(0x8a, &payload)),
                other => panic!("a message was expected, not {other:?}"),
            }
        }
    }

    /// The next message, which must be this event.
    pub(crate) fn event(&mut self, event: &str) -> Value {
        let message = self.message();
        assert_eq!(message["event"], event, "{message}");
        message
    }

    /// The next message, which must be an error with this code.
    pub(crate) fn error(&mut self, code: u16) {
        let message = self.event("pusher:error");
        assert_eq!(message["data"]["code"], code, "{message}");
    }

    /// The server closes with a code, after the messages before, and the connection ends in an orderly way.
    pub(crate) fn closes(&mut self, code: u16) {
        self.closes_by(code, End::Orderly);
    }

    pub(crate) fn closes_by(&mut self, code: u16, how: End) {
        loop {
            match self.next() {
                Frame::Close(got, reason) => {
                    assert_eq!(got, code, "{reason}");
                    break;
                }
                Frame::Text(_) | Frame::Ping(_) | Frame::Pong(_) => {}
                Frame::End(end) => panic!("{end:?} without a close frame"),
            }
        }
        assert_eq!(self.next(), Frame::End(how));
    }

    /// Subscribes, signed if the channel needs it, and waits for the answer.
    pub(crate) fn subscribe(&mut self, channel: &str) -> Value {
        self.subscribe_as(channel, None)
    }

    pub(crate) fn subscribe_as(&mut self, channel: &str, data: Option<&str>) -> Value {
        self.ask_to_subscribe(channel, data);
        let answer = self.event("pusher_internal:subscription_succeeded");
        assert_eq!(answer["channel"], channel);
        answer
    }

    pub(crate) fn ask_to_subscribe(&mut self, channel: &str, data: Option<&str>) {
        let mut asked = serde_json::json!({ "channel": channel });
        if channel.starts_with("private-") || channel.starts_with("presence-") {
            asked["auth"] = app_key().channel_auth(&self.socket_id, channel, data).into();
        }
        if let Some(data) = data {
            asked["channel_data"] = data.into();
        }
        self.send_event("pusher:subscribe", &asked);
    }

    /// Proves that the server serves this connection, and that nothing else is under way to it.
    pub(crate) fn is_served(&mut self) {
        self.send_event("pusher:ping", &Value::Null);
        self.event("pusher:pong");
    }
}

/// A client that behaves: what it is sent must come, whatever others do.
pub(crate) struct Canary {
    ws: Ws,
    http: Http,
    sent: u32,
    channel: String,
}

impl Canary {
    pub(crate) fn new(to: SocketAddr) -> Canary {
        Canary::on(Ws::open(to, "key-a"), Http::connect(to))
    }

    pub(crate) fn on(mut ws: Ws, http: Http) -> Canary {
        let channel = format!("canary-{}", ws.socket_id);
        ws.subscribe(&channel);
        let mut canary = Canary { ws, http, sent: 0, channel };
        canary.sings();
        canary
    }

    /// Publishes over its kept-alive connection, and receives.
    pub(crate) fn sings(&mut self) {
        self.sent += 1;
        let body = super::hub::event(&self.channel, &self.sent.to_string());
        let answer = self.http.api("POST", "/apps/1/events", &body);
        assert_eq!(answer.status, 200, "{answer:?}");
        let message = self.ws.event("news");
        assert_eq!(message["data"], self.sent.to_string());
        self.ws.is_served();
    }
}

impl Ws {
    /// A connection whose handshake was refused after the upgrade: an error message, the close code, the end.
    pub(crate) fn is_refused(to: SocketAddr, path: &str, code: u16) {
        let mut ws = Ws::upgraded(Http::on(connect(to)), path, "").unwrap();
        ws.error(code);
        ws.closes(code);
    }
}
