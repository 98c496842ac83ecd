//! Seeded junk and damaged valid input for every parser: none may panic, none may hold more than its limit, and how
//! the input is cut into pieces must change nothing.

#![allow(clippy::unwrap_used)]

use std::borrow::Cow;

use fastrand::Rng;

use super::guard::{Guard, GuardError, Limits as GuardLimits, Verdict};
use super::head::tests::{ACCEPTED, SMUGGLING};
use super::head::{HeadError, HeadReader, Limits as HeadLimits, query};
use super::origin::{Origins, RequestOrigin};
use super::percent::{self, Plus};
use super::proxy::header::{self, MAX_V2};
use super::proxy::{Cidr, ForwardedBy, client_address};
use super::sse;
use super::ws::tests::{Heard, client_frame, decode};
use super::ws::{Decoder, Limits as WsLimits, Upgrade};

const ROUNDS: u64 = 3000;

/// Damages `bytes` in one to four places: a bit, a byte, a piece cut out, doubled, or put in from `spice`.
fn damage(bytes: &mut Vec<u8>, spice: &[&[u8]], rng: &mut Rng) {
    for _ in 0..rng.usize(1..=4) {
        let at = rng.usize(0..=bytes.len());
        let end = rng.usize(at..=bytes.len().min(at + 20));
        match rng.u8(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(0..8),
            1 if at < bytes.len() => bytes[at] = rng.u8(..),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let doubled = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, doubled));
            }
            4 => bytes.truncate(at),
            _ => drop(bytes.splice(at..at, rng.choice(spice).unwrap().iter().copied())),
        }
    }
}

fn junk(rng: &mut Rng, longest: usize) -> Vec<u8> {
    let len = rng.usize(0..longest);
    std::iter::repeat_with(|| rng.u8(..)).take(len).collect()
}

fn pieces<'b>(mut bytes: &'b [u8], rng: &mut Rng) -> Vec<&'b [u8]> {
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(rng.usize(1..=bytes.len().min(30)));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

fn websocket_input(rng: &mut Rng) -> Vec<u8> {
    if rng.u8(0..4) == 0 {
        return junk(rng, 300);
    }
    let mut bytes = Vec::new();
    for _ in 0..rng.usize(1..6) {
        let first = *rng.choice(&[0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8a, 0x88][..]).unwrap();
        let payload = match (first, rng.u8(0..4)) {
            (0x88, _) => vec![0x0f, 0xa0, b'x'],
            (0x89 | 0x8a, _) => junk(rng, 126),
            (_, 0) => junk(rng, 500),
            _ => "gr\u{fc}\u{df}e \u{1f600}".repeat(rng.usize(0..20)).into_bytes(),
        };
        bytes.extend(client_frame(first, &payload));
    }
    if rng.bool() {
        damage(&mut bytes, &[&[0xff; 9], &[0x81, 0xfe], &[0x80, 0x80, 0, 0, 0, 0]], rng);
    }
    bytes
}

#[test]
fn i50_websocket_survives_anything() {
    let limits = WsLimits { max_message: 600, max_fragments: 4 };
    let (mut clean, mut failed) = (0, 0);
    for seed in 0..ROUNDS {
        let mut rng = Rng::with_seed(seed);
        let bytes = websocket_input(&mut rng);
        let whole = decode(&mut Decoder::new(), &limits, [&bytes[..]]);
        let mut decoder = Decoder::new();
        let mut heard = Vec::new();
        for piece in pieces(&bytes, &mut rng) {
            heard.extend(decode(&mut decoder, &limits, [piece]));
            assert!(decoder.heap_size() <= 600 + 128 + 256, "seed {seed}: {} bytes", decoder.heap_size());
            assert_eq!(decoder.heap_size() > 0, decoder.in_message() || decoder.is_finished());
        }
        assert_eq!(heard, whole, "seed {seed}");
        match whole.last() {
            Some(Heard::Failed(_)) => failed += 1,
            _ => clean += 1,
        }
    }
    assert!(clean > 300 && failed > 300, "{clean} clean, {failed} failed");
}

