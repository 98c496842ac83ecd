//! Reading what a client sent.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::proto::json::{Object, ShapeError, check_shape};

/// Why a message was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// It is not JSON, or lacks a field that its event needs, or has a field twice or of the wrong type.
    Malformed,
    /// [`ShapeError::TooDeep`].
    TooDeep,
    /// [`ShapeError::TooManyNodes`].
    TooManyNodes,
    /// Its event is not one that clients send.
    UnknownEvent,
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MessageError::Malformed => "the message is not a valid event",
            MessageError::TooDeep => "the message nests too deep",
            MessageError::TooManyNodes => "the message has too many values",
            MessageError::UnknownEvent => "the event is not one that clients send",
        })
    }
}

impl std::error::Error for MessageError {}

impl From<ShapeError> for MessageError {
    fn from(error: ShapeError) -> MessageError {
        match error {
            ShapeError::TooDeep => MessageError::TooDeep,
            ShapeError::TooManyNodes => MessageError::TooManyNodes,
        }
    }
}

/// A message from a client.
#[derive(Debug)]
pub enum ClientMessage<'a> {
    /// `pusher:subscribe`
    Subscribe(Subscribe<'a>),
    /// `pusher:unsubscribe`, with the channel.
    Unsubscribe(Cow<'a, str>),
    /// `pusher:ping`
    Ping,
    /// `pusher:pong`
    Pong,
    /// `pusher:signin`
    SignIn(SignIn<'a>),
    /// An event whose name starts with `client-`.
    ClientEvent {
        /// The whole name, with its prefix.
        event: Cow<'a, str>,
        /// The channel that it is for.
        channel: Cow<'a, str>,
        /// What it carries, byte for byte as it came.
        data: Option<&'a RawValue>,
    },
}

/// The data of `pusher:subscribe`.
#[derive(Debug, Deserialize)]
pub struct Subscribe<'a> {
    /// The channel's name, not yet checked.
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
    /// The signature; empty or missing for public channels.
    #[serde(default)]
    pub auth: Option<String>,
    /// Who the subscriber is, for a presence channel: JSON in a string, signed byte for byte as it is here.
    #[serde(default)]
    pub channel_data: Option<String>,
}

/// The data of `pusher:signin`.
#[derive(Debug, Deserialize)]
pub struct SignIn<'a> {
    /// The signature.
    #[serde(borrow)]
    pub auth: Cow<'a, str>,
    /// Who the user is: JSON in a string, signed byte for byte as it is here.
    #[serde(borrow)]
    pub user_data: Cow<'a, str>,
}

/// What a presence channel's `channel_data` says.
#[derive(Debug, PartialEq, Eq)]
pub struct MemberData {
    /// The user's id. A whole number is taken as its digits.
    pub user_id: String,
    /// What the application tells other members about the user: JSON as it came.
    pub user_info: Option<String>,
}

/// What the `user_data` of a sign-in says.
#[derive(Debug, PartialEq, Eq)]
pub struct UserData {
    /// The user's id, not empty.
    pub id: String,
    /// What the application tells others about the user: JSON as it came.
    pub user_info: Option<String>,
    /// The users whose coming and going this user wants to hear of.
    pub watchlist: Vec<String>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(default)]
    channel: Option<String>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Unsubscribe<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
}

/// Reads one message of a client.
///
/// # Errors
/// Any text that is not such a message, whatever it is; it costs time in proportion to its length and no more.
pub fn parse(text: &str) -> Result<ClientMessage<'_>, MessageError> {
    check_shape(text.as_bytes())?;
    let Object(envelope): Object<Envelope<'_>> = from_str(text)?;
    match envelope.event.as_ref() {
        "pusher:subscribe" => Ok(ClientMessage::Subscribe(from_data(envelope.data)?)),
        "pusher:unsubscribe" => {
            let Unsubscribe { channel } = from_data(envelope.data)?;
            Ok(ClientMessage::Unsubscribe(channel))
        }
        "pusher:ping" => Ok(ClientMessage::Ping),
        "pusher:pong" => Ok(ClientMessage::Pong),
        "pusher:signin" => Ok(ClientMessage::SignIn(from_data(envelope.data)?)),
        name if name.starts_with("client-") => {
            let channel = Cow::Owned(envelope.channel.ok_or(MessageError::Malformed)?);
            Ok(ClientMessage::ClientEvent { event: envelope.event, channel, data: envelope.data })
        }
        _ => Err(MessageError::UnknownEvent),
    }
}

