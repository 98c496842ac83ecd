//! What two processes say to each other, for the fuzz target of its wire format.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::wire::{Frame, Reader, ToNew, ToOld, message, state};

/// What was read, written down again.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// A message, as JSON.
    Message(String),
    /// A state, as it came.
    State(Vec<u8>),
}

/// Reads what a process says that comes in these pieces: the old one, or the new one.
///
/// # Errors
/// With what was read before, whatever cannot be understood.
pub fn read(pieces: &[&[u8]], old: bool) -> (Vec<Said>, Option<io::Error>) {
    if old { read_as::<ToNew>(pieces) } else { read_as::<ToOld>(pieces) }
}

fn read_as<T: DeserializeOwned + Serialize>(pieces: &[&[u8]]) -> (Vec<Said>, Option<io::Error>) {
    let (mut reader, mut said) = (Reader::default(), Vec::new());
    for piece in pieces {
        reader.push(piece);
        loop {
            match reader.next::<T>() {
                Ok(Some(Frame::State(bytes))) => said.push(Said::State(bytes)),
                Ok(Some(Frame::Message(message))) => match serde_json::to_string(&message) {
                    Ok(text) => said.push(Said::Message(text)),
                    Err(error) => return (said, Some(error.into())),
                },
                Ok(None) => break,
                Err(error) => return (said, Some(error)),
            }
        }
    }
    (said, None)
}

/// The bytes by which a process says it.
///
/// # Errors
/// A message that is none.
pub fn write_back(said: &Said, old: bool) -> io::Result<Vec<u8>> {
    Ok(match said {
        Said::State(bytes) => state(bytes),
        Said::Message(text) if old => message(&serde_json::from_str::<ToNew>(text)?),
        Said::Message(text) => message(&serde_json::from_str::<ToOld>(text)?),
    })
}
