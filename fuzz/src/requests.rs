//! The strict check of a connection's requests: against a second reader of the grammar, which looks at the whole stream
//! at once.

mod grammar;

use evenkeel_hub::proto::guard::{Guard, Limits, Verdict};
use evenkeel_hub::proto::head::{self, Framing, HeadError, HeadReader};

use crate::pieces::cuts;
use grammar::{End, Seen};

const HEAD: head::Limits = head::Limits { max_head: 600, max_target: 200, max_fields: 12 };
/// The longest body that is admitted.
const BODY: u64 = 100;

/// Checks a stream of requests, in each way to cut it, and compares.
pub fn run(bytes: &[u8]) {
    let whole = guarded([bytes]);
    assert!(bytes.starts_with(&whole.passed), "bytes were changed on the way");
    for pieces in cuts(bytes) {
        let cut = guarded(pieces);
        assert_eq!(
            (&cut.seen, &cut.rejected),
            (&whole.seen, &whole.rejected),
            "in pieces it is something else"
        );
        assert!(bytes.starts_with(&cut.passed));
        // A body that is refused in its middle may have passed in part, and in pieces more of it.
        assert!(whole.rejected.is_some() || cut.passed == whole.passed);
    }
    let (seen, end) = grammar::read(bytes, &HEAD, BODY);
    assert_eq!(whole.seen, seen, "the grammar says something else");
    match end {
        End::Refused => assert!(whole.rejected.is_some(), "the grammar refuses what passed"),
        End::Open { passed } => assert_eq!((&whole.rejected, whole.passed.len()), (&None, passed)),
    }
    if whole.rejected.is_none() {
        let again = guarded([&whole.passed[..]]);
        assert_eq!((again.seen, again.passed, again.rejected), (whole.seen, whole.passed, None));
    }
    heads(bytes);
}

struct Guarded {
    passed: Vec<u8>,
    seen: Vec<Seen>,
    rejected: Option<String>,
}

/// What the guard lets pass, the heads that it shows, and why it ends the connection.
fn guarded<'i>(pieces: impl IntoIterator<Item = &'i [u8]>) -> Guarded {
    let mut guard = Guard::new(Limits { head: HEAD, max_in_flight: 1 });
    let (mut unread, mut found) =
        (Vec::new(), Guarded { passed: Vec::new(), seen: Vec::new(), rejected: None });
    for piece in pieces {
        unread.extend_from_slice(piece);
        loop {
            match guard.next(&unread) {
                Verdict::NeedMore => break,
                Verdict::Full => guard.response_finished(),
                Verdict::Head(head) => {
                    found.seen.push(Seen::of(&head));
                    // Whether it is admitted is what the next verdict says, too.
                    let _ = guard.admit(BODY);
                }
                Verdict::Pass(n) => {
                    assert!(n > 0 && n <= unread.len());
                    found.passed.extend(unread.drain(..n));
                }
                Verdict::Reject(error) => {
                    if let Some(response) = error.response() {
                        assert!(response.starts_with(format!("HTTP/1.1 {} ", error.status()).as_bytes()));
                        assert!(response.len() < 1_000);
                    }
                    found.rejected = Some(error.label().to_owned());
                    return found;
                }
            }
        }
        assert!(unread.len() <= HEAD.max_head, "{} bytes are kept for a head", unread.len());
    }
    found
}

/// Heads one after the other, without their bodies: the reader that holds what has arrived.
fn heads(bytes: &[u8]) {
    let whole = read_heads([bytes]);
    for pieces in cuts(bytes) {
        assert_eq!(read_heads(pieces), whole, "in pieces it is something else");
    }
}

fn read_heads<'i>(pieces: impl IntoIterator<Item = &'i [u8]>) -> (Vec<Seen>, Option<HeadError>) {
    let (mut reader, mut heads) = (HeadReader::new(), Vec::new());
    for mut piece in pieces {
        while !piece.is_empty() {
            match reader.next(&mut piece, &HEAD) {
                Ok(Some(head)) => {
                    assert!(head.bytes().len() <= HEAD.max_head && head.target().len() <= HEAD.max_target);
                    assert!(head.fields().len() <= HEAD.max_fields);
                    assert!(
                        !matches!(head.framing(), Framing::Chunked) || head.sole("content-length").is_none()
                    );
                    heads.push(Seen::of(&head));
                }
                Ok(None) => assert!(piece.is_empty()),
                Err(error) => return (heads, Some(error)),
            }
        }
    }
    assert!(reader.into_held().capacity() <= 2 * HEAD.max_head, "a reader holds little more than its limit");
    (heads, None)
}
