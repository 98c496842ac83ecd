//! The guard in front of the server that it guards: whatever passes, hyper must read as the guard did.

#![allow(clippy::unwrap_used, missing_docs)]

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use evenkeel_hub::proto::guard::{Guard, Limits, Verdict};
use fastrand::Rng;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};

/// A transport whose input is all there, in pieces, and then stays silent: on an end of file hyper would drop
/// requests that it has read and not answered.
struct Wire {
    input: Vec<u8>,
    at: usize,
    piece: usize,
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let end = self.input.len().min(self.at + self.piece.min(buffer.remaining()));
        buffer.put_slice(&self.input[self.at..end]);
        if end == self.at {
            return Poll::Pending;
        }
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The requests that hyper serves: method, target, and the body where it was complete.
fn hyper_serves(input: Vec<u8>, piece: usize) -> Vec<(String, Option<Vec<u8>>)> {
    let served = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&served);
    let service = service_fn(move |request: Request<Incoming>| {
        let log = Rc::clone(&log);
        async move {
            let line = format!("{} {}", request.method(), request.uri().path());
            log.borrow_mut().push((line, None));
            if let Ok(body) = request.into_body().collect().await {
                log.borrow_mut().last_mut().unwrap().1 = Some(body.to_bytes().to_vec());
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let mut connection = pin!(http1::Builder::new().serve_connection(Wire { input, at: 0, piece }, service));
    let mut context = Context::from_waker(Waker::noop());
    // Everything is ready at once, so that a few polls without news mean that none will come.
    let (mut quiet, mut seen) = (0, 0);
    while quiet < 20 {
        if connection.as_mut().poll(&mut context).is_ready() {
            break;
        }
        quiet = if seen == served.borrow().len() { quiet + 1 } else { 0 };
        seen = served.borrow().len();
    }
    served.take()
}

/// What passes the guard, the requests in it, and whether it was rejected.
fn guard_passes(input: &[u8]) -> (Vec<u8>, Vec<String>, bool) {
    let mut guard = Guard::new(Limits::default());
    let (mut at, mut requests) = (0, Vec::new());
    loop {
        match guard.next(&input[at..]) {
            Verdict::NeedMore => return (input[..at].to_vec(), requests, false),
            Verdict::Head(head) => {
                requests.push(format!("{} {}", head.method(), head.path()));
                guard.admit(1000).unwrap();
                guard.response_finished();
            }
            Verdict::Pass(n) => at += n,
            Verdict::Full => unreachable!("every response is finished"),
            Verdict::Reject(_) => return (input[..at].to_vec(), requests, true),
        }
    }
}

const PARTS: &[&str] = &[
    "GET /a HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET http://h/b?q HTTP/1.1\r\nHost: h\r\nX-Y:  z \r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
    "POST /l HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
    "POST /z HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
    "POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n00B\r\n0123456789\n\r\n0\r\n\r\n",
    "POST /e HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
    "GET /k HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "\r\nGET /i HTTP/1.1\r\nHost: h\r\n\r\n",
];

const SPICE: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    " ",
    "\t",
    ",",
    ";",
    ":",
    "0",
    "5",
    "a",
    "+",
    "-",
    "_",
    "\u{b}",
    "\u{7f}",
    "\r\n ",
    ";x=y",
    "chunked",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Host: h\r\n",
    "Connection: close\r\n",
    "HTTP/1.0",
    "X: y\r\n",
    "0\r\n\r\n",
    "GET /s HTTP/1.1\r\nHost: h\r\n\r\n",
];

fn stream(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..rng.usize(1..6) {
        bytes.extend_from_slice(rng.choice(PARTS).unwrap().as_bytes());
    }
    for _ in 0..rng.usize(0..3) {
        let at = rng.usize(0..bytes.len());
        match rng.u8(0..3) {
            0 => bytes[at] = rng.choice(SPICE).unwrap().as_bytes()[0],
            1 => drop(bytes.remove(at)),
            _ => drop(bytes.splice(at..at, rng.choice(SPICE).unwrap().bytes())),
        }
    }
    bytes
}

#[test]
fn i50_hyper_reads_what_passes_as_the_guard_does() {
    let (mut clean, mut rejected) = (0, 0);
    for seed in 0..20_000 {
        let mut rng = Rng::with_seed(seed);
        let bytes = stream(&mut rng);
        let (passed, requests, was_rejected) = guard_passes(&bytes);
        let piece = rng.usize(1..200);
        let served = hyper_serves(passed.clone(), piece);
        let lines: Vec<&String> = served.iter().map(|(line, _)| line).collect();
        let text = String::from_utf8_lossy(&bytes);
        if was_rejected {
            // A rejected body may have passed in part. Its request is then the last one and has no complete body.
            assert!(lines.len() <= requests.len(), "seed {seed}: {text:?}");
            assert!(lines.iter().copied().eq(requests.iter().take(lines.len())), "seed {seed}: {text:?}");
            rejected += 1;
        } else {
            assert!(
                lines.iter().copied().eq(&requests),
                "seed {seed}: {lines:?} for {requests:?} in {text:?}"
            );
            let incomplete = served.iter().rev().skip(1).any(|(_, body)| body.is_none());
            assert!(!incomplete, "seed {seed}: a body before the last is incomplete in {text:?}");
            clean += 1;
        }
    }
    assert!(clean > 3000 && rejected > 3000, "{clean} clean, {rejected} rejected");
}

#[test]
fn bodies_arrive_whole() {
    let bytes = PARTS.concat().into_bytes();
    let (passed, _, was_rejected) = guard_passes(&bytes);
    assert!(!was_rejected);
    assert_eq!(passed, bytes);
    let bodies: Vec<Vec<u8>> = hyper_serves(passed, 7).into_iter().map(|(_, body)| body.unwrap()).collect();
    let expected: [&[u8]; 9] = [b"", b"", b"", b"hello", b"", b"hello0123456789\n", b"", b"", b""];
    assert_eq!(bodies, expected);
}
