//! Sections 1 to 5: messages of every form of length, pings, reserved bits, opcodes, fragments.

use tungstenite::Message;

use crate::case::{Case, Cut, fragments, frame};

const HELLO: &str = "Good morning!";

pub(crate) fn cases() -> Vec<Case> {
    [
        lengths(),
        pings(),
        reserved_bits(),
        opcodes(),
        fragmented_control(),
        fragmented(),
        stray_continuations(),
        pauses(),
    ]
    .concat()
}

fn hello() -> Vec<u8> {
    frame(0x81, HELLO.as_bytes())
}

fn lengths() -> Vec<Case> {
    let sizes = [0, 125, 126, 127, 128, 65_535, 65_536, 65_536];
    let cut = |n| if n == 8 { Cut::Every(997) } else { Cut::Nowhere };
    let text = (1..).zip(sizes).map(|(n, size)| {
        let text = "*".repeat(size);
        Case::new(format!("1.1.{n}")).sends(cut(n), [frame(0x81, text.as_bytes())], [Message::text(text)])
    });
    let binary = (1..).zip(sizes).map(|(n, size)| {
        let data = vec![0xfe; size];
        Case::new(format!("1.2.{n}")).sends(cut(n), [frame(0x82, &data)], [Message::binary(data)])
    });
    text.chain(binary).collect()
}

fn pong(payload: &[u8]) -> Message {
    Message::Pong(payload.to_vec().into())
}

