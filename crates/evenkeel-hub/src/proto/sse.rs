//! Server-sent events: one response without an end, whose body is a series of small text records.
//!
//! The body has no length and no chunks; it ends when the connection does. So an encoded event is the same bytes for
//! every subscriber and is shared by all of them, and the stream works over HTTP/1.0 proxies too.
//!
//! ```
//! use evenkeel_hub::proto::sse::{self, Event};
//!
//! let mut out = Vec::new();
//! let event = Event { id: Some("7"), event: Some("update"), data: Some("two\nlines"), retry_ms: None };
//! sse::encode(&event, &mut out).unwrap();
//! assert_eq!(out, b"id: 7\nevent: update\ndata: two\ndata: lines\n\n");
//! ```

use std::borrow::Cow;
use std::fmt;

use crate::proto::head::RequestHead;
use crate::proto::head::query;
use crate::proto::percent::PercentError;

/// A record that a client ignores. It shows that the connection is alive.
pub const HEARTBEAT: &[u8] = b":\n\n";

/// The longest `Last-Event-ID` in bytes that is taken from a client.
pub const MAX_LAST_EVENT_ID: usize = 256;

/// One record. A record without data changes the client's last id and its retry time, but no listener hears of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event<'a> {
    /// What the client sends back as `Last-Event-ID` when it reconnects. An empty one clears the client's.
    pub id: Option<&'a str>,
    /// The name of the event. A client without one hears `message`.
    pub event: Option<&'a str>,
    /// The payload. Its line ends, of whichever kind, reach the client as line feeds.
    pub data: Option<&'a str>,
    /// How many milliseconds the client waits before it reconnects.
    pub retry_ms: Option<u64>,
}

/// What cannot be written into, or read for, an event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SseError {
    /// The id holds a line end or a NUL.
    Id,
    /// The event's name holds a line end.
    EventName,
    /// A comment holds a line end.
    Comment,
    /// A field of the response head has a bad name or holds a control character.
    Field,
    /// The client's `Last-Event-ID` is too long, not UTF-8, or holds a control character.
    LastEventId,
    /// The client's query string cannot be decoded.
    Query(PercentError),
}

impl fmt::Display for SseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SseError::Id => f.write_str("event id with a line end or a NUL"),
            SseError::EventName => f.write_str("event name with a line end"),
            SseError::Comment => f.write_str("comment with a line end"),
            SseError::Field => f.write_str("malformed header field"),
            SseError::LastEventId => f.write_str("malformed Last-Event-ID"),
            SseError::Query(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SseError {}

/// Appends one record.
///
/// # Errors
///
/// The id or the name would break out of its line. Nothing is appended then.
pub fn encode(event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), SseError> {
    if event.id.is_some_and(|id| id.contains(['\r', '\n', '\0'])) {
        return Err(SseError::Id);
    }
    if event.event.is_some_and(|name| name.contains(['\r', '\n'])) {
        return Err(SseError::EventName);
    }
    if let Some(id) = event.id {
        line("id", id, out);
    }
    if let Some(name) = event.event {
        line("event", name, out);
    }
    if let Some(milliseconds) = event.retry_ms {
        line("retry", &milliseconds.to_string(), out);
    }
    if let Some(data) = event.data {
        data_lines(data, out);
    }
    out.push(b'\n');
    Ok(())
}

/// Appends a comment, which clients ignore.
///
/// # Errors
///
/// The text holds a line end. Nothing is appended then.
pub fn comment(text: &str, out: &mut Vec<u8>) -> Result<(), SseError> {
    if text.contains(['\r', '\n']) {
        return Err(SseError::Comment);
    }
    line("", text, out);
    out.push(b'\n');
    Ok(())
}

/// Appends the head of the response that carries the stream, with the caller's own `fields`, such as those of
/// [`Origins::cors`](crate::proto::origin::Origins::cors). Caches and buffering proxies are told to keep out.
///
/// # Errors
///
/// A field's name is not a token or its value holds a control character. Nothing is appended then.
pub fn response_head(fields: &[(&str, &str)], out: &mut Vec<u8>) -> Result<(), SseError> {
    let name_is_valid = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if !fields
        .iter()
        .all(|(name, value)| name_is_valid(name) && !value.contains(|c: char| c.is_ascii_control()))
    {
        return Err(SseError::Field);
    }
    out.extend_from_slice(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache, no-transform\r\n\
          X-Accel-Buffering: no\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n",
    );
    for (name, value) in fields {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// The id of the last event that a reconnecting client saw: from the `Last-Event-ID` field, or else from the query
/// parameter `lastEventId` or `last_event_id`. The field comes first because a browser updates it on every reconnect
/// while the address stays as it was. An empty id is none.
///
/// # Errors
///
/// The id is malformed, there are several fields, or the query string cannot be decoded.
pub fn last_event_id<'b>(head: &RequestHead<'b>) -> Result<Option<Cow<'b, str>>, SseError> {
    let mut fields = head.values("last-event-id");
    let id = match (fields.next(), fields.next()) {
        (Some(value), None) => {
            Some(Cow::Borrowed(std::str::from_utf8(value).map_err(|_| SseError::LastEventId)?))
        }
        (Some(_), Some(_)) => return Err(SseError::LastEventId),
        (None, _) => {
            let query = head.query().unwrap_or_default();
            match query::get(query, "lastEventId").map_err(SseError::Query)? {
                Some(id) => Some(id),
                None => query::get(query, "last_event_id").map_err(SseError::Query)?,
            }
        }
    };
    let Some(id) = id.filter(|id| !id.is_empty()) else { return Ok(None) };
    if id.len() > MAX_LAST_EVENT_ID || id.contains(char::is_control) {
        return Err(SseError::LastEventId);
    }
    Ok(Some(id))
}

/// A client reads a line feed, a carriage return and the two together as one line end each.
fn data_lines(data: &str, out: &mut Vec<u8>) {
    let mut rest = data;
    while let Some(end) = rest.find(['\r', '\n']) {
        line("data", &rest[..end], out);
        rest = rest[end..].strip_prefix("\r\n").unwrap_or(&rest[end + 1..]);
    }
    line("data", rest, out);
}

/// The space after the colon is dropped by the client, so a value may begin with one.
fn line(name: &str, value: &str, out: &mut Vec<u8>) {
    out.reserve(name.len() + value.len() + 3);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests;