/// Reads a presence channel's `channel_data`.
///
/// # Errors
/// As [`parse`]; the `user_id` must be a string that is not empty, or a whole number.
pub fn parse_channel_data(text: &str) -> Result<MemberData, MessageError> {
    #[derive(Deserialize)]
    struct Raw<'a> {
        #[serde(borrow)]
        user_id: &'a RawValue,
        #[serde(borrow, default)]
        user_info: Option<&'a RawValue>,
    }
    check_shape(text.as_bytes())?;
    let Object(raw): Object<Raw<'_>> = from_str(text)?;
    Ok(MemberData {
        user_id: read_id(raw.user_id.get())?,
        user_info: raw.user_info.map(|v| v.get().to_owned()),
    })
}

/// Reads the `user_data` of a sign-in.
///
/// # Errors
/// As [`parse`]; the `id` must be a string that is not empty: clients refuse to work with anything else.
pub fn parse_user_data(text: &str) -> Result<UserData, MessageError> {
    #[derive(Deserialize)]
    struct Raw<'a> {
        id: String,
        #[serde(borrow, default)]
        user_info: Option<&'a RawValue>,
        #[serde(default)]
        watchlist: Option<Vec<String>>,
    }
    check_shape(text.as_bytes())?;
    let Object(raw): Object<Raw<'_>> = from_str(text)?;
    if raw.id.is_empty() {
        return Err(MessageError::Malformed);
    }
    Ok(UserData {
        id: raw.id,
        user_info: raw.user_info.map(|v| v.get().to_owned()),
        watchlist: raw.watchlist.unwrap_or_default(),
    })
}

fn from_str<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, MessageError> {
    serde_json::from_str(text).map_err(|_| MessageError::Malformed)
}

fn from_data<'a, T: Deserialize<'a>>(data: Option<&'a RawValue>) -> Result<T, MessageError> {
    let Object(data) = from_str(data.ok_or(MessageError::Malformed)?.get())?;
    Ok(data)
}

