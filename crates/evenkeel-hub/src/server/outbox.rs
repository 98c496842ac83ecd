//! What the state asks of the server: to encode, to send and close, and to verify.

use evenkeel::{ConnId, Message};
use serde::{Deserialize, Serialize};

use super::Server;
use super::common::{App, Common};
use super::home::Home;
use crate::proto::{sse, ws};
use crate::state::{AppConfig, Frame, Outbox, Verifier, Wire};

/// The server's handle of a subscriber, wherever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Peer {
    #[serde(with = "bits")]
    pub(super) id: ConnId,
    /// The loop that it is connected to.
    pub(super) front: u16,
    /// An event stream, which has no close codes.
    pub(super) stream: bool,
}

const _: () = assert!(size_of::<Peer>() <= 16, "every session has one");

/// An id of a connection as numbers.
pub(super) mod bits {
    use evenkeel::ConnId;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(id: &ConnId, to: S) -> Result<S::Ok, S::Error> {
        id.to_bits().serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ConnId, D::Error> {
        Deserialize::deserialize(from).map(ConnId::from_bits)
    }
}

/// The encoders of the two transports.
#[derive(Debug)]
pub(super) struct Codec;

impl Wire for Codec {
    fn websocket(json: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(json.len() + 10);
        ws::text(json, &mut out);
        out
    }

    fn sse(id: Option<&str>, json: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(json.len() + 40);
        let event = sse::Event { id, data: Some(json), ..sse::Event::default() };
        sse::encode(&event, &mut out).expect("the state's ids are digits and hold no line end");
        out
    }
}

/// Performs the state's effects: those on connections of its own loop are queued there and leave with the current batch,
/// those on other loops' are collected and cross to each of them in one message.
pub(super) struct Effects<'a> {
    server: &'a Server,
    home: &'a Home,
    /// A stream that has not been answered yet: what is sent to it is held back until its head is.
    held: Option<(Peer, Vec<Frame>)>,
    /// What connections of this loop were sent last.
    last: Option<Frame>,
}

impl<'a> Effects<'a> {
    pub(super) fn new(server: &'a Server, home: &'a Home) -> Self {
        Effects { server, home, held: None, last: None }
    }

    /// Holds back what is sent to `peer`.
    pub(super) fn hold(&mut self, peer: Peer) {
        self.held = Some((peer, Vec::new()));
    }

    /// What was held back.
    pub(super) fn release(&mut self) -> Vec<Frame> {
        self.held.take().map_or_else(Vec::new, |(_, frames)| frames)
    }
}

impl Outbox for Effects<'_> {
    type Conn = Peer;

    fn send(&mut self, to: Peer, frame: &Frame) {
        if let Some((peer, frames)) = &mut self.held
            && *peer == to
        {
            frames.push(frame.clone());
        } else if to.front == self.server.index() {
            if !self.last.as_ref().is_some_and(|last| last.is_same(frame)) {
                self.server.make_room(frame.as_bytes().len());
                self.last = Some(frame.clone());
            }
            // A connection that is gone will say so to the state itself.
            let _ = self.server.handle().send(to.id, &Message::from(frame.clone().into_shared()));
        } else {
            self.home.outgoing(to.front, |out| out.send(to.id, frame));
        }
    }

    fn close(&mut self, to: Peer, code: u16, reason: &'static str) {
        if to.front == self.server.index() {
            self.server.close_here(to.id, to.stream, code, reason);
        } else {
            self.home.outgoing(to.front, |out| out.close(to, code, reason));
        }
    }
}

impl Drop for Effects<'_> {
    fn drop(&mut self) {
        self.home.schedule(self.server);
    }
}

impl Server {
    /// Closes a subscriber of this loop with a code that tells it what to do, and that it reads even if it is sending. A server
    /// that ends waits for nobody beyond that: its clients come back, whatever they have read.
    pub(super) fn close_here(&self, id: ConnId, stream: bool, code: u16, reason: &str) {
        if !stream {
            let mut frame = Vec::new();
            ws::close(Some(code), reason, &mut frame);
            let _ = self.handle().write(id, &frame);
        }
        let _ = if stream || self.common().is_ending() {
            self.handle().close(id)
        } else {
            self.handle().close_lingering(id)
        };
    }
}

/// Signatures, by the keys of the server's applications.
pub(super) struct Keys<'a> {
    pub(super) common: &'a Common,
    /// For a stream: whether the signature over all of its channels was right.
    pub(super) stream_allowed: bool,
}

impl Keys<'_> {
    fn key(&self, app: &AppConfig) -> Option<&App> {
        self.common.app_by_key(&app.key)
    }
}

impl Verifier for Keys<'_> {
    fn channel(&self, app: &AppConfig, socket: &str, channel: &str, data: Option<&str>, auth: &str) -> bool {
        self.key(app).is_some_and(|a| a.key.verify_channel(socket, channel, data, auth).is_ok())
    }

    fn user(&self, app: &AppConfig, socket_id: &str, user_data: &str, auth: &str) -> bool {
        self.key(app).is_some_and(|a| a.key.verify_user(socket_id, user_data, auth).is_ok())
    }

    fn stream(&self, _: &AppConfig, _: &str, _: &str) -> bool {
        self.stream_allowed
    }
}
