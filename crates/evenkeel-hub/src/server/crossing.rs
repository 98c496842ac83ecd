//! What crosses between the loops of a hub: commands of connections to the state's loop, and the state's effects back.
//!
//! Each direction is bounded. A loop that is ahead of the state stops reading from its clients; a state that is ahead of a
//! loop refuses to publish.

use std::borrow::Cow;

use evenkeel::ConnId;

use super::outbox::Peer;
use crate::state::{Frame, Refusal, SessionId};

/// What a connection asks of the state.
#[derive(Debug)]
pub(super) enum Command {
    /// A WebSocket asks to be served.
    Connect { peer: Peer, key: String, protocol: Option<String> },
    /// An event stream asks to be served.
    Stream { peer: Peer, asked: Box<StreamAsked> },
    /// A message came.
    Message { session: SessionId, text: String },
    /// The connection is over.
    Leave { session: SessionId },
}

/// An event stream's request, checked as far as its own loop can.
#[derive(Clone, Debug)]
pub(super) struct StreamAsked {
    pub(super) key: String,
    pub(super) channels: Vec<String>,
    pub(super) auth: Option<String>,
    pub(super) last_event_id: Option<String>,
    /// The signature over all channels was right.
    pub(super) allowed: bool,
    /// The response's head, which goes before everything else if the stream is served.
    pub(super) head: Vec<u8>,
}

impl Command {
    /// What it weighs in memory, in bytes.
    pub(super) fn weight(&self) -> usize {
        let own = match self {
            Command::Message { text, .. } => text.len(),
            Command::Stream { asked, .. } => {
                asked.head.len() + asked.channels.iter().map(String::len).sum::<usize>()
            }
            Command::Connect { key, .. } => key.len(),
            Command::Leave { .. } => 0,
        };
        size_of::<Command>() + own
    }
}

/// What the state asks of a loop.
#[derive(Debug)]
pub(super) enum Effect {
    /// One message for some of the loop's connections.
    Send { to: Vec<ConnId>, frame: Frame },
    /// A subscriber is closed.
    Close { to: ConnId, stream: bool, code: u16, reason: Cow<'static, str> },
    /// Whether a connection is served.
    Opened { to: ConnId, result: Result<SessionId, Refusal> },
}

/// Effects in their order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) effects: Vec<Effect>,
    /// How many messages they are, each counted for each receiver.
    pub(super) messages: usize,
    /// How much the state has done of what the loop has sent it, by [`Command::weight`].
    pub(super) processed: usize,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.effects.is_empty() && self.processed == 0
    }

    /// Adds a message; one that goes to many is stored once.
    pub(super) fn send(&mut self, to: ConnId, frame: &Frame) {
        self.messages += 1;
        match self.effects.last_mut() {
            Some(Effect::Send { to: others, frame: same }) if same.is_same(frame) => others.push(to),
            _ => self.effects.push(Effect::Send { to: vec![to], frame: frame.clone() }),
        }
    }

    pub(super) fn close(&mut self, to: Peer, code: u16, reason: &'static str) {
        let Peer { id, stream, .. } = to;
        self.effects.push(Effect::Close { to: id, stream, code, reason: reason.into() });
    }

    pub(super) fn opened(&mut self, to: ConnId, result: Result<SessionId, Refusal>) {
        self.effects.push(Effect::Opened { to, result });
    }
}