const SPICE: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"\r\n ",
    b"Content-Length: 5\r\n",
    b"\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding : chunked",
    b"Host: h\r\n",
    b"HTTP/1.0",
    b"chunked",
    b", ",
    b";",
    b"0\r\n\r\n",
    b"\xff",
];

fn request_stream(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..rng.usize(1..5) {
        match rng.u8(0..8) {
            0 => bytes.extend_from_slice(rng.choice(SMUGGLING).unwrap().0),
            1 => bytes.extend_from_slice(
                b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0A\r\n0123456789\r\n0\r\n\r\n",
            ),
            2 => bytes.extend_from_slice(b"POST /l HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"),
            _ => bytes.extend_from_slice(rng.choice(ACCEPTED).unwrap()),
        }
    }
    match rng.u8(0..8) {
        0 => junk(rng, 200),
        1 | 2 => bytes,
        _ => {
            damage(&mut bytes, SPICE, rng);
            bytes
        }
    }
}

/// Everything that passes the guard, the paths it showed, and how it ended.
fn guarded<'i>(pieces: impl IntoIterator<Item = &'i [u8]>) -> (Vec<u8>, Vec<String>, Option<GuardError>) {
    let mut guard = Guard::new(GuardLimits { max_in_flight: 1, ..GuardLimits::default() });
    let (mut unread, mut passed, mut paths) = (Vec::new(), Vec::new(), Vec::new());
    for piece in pieces {
        unread.extend_from_slice(piece);
        loop {
            match guard.next(&unread) {
                Verdict::NeedMore => break,
                Verdict::Full => guard.response_finished(),
                Verdict::Head(head) => {
                    paths.push(head.path().to_owned());
                    let _ = Upgrade::from_head(&head);
                    let _ = sse::last_event_id(&head);
                    let _ = RequestOrigin::from_head(&head);
                    let _ = head.query().map(|query| query::pairs(query).count());
                    let _ = guard.admit(12);
                }
                Verdict::Pass(n) => passed.extend(unread.drain(..n)),
                Verdict::Reject(error) => {
                    let _ = error.response();
                    return (passed, paths, Some(error));
                }
            }
        }
    }
    (passed, paths, None)
}

#[test]
fn i50_guard_survives_anything_and_pieces_change_nothing() {
    let (mut clean, mut rejected) = (0, 0);
    for seed in 0..ROUNDS {
        let mut rng = Rng::with_seed(seed);
        let bytes = request_stream(&mut rng);
        let whole = guarded([&bytes[..]]);
        assert!(bytes.starts_with(&whole.0), "seed {seed}: bytes were changed on the way");
        // A body that is refused in its middle may have passed in part, and in pieces more of it.
        let cut = guarded(pieces(&bytes, &mut rng));
        assert_eq!((&whole.1, &whole.2), (&cut.1, &cut.2), "seed {seed}");
        if whole.2.is_none() {
            assert_eq!(whole.0, cut.0, "seed {seed}");
        }
        match whole.2 {
            None => clean += 1,
            Some(_) => rejected += 1,
        }
    }
    assert!(clean > 300 && rejected > 300, "{clean} clean, {rejected} rejected");
}

/// What passed the guard once passes it again, whole: it never leaves the server with something it would refuse.
#[test]
fn i50_what_passed_the_guard_is_beyond_doubt() {
    for seed in 0..ROUNDS {
        let bytes = request_stream(&mut Rng::with_seed(seed));
        let (passed, paths, error) = guarded([&bytes[..]]);
        if error.is_none() {
            assert_eq!(guarded([&passed[..]]), (passed.clone(), paths, None), "seed {seed}");
        }
    }
}

