//! Handing the state of a hub to the process that replaces it.
//!
//! The old process stops executing, writes its hub with [`Hub::hand_over`] and sends the bytes; the new one has read its
//! configuration, adds the applications and reads them with [`Hub::take_over`], and goes on where the other stopped.
//! Connections that still live in the old process stay sessions: their socket ids and [`SessionId`]s mean what they
//! meant, and their handles `C` say where they are. To a client nothing has happened.
//!
//! # What is carried over
//! Everything but whether the hub drains. Two hubs with the same configuration, one that goes on and one that took over
//! from it, answer the same calls with the same effects, down to the socket ids that they give out, and a hub that hands
//! over at the moment at which it took over writes the same bytes. Times are carried as distances from `now`, because
//! two processes need not count from the same start.
//!
//! # When the configuration has changed
//! Applications are matched by their ids. Sessions of one that is gone or disabled are returned for the server to close,
//! and the channels of one that is gone are dropped. A smaller limit ends no session and no subscription; it holds for
//! what comes. What is kept of the past is trimmed to the new limits, in number, bytes and time. A bucket whose rate has
//! changed is full once.
//!
//! # The format
//! JSON with named fields. A reader passes over fields that it does not know, and those that are not there have the value
//! that they had before they were introduced; what cannot be read that way gets a new [`VERSION`]. The bytes hold the
//! keys of hash maps and socket ids, and what users said: they are for the successor's eyes only.

mod read;
mod record;
mod write;

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::outbox::{Transport, Wire};
use super::refusal::Refusal;
use super::{AppConfig, Hub};

#[cfg(doc)]
use super::SessionId;

/// The version of the format that is written, and the only one that is read.
const VERSION: u64 = 1;
/// How much of a parser's explanation an error carries, in characters.
const LONGEST_EXPLANATION: usize = 200;

/// What a hub took over.
#[derive(Clone, Debug)]
pub struct TakenOver<C> {
    /// How many sessions the hub has now.
    pub sessions: usize,
    /// How many channels the hub has now.
    pub channels: usize,
    /// The applications that are no longer configured.
    pub dropped_apps: Vec<String>,
    /// The sessions that are no longer served, in the order of their places. For the hub they have ended.
    pub refused: Vec<RefusedSession<C>>,
}

/// A session that is no longer served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedSession<C> {
    /// The server's handle of the connection, which it closes.
    pub conn: C,
    /// How the session's messages travelled.
    pub transport: Transport,
    /// Why, with the code for closing: [`Refusal::UnknownApp`] or [`Refusal::AppDisabled`]. It has been counted.
    pub refusal: Refusal,
}

/// Why a state was not handed over. Neither hub has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandoverError {
    /// The hub that is to take over has served already.
    NotFresh,
    /// The state was written in a version of the format that this hub does not read.
    Version {
        /// That version.
        found: u64,
        /// The version that this hub reads.
        readable: u64,
    },
    /// The bytes are not a state; the text says where and why.
    Malformed(String),
    /// The parts of the state contradict each other, or hold what a hub never holds; the text says which.
    Inconsistent(&'static str),
    /// A handle of a connection could not be written; the text is its own.
    Unwritable(String),
}

impl fmt::Display for HandoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandoverError::NotFresh => f.write_str("the hub has served already and cannot take over a state"),
            HandoverError::Version { found, readable } => {
                write!(f, "the state has version {found} of the format, and this hub reads {readable}")
            }
            HandoverError::Malformed(why) => write!(f, "the state cannot be read: {why}"),
            HandoverError::Inconsistent(what) => write!(f, "the state contradicts itself: {what}"),
            HandoverError::Unwritable(why) => write!(f, "the state cannot be written: {why}"),
        }
    }
}

impl std::error::Error for HandoverError {}

fn explanation(error: &serde_json::Error) -> String {
    error.to_string().chars().take(LONGEST_EXPLANATION).collect()
}

impl<C: Copy + Serialize, W: Wire> Hub<C, W> {
    /// Writes the whole state, for [`Hub::take_over`]. What this hub does afterwards the other does not know, so it
    /// should do nothing more.
    ///
    /// # Errors
    /// [`HandoverError::Unwritable`], when a `C` does not serialize.
    pub fn hand_over(&self, now: u64) -> Result<Vec<u8>, HandoverError> {
        let queued = self.queued_counts();
        let record = self.record(now, &queued);
        serde_json::to_vec(&record).map_err(|error| HandoverError::Unwritable(explanation(&error)))
    }
}

impl<C: Copy + DeserializeOwned, W: Wire> Hub<C, W> {
    /// Reads the state that another hub has written, and goes on with it. This hub has its applications and has served
    /// nobody; `now` is its own time.
    ///
    /// # Errors
    /// When the bytes are not the whole state of a hub, or this hub has served already. The hub is then as it was.
    pub fn take_over(&mut self, now: u64, bytes: &[u8]) -> Result<TakenOver<C>, HandoverError> {
        if !self.is_fresh() {
            return Err(HandoverError::NotFresh);
        }
        let malformed = |error| HandoverError::Malformed(explanation(&error));
        let record::Version { version: found } = serde_json::from_slice(bytes).map_err(malformed)?;
        if found != VERSION {
            return Err(HandoverError::Version { found, readable: VERSION });
        }
        let record = serde_json::from_slice(bytes).map_err(malformed)?;
        let configs: Vec<AppConfig> = self.apps.iter().map(|app| app.config.clone()).collect();
        let (mut hub, taken) = Hub::restore(now, configs, record)?;
        hub.draining = self.draining;
        *self = hub;
        Ok(taken)
    }

    fn is_fresh(&self) -> bool {
        let untouched = self.apps.iter().all(|app| app.position.sequence == 0);
        untouched && self.socket_ids == 0 && self.sessions.len() == 0 && self.channels.len() == 0
    }
}
