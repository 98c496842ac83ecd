//! Event streams: what is written is what a browser would read, and the id with which one comes back is read.

use evenkeel_hub::proto::head::{HeadReader, Limits};
use evenkeel_hub::proto::sse::{self, Event, MAX_LAST_EVENT_ID};

use crate::pieces::parts;

/// An id, a name, data, and a request's head, in this order, with zero bytes between them.
pub fn run(bytes: &[u8]) {
    let [id, name, data, head] = parts(bytes);
    let text = |bytes| std::str::from_utf8(bytes).ok();
    if let (Some(id), Some(name), Some(data)) = (text(id), text(name), text(data)) {
        record(id, name, data);
        comment(data);
        response_head(id, name);
    }
    last_event_id(head);
}

fn record(id: &str, name: &str, data: &str) {
    let retry_ms = (data.len() % 3 == 0).then_some(data.len() as u64);
    for with_id in [None, Some(id)] {
        let event = Event { id: with_id, event: Some(name), data: Some(data), retry_ms };
        let mut out = Vec::new();
        let breaks = |text: &str| text.contains(['\r', '\n']);
        let allowed = !breaks(name) && with_id.is_none_or(|id| !breaks(id) && !id.contains('\0'));
        assert_eq!(sse::encode(&event, &mut out).is_ok(), allowed);
        if !allowed {
            assert!(out.is_empty());
            continue;
        }
        sse::encode(&event, &mut out).expect("it was written before");
        let heard = browser(std::str::from_utf8(&out).expect("an event stream is UTF-8"));
        let expected = Heard {
            id: with_id.map(str::to_owned),
            event: name.to_owned(),
            data: data.replace("\r\n", "\n").replace('\r', "\n"),
            retry: retry_ms,
        };
        assert_eq!(heard, [expected.clone(), expected]);
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Heard {
    id: Option<String>,
    event: String,
    data: String,
    retry: Option<u64>,
}

/// Reads a stream as the HTML standard says, but for the last id, which is kept with each record here.
fn browser(stream: &str) -> Vec<Heard> {
    let (mut heard, mut now, mut any) = (Vec::new(), Heard::default(), false);
    for line in stream.replace("\r\n", "\n").replace('\r', "\n").split_terminator('\n') {
        if line.is_empty() {
            now.data.pop();
            if any {
                heard.push(std::mem::take(&mut now));
            }
            any = false;
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                now.data.push_str(value);
                now.data.push('\n');
                any = true;
            }
            "event" => value.clone_into(&mut now.event),
            "id" if !value.contains('\0') => now.id = Some(value.to_owned()),
            "retry" if value.bytes().all(|b| b.is_ascii_digit()) => now.retry = value.parse().ok(),
            _ => {}
        }
    }
    heard
}

fn comment(text: &str) {
    let mut out = Vec::new();
    let written = sse::comment(text, &mut out).is_ok();
    assert_eq!(written, !text.contains(['\r', '\n']));
    assert!(browser(&String::from_utf8_lossy(&out)).is_empty());
}

fn response_head(name: &str, value: &str) {
    let mut out = Vec::new();
    if sse::response_head(&[(name, value)], &mut out).is_err() {
        assert!(out.is_empty());
        return;
    }
    let head = std::str::from_utf8(&out).expect("what is accepted is text");
    assert_eq!(head.matches("\r\n\r\n").count(), 1);
    assert_eq!(head.matches('\n').count(), head.matches("\r\n").count());
    assert!(head.contains(&format!("\r\n{name}: {value}\r\n")));
}

fn last_event_id(bytes: &[u8]) {
    let (mut reader, mut rest) = (HeadReader::new(), bytes);
    let Ok(Some(head)) = reader.next(&mut rest, &Limits::default()) else { return };
    let fields: Vec<&[u8]> = head.values("last-event-id").collect();
    match sse::last_event_id(&head) {
        Ok(Some(id)) => {
            assert!(!id.is_empty() && id.len() <= MAX_LAST_EVENT_ID && !id.contains(char::is_control));
            assert!(fields.is_empty() || fields == [id.as_bytes()], "the field comes first");
        }
        Ok(None) => assert!(fields.is_empty() || fields == [b""]),
        Err(_) => {
            let plain =
                |value: &[u8]| value.iter().all(u8::is_ascii_graphic) && value.len() <= MAX_LAST_EVENT_ID;
            assert!(fields.len() != 1 || !plain(fields[0]), "a plain id is refused");
        }
    }
}
