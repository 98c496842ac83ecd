#![allow(clippy::unwrap_used)]

use super::*;

fn parse(text: &[u8]) -> Result<RequestHead<'_>, HeadError> {
    let limits = Limits::default();
    let mut scanner = HeadScanner::new();
    match scanner.scan(text, &limits)? {
        Some(len) => RequestHead::parse(&text[..len], &limits),
        None => panic!("incomplete: {:?}", String::from_utf8_lossy(text)),
    }
}

fn refused(text: &[u8]) -> HeadError {
    match parse(text) {
        Err(error) => error,
        Ok(head) => panic!("accepted {:?} as {head:?}", String::from_utf8_lossy(text)),
    }
}

/// What is wrong with each request, which some server or proxy on the market takes.
pub(crate) const SMUGGLING: &[(&[u8], HeadError)] = {
    use HeadError::*;
    &[
        // Two ways to frame one body.
        (
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n",
            LengthAndCoding,
        ),
        (
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n",
            LengthAndCoding,
        ),
        (
            b"POST / HTTP/1.1\r\nHost: h\r\ntransfer-encoding: identity\r\nContent-Length: 6\r\n\r\n",
            LengthAndCoding,
        ),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\nContent-Length: 5\r\n\r\n", DuplicateLength),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\nContent-Length: 6\r\n\r\n", DuplicateLength),
        (
            b"POST / HTTP/1.1\r\nHost: h\r\ncontent-length: 6\r\nX: y\r\nCONTENT-LENGTH: 6\r\n\r\n",
            DuplicateLength,
        ),
        // Lengths that parsers read differently.
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6, 6\r\n\r\n", Length),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +6\r\n\r\n", Length),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -6\r\n\r\n", Length),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x6\r\n\r\n", Length),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6 6\r\n\r\n", Length),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6.0\r\n\r\n", Length),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6_0\r\n\r\n", Length),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: \"6\"\r\n\r\n", Length),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n", Length),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551616\r\n\r\n", Length),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: \xd9\xa6\r\n\r\n", Length),
        // Transfer codings that one side overlooks.
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n", TransferCoding),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n", TransferCoding),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity, chunked\r\n\r\n", TransferCoding),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", TransferCoding),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", TransferCoding),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked,\r\n\r\n", TransferCoding),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: ,chunked\r\n\r\n", TransferCoding),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", TransferCoding),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked;q=1\r\n\r\n", TransferCoding),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: cow\r\n\r\n", TransferCoding),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n\r\n", TransferCoding),
        (
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n",
            TransferCoding,
        ),
        (
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            TransferCoding,
        ),
        (
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            TransferCoding,
        ),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: ch\x80unked\r\n\r\n", TransferCoding),
        (b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", CodingInOldVersion),
        // Names that are nearly the right ones.
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n", FieldName),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding\t: chunked\r\n\r\n", FieldName),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length : 6\r\n\r\n", FieldName),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent Length: 6\r\n\r\n", FieldName),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length\x00: 6\r\n\r\n", FieldName),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding\r\n\r\n", FieldName),
        (b"POST / HTTP/1.1\r\nHost: h\r\n: chunked\r\n\r\n", FieldName),
        (b"POST / HTTP/1.1\r\nHost: h\r\n\xc2\xa0Content-Length: 6\r\n\r\n", FieldName),
        // Control characters in values.
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", FieldValue),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\x0c\r\n\r\n", FieldValue),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\x00\r\n\r\n", FieldValue),
        (b"POST / HTTP/1.1\r\nHost: h\r\nX: a\x1bb\r\n\r\n", FieldValue),
        (b"POST / HTTP/1.1\r\nHost: h\r\nX: a\x7fb\r\n\r\n", FieldValue),
        // Line ends that only some see.
        (b"POST / HTTP/1.1\r\nHost: h\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n", BareLineFeed),
        (b"POST / HTTP/1.1\nHost: h\n\n", BareLineFeed),
        (b"POST / HTTP/1.1\r\nHost: h\r\n\nX: y\r\n\r\n", BareLineFeed),
        (b"POST / HTTP/1.1\r\nHost: h\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n", BareCarriageReturn),
        (b"POST / HTTP/1.1\r\nHost: h\r\nX: y\r\r\n\r\n", BareCarriageReturn),
        (b"POST / HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\r\n", BareCarriageReturn),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", FoldedLine),
        (b"POST / HTTP/1.1\r\nHost: h\r\nX: y\r\n\tTransfer-Encoding: chunked\r\n\r\n", FoldedLine),
        (b"POST / HTTP/1.1\r\n Host: h\r\n\r\n", FoldedLine),
        // Whose request it is.
        (b"GET / HTTP/1.1\r\n\r\n", MissingHost),
        (b"GET / HTTP/1.1\r\nX-Host: h\r\n\r\n", MissingHost),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", DuplicateHost),
        (b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", DuplicateHost),
        (b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", DuplicateHost),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", Host),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Host),
        (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Host),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Host),
        (b"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", Host),
        (b"GET / HTTP/1.1\r\nHost: a:80:81\r\n\r\n", Host),
        (b"GET / HTTP/1.1\r\nHost: a:port\r\n\r\n", Host),
        (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Host),
        (b"GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", Host),
        (b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", Host),
        // The request line.
        (b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        (b"GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        (b"GET /\xc3\xbc HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Connect),
        (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", Version),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", Version),
        (b"PRI * HTTP/2.0\r\n\r\n", Version),
        (b"GET / http/1.1\r\nHost: a\r\n\r\n", Version),
        (b"GET /\r\n\r\n", RequestLine),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", Version),
        (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Version),
        (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", RequestLine),
        (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"G\x00T / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
    ]
};

pub(crate) const ACCEPTED: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET /a?b=c HTTP/1.1\r\nHost: h:8080\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n",
    b"GET http://h:80/a HTTP/1.1\r\nhost: H:80\r\n\r\n",
    b"GET https://h?q HTTP/1.1\r\nhost: h\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /{\"|}^ HTTP/1.1\r\nHost: h\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551615\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \t chunked \t \r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nTRANSFER-ENCODING: Chunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nX-Text: gr\xc3\xbc\xc3\x9fe\r\nX-Empty:\r\n\r\n",
];

#[test]
fn i50_smuggling_corpus_is_refused() {
    for (text, error) in SMUGGLING {
        assert_eq!(refused(text), *error, "{:?}", String::from_utf8_lossy(text));
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn ordinary_requests_are_accepted() {
    for text in ACCEPTED {
        if let Err(error) = parse(text) {
            panic!("{error} in {:?}", String::from_utf8_lossy(text));
        }
    }
}

#[test]
fn parts_of_a_head() {
    let text = b"POST /apps/1/events?auth_key=k HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\nX-A: 1\r\nx-a:  2 \r\n\r\n";
    let head = parse(text).unwrap();
    assert_eq!(head.bytes(), text);
    assert_eq!(head.method(), "POST");
    assert_eq!(head.target(), "/apps/1/events?auth_key=k");
    assert_eq!((head.path(), head.query()), ("/apps/1/events", Some("auth_key=k")));
    assert_eq!(head.version(), Version::Http11);
    assert_eq!(head.framing(), Framing::Length(12));
    assert_eq!(head.values("X-a").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!((head.sole("x-a"), head.sole("host"), head.sole("x-b")), (None, Some(&b"h"[..]), None));
    assert_eq!(head.fields().len(), 4);

    let head = parse(b"GET https://h?q HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert_eq!((head.path(), head.query(), head.framing()), ("/", Some("q"), Framing::None));
}

#[test]
fn keep_alive_by_version_and_connection() {
    for (version, connection, expected) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: foo, CLOSE\r\n", false),
        ("1.1", "Connection: foo\r\nConnection: close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let text = format!("GET / HTTP/{version}\r\nHost: h\r\n{connection}\r\n");
        assert_eq!(parse(text.as_bytes()).unwrap().keep_alive(), expected, "{text}");
    }
}

#[test]
fn sees_a_websocket_upgrade() {
    let ask = |fields: &str| {
        parse(format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n").as_bytes()).unwrap().wants_websocket()
    };
    assert!(ask("Upgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n"));
    assert!(!ask("Upgrade: websocket\r\n"));
    assert!(!ask("Connection: upgrade\r\nUpgrade: h2c\r\n"));
}

/// A head of exactly `len` bytes.
fn head_of(len: usize) -> Vec<u8> {
    let mut text = b"GET / HTTP/1.1\r\nHost: h\r\nX: ".to_vec();
    text.resize(len - 4, b'x');
    text.extend_from_slice(b"\r\n\r\n");
    text
}

#[test]
fn head_length_boundary() {
    assert!(parse(&head_of(8192)).is_ok());
    assert_eq!(refused(&head_of(8193)), HeadError::TooLarge { limit: 8192 });
    assert_eq!(HeadError::TooLarge { limit: 8192 }.status(), 431);
    // The same byte by byte, so that it is refused no later than the first byte too many.
    let text = head_of(8193);
    let mut reader = HeadReader::new();
    let limits = Limits::default();
    for (at, byte) in text.iter().enumerate() {
        let result = reader.next(&mut std::slice::from_ref(byte), &limits);
        match at {
            0..8191 => assert!(matches!(result, Ok(None))),
            _ => {
                assert_eq!(result.unwrap_err(), HeadError::TooLarge { limit: 8192 });
                break;
            }
        }
    }
}

#[test]
fn field_count_boundary() {
    let head = |fields: usize| {
        let mut text = b"GET / HTTP/1.1\r\nHost: h\r\n".to_vec();
        for _ in 1..fields {
            text.extend_from_slice(b"X: y\r\n");
        }
        text.extend_from_slice(b"\r\n");
        text
    };
    assert_eq!(parse(&head(64)).unwrap().fields().len(), 64);
    assert_eq!(refused(&head(65)), HeadError::TooManyFields { limit: 64 });
    assert_eq!(HeadError::TooManyFields { limit: 64 }.status(), 431);

    let limits = Limits { max_fields: 3, ..Limits::default() };
    assert!(RequestHead::parse(&head(3), &limits).is_ok());
    // The line too many is enough, without the head's end.
    let four = head(4);
    let scanned = HeadScanner::new().scan(&four[..four.len() - 2], &limits);
    assert_eq!(scanned, Err(HeadError::TooManyFields { limit: 3 }));
}

#[test]
fn target_length_boundary() {
    let head = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(len - 1)).into_bytes();
    assert!(parse(&head(4096)).is_ok());
    assert_eq!(refused(&head(4097)), HeadError::TargetTooLong { limit: 4096 });
    assert_eq!(refused(&head(10_000)), HeadError::TargetTooLong { limit: 4096 });
    assert_eq!(HeadError::TargetTooLong { limit: 4096 }.status(), 414);
}

#[test]
fn responses_are_complete() {
    for (error, line) in [
        (HeadError::TooLarge { limit: 1 }, "HTTP/1.1 431 Request Header Fields Too Large\r\n"),
        (HeadError::TargetTooLong { limit: 1 }, "HTTP/1.1 414 URI Too Long\r\n"),
        (HeadError::Version, "HTTP/1.1 505 HTTP Version Not Supported\r\n"),
        (HeadError::Connect, "HTTP/1.1 405 Method Not Allowed\r\n"),
        (HeadError::BareLineFeed, "HTTP/1.1 400 Bad Request\r\n"),
    ] {
        let response = String::from_utf8(error.response()).unwrap();
        assert!(response.starts_with(line), "{response}");
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("\r\nConnection: close"));
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
        assert_eq!(body.trim_end(), error.to_string());
    }
}

#[test]
fn every_single_split_gives_the_same_head_and_rest() {
    let text = b"\r\nGET /app/key?protocol=7 HTTP/1.1\r\nHost: h\r\nX: \ty\r\n\r\n\x81\x00rest\r\n\r\n";
    let len = text.len() - 10;
    for at in 0..=text.len() {
        let (mut first, mut second) = text.split_at(at);
        let mut reader = HeadReader::new();
        let limits = Limits::default();
        let early = reader.next(&mut first, &limits).unwrap().map(|head| head.bytes().to_vec());
        if let Some(bytes) = early {
            assert_eq!((&bytes[..], first), (&text[..len], &text[len..at]));
            assert!(!reader.in_head());
            continue;
        }
        assert!(first.is_empty());
        assert_eq!(reader.in_head(), at > 0);
        let head = reader.next(&mut second, &limits).unwrap().unwrap();
        assert_eq!((head.path(), head.sole("x")), ("/app/key", Some(&b"y"[..])));
        assert_eq!((head.bytes(), second), (&text[..len], &text[len..]));
    }
}

#[test]
fn a_reader_takes_one_head_after_the_other() {
    let mut reader = HeadReader::new();
    let limits = Limits::default();
    let text = b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut paths = Vec::new();
    for byte in text {
        if let Some(head) = reader.next(&mut std::slice::from_ref(byte), &limits).unwrap() {
            paths.push(head.path().to_owned());
        }
    }
    assert_eq!(paths, ["/1", "/2"]);
    assert!(reader.into_held().is_empty());

    let mut reader = HeadReader::new();
    assert!(reader.next(&mut &b"GET /partial"[..], &limits).unwrap().is_none());
    assert_eq!(reader.into_held(), b"GET /partial");
}

#[test]
fn byte_by_byte_looks_at_each_byte_once() {
    let limits = Limits::default();
    let mut fields = head_of(4000);
    fields.truncate(fields.len() - 2);
    while fields.len() < 8000 {
        fields.extend_from_slice(b"A: ");
        fields.resize(fields.len() + 150, b'b');
        fields.extend_from_slice(b"\r\n");
    }
    fields.extend_from_slice(b"\r\n");
    for text in [head_of(8192), fields] {
        let mut bulk = HeadScanner::new();
        assert_eq!(bulk.scan(&text, &limits), Ok(Some(text.len())));
        let mut slow = HeadScanner::new();
        for end in 1..text.len() {
            assert_eq!(slow.scan(&text[..end], &limits), Ok(None));
        }
        assert_eq!(slow.scan(&text, &limits), Ok(Some(text.len())));
        assert!(bulk.looks <= text.len());
        assert!(bulk.looks >= text.len() / 2, "the counter counts");
        assert!(slow.looks <= 2 * bulk.looks, "{} looks for {} bytes", slow.looks, text.len());
    }
}

#[test]
fn i50_parsing_directly_checks_the_same() {
    let direct = |text: &[u8]| RequestHead::parse(text, &Limits::default()).map(|_| ()).unwrap_err();
    assert_eq!(direct(b"GET / HTTP/1.1\nHost: h\n\n"), HeadError::BareLineFeed);
    assert_eq!(direct(b"GET / HTTP/1.1\r\nHost: h\r\n"), HeadError::RequestLine);
    assert_eq!(direct(b"GET / HTTP/1.1\r\nHost: h\r\n\r\nbody"), HeadError::RequestLine);
    assert_eq!(direct(b""), HeadError::RequestLine);
}

#[test]
fn query_strings() {
    assert_eq!(query::get("a=1&b=2&a=3", "a").unwrap().unwrap(), "1");
    assert_eq!(query::get("a=1", "b").unwrap(), None);
    assert_eq!(query::get("a%20b=x%2by+z", "a b").unwrap().unwrap(), "x+y z");
    assert_eq!(query::get("", "").unwrap(), None, "nothing is no parameter");
    assert_eq!(query::get("=v", "").unwrap().unwrap(), "v");
    assert_eq!(query::get("flag", "flag").unwrap().unwrap(), "");
    assert_eq!(query::get("a=b=c", "a").unwrap().unwrap(), "b=c");
    assert!(query::get("a=%&b=1", "b").is_err() && query::get("%=1&b=1", "b").is_err());
    assert_eq!(query::get("b=1&a=%", "b").unwrap().unwrap(), "1");
    assert!(query::pairs("a=1&b=%").last().unwrap().is_err());
    assert_eq!(query::pairs("&&a=1&&").count(), 1);
}