/// An id from its JSON text. Numbers stay text: an id must not be rounded.
fn read_id(raw: &str) -> Result<String, MessageError> {
    if raw.starts_with('"') {
        let id: String = from_str(raw)?;
        return if id.is_empty() { Err(MessageError::Malformed) } else { Ok(id) };
    }
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(raw.to_owned());
    }
    Err(MessageError::Malformed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::proto::json::{MAX_DEPTH, MAX_NODES};

    #[test]
    fn subscribe_keeps_the_signed_text_byte_for_byte() {
        let text = r#"{"event":"pusher:subscribe","data":{"channel":"presence-a","auth":"k:s","channel_data":"{ \"user_id\" : 10}"}}"#;
        let ClientMessage::Subscribe(s) = parse(text).unwrap() else { panic!("not a subscribe") };
        assert_eq!((s.channel.as_ref(), s.auth.as_deref()), ("presence-a", Some("k:s")));
        assert_eq!(s.channel_data.as_deref(), Some(r#"{ "user_id" : 10}"#));
    }

    #[test]
    fn client_data_passes_as_it_came() {
        let text = r#"{"event":"client-x","channel":"private-a","data": {"n":1e999, "s":"\ud83d\ude00"} }"#;
        let ClientMessage::ClientEvent { event, channel, data } = parse(text).unwrap() else { panic!() };
        assert_eq!((event.as_ref(), channel.as_ref()), ("client-x", "private-a"));
        assert_eq!(data.unwrap().get(), r#"{"n":1e999, "s":"\ud83d\ude00"}"#);
    }

    #[test]
    fn the_small_messages() {
        assert!(matches!(parse(r#"{"event":"pusher:ping","data":{}}"#), Ok(ClientMessage::Ping)));
        assert!(matches!(parse(r#"{"event":"pusher:pong"}"#), Ok(ClientMessage::Pong)));
        let unsubscribe = parse(r#"{"event":"pusher:unsubscribe","data":{"channel":"a"}}"#);
        assert!(matches!(unsubscribe, Ok(ClientMessage::Unsubscribe(c)) if c == "a"));
        let signin = parse(r#"{"event":"pusher:signin","data":{"auth":"k:s","user_data":"{\"id\":\"1\"}"}}"#);
        assert!(matches!(signin, Ok(ClientMessage::SignIn(s)) if s.user_data == r#"{"id":"1"}"#));
    }

    #[test]
    fn i50_bad_messages_are_typed_errors() {
        for text in [
            "",
            "null",
            "[]",
            "{",
            "{}",
            r#"{"event":1}"#,
            r#"{"event":"pusher:subscribe"}"#,
            r#"{"event":"pusher:subscribe","data":{}}"#,
            r#"{"event":"pusher:subscribe","data":{"channel":7}}"#,
            r#"{"event":"pusher:subscribe","data":{"channel":"a","channel":"b"}}"#,
            r#"{"event":"pusher:ping","event":"pusher:ping"}"#,
            r#"{"event":"client-x","data":1}"#,
            r#"{"event":"\ud800"}"#,
            r#"{"event":"pusher:signin","data":{"auth":"x"}}"#,
        ] {
            assert_eq!(parse(text).err(), Some(MessageError::Malformed), "{text}");
        }
        for event in ["pusher:other", "pusher_internal:member_added", "client", "message", ""] {
            let text = format!(r#"{{"event":"{event}","channel":"a","data":{{}}}}"#);
            assert_eq!(parse(&text).err(), Some(MessageError::UnknownEvent), "{event}");
        }
    }

    #[test]
    fn depth_is_limited_to_the_level() {
        let nest = |n: usize| {
            format!(r#"{{"event":"client-x","channel":"c","data":{}{}}}"#, "[".repeat(n), "]".repeat(n))
        };
        assert!(parse(&nest(MAX_DEPTH - 1)).is_ok());
        assert_eq!(parse(&nest(MAX_DEPTH)).err(), Some(MessageError::TooDeep));
        assert_eq!(parse(&"[".repeat(64 << 10)).err(), Some(MessageError::TooDeep));
        let brackets_in_a_string = format!(r#"{{"event":"pusher:ping","data":"\"{}"}}"#, "[".repeat(100));
        assert!(parse(&brackets_in_a_string).is_ok());
    }

    #[test]
    fn nodes_are_limited_to_the_value() {
        // The message's own object, its three members and the array's bracket are four of the count.
        let with = |n: usize| {
            let items = vec!["1"; n].join(",");
            format!(r#"{{"event":"client-x","channel":"c","data":[{items}]}}"#)
        };
        let fits = MAX_NODES - 4;
        assert!(parse(&with(fits)).is_ok());
        assert_eq!(parse(&with(fits + 1)).err(), Some(MessageError::TooManyNodes));
    }

    #[test]
    fn a_user_id_is_a_string_or_a_whole_number() {
        let id = |v: &str| parse_channel_data(&format!(r#"{{"user_id":{v},"user_info":{{"a": 1}}}}"#));
        assert_eq!(id("10").unwrap().user_id, "10");
        assert_eq!(id("-1").unwrap().user_id, "-1");
        assert_eq!(id("123456789012345678901234567890").unwrap().user_id, "123456789012345678901234567890");
        assert_eq!(id(r#""a\u0062""#).unwrap().user_id, "ab");
        assert_eq!(id("1").unwrap().user_info.as_deref(), Some(r#"{"a": 1}"#));
        for bad in [r#""""#, "1.5", "1e3", "true", "null", "{}", "[1]"] {
            assert_eq!(id(bad), Err(MessageError::Malformed), "{bad}");
        }
        assert_eq!(parse_channel_data("{}"), Err(MessageError::Malformed));
    }

    #[test]
    fn user_data_needs_a_string_id() {
        let user = parse_user_data(r#"{"id":"1","user_info":{"n":2},"watchlist":["a","b"]}"#).unwrap();
        assert_eq!((user.id.as_str(), user.user_info.as_deref()), ("1", Some(r#"{"n":2}"#)));
        assert_eq!(user.watchlist, ["a", "b"]);
        for bad in [r#"{"id":1}"#, r#"{"id":""}"#, "{}", r#"{"id":"1","watchlist":[1]}"#] {
            assert_eq!(parse_user_data(bad), Err(MessageError::Malformed), "{bad}");
        }
    }

    #[test]
    fn i50_a_list_is_no_object() {
        for text in [
            r#"["pusher:ping"]"#,
            r#"["client-x","private-a",1]"#,
            r#"{"event":"pusher:subscribe","data":["news"]}"#,
            r#"{"event":"pusher:unsubscribe","data":["news"]}"#,
            r#"{"event":"pusher:signin","data":["k:s","{}"]}"#,
        ] {
            assert_eq!(parse(text).err(), Some(MessageError::Malformed), "{text}");
        }
        assert_eq!(parse_channel_data(r#"["a"]"#), Err(MessageError::Malformed));
        assert_eq!(parse_user_data(r#"["a",null,[]]"#), Err(MessageError::Malformed));
    }

    #[test]
    fn i50_random_bytes_never_panic() {
        let mut rng = fastrand::Rng::with_seed(50);
        let seed = r#"{"event":"pusher:subscribe","data":{"channel":"presence-a","auth":"k:s","channel_data":"{\"user_id\":10}"}}"#;
        for _ in 0..20_000 {
            let mut bytes = seed.as_bytes().to_vec();
            for _ in 0..rng.usize(1..6) {
                let at = rng.usize(0..bytes.len());
                match rng.u8(0..3) {
                    0 => bytes[at] = b"{}[]\",:\\0e-u\n"[rng.usize(0..13)],
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, rng.u8(0x20..0x7f)),
                }
            }
            let text = String::from_utf8_lossy(&bytes);
            let _ = (parse(&text), parse_channel_data(&text), parse_user_data(&text));
        }
    }
}
