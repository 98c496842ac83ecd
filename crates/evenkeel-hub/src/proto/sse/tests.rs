#![allow(clippy::unwrap_used)]

use super::*;
use crate::proto::head::Limits;

fn encoded(event: &Event<'_>) -> Result<String, SseError> {
    let mut out = Vec::new();
    let result = encode(event, &mut out);
    assert!(result.is_ok() || out.is_empty(), "an error appends nothing");
    result.map(|()| String::from_utf8(out).unwrap())
}

/// What a browser makes of a stream: the steps of the HTML standard for one record.
fn read_like_a_browser(stream: &str) -> (String, String, String) {
    let (mut id, mut name, mut data) = (String::new(), String::new(), String::new());
    let lines = stream.replace("\r\n", "\n").replace('\r', "\n");
    for line in lines.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => id = value.to_owned(),
            "event" => name = value.to_owned(),
            "data" => {
                data.push_str(value);
                data.push('\n');
            }
            _ => {}
        }
    }
    data.pop();
    (id, name, data)
}

#[test]
fn writes_each_field_on_its_line() {
    let event = Event { id: Some("7-1"), event: Some("update"), data: Some("{}"), retry_ms: Some(1500) };
    assert_eq!(encoded(&event).unwrap(), "id: 7-1\nevent: update\nretry: 1500\ndata: {}\n\n");
    assert_eq!(encoded(&Event { id: Some(""), ..Event::default() }).unwrap(), "id: \n\n");
}

#[test]
fn a_browser_reads_the_same_data() {
    for (sent, heard) in [
        ("", ""),
        ("one", "one"),
        (" spaced ", " spaced "),
        ("a\nb", "a\nb"),
        ("a\r\nb\rc\n", "a\nb\nc\n"),
        ("\n", "\n"),
        ("\r\r", "\n\n"),
        ("id: 5\n\ndata: forged", "id: 5\n\ndata: forged"),
        ("gr\u{fc}\u{df}\u{2028}e", "gr\u{fc}\u{df}\u{2028}e"),
    ] {
        let stream =
            encoded(&Event { id: Some("1"), event: Some("e"), data: Some(sent), retry_ms: None }).unwrap();
        assert_eq!(
            read_like_a_browser(&stream),
            ("1".to_owned(), "e".to_owned(), heard.to_owned()),
            "{sent:?}"
        );
        assert_eq!(stream.find("\n\n"), Some(stream.len() - 2), "one record: {stream:?}");
    }
}

#[test]
fn i50_line_ends_in_ids_names_and_comments_are_refused() {
    for bad in ["a\nb", "a\rb", "\n", "a\r\ndata: forged"] {
        assert_eq!(encoded(&Event { id: Some(bad), ..Event::default() }), Err(SseError::Id));
        assert_eq!(encoded(&Event { event: Some(bad), ..Event::default() }), Err(SseError::EventName));
        assert_eq!(comment(bad, &mut Vec::new()), Err(SseError::Comment));
    }
    assert_eq!(encoded(&Event { id: Some("a\0"), ..Event::default() }), Err(SseError::Id));
}

#[test]
fn comments_and_heartbeats() {
    let mut out = Vec::new();
    comment("hello", &mut out).unwrap();
    assert_eq!(out, b": hello\n\n");
    assert_eq!(read_like_a_browser(std::str::from_utf8(HEARTBEAT).unwrap()), Default::default());
}

#[test]
fn response_head_with_the_callers_fields() {
    let mut out = Vec::new();
    response_head(&[("Access-Control-Allow-Origin", "https://a.test"), ("Vary", "Origin")], &mut out)
        .unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"));
    assert!(text.ends_with("\r\nAccess-Control-Allow-Origin: https://a.test\r\nVary: Origin\r\n\r\n"));
    for bad in [("A", "x\r\nB: y"), ("A\r\nB", "x"), ("", "x"), ("A", "x\0"), ("A:", "x")] {
        let mut out = Vec::new();
        assert_eq!(response_head(&[("Ok", "ok"), bad], &mut out), Err(SseError::Field), "{bad:?}");
        assert!(out.is_empty());
    }
}

fn last_id(target: &str, fields: &str) -> Result<Option<String>, SseError> {
    let text = format!("GET {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    let head = RequestHead::parse(text.as_bytes(), &Limits::default()).unwrap();
    last_event_id(&head).map(|id| id.map(Cow::into_owned))
}

#[test]
fn last_event_id_from_the_field_then_the_query() {
    let some = |id: &str| Ok(Some(id.to_owned()));
    assert_eq!(last_id("/", ""), Ok(None));
    assert_eq!(last_id("/", "Last-Event-ID: 7\r\n"), some("7"));
    assert_eq!(last_id("/?lastEventId=5", "last-event-id: 7\r\n"), some("7"));
    assert_eq!(last_id("/?lastEventId=5", ""), some("5"));
    assert_eq!(last_id("/?a=b&last_event_id=a%3A5", ""), some("a:5"));
    assert_eq!(last_id("/?last_event_id=4&lastEventId=5", ""), some("5"));
    assert_eq!(last_id("/?lastEventId=", ""), Ok(None));
    assert_eq!(last_id("/", "Last-Event-ID:\r\n"), Ok(None));
}

#[test]
fn i50_bad_last_event_ids_are_refused() {
    assert_eq!(last_id("/?lastEventId=%0a", ""), Err(SseError::LastEventId));
    assert_eq!(last_id("/?lastEventId=%00", ""), Err(SseError::LastEventId));
    assert_eq!(last_id("/?lastEventId=%", ""), Err(SseError::Query(PercentError::Escape)));
    assert_eq!(last_id("/", "Last-Event-ID: 1\r\nLast-Event-ID: 2\r\n"), Err(SseError::LastEventId));
    let longest = "x".repeat(MAX_LAST_EVENT_ID);
    assert_eq!(last_id("/", &format!("Last-Event-ID: {longest}\r\n")), Ok(Some(longest.clone())));
    assert_eq!(last_id("/", &format!("Last-Event-ID: {longest}x\r\n")), Err(SseError::LastEventId));
}
