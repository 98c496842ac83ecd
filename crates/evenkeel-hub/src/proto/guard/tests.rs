#![allow(clippy::unwrap_used)]

use super::*;
use crate::proto::head::HeadError;
use crate::proto::head::tests::{ACCEPTED, SMUGGLING};

/// A connection through the guard to a server that answers at once.
struct Connection {
    guard: Guard,
    unread: Vec<u8>,
    passed: Vec<u8>,
    paths: Vec<String>,
    max_body: u64,
}

impl Connection {
    fn new() -> Connection {
        Connection {
            guard: Guard::new(Limits::default()),
            unread: Vec::new(),
            passed: Vec::new(),
            paths: Vec::new(),
            max_body: 1000,
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), GuardError> {
        self.unread.extend_from_slice(bytes);
        loop {
            match self.guard.next(&self.unread) {
                Verdict::NeedMore => return Ok(()),
                Verdict::Head(head) => {
                    self.paths.push(head.path().to_owned());
                    self.guard.admit(self.max_body)?;
                    self.guard.response_finished();
                }
                Verdict::Pass(n) => {
                    assert!(n > 0, "a pass of nothing");
                    self.passed.extend(self.unread.drain(..n));
                }
                Verdict::Full => panic!("every response is finished"),
                Verdict::Reject(error) => {
                    assert!(
                        matches!(self.guard.next(&self.unread), Verdict::Reject(again) if again == error)
                    );
                    return Err(error);
                }
            }
        }
    }
}

const CHUNKED: &[u8] = b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";

fn chunked(body: &[u8]) -> Result<Connection, GuardError> {
    let mut whole = Connection::new();
    let result = whole.receive(&[CHUNKED, body].concat());
    // Byte by byte ends the same way and passes no more than whole.
    let mut slow = Connection::new();
    let slow_result = [CHUNKED, body].concat().chunks(1).try_for_each(|byte| slow.receive(byte));
    assert_eq!(result, slow_result, "{:?}", String::from_utf8_lossy(body));
    result.map(|()| {
        assert_eq!(whole.passed, slow.passed);
        whole
    })
}

#[test]
fn every_split_of_a_stream_passes_the_same_bytes() {
    let stream = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n\r\nPOST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello\
        POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n00a\r\n0123456789\r\n0\r\n\r\n\
        GET /d HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    for at in 0..=stream.len() {
        let mut connection = Connection::new();
        connection.receive(&stream[..at]).unwrap();
        connection.receive(&stream[at..]).unwrap();
        assert_eq!(connection.passed, stream, "split at {at}");
        assert_eq!(connection.paths, ["/a", "/b", "/c", "/d"]);
    }
    for len in 1..50 {
        let mut connection = Connection::new();
        stream.chunks(len).for_each(|piece| connection.receive(piece).unwrap());
        assert_eq!(connection.passed, stream, "pieces of {len}");
    }
}

#[test]
fn nothing_of_a_request_passes_before_its_head_is_admitted() {
    let mut guard = Guard::new(Limits::default());
    let first = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
    let second = b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n";
    let stream = [&first[..], second].concat();
    assert!(matches!(guard.next(b""), Verdict::NeedMore));
    assert!(matches!(guard.next(&stream[..20]), Verdict::NeedMore));
    assert!(guard.in_request(20));
    for _ in 0..2 {
        assert!(matches!(guard.next(&stream), Verdict::Head(head) if head.path() == "/a"));
    }
    guard.admit(3).unwrap();
    assert!(matches!(guard.next(&stream), Verdict::Pass(n) if n == first.len()));
    assert!(!guard.in_request(0));
    let rest = &stream[first.len()..];
    assert!(matches!(guard.next(rest), Verdict::Head(head) if head.bytes() == second));
    assert_eq!(guard.in_flight(), 1);
}

#[test]
fn i50_smuggling_corpus_passes_nothing() {
    for &(text, error) in SMUGGLING {
        let mut connection = Connection::new();
        connection.receive(b"GET /first HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let before = connection.passed.len();
        let smuggled = [text, b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
        assert_eq!(
            connection.receive(&smuggled),
            Err(GuardError::Head(error)),
            "{:?}",
            String::from_utf8_lossy(text)
        );
        assert_eq!(connection.passed.len(), before);
        assert_eq!(connection.paths, ["/first"]);
    }
    for text in ACCEPTED {
        let mut connection = Connection::new();
        connection.max_body = u64::MAX;
        connection.receive(text).unwrap();
        assert_eq!(connection.passed, *text);
    }
}

#[test]
fn i50_malformed_chunks_are_rejected() {
    use GuardError::*;
    let cases: &[(&[u8], GuardError)] = &[
        (b"5;a=b\r\nhello\r\n0\r\n\r\n", ChunkExtension),
        (b"5;\r\nhello\r\n0\r\n\r\n", ChunkExtension),
        (b"5;\nx\r\n0\r\n\r\n", ChunkExtension),
        (b"5;a=\"\r\n\"\r\nhello\r\n", ChunkExtension),
        (b"5 \r\nhello\r\n0\r\n\r\n", ChunkExtension),
        (b"5\t\r\nhello\r\n0\r\n\r\n", ChunkExtension),
        (b"0;a\r\n\r\n", ChunkExtension),
        (b"5\nhello\r\n0\r\n\r\n", ChunkSize),
        (b"5\r\rhello\r\n0\r\n\r\n", ChunkLineEnd),
        (b"5\rhello\r\n0\r\n\r\n", ChunkLineEnd),
        (b"5\r\nhello\n0\r\n\r\n", ChunkLineEnd),
        (b"5\r\nhello0\r\n\r\n", ChunkLineEnd),
        (b"5\r\nhello!\r\n0\r\n\r\n", ChunkLineEnd),
        (b"5\r\nhello\r0\r\n\r\n", ChunkLineEnd),
        (b"0\r\n\n", ChunkLineEnd),
        (b"0\r\n\rX", ChunkLineEnd),
        (b"0\n\n", ChunkSize),
        (b"\r\n\r\n", ChunkSize),
        (b" 5\r\nhello\r\n0\r\n\r\n", ChunkSize),
        (b";a\r\n", ChunkSize),
        (b"+5\r\nhello\r\n0\r\n\r\n", ChunkSize),
        (b"-1\r\n", ChunkSize),
        (b"0x5\r\nhello\r\n0\r\n\r\n", ChunkSize),
        (b"5_0\r\n", ChunkSize),
        (b"g\r\n", ChunkSize),
        (b"\xc2\xb2\r\n", ChunkSize),
        (b"10000000000000005\r\nhello\r\n", ChunkSize),
        (b"00000000000000005\r\nhello\r\n", ChunkSize),
        (b"ffffffffffffffff\r\n", BodyTooLarge { limit: 1000 }),
        (b"5\r\nhello\r\nfffffffffffffffc\r\n", BodyTooLarge { limit: 1000 }),
        (b"0\r\nX: y\r\n\r\n", Trailer),
        (b"0\r\nContent-Length: 5\r\n\r\n", Trailer),
        (b"0\r\n GET", Trailer),
    ];
    for (body, error) in cases {
        assert_eq!(chunked(body).err(), Some(*error), "{:?}", String::from_utf8_lossy(body));
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn well_formed_chunks_pass() {
    for body in [
        &b"0\r\n\r\n"[..],
        b"5\r\nhello\r\n0\r\n\r\n",
        b"a\r\n0123456789\r\nA\r\n0123456789\r\n000\r\n\r\n",
        b"1f\r\n0123456789012345678901234567890\r\nF\r\n012345678901234\r\n0\r\n\r\n",
        b"0000000000000005\r\n\r\n\r\n\r\r\n0\r\n\r\n",
    ] {
        let mut connection = chunked(body).unwrap();
        assert_eq!(connection.passed, [CHUNKED, body].concat());
        connection.receive(b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert_eq!(connection.paths, ["/c", "/next"]);
    }
}

#[test]
fn body_limit_boundary() {
    let declared = |len: u64| {
        let mut connection = Connection::new();
        connection.receive(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {len}\r\n\r\n").as_bytes())
    };
    assert_eq!(declared(1000), Ok(()));
    let too_large = GuardError::BodyTooLarge { limit: 1000 };
    assert_eq!(declared(1001), Err(too_large));
    assert_eq!(
        (too_large.status(), too_large.response().unwrap().starts_with(b"HTTP/1.1 413 ")),
        (413, true)
    );

    let in_chunks = |last: usize| {
        let body = format!("3e7\r\n{}\r\n{last}\r\n{}\r\n0\r\n\r\n", "x".repeat(999), "x".repeat(last));
        chunked(body.as_bytes()).map(|_| ())
    };
    assert_eq!(in_chunks(1), Ok(()));
    assert_eq!(in_chunks(2), Err(too_large));
}

#[test]
fn a_refused_body_passes_nothing_of_its_head() {
    let mut guard = Guard::new(Limits::default());
    let stream = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n123456789";
    assert!(matches!(guard.next(stream), Verdict::Head(_)));
    assert_eq!(guard.admit(8), Err(GuardError::BodyTooLarge { limit: 8 }));
    assert!(matches!(guard.next(stream), Verdict::Reject(GuardError::BodyTooLarge { limit: 8 })));
    assert_eq!(guard.in_flight(), 0);
}

#[test]
fn pipelining_boundary() {
    let request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut guard = Guard::new(Limits::default());
    for _ in 0..16 {
        assert!(matches!(guard.next(request), Verdict::Head(_)));
        guard.admit(0).unwrap();
        assert!(matches!(guard.next(request), Verdict::Pass(n) if n == request.len()));
    }
    assert_eq!(guard.in_flight(), 16);
    assert!(matches!(guard.next(request), Verdict::Full));
    assert!(matches!(guard.next(request), Verdict::Full));
    guard.response_finished();
    assert!(matches!(guard.next(request), Verdict::Head(_)));
}

#[test]
fn nothing_passes_after_the_last_request() {
    for last in ["GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"] {
        let mut connection = Connection::new();
        connection.receive(last.as_bytes()).unwrap();
        assert_eq!(connection.passed, last.as_bytes());
        let late = connection.receive(b"GET /late HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(late, Err(GuardError::AfterLastRequest));
        assert!(GuardError::AfterLastRequest.response().is_none());
    }
}

#[test]
fn a_body_that_looks_like_a_request_is_a_body() {
    let inner = b"GET /admin HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut connection = Connection::new();
    let head = format!("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", inner.len());
    connection.receive(&[head.as_bytes(), inner].concat()).unwrap();
    assert_eq!(connection.paths, ["/a"]);
}

#[test]
fn a_head_without_end_is_rejected_at_its_limit() {
    let mut connection = Connection::new();
    connection.receive(b"GET / HTTP/1.1\r\nHost: h\r\nX: ").unwrap();
    let error = GuardError::Head(HeadError::TooLarge { limit: 8192 });
    let mut result = Ok(());
    while result.is_ok() {
        result = connection.receive(&[b'x'; 100]);
        assert!(connection.unread.len() <= 8192 + 100);
    }
    assert_eq!(result, Err(error));
    assert_eq!(error.status(), 431);
}

#[test]
#[should_panic(expected = "admit follows Verdict::Head")]
fn admitting_nothing_is_our_mistake() {
    let _ = Guard::new(Limits::default()).admit(0);
}
