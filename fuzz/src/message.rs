//! What clients of the Pusher Channels protocol say: names of channels, and messages in JSON, against a reading of the
//! same text as any JSON.

use evenkeel_hub::proto::channel::{Access, ChannelName, SERVER_TO_USER};
use evenkeel_hub::proto::json::{MAX_DEPTH, MAX_NODES, check_shape};
use evenkeel_hub::proto::message::{self, ClientMessage, MessageError};
use serde::de::IgnoredAny;
use serde_json::Value;

/// Reads a text as each of the things that a client's text can be.
pub fn run(bytes: &[u8]) {
    let shape = check_shape(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let value: Option<Value> = serde_json::from_str(text).ok();
    if let (Ok(()), Some(value)) = (shape, &value) {
        let (depth, nodes) = measure(value);
        assert!(depth <= MAX_DEPTH && nodes <= MAX_NODES, "depth {depth}, {nodes} values");
    }
    client_message(text, value.as_ref(), shape.is_err());
    member(text, value.as_ref());
    user(text, value.as_ref());
    for longest in [0, 20, 200] {
        channel(text, longest);
    }
    said(text);
}

/// How deep a value nests, and how many there are in it.
fn measure(value: &Value) -> (usize, usize) {
    let inner: Vec<&Value> = match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => return (0, 1),
    };
    let of_inner = inner.into_iter().map(measure);
    let (depth, nodes) = of_inner.fold((0, 1), |(depth, nodes), (d, n)| (depth.max(d), nodes + n));
    (depth + 1, nodes)
}

fn client_message(text: &str, value: Option<&Value>, bad_shape: bool) {
    if let Some(value) = value {
        grammar(value);
    }
    let field = |name: &str| value.and_then(|value| value.get(name)).and_then(Value::as_str);
    let inner = |name: &str| value?.get("data")?.get(name)?.as_str();
    let message = match message::parse(text) {
        Ok(message) => message,
        Err(error) => {
            let shapes = matches!(error, MessageError::TooDeep | MessageError::TooManyNodes);
            assert_eq!(shapes, bad_shape);
            return;
        }
    };
    // A number that no float is near of is JSON, and no value of the other reader.
    if value.is_none() {
        assert!(serde_json::from_str::<IgnoredAny>(text).is_ok(), "a message is JSON");
        return;
    }
    let event = field("event").expect("a message is an object with an event");
    match message {
        ClientMessage::Subscribe(subscribe) => {
            assert_eq!(event, "pusher:subscribe");
            assert_eq!(Some(&*subscribe.channel), inner("channel"));
            assert_eq!(subscribe.auth.as_deref(), inner("auth"));
            assert_eq!(subscribe.channel_data.as_deref(), inner("channel_data"));
        }
        ClientMessage::Unsubscribe(channel) => {
            assert_eq!((event, Some(&*channel)), ("pusher:unsubscribe", inner("channel")));
        }
        ClientMessage::Ping => assert_eq!(event, "pusher:ping"),
        ClientMessage::Pong => assert_eq!(event, "pusher:pong"),
        ClientMessage::SignIn(sign_in) => {
            assert_eq!(event, "pusher:signin");
            assert_eq!(Some(&*sign_in.auth), inner("auth"));
            assert_eq!(Some(&*sign_in.user_data), inner("user_data"));
        }
        ClientMessage::ClientEvent { event: name, channel, data } => {
            assert_eq!((&*name, Some(&*channel)), (event, field("channel")));
            assert!(name.starts_with("client-"));
            assert!(data.is_none_or(|data| text.contains(data.get())), "data passes as it came");
            for user in [None, Some(&*channel)] {
                let sent = json(&message::client_event(&name, &channel, data, user));
                assert_eq!(
                    (sent["event"].as_str(), sent["channel"].as_str()),
                    (Some(&*name), Some(&*channel))
                );
                assert_eq!(sent.get("user_id").and_then(Value::as_str), user);
            }
        }
    }
}

