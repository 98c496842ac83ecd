//! What the state asks of the server: to encode, to send and close, and to verify.

use evenkeel::{ConnId, Message};

use super::Server;
use crate::proto::{sse, ws};
use crate::state::{AppConfig, Frame, Outbox, Verifier, Wire};

/// The server's handle of a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) id: ConnId,
    /// An event stream, which has no close codes.
    pub(super) stream: bool,
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

/// Performs the hub's effects: everything is queued on the loop and leaves with the current batch.
pub(super) struct Effects<'a> {
    server: &'a Server,
    /// A stream that has not been answered yet: what is sent to it is held back until its head is.
    held: Option<(Peer, Vec<Frame>)>,
}

impl<'a> Effects<'a> {
    pub(super) fn new(server: &'a Server) -> Self {
        Effects { server, held: None }
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
            return;
        }
        // A connection that is gone will say so to the hub itself.
        let _ = self.server.handle.send(to.id, &Message::from(frame.clone().into_shared()));
    }

    fn close(&mut self, to: Peer, code: u16, reason: &'static str) {
        if !to.stream {
            let mut frame = Vec::new();
            ws::close(Some(code), reason, &mut frame);
            let _ = self.server.handle.write(to.id, &frame);
        }
        let _ = self.server.handle.close(to.id);
    }
}

/// Signatures, by the keys of the server's applications.
pub(super) struct Keys<'a> {
    pub(super) server: &'a Server,
    /// For a stream: whether the signature over all of its channels was right.
    pub(super) stream_allowed: bool,
}

impl Keys<'_> {
    fn key(&self, app: &AppConfig) -> Option<&super::App> {
        self.server.apps.iter().find(|known| known.key.key() == app.key)
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
