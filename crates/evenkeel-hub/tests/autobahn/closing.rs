//! Section 7: the closing handshake.

use tungstenite::Message;

use crate::case::{Case, Cut, frame};

pub(crate) fn cases() -> Vec<Case> {
    [behind_a_close(), payloads(), codes()].concat()
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes(), reason].concat())
}

fn sends(id: impl Into<String>, frames: impl Into<Vec<Vec<u8>>>, answers: impl Into<Vec<Message>>) -> Case {
    Case::new(id).sends(Cut::Nowhere, frames, answers)
}

/// What comes before a close is served, what comes behind it is ignored.
fn behind_a_close() -> Vec<Case> {
    let (normal, hello) = (|| close(1000, b""), || frame(0x81, b"Good evening!"));
    let large = "BAsd7&jh23".repeat(26_215)[..256 << 10].to_owned();
    let all = [frame(0x81, large.as_bytes()), hello(), normal(), frame(0x89, b"")];
    vec![
        sends("7.1.1", [hello()], [Message::text("Good evening!")]),
        sends("7.1.2", [normal(), frame(0x88, b"")], []).closed(1000),
        sends("7.1.3", [normal(), frame(0x89, b"")], []).closed(1000),
        sends("7.1.4", [normal(), hello()], []).closed(1000),
        sends("7.1.5", [frame(0x01, b"one"), normal(), frame(0x80, b"two")], []).closed(1000),
        // The suite leaves open whether the messages are served; we do.
        sends("7.1.6", all, [Message::text(large), Message::text("Good evening!")]).closed(1000),
    ]
}

fn payloads() -> Vec<Case> {
    vec![
        sends("7.3.1", [frame(0x88, b"")], []).closed_without_code(),
        sends("7.3.2", [frame(0x88, b"a")], []).closed(1002),
        sends("7.3.3", [close(1000, b"")], []).closed(1000),
        sends("7.3.4", [close(1000, b"Good night!")], []).closed(1000),
        sends("7.3.5", [close(1000, &[b'*'; 123])], []).closed(1000),
        sends("7.3.6", [close(1000, &[b'*'; 124])], []).closed(1002),
        sends("7.5.1", [close(1000, b"\xce\xba\xed\xa0\x80edited")], []).closed(1007),
    ]
}

/// Codes that a client may send are answered with the same, others are an error. Of the last two the suite says nothing.
fn codes() -> Vec<Case> {
    let good = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    let bad = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999];
    let case = |section: &str, n: i32, code, answer| {
        sends(format!("{section}.{n}"), [close(code, b"")], []).closed(answer)
    };
    let good = (1..).zip(good).map(|(n, code)| case("7.7", n, code, code));
    let bad = (1..).zip(bad).map(|(n, code)| case("7.9", n, code, 1002));
    let beyond = (1..).zip([5000, 65_535]).map(|(n, code)| case("7.13", n, code, 1002));
    good.chain(bad).chain(beyond).collect()
}