/// The grammar, for a message in which no field stands twice.
fn grammar(value: &Value) {
    let text = serde_json::to_string(value).expect("a value can be written");
    if check_shape(text.as_bytes()).is_err() {
        return;
    }
    let is_text = |value: Option<&Value>| value.is_some_and(Value::is_string);
    let text_or_none = |value: Option<&Value>| value.is_none_or(|value| value.is_string() || value.is_null());
    let of_data = |name: &str| value.get("data")?.as_object()?.get(name);
    let event = value.as_object().and_then(|fields| fields.get("event")).and_then(Value::as_str);
    let expected = text_or_none(value.get("channel"))
        && match event.unwrap_or_default() {
            "pusher:subscribe" => {
                is_text(of_data("channel"))
                    && text_or_none(of_data("auth"))
                    && text_or_none(of_data("channel_data"))
            }
            "pusher:unsubscribe" => is_text(of_data("channel")),
            "pusher:signin" => is_text(of_data("auth")) && is_text(of_data("user_data")),
            "pusher:ping" | "pusher:pong" => true,
            event => event.starts_with("client-") && is_text(value.get("channel")),
        };
    assert_eq!(message::parse(&text).is_ok(), expected, "{text}");
}

fn member(text: &str, value: Option<&Value>) {
    let Ok(member) = message::parse_channel_data(text) else { return };
    let Some(value) = value else { return };
    let id = &value["user_id"];
    match id {
        Value::String(id) => assert_eq!(*id, member.user_id),
        _ => {
            let digits = member.user_id.strip_prefix('-').unwrap_or(&member.user_id);
            assert!(digits.bytes().all(|digit| digit.is_ascii_digit()) && text.contains(&member.user_id));
        }
    }
    assert!(!member.user_id.is_empty());
    if let Some(info) = &member.user_info {
        assert!(text.contains(info.as_str()));
        let members = [(&*member.user_id, info.as_str())];
        let told = json(&message::presence_data(members.into_iter()));
        assert_eq!(told["presence"]["ids"][0].as_str(), Some(&*member.user_id));
        assert_eq!(told["presence"]["hash"][&member.user_id], json(info));
    }
}

fn user(text: &str, value: Option<&Value>) {
    let Ok(user) = message::parse_user_data(text) else { return };
    let Some(value) = value else { return };
    assert!(!user.id.is_empty() && value["id"].as_str() == Some(&user.id));
    let watched = value.get("watchlist").and_then(Value::as_array).into_iter().flatten();
    assert!(watched.filter_map(Value::as_str).eq(user.watchlist.iter().map(String::as_str)));
    let ids: Vec<&str> = user.watchlist.iter().map(String::as_str).collect();
    let told = json(&message::watchlist_events(&ids, &[]));
    assert!(told["event"].is_string());
}

fn channel(text: &str, longest: usize) {
    let parsed = ChannelName::parse(text, longest);
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-=@,.;".contains(c);
    let valid = match text.strip_prefix(SERVER_TO_USER) {
        Some(user) => !user.is_empty() && !user.contains(char::is_control),
        None => !text.is_empty() && text.chars().all(plain),
    };
    assert_eq!(parsed.is_ok(), valid && text.chars().count() <= longest, "{text:?} of at most {longest}");
    let Ok(name) = parsed else { return };
    assert_eq!(name.as_str(), text);
    let (access, rest) = if text.starts_with(SERVER_TO_USER) {
        (Access::ServerToUser, "")
    } else if let Some(rest) = text.strip_prefix("private-encrypted-") {
        (Access::Encrypted, rest)
    } else if let Some(rest) = text.strip_prefix("private-") {
        (Access::Private, rest)
    } else if let Some(rest) = text.strip_prefix("presence-") {
        (Access::Presence, rest)
    } else {
        (Access::Public, text)
    };
    assert_eq!((name.kind().access, name.kind().cached), (access, rest.starts_with("cache-")));
    assert_eq!(name.user().is_some(), access == Access::ServerToUser);
}

/// Whatever a text is, what the server says of it is JSON in which it stands unchanged.
fn said(text: &str) {
    assert_eq!(json(&message::error(4000, text))["data"]["message"].as_str(), Some(text));
    let refused = json(&message::subscription_error(text, "AuthError", text, 401));
    assert_eq!((refused["channel"].as_str(), refused["data"]["error"].as_str()), (Some(text), Some(text)));
    let event = json(&message::channel_event(text, text, text));
    for field in ["event", "channel", "data"] {
        assert_eq!(event[field].as_str(), Some(text));
    }
    let signed_in = json(&message::signin_success(text));
    assert_eq!(signed_in["data"]["user_data"].as_str(), Some(text));
    let removed = json(&message::member_removed(text, text));
    let data = json(removed["data"].as_str().expect("the protocol's data is a string"));
    assert_eq!(data["user_id"].as_str(), Some(text));
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("what the server says is JSON")
}
