//! What the hub asks of its surroundings: to encode, to send and close, and to verify signatures.
//!
//! The hub does no I/O. It calls the [`Outbox`] that the server lends to each operation; an outbox notes what is to be
//! done, or does it, but never calls back into the hub.

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::app::AppConfig;
use super::ids::EventId;

/// How a session's messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A WebSocket connection, both ways.
    WebSocket,
    /// A server-sent events stream, to the client only.
    Sse,
}

/// The bytes of one message for one transport, ready to be sent, shared by all who receive it.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame(Arc<[u8]>);

impl Frame {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the same buffer, not only the same bytes.
    pub fn is_same(&self, other: &Frame) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The shared buffer itself, for a queue that holds it without copying.
    pub fn into_shared(self) -> Arc<[u8]> {
        self.0
    }
}

impl From<Vec<u8>> for Frame {
    fn from(bytes: Vec<u8>) -> Frame {
        Frame(bytes.into())
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.0.len())
    }
}

/// The encoders of the transports.
pub trait Wire {
    /// A whole text frame from server to client.
    fn websocket(json: &str) -> Vec<u8>;

    /// A whole SSE event. `json` may hold line breaks between its tokens, where a client sent them so.
    fn sse(id: Option<&str>, json: &str) -> Vec<u8>;
}

/// Where the hub's effects go.
pub trait Outbox {
    /// The server's handle of a connection.
    type Conn: Copy;

    /// Sends `frame` to the connection, after all that was sent to it before. The outbox clones the frame if it keeps it;
    /// a clone is a reference count.
    fn send(&mut self, to: Self::Conn, frame: &Frame);

    /// Closes the connection after what was sent to it. For the hub its session has ended: no more is sent, and telling
    /// the hub of the disconnection is allowed and does nothing. `code` is the WebSocket close code.
    fn close(&mut self, to: Self::Conn, code: u16, reason: &'static str);
}

/// The signatures of the protocol. Every method answers whether `auth` (`KEY:HEX`) is the application's signature; it is
/// given every text byte for byte as the client sent it.
pub trait Verifier {
    /// A subscription: `SOCKET_ID:CHANNEL`, or `SOCKET_ID:CHANNEL:CHANNEL_DATA`.
    fn channel(
        &self,
        app: &AppConfig,
        socket_id: &str,
        channel: &str,
        channel_data: Option<&str>,
        auth: &str,
    ) -> bool;

    /// A sign-in: `SOCKET_ID::user::USER_DATA`.
    fn user(&self, app: &AppConfig, socket_id: &str, user_data: &str, auth: &str) -> bool;

    /// A channel of an SSE stream, which has no socket id when it is asked for. The verifier documents what is signed.
    fn stream(&self, app: &AppConfig, channel: &str, auth: &str) -> bool;
}

/// One message, whoever receives it: encoded at most once for each transport, when its first receiver needs it.
#[derive(Debug)]
pub(super) struct Event {
    json: Box<str>,
    pub(super) id: Option<EventId>,
    websocket: OnceLock<Frame>,
    sse: OnceLock<Frame>,
}

impl Event {
    pub(super) fn new(json: String, id: Option<EventId>) -> Event {
        Event { json: json.into_boxed_str(), id, websocket: OnceLock::new(), sse: OnceLock::new() }
    }

    pub(super) fn json(&self) -> &str {
        &self.json
    }

    pub(super) fn frame<W: Wire>(&self, transport: Transport) -> &Frame {
        match transport {
            Transport::WebSocket => self.websocket.get_or_init(|| W::websocket(&self.json).into()),
            Transport::Sse => self.sse.get_or_init(|| {
                let id = self.id.map(|id| id.to_string());
                W::sse(id.as_deref(), &self.json).into()
            }),
        }
    }

    /// What keeping the event may cost in bytes, with a frame for each transport.
    pub(super) fn cost(&self) -> usize {
        3 * self.json.len() + 256
    }
}
