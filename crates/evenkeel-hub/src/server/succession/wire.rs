//! What the two processes say to each other, and how it is written.
//!
//! A frame is its length in four bytes, little-endian, its kind in one, and its content: a state as the state writes itself,
//! or a message in JSON. A program may be replaced by another version of itself, so the messages have named fields, and what
//! clients get travels as finished bytes.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::crossing::{Batch, Command};

/// The longest frame, in bytes: more than a state is that a machine can hold.
const LONGEST: usize = 1 << 30;
/// Bytes before the content.
const HEADER: usize = 5;
/// The kind of a frame whose content is JSON.
const JSON: u8 = 0;
/// The kind of a frame whose content is a state.
const STATE: u8 = 1;

/// What the new process says.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) enum ToOld {
    /// The state is wanted.
    Give,
    /// Effects on connections of one of the old process's loops.
    Effects { front: u16, batch: Batch },
    /// The answer to a request, by its number.
    Answer { id: u64, reply: ApiReply },
    /// All clients have been told to come back: what is left may be closed.
    Last,
}

/// What the old process says.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) enum ToNew {
    /// How many loops it has; before the state.
    Fronts(u16),
    /// Commands of connections of one of its loops.
    Commands { front: u16, commands: Vec<Command> },
    /// A request to the HTTP API, and the number for its answer.
    Ask { id: u64, request: ApiRequest },
    /// It is to end soon: all of its clients are to come over at once.
    Hurry,
}

/// A request to the HTTP API, as it was received.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in super::super) struct ApiRequest {
    pub(in super::super) method: String,
    pub(in super::super) path: String,
    pub(in super::super) query: String,
    #[serde(with = "base64_bytes")]
    pub(in super::super) body: Vec<u8>,
}

/// An answer of the HTTP API.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in super::super) struct ApiReply {
    pub(in super::super) status: u16,
    pub(in super::super) content_type: String,
    pub(in super::super) body: String,
    pub(in super::super) retry_after: Option<u32>,
    pub(in super::super) allow: Option<String>,
}

/// A frame as it was read.
#[derive(Debug)]
pub(super) enum Frame<T> {
    Message(T),
    State(Vec<u8>),
}

pub(super) fn message(message: &impl Serialize) -> Vec<u8> {
    // Our own types, whose keys are strings.
    let json = serde_json::to_vec(message).expect("what the processes say can be written");
    frame(JSON, &json)
}

pub(super) fn state(bytes: &[u8]) -> Vec<u8> {
    frame(STATE, bytes)
}

fn frame(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + content.len());
    out.extend_from_slice(&(content.len() as u32).to_le_bytes());
    out.push(kind);
    out.extend_from_slice(content);
    out
}

/// Collects frames from pieces.
#[derive(Debug, Default)]
pub(super) struct Reader {
    buffer: Vec<u8>,
    /// Where the next frame begins.
    at: usize,
}

impl Reader {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame that is complete.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<Frame<T>>> {
        let malformed = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let rest = &self.buffer[self.at..];
        let Some((header, content)) = rest.split_at_checked(HEADER) else { return Ok(None) };
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if length > LONGEST {
            return Err(malformed("a frame of the other process is too long"));
        }
        let Some(content) = content.get(..length) else { return Ok(None) };
        let read = match header[4] {
            STATE => Frame::State(content.to_vec()),
            JSON => Frame::Message(serde_json::from_slice(content).map_err(|error| {
                malformed(&format!("what the other process says cannot be understood: {error}"))
            })?),
            _ => return Err(malformed("the other process speaks of what this one does not know")),
        };
        self.at += HEADER + length;
        Ok(Some(read))
    }
}

/// Bytes that need not be text.
pub(in super::super) mod base64_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in super::super::super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(in super::super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        STANDARD.decode(text.as_bytes()).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let request = ApiRequest {
            method: "POST".into(),
            path: "/apps/1/events".into(),
            query: "auth_key=a".into(),
            body: vec![0, 255, b'{'],
        };
        let bytes =
            [message(&ToNew::Fronts(3)), state(b"{}"), message(&ToNew::Ask { id: 7, request })].concat();
        for piece in [1, 3, bytes.len()] {
            let (mut reader, mut read) = (Reader::default(), Vec::new());
            for part in bytes.chunks(piece) {
                reader.push(part);
                while let Some(frame) = reader.next::<ToNew>().unwrap() {
                    read.push(frame);
                }
            }
            assert!(matches!(&read[0], Frame::Message(ToNew::Fronts(3))), "{read:?}");
            assert!(matches!(&read[1], Frame::State(state) if state == b"{}"), "{read:?}");
            let Frame::Message(ToNew::Ask { id: 7, request }) = &read[2] else { panic!("{read:?}") };
            assert_eq!(request.body, [0, 255, b'{']);
            assert_eq!(read.len(), 3);
        }
    }

    #[test]
    fn i50_what_cannot_be_understood_is_an_error() {
        for bytes in [
            frame(9, b""),
            frame(JSON, b"{"),
            frame(JSON, br#"{"Unknown":1}"#),
            [u32::MAX.to_le_bytes().as_slice(), &[0]].concat(),
        ] {
            let mut reader = Reader::default();
            reader.push(&bytes);
            assert_eq!(reader.next::<ToOld>().unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
