//! Writing what the server sends.
//!
//! Every function returns the JSON text of one message. Where the protocol wants `data` to be a string that holds JSON,
//! it is one; the few messages whose `data` is an object say so.

use std::fmt::Write;

use serde_json::value::RawValue;

/// `pusher:connection_established`: the first message on a connection. `activity_timeout` is in seconds.
pub fn connection_established(socket_id: &str, activity_timeout: u32) -> String {
    let mut data = String::from(r#"{"socket_id":"#);
    push_string(&mut data, socket_id);
    push_fmt(&mut data, format_args!(r#","activity_timeout":{activity_timeout}}}"#));
    event("pusher:connection_established", None, Some(&data))
}

/// `pusher:error`, whose data is an object.
pub fn error(code: u16, message: &str) -> String {
    let mut out = String::from(r#"{"event":"pusher:error","data":{"code":"#);
    push_fmt(&mut out, format_args!(r#"{code},"message":"#));
    push_string(&mut out, message);
    out.push_str("}}");
    out
}

/// `pusher:pong`: the answer to a client's ping.
pub fn pong() -> String {
    r#"{"event":"pusher:pong","data":"{}"}"#.to_owned()
}

/// `pusher_internal:subscription_succeeded`. `data` is `{}`, or [`presence_data`] on a presence channel.
pub fn subscription_succeeded(channel: &str, data: &str) -> String {
    event("pusher_internal:subscription_succeeded", Some(channel), Some(data))
}

/// The members of a presence channel, as its subscribers are told when they join: pairs of id and info (JSON).
pub fn presence_data<'a>(members: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> String {
    let mut out = String::from(r#"{"presence":{"ids":["#);
    for (i, (id, _)) in members.clone().enumerate() {
        push_comma(&mut out, i);
        push_string(&mut out, id);
    }
    out.push_str(r#"],"hash":{"#);
    let mut count = 0;
    for (i, (id, info)) in members.enumerate() {
        push_comma(&mut out, i);
        push_string(&mut out, id);
        out.push(':');
        out.push_str(info);
        count += 1;
    }
    push_fmt(&mut out, format_args!(r#"}},"count":{count}}}}}"#));
    out
}

/// `pusher:subscription_error`, whose data is an object. `kind` is `AuthError` or another word for the sort of error.
pub fn subscription_error(channel: &str, kind: &str, error: &str, status: u16) -> String {
    let mut out = String::from(r#"{"event":"pusher:subscription_error","channel":"#);
    push_string(&mut out, channel);
    out.push_str(r#","data":{"type":"#);
    push_string(&mut out, kind);
    out.push_str(r#","error":"#);
    push_string(&mut out, error);
    push_fmt(&mut out, format_args!(r#","status":{status}}}}}"#));
    out
}

/// `pusher_internal:member_added`: a user's first connection joined. `user_info` is JSON.
pub fn member_added(channel: &str, user_id: &str, user_info: &str) -> String {
    let mut data = String::from(r#"{"user_id":"#);
    push_string(&mut data, user_id);
    data.push_str(r#","user_info":"#);
    data.push_str(user_info);
    data.push('}');
    event("pusher_internal:member_added", Some(channel), Some(&data))
}

/// `pusher_internal:member_removed`: a user's last connection left.
pub fn member_removed(channel: &str, user_id: &str) -> String {
    let mut data = String::from(r#"{"user_id":"#);
    push_string(&mut data, user_id);
    data.push('}');
    event("pusher_internal:member_removed", Some(channel), Some(&data))
}

/// `pusher:cache_miss`: nothing is cached for the channel that was joined.
pub fn cache_miss(channel: &str) -> String {
    event("pusher:cache_miss", Some(channel), None)
}

/// `pusher_internal:subscription_count`
pub fn subscription_count(channel: &str, count: usize) -> String {
    let data = format!(r#"{{"subscription_count":{count}}}"#);
    event("pusher_internal:subscription_count", Some(channel), Some(&data))
}

/// `pusher:signin_success`, whose data is an object that holds the user's data as it was signed.
pub fn signin_success(user_data: &str) -> String {
    let mut out = String::from(r#"{"event":"pusher:signin_success","data":{"user_data":"#);
    push_string(&mut out, user_data);
    out.push_str("}}");
    out
}

/// `pusher_internal:watchlist_events`: which watched users are online and which are offline. A side without ids is left
/// out.
pub fn watchlist_events(online: &[&str], offline: &[&str]) -> String {
    let mut data = String::from(r#"{"events":["#);
    let sides = [("online", online), ("offline", offline)];
    for (i, (name, ids)) in sides.into_iter().filter(|(_, ids)| !ids.is_empty()).enumerate() {
        push_comma(&mut data, i);
        push_fmt(&mut data, format_args!(r#"{{"name":"{name}","user_ids":["#));
        for (j, id) in ids.iter().enumerate() {
            push_comma(&mut data, j);
            push_string(&mut data, id);
        }
        data.push_str("]}");
    }
    data.push_str("]}");
    event("pusher_internal:watchlist_events", None, Some(&data))
}

/// An event that was published over HTTP. `data` is a string for the protocol, whatever it holds.
pub fn channel_event(name: &str, channel: &str, data: &str) -> String {
    event(name, Some(channel), Some(data))
}

/// An event from another client: its data as it came, and on a presence channel the sender's id.
pub fn client_event(name: &str, channel: &str, data: Option<&RawValue>, user_id: Option<&str>) -> String {
    let mut out = start(name, Some(channel), data.map_or(0, |d| d.get().len()));
    if let Some(data) = data {
        out.push_str(r#","data":"#);
        out.push_str(data.get());
    }
    if let Some(id) = user_id {
        out.push_str(r#","user_id":"#);
        push_string(&mut out, id);
    }
    out.push('}');
    out
}

/// `evenkeel:gap`, on SSE streams only: events of the channel were missed and cannot be sent again.
pub fn stream_gap(channel: &str) -> String {
    event("evenkeel:gap", Some(channel), Some("{}"))
}

/// `evenkeel:caught_up`, on SSE streams only: everything that was missed has been sent, `replayed` events; `complete` is
/// false when some channel had a gap. What follows is live.
pub fn stream_caught_up(replayed: usize, complete: bool) -> String {
    let data = format!(r#"{{"replayed":{replayed},"complete":{complete}}}"#);
    event("evenkeel:caught_up", None, Some(&data))
}

fn event(name: &str, channel: Option<&str>, data: Option<&str>) -> String {
    let mut out = start(name, channel, data.map_or(0, |d| d.len() + d.len() / 4));
    if let Some(data) = data {
        out.push_str(r#","data":"#);
        push_string(&mut out, data);
    }
    out.push('}');
    out
}

fn start(name: &str, channel: Option<&str>, data: usize) -> String {
    let mut out = String::with_capacity(64 + name.len() + channel.map_or(0, str::len) + data);
    out.push_str(r#"{"event":"#);
    push_string(&mut out, name);
    if let Some(channel) = channel {
        out.push_str(r#","channel":"#);
        push_string(&mut out, channel);
    }
    out
}

fn push_comma(out: &mut String, index: usize) {
    if index > 0 {
        out.push(',');
    }
}

fn push_fmt(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(arguments);
}

/// Appends `text` as a JSON string.
fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|b| b < 0x20 || b == b'"' || b == b'\\') {
        let (plain, tail) = rest.split_at(at);
        out.push_str(plain);
        match tail.as_bytes()[0] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            control => push_fmt(out, format_args!("\\u{control:04x}")),
        }
        rest = &tail[1..];
    }
    out.push_str(rest);
    out.push('"');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, from_str};

    fn inner(message: &str) -> Value {
        let outer: Value = from_str(message).unwrap();
        from_str(outer["data"].as_str().unwrap()).unwrap()
    }

    #[test]
    fn messages_have_the_protocols_form() {
        assert_eq!(
            connection_established("12.3", 120),
            r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"12.3\",\"activity_timeout\":120}"}"#
        );
        assert_eq!(error(4301, "slow"), r#"{"event":"pusher:error","data":{"code":4301,"message":"slow"}}"#);
        assert_eq!(
            subscription_succeeded("c", "{}"),
            r#"{"event":"pusher_internal:subscription_succeeded","channel":"c","data":"{}"}"#
        );
        assert_eq!(
            subscription_error("c", "AuthError", "no", 401),
            r#"{"event":"pusher:subscription_error","channel":"c","data":{"type":"AuthError","error":"no","status":401}}"#
        );
        assert_eq!(cache_miss("c"), r#"{"event":"pusher:cache_miss","channel":"c"}"#);
        assert_eq!(
            signin_success(r#"{"id":"1"}"#),
            r#"{"event":"pusher:signin_success","data":{"user_data":"{\"id\":\"1\"}"}}"#
        );
        assert_eq!(channel_event("e", "c", "x"), r#"{"event":"e","channel":"c","data":"x"}"#);
        assert_eq!(inner(&subscription_count("c", 7))["subscription_count"], 7);
        assert_eq!(inner(&member_added("c", "1", r#"{"a":1}"#))["user_info"]["a"], 1);
        assert_eq!(inner(&member_removed("c", "1"))["user_id"], "1");
    }

    #[test]
    fn presence_data_lists_ids_hash_and_count() {
        let members = [("1", "{}"), ("a\"b", r#"{"n":2}"#)];
        let data: Value = from_str(&presence_data(members.into_iter())).unwrap();
        assert_eq!(data["presence"]["ids"], serde_json::json!(["1", "a\"b"]));
        assert_eq!(data["presence"]["hash"], serde_json::json!({"1": {}, "a\"b": {"n": 2}}));
        assert_eq!(data["presence"]["count"], 2);
    }

    #[test]
    fn watchlist_events_leave_out_an_empty_side() {
        assert_eq!(
            inner(&watchlist_events(&["a"], &[])).to_string(),
            r#"{"events":[{"name":"online","user_ids":["a"]}]}"#
        );
        assert_eq!(inner(&watchlist_events(&["a"], &["b", "c"]))["events"][1]["user_ids"][1], "c");
    }

    #[test]
    fn client_events_carry_data_as_it_came() {
        let raw: Box<RawValue> = from_str(r#"{"a" : 1.00}"#).unwrap();
        assert_eq!(
            client_event("client-x", "presence-a", Some(&raw), Some("7")),
            r#"{"event":"client-x","channel":"presence-a","data":{"a" : 1.00},"user_id":"7"}"#
        );
        assert_eq!(
            client_event("client-x", "private-a", None, None),
            r#"{"event":"client-x","channel":"private-a"}"#
        );
    }

    #[test]
    fn strings_survive_the_round_trip() {
        let every: String = (0..0x250).filter_map(char::from_u32).collect::<String>() + "\u{2028}😀\\\"";
        let event: Value = from_str(&channel_event("e", "c", &every)).unwrap();
        assert_eq!(event["data"].as_str().unwrap(), every);
    }
}