fn heads<'i>(pieces: impl IntoIterator<Item = &'i [u8]>) -> (Vec<Vec<u8>>, Option<HeadError>) {
    let limits = HeadLimits { max_head: 400, ..HeadLimits::default() };
    let mut reader = HeadReader::new();
    let mut heads = Vec::new();
    let mut error = None;
    for mut piece in pieces {
        while !piece.is_empty() && error.is_none() {
            match reader.next(&mut piece, &limits) {
                Ok(Some(head)) => heads.push(head.bytes().to_vec()),
                Ok(None) => assert!(piece.is_empty()),
                Err(found) => error = Some(found),
            }
        }
    }
    assert!(reader.into_held().capacity() <= 1024, "a reader holds little more than its limit");
    (heads, error)
}

#[test]
fn i50_heads_survive_anything_and_pieces_change_nothing() {
    for seed in 0..ROUNDS {
        let mut rng = Rng::with_seed(seed);
        let bytes = request_stream(&mut rng);
        assert_eq!(heads([&bytes[..]]), heads(pieces(&bytes, &mut rng)), "seed {seed}");
    }
}

#[test]
fn i50_proxy_headers_survive_anything() {
    let valid: [&[u8]; 3] = [
        b"PROXY TCP4 192.0.2.1 10.0.0.1 55555 443\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0f\xc0\x00\x02\x01\x0a\x00\x00\x01\xd9\x03\x01\xbb\x01\x00\x00",
        b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00",
    ];
    let mut read = 0;
    for seed in 0..ROUNDS {
        let mut rng = Rng::with_seed(seed);
        let mut bytes = rng.choice(valid).unwrap().to_vec();
        damage(&mut bytes, &[b" ", b"\r\n", &[0xff, 0xff], &[0]], &mut rng);
        // The verdict over all bytes is that of the first prefix that has one.
        let first =
            (0..=bytes.len()).map(|at| header::parse(&bytes[..at])).find(|result| *result != Ok(None));
        assert_eq!(first.unwrap_or(Ok(None)), header::parse(&bytes), "seed {seed}: {bytes:x?}");
        if let Ok(Some(header)) = header::parse(&bytes) {
            assert!(header.len <= bytes.len().min(MAX_V2));
            read += 1;
        }
    }
    assert!(read > 100, "{read} were still valid");
}

#[test]
fn i50_text_helpers_survive_anything() {
    let trusted: [Cidr; 1] = ["10.0.0.0/8".parse().unwrap()];
    let peer = "10.0.0.1".parse().unwrap();
    let origins = Origins::parse(["https://*.example.com", "null"]).unwrap();
    for seed in 0..ROUNDS {
        let mut rng = Rng::with_seed(seed);
        let mut text =
            b"for=\"[2001:db8::1]:80\", https://a.example.com:443, 10.0.0.0/8, a=%41&b=c+d".to_vec();
        let from = rng.usize(0..text.len());
        text.drain(..from);
        damage(&mut text, &[b"%", b"\"", b"[", b"]", b":", b"/", b"\r\n", b"\xff"], &mut rng);
        for by in [ForwardedBy::XForwardedFor, ForwardedBy::Forwarded] {
            let _ = client_address(peer, &trusted, by, [&text[..]].into_iter());
        }
        let text = String::from_utf8_lossy(&text);
        let _ = text.parse::<Cidr>();
        let _ = Origins::parse([&*text]);
        if let Some(fields) = origins.cors(&text) {
            assert!(fields.iter().all(|(_, value)| !value.contains(char::is_control)));
        }
        for part in text.split(['&', '=']) {
            if let Ok(decoded) = percent::decode(part, Plus::Space) {
                assert!(decoded.len() <= part.len());
                assert!(matches!(decoded, Cow::Owned(_)) || decoded == part);
            }
        }
        let mut out = Vec::new();
        let event = sse::Event { id: Some(&text), event: Some("e"), data: Some(&text), retry_ms: None };
        if sse::encode(&event, &mut out).is_ok() {
            let out = String::from_utf8(out).unwrap();
            assert_eq!(out.matches("\n\n").count(), 1, "seed {seed}: {out:?}");
        }
    }
}