fn pings() -> Vec<Case> {
    let ping =
        |id: &str, cut, payload: &[u8]| Case::new(id).sends(cut, [frame(0x89, payload)], [pong(payload)]);
    let unasked = |payload: &[u8]| frame(0x8a, payload);
    let ten: Vec<Vec<u8>> = (0..10).map(|n| format!("ping number {n}").into_bytes()).collect();
    let many = |id, cut| {
        let frames: Vec<_> = ten.iter().map(|payload| frame(0x89, payload)).collect();
        Case::new(id).sends(cut, frames, ten.iter().map(|payload| pong(payload)).collect::<Vec<_>>())
    };
    vec![
        ping("2.1", Cut::Nowhere, b""),
        ping("2.2", Cut::Nowhere, HELLO.as_bytes()),
        ping("2.3", Cut::Nowhere, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"),
        ping("2.4", Cut::Nowhere, &[0xfe; 125]),
        Case::new("2.5").sends(Cut::Nowhere, [frame(0x89, &[0xfe; 126])], []).closed(1002),
        ping("2.6", Cut::Every(1), &[0xfe; 125]),
        Case::new("2.7").sends(Cut::Nowhere, [unasked(b"")], []),
        Case::new("2.8").sends(Cut::Nowhere, [unasked(b"nobody asked")], []),
        Case::new("2.9").sends(
            Cut::Nowhere,
            [unasked(b"nobody asked"), frame(0x89, b"asked")],
            [pong(b"asked")],
        ),
        many("2.10", Cut::Nowhere),
        many("2.11", Cut::Every(1)),
    ]
}

/// A good message, then a bad frame: the message is answered, the ping behind is not.
fn after_a_message(id: &str, cut: Cut, bad: Vec<u8>) -> Case {
    Case::new(id).sends(cut, [hello(), bad, frame(0x89, b"")], [Message::text(HELLO)]).closed(1002)
}

fn reserved_bits() -> Vec<Case> {
    let alone = |id, first, payload: &[u8]| {
        Case::new(id).sends(Cut::Nowhere, [frame(first, payload)], []).closed(1002)
    };
    vec![
        alone("3.1", 0x81 | 1 << 4, HELLO.as_bytes()),
        after_a_message("3.2", Cut::Nowhere, frame(0x81 | 2 << 4, HELLO.as_bytes())),
        after_a_message("3.3", Cut::BetweenFrames, frame(0x81 | 3 << 4, HELLO.as_bytes())),
        after_a_message("3.4", Cut::Every(1), frame(0x81 | 4 << 4, HELLO.as_bytes())),
        alone("3.5", 0x82 | 5 << 4, b"\x00\xff\xfe\xfd"),
        alone("3.6", 0x89 | 6 << 4, HELLO.as_bytes()),
        alone("3.7", 0x88 | 7 << 4, b""),
    ]
}

/// Opcodes that the RFC reserves, for data and for control.
fn opcodes() -> Vec<Case> {
    let group = |section: &str, base: u8| {
        let id = |n: u8| format!("{section}.{n}");
        let bad = |n: u8, payload: &[u8]| frame(0x80 | (base + n), payload);
        let alone =
            |n, payload: &[u8]| Case::new(id(n)).sends(Cut::Nowhere, [bad(n - 1, payload)], []).closed(1002);
        [
            alone(1, b""),
            alone(2, b"a payload"),
            after_a_message(&id(3), Cut::Nowhere, bad(2, b"")),
            after_a_message(&id(4), Cut::Nowhere, bad(3, b"a payload")),
            after_a_message(&id(5), Cut::Every(1), bad(4, b"a payload")),
        ]
    };
    [group("4.1", 3), group("4.2", 11)].concat()
}

fn fragmented_control() -> Vec<Case> {
    [("5.1", 0x09), ("5.2", 0x0a)]
        .map(|(id, opcode)| {
            Case::new(id).sends(Cut::Nowhere, fragments(opcode, [&b"one"[..], b"two"]), []).closed(1002)
        })
        .into()
}

const CUTS: [Cut; 3] = [Cut::Nowhere, Cut::BetweenFrames, Cut::Every(1)];

fn fragmented() -> Vec<Case> {
    let parts = [&b"one "[..], b"message"];
    let whole = || Message::text("one message");
    let plain = (3..)
        .zip(CUTS)
        .map(|(n, cut)| Case::new(format!("5.{n}")).sends(cut, fragments(0x01, parts), [whole()]));
    let with_a_ping = (6..).zip(CUTS).map(|(n, cut)| {
        let mut frames = fragments(0x01, parts);
        frames.insert(1, frame(0x89, b"between"));
        Case::new(format!("5.{n}")).sends(cut, frames, [pong(b"between"), whole()])
    });
    plain.chain(with_a_ping).collect()
}

/// Continuations of nothing, and beginnings inside a message.
fn stray_continuations() -> Vec<Case> {
    let mut cases = Vec::new();
    for (base, first) in [(9, 0x80), (12, 0x00)] {
        for (n, cut) in (base..).zip(CUTS) {
            let frames = [frame(first, b"of nothing"), hello()];
            cases.push(Case::new(format!("5.{n}")).sends(cut, frames, []).closed(1002));
        }
    }
    let message = || fragments(0x01, [&b"one "[..], b"message"]);
    let behind = [message(), vec![frame(0x00, b"of nothing"), hello()]].concat();
    cases.push(Case::new("5.15").sends(Cut::Nowhere, behind, [Message::text("one message")]).closed(1002));
    for (id, first) in [("5.16", 0x00), ("5.17", 0x80)] {
        let once = || [vec![frame(first, b"of nothing")], message()].concat();
        cases.push(Case::new(id).sends(Cut::Nowhere, [once(), once()].concat(), []).closed(1002));
    }
    let both_begin = [frame(0x01, b"one "), frame(0x81, b"message")];
    cases.push(Case::new("5.18").sends(Cut::Nowhere, both_begin, []).closed(1002));
    cases
}

/// A message of five fragments with a ping in each half. The second half comes when the first ping is answered.
fn pauses() -> Vec<Case> {
    [("5.19", Cut::Nowhere), ("5.20", Cut::BetweenFrames)]
        .map(|(id, cut)| {
            let parts = fragments(0x01, [&b"a"[..], b"b", b"c", b"d", b"e"]);
            let half = |parts: &[Vec<u8>], ping: &[u8]| [parts, &[frame(0x89, ping)]].concat();
            let second = [half(&parts[2..4], b"second"), parts[4..].to_vec()].concat();
            Case::new(id).sends(cut, half(&parts[..2], b"first"), [pong(b"first")]).sends(
                cut,
                second,
                [pong(b"second"), Message::text("abcde")],
            )
        })
        .into()
}
