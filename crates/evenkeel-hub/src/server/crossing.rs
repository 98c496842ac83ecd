//! What crosses between the loops of a hub: commands of connections to the state's loop, and the state's effects back.
//!
//! Each direction is bounded. A loop that is ahead of the state stops reading from its clients; a state that is ahead of a
//! loop refuses to publish.

use std::borrow::Cow;

use evenkeel::ConnId;
use serde::{Deserialize, Serialize};

use super::outbox::Peer;
use crate::state::{Frame, Refusal, SessionId};

/// What a command weighs beside what it carries, in bytes.
const COMMAND: usize = 64;
/// What a message weighs for each of its receivers, in bytes: an id on the way, a place in a queue at its end.
const RECEIVER: usize = 64;

/// What a connection asks of the state.
#[derive(Debug, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StreamAsked {
    pub(super) key: String,
    pub(super) channels: Vec<String>,
    pub(super) auth: Option<String>,
    pub(super) last_event_id: Option<String>,
    /// The signature over all channels was right.
    pub(super) allowed: bool,
    /// The response's head, which goes before everything else if the stream is served.
    #[serde(with = "super::succession::base64_bytes")]
    pub(super) head: Vec<u8>,
}

impl Command {
    /// What it weighs in memory, in bytes, more or less.
    pub(super) fn weight(&self) -> usize {
        let own = match self {
            Command::Message { text, .. } => text.len(),
            Command::Stream { asked, .. } => {
                asked.head.len() + asked.channels.iter().map(String::len).sum::<usize>()
            }
            Command::Connect { key, .. } => key.len(),
            Command::Leave { .. } => 0,
        };
        // Not the type's size: two processes must agree on it, which may be of different versions.
        COMMAND + own
    }
}

/// What the state asks of a loop.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Effect {
    /// One message for some of the loop's connections.
    Send {
        #[serde(with = "ids")]
        to: Vec<ConnId>,
        #[serde(with = "bytes")]
        frame: Frame,
    },
    /// A subscriber is closed.
    Close {
        #[serde(with = "super::outbox::bits")]
        to: ConnId,
        stream: bool,
        code: u16,
        reason: Cow<'static, str>,
    },
    /// Whether a connection is served.
    Opened {
        #[serde(with = "super::outbox::bits")]
        to: ConnId,
        result: Result<SessionId, Refusal>,
    },
}

/// Effects in their order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Batch {
    pub(super) effects: Vec<Effect>,
    /// What they weigh in memory, in bytes, with the places of the messages in their receivers' queues.
    pub(super) weight: usize,
    /// How much the state has done of what the loop has sent it, by [`Command::weight`].
    pub(super) processed: usize,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.effects.is_empty() && self.processed == 0
    }

    /// Adds another batch behind this one.
    pub(super) fn append(&mut self, other: Batch) {
        self.effects.extend(other.effects);
        self.weight += other.weight;
        self.processed += other.processed;
    }

    /// Adds a message; one that goes to many is stored once.
    pub(super) fn send(&mut self, to: ConnId, frame: &Frame) {
        self.weight += RECEIVER;
        match self.effects.last_mut() {
            Some(Effect::Send { to: others, frame: same }) if same.is_same(frame) => others.push(to),
            _ => {
                self.weight += frame.as_bytes().len();
                self.push(Effect::Send { to: vec![to], frame: frame.clone() });
            }
        }
    }

    pub(super) fn close(&mut self, to: Peer, code: u16, reason: &'static str) {
        let Peer { id, stream, .. } = to;
        self.push(Effect::Close { to: id, stream, code, reason: reason.into() });
    }

    pub(super) fn opened(&mut self, to: ConnId, result: Result<SessionId, Refusal>) {
        self.push(Effect::Opened { to, result });
    }

    fn push(&mut self, effect: Effect) {
        self.weight += size_of::<Effect>();
        self.effects.push(effect);
    }
}

/// Ids of connections as numbers.
mod ids {
    use evenkeel::ConnId;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(ids: &[ConnId], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(ids.iter().map(|id| id.to_bits()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ConnId>, D::Error> {
        let bits: Vec<(u64, u32)> = Deserialize::deserialize(from)?;
        Ok(bits.into_iter().map(ConnId::from_bits).collect())
    }
}

/// A frame's bytes.
mod bytes {
    use serde::{Deserializer, Serializer};

    use crate::server::succession::base64_bytes;
    use crate::state::Frame;

    pub(super) fn serialize<S: Serializer>(frame: &Frame, to: S) -> Result<S::Ok, S::Error> {
        base64_bytes::serialize(frame.as_bytes(), to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Frame, D::Error> {
        base64_bytes::deserialize(from).map(Frame::from)
    }
}
