use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::{End, Http, Response, read_more};

/// An event stream, as a plain `EventSource` reads it.
pub(crate) struct Sse {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
    pub(crate) head: String,
    pub(crate) last_id: Option<String>,
}

/// One block of the stream.
#[derive(Debug, PartialEq)]
pub(crate) enum Record {
    Event(Value),
    Comment,
    Retry(u64),
    End(End),
}

impl Sse {
    pub(crate) fn open(to: SocketAddr, path: &str, fields: &str) -> Sse {
        Sse::on(Http::connect(to), path, fields).unwrap_or_else(|refused| panic!("{refused:?}"))
    }

    pub(crate) fn on(mut http: Http, path: &str, fields: &str) -> Result<Sse, Response> {
        http.send(&request(path, fields));
        Sse::answered(http)
    }

    /// The request was sent; reads the answer.
    pub(crate) fn answered(mut http: Http) -> Result<Sse, Response> {
        let head = http.response_head();
        if !head.starts_with("HTTP/1.1 200 ") {
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            return Err(Response { status, head, body: http.take_unread() });
        }
        let buffer = http.take_unread();
        Ok(Sse { stream: http.stream, buffer, head, last_id: None })
    }

    /// The next block.
    pub(crate) fn next(&mut self) -> Record {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return self.parse(&String::from_utf8(block).unwrap());
            }
            if let Some(end) = read_more(&mut self.stream, &mut self.buffer) {
                return Record::End(end);
            }
        }
    }

    fn parse(&mut self, block: &str) -> Record {
        let (mut data, mut retry) = (Vec::new(), None);
        for line in block.lines() {
            match line.split_once(':') {
                Some(("data", text)) => data.push(text.strip_prefix(' ').unwrap_or(text)),
                Some(("id", id)) => self.last_id = Some(id.trim().to_owned()),
                Some(("retry", ms)) => retry = Some(ms.trim().parse().unwrap()),
                Some(("", _)) => {}
                _ => assert!(line.is_empty(), "{block:?}"),
            }
        }
        match (data.is_empty(), retry) {
            (false, _) => Record::Event(serde_json::from_str(&data.join("\n")).unwrap()),
            (true, Some(retry)) => Record::Retry(retry),
            (true, None) => Record::Comment,
        }
    }

    /// The next event. Heartbeats are no sign that it will come.
    pub(crate) fn event(&mut self) -> Value {
        for _ in 0..3 {
            match self.next() {
                Record::Event(event) => return event,
                Record::Comment | Record::Retry(_) => {}
                Record::End(end) => panic!("{end:?} instead of an event"),
            }
        }
        panic!("heartbeats only")
    }

    /// Passes over everything until the stream is live.
    pub(crate) fn is_caught_up(&mut self) -> Vec<Value> {
        let mut before = Vec::new();
        loop {
            let event = self.event();
            let done = event["event"] == "evenkeel:caught_up";
            before.push(event);
            if done {
                return before;
            }
        }
    }
}

/// The request for a stream, as a browser sends it.
pub(crate) fn request(path: &str, fields: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n{fields}\r\n"
    )
}
